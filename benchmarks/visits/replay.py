"""Real lives beside those that the fitted departure and returns draw for the same logged items.

A drawn life begins where a user's log begins, and meets the logged items in their order. Its sessions end by the
fitted departure; then the user returns, or not, by the fitted returns. After the end of the log it meets items
that are average in every feature. It lasts at most until the last time in all logs, as the real one does. A user's
lives are drawn with models that were fitted to other users. As in the fit, whoever has no later session in the log
has not returned.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from agents.evaluation.visits import WINDOWS
from benchmarks.departure.replay import DRAWS, FOLDS, distance, judged_folds, resampled_users
from jaxsim import InputError
from jaxsim.dataset import TRAIN
from jaxsim.departure import SATISFACTION
from jaxsim.visits import GAP, RETURN, SESSIONS
from prep.departure_model import (
    DepartureTraining,
    Log,
    log_odds_of_terms,
    read_log,
    satisfaction,
    standardised,
    train_departure,
    window_features,
)
from prep.return_model import train_visits

QUANTILES = (0.25, 0.5, 0.75)
_DAY = 86_400.0
_LONGEST = 5_000  # steps of a drawn life
_EDGES = np.geomspace(1e-2, 1e4, 1_001)  # days, between which gaps are counted

Arrays = Mapping[str, np.ndarray]


class Lives(NamedTuple):
    """Sums over the lives of each of U users.

    Attributes:
        lives, sessions: float64[U], their numbers.
        ends: float64[U, 3], ends of sessions whose next 1, 7 and 30 days lie before the last time in all logs.
        returns: float64[U, 3], those after which the user returned within these days.
        gaps: float64[U, 1002], numbers of gaps in classes of length.
    """

    lives: np.ndarray
    sessions: np.ndarray
    ends: np.ndarray
    returns: np.ndarray
    gaps: np.ndarray


class Judged(NamedTuple):
    """The logs of some users, and what the models of others need to know about them; M interactions, U users.

    Attributes:
        log: of `read_log`.
        first, last: int[U], the user's first and last interaction in it.
        horizon: float64[U], days from the first to the last time in all logs.
        leaving: float64[M], what the terms of the departure add to its log-odds.
        liked: float64[M], the satisfaction, as it is.
    """

    log: Log
    first: np.ndarray
    last: np.ndarray
    horizon: np.ndarray
    leaving: np.ndarray
    liked: np.ndarray


def replayed(
    arrays: Arrays, config: DepartureTraining, whole: bool, seed: int = 0
) -> tuple[Lives, Lives]:
    """Real and drawn lives of all users, each with the models of the other folds' users.

    Args:
        arrays: of the pack.
        config: settings of the fit, which always reads training logs alone.
        whole: draw for the whole logs instead of the training logs.
        seed: of the draws.
    """
    pairs = []
    for fold, (others, judged) in enumerate(judged_folds(arrays, whole)):
        departure, of_departure = train_departure(others, config)
        visits, of_visits = train_visits(others, config.session_gap)
        log, reason = read_log(judged, config.session_gap)
        if departure is None or visits is None or log is None:
            reason = of_visits.get("none_because", reason)
            raise InputError(f"each of {FOLDS} parts of the users is judged, and one has {reason}")
        time = judged["interaction_time"][judged["interaction_split"] == TRAIN]
        first, last = np.flatnonzero(log.so_far == 1), np.flatnonzero(log.cut)
        features = window_features(log, judged, departure)
        users = Judged(
            log=log,
            first=first,
            last=last,
            horizon=(_last_time(arrays, whole) - time[first]) / _DAY,
            leaving=log_odds_of_terms(features, of_departure["terms"]),
            liked=satisfaction(log, judged, visits["item_rate"]),
        )
        base = departure["position_log_odds"].astype(np.float64)
        rng = np.random.default_rng([seed, fold])
        pairs.append((real_lives(users, time), draw_lives(users, base, of_visits, rng)))
    real, drawn = zip(*pairs, strict=True)
    return _joined(real), _joined(drawn)


def _last_time(arrays: Arrays, whole: bool) -> int:
    counted = arrays["interaction_split"] == TRAIN
    return int(arrays["interaction_time"][counted | whole].max())


def _joined(parts: tuple[Lives, ...]) -> Lives:
    return Lives(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def no_lives(users: int) -> Lives:
    """Sums before the first life."""
    lives, sessions = np.zeros((2, users))
    ends, returns = np.zeros((2, users, len(WINDOWS)))
    return Lives(lives, sessions, ends, returns, np.zeros((users, len(_EDGES) + 1)))


def count_ends(
    total: Lives, user: np.ndarray, left: np.ndarray, gap: np.ndarray, back: np.ndarray
) -> None:
    """Add ends of sessions to the sums.

    Args:
        total: the sums.
        user: int[E].
        left: float64[E], days from the end to the last time in all logs.
        gap: float64[E], days until the user returned.
        back: bool[E], whether they did.
    """
    windows = np.array(WINDOWS, np.float64)
    fits = left[:, None] >= windows
    np.add.at(total.ends, user, fits)
    np.add.at(total.returns, user, fits & back[:, None] & (gap[:, None] <= windows))
    np.add.at(total.gaps, (user[back], np.searchsorted(_EDGES, gap[back])), 1.0)


def real_lives(users: Judged, time: np.ndarray) -> Lives:
    """The lives of the logs; `time` int64[M] is in seconds."""
    log, total = users.log, no_lives(len(users.first))
    total.lives[:] = 1
    np.add.at(total.sessions, log.user[log.position == 1], 1.0)
    row = np.flatnonzero(log.ends)
    user, back = log.user[row], ~log.cut[row]
    gap = (np.append(time[1:], 0)[row] - time[row]) / _DAY
    left = users.horizon[user] - (time[row] - time[users.first[user]]) / _DAY
    count_ends(total, user, left, np.where(back, gap, np.inf), back)
    return total


def draw_lives(
    users: Judged, base: np.ndarray, visits: Mapping[str, Any], rng: np.random.Generator
) -> Lives:
    """DRAWS lives of each user.

    Args:
        users: whose lives they are.
        base: float64[P], log-odds of leaving at positions from 1.
        visits: the manifest's entry of the fitted returns.
        rng: of the draws.
    """
    total = no_lives(len(users.first))
    user = np.repeat(np.arange(len(users.first)), DRAWS)
    total.lives[:] = DRAWS
    np.add.at(total.sessions, user, 1.0)
    row = users.first[user]
    position, session, day = np.zeros((3, len(user)))
    for _ in range(_LONGEST):
        known = row <= users.last[user]
        here = np.minimum(row, users.last[user])
        log_odds = base[np.minimum(position.astype(int), len(base) - 1)]
        log_odds = log_odds + np.where(known, users.leaving[here], 0.0)
        left = np.flatnonzero(rng.random(len(user)) < expit(log_odds))
        liked = np.where(known, users.liked[here], np.nan)[left]
        returns, gap = draw_returns(visits, liked, session[left] + 1, rng)
        remaining = users.horizon[user[left]] - day[left]
        back = returns & (gap <= remaining)
        count_ends(total, user[left], remaining, gap, back)
        np.add.at(total.sessions, user[left[back]], 1.0)
        row, position = row + 1, position + 1
        position[left], day[left], session[left] = 0, day[left] + gap, session[left] + 1
        stays = np.ones(len(user), bool)
        stays[left[~back]] = False
        user, row = user[stays], row[stays]
        position, session, day = position[stays], session[stays], day[stays]
        if not len(user):
            break
    return total


def draw_returns(
    visits: Mapping[str, Any], liked: np.ndarray, sessions: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Whether users return at all, bool[E], and after how many days, float64[E].

    Args:
        visits: the manifest's entry of the fitted returns.
        liked: float64[E], their satisfaction; NaN where it is not known.
        sessions: [E], how many sessions they have had.
        rng: of the draws.
    """
    features = {SATISFACTION: liked, SESSIONS: np.log(sessions)}
    log_odds, shift = (
        sum(
            (
                term["weight"] * standardised(features[name], term["mean"], term["scale"])
                for name, term in visits["terms"][part].items()
            ),
            np.zeros(len(liked)),
        )
        for part in (RETURN, GAP)
    )
    returns = rng.random(len(liked)) < expit(visits["intercept"] + log_odds)
    component = rng.choice(len(visits["weights"]), len(liked), p=visits["weights"])
    mean, scale = (np.array(visits[name])[component] for name in ("means", "scales"))
    minutes = np.exp(mean + shift + scale * rng.standard_normal(len(liked)))
    return returns, (visits["session_gap"] + minutes) * 60 / _DAY


