"""`python -m prep convert`: the raw files of any publisher as two Parquet tables of one form.

The form is that of the user's own table (`prep.sources.table`), so that other tools can read and write it.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jaxsim import InputError
from jaxsim.dataset import sha256_of
from jaxsim.files import check_writable, staged_folder
from prep.ratings import CONVERSION, load_raw
from prep.readers.lines import SkippedLines
from prep.sources.base import RawData, Reviews, Source, SourceOptions

_ROWS_OF_A_GROUP = 100_000
_FILES = {CONVERSION, "ratings.parquet", "items.parquet"}


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion: the folder, the data as read, and the seconds that reading and writing took."""

    path: Path
    raw: RawData
    read_seconds: float
    write_seconds: float


def convert_dataset(
    source: Source, options: SourceOptions, out: Path, text: bool = True
) -> Conversion:
    """Read a source and write `ratings.parquet`, `items.parquet` and `conversion.json` into `out`.

    `ratings.parquet` has a row for every valid rating, duplicates included, in the order of the file: user, item
    (strings), rating (float32), timestamp (int64, seconds), if available duration (float32, null where one is
    missing; in place of ratings where there are no others) and, if wanted and available, text (string or null).
    `items.parquet` has item, name (strings), categories (list of strings) and attributes (a JSON object as a
    string).

    Args:
        source: the dataset.
        options: where its raw files are, and how to read them.
        out: the folder to write; it may hold an earlier conversion, which is replaced.
        text: whether to keep the texts of reviews.

    Raises:
        InputError: the source cannot be read, or `out` holds other files.
    """
    _check_output(out)
    if options.raw is not None and (options.raw / CONVERSION).is_file():
        raise InputError(
            f"{options.raw}: is already a conversion; give the publisher's files with --raw"
        )
    start = time.perf_counter()
    raw = load_raw(source, options)
    read = time.perf_counter()
    with staged_folder(out) as folder:
        table = raw.ratings.drop(columns="rating") if raw.durations_are_ratings else raw.ratings
        _write_ratings(folder / "ratings.parquet", table, raw.reviews if text else None)
        _write_items(folder / "items.parquet", raw.items)
        record = {
            "dataset": source.name,
            "state": raw.state,
            "raw": dict(raw.files),
            "raw_urls": dict(raw.urls),
            "skipped": [asdict(skipped) for skipped in raw.skipped if skipped.total],
            "left_out": dict(raw.left_out or {}),
            "keep_adult": raw.keep_adult,
            "left_out_items": sorted(raw.left_out_items),
            "files": {path.name: sha256_of(path) for path in sorted(folder.iterdir())},
        }
        (folder / CONVERSION).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return Conversion(out, raw, read - start, time.perf_counter() - read)


def _check_output(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder with --out")
    if out.exists() and not {path.name for path in out.iterdir()} <= _FILES:
        raise InputError(
            f"{out}: holds files that are not of a conversion; move them away or give another --out"
        )
    check_writable(out)


def _write_ratings(path: Path, ratings: pd.DataFrame, reviews: Reviews | None) -> None:
    kinds = {"rating": pa.float32(), "time": pa.int64(), "duration": pa.float32()}
    kinds = {name: kind for name, kind in kinds.items() if name in ratings}
    fields = [("user", pa.string()), ("item", pa.string())]
    fields += [("timestamp" if name == "time" else name, kind) for name, kind in kinds.items()]
    texts = None
    if reviews is not None:
        fields.append(("text", pa.string()))
        texts = reviews.texts(np.arange(len(ratings), dtype=np.int64))
    ids = [_dictionary(ratings[name]) for name in ("user_id", "item_id")]
    numbers = [
        pa.array(ratings[name].to_numpy(), kind, from_pandas=True) for name, kind in kinds.items()
    ]
    with pq.ParquetWriter(path, pa.schema(fields), compression="zstd") as writer:
        waiting: tuple[int, str] | None = None
        for start in range(0, len(ratings), _ROWS_OF_A_GROUP):
            # Decoded: otherwise each group would repeat the ids of the whole file.
            group = [column.slice(start, _ROWS_OF_A_GROUP).dictionary_decode() for column in ids]
            group += [column.slice(start, _ROWS_OF_A_GROUP) for column in numbers]
            if texts is not None:
                column, waiting = _texts_of_group(texts, waiting, start, len(group[0]))
                group.append(pa.array(column, pa.string()))
            writer.write_table(pa.Table.from_arrays(group, schema=pa.schema(fields)))


def _texts_of_group(
    texts: Iterator[tuple[int, str]], waiting: tuple[int, str] | None, start: int, count: int
) -> tuple[list[str | None], tuple[int, str] | None]:
    """Take the texts of rows `start` to `start + count`, and the first text of a later row, which waits."""
    column: list[str | None] = [None] * count
    while True:
        waiting = waiting or next(texts, None)
        if waiting is None or waiting[0] >= start + count:
            return column, waiting
        column[waiting[0] - start] = waiting[1]
        waiting = None


def _dictionary(column: pd.Series) -> pa.DictionaryArray:
    categories = pa.array(column.cat.categories, pa.string())
    return pa.DictionaryArray.from_arrays(column.cat.codes.to_numpy(np.int32), categories)


def _write_items(path: Path, items: pd.DataFrame) -> None:
    table = pa.table(
        {
            "item": pa.array(items["item_id"], pa.string()),
            "name": pa.array(items["name"], pa.string()),
            "categories": pa.array(
                [list(names) for names in items["categories"]], pa.list_(pa.string())
            ),
            "attributes": pa.array(
                [json.dumps(entry, ensure_ascii=False) for entry in items["attributes"]],
                pa.string(),
            ),
        }
    )
    pq.write_table(table, path, compression="zstd")


def format_conversion(conversion: Conversion) -> str:
    """Describe a conversion in a few lines of text."""
    raw = conversion.raw
    counts = f"{len(raw.ratings):,} ratings, {len(raw.items):,} items described"
    return "\n".join(
        [
            f"{counts}, from {raw.origin}",
            *skipped_lines(raw),
            f"read in {conversion.read_seconds:.1f} s, written in {conversion.write_seconds:.1f} s",
            f"written to {conversion.path}",
        ]
    )


def skipped_lines(raw: RawData, more: Sequence[SkippedLines] = ()) -> list[str]:
    """One line for each reason why lines were left out, with the first such line, for people."""
    unread = [
        f"{skipped.label}: {count:,} {'line' if count == 1 else 'lines'} left out: {reason} "
        f"(first: line {skipped.first[reason]:,})"
        for skipped in (*raw.skipped, *more)
        for reason, count in skipped.counts.items()
    ]
    return unread + [
        f"{count:,} rows left out: {why}" for why, count in (raw.left_out or {}).items()
    ]
