"""What every source of data returns, whatever its own files look like."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from prep.readers.lines import SkippedLines


@dataclass(frozen=True)
class SourceOptions:
    """What the user says of the raw files.

    Attributes:
        raw: folder or file to read; None for the cache or a download, where the source has one.
        items: for a table of one's own, the file of items beside it; None if there is none.
        state: for `yelp`, the state whose businesses are kept; empty for all, None for Missouri.
        strict: stop at the first line that cannot be read; without it such lines are left out and counted.
    """

    raw: Path | None = None
    items: Path | None = None
    state: str | None = None
    strict: bool = False


class Reviews(Protocol):
    """The texts of reviews, read again from the raw files when they are wanted: they may not fit in memory."""

    def texts(self, rows: np.ndarray) -> Iterator[tuple[int, str]]:
        """Yield (row, text) for those of `rows` that have a text which is not blank, in ascending order.

        Args:
            rows: int64[R], ascending positions in `RawData.ratings`.
        """


@dataclass(frozen=True)
class RawData:
    """Ratings and items as a source read them, before indexing, splitting or filtering.

    Attributes:
        ratings: one row a rating in the order of the file: `user_id` and `item_id` (categorical, of str),
            `rating` (float32, finite) and `time` (int64, seconds; 0 throughout where the source has none).
        items: one row an item, in any order: `item_id` (str, unique), `name` (str), `categories` (tuple of str,
            in the source's own order) and `attributes` (dict of str to str: what else a prompt may tell of the
            item, such as {"year": "1995"}). Items without a rating are allowed, and so are ratings of items that
            are not among them.
        files: name -> SHA-256 of each raw file that was read, as it lies on the disk.
        origin: a few words on where the files came from, for the report.
        skipped: what could not be read, file by file; empty where everything could.
        reviews: the texts that users wrote with their ratings; None where the source has none.
        left_out: why -> how many readable rows the source left out on purpose, such as those of other states.
        state: the state whose businesses were kept, empty for all; None where there are no states.
    """

    ratings: pd.DataFrame
    items: pd.DataFrame
    files: Mapping[str, str]
    origin: str
    skipped: Sequence[SkippedLines] = ()
    reviews: Reviews | None = None
    left_out: Mapping[str, int] | None = None
    state: str | None = None


class Source(Protocol):
    """A dataset that `python -m prep build NAME` knows how to get and read."""

    @property
    def name(self) -> str:
        """The name on the command line and in the manifest."""

    @property
    def noun(self) -> str:
        """What a prompt calls an item, such as "movie"."""

    @property
    def like_threshold(self) -> float | None:
        """A rating of at least this is a like, unless the user says otherwise; None: the user must say."""

    @property
    def best_rating(self) -> float | None:
        """The highest rating that can be given; None if only the ratings tell."""

    @property
    def replies(self) -> Sequence[Path]:
        """Files of language-model replies that ship with the package; empty when there are none."""

    @property
    def language_model(self) -> str:
        """The language model that wrote `replies`; empty when there are none."""

    def load(self, options: SourceOptions) -> RawData:
        """Read the dataset.

        Raises:
            InputError: it cannot be had, or cannot be read.
        """


def ratings_table(
    user: np.ndarray,
    user_ids: Sequence[str],
    item: np.ndarray,
    item_ids: Sequence[str],
    rating: np.ndarray,
    time: np.ndarray,
) -> pd.DataFrame:
    """Make the table of `RawData.ratings` from codes and the distinct ids that they stand for.

    Args:
        user, item: integer[M], places in `user_ids` and `item_ids`.
        user_ids, item_ids: distinct raw ids, in any order.
        rating: float32[M].
        time: int64[M], seconds.
    """
    return pd.DataFrame(
        {
            "user_id": pd.Categorical.from_codes(user, pd.Index(user_ids, dtype=str)),
            "item_id": pd.Categorical.from_codes(item, pd.Index(item_ids, dtype=str)),
            "rating": np.asarray(rating, np.float32),
            "time": np.asarray(time, np.int64),
        }
    )
