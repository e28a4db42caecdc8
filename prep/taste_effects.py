"""Item effects, means of users and the covariance of residuals: the part of the taste model without a search."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import svds

from jaxsim.dataset import TRAIN
from jaxsim.taste_kernel import weighted_features

ITEM_WEIGHTS = {"own": 0.2, "category": 0.05, "year": 0.1, "pros": 0.2, "cons": 0.2}
LABEL_NOISE = 4.0
USER_SMOOTHING = 5.0  # as if every user had this many more residuals of 0
FACTOR_SMOOTHING = 10.0
ALTERNATIONS = 5


class Residuals(NamedTuple):
    """The training labels of a dataset, or other values in their place, less their mean.

    Attributes:
        mean: the mean label.
        user, item: int64[R] of the R training interactions.
        label: float64[R].
        item_count: float64[N].
        num_users: U.
    """

    mean: float
    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    item_count: np.ndarray
    num_users: int


def training_residuals(
    arrays: Mapping[str, np.ndarray], values: np.ndarray | None = None
) -> Residuals:
    """The training labels of a pack's interaction arrays.

    Args:
        arrays: of the pack.
        values: float[M], of the interactions, in place of the labels; NaN where one is missing.
    """
    values = arrays["interaction_label"] if values is None else values
    rows = np.flatnonzero((arrays["interaction_split"] == TRAIN) & np.isfinite(values))
    user = np.searchsorted(arrays["user_offsets"], rows, side="right") - 1
    item = arrays["interaction_item"][rows].astype(np.int64)
    label = values[rows].astype(np.float64)
    num_items = len(arrays["item_categories"])
    return Residuals(
        mean=float(label.mean()),
        user=user,
        item=item,
        label=label - label.mean(),
        item_count=np.bincount(item, minlength=num_items).astype(np.float64),
        num_users=len(arrays["user_offsets"]) - 1,
    )


def item_residual_means(residuals: Residuals, user_mean: np.ndarray) -> np.ndarray:
    """Each item's mean label without the means of its users, float64[N]; 0 for an item without labels."""
    count = residuals.item_count
    rest = residuals.label - user_mean[residuals.user]
    return np.bincount(residuals.item, rest, len(count)) / np.maximum(count, 1)


def alternating_effects(
    residuals: Residuals, parts: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Item effects float64[N] and means of users float64[U], each fitted to what the other leaves."""
    user_mean: np.ndarray = np.zeros(residuals.num_users, np.float64)
    user_count = np.bincount(residuals.user, minlength=residuals.num_users)
    for _ in range(ALTERNATIONS):
        mean = item_residual_means(residuals, user_mean)
        effect = item_effects(residuals, parts, mean, weights)
        rest = residuals.label - effect[residuals.item]
        total = np.bincount(residuals.user, rest, residuals.num_users)
        user_mean = total / (user_count + USER_SMOOTHING)
    return effect, user_mean


def item_effects(
    residuals: Residuals,
    parts: Mapping[str, np.ndarray],
    item_mean: np.ndarray,
    weights: Mapping[str, float],
) -> np.ndarray:
    """The mean of the Gaussian process over items, float64[N].

    Args:
        residuals: of the training interactions.
        parts: features of the kernel's parts.
        item_mean: float64[N], of `item_residual_means`.
        weights: of the parts, and of "own", the part of each item alone.
    """
    features = weighted_features(parts, weights, len(item_mean))
    return regress_on_features(np, features, residuals.item_count, item_mean, weights["own"])


def regress_on_features(xp: Any, features: Any, count: Any, mean: Any, own: Any) -> Any:
    """`item_effects` for NumPy or JAX: a regression on the features, then each item's own part.

    It is the posterior mean under the kernel features features' + own I with noise LABEL_NOISE / count.
    """
    precision = xp.where(count > 0, 1 / (own + LABEL_NOISE / xp.maximum(count, 1)), 0.0)
    scaled = features * precision[:, None]
    system = xp.eye(features.shape[1], dtype=features.dtype) + scaled.T @ features
    shared = features @ xp.linalg.solve(system, scaled.T @ mean)
    return shared + own * precision * (mean - shared)


def without_own_label(
    residuals: Residuals, effect: np.ndarray, user_mean: np.ndarray, own: float
) -> np.ndarray:
    """The effect of each training interaction's item, without that interaction's label; float64[R].

    What the kernel's other parts suggest stays as it is: a single label hardly moves it.

    Args:
        residuals: of the training interactions.
        effect: float[N], of `item_effects`.
        user_mean: float64[U], of `alternating_effects`.
        own: weight of the part of each item alone.
    """
    count = residuals.item_count
    kept = own / (own + LABEL_NOISE / np.maximum(count, 1))  # of what an item's labels say
    mean = item_residual_means(residuals, user_mean)
    shared = (effect - kept * mean) / (1 - kept)
    item, rest = residuals.item, residuals.label - user_mean[residuals.user]
    others = np.maximum(count[item] - 1, 0)
    mean_of_others = (count[item] * mean[item] - rest) / np.maximum(others, 1)
    kept = np.where(others > 0, own / (own + LABEL_NOISE / np.maximum(others, 1)), 0.0)
    return shared[item] + kept * (mean_of_others - shared[item])


def covariance_factors(
    residuals: Residuals, effect: np.ndarray, user_mean: np.ndarray, rank: int
) -> np.ndarray:
    """Leading factors of the covariance of items' residuals, float64[N, R]; mean square 1 over the interactions.

    R is the rank, or less for a dataset with few users or items.
    """
    count = residuals.item_count
    rank = min(rank, min(residuals.num_users, len(count)) - 1)
    rest = residuals.label - effect[residuals.item] - user_mean[residuals.user]
    scaled = rest / np.sqrt(count[residuals.item] + FACTOR_SMOOTHING)
    if rank < 1 or not scaled.any():
        return np.zeros((len(count), 0), np.float64)
    shape = (residuals.num_users, len(count))
    matrix = scipy.sparse.csr_matrix((scaled, (residuals.user, residuals.item)), shape)
    # A fixed start, because the solver draws one otherwise.
    _, size, vectors = svds(matrix, k=rank, v0=np.ones(min(shape), np.float64))
    factors = vectors.T * size
    square = (factors**2).sum(axis=1) @ count / count.sum()
    return factors / np.sqrt(square) if square > 0 else factors
