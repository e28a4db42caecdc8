"""CSV files of any size: the header, and blocks of whole records.

The separator is a comma, a tab or a semicolon, whichever the header has. Fields may be quoted, and a quoted field
may hold separators, doubled quotes and line breaks. A quote that is never closed costs its own line, not the
lines after it.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxsim import InputError
from prep.readers.lines import LineFile

SEPARATORS = (",", "\t", ";")
MAX_RECORD_CHARACTERS = 1 << 20
WRONG_WIDTH = "the number of columns is not that of the header"
OPEN_QUOTE = "a quote is not closed, or its field goes on behind it"
_NAMES_SHOWN = 12

OnBad = Callable[[int, str], None]
"""Told of each line that cannot be read: its number and a reason; `SkippedLines.add` is one."""


@dataclass(frozen=True)
class Column:
    """A column that a reader wants.

    Attributes:
        name: what messages call it.
        synonyms: other names that the header may give it; all are compared trimmed and without case.
        required: whether the file must have it.
        multiline: whether a line break within it is content; elsewhere it is the mark of an open quote.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    required: bool = True
    multiline: bool = False


class Block(NamedTuple):
    """Whole records of a file.

    Attributes:
        number: the number of the first line.
        content: the lines.
        regular: whether quotes stand only where a quoted field begins or ends, and all are closed. Of others,
            parsers think differently.
    """

    number: int
    content: bytes
    regular: bool


@dataclass(frozen=True)
class Header:
    """Where the wanted columns stand.

    Attributes:
        separator: what parts fields.
        width: how many fields a record has.
        places: name of a wanted column that is there -> its place, from 0.
        single_line: the places of those that hold no line break.
        unused: the names of the other columns, as written.
    """

    separator: str
    width: int
    places: Mapping[str, int]
    single_line: tuple[int, ...]
    unused: tuple[str, ...]


def open_csv(
    file: LineFile, columns: Sequence[Column], description: str
) -> tuple[Header, Iterator[Block]]:
    """Read the header, and give what follows it.

    Args:
        file: the file.
        columns: the wanted columns.
        description: what the progress bar says.

    Returns:
        The header, and the blocks after it: none ends within a record.

    Raises:
        InputError: as for `LineFile.blocks` and `find_columns`; not text, or nothing but blank lines.
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
    # The separator is the one that brings out the most of the wanted columns.
    text = line.decode("utf-8", "replace")
    choices = [(separator, _split(text, separator)) for separator in SEPARATORS]
    separator, names = max(choices, key=lambda choice: len(_places(choice[1], columns)))
    places = find_columns(place, names, columns)
    multiline = {column.name for column in columns if column.multiline}
    return Header(
        separator=separator,
        width=len(names),
        places=places,
        single_line=tuple(at for name, at in places.items() if name not in multiline),
        unused=tuple(name for at, name in enumerate(names) if at not in places.values()),
    )


def find_columns(place: str, names: Sequence[str], columns: Sequence[Column]) -> dict[str, int]:
    """Find the wanted columns among those of a table.

    Args:
        place: where the names stand, for messages.
        names: the names of all columns, as written.
        columns: the wanted ones.

    Returns:
        Name of a wanted column that is there -> its place in `names`.

    Raises:
        InputError: a required column is missing, or one comes twice.
    """
    found = _places(names, columns)
    missing = [c.name for c in columns if c.required and c.name not in found]
    if missing:
        shown = ", ".join(repr(name[:40]) for name in names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        what = "is no column" if len(missing) == 1 else "are no columns"
        raise InputError(
            f"{place}: there {what} {', '.join(missing)}; found: {shown or 'none'}{more}"
        )
    for wanted, at in found.items():
        if len(at) > 1:
            both = " and ".join(names[one] for one in at[:2])
            raise InputError(f"{place}: the columns {both} both stand for {wanted}; rename one")
    return {wanted: at[0] for wanted, at in found.items()}


def _split(line: str, separator: str) -> list[str]:
    try:
        fields = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:  # a line break within an unquoted name
        fields = line.split(separator)
    return [name.strip() for name in fields]


def _places(names: Sequence[str], columns: Sequence[Column]) -> dict[str, list[int]]:
    """The places of each wanted column that is there."""
    folded = [name.strip().casefold() for name in names]
    accepted = {column.name: {column.name, *column.synonyms} for column in columns}
    places = {
        wanted: [at for at, name in enumerate(folded) if name in known]
        for wanted, known in accepted.items()
    }
    return {wanted: at for wanted, at in places.items() if at}


def _whole_records(blocks: Iterable[tuple[int, bytes]], header: Header) -> Iterator[Block]:
    """Move what a block border cuts off a record to the next block."""
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
    """Where the record begins that the end of the block cuts, and whether what stands before it is regular."""
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
        # It will not be closed any more: whoever reads the block leaves that line out.
        return len(block), False
    return end, regular


def _is_regular(block: bytes, separator: str) -> bool:
    """Whether every other quote opens a field or is doubled, and those between close one or are doubled.

    Not so where a quote stands in the midst of an unquoted field, as in 12" vinyl, or is never closed.
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


def records(block: Block, header: Header, on_bad: OnBad) -> Iterator[tuple[int, list[str]]]:
    """Split a block into records, line by line.

    Args:
        block: of `open_csv`.
        header: of the file.
        on_bad: told of each line that is no record.

    Yields:
        The number of a record's first line, and its fields. A byte that is not UTF-8 comes as a lone surrogate:
        see `is_utf8`.
    """
    number = block.number
    lines = _Lines(block.content)
    for index, fields in _records(lines, header, lambda at, reason: on_bad(number + at, reason)):
        yield number + index, fields


def is_utf8(field: str) -> bool:
    """Whether a field of `records` was valid UTF-8 in the file."""
    return field.isascii() or not any("\ud800" <= character <= "\udfff" for character in field)


def mend_utf8(field: str) -> str:
    """A field of `records` with a replacement character for what was not UTF-8."""
    return field.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Lines:
    """The lines of a block as `csv.reader` takes them, with a place that can be set back.

    Attributes:
        at: the index of the next line.
        ran_out: whether the record that was begun last wants more lines than there are, or than it may have.
        open_from: the index of the line with the last record of which that is true at the block's end.
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
        """Begin a record; returns its first line."""
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


def _records(lines: _Lines, header: Header, on_bad: OnBad) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(1 << 30)  # long lines have been refused already
    # Strict: else text may follow a closing quote, and one open quote is closed by the next record's.
    reader = csv.reader(lines, delimiter=header.separator, strict=True)
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
        several = lines.at - start > 1
        if lines.ran_out and lines.at == len(lines):
            lines.open_from = start
        if (
            misquoted
            or lines.ran_out
            or (several and any("\n" in f for f in _pick(fields, header)))
        ):
            on_bad(start, OPEN_QUOTE)
        elif len(fields) != header.width:
            on_bad(start, WRONG_WIDTH)
        else:
            yield start, fields
            continue
        lines.at = start + 1


def _pick(fields: Sequence[str], header: Header) -> Iterator[str]:
    return (fields[place] for place in header.single_line if place < len(fields))
