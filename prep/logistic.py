"""Logistic regression with standard errors for observations that come in clusters."""

from typing import NamedTuple

import numpy as np

_STEPS = 100
_LARGEST_STEP = 2.0  # in log-odds; keeps Newton's method stable where outcomes are rare
_RIDGE = 1e-4  # keeps coefficients finite that the data says nothing about


class LogisticFit(NamedTuple):
    """The result.

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
    """Maximum likelihood by Newton's method, with the sandwich estimate of errors clustered by `cluster`.

    Args:
        features: float64[M, F], with a column of ones or columns that add up to one.
        outcome: bool[M].
        cluster: int[M], from 0; observations of one cluster may depend on each other.
        offset: float64[M], added to the log-odds with coefficient 1.
    """
    outcome = np.asarray(outcome, np.float64)
    coefficients = np.zeros(features.shape[1])
    for _ in range(_STEPS):
        residual, curvature = _derivatives(features, outcome, coefficients, offset)
        slope = features.T @ residual - _RIDGE * coefficients
        step = np.linalg.solve(curvature, slope)
        step *= min(1.0, _LARGEST_STEP / np.abs(step).max())
        coefficients = coefficients + step
        if np.abs(step).max() < 1e-9:
            break
    residual, curvature = _derivatives(features, outcome, coefficients, offset)
    scores = np.zeros((int(cluster.max()) + 1, features.shape[1]))
    np.add.at(scores, cluster, features * residual[:, None])
    inverse = np.linalg.inv(curvature)
    return LogisticFit(coefficients, np.sqrt(np.diag(inverse @ (scores.T @ scores) @ inverse)))


def _derivatives(
    features: np.ndarray, outcome: np.ndarray, coefficients: np.ndarray, offset: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Residuals float64[M], and the negative Hessian float64[F, F]."""
    probability = 1.0 / (1.0 + np.exp(-(features @ coefficients + offset)))
    weighted = features * (probability * (1.0 - probability))[:, None]
    return outcome - probability, weighted.T @ features + _RIDGE * np.eye(features.shape[1])
