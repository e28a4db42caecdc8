"""Anime: ratings from myanimelist.net as CooperUnion published them.

`rating.csv` has a line for every title that a user watched, with -1 where the user gave no rating. There are no
times, so the order of the file counts. Prompts never contain the average rating and the number of members in
`anime.csv`, because these are what the simulator is to predict.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jaxsim import InputError
from prep.readers.columns import Column, RatingColumns
from prep.readers.csv import CsvRatings
from prep.readers.items import csv_rows
from prep.readers.lines import LineFile, SkippedLines, find_plain_or_gzip, unzipped
from prep.readers.rows import BadLineError, Item, RatingsCollector, items_table
from prep.readers.validator import Scale
from prep.sources.base import RawData, SourceOptions

OFFER = "https://www.kaggle.com/datasets/CooperUnion/anime-recommendations-database"
ITEMS, RATINGS = "anime.csv", "rating.csv"
UNRATED = -1.0
RATING_COLUMNS = RatingColumns(Column("user_id"), Column("anime_id"), Column("rating"))
ITEM_COLUMNS = (
    Column("anime_id"),
    Column("name", multiline=True),
    Column("genre", multiline=True),
    Column("type"),
    Column("episodes"),
)
_UNKNOWN = {"", "unknown"}


@dataclass(frozen=True)
class Anime:
    """The source `anime`.

    Attributes:
        keep_unrated: whether to keep titles that were watched but not rated, with the rating -1. This is only for
            counting the rows of the file: -1 is no rating.
    """

    name: str = "anime"
    noun: str = "anime"
    like_threshold: float = 6.0
    best_rating: float = 10.0
    replies: Sequence[Path] = ()
    language_model: str = ""
    keep_unrated: bool = False

    def load(self, options: SourceOptions) -> RawData:
        """Read the titles and their ratings.

        Args:
            options: `raw` is the folder of the two files, plain or gzip, or the zip with them.

        Raises:
            InputError: no folder is given, it lacks a file, or one cannot be read.
        """
        with _open_raw(options.raw) as (titles, file):
            items, skipped_items = _read_titles(titles, options.strict)
            skipped = SkippedLines(file.label, options.strict)
            table = CsvRatings(file, RATING_COLUMNS, Scale(1, 10, others=(UNRATED,)))
            collector, unrated = RatingsCollector(), 0
            for rows in table.rows(skipped.add):
                is_rated = rows.rating != UNRATED
                unrated += len(rows) - int(is_rated.sum())
                collector.add(rows if self.keep_unrated else rows.select(is_rated))
            skipped.check_any_read(len(collector) + unrated, "rating")
            if not len(collector):
                raise InputError(
                    f"{file.label}: none of its {unrated:,} lines has a rating, all have -1"
                )
            return RawData(
                ratings=collector.build(),
                items=items_table(items),
                files={part.path.name: part.sha256 for part in (titles, file)},
                origin=f"{options.raw} (CooperUnion)",
                skipped=(skipped_items, skipped),
                left_out={} if self.keep_unrated else {"watched, but not rated (-1)": unrated},
            )


@contextmanager
def _open_raw(raw: Path | None) -> Iterator[tuple[LineFile, LineFile]]:
    """The files of titles and of ratings, which may be temporary: read them within the block."""
    names = f"{ITEMS} and {RATINGS} (or their .gz)"
    if raw is None:
        raise InputError(
            f"anime: get the dataset at {OFFER} and give its zip, or the folder of {names}, with --raw"
        )
    if not raw.exists():
        raise InputError(
            f"{raw}: no such file; --raw is the zip from {OFFER}, or the folder of {names}"
        )
    if raw.is_dir():
        yield _find(raw, ITEMS), _find(raw, RATINGS)
        return
    with unzipped(raw, [(ITEMS, RATINGS)]) as (titles, ratings):
        yield titles, ratings


def _find(folder: Path, name: str) -> LineFile:
    path = find_plain_or_gzip(folder, name)
    if path is None:
        raise InputError(f"{folder}: there is no {name} or {name}.gz in it")
    return LineFile(path)


def _read_titles(file: LineFile, strict: bool) -> tuple[dict[str, Item], SkippedLines]:
    skipped = SkippedLines(file.label, strict)
    items: dict[str, Item] = {}
    for line, row in csv_rows(file, ITEM_COLUMNS, skipped.add)[1]:
        try:
            items[_new_id(row, items)] = _title(row)
        except BadLineError as error:
            skipped.add(line, str(error))
    skipped.check_any_read(len(items), "title")
    return items, skipped


def _new_id(row: Mapping[str, str], items: Mapping[str, Item]) -> str:
    item = row["anime_id"]
    if not item:
        raise BadLineError("anime_id is empty")
    if item in items:
        raise BadLineError("the title comes a second time")
    return item


def _title(row: Mapping[str, str]) -> Item:
    name = " ".join(html.unescape(row["name"]).split())
    genres = (" ".join(genre.split()) for genre in row["genre"].split(","))
    attributes = {field: row[field] for field in ("type", "episodes")}
    return Item(
        name or row["anime_id"],
        tuple(dict.fromkeys(genre for genre in genres if genre)),
        {field: value for field, value in attributes.items() if value.lower() not in _UNKNOWN},
    )
