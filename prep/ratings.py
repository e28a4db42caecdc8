"""The first stage of a build: from raw files to items and interactions in index order."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from jaxsim import InputError
from jaxsim.dataset import TRAIN
from prep.config import DurationUnit, RatingsConfig
from prep.interactions import Interactions, index_interactions
from prep.order import choose_order
from prep.readers.lines import SkippedLines
from prep.readers.rows import Item, items_table
from prep.signal_model import Durations
from prep.sources.amazon import Amazon
from prep.sources.base import RawData, Source, SourceOptions
from prep.sources.table import TableFile

CONVERSION = "conversion.json"


@dataclass(frozen=True)
class Ratings:
    """Items and interactions in index order.

    Attributes:
        raw: the data as the source read them.
        items: N rows in index order: `item_id`, `name`, `categories`, `attributes`, as in `RawData.items`.
        interactions: the indexed, ordered, labelled and split ratings.
        like_threshold: a rating of at least this is a like.
        unknown_items: how many rated items have no description; they are named by their ids.
        noun: what a prompt calls an item.
        best_rating: the highest rating that users can give: the source's, or else that of the training split.
        durations: those of the interactions; None if the source has none.
    """

    raw: RawData
    items: pd.DataFrame
    interactions: Interactions
    like_threshold: float
    unknown_items: int
    noun: str
    best_rating: float
    durations: Durations | None = None

    @property
    def left_out_items(self) -> frozenset[str]:
        """Raw ids of the dataset's items that were not kept, by the source or by the build."""
        read = {*self.raw.items["item_id"], *self.raw.ratings["item_id"].cat.categories}
        return frozenset(read.union(self.raw.left_out_items).difference(self.interactions.items))

    @cached_property
    def training(self) -> "TrainingLabels":
        """Which training ratings are likes, by raw ids."""
        return TrainingLabels(self.interactions)


