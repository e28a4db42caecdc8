"""Anime: ratings from myanimelist.net as CooperUnion published them.

`rating.csv` has a line for every title that a user watched, with -1 where the user gave no rating. There are no
times, and each user's lines are sorted by title. Titles of genre Hentai are for adults, and are left out unless
`--keep-adult` is given. Prompts never contain the average rating and the number of members in `anime.csv`, because
these are what the simulator is to predict.
"""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxsim import InputError
from prep.readers.columns import Column, RatingColumns
from prep.readers.csv import CsvRatings
from prep.readers.items import csv_rows
from prep.readers.lines import LineFile, SkippedLines, find_plain_or_gzip, unzipped
from prep.readers.rows import BadLineError, Item, RatingRows, RatingsCollector, items_table
from prep.readers.validator import Scale
from prep.sources.base import RawData, SourceOptions

OFFER = "https://www.kaggle.com/datasets/CooperUnion/anime-recommendations-database"
ITEMS, RATINGS = "anime.csv", "rating.csv"
HOW_TO_GET = (
    f"anime: Kaggle gives datasets to people with an account, which is free. Open {OFFER} in a browser, sign in, "
    "choose Download as zip, then run: python -m prep build anime --raw archive.zip, or --raw FOLDER with "
    f"{ITEMS} and {RATINGS} (or their .gz)"
)
"""One line on what to click, to accept and to run."""
UNRATED = -1.0
ADULT_GENRE = "Hentai"
UNRATED_LEFT_OUT = "watched, but not rated (-1)"
ADULT_LEFT_OUT = f"of adult titles (genre {ADULT_GENRE}); --keep-adult keeps them"
RATING_COLUMNS = RatingColumns(Column("user_id"), Column("anime_id"), Column("rating"))
ITEM_COLUMNS = (
    Column("anime_id"),
    Column("name", multiline=True),
    Column("genre", multiline=True),
    Column("type"),
    Column("episodes"),
)
_SHIPPED = Path(__file__).parents[1] / "data" / "anime"
_UNKNOWN = {"", "unknown"}

RowTest = Callable[[RatingRows], np.ndarray]
"""Whether each of R rows is left out: bool[R]."""


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
    replies: Sequence[Path] = (_SHIPPED / "t_obj_replies.jsonl.gz",)
    replies_are_partial: bool = True
    language_model: str = "Claude (Anthropic)"
    keep_unrated: bool = False

    def load(self, options: SourceOptions) -> RawData:
        """Read the titles and their ratings.

        Args:
            options: `raw` is the folder of the two files, plain or gzip, or the zip with them; `keep_adult` keeps
                the titles of genre Hentai and their ratings.

        Raises:
            InputError: no folder is given, it lacks a file, one cannot be read, or no rating is left.
        """
        with _open_raw(options.raw) as (titles, file):
            items, skipped_items = _read_titles(titles, options.strict)
            adult = frozenset() if options.keep_adult else _adult_titles(items)
            drops = self._drops(adult, options)
            left_out = dict.fromkeys(drops, 0)
            skipped = SkippedLines(file.label, options.strict)
            table = CsvRatings(file, RATING_COLUMNS, Scale(1, 10, others=(UNRATED,)))
            collector = RatingsCollector()
            for rows in table.rows(skipped.add):
                for reason, is_dropped in drops.items():
                    dropped = is_dropped(rows)
                    left_out[reason] += int(dropped.sum())
                    rows = rows.select(~dropped)
                collector.add(rows)
            lines = len(collector) + sum(left_out.values())
            skipped.check_any_read(lines, "rating")
            if not len(collector):
                raise InputError(
                    f"{file.label}: none of its {lines:,} lines has a rating that counts: "
                    + "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
                )
            return RawData(
                ratings=collector.build(),
                items=items_table({item: items[item] for item in items if item not in adult}),
                files={part.path.name: part.sha256 for part in (titles, file)},
                origin=f"{options.raw} (CooperUnion)",
                skipped=(skipped_items, skipped),
                left_out={reason: count for reason, count in left_out.items() if count},
                keep_adult=options.keep_adult,
                left_out_items=adult,
            )

    def _drops(self, adult: Set[str], options: SourceOptions) -> dict[str, RowTest]:
        """Why a row is left out -> which rows are."""
        drops: dict[str, RowTest] = {}
        if not self.keep_unrated:
            drops[UNRATED_LEFT_OUT] = lambda rows: rows.rating == UNRATED
        if not options.keep_adult:
            drops[ADULT_LEFT_OUT] = lambda rows: rows.item.among(adult)
        return drops


@contextmanager
def _open_raw(raw: Path | None) -> Iterator[tuple[LineFile, LineFile]]:
    """The files of titles and of ratings, which may be temporary: read them within the block."""
    names = f"{ITEMS} and {RATINGS} (or their .gz)"
    if raw is None:
        raise InputError(HOW_TO_GET)
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


def _adult_titles(items: Mapping[str, Item]) -> frozenset[str]:
    return frozenset(item for item, title in items.items() if ADULT_GENRE in title.categories)


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
