"""The pipeline from raw ratings and replies to a packed dataset."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from jaxsim import InputError, dataset_path, sha256_of
from jaxsim.dataset import MIN_INTERACTIONS
from prep.categories import filter_categories
from prep.embedding import (
    DEFAULT_ENCODER,
    POOLING,
    SHIPPED_VECTORS,
    item_embeddings,
    keyword_vectors,
)
from prep.interactions import Interactions, index_interactions, sorted_ids
from prep.keywords import ItemKeywords, KeywordFilter, filter_keywords, index_rows
from prep.pack import PackedContents, check_output, write_dataset
from prep.replies import POLARITIES, Annotations, annotate, read_replies
from prep.sources import get_source
from prep.statistic_model import SASRecTraining, train_sasrec
from prep.tables import RawData, Source

SPLIT_RULE = "ratio"  # 80 % train, 10 % validation, 10 % test of each user's interactions in order
NO_KEYWORDS = ItemKeywords(frozenset(), frozenset())


@dataclass(frozen=True)
class BuildConfig:
    """The settings of a build; what is not given is the dataset's own default or the usual one."""

    raw: Path | None = None
    """The raw data: for ml-100k GroupLens' zip or folder, or RecBole's folder or wheel. Without it,
    the cache or a download."""
    out: Path | None = None
    """The folder to write. Without it, one in the cache, where jaxsim finds it by its name."""
    replies: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """JSON lines (or .jsonl.gz) of {"item_id", "reply"}, in place of the replies that ship with the
    dataset; may be given several times."""
    language_model: str | None = None
    """Name of the model that wrote --replies, for the record."""
    allow_missing_replies: bool = False
    """Give an item without a reply, or with one that does not parse, no keywords; do not stop."""
    like_threshold: float | None = None
    """A rating of at least this is a like. Without it, the dataset's own: 4 for ml-100k."""
    min_items: int = 2
    """Keywords on fewer items are dropped."""
    max_share: float = 0.10
    """Keywords on more than this share of the items with a parsed reply are dropped."""
    max_category_share: float = 0.5
    """Categories on more than this share of the items are dropped."""
    min_category_items: int = 5
    """Categories on fewer items are dropped."""
    single_category: bool = False
    """Keep only the rarest category of each item."""
    encoder: str = DEFAULT_ENCODER
    """Name or path of the BERT that embeds keywords."""
    vectors: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """File of keyword vectors that `python -m prep embed` wrote; may be given several times."""
    sasrec: SASRecTraining = field(default_factory=SASRecTraining)
    """The statistic model."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        for flag, share in (
            ("--max-share", self.max_share),
            ("--max-category-share", self.max_category_share),
        ):
            if not 0 < share <= 1:
                raise InputError(f"{flag} {share:g}: give a share above 0 and up to 1")
        for flag, count in (
            ("--min-items", self.min_items),
            ("--min-category-items", self.min_category_items),
        ):
            if count < 1:
                raise InputError(f"{flag} {count}: give a whole number from 1")
        if self.like_threshold is not None and not math.isfinite(self.like_threshold):
            raise InputError(f"--like-threshold {self.like_threshold}: give a finite number")
        self.sasrec.check()


@dataclass(frozen=True)
class Ratings:
    """The first stage: items and interactions in index order.

    Attributes:
        raw: what the source gave.
        items: `raw.items` in index order.
        interactions: the indexed, ordered, labelled and split ratings.
        like_threshold: a rating of at least this is a like.
    """

    raw: RawData
    items: pd.DataFrame
    interactions: Interactions
    like_threshold: float


@dataclass(frozen=True)
class Words:
    """The second stage: what the language model said.

    Attributes:
        files: the files of replies.
        language_model: who wrote them.
        annotations: the keywords of each item, and the items without.
        filter: the keywords that survive.
    """

    files: Sequence[Path]
    language_model: str
    annotations: Annotations
    filter: KeywordFilter


@dataclass(frozen=True)
class BuildResult:
    """What a build made: the folder, its contents, the stages behind them and their seconds."""

    path: Path
    contents: PackedContents
    ratings: Ratings
    words: Words
    seconds: Mapping[str, float]


def build_dataset(name: str, config: BuildConfig) -> BuildResult:
    """Build the dataset `name` and write it to disk.

    Raises:
        InputError: an unusable setting, raw file, reply or output folder; nothing is written then.
    """
    config.check()
    source = get_source(name)
    out = config.out or dataset_path(name)
    check_output(out)
    seconds: dict[str, float] = {}
    with _timed(seconds, "ratings"):
        ratings = _read_ratings(source, config)
    with _timed(seconds, "replies"):
        words = _read_words(source, config, ratings.items)
    with _timed(seconds, "embedding"):
        arrays, categories = _make_arrays(config, ratings, words)
    print("Training the statistic model, SASRec ...", flush=True)
    with _timed(seconds, "SASRec"):
        weights, sasrec = train_sasrec(arrays, config.sasrec)
    items, users = _tables(ratings, words)
    contents = PackedContents(
        arrays=arrays,
        items=items,
        users=users,
        keywords=words.filter.kept,
        categories=categories,
        sasrec=weights,
        manifest=_manifest(name, config, ratings, words, arrays, categories) | {"sasrec": sasrec},
    )
    with _timed(seconds, "writing"):
        write_dataset(out, contents)
    return BuildResult(out, contents, ratings, words, seconds)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _read_ratings(source: Source, config: BuildConfig) -> Ratings:
    threshold = config.like_threshold
    threshold = source.like_threshold if threshold is None else threshold
    raw = source.load(config.raw)
    item_ids = sorted_ids(raw.items["item_id"])
    interactions = index_interactions(raw.ratings, item_ids, threshold)
    labels = interactions.arrays["interaction_label"]
    if labels.all() or not labels.any():
        which = "like" if labels.all() else "dislike"
        raise InputError(f"--like-threshold {threshold:g}: it makes every rating a {which}")
    items = raw.items.set_index("item_id").loc[item_ids].reset_index()
    return Ratings(raw, items, interactions, threshold)


def _read_words(source: Source, config: BuildConfig, items: pd.DataFrame) -> Words:
    files = config.replies or tuple(source.replies)
    model = config.language_model or ("not named" if config.replies else source.language_model)
    replies = [reply for path in files for reply in read_replies(path)]
    names = dict(zip(items["item_id"], items["name"], strict=True))
    annotations = annotate(replies, names, config.allow_missing_replies)
    kept = filter_keywords(annotations.keywords.values(), config.min_items, config.max_share)
    if not kept.kept:
        raise InputError(
            f"none of {len(kept.counts)} keywords is on at least {config.min_items} and at most "
            f"{config.max_share:.0%} of {len(annotations.keywords)} items with a reply: "
            "change --min-items or --max-share"
        )
    return Words(files, model, annotations, kept)


def _make_arrays(
    config: BuildConfig, ratings: Ratings, words: Words
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Make the arrays of the format, and the category names in index order."""
    categories = filter_categories(
        list(ratings.items["categories"]),
        config.max_category_share,
        config.min_category_items,
        config.single_category,
    )
    names = sorted({name for row in categories for name in row})
    files = (SHIPPED_VECTORS, *config.vectors)  # the user's come last and win
    vectors = keyword_vectors(words.filter.kept, config.encoder, files)
    arrays = {**ratings.interactions.arrays, "item_categories": index_rows(categories, names)}
    found = [words.annotations.keywords.get(item, NO_KEYWORDS) for item in ratings.items["item_id"]]
    for side in POLARITIES:
        rows = index_rows([getattr(item, side) for item in found], words.filter.kept)
        arrays[f"item_{side}_keywords"] = rows
        arrays[f"item_{side}_embedding"] = item_embeddings(rows, vectors)
    return arrays, names


