"""The pipeline from raw files to a packed dataset: ratings, words, arrays, the statistic model, the folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jaxsim import InputError
from jaxsim.dataset import MIN_INTERACTIONS, dataset_path, sha256_of
from prep.config import BuildConfig
from prep.departure_model import DepartureTraining
from prep.exposure import ExposureTraining
from prep.features.categories import filter_categories
from prep.features.embedding import (
    HASHED,
    POOLING,
    SHIPPED_VECTORS,
    item_embeddings,
    keyword_vectors,
)
from prep.features.keywords import ItemKeywords, count_empty, index_rows
from prep.fitted_models import fit_models, timed
from prep.pack import PackedContents, check_output, write_dataset
from prep.ratings import Ratings, read_ratings
from prep.replies.parser import POLARITIES
from prep.sources import get_source
from prep.sources.amazon_releases import PAPERS
from prep.statistic_model import SASRecTraining
from prep.synthetic import SyntheticConfig, SyntheticData, make_synthetic
from prep.taste_model import TasteTraining
from prep.words import Words, read_words
from prep.years import item_years

NO_KEYWORDS = ItemKeywords(frozenset(), frozenset())


@dataclass(frozen=True)
class BuildResult:
    """The result of a build.

    Attributes:
        path: the folder.
        contents: what was written to it.
        ratings, words: results of the first two stages.
        seconds: duration of each stage by its name.
    """

    path: Path
    contents: PackedContents
    ratings: Ratings
    words: Words
    seconds: Mapping[str, float]


def build_dataset(name: str, config: BuildConfig) -> BuildResult:
    """Build the dataset `name` and write it to disk.

    Args:
        name: a dataset that prep knows, or the path of a table of ratings.
        config: settings.

    Raises:
        InputError: an unusable setting, raw file, reply or output folder; then nothing is written.
    """
    config.check()
    source = get_source(name)
    pack = pack_name(source.name, config)
    out = config.out or dataset_path(pack)
    check_output(out)
    seconds: dict[str, float] = {}
    with timed(seconds, "ratings"):
        ratings = read_ratings(source, config)
    with timed(seconds, "words"):
        words = read_words(source, config, ratings)
    with timed(seconds, "embedding"):
        arrays, categories = _make_arrays(config, ratings, words)
    years = item_years(ratings.items)
    models = fit_models(arrays, years, config, ratings.like_threshold, ratings.durations, seconds)
    items, users = _tables(ratings, words)
    manifest = _manifest(pack, config, ratings, words, arrays, categories)
    contents = PackedContents(
        arrays=arrays,
        items=items,
        users=users,
        keywords=words.filter.kept,
        categories=categories,
        manifest=manifest | models.manifest,
        **models.tensors,
    )
    with timed(seconds, "writing"):
        write_dataset(out, contents)
    return BuildResult(out, contents, ratings, words, seconds)


def pack_name(dataset: str, config: BuildConfig) -> str:
    """The name of a packed dataset; one with few users, or of another release or split, must not replace it."""
    release = "" if config.release in (None, PAPERS) else f"-{config.release}"
    users = "" if config.limit_users is None else f"-{config.limit_users}-users"
    return f"{dataset}{release}{users}" + ("" if config.split == "ratio" else f"-{config.split}")


def build_synthetic(synthetic: SyntheticConfig, config: BuildConfig) -> tuple[Path, SyntheticData]:
    """Draw a synthetic dataset and write it to disk with a statistic model of its own.

    Args:
        synthetic: the size and the preferences of the dataset.
        config: only `out` and the settings of the models are used; the others must have their defaults.

    Returns:
        The folder, and the data in it.

    Raises:
        InputError: an unusable setting or output folder; then nothing is written.
    """
    used = replace(config, out=None, sasrec=SASRecTraining(), taste=TasteTraining())
    if replace(used, exposure=ExposureTraining(), departure=DepartureTraining()) != BuildConfig():
        raise InputError(
            "synthetic: only --synthetic, --sasrec, --taste, --exposure, --departure and --out are used; leave "
            "out the other options"
        )
    config.check()
    out = config.out or dataset_path("synthetic")
    check_output(out)
    data = make_synthetic(synthetic)
    fields = {field.name: getattr(data, field.name) for field in fields_of(data)}
    years = np.full(len(data.items), np.nan, np.float32)
    models = fit_models(data.arrays, years, config, like_threshold=1.0)  # ratings are the labels
    fields["manifest"] = data.manifest | models.manifest
    contents = PackedContents(**fields, **models.tensors)
    write_dataset(out, contents)
    return out, data


def _make_arrays(
    config: BuildConfig, ratings: Ratings, words: Words
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of the format, and the category names in index order."""
    categories = filter_categories(
        list(ratings.items["categories"]),
        config.max_category_share,
        config.min_category_items,
        config.single_category,
    )
    names = sorted({name for row in categories for name in row})
    files = (SHIPPED_VECTORS, *config.vectors)  # a later file wins: the user's own
    vectors = keyword_vectors(words.filter.kept, config.encoder, files)
    arrays = {**ratings.interactions.arrays, "item_categories": index_rows(categories, names)}
    described = [words.annotations.keywords.get(x, NO_KEYWORDS) for x in ratings.items["item_id"]]
    for side in POLARITIES:
        rows = index_rows([getattr(item, side) for item in described], words.filter.kept)
        arrays[f"item_{side}_keywords"] = rows
        arrays[f"item_{side}_embedding"] = item_embeddings(rows, vectors)
    return arrays, names


