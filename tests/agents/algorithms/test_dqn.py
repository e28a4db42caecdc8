"""DQN: its targets, its settings, determinism, seeds side by side, and that it learns."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.algorithms.algorithm import LOG_POINTS
from agents.algorithms.dqn import DQN, DQNConfig
from agents.algorithms.replay import Batch
from agents.algorithms.rollout import Transition
from agents.evaluation.baselines import RandomPolicy
from agents.evaluation.sessions import fixed_sessions, run_sessions
from agents.runs.training import train_seeds
from jaxsim import InputError

SMALL = DQNConfig(
    total_steps=4 * 2 * LOG_POINTS, num_envs=4, rollout_length=2, width=8, batch_size=16,
    replay_steps=32, gradient_steps=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def dqn(learnable) -> DQN:
    return DQN(learnable.env, SMALL)


@pytest.fixture(scope="module")
def ten_iterations(dqn):
    def run(key, params):
        return dqn.iterations(dqn.init(key, params), params, 10)

    return jax.jit(run), jax.jit(jax.vmap(run, (0, None)))


def by_meaning(result):
    """Drop the PRNG key, which is no number."""
    state, account = result
    return state.replace(key=jax.random.key_data(state.key)), account


# ---- learning --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bellman_targets_against_numpy(learnable, dqn):
    """Masked targets, double or not; what a bootstrap counts is the batch's to say."""
    _, env, params = learnable
    state = dqn.init(jax.random.key(0), params)
    rng = np.random.default_rng(0)
    online, target = (
        jax.tree.map(lambda w: w + rng.standard_normal(w.shape, np.float32), state.variables)
        for _ in range(2)
    )
    state = state.replace(variables=online, target=target)
    # The online network's favourite is item 4, which the first two windows hold (2 to 5 and 4 to 7).
    bias = state.variables["params"]["item_bias"]
    state.variables["params"]["item_bias"] = bias.at[4].add(1000.0)
    next_obs, _ = jax.vmap(env.reset_user, (0, None))(jnp.arange(4), params)
    assert [4 in row for row in next_obs.items.tolist()] == [True, True, False, False]
    zeros = jnp.zeros(4, jnp.int32)
    transition = Transition(
        user=zeros, item=zeros, like=zeros.astype(jnp.int8), session_length=zeros,
        reward=zeros.astype(jnp.float32), terminated=zeros > 0, truncated=zeros > 0,
    )  # fmt: skip
    reward, weight = jnp.array([0.0, 1.0, 1.5, 0.0]), jnp.array([0.9, 0.0, 0.81, 0.9])
    batch = Batch(next_obs, transition, next_obs, reward, weight)
    single = DQN(env, dataclasses.replace(SMALL, double=False))
    actual = {True: dqn, False: single}
    actual = {
        kind: one.bellman_targets(state, batch, one.masks(batch.next_obs, params))
        for kind, one in actual.items()
    }

    online, target = (
        np.asarray(dqn.network.apply(w, next_obs)) for w in (state.variables, state.target)
    )
    for double, ranking in ((True, online), (False, target)):
        expected = []
        for row in range(4):
            window = {int(item) for item in next_obs.items[row] if item >= 0}
            allowed = [item for item in range(env.num_items) if item not in window]
            best = max(allowed, key=lambda item, row=row, by=ranking: by[row, item])
            expected.append(float(reward[row] + weight[row] * target[row, best]))
        np.testing.assert_allclose(actual[double], expected, rtol=1e-5)
    assert np.abs(actual[True] - actual[False]).max() > 1e-3


def test_exploration_anneals_linearly(learnable):
    config = DQNConfig(
        total_steps=100_000,
        exploration_initial_eps=0.9,
        exploration_final_eps=0.1,
        exploration_fraction=0.5,
    )
    dqn = DQN(learnable.env, config)
    half = config.num_iterations / 2
    actual = [float(dqn.exploration(jnp.float32(x * half))) for x in (0, 0.25, 0.5, 1, 1.5)]
    np.testing.assert_allclose(actual, [0.9, 0.7, 0.5, 0.1, 0.1], rtol=1e-5)


