"""Drawing a synthetic dataset, and the true preferences in it."""

import os
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from jaxsim import Dataset, InputError, load_dataset
from jaxsim.dataset import MIN_INTERACTIONS
from prep.features.embedding import item_embeddings
from prep.features.keywords import count_empty
from prep.synthetic.catalogue import Catalogue, draw_catalogue, draw_vectors, name_keywords
from prep.synthetic.config import (
    MAX_CATEGORY_SHARE,
    MAX_SHARE,
    MIN_CATEGORY_ITEMS,
    MIN_ITEMS,
    SyntheticConfig,
)
from prep.synthetic.interactions import Tastes, draw_interactions, log_odds_of_like
from prep.synthetic.rows import chunks, count_shared, trim

ENCODER = "synthetic"


@dataclass(frozen=True)
class SyntheticData:
    """Everything of a packed dataset except its statistic model; see `prep.pack.PackedContents`.

    The true preferences are in `items` (`quality` float32) and `users` (`bias` float32; `liked_keywords` and
    `annoying_keywords`, lists of 8 indices into `keywords`, ascending, -1 pads).
    """

    arrays: dict[str, np.ndarray]
    items: pd.DataFrame
    users: pd.DataFrame
    keywords: list[str]
    categories: list[str]
    manifest: dict[str, Any]


def make_synthetic(config: SyntheticConfig) -> SyntheticData:
    """Draw a dataset.

    Raises:
        InputError: an unusable setting, or so many words for so few items that the filter drops every word.
    """
    config.check()
    items, words = draw_catalogue(config)
    arrays = {
        "item_categories": trim(items.topics),
        "item_pos_keywords": items.pos,
        "item_neg_keywords": items.neg,
    }
    vectors = draw_vectors(config, words)
    for side in ("pos", "neg"):
        arrays[f"item_{side}_embedding"] = item_embeddings(arrays[f"item_{side}_keywords"], vectors)
    interactions, tastes = draw_interactions(config, items, words)
    arrays |= interactions
    categories = [
        f"topic {topic:0{len(str(config.topics - 1))}d}" for topic in range(config.topics)
    ]
    keywords = name_keywords(words, categories)
    return SyntheticData(
        arrays=arrays,
        items=_item_table(items, categories),
        users=_user_table(np.diff(arrays["user_offsets"]), tastes),
        keywords=keywords,
        categories=categories,
        manifest=_manifest(config, arrays, len(keywords), len(words.keyword)),
    )


def true_like_probability(
    dataset: Dataset | SyntheticData | str | os.PathLike[str],
    users: np.ndarray,
    items: np.ndarray,
) -> np.ndarray:
    """The probability of a like, from which the dataset's labels were drawn.

    Args:
        dataset: a synthetic dataset, or its name or path.
        users, items: int[B], indices.

    Returns:
        float32[B].

    Raises:
        InputError: the dataset is not synthetic, or an index is out of its range.
    """
    if not isinstance(dataset, Dataset | SyntheticData):
        dataset = load_dataset(dataset)
    if "synthetic" not in dataset.manifest:
        raise InputError(
            f"{dataset.manifest['dataset']}: not synthetic; its true probabilities are not known"
        )
    for name, index, stop in (("users", users, dataset.users), ("items", items, dataset.items)):
        if len(index) and not 0 <= np.min(index) <= np.max(index) < len(stop):
            raise InputError(f"{name}: an index is not from 0 to {len(stop) - 1}")
    quality = dataset.items["quality"].to_numpy(np.float32)
    taste = dataset.manifest["synthetic"]["taste"]
    arrays, result = dataset.arrays, np.empty(len(users), np.float32)
    for chunk in chunks(len(users)):
        rows, item = dataset.users.iloc[users[chunk]], items[chunk]
        log_odds = log_odds_of_like(
            rows["bias"].to_numpy(np.float32) + quality[item],
            count_shared(
                arrays["item_pos_keywords"][item], np.stack(rows["liked_keywords"].tolist())
            ),
            count_shared(
                arrays["item_neg_keywords"][item], np.stack(rows["annoying_keywords"].tolist())
            ),
            taste,
        )
        result[chunk] = expit(log_odds)
    return result


def _item_table(items: Catalogue, categories: list[str]) -> pd.DataFrame:
    rows = [[categories[topic] for topic in row if topic >= 0] for row in items.topics.tolist()]
    ids = [str(index) for index in range(len(rows))]
    return pd.DataFrame(
        {
            "item_id": ids,
            "name": [f"item {index}" for index in ids],
            "categories": pd.Series(rows, dtype=object),
            "quality": items.quality,
        }
    )


def _user_table(counts: np.ndarray, tastes: Tastes) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [str(index) for index in range(len(counts))],
            "interactions": counts,
            "bias": tastes.bias,
            "liked_keywords": pd.Series(list(tastes.liked), dtype=object),
            "annoying_keywords": pd.Series(list(tastes.annoying), dtype=object),
        }
    )


def _manifest(
    config: SyntheticConfig, arrays: dict[str, np.ndarray], keywords: int, words: int
) -> dict[str, Any]:
    return {
        "dataset": ENCODER,
        "synthetic": asdict(config),
        "counts": {
            "users": config.users,
            "session_users": int((np.diff(arrays["user_offsets"]) >= MIN_INTERACTIONS).sum()),
            "items": config.items,
            "interactions": len(arrays["interaction_item"]),
            "duplicates_dropped": 0,
            "likes": int(arrays["interaction_label"].sum()),
            "keywords": keywords,
            "keywords_before_filter": words,
            "categories": config.topics,
            "items_without_pos_keywords": count_empty(arrays["item_pos_keywords"]),
            "items_without_neg_keywords": count_empty(arrays["item_neg_keywords"]),
        },
        "settings": {
            "like_threshold": 1.0,
            "split": "ratio",
            "order": "time",
            "order_seed": None,
            "min_items": MIN_ITEMS,
            "max_share": MAX_SHARE,
            "max_category_share": MAX_CATEGORY_SHARE,
            "min_category_items": MIN_CATEGORY_ITEMS,
            "single_category": False,
        },
        "encoder": {"name": ENCODER, "dimension": config.dimension, "files": []},
        "language_model": {"name": "none", "files": []},
        "raw": {},
    }
