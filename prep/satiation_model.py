"""Fitting of `jaxsim.satiation`: whether users like an item less after others of its kind.

Each training interaction with an earlier one of the same user is one observation of a logistic regression. The
offset is the taste model's own log-odds of a like, given only what comes before the interaction in the user's log,
and with an item effect that does not know its label. The features say how alike the item is to the last five
before it, less their means; one that is not known counts as its mean. "raw" takes them as they are. "within"
compares a user with themselves: it also has each feature's mean over the user. Terms whose 95 % interval contains
zero are dropped, and the regression is repeated.

The taste of all of a user's interactions takes one Cholesky factor. If L L' = K + I and L z = y - m - b, the taste
for interaction t, given those before it, is y_t - m - b_t - L_tt z_t.

Only training interactions are read. The covariance part of the kernel was estimated from the same labels, so the
offset knows a little of what it should predict.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from jaxsim.dataset import TRAIN
from jaxsim.departure import RECENT
from jaxsim.satiation import LATEST, SAME_CATEGORY, SIMILARITY, TERMS
from jaxsim.taste_kernel import part_features, weighted_features
from prep.recent_items import compare_with_earlier, mean_where
from prep.regression import LogisticFit, fit_logistic, group_means, select_clear
from prep.taste_effects import (
    ITEM_WEIGHTS,
    alternating_effects,
    training_residuals,
    without_own_label,
)
from prep.taste_model import MIN_LABELS

SPECIFICATION = "raw"
MAX_LABELS = 100_000  # interactions, at most, of users drawn with the seed of the taste model
MAX_LOG = 1_000  # earliest interactions of a user that count


class Log(NamedTuple):
    """Training interactions, user after user, in their order: M of them.

    Attributes:
        row: int64[M], their place among all training interactions.
        user, item: int64[M].
        label: float64[M].
        so_far: int64[M], interactions of the user up to this one.
    """

    row: np.ndarray
    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    so_far: np.ndarray


def train_satiation(
    arrays: Mapping[str, np.ndarray],
    taste: Mapping[str, np.ndarray],
    taste_entry: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest's `satiation` entry.

    Args:
        arrays: of the pack (see `jaxsim.Dataset`); of validation and test nothing is read.
        taste, taste_entry: what `prep.taste_model.train_taste` returned.

    Returns:
        `terms`, the coefficients that were kept and the means of their features; `shows`, whether one of these
        coefficients is negative; `tables`, both regressions; `calibration`, the coefficient of the offset where it
        is left free, which should be about 1; and how many `interactions` and `users` they are of.
        Where the logs cannot show satiation, the `reason` in their place.
    """
    log = read_log(arrays, taste_entry["training"]["seed"])
    seen = log.so_far > 1
    reason = _why_not(arrays, log, seen)
    if reason is not None:
        return {"reason": reason}
    offset = running_log_odds(log, arrays, taste, taste_entry)
    raw = redundancy(log, arrays)
    means = {name: float(mean_where(~np.isnan(x[seen]), x[seen])) for name, x in raw.items()}
    features = {name: np.nan_to_num(x - means[name]) for name, x in raw.items()}
    names = [name for name in TERMS if np.ptp(features[name][seen]) > 0]
    tables = {
        "raw": select_clear(names, lambda kept: _fit(log, features, kept, offset, seen)),
        "within": select_clear(names, lambda kept: _fit_within(log, features, kept, offset, seen)),
    }
    terms = {
        row["term"]: {"weight": row["coefficient"], "mean": means[row["term"]]}
        for row in tables[SPECIFICATION]
        if row["kept"]
    }
    return {
        "terms": terms,
        "shows": any(term["weight"] < 0 for term in terms.values()),
        "tables": tables,
        "calibration": _slope(log, offset, seen),
        "interactions": int(seen.sum()),
        "users": len(np.unique(log.user[seen])),
    }


def read_log(arrays: Mapping[str, np.ndarray], seed: int) -> Log:
    """The first training interactions of users who are drawn until there are enough, in the order of the log."""
    train = np.flatnonzero(arrays["interaction_split"] == TRAIN)
    user = np.searchsorted(arrays["user_offsets"], train, side="right") - 1
    first = np.concatenate([[True], user[1:] != user[:-1]])
    place = np.arange(len(user))
    so_far = place - np.maximum.accumulate(np.where(first, place, 0)) + 1
    counts = np.minimum(np.bincount(user), MAX_LOG)
    order = np.random.default_rng(seed).permutation(len(counts))
    before = np.cumsum(counts[order]) - counts[order]
    rows = np.flatnonzero((so_far <= MAX_LOG) & np.isin(user, order[before < MAX_LABELS]))
    chosen = train[rows]
    item, label = arrays["interaction_item"][chosen], arrays["interaction_label"][chosen]
    return Log(rows, user[rows], item.astype(np.int64), label.astype(np.float64), so_far[rows])


