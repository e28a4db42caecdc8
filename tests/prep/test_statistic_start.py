"""Where f_sta's training starts: item rates, their prior, the label that is left out, running residuals."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit

from jaxsim.sasrec import SASRec
from prep.statistic_start import (
    STRENGTHS,
    complete,
    fit_coefficients,
    item_rates,
    prior_strength,
    residual_means,
    start_weights,
)

ITEMS, WIDTH, DECAYS = 6, 4, (0.8, 1.0)


def random_labels(seed, rows=60):
    rng = np.random.default_rng(seed)
    items = rng.integers(0, ITEMS - 1, rows).astype(np.int32)  # the last item has no rating
    return items, rng.integers(0, 2, rows).astype(np.int8)


def test_rates_by_hand():
    """Three likes and a dislike: the mean rate is (3 + 1) / (4 + 2), and items move from it by their ratings."""
    rates = item_rates(np.array([0, 0, 1, 1], np.int32), np.array([1, 1, 1, 0], np.int8), 3)
    mean, strength = float(rates.mean), float(rates.strength)
    assert mean == pytest.approx(2 / 3)
    expected = [(2 + strength * mean) / (2 + strength), (1 + strength * mean) / (2 + strength)]
    np.testing.assert_allclose(rates.rate[1:], [*expected, mean], rtol=1e-6)
    np.testing.assert_allclose(rates.log_odds, logit(rates.rate.astype(np.float64)), rtol=1e-5)
    assert rates.rate.dtype == rates.log_odds.dtype == rates.without_one.dtype == np.float32


@pytest.mark.parametrize("seed", range(3))
def test_a_training_label_is_left_out_of_its_own_rate(seed):
    """Log-odds plus correction are those of the other labels alone, with the same prior."""
    items, labels = random_labels(seed)
    rates = item_rates(items, labels, ITEMS)
    prior = float(rates.strength) * float(rates.mean), float(rates.strength) * (1 - rates.mean)
    for row, (item, label) in enumerate(zip(items, labels, strict=True)):
        others = (items == item) & (np.arange(len(items)) != row)
        likes, dislikes = (labels[others] == 1).sum(), (labels[others] == 0).sum()
        seen = rates.log_odds[item + 1] + rates.without_one[label, item + 1]
        assert seen == pytest.approx(np.log((likes + prior[0]) / (dislikes + prior[1])), abs=1e-5)


@pytest.mark.parametrize("labels", [np.ones(4, np.int8), np.zeros(4, np.int8)], ids=["1", "0"])
def test_labels_that_are_all_the_same_have_finite_rates(labels):
    rates = item_rates(np.arange(4, dtype=np.int32), labels, 5)
    assert all(np.isfinite(x).all() for x in rates)
    assert ((rates.rate > 0) & (rates.rate < 1)).all()


@pytest.mark.parametrize("strength", [2.0, 16.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_prior_is_as_strong_as_the_items_are_alike(strength, seed):
    """Likes drawn from Beta rates give a strength within a factor of two; items all alike, a strong one."""
    rng = np.random.default_rng([seed, 1])
    counts = rng.integers(1, 30, 3000).astype(np.float64)
    likes = rng.binomial(counts.astype(int), rng.beta(strength * 0.6, strength * 0.4, 3000))
    assert strength / 2 <= prior_strength(likes.astype(np.float64), counts, 0.6) <= 2 * strength
    alike = rng.binomial(counts.astype(int), 0.6).astype(np.float64)
    assert prior_strength(alike, counts, 0.6) > 100
    assert prior_strength(alike, counts, 0.6) in STRENGTHS


@pytest.mark.parametrize("seed", range(3))
def test_coefficients_are_those_that_drew_the_labels(seed):
    rng = np.random.default_rng([seed, 2])
    features, known = rng.standard_normal((20_000, 2)), rng.standard_normal(20_000)
    probability = expit(known + 0.5 + features @ [1.0, -2.0])
    labels = (rng.random(20_000) < probability).astype(np.int8)
    offset, coefficients = fit_coefficients(features, labels, known)
    np.testing.assert_allclose([offset, *coefficients], [0.5, 1.0, -2.0], atol=0.12)


@pytest.mark.parametrize("seed", range(3))
def test_the_model_starts_as_item_rates_and_residual_means(seed):
    """SASRec with the first weights gives, for a history of any length, the formula of the module."""
    rng = np.random.default_rng(seed)
    rates = item_rates(*random_labels(seed), ITEMS)
    model = SASRec(ITEMS, 2, window=8, width=WIDTH, num_blocks=1, decays=DECAYS)
    items, labels = (rng.integers(0, n, 8) for n in (ITEMS, 2))
    items, labels = items.astype(np.int32), labels.astype(np.int8)
    init = jax.jit(partial(model.init, method="next_logits"))
    drawn = dict(init(jax.random.key(seed), items, labels, jnp.int32(0))["params"])
    drawn.pop("item_rate")
    coefficients = np.array([1.5, -0.5])
    weights = complete(start_weights(drawn, 0.25, coefficients), jax.tree.map(jnp.asarray, rates))
    predict = jax.jit(partial(model.apply, method="next_logits"))
    actual = predict({"params": weights}, items, labels, jnp.int32(1))
    position = np.arange(8, dtype=np.int32)
    rows = np.tile(items, (8, 1)), np.tile(labels, (8, 1))
    means = residual_means(rates.rate, *rows, position, DECAYS)
    expected = rates.log_odds[items + 1] + 0.25 + means @ coefficients
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert actual[0] == pytest.approx(rates.log_odds[items[0] + 1] + 0.25, abs=1e-5)


def test_without_decays_the_model_starts_as_item_rates():
    rates = item_rates(*random_labels(0), ITEMS)
    model = SASRec(ITEMS, 2, window=8, width=WIDTH, num_blocks=1)
    items, labels = np.arange(5, dtype=np.int32), np.ones(5, np.int8)
    init = jax.jit(partial(model.init, method="next_logits"))
    drawn = init(jax.random.key(0), items, labels, jnp.int32(0))["params"]
    weights = complete(start_weights(drawn, 0.0, np.zeros(0)), jax.tree.map(jnp.asarray, rates))
    predict = jax.jit(partial(model.apply, method="next_logits"))
    actual = predict({"params": weights}, items, labels, jnp.int32(0))
    np.testing.assert_allclose(actual, rates.log_odds[items + 1], atol=1e-6)
