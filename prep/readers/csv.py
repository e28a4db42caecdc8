"""CSV files of any size: their header, blocks of whole records, and the ratings in them.

The separator is the comma, tab or semicolon that fits the header best. Fields may be quoted, and a quoted field
may contain separators, doubled quotes and line breaks. A quote that is never closed costs its own line, not the
lines after it.

Arrow splits a block into columns where its quotes are regular. Parsers disagree about irregular quoting, so other
blocks are split record by record here. Both give columns of bytes to the same `RatingsValidator`.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from jaxsim import InputError
from prep.readers.columns import Column, RatingColumns, column_positions, find_columns
from prep.readers.lines import LineFile, ReportBadLine
from prep.readers.rows import RatingRows
from prep.readers.validator import RatingsValidator, Scale

SEPARATORS = (",", "\t", ";")
MAX_RECORD_CHARACTERS = 1 << 20
WRONG_WIDTH = "the number of columns is not that of the header"
OPEN_QUOTE = "a quote is not closed, or its field goes on behind it"


class Block(NamedTuple):
    """Whole records of a file.

    Attributes:
        number: the number of the first line.
        content: the lines.
        regular: whether quotes stand only where a quoted field begins or ends, and all are closed.
    """

    number: int
    content: bytes
    regular: bool


@dataclass(frozen=True)
class Header:
    """Where the wanted columns stand.

    Attributes:
        separator: the character between fields.
        width: the number of fields of a record.
        positions: name of a wanted column that the file has -> its position.
        single_line: the names of those that contain no line break.
        unused: the names of the other columns, as written.
    """

    separator: str
    width: int
    positions: Mapping[str, int]
    single_line: tuple[str, ...]
    unused: tuple[str, ...]


class CsvRatings:
    """A CSV file of ratings, which can be read again and again.

    Attributes:
        has_text: whether it has the column of texts; set once the first rows were read.
        has_rating: whether it has the column of ratings; likewise.
        missing_duration: the line of the first rating without a duration so far; None without any.
    """

    def __init__(self, file: LineFile, columns: RatingColumns, scale: Scale) -> None:
        """Prepare to read.

        Args:
            file: the file.
            columns: the columns that it must and may have.
            scale: the ratings that are valid.
        """
        self._file, self._columns, self._scale = file, columns, scale
        self.has_text, self.has_rating = False, True
        self.missing_duration: int | None = None

    def rows(self, report: ReportBadLine, with_text: bool = False) -> Iterator[RatingRows]:
        """Read the file block by block.

        Args:
            report: called for each line that cannot be read, in the order of the file.
            with_text: whether the texts are wanted.

        Raises:
            InputError: as for `open_csv`.
        """
        columns = self._columns
        header, blocks = open_csv(self._file, columns.wanted(), self._file.path.name)
        self.has_text = columns.text is not None and columns.text.name in header.positions
        self.has_rating = columns.rating.name in header.positions
        unwanted = columns.text.name if columns.text and not with_text else None
        names = [name for name in header.positions if name != unwanted]
        dictionaries = {columns.user.name, columns.item.name, columns.rating.name}
        if columns.duration:
            dictionaries.add(columns.duration.name)
        validator = RatingsValidator(columns, self._scale)
        for block in blocks:
            bad_lines: list[tuple[int, str]] = []
            lines: list[int] | None = None
            batch = _split_by_arrow(block, header, names, dictionaries)
            if batch is None:
                lines, batch = _split_by_record(block, header, names, bad_lines)
            valid, faults = validator.check(batch)
            without = validator.missing_duration if self.missing_duration is None else None
            # Arrow does not tell the lines of its rows.
            if lines is None and (faults or without is not None):
                lines = [line for line, _ in records(block, header, lambda line, reason: None)]
            if lines is not None and without is not None:
                self.missing_duration = lines[without]
            bad_lines += [(lines[row], reason) for row, reason in faults] if lines else []
            for line, reason in sorted(bad_lines):
                report(line, reason)
            yield valid


def _split_by_arrow(
    block: Block, header: Header, names: Sequence[str], dictionaries: set[str]
) -> dict[str, pa.Array] | None:
    """Split a regular block into columns of bytes; None if it is not regular, or not all records are whole.

    Args:
        block: of `open_csv`.
        header: of the file.
        names: the wanted columns.
        dictionaries: those of them that become dictionaries, because their values repeat.
    """
    content = block.content
    # Arrow also ends a line at a lone CR.
    if not block.regular or content.count(b"\r") != content.count(b"\r\n"):
        return None
    labels = {name: str(header.positions[name]) for name in names}
    plain, encoded = pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())
    types = {labels[name]: encoded if name in dictionaries else plain for name in names}
    quoted = b'"' in content
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(content),
            # Arrow's threads may abort the process if it ends right after them, as it does with an error.
            pa.csv.ReadOptions(
                use_threads=False, column_names=[str(at) for at in range(header.width)]
            ),
            pa.csv.ParseOptions(delimiter=header.separator, newlines_in_values=quoted),
            pa.csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowException:
        return None
    batch = {name: _one_chunk(table[label], types[label]) for name, label in labels.items()}
    if quoted and any(_has_line_break(batch[n]) for n in header.single_line if n in batch):
        return None
    return batch


def _one_chunk(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no chunk or of one, in some releases of Arrow
        return array.chunk(0) if array.num_chunks else pa.array([], kind)
    return array


def _has_line_break(array: pa.Array) -> bool:
    values = array.dictionary if pa.types.is_dictionary(array.type) else array
    return bool(pc.any(pc.match_substring(values, "\n")).as_py())


def _split_by_record(
    block: Block, header: Header, names: Sequence[str], bad_lines: list[tuple[int, str]]
) -> tuple[list[int], dict[str, pa.Array]]:
    """Split a block into the line numbers of its R records and R values of bytes for each of the wanted columns.

    Args:
        block: of `open_csv`.
        header: of the file.
        names: the wanted columns.
        bad_lines: gets the lines that are no record, with the reason.
    """
    lines: list[int] = []
    values: dict[str, list[bytes]] = {name: [] for name in names}
    for line, fields in records(block, header, lambda line, why: bad_lines.append((line, why))):
        lines.append(line)
        for name, column in values.items():
            column.append(fields[header.positions[name]].encode("utf-8", "surrogateescape"))
    return lines, {name: pa.array(column, pa.large_binary()) for name, column in values.items()}


def open_csv(
    file: LineFile, columns: Sequence[Column], description: str
) -> tuple[Header, Iterator[Block]]:
    """Read the header, and return it with the blocks that follow it.

    Args:
        file: the file.
        columns: the wanted columns.
        description: the label of the progress bar.

    Returns:
        The header, and the blocks after it: none ends within a record.

    Raises:
        InputError: as for `LineFile.blocks` and `find_columns`; the file is not text, or has only blank lines.
    """
    blocks = file.blocks(description)
    for number, block in blocks:
        body = block.lstrip(b" \t\r\n")
        if body:
            line = number + block.count(b"\n", 0, len(block) - len(body))
            first, _, rest = body.partition(b"\n")
            header = _read_header(f"{file.label}:{line}", first, columns)
            return header, _whole_records(_after(line + 1, rest, blocks), header)
    raise InputError(f"{file.label}: the file holds nothing but blank lines")


def _after(
    line: int, rest: bytes, blocks: Iterable[tuple[int, bytes]]
) -> Iterator[tuple[int, bytes]]:
    if rest:
        yield line, rest
    yield from blocks


def _read_header(place: str, line: bytes, columns: Sequence[Column]) -> Header:
    if b"\0" in line:
        raise InputError(f"{place}: this is not a text file")
    if b"\r" in line.rstrip(b"\r"):
        raise InputError(f"{place}: its lines end in CR alone; save it with LF or CRLF")
    text = line.decode("utf-8", "replace")
    choices = [(separator, _split_header(text, separator)) for separator in SEPARATORS]
    # The separator with which most of the wanted columns are there.
    separator, names = max(choices, key=lambda choice: len(column_positions(choice[1], columns)))
    positions = find_columns(place, names, columns)
    multiline = {column.name for column in columns if column.multiline}
    used = set(positions.values())
    return Header(
        separator=separator,
        width=len(names),
        positions=positions,
        single_line=tuple(name for name in positions if name not in multiline),
        unused=tuple(name for position, name in enumerate(names) if position not in used),
    )


def _split_header(line: str, separator: str) -> list[str]:
    try:
        fields = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a line break within an unquoted name
        fields = line.split(separator)
    return [name.strip() for name in fields]


def _whole_records(blocks: Iterable[tuple[int, bytes]], header: Header) -> Iterator[Block]:
    """Move the part of a record that a block's end cuts off to the next block."""
    rest, first = b"", 0
    for number, block in blocks:
        if rest:
            number, block = first, rest + block
        end, regular = _end_of_records(block, header)
        if end:
            yield Block(number, block[:end], regular)
        rest = block[end:]
        first = number + block.count(b"\n", 0, end)
    if rest:
        yield Block(first, rest, regular=False)


