"""Parquet tables: ratings batch by batch, and small tables whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxsim import InputError
from prep.readers.csv import RatingColumns
from prep.readers.csv_blocks import Column, OnBad, find_columns
from prep.readers.rows import (
    DATE,
    NUMBER,
    TIME_LIMIT,
    Coded,
    RatingRows,
    Scale,
    TimeForm,
)

SUFFIXES = (".parquet", ".pq")
_MAGIC = b"PAR1"
_BATCH_ROWS = 1 << 17
_BATCH_ROWS_WITH_TEXT = 1 << 13
_WHOLE_LIMIT = float(1 << 53)  # float ids beyond are not exact


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet by its name or its first bytes."""
    if path.suffix in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:  # whoever opens the file tells why it cannot be read
        return False


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; what goes wrong while it is read is an InputError too.

    Raises:
        InputError: there is no such file, or it is no Parquet file, or damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a Parquet file, or damaged ({reason})") from None


class ParquetRatings:
    """A Parquet file of ratings, which can be read again and again.

    Attributes:
        has_text: whether it has the column of texts; known when the first rows are.
    """

    def __init__(self, path: Path, columns: RatingColumns, scale: Scale) -> None:
        """Prepare to read.

        Args:
            path: the file.
            columns: the columns that it must and may have.
            scale: the ratings that it may hold.
        """
        self._path, self._columns, self._scale = path, columns, scale
        self.has_text = False

    def rows(self, on_bad: OnBad, with_text: bool = False) -> Iterator[RatingRows]:
        """Read the file batch by batch.

        Args:
            on_bad: told of each row that cannot be read, by its number from 1.
            with_text: whether the texts are wanted.

        Raises:
            InputError: as for `open_parquet` and `find_columns`; or a column is of a type that it cannot have.
        """
        with open_parquet(self._path) as file:
            schema = file.schema_arrow
            places = find_columns(str(self._path), schema.names, self._columns.wanted())
            text = self._columns.text
            self.has_text = text is not None and text.name in places
            if text is not None and not with_text:
                places.pop(text.name, None)
            self._check_types({name: schema.types[place] for name, place in places.items()})
            names = [schema.names[place] for place in places.values()]
            parser = _BatchParser(self._columns, self._scale, places)
            size = _BATCH_ROWS_WITH_TEXT if with_text else _BATCH_ROWS
            number = 1
            for batch in file.iter_batches(batch_size=size, columns=names):
                arrays = {
                    wanted: batch.column(name) for wanted, name in zip(places, names, strict=True)
                }
                yield parser.parse(number, arrays, on_bad)
                number += batch.num_rows

    def _check_types(self, types: dict[str, pa.DataType]) -> None:
        columns = self._columns
        kinds = [
            (columns.user, "text or numbers", _is_id),
            (columns.item, "text or numbers", _is_id),
            (columns.rating, "numbers", _is_number),
            (columns.time, "times", _is_time),
            (columns.text, "text", lambda kind: _is_text(_value_type(kind))),
        ]
        for column, what, fits in kinds:
            if column and column.name in types and not fits(types[column.name]):
                found = types[column.name]
                raise InputError(
                    f"{self._path}: the column {column.name} holds no {what}, but {found}"
                )


