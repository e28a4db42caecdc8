"""Groups of events, in which the predicted like rate is compared with the real one."""

from dataclasses import dataclass

import numpy as np

from agents.evaluation.baselines import training_counts
from benchmarks.fidelity.events import Events
from benchmarks.fidelity.predictor import TrainingData

QUANTILES = (0.25, 0.5, 0.75)
MAX_CATEGORIES = 20
USER_ACTIVITY = "training ratings of the user"
ITEM_POPULARITY = "training ratings of the item"
CATEGORY = "category"


@dataclass(frozen=True)
class Group:
    """Some of the events.

    Attributes:
        kind: what the events are grouped by.
        name: of the group; a category's name comes from the dataset.
        members: bool[E].
    """

    kind: str
    name: str
    members: np.ndarray


def groups_of(data: TrainingData, events: Events) -> list[Group]:
    """Groups by activity of the user and popularity of the item, a quarter of the events each, and by category.

    An event is in the group of each of its item's categories. Only the MAX_CATEGORIES with the most events count.
    """
    dataset = data.dataset
    user_counts = np.bincount(
        dataset.interaction_user()[data.training], minlength=dataset.num_users
    )
    item_counts, _ = training_counts(dataset)
    return [
        *quarters(USER_ACTIVITY, user_counts[events.user]),
        *quarters(ITEM_POPULARITY, item_counts[events.item].astype(np.int64)),
        *_categories(dataset.arrays["item_categories"][events.item], dataset.categories),
    ]


def quarters(kind: str, counts: np.ndarray) -> list[Group]:
    """At most four groups of events by a number int64[E], with about as many events each."""
    place = np.searchsorted(np.quantile(counts, QUANTILES), counts, side="left")
    groups = []
    for index in np.unique(place):
        members = place == index
        low, high = counts[members].min(), counts[members].max()
        name = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        groups.append(Group(kind, name, members))
    return groups


def _categories(rows: np.ndarray, names: list[str]) -> list[Group]:
    """A group for each category in int32[E, C] (-1 pads)."""
    sizes = np.bincount(rows[rows >= 0], minlength=len(names))
    largest = np.argsort(-sizes, kind="stable")[:MAX_CATEGORIES]
    return [
        Group(CATEGORY, names[index], (rows == index).any(axis=1))
        for index in largest
        if sizes[index]
    ]
