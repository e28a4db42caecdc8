"""What is predicted: interactions of a split, each with the interactions of its user before it."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from jaxsim import Dataset
from jaxsim.dataset import TEST, TRAIN, VALIDATION

Split = Literal["test", "validation", "validation+test"]
CONTEXT = 50
_CODES = {"test": (TEST,), "validation": (VALIDATION,), "validation+test": (VALIDATION, TEST)}
SPLITS: tuple[str, ...] = get_args(Split)
# Streams of random numbers, one for each purpose; each is seeded by its number beside the user's seed.
_EXCHANGE, _UNRATED = 1, 2


@dataclass(frozen=True, eq=False)
class Events:
    """E interactions to be predicted, each with at most H interactions before it.

    Only the same object is equal, so that results can be remembered for it.

    Attributes:
        user, item: int32[E].
        label: int8[E], 1 like, 0 dislike.
        history_items: int32[E, H], -1 pads on the left.
        history_labels: int8[E, H], 1 like, 0 dislike or padding.
    """

    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    history_items: np.ndarray
    history_labels: np.ndarray

    def __len__(self) -> int:
        """E."""
        return len(self.user)

    @property
    def present(self) -> np.ndarray:
        """Which positions of the histories are interactions, bool[E, H]."""
        return self.history_items >= 0


def rows_of(dataset: Dataset, split: str) -> np.ndarray:
    """The interactions of a split, ascending int64[E]."""
    return np.flatnonzero(np.isin(dataset.arrays["interaction_split"], _CODES[split]))


def events_of(
    dataset: Dataset, split: str, context: int = CONTEXT, strictly_earlier: bool = False
) -> Events:
    """The interactions of a split, each with those before it, which may be of any split.

    Args:
        dataset: of `jaxsim.load_dataset`.
        split: one of SPLITS.
        context: H, the longest history.
        strictly_earlier: histories hold only interactions with a smaller time than the event's, and not those of
            the same second that stand before it.
    """
    return events_at(dataset, rows_of(dataset, split), context, strictly_earlier)


def events_at(
    dataset: Dataset,
    rows: np.ndarray,
    context: int = CONTEXT,
    strictly_earlier: bool = False,
    visible: np.ndarray | None = None,
) -> Events:
    """Some interactions, each with those before it.

    Args:
        dataset: of `jaxsim.load_dataset`.
        rows: int64[E], the interactions.
        context, strictly_earlier: as in `events_of`.
        visible: bool[M], which interactions may stand in histories; without it all.
    """
    user = dataset.interaction_user()[rows]
    end = first_at_same_time(dataset)[rows] if strictly_earlier else rows
    items, labels = _histories(dataset, user, end, context, visible)
    arrays = dataset.arrays
    item, label = arrays["interaction_item"][rows], arrays["interaction_label"][rows]
    return Events(user, item, label, items, labels)


def _histories(
    dataset: Dataset, user: np.ndarray, end: np.ndarray, context: int, visible: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Items int32 and labels int8 [E, context] of the latest visible interactions of users before row `end`."""
    item, label = (dataset.arrays[f"interaction_{name}"] for name in ("item", "label"))
    rows = np.arange(len(item)) if visible is None else np.flatnonzero(visible)
    if not len(rows):  # then nothing below is inside
        rows = np.zeros(1, np.int64)
        end = np.zeros_like(end)
    place = np.searchsorted(rows, end)[:, None] + np.arange(-context, 0)
    inside = place >= np.searchsorted(rows, dataset.arrays["user_offsets"][user])[:, None]
    taken = rows[np.maximum(place, 0)]
    items = np.where(inside, item[taken], np.int32(-1))
    return items, np.where(inside, label[taken], np.int8(0))


def first_at_same_time(dataset: Dataset) -> np.ndarray:
    """For each interaction, the first one of the same user at the same time, int64[M]."""
    time, user = dataset.arrays["interaction_time"], dataset.interaction_user()
    starts = np.ones(len(time), bool)
    starts[1:] = (time[1:] != time[:-1]) | (user[1:] != user[:-1])
    return np.maximum.accumulate(np.where(starts, np.arange(len(time)), 0))


def reason_without_times(dataset: Dataset) -> str | None:
    """Why there are no strictly earlier interactions to choose; None if there are."""
    time, user = dataset.arrays["interaction_time"], dataset.interaction_user()
    step = np.diff(time)[np.diff(user) == 0]
    if not step.any():
        return "the dataset has no times"
    return "interactions are not in the order of their times" if (step < 0).any() else None


def exchanged(events: Events, seed: int) -> Events:
    """The same items and labels, each with the user and the history of another person's event.

    The other user is drawn uniformly among those who have an event, then one of their events. There must be events
    of two users.
    """
    rng = np.random.default_rng([_EXCHANGE, seed])
    users, code, counts = np.unique(events.user, return_inverse=True, return_counts=True)
    other = rng.integers(0, len(users) - 1, len(events))
    other += other >= code
    place = (rng.random(len(events)) * counts[other]).astype(np.int64)
    donor = np.argsort(code, kind="stable")[(np.cumsum(counts) - counts)[other] + place]
    return replace(
        events,
        user=events.user[donor],
        history_items=events.history_items[donor],
        history_labels=events.history_labels[donor],
    )


def unrated_events(dataset: Dataset, context: int, seed: int, size: int = 20_000) -> Events:
    """Pairs of a user and an item that they have not rated, with the history that a session starts from.

    Users who may start a session are all drawn (or `size` of them, if there are more), each with equally many
    items, drawn uniformly; the items that they have rated are dropped. Labels are 0 because nobody knows them.
    """
    rng = np.random.default_rng([_UNRATED, seed])
    users = dataset.session_users("all")
    if len(users) > size:
        users = np.sort(rng.choice(users, size, replace=False))
    user = np.repeat(users, max(1, size // max(1, len(users))))
    item = rng.integers(0, dataset.num_items, len(user), dtype=np.int32)
    rated = dataset.interaction_user().astype(np.int64) * dataset.num_items
    rated += dataset.arrays["interaction_item"]
    new = ~np.isin(user.astype(np.int64) * dataset.num_items + item, rated)
    user, item = user[new], item[new]
    train = dataset.arrays["interaction_split"] == TRAIN
    end = dataset.arrays["user_offsets"][1:][user]
    items, labels = _histories(dataset, user, end, context, train)
    return Events(user, item, np.zeros(len(user), np.int8), items, labels)
