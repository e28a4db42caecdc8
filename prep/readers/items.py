"""The file of items beside a table of ratings: `item,name[,categories][,attributes]`, CSV or Parquet.

Categories are parted by `|`; in Parquet they may be a list. Attributes are parted by `|` too, each `name: value`
or `name=value`; words without a value are gathered as tags. They may also be a JSON object and, in Parquet, a map
or a struct. Other columns are not used, because nobody knows whether they leak how an item was received: a note
names them.
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxsim import sha256_of
from prep.readers.csv_blocks import Column, OnBad, is_utf8, open_csv, records
from prep.readers.json_lines import BadLineError, Item
from prep.readers.lines import LineFile, SkippedLines
from prep.readers.parquet import id_text, is_parquet, read_table

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
        unused = _collect_csv(items, file, skipped)
        digest = file.sha256
    skipped.check_any_read(len(items), "item")
    if unused:
        print(
            f"note: {path}: not used: {', '.join(unused)}; what prompts may tell of an item stands in the column "
            "attributes, as in: author: Ann Lee|year: 1995",
            file=sys.stderr,
        )
    return items, skipped, digest


def _collect_csv(items: dict[str, Item], file: LineFile, skipped: SkippedLines) -> tuple[str, ...]:
    unused, rows = csv_rows(file, COLUMNS, skipped.add)
    _collect(items, rows, skipped)
    return unused


def csv_rows(
    file: LineFile, columns: Iterable[Column], on_bad: OnBad
) -> tuple[tuple[str, ...], Iterator[tuple[int, dict[str, str]]]]:
    """Read a CSV file row by row.

    Args:
        file: the file.
        columns: the wanted columns.
        on_bad: told of each line that is no record, or in which a wanted column is not UTF-8.

    Returns:
        The names of the other columns, and of each row its line number and its wanted fields, trimmed.

    Raises:
        InputError: as for `csv_blocks.open_csv`.
    """
    header, blocks = open_csv(file, list(columns), file.path.name)

    def rows() -> Iterator[tuple[int, dict[str, str]]]:
        for block in blocks:
            for line, fields in records(block, header, on_bad):
                row = {name: fields[place].strip() for name, place in header.places.items()}
                spoilt = next((name for name, field in row.items() if not is_utf8(field)), None)
                if spoilt:
                    on_bad(line, f"{spoilt} is not UTF-8 text")
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
        raise BadLineError("item is empty or no id")
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
        value: names parted by `|`, a list of names, or None.

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
        value: pieces parted by `|`, a list of such pieces or of pairs, a JSON object as text, a mapping, or None.

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
    for name, told in pairs:
        said = " ".join(_words(told).split())
        if said:
            attributes.setdefault(" ".join(_text(name, "attributes").split()) or TAGS, []).append(
                said
            )
    return {name: ", ".join(said) for name, said in attributes.items()}


def _json_pairs(text: str) -> list[tuple[str, Any]]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise BadLineError("attributes is not the JSON object that it begins as") from None
    return list(found.items())


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
