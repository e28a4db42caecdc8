"""The whole measurement: no test label in a fit, and gaps of a dataset that leave the rest of the report."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.fidelity import histories, votes
from benchmarks.fidelity.accuracy import best_baseline
from benchmarks.fidelity.cold_items import cold_scores, unseen_folds
from benchmarks.fidelity.long_table import long_table
from benchmarks.fidelity.measure import fidelity
from benchmarks.fidelity.page.page import format_page
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.report import format_report
from benchmarks.fidelity.study import Settings, Study
from benchmarks.fidelity.variants import with_labels
from jaxsim import Dataset, InputError
from jaxsim.dataset import TEST
from tests.factory import make_dataset, random_dataset

pytestmark = pytest.mark.slow  # they measure whole reports

# Margins and votes have no parameters of their own.
UNFITTED = {"paper", "votes", *(f"f_{x}_vote" for x in ("mat", "sim", "sta")), "f_mat", "f_sim"}
QUICK = Settings(resamples=5, repeats=1, cold_items=False)


def with_other_test_labels(dataset: Dataset) -> Dataset:
    labels = dataset.arrays["interaction_label"].copy()
    labels[dataset.arrays["interaction_split"] == TEST] ^= 1
    return with_labels(dataset, labels)


def fitted_parameters(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, ratings: tuple[int, ...] = (0, 3)
) -> dict[str, Any]:
    """Everything that is estimated for a report, by name of the fit, predictor and parameter.

    The training of f_sta is replaced by a sum of what it reads; tests/prep/test_statistic_model.py shows that its
    real training reads no test label.
    """

    def train(arrays, config):
        seen = arrays["interaction_split"] != TEST
        total = (arrays["interaction_label"] * np.arange(1, len(seen) + 1))[seen].sum()
        weights = {name: w + np.float32(1e-6 * total) for name, w in dataset.sasrec.items()}
        return weights, dataset.manifest["sasrec"]

    monkeypatch.setattr(votes, "train_sasrec", train)
    study = Study.of(dataset, Settings(resamples=2))
    collected: dict[str, Any] = {}

    def record(part: str):
        original = Study.fit

        def fit(self, data, predictors=None):
            fitted = original(self, data, predictors)
            for name, one in fitted.items():
                for key, value in one.parameters.items():
                    collected[f"{part} {len(collected)} {name} {key}"] = np.array(value)
            return fitted

        return fit

    with monkeypatch.context() as patch:
        patch.setattr(Study, "fit", record("fit"))
        collected["reference"] = best_baseline(study, study.fit(study.data))
        for earlier in (False, True):
            study.fit(replace(study.data, context=4, strictly_earlier=earlier))
        for number in ratings:
            cold_scores(study, study.refitted("fast", "slow"), number, unseen_folds(study))
    return collected


def test_nothing_that_is_fitted_depends_on_test_labels(people, monkeypatch):
    ours = fitted_parameters(people, monkeypatch)
    theirs = fitted_parameters(with_other_test_labels(people), monkeypatch)
    assert ours.keys() == theirs.keys()
    names = {name.split()[2] for name in ours if name != "reference"}
    assert names == {p.name for p in PREDICTORS} - UNFITTED
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_training_labels_do_reach_the_fits(people, monkeypatch):
    """So that the test above cannot pass because nothing is recorded."""
    flipped = with_labels(people, people.arrays["interaction_label"] ^ 1)
    ours, theirs = (fitted_parameters(x, monkeypatch, ratings=()) for x in (people, flipped))
    fitted = ("taste_without_keywords", "soft", "bias_residual", "bias_running", "bias", "counts")
    for name in fitted:
        keys = [key for key in ours if f" {name} " in key]
        assert any((ours[key] != theirs[key]).any() for key in keys), name


def test_the_result_has_the_keys_that_others_read(result):
    for key in (
        "dataset",
        "split",
        "labels",
        "auc",
        "like_rate",
        "ece",
        "brier",
        "controls",
        "cold_items",
    ):
        assert key in result
    assert set(result["auc"]) == {p.name for p in PREDICTORS}
    assert {"real", "paper", "catalogue"} <= set(result["like_rate"])
    assert result["reference"] in {p.name for p in PREDICTORS if p.kind == "baseline"}
    assert "exchanged" in result["controls"]
    assert set(result["cold_items"]) == {p.name for p in PREDICTORS if p.refit != "never"}
    assert {"taste", "taste_without_keywords", "bias_residual"} <= set(result["cold_items"])
    assert set(result["keyword_gain"]) == {"taste"}
    estimates = [e for key in ("auc", "controls", "cold_items") for e in result[key].values()]
    assert all(set(e) == {"value", "low", "high"} for e in estimates)
    json.dumps(result, allow_nan=False)


def test_the_seed_decides_everything(people):
    settings = replace(QUICK, resamples=20)
    seeds = (settings, settings, replace(settings, seed=1))
    first, again, other = (fidelity(people, one) for one in seeds)
    for result in (first, again, other):
        del result["seconds"], result["processor_seconds"]
    assert first == again
    assert first["auc"]["paper"]["value"] == other["auc"]["paper"]["value"]
    assert first["auc"]["paper"] != other["auc"]["paper"]


# ---- gaps --------------------------------------------------------------------------------------------------


def report_of(dataset: Dataset, settings: Settings = QUICK) -> dict[str, Any]:
    """The result of a dataset; it can be shown in every form."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histories, "CONTEXTS", (50,))
        result = fidelity(dataset, settings)
    json.dumps(result, allow_nan=False)
    text = format_report(result)
    assert "nan" not in text
    for line in result["notes"]:
        assert "\n" not in line
        assert line in text
    assert format_page(result).startswith("<!doctype html>")
    assert len(long_table(result))
    return result