@pytest.mark.slow
def test_a_run_is_a_function_of_its_key(learnable, ten_iterations):
    one, _ = ten_iterations
    params = learnable.params
    first, again, other = (by_meaning(one(jax.random.key(k), params)) for k in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert first[0].iteration == 10
    assert first[0].replay.written == 10 * SMALL.rollout_length
    assert first[1][0].steps == 10 * SMALL.steps_per_iteration
    assert not np.array_equal(first[0].replay.stream.item, other[0].replay.stream.item)


@pytest.mark.slow
def test_seeds_side_by_side_are_seeds_alone(learnable, ten_iterations):
    one, several = ten_iterations
    keys = jax.random.split(jax.random.key(3), 2)
    both = by_meaning(several(keys, learnable.params))
    for row in range(2):
        alone = by_meaning(one(keys[row], learnable.params))
        mine = jax.tree.map(lambda x, row=row: x[row], both)
        chex.assert_trees_all_close(mine, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_it_recommends_only_what_is_allowed(learnable, ten_iterations):
    """No item twice in a session, and none of the initial history."""
    params = learnable.params
    state, _ = ten_iterations[0](jax.random.key(0), params)
    stream = jax.tree.map(np.asarray, state.replay.stream)
    for column in range(SMALL.num_envs):
        seen: set[int] = set()
        for step in range(int(state.replay.written)):
            user, length = stream.user[step, column], stream.session_length[step, column]
            if length == 0:
                seen = set(np.asarray(params.histories.items[user]).tolist())
            assert stream.item[step, column] not in seen
            seen.add(int(stream.item[step, column]))


@pytest.mark.slow
def test_it_learns_what_everyone_likes(learnable):
    _, env, params = learnable
    config = DQNConfig(
        total_steps=6000,
        num_envs=16,
        rollout_length=4,
        width=16,
        batch_size=64,
        replay_steps=512,
        gradient_steps=2,
    )
    training = train_seeds(DQN(env, config), params, seed=5, num_seeds=2)
    log = training.log
    assert sorted(set(log["seed"])) == [5, 6]
    assert len(log) == 2 * LOG_POINTS
    assert log["steps"].max() == training.steps == config.num_iterations * 64 >= 6000
    by_time = log.groupby("steps")["like_rate"].mean()
    assert by_time.iloc[0] < 0.65 < 0.9 < by_time.iloc[-3:].mean()
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=1)
    random = run_sessions(env, params, RandomPolicy(), sessions)
    trainer = DQN(env, config)
    for seed in range(2):
        policy = trainer.policy_of(jax.tree.map(lambda x, s=seed: x[s], training.variables))
        actual = run_sessions(env, params, policy, sessions)
        assert actual.liking.mean() > 0.95 > 0.65 > random.liking.mean()
        assert actual.returns.mean() > random.returns.mean()


# ---- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"total_steps": 0}, "total_steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"tau": 7.0}, "tau"),
        ({"exploration_fraction": 0.0}, "exploration_fraction"),
        ({"exploration_initial_eps": 3.0}, "exploration_initial_eps"),
        ({"num_envs": 0}, "num_envs"),
        ({"batch_size": 0}, "batch_size"),
        ({"gradient_steps": -1}, "gradient_steps"),
        ({"gamma": 1.0}, "gamma"),
        ({"gamma": -0.1}, "gamma"),
        ({"replay_steps": 30, "rollout_length": 4}, "multiple of rollout_length"),
        ({"replay_steps": 8}, "session capacity"),
        ({"replay_steps": 12, "n_steps": 3}, "session capacity and n_steps"),
        ({"total_steps": 10**12}, "32-bit counters"),
        ({"batch_size": 100, "num_envs": 64}, "multiple of num_envs"),
        ({"n_steps": 5, "rollout_length": 4}, "n_steps"),
        ({"num_envs": 2.5}, "num_envs"),
        ({"encoder": "lstm"}, "encoder"),
        ({"item_embedding": "random"}, "item_embedding"),
    ],
)
def test_settings_that_make_no_sense_are_refused(learnable, settings, name):
    with pytest.raises(InputError, match=name):
        DQN(learnable.env, DQNConfig(**settings))


def test_training_is_rounded_up_to_whole_logs():
    config = DQNConfig(total_steps=1, num_envs=4, rollout_length=2)
    assert (config.steps_per_iteration, config.num_iterations) == (8, LOG_POINTS)
    config = DQNConfig(total_steps=8 * LOG_POINTS + 1, num_envs=4, rollout_length=2)
    assert config.num_iterations == 2 * LOG_POINTS
