"""Logistic regression with standard errors that are clustered, by user for example."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, TypeVar

import numpy as np
from scipy.special import expit

RIDGE = 1e-2  # of standardised columns; keeps coefficients finite where the labels can be parted
SMALL_RIDGE = 1e-4  # of features as they are: for those that the data says nothing about
NORMAL_QUANTILE = 1.959964  # of a 95 % interval
_STEPS, _TOLERANCE = 100, 1e-9
_Z = 1.959963984540054  # the same with all digits

Name = TypeVar("Name", bound=Hashable)


class Coefficient(TypedDict):
    """A coefficient, its standard error, and the ends of its 95 % interval."""

    value: float
    standard_error: float
    low: float
    high: float


def logistic_regression(
    columns: Mapping[str, np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    offset: np.ndarray | float = 0.0,
) -> dict[str, Coefficient]:
    """The coefficients of columns and of an intercept, with standard errors clustered by group.

    A column that is constant has no coefficient: it could not be told from the intercept.

    Args:
        columns: float64[E] by name.
        labels: bool[E] or 0 and 1.
        groups: int[E]; labels of one group may depend on each other.
        offset: float64[E] or one number, added to the log-odds with coefficient 1.

    Returns:
        "intercept" and the names of the columns, in this order.
    """
    used = {name: x.astype(np.float64) for name, x in columns.items() if np.ptp(x) > 0}
    centre = np.array([x.mean() for x in used.values()], np.float64)
    scale = np.array([x.std() for x in used.values()], np.float64)
    standard = [(x - x.mean()) / x.std() for x in used.values()]
    design = np.stack([np.ones(len(labels), np.float64), *standard], axis=1)
    given = np.asarray(labels, np.float64)
    penalty = np.append(0.0, np.full(design.shape[1] - 1, RIDGE))
    value, covariance = _fit(design, given, groups, np.asarray(offset, np.float64), penalty)
    # Back from standardised columns: the intercept takes what centring took away.
    back = np.diag(1.0 / np.concatenate([[1.0], scale]))
    back[0, 1:] = -centre / scale
    value, covariance = back @ value, back @ covariance @ back.T
    return _table(["intercept", *used], value, np.sqrt(np.diag(covariance)))


class LogisticFit(NamedTuple):
    """The result of `fit_logistic`.

    Attributes:
        coefficients: float64[F].
        errors: float64[F], standard errors.
    """

    coefficients: np.ndarray
    errors: np.ndarray


def fit_logistic(
    features: np.ndarray,
    outcome: np.ndarray,
    cluster: np.ndarray,
    offset: np.ndarray | float = 0.0,
) -> LogisticFit:
    """The coefficients of features as they are, with standard errors clustered by `cluster`.

    Args:
        features: float64[M, F], with a column of ones or columns that add up to one.
        outcome: bool[M].
        cluster: int[M]; observations of one cluster may depend on each other.
        offset: float64[M] or one number, added to the log-odds with coefficient 1.
    """
    penalty = np.full(features.shape[1], SMALL_RIDGE)
    value, covariance = _fit(
        features, np.asarray(outcome, np.float64), cluster, np.asarray(offset, np.float64), penalty
    )
    return LogisticFit(value, np.sqrt(np.diag(covariance)))


def _fit(
    design: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    offset: np.ndarray,
    ridge: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients float64[K] by Newton's method, and their sandwich covariance float64[K, K]."""
    penalty = np.diag(ridge)

    def loss(value: np.ndarray) -> float:
        log_odds = design @ value + offset
        likelihood = np.logaddexp(0.0, log_odds) - labels * log_odds
        return float(likelihood.sum() + value @ penalty @ value / 2)

    value = np.zeros(design.shape[1], np.float64)
    for _ in range(_STEPS):
        probability = expit(design @ value + offset)
        curvature = (design * (probability * (1 - probability))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature, design.T @ (labels - probability) - penalty @ value)
        before = loss(value)
        while loss(value + step) > before and np.abs(step).max() > _TOLERANCE:
            step = step / 2
        value = value + step
        if np.abs(step).max() <= _TOLERANCE:
            break
    probability = expit(design @ value + offset)
    return value, sandwich(curvature, design * (labels - probability)[:, None], groups)


