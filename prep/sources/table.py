"""The user's own table of ratings, CSV or Parquet, with a file of items.

Its columns are `user,item,rating` and perhaps `timestamp`, `text` and `duration`. A table without ratings is
`user,item,duration`, and the durations take their place. The columns may have any order, and other columns are
ignored; `user_id`, `item_id` and `time` are accepted as names too. Ids are text as written: "007" is not "7"; in
Parquet, whole numbers become their decimal digits. Times are seconds since 1970 or ISO 8601 dates, in UTC where
they have no offset; milli-, micro- and nanoseconds are recognised if all times are that large.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxsim.dataset import sha256_of
from prep.readers.columns import Column, RatingColumns
from prep.readers.csv import CsvRatings
from prep.readers.items import read_items
from prep.readers.lines import LineFile, SkippedLines
from prep.readers.parquet import ParquetRatings, is_parquet
from prep.readers.rows import Item, RatingsCollector, RereadTexts, items_table
from prep.readers.validator import Scale
from prep.sources.base import RawData, SourceOptions

COLUMNS = RatingColumns(
    user=Column("user", ("user_id",)),
    item=Column("item", ("item_id",)),
    rating=Column("rating", instead="duration"),
    time=Column("timestamp", ("time",), required=False),
    text=Column("text", required=False, multiline=True),
    duration=Column("duration", required=False),
)
SUFFIXES = (".csv", ".tsv", ".txt", ".gz", ".parquet", ".pq")


@dataclass(frozen=True)
class TableFile:
    """The source of a table of the user's own.

    Attributes:
        path: the file of ratings.
    """

    path: Path
    noun: str = "item"
    like_threshold: float | None = None
    best_rating: float | None = None
    replies: Sequence[Path] = ()
    replies_are_partial: bool = False
    language_model: str = ""

    @property
    def name(self) -> str:
        """The file's name without its endings."""
        name = self.path.name.removesuffix(".gz")
        return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)

    def load(self, options: SourceOptions) -> RawData:
        """Read the ratings and, if there is one, the file of items.

        Args:
            options: `items` is the file of items; without it, items are named by their ids.

        Raises:
            InputError: a file cannot be read, lacks a column, or has no valid row.
        """
        file = None if is_parquet(self.path) else LineFile(self.path)
        table = (
            CsvRatings(file, COLUMNS, Scale())
            if file
            else ParquetRatings(self.path, COLUMNS, Scale())
        )
        skipped = SkippedLines(str(self.path), options.strict)
        collector = RatingsCollector()
        for rows in table.rows(skipped.add):
            collector.add(rows)
        skipped.check_any_read(len(collector), "rating")
        ratings = collector.build()
        files = {self.path.name: file.sha256 if file else sha256_of(self.path)}
        reports = [skipped]
        items = {item: Item(item, (), {}) for item in ratings["item_id"].cat.categories}
        if options.items is not None:
            items, skipped_items, digest = read_items(options.items, options.strict)
            reports.append(skipped_items)
            files[options.items.name] = digest
        first, missing = table.missing_duration, ""
        if first is not None:
            missing = f"{self.path}:{first}"
        reviews = RereadTexts(lambda: table.rows(lambda line, why: None, with_text=True))
        return RawData(
            ratings=ratings,
            items=items_table(items),
            files=files,
            origin=str(self.path),
            skipped=reports,
            reviews=reviews if table.has_text else None,
            durations_are_ratings=not table.has_rating,
            missing_duration=missing,
        )
