from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.fidelity import votes as module
from benchmarks.fidelity.events import events_of
from benchmarks.fidelity.predictor import CannotFitError, Predictor
from benchmarks.fidelity.simulator import vote
from benchmarks.fidelity.variants import with_labels
from benchmarks.fidelity.votes import SIMULATED
from jaxsim.ensemble import majority_probability
from prep.statistic_model import SASRecTraining
from tests.benchmarks.fidelity.conftest import training_data
from tests.factory import RESIDUAL_WEIGHTS, random_dataset


def named(name: str) -> Predictor:
    return next(p for p in SIMULATED if p.name == name)


def test_votes_and_their_majority():
    dataset = random_dataset(3)
    data, events = training_data(dataset), events_of(dataset, "validation+test")
    scores = {p.name: p.fit(data).predict(events) for p in SIMULATED if not p.uses_validation}
    mat, sim = vote(scores["f_mat"]), vote(scores["f_sim"])
    sta = (scores["f_sta"] >= 0.5).astype(float)
    np.testing.assert_array_equal(scores["f_mat_vote"], mat)
    np.testing.assert_array_equal(scores["f_sim_vote"], sim)
    np.testing.assert_array_equal(scores["f_sta_vote"], sta)
    np.testing.assert_allclose(scores["votes"], (mat + sim + sta) / 3)
    np.testing.assert_allclose(scores["paper"], majority_probability(mat, sim, sta))
    assert ((scores["paper"] >= 0) & (scores["paper"] <= 1)).all()


def test_the_majority_by_hand():
    half, one, zero = np.array([0.5]), np.ones(1), np.zeros(1)
    assert majority_probability(half, half, one)[0] == 0.75
    assert majority_probability(half, zero, one)[0] == 0.5
    assert majority_probability(one, zero, zero)[0] == 0.0


def test_soft_is_fitted_on_the_validation_labels():
    dataset = random_dataset(3, num_users=60)
    data = training_data(dataset)
    labels = dataset.arrays["interaction_label"].copy()
    features = module.soft_features(data.simulator, data.validation)
    easy = (features[:, 1] > np.median(features[:, 1])).astype(np.int8)
    rows = dataset.arrays["interaction_split"] == 1
    for wanted in (easy, 1 - easy):
        labels[rows] = wanted
        changed = training_data(with_labels(dataset, labels))
        soft = named("soft").fit(changed)
        assert roc_auc_score(wanted, soft.predict(changed.validation)) > 0.75
        assert soft.parameters.keys() == {"coefficients", "intercept"}


def test_soft_needs_two_classes():
    dataset = random_dataset(3)
    same = with_labels(dataset, np.ones_like(dataset.arrays["interaction_label"]))
    with pytest.raises(CannotFitError, match="needs likes and dislikes"):
        named("soft").fit(training_data(same))


def test_f_sta_is_trained_again_when_the_data_has_changed(monkeypatch):
    dataset, other = random_dataset(3), random_dataset(4)
    calls = []

    def train(arrays, config):
        calls.append((arrays, config.window, config.width))
        return other.sasrec, {"architecture": dataset.manifest["sasrec"]["architecture"]}

    monkeypatch.setattr(module, "train_sasrec", train)
    events = events_of(dataset, "test")
    packed = named("f_sta").fit(training_data(dataset))
    assert not calls
    again = named("f_sta").fit(training_data(dataset, changed=True))
    assert calls == [(dataset.arrays, 20, 8)]
    assert again.parameters == other.sasrec
    assert (again.predict(events) != packed.predict(events)).any()


@pytest.mark.slow
def test_f_sta_that_is_trained_again_predicts():
    dataset = random_dataset(3)
    fitted = named("f_sta").fit(training_data(dataset, changed=True))
    probabilities = fitted.predict(events_of(dataset, "test"))
    assert ((probabilities > 0) & (probabilities < 1)).all()


def test_f_sta_of_an_earlier_version_is_trained_again_as_the_present_one(monkeypatch):
    """Its architecture has no running residuals, and its settings do not say where training starts."""
    dataset = random_dataset(3)
    present = dataset.manifest["sasrec"]["architecture"]
    older = {name: value for name, value in present.items() if name != "decays"}
    training = {"window": present["window"], "embedding_penalty": 2e-3}
    entry = {"architecture": older, "training": training}
    weights = {
        name: w for name, w in dataset.sasrec.items() if name.split("/")[0] not in RESIDUAL_WEIGHTS
    }
    earlier = replace(dataset, manifest={**dataset.manifest, "sasrec": entry}, sasrec=weights)
    settings = []

    def train(arrays, config):
        settings.append(config)
        return dataset.sasrec, {"architecture": present}

    monkeypatch.setattr(module, "train_sasrec", train)
    events = events_of(dataset, "test")
    again = named("f_sta").fit(training_data(earlier, changed=True)).predict(events)
    assert settings == [SASRecTraining(window=present["window"], embedding_penalty=2e-3)]
    expected = named("f_sta").fit(training_data(dataset)).predict(events)
    np.testing.assert_array_equal(again, expected)
    packed = named("f_sta").fit(training_data(earlier)).predict(events)
    assert np.abs(packed - expected).max() > 0.01