# ---- comparison --------------------------------------------------------------------------------------------


def compared(real: Lives, drawn: Lives, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """Statistics of real and of drawn lives, and the distance of their gaps, with bootstrap intervals over users.

    Returns:
        "real" and "drawn" to statistics, and "distance" to that of the gaps (Kolmogorov-Smirnov), each with
        "value", "low" and "high".
    """
    weights = resampled_users(len(real.lives), seed)
    ones = np.ones((1, len(real.lives)))
    sides = {"real": real, "drawn": drawn}
    samples = {name: (_statistics(ones, x), _statistics(weights, x)) for name, x in sides.items()}
    result = {
        name: {key: _interval(value[key][0], sample[key]) for key in value}
        for name, (value, sample) in samples.items()
    }
    value, sample = (distance(w @ real.gaps, w @ drawn.gaps) for w in (ones, weights))
    return {**result, "distance": {"gaps": _interval(value[0], sample)}}


def _statistics(weights: np.ndarray, lives: Lives) -> dict[str, np.ndarray]:
    """Each statistic of weighted users, float64[number of samples]; `weights` is float64[samples, U]."""
    returns, ends = weights @ lives.returns, weights @ lives.ends
    gaps = np.cumsum(weights @ lives.gaps, axis=1)
    shares = gaps / gaps[:, -1:]
    return {
        "sessions_per_life": (weights @ lives.sessions) / (weights @ lives.lives),
        **{f"retention_{days}": returns[:, i] / ends[:, i] for i, days in enumerate(WINDOWS)},
        **{
            f"gap_{q:.0%}": _EDGES[np.minimum((shares < q).sum(axis=1), len(_EDGES) - 1)]
            for q in QUANTILES
        },
    }


def _interval(value: float, sample: np.ndarray) -> dict[str, float]:
    low, high = np.nanquantile(sample, (0.025, 0.975))
    return {"value": float(value), "low": float(low), "high": float(high)}
