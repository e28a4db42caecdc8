"""The check of rating rows, the same for CSV and Parquet: columns go in, valid rows and faults come out."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prep.readers.columns import RatingColumns
from prep.readers.rows import EncodedIds, RatingRows

NUMBER, DATE = "a number of seconds", "an ISO 8601 date"

_TIME_LIMIT = 1 << 62
_WHOLE_LIMIT = float(1 << 53)  # whole float64 numbers beyond this are not exact
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,9})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII)
# What Arrow casts to the same value as Python does, a hundred times faster.
_PLAIN_INTEGERS = r"^-?[0-9]{1,18}$"
_PLAIN_DATES = r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}:[0-9]{2})?$"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS = 1_000_000
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Fault = tuple[int, str]
"""A row that is not valid: its position in the batch, and the reason."""


@dataclass(frozen=True)
class Scale:
    """The ratings that a dataset may have.

    Attributes:
        low, high: the bounds, both included.
        others: numbers outside the bounds that have a meaning, such as -1 for "not rated".
    """

    low: float = -_FLOAT32_MAX
    high: float = _FLOAT32_MAX
    others: tuple[float, ...] = ()

    def holds(self, ratings: np.ndarray) -> np.ndarray:
        """Which of float64[R] are on the scale, as bool[R]; NaN is not."""
        inside = (ratings >= self.low) & (ratings <= self.high)
        return inside | np.isin(ratings, self.others) if self.others else inside

    def __str__(self) -> str:
        if self.high == _FLOAT32_MAX:
            return "a finite number"
        others = "".join(f" or {other:g}" for other in self.others)
        return f"a number from {self.low:g} to {self.high:g}{others}"


class RatingsValidator:
    """Checks the batches of one file, which must come in the order of the file.

    The first valid time decides whether the times of the file are numbers or dates; the others must be the same.

    Attributes:
        missing_duration: the first row of the latest batch that has a rating and no duration; None without any.
    """

    def __init__(self, columns: RatingColumns, scale: Scale) -> None:
        """Prepare to check.

        Args:
            columns: the names of the columns.
            scale: the ratings that are valid.
        """
        self._columns, self._scale = columns, scale
        self._time_form: str | None = None
        self.missing_duration: int | None = None

    def check(self, batch: Mapping[str, pa.Array]) -> tuple[RatingRows, list[Fault]]:
        """Check a batch.

        Args:
            batch: name of a column -> its R values. Texts may be strings or bytes, plain or dictionaries; bytes
                need not be UTF-8. Ids may also be numbers, and ratings and times numbers; times may also be dates
                or timestamps. The columns of times and texts may be absent.

        Returns:
            The valid rows, and one fault for each other row, in order.
        """
        columns = self._columns
        user, item = _Ids(batch[columns.user.name]), _Ids(batch[columns.item.name])
        duration, timed = self._durations(batch)
        if columns.rating.name in batch:
            rating = numbers_of(batch[columns.rating.name])
            rated = self._scale.holds(rating)
        else:
            assert duration is not None  # `find_columns` makes sure of it
            rating, rated = duration, np.isfinite(duration) | ~timed
        valid = user.valid & item.valid & rated & timed
        time = np.zeros(len(rating), np.int64)
        if columns.time and columns.time.name in batch:
            candidates = np.flatnonzero(valid)
            values = batch[columns.time.name]
            values = values if valid.all() else values.filter(pa.array(valid))
            time[candidates], valid[candidates] = self._times(values)
        faults = []
        for row in np.flatnonzero(~valid).tolist():
            if not user.valid[row]:
                reason = f"{columns.user.name} {user.fault(row)}"
            elif not item.valid[row]:
                reason = f"{columns.item.name} {item.fault(row)}"
            elif not rated[row]:
                reason = self._why_not_rated(batch)
            elif not timed[row]:
                reason = f"{columns.duration.name} is not a number above 0"  # type: ignore[union-attr]
            else:
                name = columns.time.name if columns.time else "time"
                reason = f"{name} is neither {NUMBER} nor {DATE}"
            faults.append((row, reason))
        texts = batch.get(columns.text.name) if columns.text else None
        rows = RatingRows(
            user=EncodedIds(user.codes, user.values),
            item=EncodedIds(item.codes, item.values),
            rating=np.where(valid, rating, 0).astype(np.float32),  # float32 would overflow
            time=time,
            duration=None if duration is None else np.where(valid, duration, 1).astype(np.float32),
        )
        missing = np.flatnonzero(valid & np.isnan(1 if duration is None else duration))
        self.missing_duration = int(missing[0]) if len(missing) else None
        if faults:
            rows = rows.select(valid)
            texts = texts.filter(pa.array(valid)) if texts is not None else None
        return (rows if texts is None else replace(rows, text=_texts(texts))), faults

    def _durations(self, batch: Mapping[str, pa.Array]) -> tuple[np.ndarray | None, np.ndarray]:
        """The durations as float64[R], NaN where one is missing, and bool[R]: which are missing or valid."""
        column, size = self._columns.duration, len(batch[self._columns.user.name])
        if column is None or column.name not in batch:
            return None, np.ones(size, bool)
        values, missing = numbers_of(batch[column.name]), _missing(batch[column.name])
        valid = (values > 0) & (values <= _FLOAT32_MAX)
        return np.where(valid, values, math.nan), valid | missing

    def _why_not_rated(self, batch: Mapping[str, pa.Array]) -> str:
        rating, duration = self._columns.rating, self._columns.duration
        if rating.name in batch or duration is None:
            return f"{rating.name} is not {self._scale}"
        return f"{duration.name} is missing, and there is no {rating.name}"

    def _times(self, array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """The times as int64[R], and bool[R]: which of them are valid."""
        kind = array.type
        if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            moments = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).fill_null(0)
            return _numpy(moments) // _MICROSECONDS, _numpy(array.is_valid())
        if is_text(kind):
            return self._times_of_texts(array)
        numbers = _numpy(array.cast(pa.float64(), safe=False).fill_null(math.nan))
        valid = np.abs(numbers) <= _TIME_LIMIT
        whole = _numpy(array.fill_null(0)) if pa.types.is_integer(kind) else np.floor(numbers)
        return np.where(valid, whole, 0).astype(np.int64), valid

    def _times_of_texts(self, array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        plain = _plain_times(array)
        if plain is not None:
            form, times = plain
            if self._time_form in (None, form):
                self._time_form = form
                return times, np.ones(len(times), bool)
        encoded = as_bytes(array).dictionary_encode()
        parsed = [self._parse_time(text) for text in _texts(encoded.dictionary)] + [None]
        codes = _numpy(encoded.indices.fill_null(-1))
        valid = np.array([time is not None for time in parsed], bool)
        return np.array([time or 0 for time in parsed], np.int64)[codes], valid[codes]

    def _parse_time(self, text: str | None) -> int | None:
        """A number rounded down, or the seconds of a date (UTC where it has no offset); None for all else."""
        text = (text or "").strip()
        if _DECIMAL.fullmatch(text):
            form, time = NUMBER, _parse_number(text)
        else:
            form, time = DATE, _parse_date(text)
        if time is None or self._time_form not in (None, form):
            return None
        self._time_form = form
        return time


class _Ids:
    """A column of ids.

    Attributes:
        codes: int32[R], positions in `values`; -1 for null.
        values: the ids as trimmed text; empty for what is not an id.
        valid: bool[R].
    """

    def __init__(self, array: pa.Array) -> None:
        if not pa.types.is_dictionary(array.type):
            array = as_bytes(array).dictionary_encode()
        self._raw = as_bytes(array.dictionary)
        self.values = _id_texts(self._raw)
        self.codes = _numpy(array.indices.cast(pa.int32()).fill_null(-1))
        self.valid = np.array([*map(bool, self.values), False], bool)[self.codes]

    def fault(self, row: int) -> str:
        """Why a row is not valid."""
        code = int(self.codes[row])
        value = self._raw[code].as_py() if code >= 0 else None
        if isinstance(value, bytes):
            blank = not value.decode("utf-8", "replace").strip()
            return "is empty" if blank else "is not UTF-8 text"
        return "is empty" if value is None else "is not an id"


def _id_texts(values: pa.Array) -> list[str]:
    if _is_bytes(values.type) and values.null_count == 0:
        try:
            return [text.strip() for text in values.cast(pa.large_string()).to_pylist()]
        except pa.ArrowInvalid:  # not all are UTF-8
            pass
    return [id_text(value) for value in values.to_pylist()]


def id_text(value: Any) -> str:
    """An id as trimmed text, from text, bytes or a number; empty if it is none of these."""
    if isinstance(value, bytes):
        try:
            return value.decode().strip()
        except UnicodeDecodeError:
            return ""
    if isinstance(value, float):  # pandas turns whole numbers into floats when one is missing
        return str(int(value)) if value.is_integer() and abs(value) <= _WHOLE_LIMIT else ""
    return "" if value is None else str(value).strip()


def _missing(array: pa.Array) -> np.ndarray:
    """Which values are null, blank, or NaN as a number, bool[R]."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if not is_text(kind):
        return np.isnan(_numpy(array.cast(pa.float64(), safe=False).fill_null(math.nan)))
    blank = [not (text or "").strip() for text in _texts(array)]
    return np.array(blank, bool)


