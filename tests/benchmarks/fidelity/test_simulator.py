import jax
import numpy as np
import pytest

from benchmarks.fidelity import simulator as module
from benchmarks.fidelity.events import events_at, events_of, rows_of
from benchmarks.fidelity.simulator import Simulator, vote
from benchmarks.fidelity.variants import with_permuted_keywords
from jaxsim import make
from tests.factory import random_dataset


def test_margins_and_probability_are_those_of_respond(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 16)  # several batches, the last one padded
    dataset = random_dataset(3, max_sequence=30)
    env, params = make(dataset, history_length=8, session_capacity=12, users="all")
    events = events_of(dataset, "validation+test")
    assert len(events) % 16
    simulator = Simulator.of(dataset)
    mat, sim = simulator.margins(events)
    sta = simulator.probability(events)
    for at in range(0, len(events), 7):
        decision = env.respond(
            jax.random.key(0),
            events.history_items[at],
            events.history_labels[at],
            events.item[at],
            params,
            user=events.user[at],
        )
        sides = [
            -1.0 if np.isneginf(b) else float(b) for b in (decision.beta_pos, decision.beta_neg)
        ]
        assert mat[at] == int(decision.alpha_pos) - int(decision.alpha_neg)
        assert sim[at] == pytest.approx(sides[0] - sides[1], abs=1e-6)
        assert sta[at] == pytest.approx(float(decision.sta_probability), abs=1e-5)


def test_answers_are_remembered_for_the_same_events():
    dataset = random_dataset(3)
    simulator, events = Simulator.of(dataset), events_of(dataset, "test")
    assert simulator.margins(events) is simulator.margins(events)
    assert simulator.probability(events) is simulator.probability(events)
    assert simulator.probability(events_of(dataset, "test")) is not simulator.probability(events)
    del events
    assert len(simulator._margins) == len(simulator._probabilities) == 0


def test_no_events_have_no_answers():
    dataset = random_dataset(3)
    simulator, events = Simulator.of(dataset), events_at(dataset, rows_of(dataset, "test")[:0])
    assert [x.shape for x in simulator.margins(events)] == [(0,), (0,)]
    assert simulator.probability(events).shape == (0,)


def test_other_keywords_change_margins_only():
    dataset = random_dataset(3)
    simulator, events = Simulator.of(dataset), events_of(dataset, "validation+test")
    permuted = with_permuted_keywords(dataset, seed=0)
    changed, expected = simulator.with_keywords_of(permuted), Simulator.of(permuted)
    for actual, wanted in zip(changed.margins(events), expected.margins(events), strict=True):
        np.testing.assert_array_equal(actual, wanted)
    assert (changed.margins(events)[0] != simulator.margins(events)[0]).any()
    np.testing.assert_array_equal(changed.probability(events), simulator.probability(events))


def test_other_weights_change_the_probability_only():
    dataset, other = random_dataset(3), random_dataset(4)
    simulator, events = Simulator.of(dataset), events_of(dataset, "test")
    changed = simulator.with_sta(other.sasrec, dataset.manifest["sasrec"])
    assert (changed.probability(events) != simulator.probability(events)).any()
    np.testing.assert_array_equal(changed.margins(events)[1], simulator.margins(events)[1])


def test_a_vote_by_hand():
    assert vote(np.array([-2.0, 0.0, 0.5])).tolist() == [0.0, 0.5, 1.0]
