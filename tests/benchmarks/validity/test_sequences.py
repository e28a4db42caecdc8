"""Simulated sequences, distances of distributions, and classifiers."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks.fidelity.bootstrap import UserBootstrap
from benchmarks.validity.classifier import CLASSIFIERS, features, told_apart
from benchmarks.validity.distances import Sample, kolmogorov_smirnov, like_rates, run_lengths
from benchmarks.validity.sequences import sequences, simulate


def test_each_answer_follows_from_the_history_and_the_answers_before(replay):
    """A model without chance: it likes what differs in parity from the number of likes that it sees."""

    def model(events):
        assert not events.label.any()
        return ((events.history_labels.sum(axis=1) + events.item) % 2).astype(float)

    answers = simulate(replay, model)
    assert answers.shape == (2, len(replay.label))
    events = replay.candidates
    for first, length in zip(replay.first, replay.lengths, strict=True):
        history = events.history_labels[first].tolist()
        for row in range(first, first + length):
            expected = (sum(history) + events.item[row]) % 2
            assert answers[:, row].tolist() == [expected] * 2
            history = [*history[1:], expected]


def test_the_items_of_a_history_move_on_with_its_labels(replay):
    seen = {}

    def model(events):
        for user, item, items, labels in zip(
            events.user, events.item, events.history_items, events.history_labels, strict=True
        ):
            seen[user, item] = (items.tolist(), labels.tolist())
        return np.ones(len(events))

    simulate(replay, model)
    events = replay.candidates
    first, length = replay.first[0], replay.lengths[0]
    user = events.user[first]
    before = events.history_items[first].tolist() + events.item[first : first + length].tolist()
    labels = events.history_labels[first].tolist() + [1] * length
    width = events.history_items.shape[1]
    for step in range(length):
        expected = before[step : step + width], labels[step : step + width]
        assert seen[user, events.item[first + step]] == expected


def test_answers_are_drawn_with_their_probability(replay):
    shares = [
        simulate(replace(replay, settings=replace(replay.settings, seed=seed)), half).mean()
        for seed in range(5)
        for half in [lambda events: np.full(len(events), 0.3)]
    ]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.03)


def test_runs_and_like_rates_by_hand():
    labels, code = np.array([1, 1, 0, 0, 1, 1], np.int8), np.array([0, 0, 0, 1, 1, 1])
    runs = run_lengths(labels, code)
    assert runs.values.tolist() == [2, 1, 1, 2]  # no run goes on in the next user
    assert runs.code.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(like_rates(labels, code).values, [2 / 3, 2 / 3])


@pytest.mark.parametrize("seed", range(3))
def test_the_distance_is_that_of_scipy_also_with_weights(seed):
    rng = np.random.default_rng(seed)
    code = np.arange(12)
    a, b = rng.integers(0, 9, (2, 12)) / 9
    weights = np.concatenate([np.ones((1, 12)), rng.multinomial(12, np.full(12, 1 / 12), 4)])
    got = kolmogorov_smirnov(Sample(a, code), Sample(b, code), weights)
    expected = [
        stats.ks_2samp(np.repeat(a, w.astype(int)), np.repeat(b, w.astype(int))).statistic
        for w in weights
    ]
    np.testing.assert_allclose(got, expected)


def drawn(replay, seed, chance):
    return (np.random.default_rng(seed).random(len(replay.label)) < chance).astype(np.int8)


@pytest.mark.parametrize("name", ["linear_auc", pytest.param("trees_auc", marks=pytest.mark.slow)])
def test_a_classifier_finds_other_answers_and_not_answers_of_the_same_kind(replay, name):
    users = replay.bootstrap.num_users
    bootstrap = UserBootstrap(np.tile(np.arange(users), 2), 3, 0)
    scores = {"item_rate": np.full(len(replay.label), 0.5)}

    def auc(seed, chance):
        real = features(replay, drawn(replay, 2 * seed, 0.5), scores)
        return told_apart(
            name, bootstrap, real, features(replay, drawn(replay, 2 * seed + 1, chance), scores)
        )[0]

    assert np.mean([auc(seed, 0.5) for seed in range(6)]) == pytest.approx(0.5, abs=0.12)
    assert np.mean([auc(seed, 0.95) for seed in range(3)]) > 0.9


def test_features_by_hand(replay):
    rate = np.linspace(0, 1, len(replay.label))
    got = features(replay, replay.label, {"item_rate": rate, "counts": rate})
    assert got.shape == (replay.bootstrap.num_users, 8)
    own = slice(replay.first[1], replay.first[1] + replay.lengths[1])
    labels, half = replay.label[own].astype(float), replay.lengths[1] // 2
    events = replay.candidates
    history = events.history_labels[own.start][events.history_items[own.start] >= 0]
    runs = [len(x) for digit in "01" for x in "".join(map(str, replay.label[own])).split(digit)]
    expected = [
        labels.mean(),
        labels.mean() - history.mean(),
        (labels - rate[own]).mean(),
        (np.diff(labels) != 0).sum() / len(labels),
        max(runs) / len(labels),
        labels[half:].mean() - labels[:half].mean(),
        *[np.cov(labels, rate[own], bias=True)[0, 1]] * 2,
    ]
    np.testing.assert_allclose(got[1], expected)


def test_too_few_users_have_no_classifier(replay):
    few = 6
    chosen = replay.code < few
    events = replay.candidates
    small = replace(
        replay,
        candidates=replace(
            events,
            **{
                name: getattr(events, name)[chosen]
                for name in ("user", "item", "label", "history_items", "history_labels")
            },
        ),
        label=replay.label[chosen],
        bootstrap=UserBootstrap(events.user[chosen], 3, 0),
    )
    result = sequences(small, {"item_rate": lambda events: np.full(len(events), 0.5)}, {})
    assert set(result["simulators"]) == {"item_rate"}
    assert not set(CLASSIFIERS) & set(result["simulators"]["item_rate"])
    assert result["people"]["like_rate"]["value"] == pytest.approx(small.label.mean(), abs=1e-6)
