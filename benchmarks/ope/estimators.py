"""Estimators of a policy's value from the log of another policy, with bootstrap intervals.

Of one recommendation. w = target probability / propensity, r the reward, q(x, a) a model's prediction of r:

    ips     mean of w r                                            inverse propensity scoring
    snips   sum of w r / sum of w                                  self-normalised (Swaminathan and Joachims, 2015)
    dm      mean of sum over a of target(a | x) q(x, a)            direct method
    dr      dm + mean of w (r - q(x, a))                           doubly robust (Dudik, Langford and Li, 2011)

Of a session. w_t is the product of the weights of steps 1 to t (Precup, Sutton and Singh, 2000):

    is      mean of w_T times the sum of r_t                       whole sessions
    pdis    mean of the sum of w_t r_t                             per decision
    wpdis   sum over t of (sum of w_t r_t / sum of w_t)            per decision, self-normalised

The functions take replicates, weights float64[1 + R, n] of the n rows of which the first are all ones, and return
float64[1 + R].
"""

import numpy as np

FIRST = ("ips", "snips", "dm", "dr")
SESSION = ("is", "pdis", "wpdis")


def first_step(
    weight: np.ndarray,
    reward: np.ndarray,
    predicted: np.ndarray,
    value: np.ndarray,
    replicates: np.ndarray,
) -> dict[str, np.ndarray]:
    """Each estimator of one recommendation, float64[1 + R] by name.

    Args:
        weight: float64[n], w.
        reward: float64[n], r.
        predicted: float64[n], q of the item that was recommended.
        value: float64[n], the sum over the items of target probability times q.
        replicates: float64[1 + R, n].
    """
    columns = np.stack([weight * reward, weight, value, weight * (reward - predicted)], axis=1)
    gained, weights, direct, corrected = (replicates @ columns / len(weight)).T
    return {
        "ips": gained,
        "snips": _ratio(gained, weights),
        "dm": direct,
        "dr": direct + corrected,
    }


def session(
    weights: np.ndarray, rewards: np.ndarray, replicates: np.ndarray
) -> dict[str, np.ndarray]:
    """Each estimator of a session, float64[1 + R] by name.

    Args:
        weights: float64[n, T], the weight of each step alone; 1 after the end of a session.
        rewards: float64[n, T]; 0 after the end of a session.
        replicates: float64[1 + R, n].
    """
    upto = np.cumprod(weights, axis=1)
    count = len(weights)
    gained = replicates @ (upto * rewards) / count
    return {
        "is": replicates @ (upto[:, -1] * rewards.sum(axis=1)) / count,
        "pdis": gained.sum(axis=1),
        "wpdis": _ratio(gained, replicates @ upto / count).sum(axis=1),
    }


def effective_size(weight: np.ndarray) -> float:
    """How many equally weighted rows are worth as much, (sum w)^2 / sum w^2 (Kish, 1965)."""
    square = float((weight**2).sum())
    return float(weight.sum()) ** 2 / square if square > 0 else 0.0


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The quotient, and 0 where no row has a weight."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