def _end_of_records(block: bytes, header: Header) -> tuple[int, bool]:
    """Where the record begins that the end of the block cuts, and whether the part before it is regular."""
    if b'"' not in block:
        return len(block), True
    regular = _is_regular(block, header.separator)
    if not regular:
        end = _end_by_parsing(block, header)
    elif block.count(b'"') % 2 == 0:
        end = len(block)
    else:
        end = _last_even_line(block)
    if len(block) - end > MAX_RECORD_CHARACTERS:
        # The quote will not be closed: the line that opened it is left out when the block is split.
        return len(block), False
    return end, regular


def _is_regular(block: bytes, separator: str) -> bool:
    """Whether every other quote opens a field or is doubled, and those between close one or are doubled.

    This is not so where a quote stands inside an unquoted field, as in 12" vinyl, or is never closed.
    """
    content = np.frombuffer(b"\n" + block + b"\n", np.uint8)
    quotes = np.flatnonzero(content == ord('"'))
    edges = np.frombuffer(f'"\n{separator}'.encode(), np.uint8)
    opens = np.isin(content[quotes[::2] - 1], edges).all()
    return bool(opens and np.isin(content[quotes[1::2] + 1], np.append(edges, ord("\r"))).all())


def _last_even_line(block: bytes) -> int:
    """The last line start with an even number of quotes before it, in a block with an odd number."""
    end, quotes = len(block), 0
    while end:
        start = block.rfind(b"\n", 0, end - 1) + 1
        quotes += block.count(b'"', start, end)
        if quotes % 2:
            return start
        end = start
    return 0


