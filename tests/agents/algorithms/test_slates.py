"""Agents that learn slates, and the policies and divergences of slates by brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from agents import A2C, DQN, PPO, TRPO, A2CConfig, DQNConfig, PPOConfig, TRPOConfig, fixed_sessions
from agents.algorithms.choice import slate_kl_divergence, slate_log_probability
from agents.evaluation.baselines import RandomPolicy
from agents.evaluation.oracle import Oracle
from agents.evaluation.sessions import run_sessions
from tests.slates import with_rates

SETTINGS = {"num_envs": 32, "width": 16, "total_steps": 40_000, "learning_rate": 1e-2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (A2C, A2CConfig(**SETTINGS, rollout_length=4)),
        (PPO, PPOConfig(**SETTINGS, rollout_length=8)),
        (TRPO, TRPOConfig(**SETTINGS, rollout_length=8)),
        (DQN, DQNConfig(**SETTINGS, rollout_length=4, batch_size=128, replay_steps=512, gamma=0.0)),
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


@pytest.mark.slow
def test_propensities_of_all_slates_add_up_to_one(dataset):
    """And they are the shares of what is drawn."""
    _, env, params = with_rates(dataset, slate_size=2)
    obs, _ = env.reset_user(jnp.int32(0), params)
    allowed = np.flatnonzero(env.action_mask(obs, params))
    slates = jnp.array(list(itertools.permutations(allowed, 2)), jnp.int32)
    ppo = PPO(env, PPOConfig(num_envs=2, width=8))
    dqn = DQN(env, DQNConfig(num_envs=2, width=8, batch_size=2, exploration_final_eps=0.3))
    policies = [RandomPolicy()]
    for agent in (ppo, dqn):
        variables = agent.init(jax.random.key(0), params).variables
        policies += [agent.policy_of(variables, sampled=sampled) for sampled in (True, False)]
    for policy in policies:
        chance = jax.vmap(policy.propensity, (None, None, None, 0))(env, obs, params, slates)
        np.testing.assert_allclose(chance.sum(), 1.0, rtol=1e-4)
        keys = jax.random.split(jax.random.key(1), 4000)
        drawn = jax.vmap(lambda key, p=policy: p.choose(key, env, obs, params))(keys)
        likeliest = slates[jnp.argmax(chance)]
        share, expected = (drawn == likeliest).all(axis=1).mean(), chance.max()
        assert abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / 4000) + 1e-6


# ---- divergence and curvature ------------------------------------------------------------------------------


SLATES = jnp.array(list(itertools.permutations(range(5), 3)))


def slate_logs(logits: jax.Array) -> jax.Array:
    """Log-probabilities of all 60 slates, of logits float32[5]."""
    return jax.vmap(lambda slate: slate_log_probability(logits, slate))(SLATES)


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_the_divergence_of_drawn_slates_is_that_of_all_slates_on_average(spread):
    for seed in range(3):
        old, new = spread * jax.random.normal(jax.random.key(seed), (2, 5))
        log_p, log_q = slate_logs(old), slate_logs(new)
        expected = (jnp.exp(log_p) * (log_p - log_q)).sum()
        many = jnp.broadcast_to(old, (60, 5)), jnp.broadcast_to(new, (60, 5))
        each = slate_kl_divergence(*many, SLATES)
        assert (each >= 0).all()
        np.testing.assert_allclose((jnp.exp(log_p) * each).sum(), expected, rtol=1e-4)
        np.testing.assert_allclose(slate_kl_divergence(old, new, SLATES[7]), each[7], rtol=1e-5)
        np.testing.assert_array_equal(slate_kl_divergence(old, old, SLATES[7]), 0.0)


class Table(nn.Module):
    """A policy whose logits are its parameters, whatever is observed."""

    @nn.compact
    def logits(self, obs):
        logits = self.param("logits", nn.initializers.zeros, (5,), jnp.float32)
        return jnp.broadcast_to(logits, (*obs.shape, 5))


@pytest.mark.slow
def test_fisher_products_of_slates_are_those_of_the_hessian_of_the_divergence(dataset):
    """The average over slates in the proportions in which they are drawn, against a dense matrix."""
    _, env, _ = with_rates(dataset)
    agent = TRPO(env, TRPOConfig(**SETTINGS, cg_damping=0.01))
    logits = jax.random.normal(jax.random.key(0), (5,))
    log_p = slate_logs(logits)
    hessian = jax.hessian(lambda x: (jnp.exp(log_p) * (log_p - slate_logs(x))).sum())(logits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TRPO, "network", Table())

        def product(slate, vector):
            mask = jnp.ones((1, 5), bool)
            multiply = agent.fisher_product({"logits": logits}, jnp.zeros(1), mask, slate[None])
            return multiply({"logits": vector})["logits"]

        vectors = jax.random.normal(jax.random.key(1), (3, 5))
        products = jax.vmap(jax.vmap(product, (0, None)), (None, 0))(SLATES, vectors)
    mean = (jnp.exp(log_p)[None, :, None] * products).sum(axis=1)
    np.testing.assert_allclose(mean, vectors @ hessian + 0.01 * vectors, rtol=1e-4, atol=1e-5)
