"""f_mat, the keyword-matching model (Eq. 1 to 3)."""

import chex
import jax
import jax.numpy as jnp

from jaxsim.catalogue import Catalogue


def matched_keywords(
    catalogue: Catalogue, candidate: jax.Array, items: jax.Array, likes: jax.Array
) -> jax.Array:
    """Keywords that the candidate shares with each history item, in the polarity of its label, int32[H].

    Args:
        catalogue: item-pair tables.
        candidate: int32[].
        items: int32[H] history items; the result means nothing where an item is padding.
        likes: int8[H]; 1 compares pros (D_pos), otherwise cons (D_neg).
    """
    chex.assert_rank([candidate, items, likes], [0, 1, 1])
    polarity = (likes > 0).astype(jnp.int32)
    return catalogue.overlap[candidate, polarity, jnp.maximum(items, 0)].astype(jnp.int32)


def alphas(
    matched: jax.Array, liked: jax.Array, disliked: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """alpha_pos and alpha_neg, each int32[] (Eq. 1, 2).

    Args:
        matched: int32[H] of `matched_keywords`.
        liked, disliked: bool[H], membership of I_pos and of I_neg.
    """
    chex.assert_equal_shape([matched, liked, disliked])
    return (
        jnp.sum(jnp.where(liked, matched, 0), dtype=jnp.int32),
        jnp.sum(jnp.where(disliked, matched, 0), dtype=jnp.int32),
    )
