"""The baselines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.evaluation.baselines import (
    FixedRanking,
    Oracle,
    RandomPolicy,
    RepeatLastLiked,
    baselines,
    simulated_like_rate,
    training_counts,
)
from tests.conftest import CAPACITY, simulator_of
from tests.factory import make_dataset

# User 0's ten interactions: eight train, one validation, one test. User 1 has four: all train.
SEQUENCES = [
    ([0, 1, 2, 3, 0, 1, 2, 0, 3, 3], [1, 0, 1, 1, 1, 0, 0, 0, 1, 1]),
    ([0, 1, 4, 4], [1, 1, 0, 0]),
]
COUNTS = [4, 3, 2, 1, 2, 0]
LIKES = [3, 1, 1, 1, 0, 0]


@pytest.fixture(scope="module")
def counted():
    dataset = make_dataset([[0]] * 6, [[0]] * 6, [[1]] * 6, SEQUENCES, window=4)
    return simulator_of(dataset, history_length=2, session_capacity=2, users="train")


def test_baselines_count_training_interactions(counted):
    dataset, env, params = counted
    counts, likes = training_counts(dataset)
    assert counts.tolist() == COUNTS
    assert likes.tolist() == LIKES
    policies = baselines(dataset, env, params)
    assert list(policies) == ["random", "popular", "like_rate", "static_best", "oracle"]
    assert policies["popular"].scores.tolist() == COUNTS
    # The mean is 6 / 12; the smoothed rate (likes + 5 * 0.5) / (n + 5).
    expected = [5.5 / 9, 3.5 / 8, 3.5 / 7, 3.5 / 6, 2.5 / 7, 2.5 / 5]
    np.testing.assert_allclose(policies["like_rate"].scores, expected, rtol=1e-6)
    _, state = env.reset_user(jnp.int32(0), params)  # the only session user
    expected = env.expected_response(state, params)
    np.testing.assert_allclose(policies["static_best"].scores, expected, rtol=1e-6)


def test_fixed_rankings_go_down_the_list_past_the_window(counted):
    _, env, params = counted
    step = jax.jit(env.step_env)
    obs, state = jax.jit(env.reset_user)(jnp.int32(0), params)  # the latest two: 2, 0
    policy = FixedRanking(jnp.array(COUNTS, jnp.float32))
    expected = [1, 4]  # after 0 (4), 1 (3); 2 and 4 have two each, and 2 was seen
    for time, item in enumerate(expected):
        assert policy.act(jax.random.key(0), (), env, obs, state, params) == item
        obs, state, *_ = step(jax.random.key(time), state, jnp.int32(item), params)


def test_static_best_averages_over_training_users(simulator):
    _, env, params = simulator
    users = params.session_users[:7]
    reset, expected_response = jax.jit(env.reset_user), jax.jit(env.expected_response)
    expected = [expected_response(reset(user, params)[1], params) for user in users[:2]]
    rates = simulated_like_rate(env, params.replace(session_users=users[:2]))
    np.testing.assert_allclose(rates, np.mean(expected, axis=0), rtol=1e-6)


def test_repeat_last_liked(even_with_repeats):
    dataset, env, params = even_with_repeats
    assert "repeat_last_liked" in baselines(dataset, env, params)
    obs, state = jax.jit(env.reset_user)(params.session_users[0], params)
    act = jax.jit(RepeatLastLiked().act, static_argnums=2)
    for responses, expected in (([1, -1, 1, -1], 2), ([1, -1, -1, -1], 0), ([-1, 1, 1, 1], 3)):
        seen = obs.replace(
            responses=jnp.zeros_like(obs.responses).at[:4].set(jnp.array(responses, jnp.int8)),
            items=obs.items.at[:4].set(jnp.array([30, 31, 32, 33])),
        )
        assert act(jax.random.key(0), (), env, seen, state, params) == 30 + expected
    nothing = obs.replace(responses=-jnp.abs(obs.responses))
    items = {int(act(jax.random.key(k), (), env, nothing, state, params)) for k in range(20)}
    assert len(items) > 5


@pytest.mark.parametrize("semantics", ["paper", "released", "calibrated"])
def test_the_oracles_evidence_is_the_expected_response_from_scratch(dataset, semantics):
    _, env, params = simulator_of(dataset, semantics=semantics)
    policy = Oracle()
    obs, state = env.reset(jax.random.key(3), params)
    memory = policy.begin(env, obs, params)
    scratch, updated = jax.jit(env.expected_response), jax.jit(env.expected_likes)
    env_step, remember = jax.jit(env.step_env), jax.jit(policy.remember)
    for step in range(CAPACITY):
        expected = np.asarray(scratch(state, params))
        np.testing.assert_array_equal(updated(memory, state, params), expected)
        item = policy.act(jax.random.key(0), memory, env, obs, state, params)
        mask = np.asarray(env.action_mask(obs, params))
        assert mask[item]
        assert expected[item] == expected[mask].max()
        item = jnp.int32(np.flatnonzero(mask)[step])  # not the best, so that both responses occur
        obs, state, reward, *_ = env_step(jax.random.key(step), state, item, params)
        memory = remember(memory, item, reward.astype(jnp.int8), params)


@pytest.mark.slow  # two compilations
def test_the_simulated_like_rate_is_the_mean_over_drawn_tastes(dataset):
    rates = [
        simulated_like_rate(env, params)
        for _, env, params in (
            simulator_of(dataset, semantics="soft", taste=kind) for kind in ("posterior", "latent")
        )
    ]
    np.testing.assert_array_equal(*rates)


def test_policies_of_different_types_are_different_to_jit():
    """Treedefs of dataclasses are equal if their static fields are, whatever the type."""
    trees = [jax.tree.structure(policy) for policy in (RandomPolicy(), Oracle(), RepeatLastLiked())]
    assert all(a != b for i, a in enumerate(trees) for b in trees[:i])