def _end_by_parsing(block: bytes, header: Header) -> int:
    lines = _Lines(block)
    for _ in _records(lines, header, lambda line, reason: None):
        pass
    if lines.open_from is None:
        return len(block)
    return sum(
        len(line.encode("utf-8", "surrogateescape")) + 1 for line in lines[: lines.open_from]
    )


def records(block: Block, header: Header, report: ReportBadLine) -> Iterator[tuple[int, list[str]]]:
    """Split a block into records, line by line.

    Args:
        block: of `open_csv`.
        header: of the file.
        report: called for each line that is no record.

    Yields:
        The number of a record's first line, and its fields. A byte that is not UTF-8 comes as a lone surrogate:
        see `is_utf8`.
    """
    number = block.number
    lines = _Lines(block.content)
    for index, fields in _records(lines, header, lambda at, reason: report(number + at, reason)):
        yield number + index, fields


def is_utf8(field: str) -> bool:
    """Whether a field of `records` was valid UTF-8 in the file."""
    return field.isascii() or not any("\ud800" <= character <= "\udfff" for character in field)


class _Lines:
    """The lines of a block as `csv.reader` takes them, with a position that can be set back.

    Attributes:
        at: the index of the next line.
        ran_out: whether the current record needs more lines than there are, or than it may have.
        open_from: the index of the first line of the last record for which this is so at the block's end.
    """

    def __init__(self, block: bytes) -> None:
        self._lines = block.decode("utf-8", "surrogateescape").split("\n")
        if not self._lines[-1]:
            self._lines.pop()
        self.at = 0
        self.ran_out = False
        self.open_from: int | None = None
        self._characters = 0

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, key: slice) -> list[str]:
        return self._lines[key]

    def begin(self) -> str:
        """Begin a record and return its first line."""
        self.ran_out, self._characters = False, 0
        return self._lines[self.at]

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self.at == len(self._lines) or self._characters > MAX_RECORD_CHARACTERS:
            self.ran_out = True
            raise StopIteration
        line = self._lines[self.at]
        self.at += 1
        self._characters += len(line)
        return line + "\n"


def _records(
    lines: _Lines, header: Header, report: ReportBadLine
) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(1 << 30)  # long lines have been refused already
    # Strict: otherwise text may follow a closing quote, and the next record's quote closes an open one.
    reader = csv.reader(lines, delimiter=header.separator, strict=True)
    single_line = [header.positions[name] for name in header.single_line]
    while lines.at < len(lines):
        start = lines.at
        first = lines.begin()
        if not first or first.isspace():
            lines.at += 1
            continue
        fields, misquoted = [], False
        try:
            fields = next(reader)
        except csv.Error:
            misquoted = '"' in first
        except StopIteration:
            pass
        if lines.ran_out and lines.at == len(lines):
            lines.open_from = start
        several = lines.at - start > 1
        broken = several and any("\n" in fields[at] for at in single_line if at < len(fields))
        if misquoted or lines.ran_out or broken:
            report(start, OPEN_QUOTE)
        elif len(fields) != header.width:
            report(start, WRONG_WIDTH)
        else:
            yield start, fields
            continue
        lines.at = start + 1
