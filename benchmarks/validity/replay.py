"""Replay on logged interactions: what policies may pick from, and what people really said of it.

The candidates of a user are their own test interactions. Policies and simulators see the history before the test
split and nothing of the test split but its items, so they cannot depend on a test label.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from benchmarks.fidelity.bootstrap import UserBootstrap
from benchmarks.fidelity.events import Events, events_at, rows_of
from benchmarks.fidelity.study import check_split
from benchmarks.validity.settings import HALVES, TIES, USERS, Settings
from jaxsim import Dataset, InputError
from jaxsim.dataset import TEST


@dataclass(frozen=True, eq=False)
class Replay:
    """The candidates of U users, user after user and in the order in which they were rated.

    Attributes:
        dataset, settings: as their types say.
        candidates: E events. Their histories are those before the test split; their labels are all 0.
        label: int8[E], what people really said. No policy and no simulator gets it.
        bootstrap: resamples of the users.
    """

    dataset: Dataset
    settings: Settings
    candidates: Events
    label: np.ndarray
    bootstrap: UserBootstrap

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings) -> "Replay":
        """The candidates of all users with enough test interactions.

        Raises:
            InputError: a setting is out of its bounds, the test split is empty, or fewer than two users have
                enough interactions in it.
        """
        settings.check()
        check_split(dataset, "test")
        rows = rows_of(dataset, "test")
        users = _chosen_users(dataset, rows, settings)
        rows = rows[np.isin(dataset.interaction_user()[rows], users)]
        before = dataset.arrays["interaction_split"] != TEST
        events = events_at(dataset, rows, settings.context, visible=before)
        return cls(
            dataset=dataset,
            settings=settings,
            candidates=replace(events, label=np.zeros_like(events.label)),
            label=events.label,
            bootstrap=UserBootstrap(events.user, settings.resamples, settings.seed),
        )

    @property
    def code(self) -> np.ndarray:
        """The user of each candidate as an ascending index below U, int64[E]."""
        return self.bootstrap.code

    @cached_property
    def first(self) -> np.ndarray:
        """The first candidate of each user, int64[U]."""
        return np.searchsorted(self.code, np.arange(self.bootstrap.num_users))

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many candidates each user has, int64[U]."""
        return np.bincount(self.code)

    @cached_property
    def halves(self) -> np.ndarray:
        """Random divisions of the users into halves, float64[B, U]: 1 for the first half, 0 for the second."""
        count = self.bootstrap.num_users
        first = np.zeros((self.settings.halves, count))
        for number, half in enumerate(first):
            half[self.settings.rng(HALVES, number).permutation(count)[: count // 2]] = 1
        return first

    def place(self, scores: np.ndarray) -> np.ndarray:
        """The place of each candidate among those of its user, int64[E]: 0 has the highest score float64[E].

        Equal scores are ordered at random, and in the same way for all scores, because the order in which people
        enter ratings may say something about the labels.
        """
        tie = self.settings.rng(TIES).random(len(scores))
        order = np.lexsort((tie, -scores, self.code))
        place = np.empty(len(scores), np.int64)
        place[order] = np.arange(len(scores)) - self.first[self.code[order]]
        return place

    def value(self, picked: np.ndarray, worth: np.ndarray) -> np.ndarray:
        """Mean worth float64[E] of the picks of P policies, bool[P, E]: replicates float64[1 + R, P]."""
        return np.stack([self.bootstrap.means(worth, where=one) for one in picked], axis=1)


def _chosen_users(dataset: Dataset, rows: np.ndarray, settings: Settings) -> np.ndarray:
    """Users with enough interactions in the test split, whose rows are int64; ascending int32."""
    counts = np.bincount(dataset.interaction_user()[rows], minlength=dataset.num_users)
    users = np.flatnonzero(counts >= settings.min_interactions).astype(np.int32)
    if len(users) < 2:
        second = np.sort(counts)[-2] if len(counts) > 1 else 0
        raise InputError(
            f"{dataset.name}: fewer than two users have {settings.min_interactions} interactions in the test "
            f"split, the second most is {second}: give a smaller --min-interactions, or build a dataset with "
            "longer histories"
        )
    if len(users) > settings.max_users:
        users = settings.rng(USERS).choice(users, settings.max_users, replace=False)
    return np.sort(users)
