"""Blocks of ratings on their way from a table, CSV or Parquet, to `prep.sources.base.RawData`."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pandas as pd

from prep.sources.base import ratings_table

NUMBER, DATE = "a number of seconds", "an ISO 8601 date"
TIME_LIMIT = 1 << 62
_FINER_THAN_SECONDS = 10**11  # in seconds the year 5138, in milliseconds 1973
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,9})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scale:
    """The ratings that a dataset knows.

    Attributes:
        low, high: both included.
        others: numbers outside that mean something too, such as -1 for "not rated".
    """

    low: float = -_FLOAT32_MAX
    high: float = _FLOAT32_MAX
    others: tuple[float, ...] = ()

    def holds(self, ratings: np.ndarray) -> np.ndarray:
        """Which of float64[R] are on the scale, as bool[R]; NaN is not."""
        inside = (ratings >= self.low) & (ratings <= self.high)
        return inside | np.isin(ratings, self.others) if self.others else inside

    def __contains__(self, rating: float) -> bool:
        return self.low <= rating <= self.high or rating in self.others

    def __str__(self) -> str:
        if self.high == _FLOAT32_MAX:
            return "a finite number"
        others = "".join(f" or {other:g}" for other in self.others)
        return f"a number from {self.low:g} to {self.high:g}{others}"


@dataclass(frozen=True)
class Coded:
    """A column of ids: `codes` int32[R], places in `values`, which may repeat an id."""

    codes: np.ndarray
    values: Sequence[str]


@dataclass(frozen=True)
class RatingRows:
    """R rows that could be read, in the order of the file.

    Attributes:
        user, item: ids, trimmed and not empty.
        rating: float32[R], on the scale.
        time: int64[R], in the unit of the file; zeros where it has none.
        text: length R; None where it is not asked for, or the file has none.
    """

    user: Coded
    item: Coded
    rating: np.ndarray
    time: np.ndarray
    text: Sequence[str | None] | None = None

    def __len__(self) -> int:
        return len(self.rating)

    def select(self, keep: np.ndarray, text: Sequence[str | None] | None = None) -> "RatingRows":
        """The rows for which bool[R] is true, with `text` as their texts."""
        return RatingRows(
            user=replace(self.user, codes=self.user.codes[keep]),
            item=replace(self.item, codes=self.item.codes[keep]),
            rating=self.rating[keep],
            time=self.time[keep],
            text=text,
        )


class TimeForm:
    """The form of a column of times: that of the first row decides for the whole file.

    Attributes:
        kind: `NUMBER` or `DATE`; None before the first row.
    """

    def __init__(self) -> None:
        self.kind: str | None = None

    def parse(self, text: str) -> int | None:
        """Read a time of the file's form: the number rounded down, or a date's seconds since 1970.

        A date without an offset is in UTC. None if it is neither, or of another form than the first row's.
        """
        kind, value = (
            (NUMBER, _parse_number(text)) if _DECIMAL.fullmatch(text) else _parse_date(text)
        )
        if value is None or self.kind not in (None, kind):
            return None
        self.kind = kind
        return value


def _parse_number(text: str) -> int | None:
    value = int(text) if _INTEGER.fullmatch(text) else float(text)
    return math.floor(value) if abs(value) <= TIME_LIMIT else None


def _parse_date(text: str) -> tuple[str, int | None]:
    try:
        date = datetime.fromisoformat(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return DATE, (date - _EPOCH).days * 86_400 + (date - _EPOCH).seconds
    except (ValueError, OverflowError):
        return DATE, None


def parse_rating(text: str) -> float:
    """Read a decimal number; NaN where it is none."""
    return float(text) if _DECIMAL.fullmatch(text) else math.nan


def whole_seconds(time: np.ndarray) -> np.ndarray:
    """Turn numbers into seconds, in place.

    Milli-, micro- and nanoseconds are recognised by their size, if all of the numbers have it.

    Args:
        time: int64[M].
    """
    while len(time) and time.min() > _FINER_THAN_SECONDS:
        time //= 1000
    return time


class RatingsCollector:
    """Puts blocks of rows together: 20 bytes a row, and each distinct id once."""

    def __init__(self) -> None:
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._columns: tuple[list[np.ndarray], ...] = ([], [], [], [])
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, rows: RatingRows) -> None:
        """Append rows; an id that none of them has is passed over."""
        self._rows += len(rows)
        parts = (
            _merge(self._users, rows.user),
            _merge(self._items, rows.item),
            rows.rating,
            rows.time,
        )
        for column, part in zip(self._columns, parts, strict=True):
            column.append(part)

    def build(self) -> pd.DataFrame:
        """The table of `RawData.ratings`; the collector is empty afterwards."""
        users, items, ratings, times = (
            _joined(column, kind)
            for column, kind in zip(
                self._columns, (np.int32, np.int32, np.float32, np.int64), strict=True
            )
        )
        return ratings_table(
            users, list(self._users), items, list(self._items), ratings, whole_seconds(times)
        )


def _merge(known: dict[str, int], column: Coded) -> np.ndarray:
    """The codes of a column in a dictionary of all ids, which takes up the new ones."""
    code_of = np.full(len(column.values), -1, np.int32)
    present = np.bincount(column.codes, minlength=len(column.values))
    for place in np.flatnonzero(present).tolist():
        code_of[place] = known.setdefault(column.values[place], len(known))
    return code_of[column.codes]


def _joined(parts: list[np.ndarray], kind: type) -> np.ndarray:
    joined: np.ndarray = np.empty(sum(map(len, parts)), kind)
    ends = np.cumsum([0, *map(len, parts)])
    for start, end in pairwise(ends.tolist()):
        joined[start:end] = parts.pop(0)  # so that the rows are not in memory twice
    return joined


@dataclass(frozen=True)
class RereadTexts:
    """The texts of a table, from reading it again; see `prep.sources.base.Reviews`.

    Attributes:
        read: gives the rows of the table with their texts, the same rows in the same order each time.
    """

    read: Callable[[], Iterator[RatingRows]]

    def texts(self, rows: np.ndarray) -> Iterator[tuple[int, str]]:
        """See `prep.sources.base.Reviews.texts`.

        Raises:
            InputError: the table cannot be read any more, or was changed since.
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
