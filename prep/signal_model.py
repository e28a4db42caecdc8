"""Fitting of the models of ratings and durations of `jaxsim.signals` to training and validation interactions.

1. Item means of ratings, and of the logarithms of durations, as those of likes in the taste model: with its
   weights, and with the users' means removed alternately.
2. For each validation interaction, the taste g of each signal from the interactions before it, by the taste
   model's kernel, and the log-odds of a like.
3. The ordered logit of ratings by the likelihood of the validation ratings, given on which side of the like
   threshold they lie; the regression of log-durations by least squares.

Interactions of the test split are never read. With fewer than 200 validation values nothing is fitted: ratings are
then distributed as in training on each side of the threshold, and durations around their item means.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.dataset import TRAIN
from jaxsim.taste_kernel import part_features, weighted_features
from prep.ordered_logit import fit_ordered_logit, level_probabilities
from prep.taste_effects import (
    alternating_effects,
    item_effects,
    item_residual_means,
    training_residuals,
)
from prep.taste_model import (
    CALIBRATION_LABELS,
    MIN_LABELS,
    Examples,
    gram_matrices,
    validation_examples,
)

MAX_LEVELS = 21  # such as 0 to 10 in halves
_AT_ONCE = 512
_RATING_WEIGHTS, _DURATION_WEIGHTS = 3, 5


class Durations(NamedTuple):
    """The durations of a dataset.

    Attributes:
        values: float32[M], above 0; NaN where one is missing.
        unit: "seconds", "minutes" or "hours".
        are_ratings: whether a like is a duration of at least the threshold, because there are no other ratings.
    """

    values: np.ndarray
    unit: str
    are_ratings: bool


class Signal(NamedTuple):
    """What the history is searched for: values of all interactions, as the Gaussian process sees them.

    Attributes:
        values: float64[M], NaN where one is missing.
        item_mean: float64[N], m + b.
        typical: float64[2], mean training residual of a dislike and of a like.
    """

    values: np.ndarray
    item_mean: np.ndarray
    typical: np.ndarray


class Fitted(NamedTuple):
    """Validation interactions, and what their signals are predicted from.

    Attributes:
        rows: int64[E], the interactions.
        log_odds: float64[E], of a like.
        tastes: float64[E] of each signal.
    """

    rows: np.ndarray
    log_odds: np.ndarray
    tastes: list[np.ndarray]


def train_signals(
    arrays: Mapping[str, np.ndarray],
    taste_arrays: Mapping[str, np.ndarray],
    taste: Mapping[str, Any],
    like_threshold: float,
    durations: Durations | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Fit the models of ratings and durations of a packed dataset.

    Args:
        arrays: of the pack (see `jaxsim.Dataset`); ratings and labels of the test split are not read.
        taste_arrays, taste: of `prep.taste_model.train_taste`.
        like_threshold: a rating of at least this is a like.
        durations: those of the interactions; None if there are none.

    Returns:
        The arrays for `signals.safetensors`, and the manifest's `signals` entry. It has `rating`, or `no_rating`
        with the reason why there is none, and perhaps `duration`.
    """
    scale = rating_scale(arrays)
    reason = why_no_rating(scale, like_threshold, durations)
    ratings = arrays["interaction_rating"]
    signals: list[Signal] = []
    if reason is None:
        signals.append(make_signal(arrays, taste_arrays, taste, ratings))
    if durations is not None:
        logarithms = np.log(durations.values.astype(np.float64))
        signals.append(make_signal(arrays, taste_arrays, taste, logarithms))
    context = taste["training"]["calibration_context"]
    seed = taste["training"]["seed"]
    fitted = predict_validation(arrays, taste_arrays, taste, signals, context, seed)
    packed: dict[str, np.ndarray] = {}
    entry: dict[str, Any] = {}
    if reason is None:
        packed["item_rating"] = signals[0].item_mean.astype(np.float32)
        entry["rating"] = fit_ratings(arrays, signals[0], fitted, scale, like_threshold)
    else:
        entry["no_rating"] = reason
    if durations is not None:
        packed["item_log_duration"] = signals[-1].item_mean.astype(np.float32)
        packed["interaction_duration"] = durations.values.astype(np.float32)
        threshold = like_threshold if durations.are_ratings else None
        of_durations = fit_durations(arrays, signals[-1], fitted, threshold)
        entry["duration"] = {"unit": durations.unit, **of_durations}
    return packed, entry


