"""How alike each interaction of a log is to those shortly before it: for what users tire of, and leave."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Alike(NamedTuple):
    """Each of M interactions beside the one `lag` before it, for L lags.

    Attributes:
        present: bool[L, M], whether the user has one there.
        same_category: bool[L, M], whether both share a category name; where none is present, it means nothing.
        described: bool[L, M], whether it is present, and both have pros.
        cosine: float[L, M], of their pros (E_pos); where they are not described, it means nothing.
    """

    present: np.ndarray
    same_category: np.ndarray
    described: np.ndarray
    cosine: np.ndarray


def compare_with_earlier(
    item: np.ndarray,
    so_far: np.ndarray,
    arrays: Mapping[str, np.ndarray],
    lags: Sequence[int] | range,
) -> Alike:
    """Compare interactions with earlier ones of the same user.

    Args:
        item: int[M], user after user, in their order.
        so_far: int[M], interactions of the user up to this one.
        arrays: of the pack.
        lags: how far before.
    """
    earlier = [np.arange(len(item)) - lag for lag in lags]
    present = np.stack([so_far > lag for lag in lags])
    others = np.stack([item[np.maximum(place, 0)] for place in earlier])
    embedding = arrays["item_pos_embedding"]
    known = np.array([(row >= 0).any() for row in arrays["item_pos_keywords"]], bool)
    same = np.stack([_share_category(arrays["item_categories"], item, row) for row in others])
    cosine = np.stack([np.einsum("md,md->m", embedding[item], embedding[row]) for row in others])
    return Alike(present, same, present & known[item] & known[others], cosine)


def mean_where(where: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of values float[L, M] where bool[L, M], float64[M]; NaN over nothing."""
    count = where.sum(axis=0)
    return np.where(where, values, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan)


def _share_category(categories: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool[M]: whether items a and b, int[M], share a category name."""
    pairs = (categories[a][:, :, None] == categories[b][:, None]) & (categories[a] >= 0)[:, :, None]
    return pairs.any(axis=(1, 2))