class TrainingLabels(Mapping[tuple[str, str], bool | None]):
    """(user id, item id) -> whether a rating of the training split is a like; None for one of another split.

    Unrated pairs are not in it. There is no Python object for each pair, because there may be millions.
    """

    def __init__(self, interactions: Interactions) -> None:
        self._users = {user: place for place, user in enumerate(interactions.users)}
        self._items = {item: place for place, item in enumerate(interactions.items)}
        arrays = interactions.arrays
        keys = interactions.users_of_rows * len(self._items) + arrays["interaction_item"]
        order = np.argsort(keys)
        self._keys = keys[order]
        self._liked = arrays["interaction_label"][order] == 1
        self._is_training = arrays["interaction_split"][order] == TRAIN

    def __getitem__(self, pair: tuple[str, str]) -> bool | None:
        user, item = pair
        key = self._users[user] * len(self._items) + self._items[item]
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key:
            raise KeyError(pair)
        return bool(self._liked[place]) if self._is_training[place] else None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        users, items = list(self._users), list(self._items)
        for key in self._keys.tolist():
            yield users[key // len(items)], items[key % len(items)]

    def __len__(self) -> int:
        return len(self._keys)


def read_ratings(source: Source, config: RatingsConfig) -> Ratings:
    """Read a source and put its items and ratings into index order.

    Args:
        source: the dataset.
        config: where its raw files are, how to read them, which ratings to keep, and what is a like.

    Raises:
        InputError: the files cannot be found, downloaded or read; there is no like threshold; every rating is a
            like, or none is; or an option has no meaning for this dataset.
    """
    threshold = source.like_threshold if config.like_threshold is None else config.like_threshold
    if threshold is None:
        raise InputError(
            f"--like-threshold: give the lowest rating with which a user of {source.name} likes an item (or the "
            "lowest duration, for a table without ratings)"
        )
    raw = load_raw(source, config.source_options)
    time = raw.ratings["time"].to_numpy(np.int64)
    order = choose_order(time, config.file_order, config.order_seed)
    interactions = index_interactions(
        raw.ratings,
        threshold,
        raw.items["item_id"] if config.keep_unrated else (),
        config.min_user_ratings,
        config.min_item_ratings,
        config.split,
        order,
        config.order_seed,
        config.limit_users,
    )
    _check_labels(interactions, threshold, source.name, config.like_threshold is None, raw)
    items, unknown = items_in_order(raw.items, interactions.items)
    return Ratings(
        raw,
        items,
        interactions,
        threshold,
        unknown,
        config.noun or source.noun,
        source.best_rating or _best_of_training(interactions),
        _durations(raw, interactions, source.name, config.duration_unit),
    )


def _durations(
    raw: RawData, interactions: Interactions, name: str, unit: DurationUnit | None
) -> Durations | None:
    """The durations of the interactions.

    Raises:
        InputError: a unit without durations.
    """
    if "duration" not in raw.ratings or raw.ratings["duration"].isna().all():
        if unit is not None:
            raise InputError(f"--duration-unit {unit}: {name} has no durations; leave it out")
        return None
    values = raw.ratings["duration"].to_numpy(np.float32)[interactions.rows]
    return Durations(values, unit or "seconds", raw.durations_are_ratings)


def _best_of_training(interactions: Interactions) -> float:
    # Of the training split only: prompts must not depend on held-out ratings.
    training = interactions.arrays["interaction_split"] == TRAIN
    return float(interactions.arrays["interaction_rating"][training].max())


def load_raw(source: Source, options: SourceOptions) -> RawData:
    """Read a source from its own files, or from the tables that `python -m prep convert` made of them.

    Raises:
        InputError: as for `Source.load`; or the conversion is of another dataset or state, or was made with
            another `--keep-adult`; or an option has no meaning for this source.
    """
    own_table = isinstance(source, TableFile)
    if options.items is not None and not own_table:
        raise InputError(f"--items: {source.name} has a file of items of its own; leave it out")
    if options.raw is not None and own_table:
        raise InputError(f"--raw: {source.name} is read from its own path; leave it out")
    if options.state is not None and source.name != "yelp":
        raise InputError(f"--state: {source.name} has no states; leave it out")
    if options.keep_adult and (own_table or source.name != "anime"):
        raise InputError(
            f"--keep-adult: {source.name} leaves out no adult items; leave the option out"
        )
    if options.release is not None and not isinstance(source, Amazon):
        raise InputError(f"--release: {source.name} has no choice of releases; leave it out")
    if options.raw is None or not (options.raw / CONVERSION).is_file():
        return source.load(options)
    return _load_conversion(source.name, options.raw, options)


def _load_conversion(name: str, folder: Path, options: SourceOptions) -> RawData:
    path = folder / CONVERSION
    try:
        record = json.loads(path.read_text("utf-8"))
        converted, state, files = record["dataset"], record["state"], dict(record["raw"])
        urls = dict(record.get("raw_urls", {}))  # earlier conversions have none
        skipped = [SkippedLines(**entry) for entry in record["skipped"]]
        left_out, left_out_items = dict(record["left_out"]), frozenset(record["left_out_items"])
        keep_adult = record["keep_adult"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path}: not what `python -m prep convert` writes; convert again"
        ) from None
    if converted != name:
        raise InputError(f"{path}: a conversion of {converted}, not of {name}")
    if options.release is not None:
        raise InputError(f"--release {options.release}: {path} is a conversion; leave it out")
    if options.state not in (None, state):
        raise InputError(
            f"{path}: a conversion with --state {state!r}; convert again, or leave --state out"
        )
    if keep_adult is not None and keep_adult != options.keep_adult:
        which, advice = ("with", "give it here, too") if keep_adult else ("without", "leave it out")
        raise InputError(f"{path}: a conversion {which} --keep-adult; {advice}, or convert again")
    items = folder / "items.parquet"
    described = items.is_file() and pq.ParquetFile(items).metadata.num_rows
    table = SourceOptions(items=items if described else None, strict=options.strict)
    data = TableFile(folder / "ratings.parquet").load(table)
    return replace(
        data,
        items=data.items if described else data.items.iloc[:0],
        origin=f"{folder} (converted)",
        files=files,
        urls=urls,
        skipped=skipped,
        left_out=left_out,
        state=state,
        keep_adult=keep_adult,
        left_out_items=left_out_items,
    )


def _check_labels(
    interactions: Interactions, threshold: float, name: str, is_own: bool, raw: RawData
) -> None:
    labels = interactions.arrays["interaction_label"]
    if labels.all() or not labels.any():
        ratings = interactions.arrays["interaction_rating"]
        whose = f"{name}'s own " if is_own else ""
        left_out = "".join(
            f"; {count:,} rows left out: {why}" for why, count in (raw.left_out or {}).items()
        )
        raise InputError(
            f"{whose}--like-threshold {threshold:g}: it makes every rating a "
            f"{'like' if labels.all() else 'dislike'}, of {len(ratings):,} from {ratings.min():g} to "
            f"{ratings.max():g}{left_out}"
        )


def items_in_order(items: pd.DataFrame, item_ids: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """Bring the described items into index order; items without a description are named by their ids.

    Args:
        items: as in `prep.sources.base.RawData`.
        item_ids: raw ids in index order; N of them.

    Returns:
        N rows with the columns `item_id`, `name`, `categories` and `attributes`, and how many of them have no
        description.
    """
    columns = (items[name] for name in ("item_id", "name", "categories", "attributes"))
    described = {item: Item(*fields) for item, *fields in zip(*columns, strict=True)}
    table = items_table({item: described.get(item, Item(item, (), {})) for item in item_ids})
    return table, sum(item not in described for item in item_ids)
