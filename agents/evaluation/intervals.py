"""Confidence intervals of mean returns.

The sessions of one user start from the same history, so their returns are correlated. Intervals over sessions
therefore average the sessions of each user first, and treat users as the independent observations.
"""

import warnings
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


def mean_interval(returns: np.ndarray, users: np.ndarray) -> tuple[float, float]:
    """Student-t interval of the mean return: over training seeds if there are several, otherwise over users.

    Args:
        returns: float[seeds, M] of M sessions, or differences of returns.
        users: int[M], the user of each session; every user has the same number of sessions.

    Returns:
        The ends of the interval; NaN if there is one seed and one user.
    """
    over_seeds = len(returns) > 1
    sample = returns.mean(axis=1, dtype=float) if over_seeds else user_means(returns[0], users)
    if len(sample) < 2:
        return float("nan"), float("nan")
    return _ends(stats.ttest_1samp, sample, 0.0)


def user_means(values: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Mean of the sessions of each user, float64[number of users].

    Args:
        values: float[M], one value per session.
        users: int[M], the user of each session.
    """
    _, index, counts = np.unique(users, return_inverse=True, return_counts=True)
    return np.bincount(index, weights=values) / counts


def welch_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Welch's interval of the difference of two means, of samples float[n] and float[m] with n, m > 1."""
    return _ends(stats.ttest_ind, a, b, equal_var=False)


def _ends(test: Any, *arguments: Any, **options: Any) -> tuple[float, float]:
    with warnings.catch_warnings():
        # SciPy warns that the statistic of equal values is unreliable. Their interval is a point, and correct.
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = test(*arguments, **options).confidence_interval(CONFIDENCE)
    return float(low), float(high)
