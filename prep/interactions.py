"""Interactions as arrays: indices, order, likes and splits."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jaxsim.dataset import MIN_INTERACTIONS, TEST, TRAIN, VALIDATION


def sorted_ids(ids: Iterable[str]) -> list[str]:
    """Distinct raw ids in ascending order: as numbers if all are whole numbers, else as text."""
    distinct = set(ids)
    if all(raw.isascii() and raw.isdigit() for raw in distinct):
        return sorted(distinct, key=lambda raw: (int(raw), raw))
    return sorted(distinct)


@dataclass(frozen=True)
class Interactions:
    """The interactions of all users, user after user, each user's in the order of time.

    Attributes:
        users: raw ids in index order; U of them.
        arrays: `user_offsets` int64[U + 1] and, of length M, `interaction_item` int32,
            `interaction_label` int8 (1 like), `interaction_rating` float32, `interaction_time`
            int64 and `interaction_split` int8, as in `jaxsim.ARRAY_SCHEMA`.
        duplicates: how many ratings were dropped because the user rated the item again later.
    """

    users: list[str]
    arrays: dict[str, np.ndarray]
    duplicates: int


def index_interactions(
    ratings: pd.DataFrame, items: list[str], like_threshold: float
) -> Interactions:
    """Order the ratings by (user, time, original row), keep a user's last of each item, and split.

    Args:
        ratings: as in `prep.tables.RawData`.
        items: raw ids in index order; every rated item is among them.
        like_threshold: a rating of at least this is a like.
    """
    users = sorted_ids(ratings["user_id"])
    user = pd.Index(users).get_indexer(pd.Index(ratings["user_id"]))
    item = pd.Index(items).get_indexer(pd.Index(ratings["item_id"]))
    rating = ratings["rating"].to_numpy(np.float32)
    time = ratings["time"].to_numpy(np.int64)
    order = np.lexsort((np.arange(len(user)), time, user))
    pairs = pd.DataFrame({"user": user[order], "item": item[order]})
    order = order[~pairs.duplicated(keep="last").to_numpy()]
    counts = np.bincount(user[order], minlength=len(users))
    return Interactions(
        users=users,
        arrays={
            "user_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "interaction_item": item[order].astype(np.int32),
            "interaction_label": (rating[order] >= like_threshold).astype(np.int8),
            "interaction_rating": rating[order],
            "interaction_time": time[order],
            "interaction_split": np.concatenate([split_codes(count) for count in counts]),
        },
        duplicates=len(user) - len(order),
    )


def split_codes(count: int) -> np.ndarray:
    """Split a user's `count` interactions in order: the first 80 % train, 10 % validation.

    Returns:
        int8[count]: train up to floor(0.8 n), validation up to floor(0.9 n), then test; all train
        if there are fewer than five.
    """
    split = np.full(count, TRAIN, np.int8)
    if count >= MIN_INTERACTIONS:
        split[count * 8 // 10 :] = VALIDATION
        split[count * 9 // 10 :] = TEST
    return split
