"""Policies pick as their names say, each differently, and mixtures follow chance as often as they should."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fidelity.study import Settings as FidelitySettings
from benchmarks.fidelity.study import Study
from benchmarks.fidelity.variants import with_labels
from benchmarks.validity import policies as module
from benchmarks.validity.policies import Policy, policies
from benchmarks.validity.replay import Replay
from benchmarks.validity.simulators import ITEM_RATE
from jaxsim import Dataset
from jaxsim.dataset import TEST, TRAIN
from tests.benchmarks.validity.conftest import SMALL


def study_of(dataset: Dataset) -> Study:
    return Study.of(dataset, FidelitySettings(resamples=2, context=8), (ITEM_RATE,))


def made(dataset: Dataset, replay: Replay) -> dict[str, Policy]:
    study = study_of(dataset)
    rng = np.random.default_rng(0)
    taste = rng.random(len(replay.candidates))
    rate = study.data.item_rate[replay.candidates.item]
    scores = {"taste": taste, "item_rate": rate, "bias": rate + 0.1}
    return {policy.name: policy for policy in policies(study, replay, scores)}


@pytest.fixture(scope="module")
def chosen(people, replay):
    return made(people, replay)


def test_every_policy_picks_as_many_of_each_user_and_none_picks_the_same(chosen, replay):
    for policy in chosen.values():
        counts = np.bincount(replay.code, weights=policy.picked)
        assert (counts == SMALL.picks).all(), policy.name
    assert len({policy.picked.tobytes() for policy in chosen.values()}) == len(chosen)


def test_equal_picks_are_one_policy_of_all_their_simulators(chosen):
    policy = chosen["like_rate"]
    assert policy.same_as == ("greedy_item_rate", "greedy_bias")
    assert policy.greedy_on == policy.built_on == {"item_rate", "bias"}
    assert chosen["greedy_taste"].greedy_on == {"taste"}
    for mixture in ("like_rate_epsilon_25", "like_rate_epsilon_75"):
        assert chosen[mixture].built_on == {"item_rate", "bias"}
        assert not chosen[mixture].greedy_on
    assert chosen["taste_epsilon_50"].built_on == {"taste"}
    assert not chosen["random"].built_on


def test_picks_follow_the_training_counts(people, replay, chosen):
    train = people.arrays["interaction_split"] == TRAIN
    counts = np.bincount(people.arrays["interaction_item"][train], minlength=people.num_items)
    item = replay.candidates.item
    for name, best in (("popular", max), ("unpopular", min)):
        for user in range(replay.bootstrap.num_users):
            own = replay.code == user
            picked = counts[item[own & chosen[name].picked]]
            assert best(picked) == best(counts[item[own]])
    year = people.taste["item_year"][item]
    assert np.nanmean(year[chosen["newest"].picked]) > np.nanmean(year[chosen["oldest"].picked])


def test_no_test_label_decides_a_pick(people, replay, chosen):
    labels = people.arrays["interaction_label"].copy()
    labels[people.arrays["interaction_split"] == TEST] ^= 1
    dataset = with_labels(people, labels)
    for name, policy in made(dataset, Replay.of(dataset, SMALL)).items():
        np.testing.assert_array_equal(policy.picked, chosen[name].picked, err_msg=name)


def test_mixtures_pick_at_random_as_often_as_their_name_says(people):
    """Over several seeds: the share of picks that are also those of the base."""
    shares = dict.fromkeys((25, 50, 75), 0.0)
    for seed in range(8):
        dataset_replay = Replay.of(people, replace(SMALL, seed=seed, picks=1))
        chosen = made(people, dataset_replay)
        base = chosen["like_rate"].picked
        overlap = (base / dataset_replay.lengths[dataset_replay.code]).sum() / base.sum()
        for percent in shares:
            picked = chosen[f"like_rate_epsilon_{percent}"].picked
            excess = (picked & base).sum() / base.sum() - (1 - percent / 100)
            shares[percent] += excess - percent / 100 * overlap
    for percent, excess in shares.items():
        assert abs(excess / 8) < 0.1, percent


def test_item_knn_is_the_sum_of_cosines(people, replay, monkeypatch):
    monkeypatch.setattr(module, "_USERS_AT_ONCE", 3)
    arrays = people.arrays
    liked = (arrays["interaction_split"] == TRAIN) & (arrays["interaction_label"] > 0)
    matrix = np.zeros((people.num_users, people.num_items))
    matrix[people.interaction_user()[liked], arrays["interaction_item"][liked]] = 1
    matrix /= np.maximum(np.linalg.norm(matrix, axis=0), 1)
    cosines = matrix.T @ matrix
    events = replay.candidates
    expected = [
        cosines[item, history[(history >= 0) & (labels > 0)]].sum()
        for item, history, labels in zip(
            events.item, events.history_items, events.history_labels, strict=True
        )
    ]
    np.testing.assert_allclose(module._item_knn(replay), expected)


def test_without_years_no_policy_is_by_year(people, replay):
    years = np.full_like(people.taste["item_year"], np.nan)
    dataset = replace(people, taste={**people.taste, "item_year": years})
    study = study_of(dataset)
    names = {p.name for p in policies(study, replace(replay, dataset=dataset), {})}
    assert not {"newest", "oldest"} & names
    assert "newest, oldest: left out, because no item has a year" in study.notes
