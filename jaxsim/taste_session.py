"""The taste model's posterior in a session, updated one interaction at a time.

The Cholesky factor L of K_hh + I gets one row for each interaction: with k = k(c, h), l = L^-1 k and
d^2 = k(c, c) + 1 - l'l, the row is [l', d]. The scores z get (y - m - b_c - g(c)) / d, where g(c) = l'z. So a step
needs l once, for the taste and for the update, and the rows before stay as they are.

L is cut into blocks, so that l comes from a few products and not from W steps one after the other: the H rows of
the initial history, then rows of the session, `_BLOCK_ROWS` or more at a time. Of a block on the diagonal the
inverse is stored, of the rest of its rows the factor itself:

    l_0 = L_00^-1 k_0,   l_j = L_jj^-1 (k_j - [L_j0 ... L_j,j-1] [l_0; ...; l_j-1])

The order of rows is that of the factor: the initial history, with padding up to H, then the session. In the window
the session follows the last interaction of the history.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxsim.signals import residuals
from jaxsim.taste import (
    Posterior,
    TasteModel,
    expected_tastes,
    kernel_with,
    own_kernel,
    product,
    residual_of,
)

_BLOCK_ROWS, _MOST_BLOCKS = 25, 8


@struct.dataclass
class SessionPosterior:
    """The posterior of H positions of initial history and S of the session, S = J b in J blocks.

    Rows of interactions that are not there yet are meaningless: another session may have left them.

    Attributes:
        history: float32[H, H], the inverse of the initial history's factor.
        rows: for each block j float32[b, H + j b], its rows of the factor, left of the diagonal.
        inverses: float32[J, b, b], the inverses of the blocks on the diagonal.
        scores: float32[H + S], z.
        signal_scores: float32[H + S, C], z of C signals (`jaxsim.signals`); None without any.
    """

    history: jax.Array
    rows: tuple[jax.Array, ...]
    inverses: jax.Array
    scores: jax.Array
    signal_scores: jax.Array | None = None


class Place(NamedTuple):
    """The window in the order of the factor's rows.

    Attributes:
        items: int32[H + S].
        position: int32[H + S], in the window.
        valid: bool[H + S].
        history_length: int32[], interactions of the initial history.
        length: int32[], interactions in the window.
    """

    items: jax.Array
    position: jax.Array
    valid: jax.Array
    history_length: jax.Array
    length: jax.Array


class Projection(NamedTuple):
    """A candidate against the posterior.

    Attributes:
        item: int32[].
        coefficients: float32[H + S], l.
        taste: float32[], g.
        signal_tastes: float32[C], g of each signal; None without any.
    """

    item: jax.Array
    coefficients: jax.Array
    taste: jax.Array
    signal_tastes: jax.Array | None


def block_shape(capacity: int) -> tuple[int, int]:
    """Number of blocks J and rows b of each, for a session of at most `capacity` interactions."""
    rows = max(_BLOCK_ROWS, math.ceil(capacity / _MOST_BLOCKS))
    return math.ceil(capacity / rows), rows


def begin(posterior: Posterior, capacity: int, whole: bool) -> SessionPosterior:
    """The posterior of a new session.

    Args:
        posterior: of the initial history.
        capacity: the most interactions of the session.
        whole: whether the arrays of the session are there, as zeros; otherwise they have no rows, for writing the
            new session over an old one.
    """
    size, (count, rows) = posterior.scores.shape[0], block_shape(capacity)
    blocks, height = (count, rows) if whole else (0, 0)
    of_signals = posterior.signal_scores
    if of_signals is not None and whole:
        of_signals = jnp.pad(of_signals, ((0, count * rows), (0, 0)))
    return SessionPosterior(
        history=posterior.inverse_factor,
        rows=tuple(jnp.zeros((height, size + j * rows), jnp.float32) for j in range(count)),
        inverses=jnp.zeros((blocks, rows, rows), jnp.float32),
        scores=jnp.pad(posterior.scores, (0, count * rows)) if whole else posterior.scores,
        signal_scores=of_signals,
    )


def place(
    session: SessionPosterior, items: jax.Array, history_length: jax.Array, length: jax.Array
) -> Place:
    """The window's items int32[W] in the order of the factor."""
    size = session.history.shape[0]
    extra = session.scores.shape[0] - size
    following = jax.lax.dynamic_slice(jnp.pad(items, (0, extra)), (history_length,), (extra,))
    before, after = jnp.arange(size, dtype=jnp.int32), jnp.arange(extra, dtype=jnp.int32)
    return Place(
        items=jnp.concatenate([items[:size], following]),
        position=jnp.concatenate([before, history_length + after]),
        valid=jnp.concatenate([before < history_length, after < length - history_length]),
        history_length=history_length,
        length=length,
    )


def project(
    model: TasteModel, session: SessionPosterior, window: Place, candidate: jax.Array
) -> Projection:
    """A candidate int32[] against the posterior: one pass over the factor."""
    return with_tastes(
        session, candidate, solve(session, window, kernel_of(model, window, candidate))
    )


def kernel_of(model: TasteModel, window: Place, candidate: jax.Array) -> jax.Array:
    """The kernel of a candidate int32[] that comes next with the window's interactions, float32[H + S]."""
    return kernel_with(model, candidate, window.items, window.position, window.valid, window.length)


