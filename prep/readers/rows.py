"""What every reader returns: rows of ratings, items, and the two tables of `prep.sources.base.RawData`."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

_FINER_THAN_SECONDS = 10**11  # as seconds this is the year 5138, as milliseconds 1973


class BadLineError(ValueError):
    """A line that cannot be used; the message is the reason, the same for all lines of its kind."""


class Item(NamedTuple):
    """The description of an item; see `prep.sources.base.RawData.items`."""

    name: str
    categories: tuple[str, ...]
    attributes: dict[str, str]


@dataclass(frozen=True)
class EncodedIds:
    """A column of ids: `codes` int32[R] are positions in `values`, which may contain an id twice."""

    codes: np.ndarray
    values: Sequence[str]

    def among(self, ids: Set[str]) -> np.ndarray:
        """Which rows have an id that is in `ids`, bool[R]."""
        is_among = np.array([value in ids for value in self.values], bool)
        return is_among[self.codes]


@dataclass(frozen=True)
class RatingRows:
    """R valid rows, in the order of the file.

    Attributes:
        user, item: ids, trimmed and not empty.
        rating: float32[R], on the scale.
        time: int64[R], in the unit of the file; zeros where it has no times.
        text: length R; None where texts are not wanted or the file has none.
        duration: float32[R], above 0, NaN where one is missing; None where the file has none.
    """

    user: EncodedIds
    item: EncodedIds
    rating: np.ndarray
    time: np.ndarray
    text: Sequence[str | None] | None = None
    duration: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rating)

    def select(self, keep: np.ndarray) -> "RatingRows":
        """The rows for which bool[R] is true, without their texts."""
        return RatingRows(
            user=replace(self.user, codes=self.user.codes[keep]),
            item=replace(self.item, codes=self.item.codes[keep]),
            rating=self.rating[keep],
            time=self.time[keep],
            duration=None if self.duration is None else self.duration[keep],
        )


class RatingsCollector:
    """Joins blocks of rows: 20 bytes a row, and each distinct id once."""

    def __init__(self) -> None:
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._columns: tuple[list[np.ndarray], ...] = ([], [], [], [])
        self._durations: list[np.ndarray] = []
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, rows: RatingRows) -> None:
        """Append rows. Values of `EncodedIds` that no row uses are not kept."""
        self._rows += len(rows)
        parts = (
            _merge(self._users, rows.user),
            _merge(self._items, rows.item),
            rows.rating,
            rows.time,
        )
        for column, part in zip(self._columns, parts, strict=True):
            column.append(part)
        if rows.duration is not None:
            self._durations.append(rows.duration)

    def build(self) -> pd.DataFrame:
        """The table of `RawData.ratings`; the collector is empty afterwards."""
        dtypes = (np.int32, np.int32, np.float32, np.int64)
        users, items, ratings, times = (
            _joined(column, dtype) for column, dtype in zip(self._columns, dtypes, strict=True)
        )
        table = ratings_table(
            users, list(self._users), items, list(self._items), ratings, whole_seconds(times)
        )
        return (
            table.assign(duration=_joined(self._durations, np.float32))
            if self._durations
            else table
        )


def _merge(code_of_id: dict[str, int], column: EncodedIds) -> np.ndarray:
    """Encode a column with the codes of `code_of_id`, which takes up its new ids; int32[R]."""
    new_codes = np.full(len(column.values), -1, np.int32)
    used = np.bincount(column.codes, minlength=len(column.values))
    for code in np.flatnonzero(used).tolist():
        new_codes[code] = code_of_id.setdefault(column.values[code], len(code_of_id))
    return new_codes[column.codes]


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    joined: np.ndarray = np.empty(sum(map(len, parts)), dtype)
    ends = np.cumsum([0, *map(len, parts)])
    for start, end in pairwise(ends.tolist()):
        joined[start:end] = parts.pop(0)  # so that the rows are not in memory twice
    return joined


def whole_seconds(time: np.ndarray) -> np.ndarray:
    """Convert times to seconds, in place.

    Milli-, micro- and nanoseconds are recognised by their size, if all of the numbers have it.

    Args:
        time: int64[M].
    """
    while len(time) and time.min() > _FINER_THAN_SECONDS:
        time //= 1000
    return time


@dataclass(frozen=True)
class RereadTexts:
    """The texts of a table, from reading it again; see `prep.sources.base.Reviews`.

    Attributes:
        read: returns the rows of the table with their texts: the same rows in the same order each time.
    """

    read: Callable[[], Iterator[RatingRows]]

    def texts(self, rows: np.ndarray) -> Iterator[tuple[int, str]]:
        """See `prep.sources.base.Reviews.texts`.

        Raises:
            InputError: the table can no longer be read, or was changed in the meantime.
        """
        start = done = 0
        for block in self.read():
            until = int(np.searchsorted(rows, start + len(block)))
            for row in rows[done:until].tolist():
                text = (block.text[row - start] or "").strip() if block.text is not None else ""
                if text:
                    yield row, text
            start, done = start + len(block), until
            if done == len(rows):
                return


def ratings_table(
    user: np.ndarray,
    user_ids: Sequence[str],
    item: np.ndarray,
    item_ids: Sequence[str],
    rating: np.ndarray,
    time: np.ndarray,
) -> pd.DataFrame:
    """Make the table of `RawData.ratings` from codes and the distinct ids that they stand for.

    Args:
        user, item: integer[M], positions in `user_ids` and `item_ids`.
        user_ids, item_ids: distinct raw ids, in any order.
        rating: float32[M].
        time: int64[M], seconds.
    """
    return pd.DataFrame(
        {
            "user_id": pd.Categorical.from_codes(user, pd.Index(user_ids, dtype=str)),
            "item_id": pd.Categorical.from_codes(item, pd.Index(item_ids, dtype=str)),
            "rating": np.asarray(rating, np.float32),
            "time": np.asarray(time, np.int64),
        }
    )


def items_table(items: Mapping[str, Item]) -> pd.DataFrame:
    """Make the table of `RawData.items` from the items by their ids."""
    described = items.values()
    return pd.DataFrame(
        {
            "item_id": pd.Series(list(items), dtype=str),
            "name": pd.Series([item.name for item in described], dtype=str),
            "categories": pd.Series([item.categories for item in described], dtype=object),
            "attributes": pd.Series([item.attributes for item in described], dtype=object),
        }
    )
