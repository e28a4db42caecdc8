"""From ratings to interactions as arrays: which are kept, their indices, order, likes and splits."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from jaxsim import InputError
from jaxsim.dataset import MIN_INTERACTIONS, TEST, TRAIN, VALIDATION
from prep.order import Order, permutation_keys

SplitRule = Literal["ratio", "loo"]
_SEED_OF_USERS = 0


def sorted_ids(ids: Iterable[str]) -> list[str]:
    """Distinct raw ids in ascending order: as numbers if all are whole numbers, else as text."""
    distinct = set(ids)
    if all(raw.isascii() and raw.isdigit() for raw in distinct):
        return sorted(distinct, key=lambda raw: (int(raw), raw))
    return sorted(distinct)


@dataclass(frozen=True)
class Interactions:
    """The interactions of all users, user after user, those of a user in their `order`.

    Attributes:
        users, items: raw ids in index order; U and N of them.
        arrays: `user_offsets` int64[U + 1] and, of length M, `interaction_item` int32,
            `interaction_label` int8 (1 like), `interaction_rating` float32, `interaction_time`
            int64 and `interaction_split` int8, as in `jaxsim.dataset.ARRAY_SCHEMA`.
        rows: int64[M], the row of each interaction in the table of ratings.
        duplicates: how many ratings were dropped because the user rated the item again later.
        too_few: how many others were dropped because their user or item has too few ratings.
        order: what the interactions of a user are ordered by.
    """

    users: list[str]
    items: list[str]
    arrays: dict[str, np.ndarray]
    rows: np.ndarray
    duplicates: int
    too_few: int
    order: Order

    @property
    def users_of_rows(self) -> np.ndarray:
        """int64[M], the index of each interaction's user."""
        counts = np.diff(self.arrays["user_offsets"])
        return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def index_interactions(
    ratings: pd.DataFrame,
    like_threshold: float,
    more_items: Iterable[str] = (),
    min_user_ratings: int = 1,
    min_item_ratings: int = 1,
    split: SplitRule = "ratio",
    order: Order = "time",
    order_seed: int = 0,
    limit_users: int | None = None,
) -> Interactions:
    """Keep a user's last rating of each item by (time, original row), order each user's ratings, and split them.

    Args:
        ratings: as in `prep.sources.base.RawData`.
        like_threshold: a rating of at least this is a like.
        more_items: raw ids of items that belong to the catalogue even if they have no rating.
        min_user_ratings, min_item_ratings: users and items with fewer ratings are dropped until all others have
            as many (the k-core, if both are k).
        split: as for `split_codes`.
        order: what a user's ratings are ordered by, as `prep.order.choose_order` says. "time": by (time, original
            row). "permutation": by `prep.order.permutation_keys`. "file": by original row; all times are equal.
        order_seed: of the permutation.
        limit_users: keep the ratings of so many users, drawn before anything is dropped; the same in every build.

    Raises:
        InputError: no rating is left.
    """
    user, user_ids = _codes(ratings["user_id"])
    item, item_ids = _codes(ratings["item_id"])
    time = ratings["time"].to_numpy(np.int64)
    drawn = _rows_of_users(user, limit_users)
    rows = drawn[_last_of_pairs(user[drawn], item[drawn], time[drawn])]
    unique = len(rows)
    rows = rows[k_core(user[rows], item[rows], min_user_ratings, min_item_ratings)]
    if not len(rows):
        raise InputError(
            f"no user has {min_user_ratings} ratings of items with {min_item_ratings}: "
            "lower --min-user-ratings or --min-item-ratings"
        )
    users = sorted_ids(user_ids[np.unique(user[rows])])
    items = sorted_ids([*item_ids[np.unique(item[rows])], *more_items])
    place_of_user = pd.Index(users).get_indexer(pd.Index(user_ids))
    place_of_item = pd.Index(items).get_indexer(pd.Index(item_ids)).astype(np.int32)
    if order == "permutation":
        keys = permutation_keys(user[rows], user_ids, item[rows], item_ids, order_seed)
        rows = rows[np.argsort(keys, kind="stable")]
    rows = rows[np.argsort(place_of_user[user[rows]], kind="stable")]
    counts = np.bincount(place_of_user[user[rows]], minlength=len(users))
    rating = ratings["rating"].to_numpy(np.float32)[rows]
    arrays = {
        "user_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "interaction_item": place_of_item[item[rows]],
        "interaction_label": (rating >= like_threshold).astype(np.int8),
        "interaction_rating": rating,
        "interaction_time": time[rows],
        "interaction_split": split_codes(counts, split),
    }
    duplicates, too_few = len(drawn) - unique, unique - len(rows)
    return Interactions(users, items, arrays, rows, duplicates, too_few, order)


def _rows_of_users(user: np.ndarray, limit: int | None) -> np.ndarray:
    """The rows of `limit` random users, or of all if there are not more, int64[n]; `user` has one of each row."""
    if limit is None:
        return np.arange(len(user))
    chosen = np.random.default_rng(_SEED_OF_USERS).permutation(np.unique(user))[:limit]
    return np.flatnonzero(np.isin(user, chosen))


def _last_of_pairs(user: np.ndarray, item: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The row of the last rating of each pair of user and item, int64[M], by (user, time, row)."""
    rows = np.lexsort((time, user))  # stable: rows of a second stay in their order
    pairs = pd.Series(user[rows].astype(np.int64) * (int(item.max(initial=0)) + 1) + item[rows])
    return rows[~pairs.duplicated(keep="last").to_numpy()]


def _codes(ids: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Integer codes of a column of ids, and the distinct ids that they stand for (object)."""
    column = ids.astype("category").cat
    return column.codes.to_numpy(), column.categories.to_numpy(object)


def k_core(
    user: np.ndarray, item: np.ndarray, min_user_ratings: int, min_item_ratings: int
) -> np.ndarray:
    """bool[M]: the ratings that remain once all users and items with fewer ratings are dropped."""
    kept = np.ones(len(user), bool)
    while True:
        user_counts = np.bincount(user[kept], minlength=user.max(initial=0) + 1)
        item_counts = np.bincount(item[kept], minlength=item.max(initial=0) + 1)
        enough = (user_counts[user] >= min_user_ratings) & (item_counts[item] >= min_item_ratings)
        if enough[kept].all():
            return kept
        kept &= enough


def split_codes(counts: np.ndarray, rule: SplitRule = "ratio") -> np.ndarray:
    """Split each user's n interactions in their order; users with fewer than five are all train.

    Args:
        counts: int[U], how many interactions each user has.
        rule: "ratio": train up to floor(0.8 n), validation up to floor(0.9 n), then test. "loo" (leave one out):
            the last is test, the one before it validation, the others are train.

    Returns:
        int8[sum of counts], user after user: TRAIN, VALIDATION or TEST.
    """
    counts = np.asarray(counts, np.int64)
    starts = np.cumsum(counts) - counts
    position = np.arange(counts.sum(), dtype=np.int64) - np.repeat(starts, counts)
    total = np.repeat(counts, counts)
    if rule == "loo":
        first_validation, first_test = total - 2, total - 1
    else:
        first_validation, first_test = total * 8 // 10, total * 9 // 10
    split = np.full(len(position), TRAIN, np.int8)
    split[position >= first_validation] = VALIDATION
    split[position >= first_test] = TEST
    split[total < MIN_INTERACTIONS] = TRAIN
    return split
