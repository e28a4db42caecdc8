"""The file of items beside a table of ratings: `item,name[,categories][,attributes]`, CSV or Parquet.

Categories are separated by `|`; in Parquet they may be a list. Attributes are separated by `|` too, each
`name: value` or `name=value`; words without a value become tags. Attributes may also be a JSON object and, in
Parquet, a map or a struct. Other columns are not used, because they may reveal how users rated the item: a note
names them.
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsim.dataset import sha256_of
from prep.readers.columns import Column
from prep.readers.csv import is_utf8, open_csv, records
from prep.readers.lines import LineFile, ReportBadLine, SkippedLines
from prep.readers.parquet import is_parquet, read_table
from prep.readers.rows import BadLineError, Item
from prep.readers.validator import id_text

TAGS = "tags"
COLUMNS = (
    Column("item", ("item_id",)),
    Column("name", multiline=True),
    Column("categories", required=False, multiline=True),
    Column("attributes", required=False, multiline=True),
)


def read_items(path: Path, strict: bool) -> tuple[dict[str, Item], SkippedLines, str]:
    """Read a file of items whole.

    Args:
        path: CSV, plain or gzip, or Parquet.
        strict: whether the first line that cannot be read is an error.

    Returns:
        The items by their ids, the lines that were left out, and the SHA-256 of the file.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds no item.
    """
    skipped = SkippedLines(str(path), strict)
    items: dict[str, Item] = {}
    unused: Sequence[str]
    if is_parquet(path):
        rows, unused = read_table(path, COLUMNS)
        _collect(items, enumerate(rows, start=1), skipped)
        digest = sha256_of(path)
    else:
        file = LineFile(path)
        unused, lines = csv_rows(file, COLUMNS, skipped.add)
        _collect(items, lines, skipped)
        digest = file.sha256
    skipped.check_any_read(len(items), "item")
    if unused:
        print(
            f"note: {path}: not used: {', '.join(unused)}; put what prompts may say about an item into the column "
            "attributes, as in: author: Ann Lee|year: 1995",
            file=sys.stderr,
        )
    return items, skipped, digest


def csv_rows(
    file: LineFile, columns: Iterable[Column], report: ReportBadLine
) -> tuple[tuple[str, ...], Iterator[tuple[int, dict[str, str]]]]:
    """Read a CSV file row by row.

    Args:
        file: the file.
        columns: the wanted columns.
        report: called for each line that is no record, or in which a wanted column is not UTF-8.

    Returns:
        The names of the other columns, and of each row its line number and its wanted fields, trimmed.

    Raises:
        InputError: as for `prep.readers.csv.open_csv`.
    """
    header, blocks = open_csv(file, list(columns), file.path.name)

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        for block in blocks:
            for line, fields in records(block, header, report):
                row = {name: fields[at].strip() for name, at in header.positions.items()}
                invalid = next((name for name, field in row.items() if not is_utf8(field)), None)
                if invalid:
                    report(line, f"{invalid} is not UTF-8 text")
                else:
                    yield line, row

    return header.unused, rows()


def _collect(
    items: dict[str, Item], rows: Iterable[tuple[int, Mapping[str, Any]]], skipped: SkippedLines
) -> None:
    for line, row in rows:
        try:
            item = _id(row["item"])
            if item in items:
                raise BadLineError("the item comes a second time")
            name = " ".join(_text(row["name"], "name").split())
            categories = split_categories(row.get("categories"))
            items[item] = Item(name or item, categories, parse_attributes(row.get("attributes")))
        except BadLineError as error:
            skipped.add(line, str(error))


def _id(value: Any) -> str:
    text = id_text(value)
    if not text:
        raise BadLineError("item is empty or not an id")
    return text


def _text(value: Any, name: str) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise BadLineError(f"{name} is not UTF-8 text") from None
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if missing else str(value)


def split_categories(value: Any) -> tuple[str, ...]:
    """The category names of an item in their order, each once.

    Args:
        value: names separated by `|`, a list of names, or None.

    Raises:
        BadLineError: it is none of these.
    """
    if not isinstance(value, list):
        value = _text(value, "categories").split("|")
    names = (" ".join(_text(name, "categories").split()) for name in value)
    return tuple(dict.fromkeys(name for name in names if name))


def parse_attributes(value: Any) -> dict[str, str]:
    """The attributes of an item, name to value.

    Args:
        value: pieces separated by `|`, a list of pieces or of pairs, a JSON object as text, a mapping, or None.

    Raises:
        BadLineError: it is none of these.
    """
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [
            pair if isinstance(pair, tuple) else _split_piece(_text(pair, "attributes"))
            for pair in value
        ]
    else:
        text = _text(value, "attributes").strip()
        pairs = _json_pairs(text) if text.startswith("{") else map(_split_piece, text.split("|"))
    attributes: dict[str, list[str]] = {}
    for raw_name, raw_value in pairs:
        text = " ".join(_words(raw_value).split())
        if text:
            name = " ".join(_text(raw_name, "attributes").split()) or TAGS
            attributes.setdefault(name, []).append(text)
    return {name: ", ".join(texts) for name, texts in attributes.items()}


def _json_pairs(text: str) -> list[tuple[str, Any]]:
    try:
        attributes = json.loads(text)
    except (ValueError, RecursionError):
        raise BadLineError("attributes begins like a JSON object, but is not one") from None
    return list(attributes.items())


def _split_piece(piece: str) -> tuple[str, str]:
    ends = [at for mark in ":=" if (at := piece.find(mark)) >= 0]
    return (piece[: min(ends)], piece[min(ends) + 1 :]) if ends else ("", piece)


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(filter(None, map(_words, value)))
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return _text(value, "attributes")
