"""Labels weighted by propensity: by hand, against weights of a known mechanism, and the corrected predictor."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

import jaxsim
from benchmarks.fidelity import metrics
from benchmarks.fidelity.bootstrap import UserBootstrap
from benchmarks.fidelity.events import events_of
from benchmarks.fidelity.exposure import (
    CLIP,
    CLIPS,
    JUDGED,
    TASTE_EXPOSURE,
    effective_size,
    propensity_weighted,
    unclipped_weights,
)
from benchmarks.fidelity.exposure_report import (
    format_exposure,
    format_propensity,
    measure_exposure,
    run_exposure,
)
from benchmarks.fidelity.long_table import long_table
from benchmarks.fidelity.predictor import CannotFitError
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.study import Settings, Study
from jaxsim import InputError
from jaxsim.exposure import host_model
from tests.benchmarks.fidelity.conftest import training_data
from tests.exposure_reference import chosen_log_odds
from tests.factory import write_pack

FEW = Settings(resamples=20)
NAMES = ("taste", "bias")


@pytest.fixture(scope="module")
def study(people):
    return Study.of(people, FEW, [p for p in PREDICTORS if p.name in NAMES])


@pytest.fixture(scope="module")
def weighted(study):
    fitted = study.fit(study.data)
    scores = {name: one.predict(study.events) for name, one in fitted.items()}
    return propensity_weighted(study, scores, fitted)


def without_exposure(dataset):
    manifest = {name: x for name, x in dataset.manifest.items() if name != "exposure"}
    return dataclasses.replace(dataset, exposure=None, manifest=manifest)


# ---- weights -------------------------------------------------------------------------------------------


def test_effective_sizes_by_hand():
    assert effective_size(np.ones(7)) == pytest.approx(7)
    assert effective_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_size(np.array([1e9, 1.0, 1.0])) == pytest.approx(1)


def test_a_weight_is_one_over_the_propensity(people):
    """Of the user's own activity."""
    events, entry = events_of(people, "test"), people.manifest["exposure"]
    slope = entry["coefficients"]["activity"]["value"]
    activity = people.exposure["user_activity"].astype(np.float64)
    weights = unclipped_weights(host_model(people), events)
    for n in range(0, len(events), 7):
        items = events.history_items[n][events.present[n]].tolist()
        log_odds = chosen_log_odds(people, items, int(events.item[n]))
        log_odds += slope * (activity[events.user[n]] - activity.mean())
        assert weights[n] == pytest.approx(1 / expit(log_odds), rel=1e-4)


def test_a_weighted_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60), rng.integers(0, 9, 60) / 9
    weights, users = rng.exponential(size=60), rng.integers(0, 6, 60)
    replicates = metrics.auc(UserBootstrap(users, 5, 0), labels, scores, weights=weights)
    assert replicates[0] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
    assert len(replicates) == 6


def test_a_label_of_weight_two_counts_as_two_labels():
    labels, scores = np.array([1, 0, 0, 1]), np.array([0.9, 0.1, 0.8, 0.5])
    bootstrap = UserBootstrap(np.zeros(4, np.int64), 0, 0)
    double = np.array([0, 0, 1, 2, 3])
    ours = metrics.auc(bootstrap, labels, scores, weights=np.array([2.0, 1, 1, 1]))
    twice = metrics.auc(UserBootstrap(np.zeros(5, np.int64), 0, 0), labels[double], scores[double])
    np.testing.assert_allclose(ours, twice)


