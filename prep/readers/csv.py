"""Ratings in a CSV file: clean blocks by Arrow's parser, others line by line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv

from prep.readers.csv_blocks import (
    Block,
    Column,
    Header,
    OnBad,
    is_utf8,
    mend_utf8,
    open_csv,
    records,
)
from prep.readers.lines import LineFile
from prep.readers.rows import (
    DATE,
    NUMBER,
    TIME_LIMIT,
    Coded,
    RatingRows,
    Scale,
    TimeForm,
    parse_rating,
)

_ID = pa.dictionary(pa.int32(), pa.string())
_TIME_TYPES = {
    NUMBER: (pa.int64(), pa.float64()),
    DATE: (pa.timestamp("us"), pa.timestamp("us", "UTC")),
}
_MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class RatingColumns:
    """The columns of a table of ratings; `time` and `text` None where the dataset has none."""

    user: Column
    item: Column
    rating: Column
    time: Column | None = None
    text: Column | None = None

    def wanted(self) -> list[Column]:
        """Those that are there."""
        columns = (self.user, self.item, self.rating, self.time, self.text)
        return [column for column in columns if column is not None]


class CsvRatings:
    """A CSV file of ratings, which can be read again and again.

    Attributes:
        has_text: whether it has the column of texts; known when the first rows are.
    """

    def __init__(self, file: LineFile, columns: RatingColumns, scale: Scale) -> None:
        """Prepare to read.

        Args:
            file: the file.
            columns: the columns that it must and may have.
            scale: the ratings that it may hold.
        """
        self._file, self._columns, self._scale = file, columns, scale
        self.has_text = False

    def rows(self, on_bad: OnBad, with_text: bool = False) -> Iterator[RatingRows]:
        """Read the file block by block.

        Args:
            on_bad: told of each line that cannot be read.
            with_text: whether the texts are wanted.

        Raises:
            InputError: as for `csv_blocks.open_csv`.
        """
        columns = self._columns
        header, blocks = open_csv(self._file, columns.wanted(), self._file.path.name)
        self.has_text = columns.text is not None and columns.text.name in header.places
        parser = _BlockParser(columns, self._scale, header, with_text)
        for block in blocks:
            yield parser.fast(block) or parser.careful(block, on_bad)


class _BlockParser:
    """Parses the blocks of one file, in their order."""

    def __init__(
        self, columns: RatingColumns, scale: Scale, header: Header, with_text: bool
    ) -> None:
        self._scale, self._header = scale, header
        self._user, self._item, self._rating = (
            header.places[column.name] for column in (columns.user, columns.item, columns.rating)
        )
        self._time = header.places.get(columns.time.name) if columns.time else None
        self._text = header.places.get(columns.text.name) if columns.text and with_text else None
        self._time_form = TimeForm()
        names = (columns.user.name, columns.item.name)
        self._no_id = [f"{name} is empty" for name in names]
        self._not_utf8 = [f"{name} is not UTF-8 text" for name in names]
        self._bad_rating = f"{columns.rating.name} is not {scale}"
        self._bad_time = (
            f"{columns.time.name if columns.time else 'time'} is neither {NUMBER} nor {DATE}"
        )

    def fast(self, block: Block) -> RatingRows | None:
        """Parse a block of which every line is as it should be; None if one is not."""
        content = block.content
        # Arrow also ends a line at a lone CR.
        if not block.regular or content.count(b"\r") != content.count(b"\r\n"):
            return None
        for time_type in self._time_types():
            table = self._arrow_table(content, time_type)
            rows = table and self._clean_rows(table)
            if rows:
                if self._time is not None:
                    self._time_form.kind = next(k for k, t in _TIME_TYPES.items() if time_type in t)
                return rows
        return None

    def _time_types(self) -> Sequence[pa.DataType | None]:
        if self._time is None:
            return [None]
        kinds = (self._time_form.kind,) if self._time_form.kind else (NUMBER, DATE)
        return [time_type for kind in kinds for time_type in _TIME_TYPES[kind]]

    def _arrow_table(self, block: bytes, time_type: pa.DataType | None) -> pa.Table | None:
        names = [str(place) for place in range(self._header.width)]
        types = {self._user: _ID, self._item: _ID, self._rating: pa.float64()}
        if self._time is not None:
            types[self._time] = time_type
        if self._text is not None:
            types[self._text] = pa.large_string()
        try:
            return pa.csv.read_csv(
                pa.BufferReader(block),
                pa.csv.ReadOptions(column_names=names),
                pa.csv.ParseOptions(
                    delimiter=self._header.separator, newlines_in_values=b'"' in block
                ),
                pa.csv.ConvertOptions(
                    column_types={names[place]: kind for place, kind in types.items()},
                    include_columns=[names[place] for place in types],
                    null_values=[],
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowException:
            return None

    def _clean_rows(self, table: pa.Table) -> RatingRows | None:
        rating = table[str(self._rating)].to_numpy()
        user, item = _coded(table[str(self._user)]), _coded(table[str(self._item)])
        known = self._time is not None
        time = _times(table[str(self._time)]) if known else np.zeros(len(rating), np.int64)
        if user is None or item is None or time is None or not self._scale.holds(rating).all():
            return None
        text = None if self._text is None else table[str(self._text)].to_pylist()
        return RatingRows(user, item, rating.astype(np.float32), time, text)

    def careful(self, block: Block, on_bad: OnBad) -> RatingRows:
        """Parse a block line by line, and tell `on_bad` of each line that cannot be read."""
        users: dict[str, int] = {}
        items: dict[str, int] = {}
        codes: tuple[list[int], list[int]] = ([], [])
        ratings: list[float] = []
        times: list[int] = []
        texts: list[str | None] | None = None if self._text is None else []
        for line, fields in records(block, self._header, on_bad):
            row = self._row(fields)
            if isinstance(row, str):
                on_bad(line, row)
                continue
            user, item, rating, time = row
            codes[0].append(users.setdefault(user, len(users)))
            codes[1].append(items.setdefault(item, len(items)))
            ratings.append(rating)
            times.append(time)
            if texts is not None and self._text is not None:
                text = fields[self._text]
                texts.append(mend_utf8(text))
        return RatingRows(
            Coded(np.array(codes[0], np.int32), list(users)),
            Coded(np.array(codes[1], np.int32), list(items)),
            np.array(ratings, np.float32),
            np.array(times, np.int64),
            texts,
        )

    def _row(self, fields: Sequence[str]) -> tuple[str, str, float, int] | str:
        """User, item, rating and time of a record, or what is wrong with it."""
        user, item = fields[self._user].strip(), fields[self._item].strip()
        for at, name in enumerate((user, item)):
            if not name:
                return self._no_id[at]
            if not is_utf8(name):
                return self._not_utf8[at]
        rating = parse_rating(fields[self._rating].strip())
        if rating not in self._scale:
            return self._bad_rating
        time = 0 if self._time is None else self._time_form.parse(fields[self._time].strip())
        return self._bad_time if time is None else (user, item, rating, time)


def _coded(column: pa.ChunkedArray) -> Coded | None:
    """A column of ids; None if one is empty or has a line break in it."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no chunk or of one, in some releases
        array = array.chunk(0) if array.num_chunks else pa.array([], _ID)
    written = array.dictionary.to_pylist()
    values = [value.strip() for value in written]
    if not all(values) or any("\n" in value for value in written):
        return None
    return Coded(array.indices.to_numpy(), values)


def _times(column: pa.ChunkedArray) -> np.ndarray | None:
    """Whole numbers or seconds since 1970, int64[R]; None if one is beyond all bounds."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64()).to_numpy() // _MICROSECONDS
    time = column.to_numpy()
    if not (np.abs(time.astype(np.float64)) <= TIME_LIMIT).all():
        return None
    return np.floor(time).astype(np.int64)
