"""Mixtures of rated and unrated items, and metrics that can be worked out by hand."""

import numpy as np
import pytest

from benchmarks.fidelity.bootstrap import UserBootstrap
from benchmarks.validity.mixed import (
    ITEMS,
    POPULARITY,
    RATIOS,
    VARIANTS,
    _answers,
    draw_pool,
    mixed_items,
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_mixture_holds_test_items_and_items_that_were_never_rated(people, replay, variant):
    pool = draw_pool(replay, variant)
    user_of = people.interaction_user()
    asked = {
        (user, item): label
        for user, item, label in zip(
            replay.candidates.user, replay.candidates.item, replay.label, strict=True
        )
    }
    for ratio in RATIOS:
        chosen = pool.mixture(ratio)
        for user in np.unique(pool.events.user):
            own = chosen & (pool.events.user == user)
            rated = pool.events.item[own & pool.rated]
            unrated = pool.events.item[own & ~pool.rated]
            assert len(np.unique(rated)) == len(rated)
            assert len(np.unique(unrated)) == len(unrated) == ratio * len(rated)
            assert len(rated) + len(unrated) <= ITEMS
            assert all((user, item) in asked for item in rated)
            if variant == "liked":
                assert all(asked[user, item] for item in rated)
            known = people.arrays["interaction_item"][user_of == user]
            assert not set(unrated) & set(known)


def test_histories_are_those_before_the_test_split(replay):
    pool = draw_pool(replay, "rated")
    first = {user: i for i, user in reversed(list(enumerate(replay.candidates.user)))}
    rows = [first[user] for user in pool.events.user]
    np.testing.assert_array_equal(pool.events.history_items, replay.candidates.history_items[rows])


def test_metrics_by_hand():
    bootstrap = UserBootstrap(np.array([0, 0, 1, 1, 1]), 5, 0)
    truth = np.array([True, False, True, False, False])
    parts = _answers(bootstrap, truth, {"a": np.array([0.5, 0.2, 0.4, 0.9, 0.7])})
    values = {key: parts[key]["a"]["value"] for key in parts}
    assert values == {
        "accuracy": 0.4,
        "precision": pytest.approx(1 / 3, abs=1e-6),
        "recall": 0.5,
        "f1": 0.4,
    }


def test_simulators_with_known_answers(replay):
    rated = {(u, i) for u, i in zip(replay.candidates.user, replay.candidates.item, strict=True)}

    def knows(events):
        pairs = zip(events.user, events.item, strict=True)
        return np.array([0.9 if pair in rated else 0.1 for pair in pairs])

    models = {"knows": knows, "never": lambda events: np.full(len(events), 0.3)}
    rows = mixed_items(replay, models)
    assert [(row["items"], row["ratio"]) for row in rows] == [
        (v, m) for v in VARIANTS for m in RATIOS
    ]
    for row in rows:
        share = 1 / (1 + row["ratio"])
        assert row["rated"] == pytest.approx(share, abs=1e-6)
        assert {key: row[key]["knows"]["value"] for key in ("accuracy", "f1", "auc")} == {
            "accuracy": 1.0,
            "f1": 1.0,
            "auc": 1.0,
        }
        assert row["accuracy"]["never"]["value"] == pytest.approx(1 - share, abs=1e-6)
        assert row["precision"]["never"]["value"] is None
        assert row["recall"]["never"]["value"] == 0
        assert row["auc"]["never"]["value"] == 0.5
        assert POPULARITY in row["auc"]
