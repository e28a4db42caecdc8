"""Small invented datasets for tests."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from jaxsim import Dataset
from jaxsim.dataset import FORMAT_VERSION, sha256_of
from jaxsim.sasrec import SASRec
from tests import reference

# The manifest's entry of a taste model: weights as large as those that are fitted to real data.
RESIDUAL_WEIGHTS = ("item_rate", "residual_projection")
TASTE = {
    "mean": 0.55,
    "taste_weights": {
        "constant": 0.06, "mood": 0.1, "category": 0.05, "year": 0.05, "pros": 0.1, "cons": 0.05,
        "covariance": 0.02,
    },
    "item_weights": {
        "own": 0.2, "category": 0.05, "year": 0.1, "pros": 0.2, "cons": 0.2, "label_noise": 4.0,
    },
    "training": {"covariance_rank": 3},
    "mood_decay": 0.85,
    "calibration": [-2.7, 5.3, 6.1],
}  # fmt: skip

# The manifest's entry of an exposure model, with a coefficient so large that its absence would be seen.
EXPOSURE = {
    "coefficients": {
        name: {"value": value, "standard_error": 0.1, "low": value - 0.2, "high": value + 0.2}
        for name, value in {
            "intercept": -1.5, "popularity": 1.0, "activity": 1.4, "category": 2.0, "year": -0.3,
            "cooccurrence": 0.7,
        }.items()
    },
    "validation": None,
    "label": {
        "intercept": {"value": 0.1, "standard_error": 0.2, "low": -0.3, "high": 0.5},
        "exposure": {"value": 0.4, "standard_error": 0.1, "low": 0.2, "high": 0.6},
    },
    "offset": -4.5,
    "applies": True,
}  # fmt: skip


def sasrec_weights(
    architecture: dict[str, Any], seed: int = 0, scale: float = 0.5
) -> dict[str, np.ndarray]:
    """Random weights, effects included, so that f_sta's votes differ between items and users."""
    model = SASRec(**architecture)
    tokens = jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int8), jnp.int32(0)
    shapes = jax.eval_shape(
        lambda key: model.init(key, *tokens, method="next_logits"), jax.random.key(0)
    )["params"]
    rng = np.random.default_rng(seed)

    def draw(name: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        centre = 1.0 if name[-1] == "scale" else 0.0  # of a layer norm
        return np.asarray(centre + scale * rng.standard_normal(shape), np.float32)

    # In this order the other weights are the same with and without running residuals.
    names = sorted(flatten_dict(shapes).items(), key=lambda entry: entry[0][0] in RESIDUAL_WEIGHTS)
    return {"/".join(name): draw(name, w.shape) for name, w in names}


def padded(rows: list[list[int]]) -> np.ndarray:
    width = max(1, *map(len, rows))
    return np.array([sorted(row) + [-1] * (width - len(row)) for row in rows], np.int32)


def taste_arrays(num_items: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays of a taste model that nobody fitted; every third item has no year."""
    rng = np.random.default_rng([seed, 1])
    years = rng.integers(1950, 2020, num_items).astype(np.float32)
    years[::3] = np.nan
    return {
        "item_effect": rng.normal(0, 0.2, num_items).astype(np.float32),
        "item_year": years,
        "covariance_factors": rng.normal(0, 1, (num_items, 3)).astype(np.float32),
    }


def exposure_arrays(num_items: int, num_users: int, seed: int) -> dict[str, np.ndarray]:
    """Arrays of an exposure model that nobody fitted."""
    rng = np.random.default_rng([seed, 2])
    return {
        "item_popularity": rng.normal(-4, 1, num_items).astype(np.float32),
        "user_activity": rng.normal(0, 1, num_users).astype(np.float32),
        "cooccurrence_factors": rng.normal(0, 1, (num_items, 2)).astype(np.float32),
    }


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0).astype(np.float32)


def item_embeddings(keywords: list[list[int]], vectors: np.ndarray) -> np.ndarray:
    """Unit-length mean of the vectors of each item's keywords, zero without any (Eq. 4, 5)."""
    means = [vectors[row].mean(axis=0) if row else np.zeros(vectors.shape[1]) for row in keywords]
    return unit_rows(np.array(means))


def split_codes(count: int) -> np.ndarray:
    """0 train, 1 validation, 2 test by the ratio rule; fewer than five are all train."""
    position = np.arange(count)
    code = (position >= int(0.8 * count)).astype(np.int8) + (position >= int(0.9 * count))
    return np.zeros(count, np.int8) if count < 5 else code.astype(np.int8)


def make_dataset(
    categories: list[list[int]],
    pos_keywords: list[list[int]],
    neg_keywords: list[list[int]],
    sequences: list[tuple[list[int], list[int]]],
    vectors: np.ndarray | None = None,
    window: int = 20,
    width: int = 8,
    num_blocks: int = 2,
    seed: int = 0,
) -> Dataset:
    """A dataset of given item lists and of a (items, labels) sequence for each user."""
    num_keywords = 1 + max(
        max((*p, *n), default=0) for p, n in zip(pos_keywords, neg_keywords, strict=True)
    )
    if vectors is None:
        vectors = np.random.default_rng(seed).standard_normal((num_keywords, 6))
    counts = [len(items) for items, _ in sequences]
    labels = np.concatenate([np.array(likes, np.int8) for _, likes in sequences])
    architecture = {
        "num_items": len(categories),
        "num_users": len(sequences),
        "window": window,
        "width": width,
        "num_blocks": num_blocks,
        "num_heads": 1,
        "dropout": 0.2,
        "decays": list(reference.DECAYS),
    }
    arrays = {
        "item_categories": padded(categories),
        "item_pos_keywords": padded(pos_keywords),
        "item_neg_keywords": padded(neg_keywords),
        "item_pos_embedding": item_embeddings(pos_keywords, vectors),
        "item_neg_embedding": item_embeddings(neg_keywords, vectors),
        "user_offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "interaction_item": np.concatenate([np.array(i, np.int32) for i, _ in sequences]),
        "interaction_label": labels,
        "interaction_rating": labels.astype(np.float32),
        "interaction_time": np.arange(len(labels), dtype=np.int64),
        "interaction_split": np.concatenate([split_codes(n) for n in counts]),
    }
    return Dataset(
        path=Path("invented"),
        manifest={
            "dataset": "invented",
            "sasrec": {"architecture": architecture},
            "taste": TASTE,
            "exposure": EXPOSURE,
        },
        arrays=arrays,
        sasrec=sasrec_weights(architecture, seed),
        items=pd.DataFrame({"item_id": [str(i) for i in range(len(categories))]}),
        users=pd.DataFrame({"user_id": [str(u) for u in range(len(sequences))]}),
        keywords=[f"keyword {k}" for k in range(num_keywords)],
        categories=[f"category {c}" for c in range(1 + max(max(c, default=0) for c in categories))],
        taste=taste_arrays(len(categories), seed),
        exposure=exposure_arrays(len(categories), len(sequences), seed),
    )


def random_dataset(
    seed: int = 0,
    num_users: int = 23,
    num_items: int = 40,
    num_keywords: int = 12,
    num_categories: int = 4,
    max_sequence: int = 30,
    window: int = 20,
    width: int = 8,
    num_blocks: int = 2,
) -> Dataset:
    """Random catalogue (some items without keywords) and histories (some users with hardly any)."""
    rng = np.random.default_rng(seed)

    def subsets(upper: int, low: int, high: int) -> list[list[int]]:
        sizes = rng.integers(low, min(high, upper) + 1, num_items)
        return [rng.choice(upper, size, replace=False).tolist() for size in sizes]

    lengths = rng.integers(1, min(max_sequence, num_items) + 1, num_users)
    lengths[0] = max(lengths[0], 6)  # someone may always start a session
    sequences = [
        (rng.choice(num_items, n, replace=False).tolist(), rng.integers(0, 2, n).tolist())
        for n in lengths
    ]
    return make_dataset(
        subsets(num_categories, 1, 2),
        subsets(num_keywords, 0, 4),
        subsets(num_keywords, 0, 4),
        sequences,
        window=window,
        width=width,
        num_blocks=num_blocks,
        seed=seed,
    )


def write_pack(dataset: Dataset, folder: Path) -> Path:
    """Write a dataset as a packed folder with a valid manifest."""
    folder.mkdir(parents=True)
    save_file(dataset.arrays, folder / "arrays.safetensors")
    save_file(dataset.sasrec, folder / "sasrec.safetensors")
    if dataset.taste is not None:
        save_file(dataset.taste, folder / "taste.safetensors")
    if dataset.exposure is not None:
        save_file(dataset.exposure, folder / "exposure.safetensors")
    if dataset.signals is not None:
        save_file(dataset.signals, folder / "signals.safetensors")
    if dataset.departure is not None:
        save_file(dataset.departure, folder / "departure.safetensors")
    if dataset.visits is not None:
        save_file(dataset.visits, folder / "visits.safetensors")
    dataset.items.to_parquet(folder / "items.parquet")
    dataset.users.to_parquet(folder / "users.parquet")
    for name in ("keywords", "categories"):
        (folder / f"{name}.json").write_text(json.dumps(getattr(dataset, name)), "utf-8")
    sign_pack(folder, dataset.manifest)
    return folder


def sign_pack(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with the digests of the files as they are now."""
    files = {p.name: sha256_of(p) for p in folder.iterdir() if p.name != "manifest.json"}
    content = {**manifest, "format_version": FORMAT_VERSION, "files": files}
    (folder / "manifest.json").write_text(json.dumps(content), "utf-8")
