"""Intervals by resampling users: the labels of one user are correlated, so they are drawn together.

A statistic is computed for several weights of the users at once. In the first row of the weights every user counts
once: it gives the measured value. In each other row a user counts as often as they were drawn among U draws with
replacement. The results, float64[1 + R], are called replicates. Differences of replicates of two predictors are
paired, because all predictors meet the same rows.
"""

from typing import TypedDict

import numpy as np

from agents.evaluation.intervals import CONFIDENCE, mean_interval

_RESAMPLES = 4  # a stream of random numbers, as in `benchmarks.fidelity.events`


class Estimate(TypedDict):
    """A measured value with the ends of its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


class UserBootstrap:
    """Resamples of the users of some events.

    Attributes:
        code: int64[E], the user of each event as an index below U, the number of different users.
        weights: float64[1 + R, U], how often each user counts; the first row is all ones.
    """

    def __init__(self, users: np.ndarray, resamples: int, seed: int) -> None:
        """Draw R = `resamples` resamples of the users int[E] of E events; none if there is only one user."""
        distinct, self.code = np.unique(users, return_inverse=True)
        count = len(distinct)
        rng = np.random.default_rng([_RESAMPLES, seed])
        draws = rng.multinomial(count, np.full(count, 1 / count), resamples if count > 1 else 0)
        self.weights = np.concatenate([np.ones((1, count)), draws])

    @property
    def num_users(self) -> int:
        """U."""
        return self.weights.shape[1]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of float64[E] over the events, each with its user's weight: replicates float64[1 + R]."""
        return self.weights @ np.bincount(self.code, weights=values, minlength=self.num_users)

    def means(self, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """Weighted means of float64[E], over all events or those of bool[E]: replicates float64[1 + R].

        NaN where a resample has no such event.
        """
        chosen = np.ones(len(values)) if where is None else where.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.sums(chosen * values) / self.sums(chosen)


def estimate(replicates: np.ndarray, centred: bool = False) -> Estimate:
    """The value and the 95 % percentile interval of replicates float64[1 + R].

    Args:
        replicates: the measured value, then those of R resamples. NaN is left out.
        centred: move the interval so that the median resample is the measured value. This is for a statistic that
            resampling itself makes larger, such as a calibration error: only the spread of the resamples counts.

    Returns:
        No interval if there are no resamples to judge by, as with one user; a point if they are all equal.
    """
    value, resampled = float(replicates[0]), replicates[1:][np.isfinite(replicates[1:])]
    if not np.isfinite(value):
        return Estimate(value=None, low=None, high=None)
    if not len(resampled):
        return Estimate(value=_rounded(value), low=None, high=None)
    tail = (1 - CONFIDENCE) / 2
    low, median, high = np.quantile(resampled, [tail, 0.5, 1 - tail])
    shift = value - median if centred else 0.0
    return Estimate(
        value=_rounded(value),
        low=_rounded(max(0.0, low + shift) if centred else low),
        high=_rounded(high + shift),
    )


def estimate_over_repeats(values: list[float]) -> Estimate:
    """Mean of a random control's repetitions, with Student's t interval over them."""
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return Estimate(value=None, low=None, high=None)
    if len(finite) == 1:
        return Estimate(value=_rounded(finite[0]), low=None, high=None)
    low, high = mean_interval(finite[:, None], np.zeros(1, np.int64))
    return Estimate(value=_rounded(finite.mean()), low=_rounded(low), high=_rounded(high))


def _rounded(value: float) -> float:
    return round(float(value), 6)
