"""The test of Agent4Rec (Zhang et al., SIGIR 2024): whether simulated people tell rated items from others.

Each user gets up to 20 items: some that they rated in the test split and M times as many that they never rated.
The simulator says which of them the user likes. The correct answer is taken to be "those that were rated". That is
not what a like is: people rate what they have seen, and dislike much of it; and they may like what they have not
seen. A variant takes only items that they liked in place of all that they rated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.evaluation.baselines import training_counts
from benchmarks.fidelity import metrics
from benchmarks.fidelity.bootstrap import Estimate, UserBootstrap
from benchmarks.fidelity.events import Events
from benchmarks.fidelity.study import estimates
from benchmarks.validity.replay import Replay
from benchmarks.validity.settings import MIXTURES
from benchmarks.validity.simulators import Probability, probabilities

ITEMS = 20  # of a user, as in Agent4Rec
RATIOS = (1, 2, 3, 9)
VARIANTS = ("rated", "liked")
POPULARITY = "popular"  # the number of training ratings, for comparison: it knows nothing about anyone's taste
_MOST_RATED = ITEMS // (1 + min(RATIOS))
_MOST_UNRATED = max(m * (ITEMS // (1 + m)) for m in RATIOS)


@dataclass(frozen=True)
class Pool:
    """Items of each user: rated ones in random order, and unrated ones in random order.

    Attributes:
        events: E events, from the histories before the test split.
        rated: bool[E].
        place: int64[E], the place of each among the rated or the unrated ones of its user.
        groups: int64[E, 2], how many rated and unrated ones the user has here.
    """

    events: Events
    rated: np.ndarray
    place: np.ndarray
    groups: np.ndarray

    def mixture(self, ratio: int) -> np.ndarray:
        """Which events are in the mixture 1:M, bool[E]: at most ITEMS of each user."""
        rated, unrated = self.groups.T
        rated = np.minimum(np.minimum(rated, ITEMS // (1 + ratio)), unrated // ratio)
        return self.place < np.where(self.rated, rated, ratio * rated)


def draw_pool(replay: Replay, variant: str) -> Pool:
    """The items of all users, the same for every simulator.

    Args:
        replay: rated items are its candidates.
        variant: "rated", or "liked" for those only that were liked; users without any are left out.
    """
    usable = np.ones(len(replay.label), bool) if variant == "rated" else replay.label > 0
    rng = replay.settings.rng(MIXTURES, VARIANTS.index(variant))
    arrays, events = replay.dataset.arrays, replay.candidates
    offsets, everything = arrays["user_offsets"], np.arange(replay.dataset.num_items)
    origin, items, rated, place, groups = [], [], [], [], []
    for first, length in zip(replay.first, replay.lengths, strict=True):
        own = first + np.flatnonzero(usable[first : first + length])
        own = events.item[rng.permutation(own)[:_MOST_RATED]]
        user = events.user[first]
        known = arrays["interaction_item"][offsets[user] : offsets[user + 1]]
        unknown = np.setdiff1d(everything, known)
        unknown = rng.permutation(unknown)[:_MOST_UNRATED]
        together = len(own) + len(unknown)
        origin.append(np.full(together, first))
        items.append(np.concatenate([own, unknown]))
        rated.append(np.arange(together) < len(own))
        place.append(np.concatenate([np.arange(len(own)), np.arange(len(unknown))]))
        groups.append(np.tile([len(own), len(unknown)], (together, 1)))
    row = np.concatenate(origin)
    pool = Events(
        events.user[row],
        np.concatenate(items).astype(np.int32),
        np.zeros(len(row), np.int8),
        events.history_items[row],
        events.history_labels[row],
    )
    return Pool(pool, *(np.concatenate(x) for x in (rated, place, groups)))


def mixed_items(replay: Replay, models: Mapping[str, Probability]) -> list[dict[str, Any]]:
    """Accuracy, precision, recall, F1 and ROC-AUC of every simulator, for each variant and ratio.

    Returns:
        For each, `items` (the variant), `ratio` (M), `pairs` (how many pairs of user and item), `rated` (the share
        of rated ones), and these metrics: `Estimate` by simulator.
    """
    counts, _ = training_counts(replay.dataset)
    rows = []
    for variant in VARIANTS:
        pool = draw_pool(replay, variant)
        scores = probabilities(models, pool.events)
        for ratio in RATIOS:
            chosen = pool.mixture(ratio)
            part = {name: score[chosen] for name, score in scores.items()}
            popularity = counts[pool.events.item[chosen]]
            truth, user = pool.rated[chosen], pool.events.user[chosen]
            bootstrap = UserBootstrap(user, replay.settings.resamples, replay.settings.seed)
            rows.append(
                {
                    "items": variant,
                    "ratio": ratio,
                    "pairs": int(chosen.sum()),
                    "rated": round(float(truth.mean()), 6) if len(truth) else None,
                    **_answers(bootstrap, truth, part),
                    "auc": _ranking(bootstrap, truth, {**part, POPULARITY: popularity}),
                }
            )
    return rows


def _ranking(
    bootstrap: UserBootstrap, truth: np.ndarray, scores: Mapping[str, np.ndarray]
) -> dict[str, Estimate]:
    """Share of pairs of a rated and an unrated item of the same user in which the rated one is more probable."""
    return estimates(
        {n: metrics.auc(bootstrap, truth, s, blocks=bootstrap.code) for n, s in scores.items()}
    )


def _answers(
    bootstrap: UserBootstrap, truth: np.ndarray, scores: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Estimate]]:
    """Metrics of the answers "like" where the probability is at least 1/2, over all users together."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, score in scores.items():
        answer = score >= 0.5
        hits = bootstrap.sums((answer & truth).astype(np.float64))
        answered = bootstrap.sums(answer.astype(np.float64))
        wanted = bootstrap.sums(truth.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            parts[name] = {
                "accuracy": bootstrap.means((answer == truth).astype(np.float64)),
                "precision": hits / answered,
                "recall": hits / wanted,
                "f1": 2 * hits / (answered + wanted),
            }
    keys = ("accuracy", "precision", "recall", "f1")
    return {key: estimates({name: part[key] for name, part in parts.items()}) for key in keys}
