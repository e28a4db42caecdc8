"""Baselines that show slates, in fixed sessions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.evaluation.sessions import fixed_sessions
from agents.evaluation.slates import RankedSlate, run_slates, slate_baselines
from tests.slates import K, with_rates


@pytest.fixture(scope="module")
def slates(dataset):
    return with_rates(dataset)


@pytest.fixture(scope="module")
def outcomes(slates):
    dataset, env, params = slates
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=6)
    policies = slate_baselines(dataset, env, params)
    return sessions, {name: run_slates(env, params, p, sessions) for name, p in policies.items()}


@pytest.mark.slow
def test_baselines_show_slates_in_every_step_of_every_session(outcomes):
    sessions, by_policy = outcomes
    assert list(by_policy) == ["random", "popular", "like_rate", "static_best", "oracle"]
    steps = int(sessions.durations.sum())
    for name, outcome in by_policy.items():
        assert outcome.places.sum() == steps, name
        assert outcome.shown.sum() == K * steps
        assert outcome.returns.sum() == outcome.places[:K].sum()
        assert (outcome.returns <= sessions.durations).all()
    assert (by_policy["random"].shown > 0).sum() > (by_policy["popular"].shown > 0).sum()


@pytest.mark.slow
def test_the_oracle_is_best(outcomes):
    """These users are all alike, so the best list for everyone is the oracle's."""
    means = {name: outcome.returns.mean() for name, outcome in outcomes[1].items()}
    assert means["oracle"] == means["static_best"] > means["random"] + 0.3
    assert means["oracle"] > max(means["popular"], means["like_rate"])


def test_a_ranking_shows_its_best_items_that_are_allowed(slates):
    _, env, params = slates
    obs, state = env.reset_user(jnp.int32(2), params)
    policy = RankedSlate(jnp.arange(env.num_items, dtype=jnp.float32))
    slate = policy.act(jax.random.key(0), env, obs, state, params)
    allowed = np.flatnonzero(env.action_mask(obs, params))
    np.testing.assert_array_equal(slate, allowed[::-1][:K])
