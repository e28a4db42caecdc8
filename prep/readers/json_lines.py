"""JSON lines: checked records, and reviews whose ratings are read in one pass and their texts in another.

A line that is not as expected is left out and counted (`prep.readers.lines.SkippedLines`). If no line has a
required field, the file is the wrong one, or of a release with other names.
"""

import ast
import math
import re
import sys
import warnings
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa

from jaxsim import InputError
from prep.readers.lines import LineFile, SkippedLines
from prep.readers.rows import BadLineError, ratings_table

MAX_LITERAL_BYTES = 256 << 10
RATING_RANGE = (1.0, 5.0)

Record = Mapping[str, Any]
T = TypeVar("T")

_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?", re.ASCII)
_MAX_INTEGER = 2**63 - 1  # JSON has no larger ones, but Python literals have no bound
_IDS_OF_A_BLOCK = 1 << 16
_MAX_SHOWN_FIELDS = 100  # in a message about a missing field


def parse_json(line: bytes) -> dict[str, Any]:
    """The object in a line of JSON; its numbers are finite and its texts are Unicode.

    Raises:
        BadLineError: not UTF-8, not JSON, nested too deeply, or not an object.
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise BadLineError(_why_not(line, "JSON")) from None
    if type(record) is not dict:
        raise BadLineError("not a JSON object")
    return record


def parse_json_or_literal(line: bytes) -> dict[str, Any]:
    """The object in a line of JSON, or in a Python literal as in the metadata of 2014.

    Raises:
        BadLineError: it is neither.
    """
    try:
        return parse_json(line)
    except BadLineError:
        if not line.lstrip().startswith(b"{"):
            raise
    try:
        record = parse_literal(line.decode())
    except ValueError:
        raise BadLineError(_why_not(line, "a Python literal")) from None
    if type(record) is not dict or not all(type(field) is str for field in record):
        raise BadLineError("not a Python literal")
    return record


def parse_literal(text: str) -> Any:
    """The value of a Python literal; the text is never run as code.

    Raises:
        ValueError: the text is not a literal, is nested too deeply, or is longer than `MAX_LITERAL_BYTES` (its
            syntax tree takes some hundred times its length).
    """
    if len(text) > MAX_LITERAL_BYTES:
        raise ValueError("too long")
    try:
        with warnings.catch_warnings():
            # Python warns of unusual escapes in strings.
            warnings.simplefilter("ignore")
            return ast.literal_eval(text.strip())
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("not a literal") from error


def _why_not(line: bytes, form: str) -> str:
    try:
        line.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    return f"not {form}"


def text_of(record: Record, field: str) -> str:
    """A field of text; empty where it is missing or null.

    Raises:
        BadLineError: it is something else.
    """
    value = record.get(field)
    if value is None:
        return ""
    if type(value) is not str:
        raise BadLineError(f"the field '{field}' is not text")
    return value


def id_of(record: Record, field: str) -> str:
    """An id: printable text that is not blank, or a whole number, which becomes its digits.

    Raises:
        BadLineError: it is something else.
    """
    value = record[field]
    if type(value) is int and abs(value) <= _MAX_INTEGER:
        return str(value)
    if type(value) is not str or not value.isprintable() or not value or value.isspace():
        raise BadLineError(f"the field '{field}' is not an id")
    return value


def number_of(value: Any) -> float:
    """A finite number, which may be written as text such as "5.0"; NaN for all else."""
    if type(value) is float:
        return value if math.isfinite(value) else math.nan
    if type(value) is int and abs(value) <= _MAX_INTEGER:
        return float(value)
    if type(value) is str and _NUMBER.fullmatch(value.strip()):
        return float(value)
    return math.nan


class Records:
    """The lines of a file as checked objects.

    Attributes:
        skipped: the lines that were left out.
    """

    def __init__(
        self,
        file: LineFile,
        what: str,
        required: Sequence[str],
        strict: bool,
        parse: Callable[[bytes], dict[str, Any]] = parse_json,
    ) -> None:
        """Prepare to read.

        Args:
            file: the file.
            what: what a line contains, such as "review".
            required: the fields that every line must have; null counts as missing.
            strict: whether the first line that cannot be used is an error.
            parse: returns the object in a line, or raises BadLineError.
        """
        self.skipped = SkippedLines(file.label, strict)
        self._file, self._what, self._parse = file, what, parse
        self._required = tuple(required)
        self._missing = Counter[str]()
        self._seen_fields: dict[str, None] = {}

    def read(self, convert: Callable[[dict[str, Any]], T]) -> Iterator[tuple[int, T]]:
        """Yield (line number from 1, `convert` of its object) for each line that can be used.

        Args:
            convert: may raise BadLineError. The object has the required fields.

        Raises:
            InputError: the file cannot be read (see `LineFile.blocks`), no line can be used, or the reader is
                strict and one cannot.
        """
        objects, read, parse, required = 0, 0, self._parse, self._required
        for number, line in self._file.lines(f"{self._file.path.name}"):
            try:
                record = parse(line)
                objects += 1
                for field in required:
                    if record.get(field) is None:
                        raise self._note_missing(record)
                value = convert(record)
            except BadLineError as error:
                self.skipped.add(number, str(error))
                continue
            read += 1
            yield number, value
        if not read:
            self._check_fields(objects)
        self.skipped.check_any_read(read, self._what)

    def _note_missing(self, record: Record) -> BadLineError:
        missing = [field for field in self._required if record.get(field) is None]
        self._missing.update(missing)
        if len(self._seen_fields) < _MAX_SHOWN_FIELDS:
            present = (name for name, value in record.items() if value is not None)
            self._seen_fields.update(dict.fromkeys(present))
        # Reasons are the same for all lines of a kind, but a strict reader stops at this line.
        fields = f"; found are {self._shown_fields()}" if self.skipped.strict else ""
        return BadLineError(f"the field '{missing[0]}' is missing{fields}")

    def _shown_fields(self) -> str:
        return ", ".join(sorted(map(repr, self._seen_fields))) or "none"

    def _check_fields(self, objects: int) -> None:
        everywhere = [f"'{field}'" for field, n in self._missing.items() if n == objects]
        if everywhere:
            raise InputError(
                f"{self._file.label}: no {self._what} in it has the field {', '.join(everywhere)}; "
                f"found are {self._shown_fields()}. Is this the right file?"
            )


@dataclass(frozen=True)
class ReviewLayout:
    """Where the fields of a review are.

    Attributes:
        user, item, rating, time, text: the names of the fields.
        seconds: converts the value of `time` to whole seconds since 1970; None where it is no time.
    """

    user: str
    item: str
    rating: str
    time: str
    text: str
    seconds: Callable[[Any], int | None]

    def row(self, record: Record) -> tuple[str, str, float, int, bool]:
        """(user id, item id, rating, time, whether there is a text) of a review.

        Raises:
            BadLineError: one of them cannot be used.
        """
        rating = record[self.rating]
        if type(rating) is not float:
            rating = number_of(rating)
        if not RATING_RANGE[0] <= rating <= RATING_RANGE[1]:
            raise BadLineError(f"the field '{self.rating}' is not a number from 1 to 5")
        time = self.seconds(record[self.time])
        if time is None:
            raise BadLineError(f"the field '{self.time}' is not a time")
        has_text = bool(text_of(record, self.text))
        return id_of(record, self.user), id_of(record, self.item), rating, time, has_text


class IdColumn:
    """A column of ids that grows row by row.

    Arrow encodes the rows in blocks: with millions of ids, its hash table takes a fifth of the time of a dict.
    """

    def __init__(self) -> None:
        self._blocks: list[pa.Array] = []
        self._block: list[str] = []

    def append(self, value: str) -> None:
        """Append an id."""
        self._block.append(value)
        if len(self._block) == _IDS_OF_A_BLOCK:
            self._close_block()

    def encode(self) -> tuple[np.ndarray, Sequence[str]]:
        """The positions int32[M] of the rows among the distinct ids, and these in the order of their first rows.

        The column is empty afterwards.
        """
        self._close_block()
        column = pa.chunked_array(self._blocks, pa.large_string())
        self._blocks = []
        encoded = column.dictionary_encode().combine_chunks()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        distinct = pd.Index(
            encoded.dictionary.to_pandas(), dtype=str
        )  # no sequence to the type checker
        return codes.astype(np.int32, copy=False), cast(Sequence[str], distinct)

    def _close_block(self) -> None:
        self._blocks.append(pa.array(self._block, pa.large_string()))
        self._block = []


class ReviewFile:
    """A file of reviews: ratings in one pass, which notes the line of each; texts in another.

    The second pass reads only the noted lines, so both passes agree about rows.

    Attributes:
        file: the file.
        skipped: the lines that were left out; empty before `ratings`.
        left_out: how many reviews `ratings` left out because of its argument `items`.
        has_texts: whether any row of `ratings` has a text.
    """

    def __init__(
        self,
        file: LineFile,
        layout: ReviewLayout,
        clean: Callable[[str], str] = str.strip,
    ) -> None:
        """Prepare to read.

        Args:
            file: the file.
            layout: where its fields are.
            clean: applied to each text.
        """
        self.file, self._layout, self._clean = file, layout, clean
        self.skipped = SkippedLines(file.label)
        self.left_out, self.has_texts = 0, False
        self._line_numbers = np.zeros(0, np.int64)

    def ratings(self, strict: bool, items: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Read the table of `RawData.ratings`.

        Args:
            strict: whether the first line that cannot be used is an error.
            items: if given, only reviews of the items in it are kept.

        Raises:
            InputError: as for `Records.read`.
        """
        layout = self._layout
        required = (layout.user, layout.item, layout.rating, layout.time)
        records = Records(self.file, "review", required, strict)
        users, stars, seconds = IdColumn(), array("f"), array("q")
        rated, lines, texts = IdColumn(), array("q"), 0
        for line, (user, item, rating, time, has_text) in records.read(layout.row):
            if items is not None and item not in items:
                self.left_out += 1
                continue
            users.append(user)
            rated.append(item)
            stars.append(rating)
            seconds.append(time)
            lines.append(line)
            texts += has_text
        self.has_texts = texts > 0
        if lines and not texts:
            print(f"note: {self.file.label}: no review has a '{layout.text}'", file=sys.stderr)
        self.skipped = records.skipped
        self._line_numbers = np.array(lines, np.int64)
        return ratings_table(
            *users.encode(),
            *rated.encode(),
            np.array(stars, np.float32),
            np.array(seconds, np.int64),
        )

    def texts(self, rows: np.ndarray) -> Iterator[tuple[int, str]]:
        """See `prep.sources.base.Reviews.texts`.

        Raises:
            InputError: the file can no longer be read, or was changed in the meantime.
        """
        lines = self.file.lines_at(self._line_numbers[rows], f"{self.file.path.name} (texts)")
        for row, (number, line) in zip(rows.tolist(), lines, strict=True):
            try:
                text = self._clean(text_of(parse_json(line), self._layout.text))
            except BadLineError as error:
                raise InputError(
                    f"{self.file.label}:{number}: {error}; the file was changed since it was first read"
                ) from None
            if text:
                yield row, text
