"""An ordered logit of ratings, given on which side of the like threshold each of them lies.

The probability of a like is the taste model's, so only the distribution within each side is fitted: by the
likelihood of each rating among the ratings of its own side, with a weak Gaussian prior for what a dataset does not
tell. `jaxsim.signals` has the equations.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from scipy.special import expit, log_expit, logsumexp

WEIGHT_DEVIATION = 10.0  # of the prior on weights, around 0
GAP_DEVIATION = 3.0  # of the prior on the logarithms of distances between thresholds
_STEP = 1e-4  # of the differences that give the second derivatives
_LOG_GAPS = -12.0, 4.0  # bounds of the logarithms of distances between thresholds
_FAR = 500.0  # a distance beyond which thresholds do not affect each other


class OrderedLogit(NamedTuple):
    """A fit.

    Attributes:
        weights: float64[F].
        thresholds: float64[K - 1], ascending.
        errors: float64[F + K - 1], standard errors of the weights and of the thresholds.
        steps: of the search.
    """

    weights: np.ndarray
    thresholds: np.ndarray
    errors: np.ndarray
    steps: int


def fit_ordered_logit(
    features: np.ndarray, level: np.ndarray, first_like: int, start: np.ndarray
) -> OrderedLogit:
    """Fit weights and thresholds.

    Args:
        features: float64[E, F].
        level: int[E], below K, the place of each rating on the scale.
        first_like: the lowest level that is a like; at least 1, below K.
        start: float64[K - 1], thresholds from which the search starts, with all weights 0.
    """
    problem = _Problem(features, level, first_like, len(start) + 1)
    vector = np.concatenate([np.zeros(features.shape[1]), start[:1], np.log(np.diff(start))])
    result = scipy.optimize.minimize(problem.loss, vector, jac=True, method="BFGS")
    count = features.shape[1]
    weights, thresholds = result.x[:count], problem.thresholds(result.x)
    errors = problem.standard_errors(np.concatenate([weights, thresholds]))
    return OrderedLogit(weights, thresholds, errors, int(result.nit))


def log_levels(score: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """log(sigmoid(s - t_k-1) - sigmoid(s - t_k)) of every level, float64[E, K]."""
    low, high = _edges(thresholds)
    gap = np.log1p(-np.exp(low - high))
    return log_expit(score[:, None] - low) + log_expit(high - score[:, None]) + gap


def level_probabilities(
    score: np.ndarray, thresholds: np.ndarray, first_like: int, like_probability: np.ndarray
) -> np.ndarray:
    """Probability of every level, float64[E, K], if a like has the probability float64[E]."""
    logs, liked = log_levels(score, thresholds), np.arange(len(thresholds) + 1) >= first_like
    return np.concatenate(
        [
            share[:, None] * np.exp(part - logsumexp(part, axis=1, keepdims=True))
            for share, part in (
                (1 - like_probability, logs[:, ~liked]),
                (like_probability, logs[:, liked]),
            )
        ],
        axis=1,
    )


def _edges(thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper threshold of every level, float64[K] each."""
    return np.append(-np.inf, thresholds), np.append(thresholds, np.inf)


class _Problem:
    """The negative log-posterior, as a function of the weights, the first threshold and the logarithms of gaps."""

    def __init__(
        self, features: np.ndarray, level: np.ndarray, first_like: int, levels: int
    ) -> None:
        self._features, self._levels = features, levels
        liked = np.arange(levels) >= first_like
        self._possible = liked == (level >= first_like)[:, None]
        self._chosen = np.arange(levels) == level[:, None]

    def thresholds(self, vector: np.ndarray) -> np.ndarray:
        first, gaps = self._split(vector)
        # A search may try anything; the prior leads it back.
        return first + np.concatenate([[0.0], np.cumsum(np.exp(np.clip(gaps, *_LOG_GAPS)))])

    def _split(self, vector: np.ndarray) -> tuple[Any, np.ndarray]:
        count = self._features.shape[1]
        return vector[count], vector[count + 1 :]

    def loss(self, vector: np.ndarray) -> tuple[Any, np.ndarray]:
        """The value float64[] and its slope."""
        count = self._features.shape[1]
        weights, (_, gaps) = vector[:count], self._split(vector)
        value, slope = self._likelihood(weights, self.thresholds(vector))
        prior = (weights**2).sum() / WEIGHT_DEVIATION**2 + (gaps**2).sum() / GAP_DEVIATION**2
        of_thresholds = slope[count:]
        behind = of_thresholds[::-1].cumsum()[::-1]  # a gap moves all thresholds behind it
        return value + prior / 2, np.concatenate(
            [
                slope[:count] + weights / WEIGHT_DEVIATION**2,
                behind[:1],
                behind[1:] * np.exp(gaps) + gaps / GAP_DEVIATION**2,
            ]
        )

    def _likelihood(self, weights: np.ndarray, thresholds: np.ndarray) -> tuple[float, np.ndarray]:
        """The negative log-likelihood, and its slope in weights and thresholds."""
        score, (low, high) = self._features @ weights, _edges(thresholds)
        logs = np.where(self._possible, log_levels(score, thresholds), -np.inf)
        total = logsumexp(logs, axis=1)
        change = np.exp(logs - total[:, None]) - self._chosen
        inner = 1 / np.expm1(np.minimum(high - low, _FAR))
        below, above = expit(low - score[:, None]), expit(score[:, None] - high)
        of_score = (change * (below - above)).sum(axis=1)
        # The threshold j is the upper edge of level j and the lower edge of level j + 1.
        upper = (change * (above + inner))[:, :-1].sum(axis=0)
        lower = (change * (-below - inner))[:, 1:].sum(axis=0)
        value = float(total.sum() - logs[self._chosen].sum())
        return value, np.concatenate([self._features.T @ of_score, upper + lower])

    def standard_errors(self, parameters: np.ndarray) -> np.ndarray:
        """From the curvature of the likelihood and the prior on the weights."""
        count = self._features.shape[1]

        def slope(vector: np.ndarray) -> np.ndarray:
            return self._likelihood(vector[:count], vector[count:])[1]

        steps = _STEP * np.eye(len(parameters))
        curvature = np.stack(
            [(slope(parameters + h) - slope(parameters - h)) / (2 * _STEP) for h in steps]
        )
        curvature = (curvature + curvature.T) / 2
        prior = np.where(np.arange(len(parameters)) < count, 1 / WEIGHT_DEVIATION**2, 1e-6)
        covariance = np.linalg.pinv(curvature + np.diag(prior))
        return np.sqrt(np.maximum(np.diag(covariance), 0.0))
