"""Choosing items: allowed ones alone, with the right probabilities, and the masked categorical's numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agents.algorithms.choice import (
    MASKED_LOGIT,
    best_allowed,
    draw_slate,
    draw_softmax,
    draw_weighted,
    entropy,
    epsilon_greedy,
    kl_divergence,
    mask_logits,
    random_allowed,
    score_of,
    slate_log_probability,
)

SIZE = 11


def drawn(weights, count=4000, seed=0) -> np.ndarray:
    keys = jax.random.split(jax.random.key(seed), count)
    actual = jax.vmap(draw_weighted, (0, None))(keys, jnp.asarray(weights, jnp.float32))
    assert actual.dtype == jnp.int32
    return np.bincount(actual, minlength=len(weights))


@pytest.mark.parametrize("size", [1, 2, 5, 16, 17, 1682])
def test_items_are_drawn_in_proportion_to_their_weights(size):
    weights = np.random.default_rng(size).exponential(size=size)
    weights[1::3] = 0
    counts = drawn(weights)
    assert (counts[weights == 0] == 0).all()
    expected = 4000 * weights / weights.sum()
    common = expected >= 5
    observed = [*counts[common], counts[~common].sum()]
    wanted = [*expected[common], expected[~common].sum()]
    kept = np.array(wanted) > 0
    if kept.sum() > 1:
        test = stats.chisquare(np.array(observed)[kept], np.array(wanted)[kept])
        assert test.pvalue > 1e-4


def test_random_allowed_is_uniform_over_what_is_allowed():
    mask = jnp.array([False, True, True, False, False, True, False, True, True, False])
    keys = jax.random.split(jax.random.key(0), 5000)
    counts = np.bincount(jax.vmap(random_allowed, (0, None))(keys, mask), minlength=10)
    assert (counts[~np.asarray(mask)] == 0).all()
    assert stats.chisquare(counts[np.asarray(mask)]).pvalue > 1e-4


@settings(deadline=None, max_examples=60)
@given(
    mask=st.lists(st.booleans(), min_size=SIZE, max_size=SIZE).filter(any),
    seed=st.integers(0, 2**31 - 1),
    scale=st.sampled_from([0.0, 1.0, 100.0, 1e6]),
)
def test_choices_are_allowed(mask, seed, scale):
    mask = np.array(mask)
    scores = scale * np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)
    key = jax.random.key(seed)
    assert mask[random_allowed(key, jnp.asarray(mask))]
    assert mask[draw_softmax(key, mask_logits(jnp.asarray(scores), jnp.asarray(mask)))]
    best = int(best_allowed(jnp.asarray(scores), jnp.asarray(mask)))
    assert mask[best]
    assert scores[best] == scores[mask].max()


def test_best_allowed_takes_the_first_of_equals():
    mask = jnp.array([False, True, True, True])
    assert best_allowed(jnp.array([9.0, 2.0, 5.0, 5.0]), mask) == 2
    assert best_allowed(jnp.array([9.0, -1e30, -2e30, -3e30]), mask) == 1


def test_a_draw_at_the_edge_still_has_weight(monkeypatch):
    """Rounding may aim at the sum or beyond: the last item with any weight is taken."""
    monkeypatch.setattr(jax.random, "uniform", lambda *_: jnp.float32(1.0))
    assert draw_weighted(jax.random.key(0), jnp.array([0.3, 0.7, 0.0, 0.0, 0.0])) == 1
    monkeypatch.setattr(jax.random, "uniform", lambda *_: jnp.float32(0.0))
    assert draw_weighted(jax.random.key(0), jnp.array([0.0, 0.0, 0.0, 0.2, 0.8])) == 3


def test_no_aim_chooses_what_has_no_weight(monkeypatch):
    """At every edge between blocks and items, and a rounding error to either side of it."""
    weights = np.random.default_rng(0).exponential(size=200).astype(np.float32)
    weights[np.random.default_rng(1).random(200) < 0.5] = 0
    edges = np.cumsum(weights, dtype=np.float64) / weights.sum(dtype=np.float64)
    edges = edges.astype(np.float32)
    aims = np.concatenate([np.nextafter(edges, 0), edges, np.nextafter(edges, 2), [0, 1]])
    monkeypatch.setattr(jax.random, "uniform", lambda aim, *_: aim)
    chosen = jax.vmap(draw_weighted, (0, None))(jnp.asarray(aims), jnp.asarray(weights))
    assert (weights[chosen] > 0).all()
    assert set(chosen.tolist()) == set(np.flatnonzero(weights).tolist())


def test_epsilon_is_the_chance_of_any_item():
    scores, mask = jnp.array([1.0, 9.0, 3.0, 2.0]), jnp.array([True, False, True, True])
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = jax.vmap(epsilon_greedy, (0, None, None, None))(keys, scores, mask, 0.3)
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]], [300, 2400, 300]).pvalue > 1e-4


def test_masked_distributions_against_scipy():
    rng = np.random.default_rng(0)
    logits, others = rng.standard_normal((2, 3, SIZE)).astype(np.float32)
    mask = rng.random((3, SIZE)) < 0.6
    mask[:, 0] = True
    log_p, log_q = (jax.nn.log_softmax(mask_logits(x, mask)) for x in (logits, others))
    for row in range(3):
        p, q = (np.exp(x[row][mask[row]].astype(np.float64)) for x in (logits, others))
        np.testing.assert_allclose(entropy(log_p)[row], stats.entropy(p), rtol=1e-5)
        np.testing.assert_allclose(kl_divergence(log_p, log_q)[row], stats.entropy(p, q), rtol=1e-4)
    assert (np.exp(log_p)[~mask] == 0).all()
    item = jnp.array([0, 0, 0])
    np.testing.assert_array_equal(score_of(log_p, item), log_p[:, 0])


def test_what_is_masked_gets_no_gradient():
    mask = jnp.array([True, False, True, True])

    def total(logits):
        log_p = jax.nn.log_softmax(mask_logits(logits, mask))
        return entropy(log_p) + log_p[0]

    gradient = jax.grad(total)(jnp.array([0.3, 50.0, -1.0, 2.0]))
    assert jnp.isfinite(gradient).all()
    assert gradient[1] == 0
    assert (gradient[jnp.array([0, 2, 3])] != 0).all()


# ---- slates ------------------------------------------------------------------------------------------------


def plackett_luce(weights, slate):
    """The probability of a slate in its order, one item after the other."""
    left, chance = np.sum(weights), 1.0
    for item in slate:
        chance *= weights[item] / left
        left -= weights[item]
    return chance


def test_probabilities_of_slates_are_those_of_drawing_one_after_the_other():
    """All slates of 3 of 5 allowed items; shifts of the logits do not matter."""
    weights = np.array([0.1, 2.0, 0.0, 0.5, 1.0, 7.0])
    mask = weights > 0
    logits = mask_logits(jnp.log(jnp.where(mask, weights, 1.0)) + 3, mask)
    slates = np.array(list(itertools.permutations(np.flatnonzero(mask), 3)), np.int32)
    rows = jnp.broadcast_to(logits, (len(slates), 6))
    found = jnp.exp(slate_log_probability(rows, slates))
    expected = np.array([plackett_luce(weights, slate) for slate in slates])
    np.testing.assert_allclose(expected.sum(), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    drawn = jax.jit(jax.vmap(lambda key: draw_slate(key, logits, 3)))
    for seed in range(3):
        many = np.asarray(drawn(jax.random.split(jax.random.key(seed), 20_000)))
        counts = [np.sum((many == slate).all(1)) for slate in slates]
        assert sum(counts) == len(many)
        assert stats.chisquare(counts, expected * len(many)).pvalue > 1e-5


def test_a_slate_of_one_item_has_the_softmax_s_probability():
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 2, (4, 7)), jnp.float32)
    items = jnp.asarray([0, 3, 6, 2], jnp.int32)
    one = slate_log_probability(logits, items[:, None])
    np.testing.assert_allclose(one, score_of(jax.nn.log_softmax(logits), items), rtol=1e-5)


def test_log_probabilities_of_certain_slates_are_finite_with_finite_gradients():
    logits = jnp.asarray([60.0, 30.0, 0.0, MASKED_LOGIT], jnp.float32)
    value, slope = jax.value_and_grad(slate_log_probability)(logits, jnp.asarray([0, 1, 2]))
    assert value == 0
    assert jnp.isfinite(slope).all()
    unlikely = slate_log_probability(logits, jnp.asarray([2, 1]))
    np.testing.assert_allclose(unlikely, -60 - 30, rtol=1e-5)