@pytest.mark.parametrize("label", [0, 1])
def test_a_split_with_one_class(people, label):
    labels = people.arrays["interaction_label"].copy()
    labels[people.arrays["interaction_split"] == TEST] = label
    result = report_of(with_labels(people, labels))
    which = ("dislikes", "likes")[label]
    assert f"ROC-AUC: not defined, because all labels of the split are {which}" in result["notes"]
    assert result["auc"]["paper"] == {"value": None, "low": None, "high": None}
    assert result["brier"]["paper"]["value"] is not None
    assert result["like_rate"]["real"]["value"] == label


def test_one_class_everywhere(people):
    result = report_of(with_labels(people, np.ones_like(people.arrays["interaction_label"])))
    assert result["reference"] is None
    assert "soft" not in result["auc"]
    assert any(
        line.startswith("bias_residual: left out, because it needs") for line in result["notes"]
    )


def test_a_user_without_history(people):
    """Packed folders of other programs may hold a user whose only interaction is in the test split."""
    arrays = dict(people.arrays)
    last = {"item": 0, "label": 1, "rating": 1, "time": 10**6, "split": TEST}
    for name, value in last.items():
        name = f"interaction_{name}"
        arrays[name] = np.append(arrays[name], np.array([value], arrays[name].dtype))
    arrays["user_offsets"] = np.append(arrays["user_offsets"], len(arrays["interaction_item"]))
    weights = dict(people.sasrec)
    weights["user_effect"] = np.append(weights["user_effect"], np.float32(0))
    manifest = json.loads(json.dumps(people.manifest))
    manifest["sasrec"]["architecture"]["num_users"] += 1
    users = people.users.reindex(range(people.num_users + 1))
    activity = np.append(people.exposure["user_activity"], np.float32(0))
    exposure = {**people.exposure, "user_activity": activity}
    dataset = replace(
        people, arrays=arrays, sasrec=weights, manifest=manifest, users=users, exposure=exposure
    )
    result = report_of(dataset)
    assert "histories: 1 labels have none, and are predicted without one" in result["notes"]


def test_a_dataset_without_times(people):
    zeros = np.zeros_like(people.arrays["interaction_time"])
    result = report_of(replace(people, arrays={**people.arrays, "interaction_time": zeros}))
    assert result["strictly_earlier"] is None
    assert "strictly earlier times: skipped, because the dataset has no times" in result["notes"]


def test_a_dataset_without_keywords_and_categories():
    source = random_dataset(1, num_users=40)
    sequences = [
        (source.arrays["interaction_item"][a:b].tolist(), source.arrays["interaction_label"][a:b].tolist())
        for a, b in zip(source.arrays["user_offsets"], source.arrays["user_offsets"][1:], strict=False)
    ]  # fmt: skip
    result = report_of(make_dataset([[]] * 40, [[]] * 40, [[]] * 40, sequences))
    assert "keywords: no item has any, so f_mat and f_sim always toss coins" in result["notes"]
    assert result["auc"]["f_mat"]["value"] == 0.5
    assert "taste" in result["auc"]
    assert "taste_without_keywords" not in result["auc"]


def test_a_single_user_has_no_intervals(two_users):
    result = report_of(two_users)
    assert "intervals: none, because only one user has labels in the split" in result["notes"]
    assert result["brier"]["paper"]["low"] is None


def test_validation_labels_are_judged_without_what_was_fitted_on_them(people):
    result = report_of(people, replace(QUICK, split="validation"))
    names = ("taste", "taste_without_keywords", "soft", "bias_residual")
    assert not {*names} & set(result["auc"])
    line = f"{', '.join(names)}: left out, because validation labels are judged"
    assert line in result["notes"]


def test_an_empty_split_is_refused():
    dataset = make_dataset([[0]] * 4, [[0]] * 4, [[0]] * 4, [([0, 1, 2], [1, 0, 1])])
    with pytest.raises(
        InputError, match="the test split is empty: build a dataset with users of five"
    ):
        fidelity(dataset)


@pytest.mark.parametrize("name", ["context", "resamples", "repeats"])
def test_settings_out_of_bounds_are_refused(people, name):
    with pytest.raises(InputError, match=f"--{name} is 0: give a whole number from 1"):
        fidelity(people, replace(Settings(), **{name: 0}))


def test_values_are_finite(result):
    def walk(value):
        if isinstance(value, dict):
            for part in value.values():
                yield from walk(part)
        elif isinstance(value, list):
            for part in value:
                yield from walk(part)
        elif isinstance(value, float):
            yield value

    assert all(math.isfinite(value) for value in walk(result))
