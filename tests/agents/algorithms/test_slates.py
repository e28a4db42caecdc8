"""Agents that learn slates, and agents that refuse them."""

import jax
import numpy as np
import pytest

from agents import A2C, DQN, PPO, TRPO, A2CConfig, DQNConfig, PPOConfig, TRPOConfig, fixed_sessions
from agents.evaluation.baselines import RandomPolicy
from agents.evaluation.oracle import Oracle
from agents.evaluation.sessions import run_sessions
from jaxsim import InputError
from tests.slates import with_rates

SETTINGS = {"num_envs": 32, "width": 16, "total_steps": 40_000, "learning_rate": 1e-2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (A2C, A2CConfig(**SETTINGS, rollout_length=4)),
        (PPO, PPOConfig(**SETTINGS, rollout_length=8)),
    ],
)
def test_agents_learn_to_show_what_is_liked(dataset, kind, config):
    """Three seeds earn most of what lies between random slates and the best ones, which all users share."""
    _, env, params = with_rates(dataset, position_effect=-1.0, outside_option=2.0)
    agent = kind(env, config)
    train = jax.jit(jax.vmap(lambda key, params: agent.train(key, params).variables, (0, None)))
    seeds = train(jax.random.split(jax.random.key(0), 3), params)
    sessions = fixed_sessions(jax.random.key(1), env, params, repeats=10)

    def earned(policy):
        return run_sessions(env, params, policy, sessions).returns.mean()

    random, best = earned(RandomPolicy()), earned(Oracle())
    shares = []
    for seed in range(3):
        variables = jax.tree.map(lambda x, i=seed: x[i], seeds)
        shares.append((earned(agent.policy_of(variables)) - random) / (best - random))
    assert np.mean(shares) > 0.7
    assert min(shares) > 0.5


@pytest.mark.parametrize(("kind", "config"), [(DQN, DQNConfig()), (TRPO, TRPOConfig())])
def test_agents_of_single_items_refuse_slates(dataset, kind, config):
    _, env, _ = with_rates(dataset)
    with pytest.raises(InputError, match=r"recommends single items.*slates of 3: use PPO or A2C"):
        kind(env, config)