def _why_not(arrays: Mapping[str, np.ndarray], log: Log, seen: np.ndarray) -> str | None:
    if not np.ptp(arrays["interaction_time"]):
        return "all times are equal, so nothing tells what came before what"
    if seen.sum() < MIN_LABELS:
        return (
            f"{int(seen.sum()):,} training labels with an earlier one are fewer than {MIN_LABELS}"
        )
    if not np.ptp(log.label[seen]):
        return "all training labels are the same"
    return None


def running_log_odds(
    log: Log,
    arrays: Mapping[str, np.ndarray],
    taste: Mapping[str, np.ndarray],
    entry: Mapping[str, Any],
) -> np.ndarray:
    """The taste model's log-odds of a like of each interaction, given those before it; float64[M].

    Args:
        log: the interactions.
        arrays: of the pack.
        taste, entry: what `prep.taste_model.train_taste` returned.
    """
    years, effect = taste["item_year"], taste["item_effect"].astype(np.float64)
    parts = part_features(arrays, years, taste["covariance_factors"])
    features = weighted_features(parts, entry["taste_weights"], len(effect))
    mood = entry["taste_weights"].get("mood", 0.0), entry["mood_decay"]
    residual = log.label - entry["mean"] - effect[log.item]
    starts = np.flatnonzero(log.so_far == 1)
    tastes = [
        running_tastes(features[log.item[rows]], residual[rows], *mood)
        for rows in map(slice, starts, np.append(starts[1:], len(log.item)))
    ]
    residuals = training_residuals(arrays)
    own_parts = {name: x for name, x in parts.items() if name != "covariance"}
    _, user_mean = alternating_effects(residuals, own_parts, ITEM_WEIGHTS)
    own = entry["item_weights"]["own"]
    of_others = without_own_label(residuals, effect, user_mean, own)[log.row]
    w0, w1, w2 = entry["calibration"]
    return w0 + w1 * (entry["mean"] + of_others) + w2 * np.concatenate(tastes)


def running_tastes(
    features: np.ndarray, residual: np.ndarray, mood: float, decay: float
) -> np.ndarray:
    """The taste for each of n interactions of one user, given those before it; float64[n].

    Args:
        features: float64[n, F], of their items, whose inner products are the kernel.
        residual: float64[n], label less the mean and the item's effect.
        mood, decay: weight and decay of the mood.
    """
    place = np.arange(len(residual))
    kernel = features @ features.T + mood * decay ** np.abs(place[:, None] - place[None])
    factor = np.linalg.cholesky(kernel + np.eye(len(residual)))
    scores = scipy.linalg.solve_triangular(factor, residual, lower=True)
    return residual - np.diagonal(factor) * scores


def redundancy(log: Log, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The fields of `jaxsim.satiation.Redundancy`, float64[M] each; NaN where there is nothing to compare."""
    alike = compare_with_earlier(log.item, log.so_far, arrays, range(1, RECENT + 1))
    return {
        SAME_CATEGORY: mean_where(alike.present, alike.same_category),
        SIMILARITY: mean_where(alike.described, alike.cosine),
        LATEST: np.where(alike.present[0], alike.same_category[0], np.nan),
    }


def _fit(
    log: Log,
    features: Mapping[str, np.ndarray],
    names: Sequence[str],
    offset: np.ndarray,
    rows: np.ndarray,
) -> LogisticFit:
    columns = [features[name][rows] for name in names]
    design = np.column_stack([*columns, np.ones(int(rows.sum()))])
    return fit_logistic(design, log.label[rows], log.user[rows], offset[rows])


def _fit_within(
    log: Log,
    features: Mapping[str, np.ndarray],
    names: Sequence[str],
    offset: np.ndarray,
    rows: np.ndarray,
) -> LogisticFit:
    means = [group_means(log.user, features[name], rows)[rows] for name in names]
    columns = [features[name][rows] - mean for name, mean in zip(names, means, strict=True)]
    design = np.column_stack([*columns, *means, np.ones(int(rows.sum()))])
    return fit_logistic(design, log.label[rows], log.user[rows], offset[rows])


def _slope(log: Log, offset: np.ndarray, rows: np.ndarray) -> float:
    """By how much the log-odds of a like grow with the offset, alone with an intercept."""
    design = np.column_stack([offset[rows], np.ones(int(rows.sum()))])
    return float(fit_logistic(design, log.label[rows], log.user[rows]).coefficients[0])
