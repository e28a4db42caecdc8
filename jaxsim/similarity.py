"""f_sim, the similarity model (Eq. 6 to 8), on cosines in integer millionths."""

import chex
import jax
import jax.numpy as jnp

from jaxsim.catalogue import COSINE_UNIT, NO_COSINE, Catalogue


def cosines(
    catalogue: Catalogue, candidate: jax.Array, items: jax.Array, likes: jax.Array
) -> jax.Array:
    """Cosine of the candidate to each history item, in the polarity of its label, int32[H] millionths.

    Args:
        catalogue: item-pair tables.
        candidate: int32[].
        items: int32[H] history items; the result means nothing where an item is padding.
        likes: int8[H]; 1 compares E_pos, otherwise E_neg.

    Returns:
        Millionths; NO_COSINE where the candidate or the item has no keyword of that polarity.
    """
    chex.assert_rank([candidate, items, likes], [0, 1, 1])
    polarity = (likes > 0).astype(jnp.int32)
    return catalogue.cosine[candidate, polarity, jnp.maximum(items, 0)]


def betas(similar: jax.Array, liked: jax.Array, disliked: jax.Array) -> tuple[jax.Array, jax.Array]:
    """beta_pos and beta_neg, each int32[] millionths (Eq. 6, 7); NO_COSINE is the maximum over nothing.

    Args:
        similar: int32[H] of `cosines`.
        liked, disliked: bool[H], membership of I_pos and of I_neg.
    """
    chex.assert_equal_shape([similar, liked, disliked])
    return (
        jnp.max(jnp.where(liked, similar, NO_COSINE), initial=NO_COSINE),
        jnp.max(jnp.where(disliked, similar, NO_COSINE), initial=NO_COSINE),
    )


def to_float(beta: jax.Array) -> jax.Array:
    """A cosine in millionths as float32; NO_COSINE becomes -inf."""
    return jnp.where(beta == NO_COSINE, -jnp.inf, beta.astype(jnp.float32) / COSINE_UNIT)
