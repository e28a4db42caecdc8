"""Parquet tables: ratings batch by batch, and small tables whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxsim import InputError
from prep.readers.columns import Column, RatingColumns, find_columns
from prep.readers.lines import ReportBadLine
from prep.readers.rows import RatingRows
from prep.readers.validator import RatingsValidator, Scale, as_bytes, is_text

SUFFIXES = (".parquet", ".pq")
_MAGIC = b"PAR1"
_BATCH_ROWS = 1 << 17
_BATCH_ROWS_WITH_TEXT = 1 << 13


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet by its name or its first bytes."""
    if path.suffix in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:  # opening the file later says why it cannot be read
        return False


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; errors while it is read become InputErrors too.

    Raises:
        InputError: there is no such file, or it is not a Parquet file, or it is damaged.
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
        has_text: whether it has the column of texts; set once the first rows were read.
        has_rating: whether it has the column of ratings; likewise.
        missing_duration: the row of the first rating without a duration so far; None without any.
    """

    def __init__(self, path: Path, columns: RatingColumns, scale: Scale) -> None:
        """Prepare to read.

        Args:
            path: the file.
            columns: the columns that it must and may have.
            scale: the ratings that are valid.
        """
        self._path, self._columns, self._scale = path, columns, scale
        self.has_text, self.has_rating = False, True
        self.missing_duration: int | None = None

    def rows(self, report: ReportBadLine, with_text: bool = False) -> Iterator[RatingRows]:
        """Read the file batch by batch.

        Args:
            report: called for each row that cannot be read, with its number from 1.
            with_text: whether the texts are wanted.

        Raises:
            InputError: as for `open_parquet` and `find_columns`; or a column has a type that it cannot have.
        """
        with open_parquet(self._path) as file:
            schema = file.schema_arrow
            positions = find_columns(str(self._path), schema.names, self._columns.wanted())
            text = self._columns.text
            self.has_text = text is not None and text.name in positions
            self.has_rating = self._columns.rating.name in positions
            if text is not None and not with_text:
                positions.pop(text.name, None)
            self._check_types({name: schema.types[at] for name, at in positions.items()})
            names = {wanted: schema.names[at] for wanted, at in positions.items()}
            validator = RatingsValidator(self._columns, self._scale)
            size = _BATCH_ROWS_WITH_TEXT if with_text else _BATCH_ROWS
            number = 1
            for batch in file.iter_batches(batch_size=size, columns=list(names.values())):
                valid, faults = validator.check(
                    {wanted: batch.column(name) for wanted, name in names.items()}
                )
                for row, reason in faults:
                    report(number + row, reason)
                if self.missing_duration is None and validator.missing_duration is not None:
                    self.missing_duration = number + validator.missing_duration
                yield valid
                number += batch.num_rows

    def _check_types(self, types: dict[str, pa.DataType]) -> None:
        columns = self._columns
        expected = [
            (columns.user, "text or numbers", _is_id),
            (columns.item, "text or numbers", _is_id),
            (columns.rating, "numbers", _is_number),
            (columns.time, "times", _is_time),
            (columns.duration, "numbers", _is_number),
            (columns.text, "text", lambda kind: is_text(_value_type(kind))),
        ]
        for column, what, fits in expected:
            if column and column.name in types and not fits(types[column.name]):
                actual = types[column.name]
                raise InputError(
                    f"{self._path}: the column {column.name} holds no {what}, but {actual}"
                )


def read_table(path: Path, columns: Sequence[Column]) -> tuple[list[dict[str, Any]], list[str]]:
    """Read a small table whole.

    Args:
        path: the file.
        columns: the wanted columns.

    Returns:
        For each row a dictionary by the names of the wanted columns, with text as bytes; and the names of the
        other columns.

    Raises:
        InputError: as for `open_parquet` and `find_columns`.
    """
    with open_parquet(path) as file:
        names = file.schema_arrow.names
        positions = find_columns(str(path), names, columns)
        table = file.read(columns=[names[at] for at in positions.values()])
        values = {
            wanted: as_bytes(table.column(names[at]).combine_chunks()).to_pylist()
            for wanted, at in positions.items()
        }
        unused = [name for at, name in enumerate(names) if at not in positions.values()]
    rows = zip(*values.values(), strict=True)
    return [dict(zip(values, row, strict=True)) for row in rows], unused


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_id(kind: pa.DataType) -> bool:
    kind = _value_type(kind)
    return is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _is_time(kind: pa.DataType) -> bool:
    return (
        pa.types.is_date(kind) or pa.types.is_timestamp(kind) or is_text(kind) or _is_number(kind)
    )
