"""Evaluation where the departure is fitted: paired sessions, and the planner."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.evaluation.baselines import FixedRanking
from agents.evaluation.oracle import Oracle
from agents.evaluation.planning import Menu, leaving, plan, values
from agents.evaluation.sessions import fixed_sessions, run_sessions
from jaxsim.departure import RECENT
from tests.agents.conftest import learnable_dataset
from tests.agents.evaluation.conftest import SETTINGS
from tests.conftest import simulator_of
from tests.departure_logs import with_departure


@pytest.fixture(scope="module")
def fickle():
    """Everyone likes the even items; obscure items make users leave."""
    dataset = with_departure(learnable_dataset(20), {"obscurity": 1.5}, base=(-2.0, -2.5))
    return simulator_of(dataset, departure="fitted", **SETTINGS)


@pytest.mark.slow
def test_sessions_end_at_the_first_number_below_the_hazard(fickle):
    """Against a plain loop over the steps of each session."""
    _, env, params = fickle
    policy = FixedRanking(jnp.cos(jnp.arange(env.num_items, dtype=jnp.float32)))
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=2)
    assert (sessions.durations == env.session_capacity).all()
    outcome = run_sessions(env, params, policy, sessions)
    step_env, act = jax.jit(env.step_env), jax.jit(policy.act, static_argnums=2)
    for row in range(0, len(sessions.users), 3):
        key, likes = sessions.keys[row], 0
        obs, state = env.reset_user(sessions.users[row], params)
        for time in range(env.session_capacity):
            key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
            item = act(key_policy, (), env, obs, state, params)
            obs, state, _, _, info = step_env(key_env, state, item, params)
            likes += int(info["response"].like)
            number = jax.random.uniform(jax.random.split(key_env)[1], (), jnp.float32)
            if number < info["departure_probability"]:
                break
        assert outcome.steps[row] == time + 1
        assert outcome.returns[row] == likes
    assert outcome.recommended.sum() == outcome.steps.sum()
    assert 1 < outcome.steps.mean() < env.session_capacity


@pytest.mark.slow
def test_the_planner_earns_more_than_the_one_step_oracle(fickle):
    """All even items are as good for the one-step oracle; the planner takes those that keep the user."""
    _, env, params = fickle
    sessions = fixed_sessions(jax.random.key(1), env, params, repeats=12)
    oracle, planner = (
        run_sessions(env, params, policy, sessions) for policy in (Oracle(), plan(env, params))
    )
    assert planner.returns.mean() > 1.1 * oracle.returns.mean()
    assert planner.steps.mean() > oracle.steps.mean()


def test_values_are_those_of_all_sequences(fickle):
    """The best of all sequences of choices over a short horizon, on a fine grid."""
    _, _, params = fickle
    menu = Menu(jnp.array([-4.0, -1.0, 0.0]), jnp.array([0.3, 0.6, 0.9]))
    grid = jnp.linspace(-4, 0, 801, dtype=jnp.float32)
    value = np.asarray(jax.jit(values, static_argnums=3)(params.departure, menu, grid, 4))
    assert value.shape == (4, 801)
    np.testing.assert_array_equal(value[3], 0)

    def worth(choices, start):
        x, alive, total = start, 1.0, 0.0
        for choice in choices:
            total += alive * float(menu.response[choice])
            x += (float(menu.obscurity[choice]) - x) / RECENT
            chance = 1.5 * np.clip((x + 2.0) / 1.2, -2, 2) - 2.5
            alive *= 1 - 1 / (1 + np.exp(-chance))
        return total

    for start in (0, 300, 800):
        best = max(worth(c, float(grid[start])) for c in itertools.product(range(3), repeat=3))
        np.testing.assert_allclose(value[0, start], best, atol=2e-3)
    chance = leaving(params.departure, jnp.int32(1), jnp.array([-2.0, 10.0]))
    np.testing.assert_allclose(chance, 1 / (1 + np.exp([2.0, -1.0])), rtol=1e-5)


@pytest.mark.slow
def test_without_an_effect_of_items_planning_is_the_one_step_oracle():
    dataset = with_departure(learnable_dataset(20), {}, base=(-2.0,))
    _, env, params = simulator_of(dataset, departure="fitted", **SETTINGS)
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=2)
    oracle, planner = (
        run_sessions(env, params, p, sessions) for p in (Oracle(), plan(env, params))
    )
    np.testing.assert_array_equal(planner.returns, oracle.returns)
    np.testing.assert_array_equal(planner.steps, oracle.steps)
