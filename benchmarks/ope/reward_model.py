"""The model of rewards for the direct method and the doubly robust estimator: a logistic regression.

It knows of users and items what a log in the Open Bandit Pipeline's fields holds (`agents.runs.log_formats`).
"""

import numpy as np
import scipy.special
from sklearn.linear_model import LogisticRegression

from agents.runs.log_formats import window_context

Half = tuple[np.ndarray, np.ndarray]


def pair_features(item_context: np.ndarray, items: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """What the model reads of each user and item, float32[U, N, 4], each with mean 0 and deviation 1.

    Log-odds of the item's like rate, log-odds of the user's share of likes, and the inner products of the item's
    vector with the means of the user's liked and disliked items.

    Args:
        item_context: float32[N, D + 1] of `agents.runs.log_formats.item_context`.
        items, responses: the users' windows, int32[U, W] and int8[U, W].
    """
    context = window_context(item_context, items, responses)
    vectors, log_odds = item_context[:, :-1], item_context[:, -1]
    width = vectors.shape[1]
    shape = (len(items), len(item_context))
    features = np.stack(
        [
            np.broadcast_to(log_odds, shape),
            np.broadcast_to(context[:, 2 * width, None], shape),
            context[:, :width] @ vectors.T,
            context[:, width : 2 * width] @ vectors.T,
        ],
        axis=2,
    )
    deviation = features.std(axis=(0, 1))
    return (features - features.mean(axis=(0, 1))) / np.where(deviation > 0, deviation, 1)


def cross_fitted(
    features: np.ndarray, user: np.ndarray, item: np.ndarray, reward: np.ndarray
) -> list[Half]:
    """Each half of n logged rows, int64[n / 2], with what a model of the other half predicts, float32[U, N].

    The rows are independent draws, so every second one makes a half.

    Args:
        features: float32[U, N, F].
        user, item: int[n], what was logged.
        reward: float[n], 0 or 1.
    """
    halves = np.arange(0, len(user), 2), np.arange(1, len(user), 2)
    return [
        (rows, _predicted(features, user[other], item[other], reward[other]))
        for rows, other in (halves, halves[::-1])
    ]


def _predicted(
    features: np.ndarray, user: np.ndarray, item: np.ndarray, reward: np.ndarray
) -> np.ndarray:
    """The probability of a reward for every user and item, float32[U, N], learned from some rows."""
    if reward.min(initial=1) == reward.max(initial=0):  # nothing to tell apart
        return np.full(features.shape[:2], reward.mean() if len(reward) else 0.5, np.float32)
    model = LogisticRegression().fit(features[user, item], reward)
    weights = model.coef_[0].astype(np.float32)
    return scipy.special.expit(features @ weights + np.float32(model.intercept_[0]))
