"""The same dataset with something changed: labels, keywords, or interactions that are left out."""

from dataclasses import replace

import numpy as np

from jaxsim import Dataset
from jaxsim.catalogue import SIDES

_SHUFFLE = 3  # a stream of random numbers, as in `benchmarks.fidelity.events`


def with_labels(dataset: Dataset, labels: np.ndarray) -> Dataset:
    """The dataset with other labels, int8[M]."""
    return replace(dataset, arrays={**dataset.arrays, "interaction_label": labels})


def with_shuffled_labels(dataset: Dataset, seed: int) -> Dataset:
    """The dataset with its labels permuted between all interactions, of every user and split."""
    rng = np.random.default_rng([_SHUFFLE, seed])
    return with_labels(dataset, rng.permutation(dataset.arrays["interaction_label"]))


def with_permuted_keywords(dataset: Dataset, seed: int) -> Dataset:
    """The dataset with the keywords of items, and their vectors, permuted between the items."""
    order = np.random.default_rng(seed).permutation(dataset.num_items)
    names = [f"item_{side}_{kind}" for side in SIDES for kind in ("keywords", "embedding")]
    arrays = {name: dataset.arrays[name][order] for name in names}
    return replace(dataset, arrays={**dataset.arrays, **arrays})


def without_interactions(dataset: Dataset, removed: np.ndarray) -> Dataset:
    """The dataset without some interactions, bool[M]. All users and items stay; the others keep their split."""
    arrays = dict(dataset.arrays)
    for name in arrays:
        if name.startswith("interaction_"):
            arrays[name] = arrays[name][~removed]
    before = np.concatenate([[0], np.cumsum(~removed)])
    arrays["user_offsets"] = before[dataset.arrays["user_offsets"]].astype(np.int64)
    return replace(dataset, arrays=arrays)


def has_keywords(dataset: Dataset) -> bool:
    """Whether any item has a keyword."""
    return any((dataset.arrays[f"item_{side}_keywords"] >= 0).any() for side in SIDES)
