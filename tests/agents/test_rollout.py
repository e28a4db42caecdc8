"""Choosing items, collecting experience, and rebuilding observations from what was recorded."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from agents import replay as replay_memory
from agents.rollout import best_allowed, collect, random_allowed, start_sessions
from tests.conftest import CAPACITY

NUM_ENVS, STEPS = 3, 4


# ---- choosing --------------------------------------------------------------------------------------------


def test_random_allowed_is_uniform_over_what_is_allowed():
    mask = jnp.array([False, True, True, False, False, True, False, True, True, False])
    keys = jax.random.split(jax.random.key(0), 5000)
    drawn = jax.vmap(random_allowed, (0, None))(keys, mask)
    assert drawn.dtype == jnp.int32
    counts = np.bincount(drawn, minlength=10)
    assert (counts[~mask] == 0).all()
    assert stats.chisquare(counts[mask]).pvalue > 1e-4


@settings(deadline=None, max_examples=50)
@given(
    mask=st.lists(st.booleans(), min_size=8, max_size=8).filter(any), seed=st.integers(0, 2**31 - 1)
)
def test_choices_are_allowed(mask, seed):
    mask = np.array(mask)
    scores = np.random.default_rng(seed).standard_normal(8).astype(np.float32)
    assert mask[random_allowed(jax.random.key(seed), jnp.asarray(mask))]
    best = int(best_allowed(jnp.asarray(scores), jnp.asarray(mask)))
    assert mask[best]
    assert scores[best] == scores[mask].max()


def test_best_allowed_takes_the_first_of_equals():
    mask = jnp.array([False, True, True, True])
    assert best_allowed(jnp.array([9.0, 2.0, 5.0, 5.0]), mask) == 2
    assert best_allowed(jnp.array([9.0, -1e30, -2e30, -3e30]), mask) == 1


# ---- collecting ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experience(simulator):
    """40 rollouts of 4 steps: each the sessions before it and after it, transitions and totals."""
    _, env, params = simulator
    params = params.replace(departure_probability=jnp.float32(0.1))

    @jax.jit
    def roll(key, sessions, params):
        def act(key, obs):
            return random_allowed(key, env.action_mask(obs, params))

        return collect(key, env, params, sessions, act, STEPS)

    sessions = start_sessions(jax.random.key(1), env, params, NUM_ENVS)
    rollouts = []
    for step in range(40):
        after, transitions, totals = roll(jax.random.key(step), sessions, params)
        rollouts.append((sessions, after, transitions, totals))
        sessions = after
    return env, params, rollouts


def joined(rollouts):
    return jax.tree.map(
        lambda *x: np.concatenate(x), *(transitions for _, _, transitions, _ in rollouts)
    )


def test_transitions_continue_from_step_to_step(experience):
    _, _, rollouts = experience
    stream = joined(rollouts)
    done = stream.terminated | stream.truncated
    assert stream.terminated.sum() > 10
    assert stream.truncated.sum() >= 1
    expected = np.where(done[:-1], 0, stream.session_length[:-1] + 1)
    np.testing.assert_array_equal(stream.session_length[1:], expected)
    same_session = ~done[:-1]
    np.testing.assert_array_equal(stream.user[1:][same_session], stream.user[:-1][same_session])
    np.testing.assert_array_equal(stream.truncated, stream.session_length == CAPACITY - 1)
    np.testing.assert_array_equal(stream.reward, stream.like)


def test_totals_are_the_account_of_the_sessions(experience):
    _, _, rollouts = experience
    running = np.zeros(NUM_ENVS)
    for before, after, transitions, totals in rollouts:
        np.testing.assert_array_equal(before.running_return, running)
        finished, finished_return = 0, 0.0
        done = np.asarray(transitions.terminated | transitions.truncated)
        for step in range(STEPS):
            running = running + np.asarray(transitions.reward[step])
            finished += done[step].sum()
            finished_return += running[done[step]].sum()
            running = np.where(done[step], 0, running)
        assert totals.steps == STEPS * NUM_ENVS
        assert totals.reward == transitions.reward.sum()
        assert (totals.finished, totals.finished_return) == (finished, finished_return)
        np.testing.assert_array_equal(after.running_return, running)
        means = totals.means()
        assert means["like_rate"] == totals.reward / totals.steps
        assert np.isnan(means["session_return"]) == (finished == 0)
        if finished:
            assert means["session_return"] == totals.finished_return / finished


# ---- replay ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(simulator):
    """A stream of 200 steps [T, B], and the observation seen before each of them."""
    _, env, params = simulator
    params = params.replace(departure_probability=jnp.float32(0.1))

    def one_step(sessions, key):
        def act(key, obs):
            return random_allowed(key, env.action_mask(obs, params))

        after, transitions, _ = collect(key, env, params, sessions, act, 1)
        return after, (sessions.obs, jax.tree.map(lambda x: x[0], transitions))

    start = start_sessions(jax.random.key(1), env, params, NUM_ENVS)
    keys = jax.random.split(jax.random.key(2), 200)
    seen, stream = jax.jit(lambda s, k: jax.lax.scan(one_step, s, k)[1])(start, keys)
    # The number of the step takes the place of the reward, which rebuilding does not read.
    numbered = jnp.arange(200.0 * NUM_ENVS).reshape(200, NUM_ENVS)
    return env, params, seen, stream.replace(reward=numbered)


@pytest.mark.parametrize("capacity", [16, 64, 200], ids=["wraps often", "wraps", "holds all"])
def test_sampled_observations_are_those_that_were_seen(recorded, capacity):
    env, params, seen, stream = recorded
    assert capacity > CAPACITY
    replay = replay_memory.empty_replay(capacity, NUM_ENVS)
    for start in range(0, 200, STEPS):
        block = jax.tree.map(lambda x, s=start: x[s : s + STEPS], stream)
        replay = replay_memory.add(replay, block)
    assert replay.written == 200
    sample = jax.jit(lambda key, replay: replay_memory.sample(key, replay, env, params, 3000))
    batch = sample(jax.random.key(0), replay)
    number = np.asarray(batch.transition.reward).astype(int)
    step, column = number // NUM_ENVS, number % NUM_ENVS

    chex.assert_trees_all_equal(batch.obs, jax.tree.map(lambda x: x[step, column], seen))
    chex.assert_trees_all_equal(batch.transition, jax.tree.map(lambda x: x[step, column], stream))
    row, end = np.arange(3000), np.asarray(batch.obs.length)
    np.testing.assert_array_equal(batch.next_obs.length, end + 1)
    after = batch.obs.items.at[row, end].set(batch.transition.item)
    np.testing.assert_array_equal(batch.next_obs.items, after)
    responses = batch.obs.responses.at[row, end].set(2 * batch.transition.like - 1)
    np.testing.assert_array_equal(batch.next_obs.responses, responses)

    # Drawn uniformly from the steps that are whole.
    first = 0 if capacity == 200 else 200 - capacity + CAPACITY
    counts = np.bincount(number, minlength=200 * NUM_ENVS)
    assert (counts[: first * NUM_ENVS] == 0).all()
    assert stats.chisquare(counts[first * NUM_ENVS :]).pvalue > 1e-4


def test_rollouts_must_divide_the_ring(recorded):
    *_, stream = recorded
    with pytest.raises(AssertionError, match="divide"):
        replay_memory.add(replay_memory.empty_replay(7, NUM_ENVS), stream)
