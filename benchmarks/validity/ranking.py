"""Rank correlations of values of policies, for all resamples at once."""

import numpy as np
from scipy import stats

_DECIMALS = 12  # of values: sums in another order may differ in the last bits


def kendall(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kendall's tau-b between the rows of float64[B, P] and float64[B, P]: float64[B].

    A pair that is equal in one of the two counts neither for nor against. NaN where all values of a row are equal.
    """
    signs = []
    for values in (first, second):
        rounded = np.round(values, _DECIMALS)
        upper = np.triu_indices(rounded.shape[1], 1)
        signs.append(np.sign(rounded[:, upper[0]] - rounded[:, upper[1]]))
    a, b = signs
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation between the rows of float64[B, P] and float64[B, P]: float64[B]; NaN as `kendall`."""
    a, b = (stats.rankdata(np.round(x, _DECIMALS), axis=1) for x in (first, second))
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def for_all_users(tau: np.ndarray) -> np.ndarray:
    """What tau of two halves float64[B] would be with twice as many users on either side.

    Values are taken for normal: then the linear correlation is r = sin(pi tau / 2) (Greiner), and twice the data
    makes it 2 r / (1 + r) (Spearman and Brown).
    """
    r = np.sin(np.pi * tau / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return _tau(2 * r / (1 + r))


def against_truth(tau: np.ndarray) -> np.ndarray:
    """The tau of the exact values with measured ones, where two measurements have tau float64[B].

    For normal values the correlation is the square root of that of two measurements.
    """
    return _tau(np.sqrt(np.maximum(0.0, np.sin(np.pi * tau / 2))))


def _tau(correlation: np.ndarray) -> np.ndarray:
    return 2 / np.pi * np.arcsin(np.clip(correlation, -1, 1))