def rating_scale(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The ratings that occur in training, ascending float32[K]."""
    return np.unique(arrays["interaction_rating"][arrays["interaction_split"] == TRAIN])


def why_no_rating(
    scale: np.ndarray, like_threshold: float, durations: Durations | None
) -> str | None:
    """Why a dataset has no model of ratings; None if it can have one."""
    if durations is not None and durations.are_ratings:
        return 'its likes are those of durations, so use reward="duration"'
    if len(scale) > MAX_LEVELS:
        return f"its {len(scale):,} different ratings are no scale of at most {MAX_LEVELS}"
    if not scale[0] < like_threshold <= scale[-1]:
        return "its training ratings are all likes, or all dislikes"
    return None


def make_signal(
    arrays: Mapping[str, np.ndarray],
    taste_arrays: Mapping[str, np.ndarray],
    taste: Mapping[str, Any],
    values: np.ndarray,
) -> Signal:
    """Item means and typical residuals of values float[M]."""
    residuals = training_residuals(arrays, values)
    parts = part_features(arrays, taste_arrays["item_year"], None)
    weights = {name: w for name, w in taste["item_weights"].items() if name != "label_noise"}
    _, user_mean = alternating_effects(residuals, parts, weights)
    means = item_residual_means(residuals, user_mean)
    item_mean = residuals.mean + item_effects(residuals, parts, means, weights)
    known = np.flatnonzero((arrays["interaction_split"] == TRAIN) & np.isfinite(values))
    rest = values[known] - item_mean[arrays["interaction_item"][known]]
    label = arrays["interaction_label"][known]
    typical = [
        float(rest[label == like].mean()) if (label == like).any() else 0.0 for like in (0, 1)
    ]
    return Signal(values.astype(np.float64), item_mean, np.array(typical))


def predict_validation(
    arrays: Mapping[str, np.ndarray],
    taste_arrays: Mapping[str, np.ndarray],
    taste: Mapping[str, Any],
    signals: list[Signal],
    context: int,
    seed: int,
) -> Fitted:
    """The tastes of at most 20,000 validation interactions, from the `context` interactions before each."""
    place = np.arange(len(arrays["interaction_item"]), dtype=np.float64)
    numbered = {
        **arrays,
        "interaction_label": place,
    }  # the examples then hold the places of interactions
    examples = validation_examples(numbered, context, CALIBRATION_LABELS, seed)
    return predict(arrays, taste_arrays, taste, signals, examples)


def predict(
    arrays: Mapping[str, np.ndarray],
    taste_arrays: Mapping[str, np.ndarray],
    taste: Mapping[str, Any],
    signals: list[Signal],
    examples: Examples,
) -> Fitted:
    """The tastes of examples whose labels are the places of interactions among all M of them."""
    rows = examples.label.astype(np.int64)
    of_history = examples.history_labels.astype(np.int64)
    label = arrays["interaction_label"]
    effect = taste["mean"] + taste_arrays["item_effect"].astype(np.float64)
    parts = part_features(arrays, taste_arrays["item_year"], taste_arrays["covariance_factors"])
    features = weighted_features(parts, taste["taste_weights"], len(effect))
    mood, decay = taste["taste_weights"].get("mood", 0.0), taste["mood_decay"]
    likes = Signal(label.astype(np.float64), effect, np.zeros(2))
    tastes: list[list[np.ndarray]] = [[] for _ in range(1 + len(signals))]
    for first in range(0, len(rows), _AT_ONCE):
        piece = Examples(*(x[first : first + _AT_ONCE] for x in examples))
        places = of_history[first : first + _AT_ONCE]
        weights = _history_weights(
            gram_matrices(features, piece), mood, decay, jnp.asarray(piece.present)
        )
        weights = np.asarray(weights, np.float64)
        for signal, column in zip((likes, *signals), tastes, strict=True):
            rest = signal.values[places] - signal.item_mean[piece.history_items]
            rest = np.where(np.isnan(rest), signal.typical[label[places].astype(int)], rest)
            column.append((weights * np.where(piece.present, rest, 0.0)).sum(axis=1))
    joined = [np.concatenate([*column, np.zeros(0)]) for column in tastes]
    w0, w1, w2 = taste["calibration"]
    return Fitted(rows, w0 + w1 * effect[examples.item] + w2 * joined[0], joined[1:])


@jax.jit
def _history_weights(
    of_items: jax.Array, mood: jax.Array | float, decay: jax.Array | float, present: jax.Array
) -> jax.Array:
    """(K_hh + I)^-1 k(c, h), float32[E, C], with which residuals of a history sum up to the taste for c.

    Arguments as in `prep.taste_model.predicted_tastes`, where the sum is taken in the other order.
    """
    place = jnp.arange(present.shape[1] + 1, dtype=jnp.float32)
    kernel = of_items + mood * decay ** jnp.abs(place[:, None] - place[None])
    both = present[:, :, None] & present[:, None]
    system = jnp.where(both, kernel[:, :-1, :-1], 0.0) + jnp.eye(
        present.shape[1], dtype=jnp.float32
    )
    right = jnp.where(present, kernel[:, -1, :-1], 0.0)
    return jax.vmap(lambda a, b: jax.scipy.linalg.solve(a, b, assume_a="pos"))(system, right)


# ---- ratings -----------------------------------------------------------------------------------------------


def rating_features(
    signal: Signal, item: np.ndarray, fitted: Fitted, taste: np.ndarray
) -> np.ndarray:
    """What a rating follows from: item mean, taste and log-odds of a like, float64[E, 3]."""
    return np.stack([signal.item_mean[item], taste, fitted.log_odds], axis=1)


def fit_ratings(
    arrays: Mapping[str, np.ndarray],
    signal: Signal,
    fitted: Fitted,
    scale: np.ndarray,
    like_threshold: float,
) -> dict[str, Any]:
    """The manifest's entry of ratings.

    Args:
        arrays: of the pack.
        signal: the ratings.
        fitted: the validation interactions; the ratings are the first signal.
        scale: float32[K], the ratings that there are.
        like_threshold: a rating of at least this is a like.
    """
    first_like = int(np.searchsorted(scale, like_threshold))
    start = _thresholds_of_shares(arrays, scale)
    # A rating that does not occur in training has no level.
    known = np.isin(arrays["interaction_rating"][fitted.rows], scale)
    rows, taste = fitted.rows[known], fitted.tastes[0][known]
    fitted = fitted._replace(rows=rows, log_odds=fitted.log_odds[known])
    level = np.searchsorted(scale, arrays["interaction_rating"][rows])
    features = rating_features(signal, arrays["interaction_item"][rows], fitted, taste)
    weights, thresholds = np.zeros(_RATING_WEIGHTS), start
    errors, steps = None, 0
    # With two ratings the like says it all.
    if len(rows) >= MIN_LABELS and len(scale) > 2:
        weights, thresholds, errors, steps = fit_ordered_logit(features, level, first_like, start)
    probability = 1 / (1 + np.exp(-fitted.log_odds))
    chances = level_probabilities(features @ weights, thresholds, first_like, probability)
    return {
        "levels": scale.tolist(),
        "like_threshold": float(like_threshold),
        "typical": signal.typical.tolist(),
        "weights": weights.tolist(),
        "thresholds": thresholds.tolist(),
        "errors": None if errors is None else errors.tolist(),
        "cuts": _cuts(chances @ scale, level, len(scale)),
        "labels": len(rows),
        "steps": steps,
    }


def _thresholds_of_shares(arrays: Mapping[str, np.ndarray], scale: np.ndarray) -> np.ndarray:
    """Thresholds float64[K - 1] with which a score of 0 gives the shares of the training ratings."""
    training = arrays["interaction_rating"][arrays["interaction_split"] == TRAIN]
    counts = np.bincount(np.searchsorted(scale, training), minlength=len(scale)) + 1.0
    below = np.cumsum(counts)[:-1] / counts.sum()
    return np.log(below) - np.log1p(-below)


def _cuts(expected: np.ndarray, level: np.ndarray, levels: int) -> list[float]:
    """K - 1 expected ratings at which to round, so that each rating is predicted as often as it occurs."""
    if not len(expected):
        return []
    shares = np.cumsum(np.bincount(level, minlength=levels))[:-1] / len(level)
    return [float(cut) for cut in np.quantile(expected, shares)]


# ---- durations ---------------------------------------------------------------------------------------------


def duration_features(
    signal: Signal, item: np.ndarray, fitted: Fitted, taste: np.ndarray, like: np.ndarray
) -> np.ndarray:
    """What a log-duration follows from: 1, item mean, taste, log-odds of a like and the like, float64[E, 5]."""
    ones = np.ones(len(item))
    return np.stack([ones, signal.item_mean[item], taste, fitted.log_odds, like], axis=1)


def fit_durations(
    arrays: Mapping[str, np.ndarray],
    signal: Signal,
    fitted: Fitted,
    threshold: float | None,
) -> dict[str, Any]:
    """The manifest's entry of durations, without their unit.

    Args:
        arrays: of the pack.
        signal: the logarithms of the durations.
        fitted: the validation interactions; the durations are the last signal.
        threshold: the duration from which on an interaction is a like; None if likes are of ratings.
    """
    known = np.isfinite(signal.values[fitted.rows])
    rows, taste = fitted.rows[known], fitted.tastes[-1][known]
    item, like = arrays["interaction_item"][rows], arrays["interaction_label"][rows]
    fitted = fitted._replace(rows=rows, log_odds=fitted.log_odds[known])
    weights: np.ndarray = np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    errors = None
    if len(rows) >= MIN_LABELS:
        features = duration_features(signal, item, fitted, taste, like)
        # The like is known from the duration where it is the like of a duration.
        columns = slice(None) if threshold is None else slice(_DURATION_WEIGHTS - 1)
        weights, deviation, errors = least_squares(features, signal.values[rows], columns)
    else:
        training = (arrays["interaction_split"] == TRAIN) & np.isfinite(signal.values)
        rest = signal.values - signal.item_mean[arrays["interaction_item"]]
        deviation = float(rest[training].std())
    return {
        "like_threshold": threshold,
        "typical": signal.typical.tolist(),
        "weights": weights.tolist(),
        "deviation": deviation,
        "errors": errors,
        "labels": len(rows),
        "missing": int(np.isnan(signal.values).sum()),
    }


def least_squares(
    features: np.ndarray, values: np.ndarray, columns: slice
) -> tuple[np.ndarray, float, list[float]]:
    """A regression of values float64[E] on some columns of features float64[E, F]; other weights are 0.

    Returns:
        Weights float64[F], standard deviation of the rest, and standard errors of the weights (0 for those that
        are 0) and of the deviation.
    """
    chosen = features[:, columns]
    some, *_ = np.linalg.lstsq(chosen, values, rcond=None)
    freedom = max(1, len(values) - chosen.shape[1])
    deviation = float(np.sqrt(((values - chosen @ some) ** 2).sum() / freedom))
    covariance = deviation**2 * np.linalg.pinv(chosen.T @ chosen)
    weights, errors = np.zeros((2, features.shape[1]))
    weights[columns], errors[columns] = some, np.sqrt(np.diag(covariance))
    return weights, deviation, [*errors.tolist(), deviation / np.sqrt(2 * freedom)]