def sandwich(curvature: np.ndarray, slopes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The covariance of parameters that maximise a likelihood, clustered by group, float64[K, K].

    Args:
        curvature: float64[K, K], minus the second derivative of the log-likelihood.
        slopes: float64[E, K], the derivative of the log-likelihood of each observation.
        groups: int[E]; observations of one group may depend on each other.
    """
    _, code = np.unique(groups, return_inverse=True)
    scores = np.zeros((code.max() + 1, slopes.shape[1]), np.float64)
    np.add.at(scores, code, slopes)
    count = len(scores)
    bread = np.linalg.inv(curvature)
    return bread @ (scores.T @ scores) @ bread * (count / max(count - 1, 1))


def clear_terms(
    names: Sequence[Name], fit: Callable[[Sequence[Name]], Sequence[tuple[float, float]]]
) -> dict[Name, dict[str, Any]]:
    """A fit is repeated without the terms whose 95 % interval contains zero, until there are none.

    Args:
        names: all terms.
        fit: names of terms -> the coefficient and the standard error of each. Its last call is with the kept ones.

    Returns:
        A row for each term, "coefficient", "error", "low", "high" and "kept". Those of kept terms are of the last
        fit, those of other terms of the last one with them.
    """

    def rows_of(some: Sequence[Name]) -> dict[Name, dict[str, Any]]:
        return {name: _row(*numbers) for name, numbers in zip(some, fit(some), strict=True)}

    kept = names
    rows = rows_of(kept)
    while True:
        clear = [name for name in kept if rows[name]["low"] > 0 or rows[name]["high"] < 0]
        if clear == kept:
            break
        kept = clear
        rows |= rows_of(kept)
    return {name: {**row, "kept": name in kept} for name, row in rows.items()}


def _row(value: float, error: float) -> dict[str, Any]:
    return {
        "coefficient": value,
        "error": error,
        "low": value - _Z * error,
        "high": value + _Z * error,
    }


def _table(names: Sequence[str], values: np.ndarray, errors: np.ndarray) -> dict[str, Coefficient]:
    return {
        name: Coefficient(
            value=float(value),
            standard_error=float(error),
            low=float(value - NORMAL_QUANTILE * error),
            high=float(value + NORMAL_QUANTILE * error),
        )
        for name, value, error in zip(names, values, errors, strict=True)
    }


def group_means(groups: np.ndarray, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The mean of each group, for each of its members, float64[M]; 0 for a group without rows.

    Args:
        groups: int[M].
        values: float64[M].
        rows: bool[M], which values count.
    """
    size = int(groups.max()) + 1
    total = np.bincount(groups[rows], weights=values[rows], minlength=size)
    return (total / np.maximum(np.bincount(groups[rows], minlength=size), 1))[groups]


# ---- tables of terms ---------------------------------------------------------------------------------------


def select_clear(
    names: Sequence[str], fit_terms: Callable[[Sequence[str]], LogisticFit]
) -> list[dict[str, Any]]:
    """The table of a regression from which terms are dropped until no 95 % interval contains zero.

    Args:
        names: of the terms.
        fit_terms: the regression on some terms, whose coefficients come first.

    Returns:
        A row for each term, in the order of the names. Those of kept terms come from the regression without the
        others.
    """

    def estimate(some: Sequence[str]) -> list[tuple[float, float]]:
        fit = fit_terms(some)
        numbers = zip(fit.coefficients.tolist(), fit.errors.tolist(), strict=True)
        return list(numbers)[: len(some)]

    rows = clear_terms(names, estimate)
    return [{"term": name, **rows[name]} for name in names]
