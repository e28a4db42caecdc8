"""Collecting experience, and rebuilding observations from what was recorded."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from agents.algorithms import replay as replay_memory
from agents.algorithms.choice import random_allowed
from agents.algorithms.rollout import collect, start_sessions, value_where
from tests.conftest import CAPACITY

NUM_ENVS, STEPS = 3, 4


def at_random(env, params):
    def act(keys, obs):
        masks = jax.vmap(env.action_mask, (0, None))(obs, params)
        return jax.vmap(random_allowed)(keys, masks), obs.length

    return act


def worth(obs):
    """A value that tells observations apart."""
    return obs.items.sum(axis=-1) + 1000.0 * obs.length


# ---- collecting ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experience(simulator):
    """40 rollouts of 4 steps: each the sessions before it and after it, transitions and totals."""
    _, env, params = simulator
    params = params.replace(departure_probability=jnp.float32(0.1))

    @jax.jit
    def roll(key, sessions, params):
        return collect(
            key, env, params, sessions, at_random(env, params), STEPS, value=worth, keep_obs=True
        )

    sessions = start_sessions(jax.random.key(1), env, params, NUM_ENVS)
    rollouts = []
    for step in range(40):
        after, rollout, totals = roll(jax.random.key(step), sessions, params)
        rollouts.append((sessions, after, rollout, totals))
        sessions = after
    return env, params, rollouts


def joined(rollouts):
    return jax.tree.map(lambda *x: np.concatenate(x), *(rollout for _, _, rollout, _ in rollouts))


def test_transitions_continue_from_step_to_step(experience):
    _, _, rollouts = experience
    stream = joined(rollouts).transitions
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
    for before, after, rollout, totals in rollouts:
        transitions = rollout.transitions
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


def test_what_the_agent_saw_is_kept_with_what_it_noted(experience):
    _, _, rollouts = experience
    rollout = joined(rollouts)
    np.testing.assert_array_equal(rollout.obs.length, rollout.extras)
    np.testing.assert_array_equal(rollout.obs.user, rollout.transitions.user)
    own = rollout.obs.length - rollout.transitions.session_length
    first = np.flatnonzero(rollout.transitions.session_length[:, 0] == 0)
    assert (rollout.obs.length[first, 0] == own[first, 0]).all()


def test_final_values_are_those_of_the_last_windows_and_only_where_truncated(experience):
    """The window after the last step is that before it with one more item; it is not the next row's."""
    _, _, rollouts = experience
    rollout = joined(rollouts)
    steps = rollout.transitions
    expected = np.where(steps.truncated, worth(rollout.obs) + steps.item + 1 + 1000.0, 0.0)
    np.testing.assert_allclose(rollout.final_value, expected)


@pytest.mark.parametrize("ended", [0, 1, 5, 9])
def test_values_are_worked_out_only_where_they_are_asked_for(ended):
    obs = jnp.arange(9.0)
    truncated = jnp.isin(jnp.arange(9), jax.random.permutation(jax.random.key(0), 9)[:ended])
    actual = value_where(truncated, obs, lambda x: x + 10)
    np.testing.assert_array_equal(actual, jnp.where(truncated, obs + 10, 0))
    several = jax.vmap(lambda mask: value_where(mask, obs, lambda x: x + 10))(
        jnp.stack([truncated, ~truncated])
    )
    np.testing.assert_array_equal(several[1], jnp.where(truncated, 0, obs + 10))


# ---- replay ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(simulator):
    """A stream of 200 steps [T, B], and the observation seen before each of them."""
    _, env, params = simulator
    params = params.replace(departure_probability=jnp.float32(0.1))

    def one_step(sessions, key):
        after, rollout, _ = collect(key, env, params, sessions, at_random(env, params), 1)
        return after, (sessions.obs, jax.tree.map(lambda x: x[0], rollout.transitions))

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


@pytest.mark.parametrize("n_steps", [2, 4])
def test_n_step_returns_are_a_plain_loop(recorded, n_steps):
    """Rewards of n steps or up to the end, what is seen then, and no bootstrap once the user left."""
    env, params, seen, stream = recorded
    replay = replay_memory.Replay(stream, jnp.int32(200))
    sample = jax.jit(lambda key: replay_memory.sample(key, replay, env, params, 600, n_steps, 0.5))
    batch = jax.device_get(sample(jax.random.key(0)))
    stream, seen = jax.device_get((stream, seen))
    endings = set()
    for row in range(600):
        step, column = divmod(int(batch.transition.reward[row]), NUM_ENVS)
        assert step <= 200 - n_steps
        reward, weight, left = 0.0, 1.0, False
        for ahead in range(step, step + n_steps):
            reward += weight * stream.reward[ahead, column]
            weight *= 0.5
            left = bool(stream.terminated[ahead, column])
            if left or stream.truncated[ahead, column]:
                break
        np.testing.assert_allclose(batch.reward[row], reward)
        np.testing.assert_allclose(batch.discount[row], 0.0 if left else weight)
        assert batch.next_obs.length[row] == seen.length[step, column] + ahead + 1 - step
        last = batch.next_obs.length[row] - 1
        assert batch.next_obs.items[row, last] == stream.item[ahead, column]
        endings.add((left, bool(stream.truncated[ahead, column])))
    assert {(True, False), (False, True), (False, False)} <= endings


def test_a_batch_is_spread_over_the_streams(recorded):
    env, params, _, stream = recorded
    replay = replay_memory.Replay(stream, jnp.int32(200))

    @partial(jax.jit, static_argnums=1)
    def columns(key, size):
        batch = replay_memory.sample(key, replay, env, params, size)
        return batch.transition.reward.astype(int) % NUM_ENVS

    for size, expected in ((6, [0, 0, 1, 1, 2, 2]), (3, [0, 1, 2])):
        np.testing.assert_array_equal(columns(jax.random.key(0), size), expected)
    assert {int(columns(jax.random.key(seed), 1)[0]) for seed in range(12)} == {0, 1, 2}


def test_rollouts_must_divide_the_ring(recorded):
    *_, stream = recorded
    with pytest.raises(AssertionError, match="divide"):
        replay_memory.add(replay_memory.empty_replay(7, NUM_ENVS), stream)
