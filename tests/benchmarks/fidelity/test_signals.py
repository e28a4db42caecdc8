"""The block of ratings and durations of the fidelity report."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

import jaxsim
from benchmarks.fidelity import signals
from benchmarks.fidelity.bootstrap import UserBootstrap
from benchmarks.fidelity.events import events_of, rows_of
from benchmarks.fidelity.report import format_signals
from benchmarks.fidelity.study import Settings, Study
from jaxsim import Dataset
from tests.signals_factory import DURATION, LEVELS, with_signals


@pytest.fixture(scope="module")
def rated(people: Dataset) -> Dataset:
    return with_signals(people)


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    users, actual = rng.integers(0, 20, 300), rng.integers(0, 5, 300)
    predicted = np.clip(actual + rng.integers(-1, 2, 300), 0, 4)
    bootstrap = UserBootstrap(users, 10, 0)
    got = signals.quadratic_kappa(bootstrap, actual, predicted, 5)
    assert got[0] == pytest.approx(cohen_kappa_score(actual, predicted, weights="quadratic"))
    weight = bootstrap.weights[3][bootstrap.code]
    resampled = cohen_kappa_score(actual, predicted, weights="quadratic", sample_weight=weight)
    assert got[3] == pytest.approx(resampled)


def test_cuts_keep_the_shares():
    scale, actual = np.array([1.0, 2.0, 3.0]), np.array([1, 1, 2, 3, 3, 3, 3, 3, 3, 3])
    predicted = np.random.default_rng(0).normal(size=1000)
    cuts = signals.cuts_of(predicted, actual, scale)
    shares = np.bincount(np.searchsorted(cuts, predicted)) / 1000
    np.testing.assert_allclose(shares, [0.2, 0.1, 0.7], atol=0.002)


@pytest.mark.slow
def test_predictions_are_the_answers_of_the_environment(rated):
    """With the ratings and durations of the history given to `respond`."""
    study = Study.of(rated, Settings(resamples=2), ())
    heads = signals.build_signals(rated)
    model = signals.build_taste_model(rated, 1 << 30, "auto").replace(signals=heads)
    events, rows = events_of(rated, "test"), rows_of(rated, "test")
    predicted = signals.predict(model, rated, events, rows)
    env, params = jaxsim.make(rated, semantics="calibrated", repeats="allow", signals="all")
    event = int(np.argmax(events.present.sum(axis=1)))
    length = int(events.present[event].sum())
    before = slice(rows[event] - length, rows[event])
    given = {
        "rating": jnp.asarray(rated.arrays["interaction_rating"][before]),
        "duration": jnp.asarray(rated.signals["interaction_duration"][before]),
    }
    decision = env.respond(
        jax.random.key(0),
        rated.arrays["interaction_item"][before],
        rated.arrays["interaction_label"][before],
        int(events.item[event]),
        params,
        history_signals=given,
    )
    np.testing.assert_allclose(predicted.levels[event], decision.rating_probabilities, atol=1e-4)
    mean = np.exp(predicted.log_duration[event] + DURATION["deviation"] ** 2 / 2)
    expected = mean @ [1 - predicted.like[event], predicted.like[event]]
    assert decision.expected_duration == pytest.approx(expected, rel=1e-3)
    block = signals.signal_accuracy(study)["signals"]
    actual = rated.arrays["interaction_rating"][rows]
    error = np.sqrt(((predicted.levels @ LEVELS - actual) ** 2).mean())
    assert block["rating"]["rmse"]["model"]["value"] == pytest.approx(error, abs=1e-5)
    assert "quadratic kappa" in format_signals({"signals": block})
    assert "R^2" in format_signals({"signals": block})


@pytest.mark.parametrize("threshold", [None, 2.0])
def test_the_density_of_durations_is_one(threshold):
    """Its integral is 1, and its mean is that of the formula."""
    entry = {"deviation": 0.7, "like_threshold": threshold}
    grid = np.linspace(-6, 8, 28001)
    same = np.ones(len(grid))
    predicted = signals.Predicted(0.3 * same, None, np.stack([0.2 * same, 0.9 * same], axis=1))
    mean, logs = signals.log_duration(predicted, entry, grid)
    density = np.exp(logs)
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-3)
    assert (grid * density).sum() * (grid[1] - grid[0]) == pytest.approx(mean[0], abs=1e-3)
    if threshold is None:
        by_hand = 0.7 * norm.pdf(0.5, 0.2, 0.7) + 0.3 * norm.pdf(0.5, 0.9, 0.7)
        assert density[np.argmin(np.abs(grid - 0.5))] == pytest.approx(by_hand, rel=1e-3)


def test_a_dataset_without_signals_has_no_block(people):
    assert signals.signal_accuracy(Study.of(people, Settings(resamples=2), ())) == {}
