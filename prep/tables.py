"""The two tables that every source of data returns, whatever its own files look like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd


@dataclass(frozen=True)
class RawData:
    """Ratings and items as a source read them, before indexing, splitting or filtering.

    Attributes:
        ratings: one row a rating in the order of the file: `user_id` and `item_id` (str), `rating`
            (float32) and `time` (int64, seconds). Every `item_id` is in `items`.
        items: one row an item, in any order: `item_id` (str, unique), `name` (str), `year` (Int64,
            may be missing) and `categories` (tuple of str, in the source's own order).
        files: name -> SHA-256 of each raw file that was read.
        origin: a few words on where the files came from, for the report.
    """

    ratings: pd.DataFrame
    items: pd.DataFrame
    files: Mapping[str, str]
    origin: str


class Source(Protocol):
    """A dataset that `python -m prep build NAME` knows how to get and read."""

    @property
    def name(self) -> str:
        """The name on the command line and in the manifest."""

    @property
    def like_threshold(self) -> float:
        """A rating of at least this is a like, unless the user says otherwise."""

    @property
    def replies(self) -> Sequence[Path]:
        """Files of language-model replies that ship with the package; empty when there are none."""

    @property
    def language_model(self) -> str:
        """The language model that wrote `replies`."""

    def load(self, raw: Path | None) -> RawData:
        """Read the dataset from `raw`, or, when that is None, from wherever it can be had.

        Raises:
            InputError: it cannot be had, or a file cannot be read.
        """
