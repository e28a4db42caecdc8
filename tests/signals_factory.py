"""Invented models of ratings and durations, for tests."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxsim import Dataset

LEVELS = [1.0, 2.0, 3.0, 4.0, 5.0]
RATING: dict[str, Any] = {
    "levels": LEVELS,
    "like_threshold": 4.0,
    "typical": [-0.9, 0.7],
    "weights": [2.0, 1.5, -0.3],
    "thresholds": [4.0, 5.5, 7.0, 9.0],
    "cuts": [2.3, 2.8, 3.4, 4.0],
}
DURATION: dict[str, Any] = {
    "unit": "hours",
    "like_threshold": None,
    "typical": [-0.5, 0.4],
    "weights": [0.1, 0.9, 0.8, 0.2, 0.6],
    "deviation": 0.7,
}


def with_signals(
    dataset: Dataset, seed: int = 0, rating: bool = True, duration: dict[str, Any] | None = DURATION
) -> Dataset:
    """A dataset with ratings from 1 to 5, likes from 4 on, and with durations of which some are missing."""
    rng = np.random.default_rng([seed, 2])
    label = dataset.arrays["interaction_label"]
    ratings = np.where(label == 1, rng.integers(4, 6, len(label)), rng.integers(1, 4, len(label)))
    logs = rng.normal(0.5 * label, 1.0)
    durations = np.where(rng.random(len(label)) < 0.1, np.nan, np.exp(logs)).astype(np.float32)
    if duration and duration["like_threshold"]:
        edge = duration["like_threshold"]
        factor = np.exp(np.abs(rng.normal(0, 1, len(label))) + 1e-3)
        durations = np.where(label == 1, edge * factor, edge / factor).astype(np.float32)
    signals, entry = {}, {}
    if rating:
        signals["item_rating"] = rng.normal(3.4, 0.4, dataset.num_items).astype(np.float32)
        entry["rating"] = RATING
    if duration:
        signals["item_log_duration"] = rng.normal(0.3, 0.5, dataset.num_items).astype(np.float32)
        signals["interaction_duration"] = durations
        entry["duration"] = duration
    return replace(
        dataset,
        arrays={**dataset.arrays, "interaction_rating": ratings.astype(np.float32)},
        manifest={**dataset.manifest, "signals": entry},
        signals=signals,
    )