def _tables(ratings: Ratings, words: Words) -> tuple[pd.DataFrame, pd.DataFrame]:
    items = ratings.items.assign(
        categories=pd.Series([list(names) for names in ratings.items["categories"]], dtype=object),
        attributes=[json.dumps(entry, ensure_ascii=False) for entry in ratings.items["attributes"]],
        has_reply=[item in words.annotations.keywords for item in ratings.items["item_id"]],
    )
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
    return {
        "dataset": name,
        "counts": _counts(ratings, words, arrays) | {"categories": len(categories)},
        "settings": {
            "like_threshold": ratings.like_threshold,
            "split": config.split,
            "order": ratings.interactions.order,
            "order_seed": config.order_seed
            if ratings.interactions.order == "permutation"
            else None,
            "state": ratings.raw.state,
            "keep_adult": ratings.raw.keep_adult,
            # Only where it is set: other manifests are as they were before there was this setting.
            **({} if config.limit_users is None else {"limit_users": config.limit_users}),
            "min_user_ratings": config.min_user_ratings,
            "min_item_ratings": config.min_item_ratings,
            "keep_unrated": config.keep_unrated,
            "min_items": config.min_items,
            "max_share": config.max_share,
            "max_category_share": config.max_category_share,
            "min_category_items": config.min_category_items,
            "single_category": config.single_category,
            "allow_missing_replies": config.allow_missing_replies,
        },
        "encoder": {
            "name": config.encoder,
            "pooling": POOLING if config.encoder != HASHED else "none",
            "dimension": arrays["item_pos_embedding"].shape[1],
            "files": _digests((SHIPPED_VECTORS, *config.vectors)),
        },
        "language_model": {
            "name": words.language_model,
            "annotate": config.annotate,
            "files": _digests(words.files),
            **words.settings,
        },
        "raw": dict(ratings.raw.files),
        **({"raw_urls": dict(ratings.raw.urls)} if ratings.raw.urls else {}),
        "skipped": {file.label: file.counts for file in ratings.raw.skipped if file.total},
        "left_out": dict(ratings.raw.left_out or {}),
    }


def _counts(ratings: Ratings, words: Words, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    per_user = np.diff(arrays["user_offsets"])
    annotations = words.annotations
    lacks_reply = ratings.items["item_id"].isin(annotations.missing).to_numpy()
    return {
        "users": len(per_user),
        "session_users": int((per_user >= MIN_INTERACTIONS).sum()),
        "items": len(ratings.items),
        "items_not_described": ratings.unknown_items,
        "interactions": len(arrays["interaction_item"]),
        "duplicates_dropped": ratings.interactions.duplicates,
        "dropped_for_too_few_ratings": ratings.interactions.too_few,
        "likes": int(arrays["interaction_label"].sum()),
        "keywords": len(words.filter.kept),
        "keywords_before_filter": len(words.filter.counts),
        "items_without_reply": len(annotations.missing),
        "interactions_without_reply": int(lacks_reply[arrays["interaction_item"]].sum()),
        "replies_unparsed": len(annotations.unparsed),
        "review_replies": annotations.t_sub.parsed,
        "review_replies_not_training": annotations.t_sub.not_training,
        "items_without_pos_keywords": count_empty(arrays["item_pos_keywords"]),
        "items_without_neg_keywords": count_empty(arrays["item_neg_keywords"]),
    }


def _digests(files: Iterable[Path]) -> list[dict[str, str]]:
    return [{"name": path.name, "sha256": sha256_of(path)} for path in files]
