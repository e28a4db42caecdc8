"""The choice from a slate: hand-worked numbers, a NumPy reference, and the best slate by brute force."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from jaxsim import slate_choice

DRAWS = 4000
draw_places = jax.jit(jax.vmap(slate_choice.draw_place, (0, None)))
draw_likes = jax.jit(jax.vmap(jax.random.bernoulli, (0, None)))
draw_uniform = jax.jit(jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32)))


@functools.partial(jax.jit, static_argnums=(1, 2))
def jitted(scores, slope=-1.0, none=0.0):
    return probabilities(scores, slope, none)


def probabilities(scores, slope=-1.0, none=0.0):
    scores = jnp.asarray(scores, jnp.float32)
    return slate_choice.choice_probabilities(slate_choice.utilities(scores, slope), none)


def reference(scores, slope, none):
    odds = np.exp(scores) * np.arange(1, len(scores) + 1) ** slope
    return np.append(odds, np.exp(none)) / (odds.sum() + np.exp(none))


@pytest.mark.parametrize(
    ("slope", "none", "expected"),
    [
        (-1.0, 0.0, [2 / 5, 2 / 5, 1 / 5]),  # the odds 2 and 4 count 2 and 4 / 2
        (0.0, 0.0, [2 / 7, 4 / 7, 1 / 7]),
        (1.0, 0.0, [2 / 11, 8 / 11, 1 / 11]),
        (-1.0, np.log(3), [2 / 7, 2 / 7, 3 / 7]),
    ],
)
def test_hand_worked_probabilities(slope, none, expected):
    np.testing.assert_allclose(probabilities(np.log([2, 4]), slope, none), expected, rtol=1e-6)


def test_probabilities_agree_with_numpy_eager_jitted_and_vmapped():
    scores = np.random.default_rng(0).normal(0, 3, (6, 5)).astype(np.float32)
    for slope, none in [(-1.0, 0.0), (0.4, -2.0)]:
        expected = [reference(row, slope, none) for row in scores.astype(np.float64)]
        eager = [probabilities(row, slope, none) for row in scores]
        np.testing.assert_allclose(eager, expected, rtol=2e-5)
        np.testing.assert_allclose([jitted(row, slope, none) for row in scores], eager, rtol=1e-5)
        vmapped = jax.vmap(lambda row, b=slope, o=none: jitted(row, b, o))(scores)
        np.testing.assert_allclose(vmapped, eager, rtol=1e-5)


def test_one_item_is_chosen_as_often_as_it_is_liked():
    """In the probability, and draw by draw with the same key."""
    p = jnp.asarray([0.001, 0.2, 0.5, 0.77, 0.999], jnp.float32)
    scores = slate_choice.log_odds(p)
    np.testing.assert_allclose(scores, logit(np.asarray(p, np.float64)), rtol=1e-4, atol=1e-6)
    keys = jax.random.split(jax.random.key(3), DRAWS)
    for x, score in zip(p, scores, strict=True):
        alone = jitted(score[None])
        np.testing.assert_allclose(alone, [x, 1 - x], atol=1e-6)
        place = draw_places(keys, alone)
        liked = draw_likes(keys, x)
        np.testing.assert_array_equal(place, jnp.where(liked, 0, -1))


def test_log_odds_are_finite():
    extreme = slate_choice.log_odds(jnp.asarray([0.0, 1.0], jnp.float32))
    assert np.isfinite(extreme).all()
    assert extreme[0] == -extreme[1] < -15


def test_places_are_drawn_with_their_probabilities():
    chance = probabilities([0.3, -0.5, 1.2])
    for seed in range(3):
        keys = jax.random.split(jax.random.key(seed), DRAWS)
        places = np.asarray(draw_places(keys, chance))
        counts = [np.sum(places == place) for place in (0, 1, 2, -1)]
        assert sum(counts) == DRAWS
        expected = np.asarray(chance, np.float64)  # sums to 1 up to the rounding of float32
        assert stats.chisquare(counts, expected / expected.sum() * DRAWS).pvalue > 1e-5
        uniform = draw_uniform(keys)
        by_hand = np.searchsorted(np.cumsum(chance[:-1]), uniform, side="right")
        np.testing.assert_array_equal(np.where(by_hand == 3, -1, by_hand), places)


def test_certain_choices():
    for place in range(4):
        chance = jnp.zeros(4, jnp.float32).at[place].set(1.0)
        keys = jax.random.split(jax.random.key(place), DRAWS)
        drawn = draw_places(keys, chance)
        assert set(drawn.tolist()) == {place if place < 3 else -1}


@pytest.mark.parametrize(
    ("utility", "place"), [([-1.0, -2.0], -1), ([-1.0, 0.5], 1), ([0.5, 0.5], 0), ([-1.0, 0.0], 1)]
)
def test_the_likeliest_place(utility, place):
    utility = jnp.asarray(utility, jnp.float32)
    assert slate_choice.likeliest_place(utility, 0.0) == place


def test_labels_of_examined_items_have_the_probability_of_the_item_alone():
    """Likes P(k) and dislikes P(none) w_k are in the ratio of p_k and 1 - p_k."""
    rng = np.random.default_rng(1)
    for slope, none in [(-1.0, 0.0), (-0.4, 0.0), (-0.4, 0.3), (0.0, 0.0)]:
        scores = rng.normal(0, 2, 5)
        chance = np.asarray(probabilities(scores, slope, none), np.float64)
        disliked = chance[-1] * np.asarray(slate_choice.examination(5, slope, none))
        np.testing.assert_allclose(chance[:-1] / (chance[:-1] + disliked), expit(scores), atol=1e-5)


@pytest.mark.parametrize(
    ("slope", "none", "most"), [(-1.0, 0.0, 3), (2.0, 0.0, 5), (-1.0, -3.0, 5), (-0.5, 1.5, 1)]
)
def test_places_are_examined_with_their_shares(slope, none, most):
    """Over a grid of u; H_5 = 2.28 is the sum of shares by default."""
    share = slate_choice.examination(5, slope, none)
    expected = np.minimum(np.exp(slope * np.log(np.arange(1, 6)) - none), 1)
    np.testing.assert_allclose(share, expected, rtol=1e-5)
    grid = (np.arange(2000, dtype=np.float32) + 0.5) / 2000
    taken = np.asarray(jax.vmap(slate_choice.draw_examined, (0, None))(jnp.asarray(grid), share))
    np.testing.assert_allclose(taken.mean(0), expected, atol=1e-3)
    counts = set(taken.sum(1).tolist())
    assert counts <= {np.floor(expected.sum()), np.ceil(expected.sum())}
    assert max(counts) == most == slate_choice.most_entries("examined", 5, slope, none)
    assert slate_choice.most_entries("top", 5, slope, none) == 1


@pytest.mark.parametrize("slope", [-1.0, -0.3, 0.0, 0.7])
def test_no_slate_is_better_than_the_best_slate(slope):
    """All ordered slates of the allowed items of small catalogues."""
    rng = np.random.default_rng(5)
    for _ in range(4):
        scores = rng.normal(0, 1.5, 6).astype(np.float32)
        mask = rng.permutation([True] * 5 + [False])
        best = slate_choice.best_slate(jnp.asarray(scores), jnp.asarray(mask), 3, slope)
        chosen = [
            1 - reference(scores[list(slate)], slope, 0.2)[-1]
            for slate in itertools.permutations(np.flatnonzero(mask), 3)
        ]
        assert best.dtype == jnp.int32
        assert mask[best].all()
        np.testing.assert_allclose(
            1 - reference(scores[np.asarray(best)], slope, 0.2)[-1], max(chosen), rtol=1e-6
        )
