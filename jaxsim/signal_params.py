"""The models of ratings and durations of a packed dataset, on the device."""

from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxsim.dataset import Dataset
from jaxsim.signals import DurationHead, RatingHead, Signals

SignalKind = Literal["auto", "all", "like"]


def build_signals(dataset: Dataset) -> Signals | None:
    """The heads that a dataset has; None if it has none, or was built by an earlier version."""
    entries: Mapping[str, Any] = dataset.manifest.get("signals", {})
    arrays = dataset.signals or {}
    rating = duration = None
    if "rating" in entries:
        rating = rating_head(entries["rating"], arrays["item_rating"])
    if "duration" in entries:
        duration = duration_head(entries["duration"], arrays["item_log_duration"])
    return None if rating is duration is None else Signals(rating, duration)


def rating_head(entry: Mapping[str, Any], item_mean: np.ndarray) -> RatingHead:
    """The head of ratings.

    Args:
        entry: `signals.rating` of the manifest.
        item_mean: float32[N], m + b of each item.
    """
    levels = np.asarray(entry["levels"], np.float32)
    return RatingHead(
        item_mean=jnp.asarray(item_mean, jnp.float32),
        typical=_floats(entry["typical"]),
        weights=_floats(entry["weights"]),
        thresholds=_floats(entry["thresholds"]),
        levels=jnp.asarray(levels),
        is_like=jnp.asarray(levels >= entry["like_threshold"]),
    )


def duration_head(entry: Mapping[str, Any], item_mean: np.ndarray) -> DurationHead:
    """The head of durations.

    Args:
        entry: `signals.duration` of the manifest.
        item_mean: float32[N], m + b of each item's log-durations.
    """
    threshold = entry["like_threshold"]
    return DurationHead(
        item_mean=jnp.asarray(item_mean, jnp.float32),
        typical=_floats(entry["typical"]),
        weights=_floats(entry["weights"]),
        deviation=jnp.float32(entry["deviation"]),
        threshold=None if threshold is None else jnp.float32(np.log(threshold)),
    )


def known_values(dataset: Dataset, signals: Signals) -> np.ndarray:
    """The ratings and durations of M interactions, float32[M, C]; NaN where one is missing."""
    columns = []
    if signals.rating is not None:
        columns.append(dataset.arrays["interaction_rating"])
    if signals.duration is not None:
        assert dataset.signals is not None
        columns.append(dataset.signals["interaction_duration"])
    return np.stack(columns, axis=1)


def _floats(numbers: Any) -> Any:
    return jnp.asarray(numbers, jnp.float32)
