from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fidelity.events import (
    Events,
    events_at,
    events_of,
    exchanged,
    first_at_same_time,
    reason_without_times,
    rows_of,
    unrated_events,
)
from jaxsim import Dataset
from tests.factory import make_dataset, random_dataset


def with_times(dataset: Dataset, times: list[int]) -> Dataset:
    return replace(
        dataset, arrays={**dataset.arrays, "interaction_time": np.array(times, np.int64)}
    )


def test_events_see_what_came_before_and_nothing_of_another_user(two_users):
    validation, test = (events_of(two_users, name) for name in ("validation", "test"))
    assert (validation.item.tolist(), test.item.tolist()) == ([8], [9])
    assert (test.user.tolist(), test.label.tolist()) == ([0], [1])
    assert test.history_items[0, -9:].tolist() == list(range(9))
    assert test.history_labels[0, -9:].tolist() == [1, 0, 1, 1, 0, 0, 1, 1, 0]
    assert (test.history_items[0, :-9] == -1).all()
    assert test.present.sum() == 9
    both = events_of(two_users, "validation+test")
    assert both.item.tolist() == [8, 9]


def test_history_stops_at_the_users_first_interaction():
    dataset = make_dataset(
        [[0]] * 6,
        [[0]] * 6,
        [[0]] * 6,
        [([0, 1, 2], [1, 1, 1]), ([3, 4, 5, 0, 1], [0, 1, 0, 1, 0])],
    )
    test = events_of(dataset, "test")
    assert test.item.tolist() == [1]
    assert test.history_items[0, -5:].tolist() == [-1, 3, 4, 5, 0]


@pytest.mark.parametrize("context", [1, 3, 100])
def test_a_context_holds_the_latest_interactions(two_users, context):
    test = events_of(two_users, "test", context)
    assert test.history_items.shape == (1, context)
    assert test.history_items[0][test.present[0]].tolist() == list(range(9))[-context:]


def test_strictly_earlier_leaves_out_ratings_of_the_same_second(two_users):
    # Positions 7, 8 and 9 of user 0 share a second; user 1 begins in the same second as user 0 ends.
    dataset = with_times(two_users, [0, 1, 2, 3, 4, 5, 6, 9, 9, 9, 9, 10, 10, 11])
    assert first_at_same_time(dataset).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 10, 11, 11, 13]
    test = events_of(dataset, "test", 5, strictly_earlier=True)
    assert test.history_items[0].tolist() == [2, 3, 4, 5, 6]
    assert events_of(dataset, "test", 5).history_items[0].tolist() == [4, 5, 6, 7, 8]


def test_why_there_are_no_times(two_users):
    assert reason_without_times(two_users) is None
    assert reason_without_times(with_times(two_users, [7] * 14)) == "the dataset has no times"
    # Times that differ between users only do not order the interactions of one.
    assert reason_without_times(with_times(two_users, [0] * 10 + [1] * 4)) is not None
    descending = with_times(two_users, list(range(14))[::-1])
    assert reason_without_times(descending) == "interactions are not in the order of their times"


def test_only_visible_interactions_stand_in_histories(two_users):
    visible = np.ones(14, bool)
    visible[[3, 8]] = False
    test = events_at(two_users, rows_of(two_users, "test"), 4, visible=visible)
    assert test.history_items[0].tolist() == [4, 5, 6, 7]
    nothing = events_at(two_users, rows_of(two_users, "test"), 4, visible=np.zeros(14, bool))
    assert not nothing.present.any()
    assert not nothing.history_labels.any()


@pytest.mark.parametrize("strictly_earlier", [False, True])
def test_histories_agree_with_a_loop(strictly_earlier):
    rng = np.random.default_rng(0)
    dataset = random_dataset(5)
    count = len(dataset.arrays["interaction_item"])
    times = np.sort(rng.integers(0, 6, count))
    dataset = with_times(dataset, times.tolist())
    visible = rng.random(count) < 0.7
    rows = rows_of(dataset, "validation+test")
    events = events_at(dataset, rows, 4, strictly_earlier, visible)
    user, item = dataset.interaction_user(), dataset.arrays["interaction_item"]
    for at, row in enumerate(rows):
        before = [
            item[r]
            for r in range(row)
            if visible[r]
            and user[r] == user[row]
            and (not strictly_earlier or times[r] < times[row])
        ]
        assert events.history_items[at][events.present[at]].tolist() == before[-4:]


def test_exchanged_events_have_the_user_and_history_of_another_person():
    events = events_of(random_dataset(2), "validation+test", 5)
    others = exchanged(events, seed=0)
    assert (others.user != events.user).all()
    np.testing.assert_array_equal(others.item, events.item)
    np.testing.assert_array_equal(others.label, events.label)
    histories = {(u, *h) for u, h in zip(events.user, events.history_items.tolist(), strict=True)}
    assert {
        (u, *h) for u, h in zip(others.user, others.history_items.tolist(), strict=True)
    } <= histories
    assert len(set(others.user)) > 5


def test_other_users_are_drawn_uniformly_whatever_their_number_of_events():
    user = np.repeat([3, 7, 9], [1, 20, 400]).astype(np.int32)
    one = np.zeros((421, 1), np.int32)
    events = Events(user, one[:, 0], one[:, 0].astype(np.int8), one, one.astype(np.int8))
    others = exchanged(events, seed=1)
    of_nine = others.user[21:]
    assert abs((of_nine == 3).mean() - 0.5) < 0.1


def test_unrated_events_are_new_items_after_the_training_interactions(two_users):
    dataset = random_dataset(4)
    events = unrated_events(dataset, 6, seed=0, size=500)
    rated = {
        (u, i)
        for u, i in zip(dataset.interaction_user(), dataset.arrays["interaction_item"], strict=True)
    }
    assert not rated & set(zip(events.user, events.item, strict=True))
    assert set(events.user) <= set(dataset.session_users("all"))
    train = dataset.arrays["interaction_split"] == 0
    for at in range(0, len(events), 41):
        own = train & (dataset.interaction_user() == events.user[at])
        expected = dataset.arrays["interaction_item"][own][-6:]
        assert events.history_items[at][events.present[at]].tolist() == expected.tolist()
    assert len(unrated_events(dataset, 6, seed=0, size=3)) <= 3


def test_events_are_equal_only_to_themselves(two_users):
    assert events_of(two_users, "test") != events_of(two_users, "test")
