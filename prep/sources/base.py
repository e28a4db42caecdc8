"""What every source of data returns, whatever its own files look like."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from prep.readers.lines import SkippedLines
from prep.sources.amazon_releases import Year


@dataclass(frozen=True)
class SourceOptions:
    """How the user wants the raw files to be read.

    Attributes:
        raw: folder or file to read; None to use the cache or a download, where the source has one.
        items: for a table of the user's own, the file of items beside it; None if there is none.
        state: for `yelp`, the state whose businesses are kept; empty for all, None for Missouri.
        strict: stop at the first line that cannot be read; without it such lines are left out and counted.
        keep_adult: for `anime`, whether adult titles are kept.
        release: for the Amazon reviews, the year of the release; None for the paper's.
        yes: whether the user has agreed to a large download, so that they are not asked.
    """

    raw: Path | None = None
    items: Path | None = None
    state: str | None = None
    strict: bool = False
    keep_adult: bool = False
    release: Year | None = None
    yes: bool = False


class Reviews(Protocol):
    """The texts of reviews. They may not fit in memory, so they are read again from the raw files when needed."""

    def texts(self, rows: np.ndarray) -> Iterator[tuple[int, str]]:
        """Yield (row, text) in ascending order for those of `rows` whose text is not blank.

        Args:
            rows: int64[R], ascending positions in `RawData.ratings`.
        """


@dataclass(frozen=True)
class RawData:
    """Ratings and items as a source reads them, before indexing, splitting or filtering.

    Attributes:
        ratings: one row a rating in the order of the file: `user_id` and `item_id` (categorical, of str),
            `rating` (float32, finite) and `time` (int64, seconds; 0 throughout where the source has none, see
            `prep.order.choose_order`), and perhaps `duration` (float32, above 0, NaN where one is missing).
        items: one row an item, in any order: `item_id` (str, unique), `name` (str), `categories` (tuple of str,
            in the source's own order) and `attributes` (dict of str to str: what else a prompt may say about the
            item, such as {"year": "1995"}). Items may lack ratings, and rated items may be missing here.
        files: name -> SHA-256 of each raw file, of its bytes on the disk.
        origin: where the files came from in a few words, for the report.
        skipped: the lines that could not be read, one entry a file.
        reviews: the texts that users wrote with their ratings; None where the source has none.
        left_out: reason -> how many valid rows the source left out on purpose, such as those of other states.
        state: the state whose businesses were kept, empty for all; None for sources without states.
        keep_adult: whether adult titles were kept; None for sources that know of none.
        left_out_items: raw ids of the items that the source left out on purpose. Replies about them are no error.
        durations_are_ratings: whether the ratings are the durations, because there are no others.
        missing_duration: file and line of the first rating without a duration; empty without any.
        urls: name -> address of each file that was downloaded without a published digest.
    """

    ratings: pd.DataFrame
    items: pd.DataFrame
    files: Mapping[str, str]
    origin: str
    skipped: Sequence[SkippedLines] = ()
    reviews: Reviews | None = None
    left_out: Mapping[str, int] | None = None
    state: str | None = None
    keep_adult: bool | None = None
    left_out_items: Set[str] = frozenset()
    durations_are_ratings: bool = False
    missing_duration: str = ""
    urls: Mapping[str, str] = field(default_factory=dict)


class Source(Protocol):
    """A dataset that `python -m prep build NAME` can get and read."""

    @property
    def name(self) -> str:
        """The name on the command line and in the manifest."""

    @property
    def noun(self) -> str:
        """What a prompt calls an item, such as "movie"."""

    @property
    def like_threshold(self) -> float | None:
        """A rating of at least this is a like, unless the user gives another; None if the user must give one."""

    @property
    def best_rating(self) -> float | None:
        """The highest rating that users can give; None if it is only known from the ratings."""

    @property
    def replies(self) -> Sequence[Path]:
        """Files of language-model replies that ship with the package; empty when there are none."""

    @property
    def replies_are_partial(self) -> bool:
        """Whether `replies` are known to be about a part of the items, so that a missing one is no error."""

    @property
    def language_model(self) -> str:
        """The language model that wrote `replies`; empty when there are none."""

    def load(self, options: SourceOptions) -> RawData:
        """Read the dataset.

        Raises:
            InputError: the files cannot be found, downloaded or read.
        """
