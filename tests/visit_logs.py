"""Invented returns: a model of whether and when users return, and logs in which they return with known chances."""

from dataclasses import dataclass, replace

import numpy as np

from jaxsim import Dataset
from jaxsim.departure import SATISFACTION
from jaxsim.visits import SESSIONS

SESSION = 5  # interactions of a session of the logs, 10 seconds apart
_DAY = 86_400


@dataclass(frozen=True)
class Truth:
    """How users of the logs return; the weights are of a standardised satisfaction and of log(sessions so far)."""

    intercept: float = -0.5
    return_satisfaction: float = 0.6
    return_sessions: float = 0.4
    weights: tuple[float, ...] = (0.6, 0.4)
    means: tuple[float, ...] = (5.0, 9.0)
    scales: tuple[float, ...] = (0.7, 0.8)
    gap_satisfaction: float = 0.0
    gap_sessions: float = -0.5


def with_visits(
    dataset: Dataset,
    intercept: float = 0.4,
    terms: dict[str, dict[str, float]] | None = None,
    means: tuple[float, ...] = (5.0, 8.0),
    scales: tuple[float, ...] = (0.5, 1.0),
) -> Dataset:
    """The dataset with returns that nobody fitted; by default every term counts."""
    if terms is None:
        terms = {
            "return": {SATISFACTION: 0.5, SESSIONS: 0.4},
            "gap": {SATISFACTION: -0.3, SESSIONS: 0.2},
        }
    standard = {SATISFACTION: {"mean": 0.0, "scale": 0.25}, SESSIONS: {"mean": 0.7, "scale": 0.9}}
    rng = np.random.default_rng(4)
    entry = {
        "session_gap": 30.0,
        "clip": 2.0,
        "intercept": intercept,
        "weights": [1 / len(means)] * len(means),
        "means": list(means),
        "scales": list(scales),
        "terms": {
            part: {name: {"weight": w, **standard[name]} for name, w in terms.get(part, {}).items()}
            for part in ("return", "gap")
        },
    }
    visits = {
        "item_rate": rng.uniform(0.3, 0.7, dataset.num_items).astype(np.float32),
        "user_sessions": rng.integers(1, 6, dataset.num_users).astype(np.int32),
    }
    return replace(dataset, visits=visits, manifest={**dataset.manifest, "visits": entry})


def draw_visit_logs(
    seed: int, truth: Truth = Truth(), users: int = 500, sessions: int = 20, days: int = 120
) -> dict[str, np.ndarray]:
    """Arrays of a pack, all of it training data, whose users return as `truth` says until the last day.

    Args:
        seed: of all draws.
        truth: how they return.
        users: their number.
        sessions: the most sessions of one user.
        days: until which interactions are known; users arrive in the first half.
    """
    rng = np.random.default_rng(seed)
    num_items = 60
    item = rng.integers(0, num_items, (users, sessions, SESSION))
    like = (rng.random(item.shape) < rng.uniform(0.2, 0.8, num_items)[item]).astype(np.int8)
    count = np.bincount(item.ravel(), minlength=num_items)
    likes = np.bincount(item.ravel(), weights=like.ravel(), minlength=num_items)
    rate = (likes + 5 * like.mean()) / (count + 5)
    liked = (like - rate[item]).mean(axis=2)
    standard = np.clip((liked - liked.mean()) / liked.std(), -2, 2)
    times, kept = np.zeros(item.shape, np.int64), np.zeros(item.shape, bool)
    for user in range(users):
        now = rng.uniform(0, days / 2) * _DAY
        for n in range(sessions):
            times[user, n] = now + 10 * np.arange(SESSION)
            kept[user, n] = times[user, n] <= days * _DAY
            features = np.array([standard[user, n], np.log(n + 1)])
            log_odds = truth.intercept + features @ (
                truth.return_satisfaction,
                truth.return_sessions,
            )
            if rng.random() > 1 / (1 + np.exp(-log_odds)):
                break
            k = rng.choice(len(truth.means), p=truth.weights)
            shift = features @ (truth.gap_satisfaction, truth.gap_sessions)
            gap = np.exp(truth.means[k] + shift + truth.scales[k] * rng.standard_normal())
            now = times[user, n, -1] + 60 * (30 + gap)
    order = kept.reshape(users, -1)
    return {
        "item_categories": np.zeros((num_items, 1), np.int32),
        "item_pos_keywords": np.zeros((num_items, 1), np.int32),
        "item_pos_embedding": np.ones((num_items, 1), np.float32),
        "user_offsets": np.concatenate([[0], np.cumsum(order.sum(axis=1))]).astype(np.int64),
        "interaction_item": item.reshape(users, -1)[order].astype(np.int32),
        "interaction_label": like.reshape(users, -1)[order],
        "interaction_time": times.reshape(users, -1)[order],
        "interaction_split": np.zeros(order.sum(), np.int8),
    }
