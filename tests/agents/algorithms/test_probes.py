"""Every agent solves tiny environments whose answers are known; one compilation an agent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.algorithms.choice import best_allowed
from agents.algorithms.registry import ALGORITHMS
from agents.algorithms.rollout import collect, start_sessions
from tests.agents.algorithms.probes import CAPACITY, PROBES, ProbeEnv

DISCOUNT = 0.8
COMMON = {"num_envs": 16, "width": 16, "discount": DISCOUNT, "learning_rate": 1e-2}
SETTINGS = {
    "ppo": {
        "num_envs": 32, "total_steps": 40_000, "rollout_length": 8, "entropy_weight": 0.02,
    },
    "a2c": {
        "total_steps": 80_000, "rollout_length": 4, "entropy_weight": 0.05, "learning_rate": 2e-2,
        "value_weight": 1.0,
    },
    "trpo": {"total_steps": 40_000, "rollout_length": 8, "max_kl": 0.05, "critic_epochs": 40},
    "dqn": {
        "num_envs": 32, "total_steps": 40_000, "batch_size": 128, "replay_steps": 512,
        "target_rate": 0.05,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=SETTINGS)
def solved(request):
    """By probe: mean return of the greedy policy, and values before each of the steps of a session."""
    config_type, kind = ALGORITHMS[request.param]
    agent = kind(ProbeEnv(), config_type(**{**COMMON, **SETTINGS[request.param]}))

    def solve(params):
        state = agent.train(jax.random.key(0), params)

        def act(keys, obs):
            masks = jax.vmap(agent.env.action_mask, (0, None))(obs, params)
            scores, values = agent.network.apply(state.variables, obs, method="logits_and_value")
            if request.param == "dqn":
                values = jnp.where(masks, scores + values[:, None], -jnp.inf).max(axis=1)
            return jax.vmap(best_allowed)(scores, masks), values

        sessions = start_sessions(jax.random.key(1), agent.env, params, 64)
        _, rollout, _ = collect(
            jax.random.key(2), agent.env, params, sessions, act, CAPACITY, keep_obs=True
        )
        return rollout

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *PROBES.values())
    rollouts = jax.device_get(jax.jit(jax.vmap(solve))(stacked))
    return {
        name: jax.tree.map(lambda x, index=index: x[index], rollouts)
        for index, name in enumerate(PROBES)
    }


def test_a_constant_reward_under_a_cap_is_worth_the_geometric_series(solved):
    values = solved["constant"].extras
    np.testing.assert_allclose(values, 1 / (1 - DISCOUNT), rtol=0.1)


def test_a_user_who_leaves_is_worth_what_is_left(solved):
    left = CAPACITY - np.arange(CAPACITY)
    expected = (1 - DISCOUNT**left) / (1 - DISCOUNT)
    # TRPO's critic reads an encoder that it may not train, so it is the least exact.
    np.testing.assert_allclose(solved["finite"].extras.mean(axis=1), expected, rtol=0.25)


def test_the_best_arm_is_found(solved):
    rollout = solved["bandit"]
    assert (rollout.transitions.item == 3).all()
    np.testing.assert_allclose(rollout.extras, 1.0, rtol=0.1)


def test_a_response_is_remembered(solved):
    steps = solved["memory"].transitions
    second = steps.session_length == 1
    assert second.sum() == 2 * 64
    assert (steps.reward[second] == 1).all()


def test_the_best_allowed_item_is_taken(solved):
    rollout = solved["masked"]
    steps, held = rollout.transitions, rollout.obs.items[..., 0] == 0
    first = steps.session_length == 0
    assert {0, 1} == set(held[first].tolist())
    assert (steps.item[first & ~held] == 0).all()
    assert (steps.item[first & held] == 1).all()
    assert (steps.item[~first & (rollout.obs.length == 1)] == 1).all()
    # A target that took the masked item for best would be worth 1 + gamma.
    np.testing.assert_allclose(rollout.extras[first & ~held], 1 + DISCOUNT * 0.5, rtol=0.1)
    np.testing.assert_allclose(rollout.extras[first & held], 0.5, atol=0.1)
