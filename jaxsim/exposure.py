"""Exposure: which items a user would have chosen by themselves, and what that says about a like.

People rate what they chose. So the labels that a model of users is fitted to are not those of random items, and a
recommended item is often one that its user would not have chosen. The exposure model gives the log-odds that a
user of mean activity rates an item c among their next ratings, from the history h of n interactions:

    e(c) = r_0 + r_popularity log(share of the training ratings of c) + r_activity (mean log-activity)
           + sum over the parts of r_part (1/n) sum_j k_part(c, h_j)

| part | likeness k_part of two items |
|---|---|
| category | as in `jaxsim.taste_kernel` |
| year | as in `jaxsim.taste_kernel` |
| cooccurrence | how much more often than by chance the same people rate both, at low rank |

Each likeness is an inner product of features, so the mean over the history takes the mean of its features only. A
session keeps their sum. With `jaxsim.make(dataset, exposure=True)` the log-odds of a like become

    logit p(c) + beta (e(c) - o)

where p is the taste model's probability, beta is fitted on validation labels, and o is the mean of e over them. An
item that is as likely to be chosen as people's rated items are keeps its probability. `prep.exposure` fits all of
this; docs/exposure.md says what it means and what it does not.
"""

from collections.abc import Mapping
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsim.dataset import Dataset
from jaxsim.errors import InputError
from jaxsim.taste import product
from jaxsim.taste_kernel import category_features, year_features

PARTS = ("category", "year", "cooccurrence")
_ROWS_AT_ONCE = 2048


@struct.dataclass
class ExposureModel:
    """The fitted model on the device.

    Attributes:
        base: float32[N], the part of e that does not depend on the history.
        features: float32[N, F], whose inner products with `weights` between are the weighted sum of the parts.
        weights: float32[F].
        slope: float32[], beta.
        offset: float32[], o.
    """

    base: jax.Array
    features: jax.Array
    weights: jax.Array
    slope: jax.Array
    offset: jax.Array

    def total(self, items: jax.Array, length: jax.Array) -> jax.Array:
        """The sum of the features of a history, float32[F].

        Args:
            items: int32[H], left-aligned; entries from `length` on are ignored.
            length: int32[].
        """
        valid = jnp.arange(items.shape[0], dtype=jnp.int32) < length
        rows = self.features[jnp.maximum(items, 0)]
        return jnp.sum(jnp.where(valid[:, None], rows, 0.0), axis=0)

    def log_odds(self, total: jax.Array, count: jax.Array, item: jax.Array) -> jax.Array:
        """The log-odds e(c) of an item int32[], float32[], after `count` int32[] interactions of this sum."""
        chex.assert_rank([total, count, item], [1, 0, 0])
        return self.base[item] + jnp.sum(self.features[item] * self._direction(total, count))

    def shift(self, total: jax.Array, count: jax.Array, item: jax.Array) -> jax.Array:
        """What is added to the log-odds of a like of an item, float32[]; the arguments are those of `log_odds`."""
        return self.slope * (self.log_odds(total, count, item) - self.offset)

    def shifts(self, total: jax.Array, count: jax.Array) -> jax.Array:
        """`shift` of every item, float32[N]."""
        log_odds = self.base + product(self.features, self._direction(total, count))
        return self.slope * (log_odds - self.offset)

    def _direction(self, total: jax.Array, count: jax.Array) -> jax.Array:
        return self.weights * total / jnp.maximum(count, 1).astype(jnp.float32)


# ---- on the host -------------------------------------------------------------------------------------------


def part_features(
    arrays: Mapping[str, np.ndarray], years: np.ndarray, factors: np.ndarray
) -> dict[str, np.ndarray]:
    """The features of every part that the data has, float32[N, F_part] each.

    Args:
        arrays: of a packed dataset.
        years: float32[N], the items' years; NaN where one has none.
        factors: float32[N, R], of the co-occurrence.
    """
    features = {
        "category": category_features(arrays["item_categories"]),
        "year": year_features(years),
        "cooccurrence": factors,
    }
    return {name: x.astype(np.float32) for name, x in features.items() if x.any()}