def test_weights_undo_a_known_choice():
    """People rate what they like: weighted by 1 / propensity the like rate is that of all items."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        liking = rng.normal(size=200_000)
        likes, propensity = rng.random(200_000) < expit(liking), expit(liking - 2)
        rated = rng.random(200_000) < propensity
        weights = 1 / propensity[rated]
        assert likes[rated].mean() > 0.6
        assert np.average(likes[rated], weights=weights) == pytest.approx(likes.mean(), abs=0.01)


# ---- the section ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_weights_the_figures_are_the_plain_ones(study, weighted):
    for name in NAMES:
        scores = study.fit(study.data)[name].predict(study.events)
        plain = study.compare({name: scores}, None)["auc"][name]
        assert weighted["plain"]["auc"][name] == plain
    rate = weighted["plain"]["like_rate"]["real"]["value"]
    assert rate == pytest.approx(study.events.label.mean(), abs=1e-6)
    assert weighted["plain"]["effective_labels"] == len(study.events)


@pytest.mark.slow
def test_a_looser_bound_leaves_fewer_effective_labels(weighted):
    rows = weighted["clips"]
    assert [row["clip"] for row in rows] == list(CLIPS)
    sizes = [row["effective_labels"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert rows[-1]["clipped"] == 0
    assert weighted["clip"] == CLIP
    assert weighted["auc"] == next(row["auc"] for row in rows if row["clip"] == CLIP)


@pytest.mark.slow
def test_the_corrected_predictor_is_the_environment_s(people):
    events = events_of(people, "test")
    env, params = jaxsim.make(people, semantics="calibrated", repeats="allow", exposure=True)
    items = jnp.where(events.present, events.history_items, -1)

    def respond(items, likes, candidate):
        return env.respond(jax.random.key(0), items, likes, candidate, params).probability

    expected = jax.vmap(respond)(items, jnp.asarray(events.history_labels), events.item)
    ours = TASTE_EXPOSURE.fit(training_data(people)).predict(events)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.slow
def test_the_corrected_predictor_stands_beside_the_others(weighted):
    assert set(weighted["auc"]) == {*NAMES, "taste_exposure"} <= set(JUDGED)
    assert set(weighted["difference"]) == {"bias", "taste_exposure"}
    assert set(weighted["like_rate"]) == {"real", "taste", "taste_exposure"}
    assert set(weighted["unrated_like_rate"]) == {"taste", "taste_exposure"}
    text = format_propensity(weighted)
    for part in (*weighted["auc"], "effective labels", "none", f"{CLIP:g} times the median"):
        assert part in text
    json.dumps(weighted)


def test_a_dataset_that_cannot_be_corrected_is_judged_without_that_predictor(people):
    entry = {**people.manifest["exposure"], "applies": False}
    people = dataclasses.replace(people, manifest={**people.manifest, "exposure": entry})
    study = Study.of(people, FEW, [p for p in PREDICTORS if p.name == "bias"])
    fitted = study.fit(study.data)
    scores = {"bias": fitted["bias"].predict(study.events)}
    assert set(propensity_weighted(study, scores, fitted)["auc"]) == {"bias"}
    assert any(
        "taste_exposure: left out" in note and "contains zero" in note for note in study.notes
    )


def test_a_dataset_of_earlier_versions_has_a_note(people):
    study = Study.of(without_exposure(people), FEW, [])
    assert propensity_weighted(study, {}, {}) is None
    assert "propensity-weighted figures: skipped" in study.notes[-1]
    with pytest.raises(CannotFitError, match="cannot be had"):
        TASTE_EXPOSURE.fit(training_data(without_exposure(people)))
    assert format_propensity(None) == ""


@pytest.mark.slow
def test_the_command_writes_its_result(people, tmp_path, capsys):
    pack, file = write_pack(people, tmp_path / "pack"), tmp_path / "exposure.json"
    run_exposure(str(pack), resamples=5, json=file)
    result = json.loads(file.read_text())
    assert format_exposure(result) == capsys.readouterr().out.strip()
    assert result["model"]["label"]["exposure"]["value"] == 0.4


def test_the_command_refuses_a_dataset_without_the_model_in_one_line(people):
    with pytest.raises(InputError, match="no exposure model: build it again") as caught:
        measure_exposure(without_exposure(people), FEW)
    assert "\n" not in str(caught.value)


def test_the_long_table_has_the_weighted_figures(result):
    table = long_table(result)
    rows = table[table["group"] == "weighted by propensity"]
    assert {"auc", "difference", "like_rate", "like_rate_error"} == set(rows["metric"])
    assert "taste_exposure" in set(rows["model"])
