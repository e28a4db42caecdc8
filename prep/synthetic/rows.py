"""Padded rows of integers (-1 pads), and chunks of them."""

from collections.abc import Iterator

import numpy as np

CHUNK_ROWS = 32_768  # items or users


def chunks(total: int) -> Iterator[slice]:
    """Slices of at most CHUNK_ROWS rows that together cover `total` rows."""
    size = CHUNK_ROWS
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def first_distinct(candidates: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """The first distinct values of each row, int32[B, width], ascending and padded with -1.

    Args:
        candidates: int[B, W]; negative ones are never taken.
        counts: int[B], how many values to take at most, up to `width`.
        width: columns of the result.
    """
    order = np.argsort(candidates, axis=1, kind="stable")
    ordered = np.take_along_axis(candidates, order, axis=1)
    is_new = candidates >= 0
    repeated = np.zeros_like(is_new)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    is_new &= ~repeated
    chosen = is_new & (np.cumsum(is_new, axis=1) <= counts[:, None])
    return left_aligned(np.where(chosen, candidates, -1))[:, :width]


def left_aligned(rows: np.ndarray) -> np.ndarray:
    """Rows in ascending order, with each negative value as -1 at the end, int32[B, W]."""
    last = np.iinfo(np.int32).max
    ordered = np.sort(np.where(rows < 0, last, rows).astype(np.int32), axis=1)
    return np.where(ordered == last, np.int32(-1), ordered)


def trim(rows: np.ndarray) -> np.ndarray:
    """Rows without the columns that hold only padding, but with at least one column."""
    return np.ascontiguousarray(rows[:, : max(1, int((rows >= 0).sum(axis=1).max()))])


def random_columns(
    rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Random indices of columns that are not padding, for each left-aligned row, int64[B, W]."""
    lengths = (rows >= 0).sum(axis=1, keepdims=True)
    return (rng.random(shape) * lengths).astype(np.int64)


def count_shared(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Size of the intersection of each row of int32[B, K] with that of int32[B, L] (-1 pads), int64[B]."""
    equal = (rows[:, :, None] == others[:, None, :]) & (rows >= 0)[:, :, None]
    return equal.sum(axis=(1, 2))