def numbers_of(array: pa.Array) -> np.ndarray:
    """Ratings or durations as float64[R]; NaN for null and for what is no number."""
    kind = array.type
    if not is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
        return _numpy(array.cast(pa.float64(), safe=False).fill_null(math.nan))
    if not pa.types.is_dictionary(kind):
        array = as_bytes(array).dictionary_encode()
    parsed = [_parse_rating(text) for text in _texts(array.dictionary)]  # there are few distinct
    return np.array([*parsed, math.nan], np.float64)[_numpy(array.indices.fill_null(-1))]


def _parse_rating(text: str | None) -> float:
    text = (text or "").strip()
    return float(text) if _DECIMAL.fullmatch(text) else math.nan


def _parse_number(text: str) -> int | None:
    value = int(text) if _INTEGER.fullmatch(text) else float(text)
    return math.floor(value) if abs(value) <= _TIME_LIMIT else None


def _parse_date(text: str) -> int | None:
    try:
        date = datetime.fromisoformat(text)
        since = (date if date.tzinfo else date.replace(tzinfo=UTC)) - _EPOCH
        return since.days * 86_400 + since.seconds
    except (ValueError, OverflowError):
        return None


def _plain_times(array: pa.Array) -> tuple[str, np.ndarray] | None:
    """The form and the values of times that are all plain integers or all plain dates; None if they are not."""
    if not len(array) or array.null_count:
        return None
    for form, pattern, kind in (
        (NUMBER, _PLAIN_INTEGERS, pa.int64()),
        (DATE, _PLAIN_DATES, pa.timestamp("s")),
    ):
        if pc.all(pc.match_substring_regex(array, pattern)).as_py():
            try:
                return form, _numpy(array.cast(pa.string()).cast(kind).cast(pa.int64()))
            except pa.ArrowInvalid:  # such as 2018-02-30
                return None
    return None


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is text or bytes."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def as_bytes(array: pa.Array) -> pa.Array:
    """Text as bytes, because text in a file need not be UTF-8; other types as they are."""
    if pa.types.is_string(array.type):
        return array.cast(pa.binary())
    return array.cast(pa.large_binary()) if pa.types.is_large_string(array.type) else array


def _texts(array: pa.Array) -> list[str | None]:
    """Texts as str, with a replacement character for what is not UTF-8."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    array = as_bytes(array)
    try:
        return array.cast(pa.large_string()).to_pylist()
    except pa.ArrowInvalid:  # not all are UTF-8
        values = array.to_pylist()
        return [None if value is None else value.decode("utf-8", "replace") for value in values]


def _numpy(array: pa.Array) -> np.ndarray:
    return array.to_numpy(zero_copy_only=False)
