from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.fidelity.accuracy import best_baseline, group_errors, like_rates, reliability
from benchmarks.fidelity.events import unrated_events
from benchmarks.fidelity.predictor import Fitted, Predictor
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.study import Settings, Study, predictions


def of_labels(sign: float):
    """The `fit` of a predictor whose score is the label itself, or its opposite."""
    return lambda data: Fitted(lambda events: sign * events.label.astype(float))


def test_the_best_baseline_is_chosen_on_the_validation_split(people):
    def better_on_the_test_split(data):
        validation = len(data.validation)
        return Fitted(lambda e: e.label * (-1.0 if len(e) == validation else 1.0))

    predictors = (
        Predictor("good", "baseline", "", of_labels(1.0)),
        Predictor("cheat", "baseline", "", better_on_the_test_split),
        Predictor("model", "model", "", of_labels(1.0)),
    )
    study = Study.of(people, Settings(resamples=5), predictors)
    assert len(study.events) != len(study.data.validation)
    assert best_baseline(study, study.fit(study.data)) == "good"


def test_without_validation_labels_no_baseline_is_the_best(people):
    split = people.arrays["interaction_split"]
    arrays = {"interaction_split": np.where(split == 1, 0, split).astype(np.int8)}
    only_test = replace(people, arrays={**people.arrays, **arrays})
    study = Study.of(only_test, Settings(resamples=5))
    fitted = study.fit(study.data)
    assert best_baseline(study, fitted) is None
    assert not {"soft", "bias_residual"} & set(fitted)
    assert any(line.startswith("soft: left out, because it needs likes") for line in study.notes)


@pytest.mark.slow  # fits every predictor
def test_reliability_and_groups_agree_with_plain_means(people):
    study = Study.of(people, Settings(resamples=20))
    fitted = study.fit(study.data)
    scores = predictions(fitted, study.events)
    labels = study.events.label
    for bins in reliability(study, scores).values():
        assert sum(entry["labels"] for entry in bins) == len(labels)
        mean = sum(entry["labels"] * entry["observed"]["value"] for entry in bins) / len(labels)
        assert mean == pytest.approx(labels.mean(), abs=1e-5)
    for group in group_errors(study, scores):
        assert group["labels"] > 0
        assert set(group["like_rate_error"]) == {p.name for p in PREDICTORS if p.is_probability}


@pytest.mark.slow  # fits every predictor
def test_like_rates_are_mean_probabilities(people):
    study = Study.of(people, Settings(resamples=20))
    fitted = study.fit(study.data)
    scores = predictions(fitted, study.events)
    rates = like_rates(study, scores, fitted)
    assert rates["like_rate"]["real"]["value"] == pytest.approx(study.events.label.mean(), abs=1e-6)
    assert rates["like_rate"]["paper"]["value"] == pytest.approx(scores["paper"].mean(), abs=1e-6)
    unrated = unrated_events(people, study.settings.context, study.settings.seed)
    expected = fitted["paper"].predict(unrated).mean()
    assert rates["like_rate"]["catalogue"]["value"] == pytest.approx(expected, abs=1e-6)
    assert rates["unrated_like_rate"]["paper"] == rates["like_rate"]["catalogue"]


def test_differences_are_paired(people):
    """The interval of a difference to nearly the same predictor is narrow, though that of the AUC is wide."""
    study = Study.of(people, Settings(resamples=200))
    scores = np.random.default_rng(0).random(len(study.events))
    nearly = scores.copy()
    nearly[:2] += 0.01
    both = {"a": scores, "a_without_keywords": nearly, "b": 1 - scores}
    result = study.compare(both, "a")
    assert result["auc"]["a"]["value"] == pytest.approx(
        roc_auc_score(study.events.label, scores), abs=1e-6
    )
    assert result["difference"].keys() == {"a_without_keywords", "b"}
    width = {n: e["high"] - e["low"] for n, e in result["difference"].items()}
    assert width["a_without_keywords"] < 0.2 * (
        result["auc"]["a"]["high"] - result["auc"]["a"]["low"]
    )
    gain = result["keyword_gain"]["a"]["value"]
    assert gain == pytest.approx(-result["difference"]["a_without_keywords"]["value"], abs=1e-6)
    assert study.compare(both, None)["difference"] == {}
