"""f_mat, the keyword-matching model (Eq. 1 to 3): counts of shared keywords, tabled or computed on the fly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

_WORD_BITS = 32


def shared_table(members: np.ndarray) -> np.ndarray:
    """Number of values that each pair of rows of int32[N, K] (-1 pads) shares, int32[N, N], on the host."""
    rows, columns = np.nonzero(members >= 0)
    values = members[rows, columns]
    width = int(values.max(initial=0)) + 1
    ones = np.ones(len(rows), np.int32)
    incidence = sparse.csr_array((ones, (rows, values)), shape=(len(members), width))
    return (incidence @ incidence.T).toarray()


def pack_members(members: np.ndarray, size: int) -> np.ndarray:
    """The rows of int32[N, K] (-1 pads, values below `size`) as bit sets, uint32[N, max(1, ceil(size / 32))]."""
    bits = np.zeros((len(members), max(1, -(-size // _WORD_BITS))), np.uint32)
    rows, columns = np.nonzero(members >= 0)
    values = members[rows, columns]
    flags = np.left_shift(np.uint32(1), (values % _WORD_BITS).astype(np.uint32))
    np.bitwise_or.at(bits, (rows, values // _WORD_BITS), flags)
    return bits


def count_common_bits(own: jax.Array, others: jax.Array) -> jax.Array:
    """|D(c) & D(i)| of bit sets by population count (Eq. 1, 2).

    Args:
        own, others: uint32[..., words], of `pack_members`, with shapes that broadcast.

    Returns:
        int32[...].
    """
    chex.assert_equal_shape_suffix([own, others], 1)
    return jnp.sum(jax.lax.population_count(own & others), axis=-1, dtype=jnp.int32)


def is_shared(own: jax.Array, others: jax.Array) -> jax.Array:
    """Which keywords of `others` the candidate has too (Eq. 1, 2).

    Args:
        own: int32[..., K], keywords of the candidate, -1 pads.
        others: int32[..., K], keywords of history items, -1 pads, with a shape that broadcasts.

    Returns:
        bool[..., K].
    """
    return (own[..., :, None] == others[..., None, :]).any(axis=-2) & (others >= 0)


def alphas(shared: jax.Array, liked: jax.Array, disliked: jax.Array) -> tuple[jax.Array, jax.Array]:
    """alpha_pos and alpha_neg, each int32[] (Eq. 1, 2).

    Args:
        shared: int32[H], number of keywords that the candidate shares with each history item, in the polarity of
            its label.
        liked, disliked: bool[H], membership of I_pos and of I_neg.
    """
    chex.assert_equal_shape([shared, liked, disliked])
    return (
        jnp.sum(jnp.where(liked, shared, 0), dtype=jnp.int32),
        jnp.sum(jnp.where(disliked, shared, 0), dtype=jnp.int32),
    )
