"""The fits of ratings and durations: parameters are found again, scales are chosen, test values are not read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsim.dataset import TEST
from jaxsim.ensemble import Decision, Response
from jaxsim.signal_params import duration_head, rating_head
from jaxsim.signals import Context, Signals, answer
from prep.ordered_logit import fit_ordered_logit, level_probabilities
from prep.signal_model import Durations, least_squares, train_signals
from prep.synthetic import SyntheticConfig, make_synthetic
from prep.taste_model import TasteTraining, train_taste
from tests.signals_factory import DURATION, RATING

SEEDS, DRAWS = 10, 8000
WEIGHTS, THRESHOLDS = RATING["weights"], RATING["thresholds"]


def drawn(seed: int, duration=DURATION) -> tuple[np.ndarray, Response]:
    """Item means, tastes and log-odds float64[E, 3], and the responses that the simulator draws from them."""
    rng = np.random.default_rng(seed)
    item, odds = rng.normal(3.4, 0.5, DRAWS), rng.normal(0, 1.2, DRAWS)
    taste = 0.5 * odds + rng.normal(0, 0.7, DRAWS)
    item, taste, odds = (x.astype(np.float32) for x in (item, taste, odds))

    def one(key, index, taste, odds):
        signals = Signals(rating_head(RATING, item), duration_head(duration, item))
        probability = jax.nn.sigmoid(odds)
        like = jax.random.bernoulli(key, probability).astype(jnp.int8)
        decision = Decision(jnp.float32(like), Response(like), probability)
        context = Context(index, odds, jnp.stack([taste, taste]))
        return answer(key, signals, "calibrated", context, decision).response

    keys = jax.random.split(jax.random.key(seed), DRAWS)
    response = jax.jit(jax.vmap(one))(keys, jnp.arange(DRAWS, dtype=jnp.int32), taste, odds)
    return np.stack([item, taste, odds], axis=1).astype(np.float64), response


@pytest.mark.slow
def test_parameters_of_ratings_and_durations_are_recovered():
    """Weights, thresholds, and deviation lie within two standard errors in about 95 of 100 cases."""
    of_ratings, of_durations = [], []
    for seed in range(SEEDS):
        features, response = drawn(seed)
        level = np.asarray(response.rating).astype(int) - 1
        fit = fit_ordered_logit(features, level, 3, np.array([-1.0, 0.0, 1.0, 2.0]))
        found = np.concatenate([fit.weights, fit.thresholds])
        of_ratings.append((found - [*WEIGHTS, *THRESHOLDS]) / fit.errors)
        columns = np.column_stack([np.ones(DRAWS), features, np.asarray(response.like)])
        weights, deviation, errors = least_squares(
            columns, np.log(np.asarray(response.duration, np.float64)), slice(None)
        )
        found = np.array([*weights, deviation])
        of_durations.append((found - [*DURATION["weights"], DURATION["deviation"]]) / errors)
    for distances in (np.array(of_ratings), np.array(of_durations)):
        # 60 or 70 distances; those of one seed depend on each other.
        assert (np.abs(distances) < 2).mean() > 0.85
        assert np.abs(distances.mean(axis=0)).max() < 4 / SEEDS**0.5


def test_the_slope_is_that_of_the_loss():
    rng = np.random.default_rng(0)
    from prep.ordered_logit import _Problem

    problem = _Problem(rng.normal(size=(50, 2)), rng.integers(0, 5, 50), 2, 5)
    vector = rng.normal(size=6)
    value, slope = problem.loss(vector)
    steps = 1e-6 * np.eye(6)
    numeric = [(problem.loss(vector + h)[0] - problem.loss(vector - h)[0]) / 2e-6 for h in steps]
    np.testing.assert_allclose(slope, numeric, rtol=1e-4, atol=1e-4)
    assert np.isfinite(problem.loss(np.full(6, 30.0))[0])
    assert np.isfinite(value)


def test_probabilities_agree_with_the_simulator():
    head = rating_head(RATING, np.array([3.3], np.float32))
    context = Context(jnp.int32(0), jnp.float32(0.4), jnp.zeros(1, jnp.float32))
    there = head.probabilities(context, jnp.float32(0.2), jnp.float32(0.6))
    score = np.array([2.0 * 3.3 + 1.5 * 0.2 - 0.3 * 0.4])
    here = level_probabilities(score, np.array(THRESHOLDS), 3, np.array([0.6]))
    np.testing.assert_allclose(there, here[0], rtol=1e-5)


@pytest.fixture(scope="module")
def synthetic():
    config = SyntheticConfig(users=150, items=100, topics=8, interactions_per_user=20, dimension=8)
    arrays = make_synthetic(config).arrays
    years = np.full(len(arrays["item_categories"]), np.nan, np.float32)
    settings = TasteTraining(iterations=0, covariance_rank=2)
    return arrays, *train_taste(arrays, years, settings)


def fit(synthetic, ratings=None, threshold=1.0, durations=None):
    arrays, taste_arrays, taste = synthetic
    if ratings is not None:
        arrays = {**arrays, "interaction_rating": ratings.astype(np.float32)}
    return train_signals(arrays, taste_arrays, taste, threshold, durations)


def stars(arrays) -> np.ndarray:
    rng, label = np.random.default_rng(0), arrays["interaction_label"]
    return np.where(label == 1, rng.integers(4, 6, len(label)), rng.integers(1, 4, len(label)))


def test_with_two_ratings_the_like_says_it_all(synthetic):
    _, entry = fit(synthetic)
    assert entry["rating"]["levels"] == [0.0, 1.0]
    assert entry["rating"]["weights"] == [0.0, 0.0, 0.0]
    assert entry["rating"]["steps"] == 0


def test_test_values_are_not_read(synthetic):
    arrays = synthetic[0]
    ratings, rng = stars(arrays), np.random.default_rng(1)
    lengths = np.exp(rng.normal(size=len(ratings))).astype(np.float32)
    first = fit(synthetic, ratings, 4.0, Durations(lengths, "seconds", False))
    test = arrays["interaction_split"] == TEST
    changed = np.where(test, 5, ratings)
    second = fit(
        synthetic,
        changed,
        4.0,
        Durations(np.where(test, 9, lengths).astype(np.float32), "seconds", False),
    )
    assert first[1] == second[1]
    np.testing.assert_array_equal(first[0]["item_rating"], second[0]["item_rating"])
    np.testing.assert_array_equal(first[0]["item_log_duration"], second[0]["item_log_duration"])


def test_why_there_is_no_model_of_ratings(synthetic):
    many = np.random.default_rng(0).random(len(synthetic[0]["interaction_rating"])) + 0.5
    assert "are no scale of at most 21" in fit(synthetic, many)[1]["no_rating"]
    lengths = Durations(many.astype(np.float32), "hours", True)
    arrays, entry = fit(synthetic, many, 1.0, lengths)
    assert "those of durations" in entry["no_rating"]
    assert entry["duration"]["like_threshold"] == 1.0
    assert entry["duration"]["weights"][-1] == 0.0
    assert set(arrays) == {"item_log_duration", "interaction_duration"}
