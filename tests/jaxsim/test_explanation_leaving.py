"""Explanations of leaving: the terms add up to the environment's own probability, for either response."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

import jaxsim
from jaxsim import InputError
from tests.conftest import allowed, simulator_of
from tests.departure_logs import with_departure
from tests.factory import random_dataset

TERMS = ["position", "obscurity", "same_category", "keyword_similarity", "satisfaction"]


@pytest.fixture(scope="module")
def dataset():
    return with_departure(random_dataset(0, num_users=9, window=20, width=4, num_blocks=1))


@pytest.mark.slow
@pytest.mark.parametrize("semantics", ["paper", "calibrated", "soft"])
def test_it_is_the_chance_of_the_step(dataset, semantics):
    """For the response that is drawn: the chance that `info` states, and the terms of `env.departure_of`."""
    _, env, params = simulator_of(dataset, semantics=semantics, departure="fitted")
    step_env = jax.jit(env.step_env)
    obs, state = env.reset_user(0, params)
    for t in range(3):
        action = allowed(env, obs, params, seed=t)
        before = obs
        obs, state, *_, info = step_env(jax.random.key(t), state, action, params)
        history = before.items, before.responses
        why = jaxsim.explain(dataset, env, params, *history, action, 0, position=t + 1)
        chances = {x.liked: x for x in why.leaving}
        mine = chances[bool(info["response"].like)]
        assert mine.probability == pytest.approx(float(info["departure_probability"]), abs=1e-6)
        assert [x.term for x in mine.terms] == TERMS
        terms = env.departure_of(state, params).log_odds
        for term in mine.terms:
            assert term.log_odds == pytest.approx(float(terms[term.term]), abs=1e-5)
        assert mine.log_odds == pytest.approx(sum(x.log_odds for x in mine.terms))
        assert mine.probability == pytest.approx(expit(mine.log_odds), abs=1e-6)
        assert f"Leaving after step {t + 1} of the session" in str(why)
        assert f"{mine.probability:.3f}" in str(why)
        assert why.to_dict()["leaving"][0]["position"] == t + 1


@pytest.fixture(scope="module")
def calibrated(dataset):
    return simulator_of(dataset, semantics="calibrated", departure="fitted")


def test_both_responses_are_shown_while_the_draw_is_open(calibrated):
    why = jaxsim.explain(*calibrated, [3, 7], [1, 0], 5, position=2)
    assert [x.liked for x in why.leaving] == [False, True]
    differing = {
        a.term
        for a, b in zip(*(x.terms for x in why.leaving), strict=True)
        if abs(a.log_odds - b.log_odds) > 1e-6
    }
    assert differing == {"satisfaction"}
    assert "if disliked" in str(why)
    drawn = jaxsim.explain(*calibrated, [3, 7], [1, 0], 5, key=jax.random.key(0), position=2)
    (after,) = drawn.leaving
    assert after == why.leaving[after.liked]
    assert after.liked == drawn.like
    first = jaxsim.explain(*calibrated, [], [], 5, position=jnp.int32(1))
    assert all(np.isfinite(x.log_odds) for x in first.leaving)


def test_without_a_position_it_says_nothing(calibrated):
    why = jaxsim.explain(*calibrated, [3, 7], [1, 0], 5)
    assert why.leaving == ()
    assert "Leaving" not in str(why)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        (0, "position is 0: give the step of the session, a whole number from 1"),
        (1.5, r"position is float.*\[\]: pass integers"),
        ([1], "position is .*, but needs 0 dimensions"),
    ],
)
def test_positions_that_are_none_are_refused(calibrated, position, message):
    with pytest.raises(InputError, match=message):
        jaxsim.explain(*calibrated, [3], [1], 5, position=position)


def test_a_position_needs_the_fitted_departure(dataset):
    simulator = simulator_of(dataset, semantics="calibrated")
    with pytest.raises(InputError, match=r"^position is about leaving, which is constant here"):
        jaxsim.explain(*simulator, [3], [1], 5, position=1)
