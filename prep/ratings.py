"""The first stage of a build: raw files to items and interactions in index order."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from jaxsim import InputError
from jaxsim.dataset import TRAIN
from prep.config import RatingsConfig
from prep.interactions import Interactions, index_interactions
from prep.sources.table_file import TableFile
from prep.tables import RawData, Source, SourceOptions

CONVERSION = "conversion.json"


@dataclass(frozen=True)
class Ratings:
    """Items and interactions in index order.

    Attributes:
        raw: what the source gave.
        items: N rows in index order: `item_id`, `name`, `categories`, `attributes`, as in `RawData.items`.
        interactions: the indexed, ordered, labelled and split ratings.
        like_threshold: a rating of at least this is a like.
        unknown_items: how many items are rated without being described; they are named by their ids.
        noun: what a prompt calls an item.
    """

    raw: RawData
    items: pd.DataFrame
    interactions: Interactions
    like_threshold: float
    unknown_items: int
    noun: str

    def find(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Look up interactions by raw ids.

        Args:
            pairs: (user id, item id).

        Returns:
            int64[len(pairs)], the place of each among the M interactions, -1 where there is none.
        """
        if not pairs:
            return np.zeros(0, np.int64)
        users, items = zip(*pairs, strict=True)
        user = pd.Index(self.interactions.users).get_indexer(pd.Index(users))
        item = pd.Index(self.interactions.items).get_indexer(pd.Index(items))
        keys = np.where((user < 0) | (item < 0), -1, user * len(self.items) + item)
        known, order = self._sorted_keys
        place = np.searchsorted(known, keys).clip(max=len(known) - 1)
        return np.where(known[place] == keys, order[place], -1)

    @cached_property
    def _sorted_keys(self) -> tuple[np.ndarray, np.ndarray]:
        keys = self.interactions.users_of_rows * len(self.items)
        keys += self.interactions.arrays["interaction_item"]
        order = np.argsort(keys)
        return keys[order], order

    @property
    def left_out_items(self) -> frozenset[str]:
        """Raw ids of the items that the source knows and that were not kept."""
        known = {*self.raw.items["item_id"], *self.raw.ratings["item_id"].cat.categories}
        return frozenset(known.difference(self.interactions.items))

    def training(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], bool | None]:
        """Tell of each pair of raw ids that is an interaction whether it is a like.

        Args:
            pairs: (user id, item id).

        Returns:
            (user id, item id) -> True for a like and False for a dislike of the training split, None for the other
            splits; pairs that are no interaction are left out.
        """
        places = self.find(pairs)
        labels = self.interactions.arrays["interaction_label"]
        splits = self.interactions.arrays["interaction_split"]
        return {
            pair: bool(labels[place]) if splits[place] == TRAIN else None
            for pair, place in zip(pairs, places.tolist(), strict=True)
            if place >= 0
        }


def read_ratings(source: Source, config: RatingsConfig) -> Ratings:
    """Read a source and put its items and ratings into index order.

    Args:
        source: the dataset.
        config: where its raw files lie, how they are read, which ratings are kept, and what is a like.

    Raises:
        InputError: the files cannot be had or read, nobody says what a like is, or every rating is one, or none.
    """
    threshold = source.like_threshold if config.like_threshold is None else config.like_threshold
    if threshold is None:
        raise InputError(
            f"--like-threshold: say from which rating on a user of {source.name} likes an item"
        )
    if config.items is not None and not isinstance(source, TableFile):
        raise InputError(f"--items: {source.name} has a file of items of its own; leave it out")
    raw = load_raw(source, config.source_options)
    interactions = index_interactions(
        raw.ratings,
        threshold,
        raw.items["item_id"] if config.keep_unrated else (),
        config.min_user_ratings,
        config.min_item_ratings,
    )
    _check_labels(interactions, threshold)
    items, unknown = items_in_order(raw.items, interactions.items)
    return Ratings(raw, items, interactions, threshold, unknown, config.noun or source.noun)


def load_raw(source: Source, options: SourceOptions) -> RawData:
    """Read a source from its own files, or from what `python -m prep convert` made of them.

    Raises:
        InputError: as `Source.load`, or what was converted is another dataset.
    """
    folder = options.raw
    if folder is None or not (folder / CONVERSION).is_file():
        return source.load(options)
    converted = _conversion_of(folder)
    if converted != source.name:
        raise InputError(
            f"{folder / CONVERSION}: a conversion of {converted}, not of {source.name}"
        )
    tables = TableFile(folder / "ratings.parquet")
    data = tables.load(replace(options, raw=None, items=folder / "items.parquet"))
    return replace(data, origin=f"{folder} (converted)")


def _conversion_of(folder: Path) -> str:
    path = folder / CONVERSION
    try:
        return str(json.loads(path.read_text("utf-8"))["dataset"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: not what `python -m prep convert` writes; convert again"
        ) from None


def _check_labels(interactions: Interactions, threshold: float) -> None:
    labels = interactions.arrays["interaction_label"]
    if labels.all() or not labels.any():
        ratings = interactions.arrays["interaction_rating"]
        raise InputError(
            f"--like-threshold {threshold:g}: it makes every rating a {'like' if labels.all() else 'dislike'} "
            f"(they go from {ratings.min():g} to {ratings.max():g})"
        )


def items_in_order(items: pd.DataFrame, item_ids: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Bring the described items into index order, and name those that are not described by their ids.

    Args:
        items: as in `prep.tables.RawData`.
        item_ids: raw ids in index order; N of them.

    Returns:
        N rows with the columns `item_id`, `name`, `categories` and `attributes`, and how many were not described.
    """
    place: Mapping[str, int] = {item: row for row, item in enumerate(items["item_id"])}
    rows = [place.get(item, -1) for item in item_ids]
    names, categories, attributes = (
        list(items[column]) for column in ("name", "categories", "attributes")
    )
    table = pd.DataFrame(
        {
            "item_id": item_ids,
            "name": [
                names[row] if row >= 0 else item for row, item in zip(rows, item_ids, strict=True)
            ],
            "categories": pd.Series(
                [categories[row] if row >= 0 else () for row in rows], dtype=object
            ),
            "attributes": pd.Series(
                [attributes[row] if row >= 0 else {} for row in rows], dtype=object
            ),
        }
    )
    return table, sum(row < 0 for row in rows)
