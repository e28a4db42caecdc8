"""f_sim, the similarity model (Eq. 6 to 8), on cosines in integer millionths, tabled or computed on the fly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

COSINE_UNIT = 1_000_000
# Smaller than every cosine: stands for the maximum over nothing, and for pairs that Eq. 6 and 7 skip.
NO_COSINE = np.int32(-COSINE_UNIT - 1)
_ROWS_AT_ONCE = 4096


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """The rows of float[N, D] at unit length, float64[N, D]; zero rows stay zero."""
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.divide(exact, norms, out=np.zeros_like(exact), where=norms > 0)


def cosine_table(vectors: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows of float32[N, D] in millionths, int32[N, N]; NO_COSINE for zero rows.

    It is computed in float64 on the host, so that a tie is integer equality on every device.
    """
    unit = unit_vectors(vectors)
    has_vector = unit.any(axis=1)
    cosines = np.empty((len(unit), len(unit)), np.int32)
    for start in range(0, len(unit), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        cosines[rows] = np.rint(unit[rows] @ unit.T * COSINE_UNIT)
    # A matrix product may differ from its transpose in the last bit; ties must not.
    cosines = np.maximum(cosines, cosines.T)
    cosines[~has_vector] = NO_COSINE
    cosines[:, ~has_vector] = NO_COSINE
    return cosines


def cosines(own: jax.Array, others: jax.Array) -> jax.Array:
    """Cosines of unit vectors, computed on the fly at full float32 precision and rounded to millionths.

    They differ from those of `cosine_table` by at most one millionth.

    Args:
        own: float32[P, D].
        others: float32[..., D].

    Returns:
        int32[..., P]; 0 for zero vectors.
    """
    chex.assert_rank(own, 2)
    product = jnp.einsum(
        "pd,...d->...p",
        own,
        others,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return in_millionths(product)


def in_millionths(cosine: jax.Array) -> jax.Array:
    """Cosines float32[...] rounded to millionths, int32[...]."""
    return jnp.rint(jnp.clip(cosine, -1.0, 1.0) * COSINE_UNIT).astype(jnp.int32)


def betas(cosine: jax.Array, liked: jax.Array, disliked: jax.Array) -> tuple[jax.Array, jax.Array]:
    """beta_pos and beta_neg, each int32[] millionths (Eq. 6, 7); NO_COSINE is the maximum over nothing.

    Args:
        cosine: int32[H], of the candidate and each history item, in the polarity of its label.
        liked, disliked: bool[H], membership of I_pos and of I_neg.
    """
    chex.assert_equal_shape([cosine, liked, disliked])
    return (
        jnp.max(jnp.where(liked, cosine, NO_COSINE), initial=NO_COSINE),
        jnp.max(jnp.where(disliked, cosine, NO_COSINE), initial=NO_COSINE),
    )


def to_float(beta: jax.Array) -> jax.Array:
    """A cosine in millionths as float32; NO_COSINE becomes -inf."""
    return jnp.where(beta == NO_COSINE, -jnp.inf, beta.astype(jnp.float32) / COSINE_UNIT)
