"""The candidates: test items, with histories that end before the test split and labels that nobody sees."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fidelity.variants import with_labels
from benchmarks.validity.replay import Replay
from benchmarks.validity.settings import Settings
from jaxsim import InputError
from jaxsim.dataset import TEST
from tests.benchmarks.validity.conftest import SMALL
from tests.factory import make_dataset

TINY = Settings(picks=1, min_interactions=2, context=3, resamples=4)


def test_candidates_by_hand(three_users):
    replay = Replay.of(three_users, TINY)
    events = replay.candidates
    assert events.user.tolist() == [0, 0, 1, 1]
    assert events.item.tolist() == [18, 19, 1, 0]
    assert replay.label.tolist() == [1, 0, 1, 1]
    assert events.label.tolist() == [0, 0, 0, 0]
    # The history of the second candidate does not hold the first one.
    assert events.history_items.tolist() == [[15, 16, 17], [15, 16, 17], [4, 3, 2], [4, 3, 2]]
    assert events.history_labels.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert replay.first.tolist() == [0, 2]
    assert replay.lengths.tolist() == [2, 2]


def test_a_test_label_reaches_nothing_but_the_real_labels(people, replay):
    labels = people.arrays["interaction_label"].copy()
    labels[people.arrays["interaction_split"] == TEST] ^= 1
    other = Replay.of(with_labels(people, labels), SMALL)
    for name in ("user", "item", "label", "history_items", "history_labels"):
        np.testing.assert_array_equal(
            getattr(other.candidates, name), getattr(replay.candidates, name)
        )
    np.testing.assert_array_equal(other.label, 1 - replay.label)


def test_places_of_a_user_are_all_different_and_equal_scores_are_in_random_order(replay):
    scores = np.random.default_rng(0).integers(0, 3, len(replay.label)).astype(float)
    place = replay.place(scores)
    for user in range(replay.bootstrap.num_users):
        own = replay.code == user
        assert sorted(place[own]) == list(range(own.sum()))
        assert (np.diff(scores[own][np.argsort(place[own])]) <= 0).all()
    same = replay.place(np.zeros(len(place)))
    assert (np.corrcoef(same, np.arange(len(place)) - replay.first[replay.code])[0, 1]) < 0.5
    np.testing.assert_array_equal(same, replay.place(np.ones(len(place))))


def test_a_value_is_the_mean_over_the_picks(three_users):
    replay = Replay.of(three_users, TINY)
    picked = np.array([[True, False, True, False], [False, True, False, True]])
    values = replay.value(picked, np.array([1.0, 0.2, 0.5, 0.4]))
    np.testing.assert_allclose(values[0], [0.75, 0.3])
    assert values.shape == (5, 2)


def test_at_most_so_many_users(people, replay):
    few = Replay.of(people, replace(SMALL, max_users=3))
    assert few.bootstrap.num_users == 3
    assert set(few.candidates.user) <= set(replay.candidates.user)


def test_too_few_test_interactions_are_refused(three_users):
    with pytest.raises(
        InputError, match=r"fewer than two users have 10 .* second most is 2: give a smaller"
    ):
        Replay.of(three_users, Settings())


def test_an_empty_test_split_is_refused():
    dataset = make_dataset([[0]] * 4, [[0]] * 4, [[0]] * 4, [([0, 1, 2], [1, 0, 1])])
    with pytest.raises(InputError, match="the test split is empty"):
        Replay.of(dataset, Settings())


def test_picks_must_leave_a_choice():
    with pytest.raises(InputError, match="--picks is 10: give less than --min-interactions, 10"):
        Settings(picks=10).check()


@pytest.mark.parametrize("name", ["picks", "context", "resamples", "draws", "halves"])
def test_settings_out_of_bounds_are_refused(name):
    with pytest.raises(InputError, match=f"--{name} is 0: give a whole number from"):
        replace(Settings(), **{name: 0}).check()