def _tables(ratings: Ratings, words: Words) -> tuple[pd.DataFrame, pd.DataFrame]:
    parsed = [item in words.annotations.keywords for item in ratings.items["item_id"]]
    categories = [list(names) for names in ratings.items["categories"]]
    items = ratings.items.assign(categories=pd.Series(categories, dtype=object), has_reply=parsed)
    counts = np.diff(ratings.interactions.arrays["user_offsets"])
    users = pd.DataFrame({"user_id": ratings.interactions.users, "interactions": counts})
    return items, users


def _manifest(
    name: str,
    config: BuildConfig,
    ratings: Ratings,
    words: Words,
    arrays: Mapping[str, np.ndarray],
    categories: Sequence[str],
) -> dict[str, Any]:
    per_user = np.diff(arrays["user_offsets"])
    return {
        "dataset": name,
        "counts": {
            "users": len(per_user),
            "session_users": int((per_user >= MIN_INTERACTIONS).sum()),
            "items": len(ratings.items),
            "interactions": len(arrays["interaction_item"]),
            "duplicates_dropped": ratings.interactions.duplicates,
            "likes": int(arrays["interaction_label"].sum()),
            "keywords": len(words.filter.kept),
            "keywords_before_filter": len(words.filter.counts),
            "categories": len(categories),
            "items_without_reply": len(words.annotations.missing),
            "replies_unparsed": len(words.annotations.unparsed),
            "items_without_pos_keywords": count_empty(arrays["item_pos_keywords"]),
            "items_without_neg_keywords": count_empty(arrays["item_neg_keywords"]),
        },
        "settings": {
            "like_threshold": ratings.like_threshold,
            "split": SPLIT_RULE,
            "min_items": config.min_items,
            "max_share": config.max_share,
            "max_category_share": config.max_category_share,
            "min_category_items": config.min_category_items,
            "single_category": config.single_category,
            "allow_missing_replies": config.allow_missing_replies,
        },
        "encoder": {
            "name": config.encoder,
            "pooling": POOLING,
            "dimension": arrays["item_pos_embedding"].shape[1],
            "files": _digests((SHIPPED_VECTORS, *config.vectors)),
        },
        "language_model": {
            "name": words.language_model,
            "files": _digests(words.files),
        },
        "raw": dict(ratings.raw.files),
    }


def _digests(files: Iterable[Path]) -> list[dict[str, str]]:
    return [{"name": path.name, "sha256": sha256_of(path)} for path in files]


def count_empty(keyword_rows: np.ndarray) -> int:
    """How many rows of int32[N, K] hold nothing but padding."""
    return int((keyword_rows < 0).all(axis=1).sum())
