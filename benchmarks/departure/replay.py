"""Real session lengths beside those that the fitted hazard draws for the same logged items.

A drawn session begins where a real one began, and meets the logged items that follow, beyond the end of the real
session, too. After the end of the log it meets items of average obscurity. A user's sessions are drawn with a
hazard that was fitted to other users. The end of a log counts as the end of a real session.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxsim import InputError
from jaxsim.dataset import TRAIN
from prep.departure_model import (
    DepartureTraining,
    Log,
    log_odds_of_terms,
    read_log,
    train_departure,
    window_features,
)

FOLDS = 5
DRAWS = 20
_RESAMPLES = 500
_LONGEST = 400  # longer sessions count as this long

Arrays = Mapping[str, np.ndarray]


class Lengths(NamedTuple):
    """Numbers of sessions of each user by length, float64[U, _LONGEST + 1]: real ones, and drawn ones."""

    real: np.ndarray
    drawn: np.ndarray


def replayed(arrays: Arrays, config: DepartureTraining, whole: bool, seed: int = 0) -> Lengths:
    """Real and drawn lengths of all users, each with the hazard of the other folds' users.

    Args:
        arrays: of the pack.
        config: settings of the fit, which always reads training logs alone.
        whole: draw for the whole logs instead of the training logs.
        seed: of the draws.
    """
    parts = []
    for fold, (others, judged) in enumerate(judged_folds(arrays, whole)):
        fitted, entry = train_departure(others, config)
        if fitted is None:
            raise InputError(
                f"{FOLDS - 1} of {FOLDS} parts of the users show too little: {entry['constant_because']}"
            )
        log, _ = read_log(judged, config.session_gap)
        assert log is not None
        offset = log_odds_of_terms(window_features(log, judged, fitted), entry["terms"])
        base = fitted["position_log_odds"].astype(np.float64)
        parts.append(draw_lengths(log, base, offset, np.random.default_rng([seed, fold])))
    return Lengths(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def judged_folds(arrays: Arrays, whole: bool) -> Iterator[tuple[Arrays, Arrays]]:
    """For each fold the arrays of the users outside it, for the fit, and of those inside it, who are judged.

    Args:
        arrays: of the pack.
        whole: judge whole logs: all interactions count as training.
    """
    num_users = len(arrays["user_offsets"]) - 1
    of_row = np.repeat(np.arange(num_users), np.diff(arrays["user_offsets"]))
    for fold in range(FOLDS):
        inside = of_row % FOLDS == fold
        judged = _only(arrays, inside, num_users)
        if whole:
            judged = {**judged, "interaction_split": np.full(inside.sum(), TRAIN, np.int8)}
        yield _only(arrays, ~inside, num_users), judged


def constant(arrays: Arrays, gap: float, probability: float, seed: int = 0) -> Lengths:
    """The same for the training logs with a constant probability of leaving."""
    log, _ = read_log(arrays, gap)
    assert log is not None
    base = np.array([np.log(probability / (1 - probability))])
    return draw_lengths(log, base, np.zeros(len(log.user)), np.random.default_rng(seed))


def _only(arrays: Arrays, rows: np.ndarray, num_users: int) -> dict[str, np.ndarray]:
    """The arrays with some interactions alone; users without any keep their place."""
    of_row = np.repeat(np.arange(num_users), np.diff(arrays["user_offsets"]))
    counts = np.bincount(of_row[rows], minlength=num_users)
    chosen = {n: x[rows] if n.startswith("interaction_") else x for n, x in arrays.items()}
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return {**chosen, "user_offsets": offsets}


def draw_lengths(
    log: Log, base: np.ndarray, offset: np.ndarray, rng: np.random.Generator
) -> Lengths:
    """Draw where each session ends, DRAWS times.

    Args:
        log: the log.
        base: float64[P], log-odds of leaving at positions from 1; the last one holds for later positions.
        offset: float64[M], what the items add to it.
        rng: of the draws.
    """
    users = int(log.user.max()) + 1
    real, drawn = np.zeros((2, users, _LONGEST + 1))
    np.add.at(real, (log.user[log.ends], np.minimum(log.position[log.ends], _LONGEST)), 1.0)
    first = np.flatnonzero(log.position == 1)
    user = log.user[first]
    going = np.ones((len(first), DRAWS), bool)
    for step in range(_LONGEST):
        row = np.minimum(first + step, len(log.user) - 1)
        of_item = np.where((log.user[row] == user) & (row == first + step), offset[row], 0.0)
        log_odds = base[min(step, len(base) - 1)] + of_item
        leaves = rng.random(going.shape) * (1.0 + np.exp(-log_odds))[:, None] < 1.0
        ended = going & (leaves | (step + 1 == _LONGEST))
        np.add.at(drawn[:, step + 1], user, ended.sum(axis=1))
        going &= ~ended
    return Lengths(real, drawn)


def kolmogorov_smirnov(lengths: Lengths, seed: int = 0) -> dict[str, float]:
    """The largest distance of the two distribution functions, with a 95 % bootstrap interval over users."""
    weights = resampled_users(len(lengths.real), seed)
    resampled = distance(weights @ lengths.real, weights @ lengths.drawn)
    low, high = np.quantile(resampled, (0.025, 0.975))
    value = distance(lengths.real.sum(axis=0), lengths.drawn.sum(axis=0))
    return {"value": float(value), "low": float(low), "high": float(high)}


def resampled_users(users: int, seed: int) -> np.ndarray:
    """How often each user is in each of the samples of a bootstrap, float64[samples, users]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(users, np.full(users, 1 / users), size=_RESAMPLES).astype(float)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The distance of distributions of counts float64[..., L], float64[...]."""
    a, b = (np.cumsum(x, axis=-1) / x.sum(axis=-1, keepdims=True) for x in (a, b))
    return np.abs(a - b).max(axis=-1)


def mean_lengths(lengths: Lengths) -> dict[str, float]:
    """The mean real and drawn length, of sessions cut at the longest that is counted."""
    length = np.arange(_LONGEST + 1)
    return {
        name: float((x.sum(axis=0) * length).sum() / x.sum())
        for name, x in zip(("real", "drawn"), lengths, strict=True)
    }