def solve(session: SessionPosterior, window: Place, kernel: jax.Array) -> jax.Array:
    """L = L^-1 k of a kernel float32[H + S], or of R kernels float32[H + S, R] in one pass over the factor."""
    size, rows = session.history.shape[0], session.inverses.shape[-1]
    solved = product(session.history, kernel[:size])
    for j, before in enumerate(session.rows):
        first = size + j * rows
        rest = kernel[first : first + rows] - product(before, solved)
        # Rows that are not there yet would put anything here.
        valid = window.valid[first : first + rows]
        valid = valid if kernel.ndim == 1 else valid[:, None]
        solved = jnp.concatenate(
            [solved, jnp.where(valid, product(session.inverses[j], rest), 0.0)]
        )
    return solved


def with_tastes(
    session: SessionPosterior, candidate: jax.Array, coefficients: jax.Array
) -> Projection:
    """The projection of a candidate int32[] with its coefficients float32[H + S]."""
    of_signals = None
    if session.signal_scores is not None:
        of_signals = jnp.sum(coefficients[:, None] * session.signal_scores, axis=0)
    taste = jnp.sum(coefficients * session.scores)
    return Projection(candidate, coefficients, taste, of_signals)


def pivot_of(model: TasteModel, projection: Projection) -> jax.Array:
    """d, the new entry on the factor's diagonal, float32[]; at least 1, the noise."""
    square = own_kernel(model, projection.item) + 1.0
    return jnp.sqrt(square - jnp.sum(projection.coefficients**2))


def row_of(session: SessionPosterior, count: jax.Array) -> jax.Array:
    """The factor's row of the session's interaction number `count` int32[] from 0, int32[]."""
    return session.history.shape[0] + count


def update(
    model: TasteModel,
    session: SessionPosterior,
    window: Place,
    projection: Projection,
    like: jax.Array,
    valid: jax.Array,
    values: jax.Array | None = None,
) -> SessionPosterior:
    """The posterior after one more interaction.

    Args:
        model: the fitted model.
        session: the posterior before.
        window: before.
        projection: of the item.
        like: int8[], 1 like, any other number dislike.
        valid: bool[], False if nothing is appended.
        values: float32[C], the signals of the response; None without any.
    """
    item, solved, taste, signal_tastes = projection
    size, (count, rows, _) = session.history.shape[0], session.inverses.shape
    pivot = pivot_of(model, projection)
    slot = jnp.where(valid, window.length - window.history_length, count * rows)
    block, row = slot // rows, slot % rows
    inverse = session.inverses[jnp.minimum(block, count - 1)]
    mine = jax.lax.dynamic_slice(solved, (size + jnp.minimum(block, count - 1) * rows,), (rows,))
    # `mine` is zero from `row` on, so rows of the inverse that are not there yet do not count.
    new_row = (-product(mine, inverse) / pivot).at[row].set(1.0 / pivot)
    score = (residual_of(model, item, like) - taste) / pivot
    of_signals = session.signal_scores
    if of_signals is not None:
        assert model.signals is not None
        assert signal_tastes is not None
        rest = residuals(model.signals, item, like, values)
        new = (rest - signal_tastes) / pivot
        of_signals = of_signals.at[size + slot].set(new, mode="drop")
    # Always `solved`. But the pivot comes from all of it, so XLA sees that every block is read before a row is
    # written, and updates the blocks in place. It would copy a block whose new row needs only the blocks before.
    row_of_factor = jnp.where(pivot > 0, solved, 0.0)
    return SessionPosterior(
        history=session.history,
        rows=tuple(
            before.at[jnp.where(block == j, row, rows)].set(
                row_of_factor[: before.shape[1]], mode="drop"
            )
            for j, before in enumerate(session.rows)
        ),
        inverses=session.inverses.at[block, row].set(new_row, mode="drop"),
        scores=session.scores.at[size + slot].set(score, mode="drop"),
        signal_scores=of_signals,
    )


def tastes(model: TasteModel, session: SessionPosterior, window: Place) -> jax.Array:
    """The taste g for every item, float32[N]."""
    alpha = weights(session, window)
    return expected_tastes(model, alpha, window.items, window.position, window.length)


def weights(session: SessionPosterior, window: Place) -> jax.Array:
    """Alpha = L'^-1 z, the weight of each interaction, float32[H + S]; zero for rows that are not there."""
    size, rows = session.history.shape[0], session.inverses.shape[-1]
    # Rows that are not there yet hold finite numbers of an earlier session, and zeros here cancel them.
    left = jnp.where(window.valid, session.scores, 0.0)
    parts = []
    for j in reversed(range(len(session.rows))):
        mine = slice(size + j * rows, size + (j + 1) * rows)
        part = product(left[mine], session.inverses[j])
        left = left.at[: mine.start].add(-product(part, session.rows[j]))
        parts.append(part)
    parts.append(product(left[:size], session.history))
    return jnp.concatenate(parts[::-1])


def signal_tastes(model: TasteModel, session: SessionPosterior, window: Place) -> jax.Array:
    """The taste g of each of C signals for every item, float32[N, C]."""

    def of_one(scores: jax.Array) -> jax.Array:
        return tastes(model, replace(session, scores=scores), window)

    assert session.signal_scores is not None
    return jax.vmap(of_one, 1, 1)(session.signal_scores)
