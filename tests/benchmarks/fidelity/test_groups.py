import numpy as np

from benchmarks.fidelity.events import events_of
from benchmarks.fidelity.groups import (
    CATEGORY,
    ITEM_POPULARITY,
    USER_ACTIVITY,
    groups_of,
    quarters,
)
from tests.benchmarks.fidelity.conftest import training_data
from tests.factory import random_dataset


def test_quarters_have_about_as_many_events_and_name_their_range():
    groups = quarters("kind", np.arange(100)[::-1] + 1000)
    assert [g.members.sum() for g in groups] == [25] * 4
    assert groups[0].name == "1,000 to 1,024"
    assert groups[0].members[-1]
    assert sum(g.members for g in groups).tolist() == [1] * 100


def test_equal_counts_are_in_one_group():
    assert [g.name for g in quarters("kind", np.array([3, 3, 3, 3, 9]))] == ["3", "9"]
    assert [g.name for g in quarters("kind", np.array([0]))] == ["0"]


def test_groups_of_events():
    dataset = random_dataset(0, num_users=40)
    data, events = training_data(dataset), events_of(dataset, "test")
    groups = groups_of(data, events)
    by_kind = {kind: [g for g in groups if g.kind == kind] for kind in {g.kind for g in groups}}
    assert by_kind.keys() == {CATEGORY, ITEM_POPULARITY, USER_ACTIVITY}
    for kind in (ITEM_POPULARITY, USER_ACTIVITY):
        assert sum(g.members for g in by_kind[kind]).tolist() == [1] * len(events)
    counts = np.bincount(dataset.interaction_user()[data.training])
    low, high = (int(x) for x in by_kind[USER_ACTIVITY][0].name.split(" to "))
    chosen = counts[events.user[by_kind[USER_ACTIVITY][0].members]]
    assert (chosen.min(), chosen.max()) == (low, high)
    rows = dataset.arrays["item_categories"][events.item]
    for group in by_kind[CATEGORY]:
        index = dataset.categories.index(group.name)
        np.testing.assert_array_equal(group.members, (rows == index).any(axis=1))


def test_the_categories_with_the_most_events_are_shown(monkeypatch):
    monkeypatch.setattr("benchmarks.fidelity.groups.MAX_CATEGORIES", 2)
    dataset = random_dataset(0, num_users=40)
    groups = groups_of(training_data(dataset), events_of(dataset, "test"))
    sizes = [g.members.sum() for g in groups if g.kind == CATEGORY]
    assert len(sizes) == 2
    assert sizes[0] >= sizes[1]
