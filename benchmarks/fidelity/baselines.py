"""Simple predictors, which a model of users must beat. They see the same labels as the simulator does.

- `bias`: the item's like rate plus the user's, both of the training interactions.
- `bias_running`: the item's like rate plus the user's decayed running rate over the history.
- `counts`: the share of likes among the history items in the item's category.
- `bias_residual`: a logistic regression on the item's like rate and on two decayed means of the user's residuals.

Rates are smoothed as everywhere (`agents.evaluation.baselines.smoothed`).
"""

import numpy as np

from agents.evaluation.baselines import SMOOTHING, smoothed
from benchmarks.fidelity.events import Events
from benchmarks.fidelity.predictor import (
    Fitted,
    Predictor,
    TrainingData,
    fit_logistic,
    logistic_parameters,
)
from jaxsim.keyword_matching import pack_members

DECAY = 0.97
RESIDUAL_DECAYS = (0.8, 0.97)


def decay_weights(events: Events, decay: float) -> np.ndarray:
    """Weight of each history position, float64[E, H]: 1 for the latest, `decay` before it, ..., 0 for padding."""
    age = np.arange(events.history_items.shape[1])[::-1]
    return np.where(events.present, decay**age, 0.0)


def residual_means(item_rate: np.ndarray, events: Events) -> np.ndarray:
    """Smoothed decayed means of the residuals label - item rate over the histories, float64[E, 2].

    The mean of decay d is sum_k d^k (y_k - rate_k) / (sum_k d^k + SMOOTHING), with k = 0 for the latest
    interaction: as if every history had SMOOTHING more interactions, whose items the user likes as often as other
    people do. A history without interactions has the mean 0.
    """
    residual = events.history_labels - item_rate[events.history_items]
    weights = (decay_weights(events, decay) for decay in RESIDUAL_DECAYS)
    return np.stack(
        [(w * residual).sum(axis=1) / (w.sum(axis=1) + SMOOTHING) for w in weights], axis=1
    )


def _fit_bias(data: TrainingData) -> Fitted:
    users = data.dataset.interaction_user()[data.training]
    labels = data.dataset.arrays["interaction_label"][data.training]
    counts = np.bincount(users, minlength=data.dataset.num_users).astype(np.float64)
    likes = np.bincount(users, weights=labels, minlength=data.dataset.num_users)
    item_rate, user_rate = data.item_rate, smoothed(likes, counts, data.like_rate)
    return Fitted(
        lambda events: item_rate[events.item] + user_rate[events.user],
        {"item_rate": item_rate, "user_rate": user_rate},
    )


def _fit_bias_running(data: TrainingData) -> Fitted:
    item_rate, mean = data.item_rate, data.like_rate

    def predict(events: Events) -> np.ndarray:
        weight = decay_weights(events, DECAY)
        likes = (weight * events.history_labels).sum(axis=1)
        return item_rate[events.item] + smoothed(likes, weight.sum(axis=1), mean)

    return Fitted(predict, {"item_rate": item_rate, "like_rate": np.array(mean)})


def _fit_counts(data: TrainingData) -> Fitted:
    dataset, mean = data.dataset, data.like_rate
    categories = pack_members(dataset.arrays["item_categories"], len(dataset.categories))

    def predict(events: Events) -> np.ndarray:
        own, others = categories[events.item][:, None], categories[events.history_items]
        same = events.present & (own & others).any(axis=-1)
        counted = np.where(same.any(axis=1, keepdims=True), same, events.present)
        liked = (counted * events.history_labels).sum(axis=1)
        return smoothed(liked, counted.sum(axis=1), mean)

    return Fitted(predict, {"like_rate": np.array(mean)})


def _fit_bias_residual(data: TrainingData) -> Fitted:
    item_rate = data.item_rate

    def features(events: Events) -> np.ndarray:
        return np.column_stack([item_rate[events.item], residual_means(item_rate, events)])

    model = fit_logistic(features(data.validation), data.validation.label)
    return Fitted(
        lambda events: model.predict_proba(features(events))[:, 1],
        {"item_rate": item_rate, **logistic_parameters(model)},
    )


BASELINES = (
    Predictor(
        "bias_residual",
        "baseline",
        "the item's like rate and how much more or less than others the user liked of late",
        _fit_bias_residual,
        is_probability=True,
        uses_validation=True,
        refit="fast",
    ),
    Predictor(
        "bias_running",
        "baseline",
        "the item's like rate plus the user's recent like rate",
        _fit_bias_running,
        refit="fast",
    ),
    Predictor(
        "bias",
        "baseline",
        "the item's like rate plus the user's, of the training ratings",
        _fit_bias,
        refit="fast",
    ),
    Predictor(
        "counts",
        "baseline",
        "share of likes in the history among items of the same category",
        _fit_counts,
        refit="fast",
    ),
)