def history_means(features: np.ndarray, items: np.ndarray, present: np.ndarray) -> np.ndarray:
    """The mean of the features over each of E histories, float32[E, F]; zero without interactions.

    Args:
        features: float32[N, F].
        items: int[E, H].
        present: bool[E, H], False for padding.
    """
    means = np.zeros((len(items), features.shape[1]), np.float32)
    for first in range(0, len(items), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        weight = present[rows] / np.maximum(present[rows].sum(axis=1, keepdims=True), 1)
        chosen = features[np.where(present[rows], items[rows], 0)]
        means[rows] = np.einsum("eh,ehf->ef", weight.astype(np.float32), chosen)
    return means


class HostModel:
    """A fitted exposure model on the host, in NumPy.

    Attributes:
        base: float64[N], the part of e that does not depend on the history.
        of_activity: float64[U], what a user's own activity adds to it, less the mean over the users.
        features, weights: float32[N, F], float64[F], as in `ExposureModel`.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        years: np.ndarray,
        packed: Mapping[str, np.ndarray],
        coefficients: Mapping[str, Any],
    ) -> None:
        """Put together what was fitted.

        Args:
            arrays: of a packed dataset.
            years: float32[N], NaN where an item has none.
            packed: the arrays of `exposure.safetensors`.
            coefficients: `value` of each by its name, as in the manifest.
        """
        value = {name: row["value"] for name, row in coefficients.items()}
        activity = value.get("activity", 0.0) * packed["user_activity"].astype(np.float64)
        popularity = value.get("popularity", 0.0) * packed["item_popularity"].astype(np.float64)
        self.base = value["intercept"] + activity.mean() + popularity
        self.of_activity = activity - activity.mean()
        parts = part_features(arrays, years, packed["cooccurrence_factors"])
        parts = {name: x for name, x in parts.items() if name in value}
        nothing = np.zeros((len(popularity), 0), np.float32)
        self.features = np.concatenate([nothing, *parts.values()], axis=1)
        widths = [x.shape[1] for x in parts.values()]
        self.weights = np.repeat([value[name] for name in parts], widths).astype(np.float64)

    def log_odds(self, items: np.ndarray, history: np.ndarray, present: np.ndarray) -> np.ndarray:
        """The log-odds e of E pairs of an item and a history, float64[E].

        Args:
            items: int[E].
            history: int[E, H].
            present: bool[E, H], False for padding.
        """
        means = history_means(self.features, history, present)
        return self.base[items] + ((means * self.weights) * self.features[items]).sum(axis=1)


def host_model(dataset: Dataset) -> HostModel:
    """The exposure model of a packed dataset.

    Raises:
        InputError: it has none, in one line that says why.
    """
    entry = dataset.manifest.get("exposure")
    if dataset.exposure is None or dataset.taste is None or entry is None:
        reason = (entry or {}).get("reason")
        raise InputError(
            f"{dataset.path}: this dataset has no exposure model: "
            + (reason or "build it again with this version")
        )
    years = dataset.taste["item_year"]
    return HostModel(dataset.arrays, years, dataset.exposure, entry["coefficients"])


def correction(dataset: Dataset) -> tuple[float, float]:
    """The coefficient beta and the offset o of a dataset with an exposure model.

    Raises:
        InputError: no correction was fitted, or its interval contains zero, in one line.
    """
    entry = dataset.manifest["exposure"]
    if entry["label"] is None:
        raise InputError(f"exposure=True cannot correct likes of {dataset.name}: {entry['reason']}")
    row = entry["label"]["exposure"]
    if not entry["applies"]:
        raise InputError(
            f"exposure=True is switched off for {dataset.name}: the coefficient of the log-odds of being chosen, "
            f"{row['value']:.3f}, has the interval {row['low']:.3f} to {row['high']:.3f}, which contains zero; "
            "leave exposure out"
        )
    return row["value"], entry["offset"]


def build_exposure_model(dataset: Dataset) -> ExposureModel:
    """Put a packed dataset's exposure model on the device.

    Raises:
        InputError: the dataset has no exposure model, or one that corrects nothing.
    """
    host = host_model(dataset)
    slope, offset = correction(dataset)
    return ExposureModel(
        base=jnp.asarray(host.base, jnp.float32),
        features=jnp.asarray(host.features),
        weights=jnp.asarray(host.weights, jnp.float32),
        slope=jnp.float32(slope),
        offset=jnp.float32(offset),
    )