class _BatchParser:
    """Parses the batches of one file, in their order."""

    def __init__(self, columns: RatingColumns, scale: Scale, places: dict[str, int]) -> None:
        self._columns, self._scale = columns, scale
        self._time_name = columns.time.name if columns.time and columns.time.name in places else ""
        self._time_form = TimeForm()

    def parse(self, number: int, arrays: dict[str, pa.Array], on_bad: OnBad) -> RatingRows:
        """Parse a batch.

        Args:
            number: the number of its first row.
            arrays: name of a wanted column -> its values.
            on_bad: told of each row that cannot be read.
        """
        columns = self._columns
        user = self._ids(columns.user.name, arrays)
        item = self._ids(columns.item.name, arrays)
        rating = self._ratings(arrays[columns.rating.name])
        time, has_time = self._times(arrays, len(rating))
        faults = {
            f"{columns.user.name} is null, empty or no id": user.codes < 0,
            f"{columns.item.name} is null, empty or no id": item.codes < 0,
            f"{columns.rating.name} is not {self._scale}": ~self._scale.holds(rating),
            f"{self._time_name} is neither {NUMBER} nor {DATE}": ~has_time,
        }
        good = ~np.logical_or.reduce(list(faults.values()))
        for row in np.flatnonzero(~good).tolist():
            on_bad(number + row, next(why for why, bad in faults.items() if bad[row]))
        rows = RatingRows(user, item, np.where(good, rating, 0).astype(np.float32), time)
        text = arrays.get(columns.text.name) if columns.text else None
        return rows.select(good, None if text is None else self._texts(text, good))

    def _ids(self, name: str, arrays: dict[str, pa.Array]) -> Coded:
        """The ids of a column, with code -1 where there is none."""
        array = arrays[name]
        if not pa.types.is_dictionary(array.type):
            array = _as_bytes(array).dictionary_encode()
        values = [id_text(value) for value in _as_bytes(array.dictionary).to_pylist()]
        usable = np.array([bool(value) for value in values] + [False])
        codes = array.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        return Coded(np.where(usable[codes], codes, -1).astype(np.int32), values)

    def _ratings(self, array: pa.Array) -> np.ndarray:
        """The ratings as float64[R], NaN for null."""
        numbers = array.cast(pa.float64(), safe=False).fill_null(float("nan"))
        return numbers.to_numpy(zero_copy_only=False)

    def _times(self, arrays: dict[str, pa.Array], rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The times as int64[R], and bool[R] for which rows they are known."""
        if not self._time_name:
            return np.zeros(rows, np.int64), np.ones(rows, bool)
        array = arrays[self._time_name]
        kind = array.type
        if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
            known = array.is_valid().to_numpy(zero_copy_only=False)
            moments = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            return moments.fill_null(0).to_numpy(zero_copy_only=False) // 1_000_000, known
        if _is_text(kind):
            texts = (_text(value) for value in _as_bytes(array).to_pylist())
            found = [None if text is None else self._time_form.parse(text) for text in texts]
            known = np.array([time is not None for time in found], bool)
            return np.array([time or 0 for time in found], np.int64), known
        numbers = array.cast(pa.float64(), safe=False).fill_null(float("nan"))
        known = np.abs(numbers.to_numpy(zero_copy_only=False)) <= TIME_LIMIT
        if pa.types.is_integer(kind):
            whole = array.fill_null(0).to_numpy(zero_copy_only=False)
            return np.where(known, whole, 0).astype(np.int64), known
        floor = np.floor(numbers.to_numpy(zero_copy_only=False))
        return np.where(known, floor, 0).astype(np.int64), known

    def _texts(self, array: pa.Array, good: np.ndarray) -> list[str | None]:
        chosen = array.filter(pa.array(good))
        if pa.types.is_dictionary(chosen.type):
            chosen = chosen.dictionary_decode()
        return [_text(value) for value in _as_bytes(chosen).to_pylist()]


def read_table(path: Path, columns: Sequence[Column]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a small table whole.

    Args:
        path: the file.
        columns: the wanted columns.

    Returns:
        A dictionary by the names of the wanted columns for each row, and the names of the other columns.

    Raises:
        InputError: as for `open_parquet` and `find_columns`.
    """
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        places = find_columns(str(path), names, columns)
        table = file.read(columns=[names[place] for place in places.values()])
        values = {
            wanted: _as_bytes(table.column(names[place]).combine_chunks()).to_pylist()
            for wanted, place in places.items()
        }
        unused = [name for place, name in enumerate(names) if place not in places.values()]
    rows = zip(*values.values(), strict=True)
    return [dict(zip(values, row, strict=True)) for row in rows], unused


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_id(kind: pa.DataType) -> bool:
    kind = _value_type(kind)
    return _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_time(kind: pa.DataType) -> bool:
    return (
        pa.types.is_date(kind) or pa.types.is_timestamp(kind) or _is_text(kind) or _is_number(kind)
    )


def _as_bytes(array: pa.Array) -> pa.Array:
    """Text as bytes, because it need not be UTF-8; other types as they are."""
    if pa.types.is_string(array.type):
        return array.cast(pa.binary())
    return array.cast(pa.large_binary()) if pa.types.is_large_string(array.type) else array


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def id_text(value: Any) -> str:
    """An id as text, from bytes or a number; empty where it is none."""
    if isinstance(value, bytes):
        try:
            return value.decode().strip()
        except UnicodeDecodeError:
            return ""
    if isinstance(value, float):  # as pandas makes of whole numbers when one is missing
        return str(int(value)) if value.is_integer() and abs(value) <= _WHOLE_LIMIT else ""
    return "" if value is None else str(value).strip()
