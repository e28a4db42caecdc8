"""PPO and A2C: their losses against NumPy, minibatches, determinism, and settings side by side."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agents.algorithms.a2c import A2C, A2CConfig
from agents.algorithms.on_policy import flatten
from agents.algorithms.ppo import PPO, PPOConfig
from agents.algorithms.trpo import TRPO, TRPOConfig
from jaxsim import InputError
from tests.agents.algorithms.probes import PROBES, ProbeEnv

PARAMS = PROBES["masked"]
SMALL = {"total_steps": 4000, "num_envs": 4, "width": 4, "gamma": 0.75}
PPO_SMALL = PPOConfig(**SMALL, rollout_length=6, num_minibatches=3, num_epochs=2, ent_coef=0.1)
A2C_SMALL = A2CConfig(**SMALL, rollout_length=3, ent_coef=0.1)


def collected(agent):
    """A state with a policy that is far from uniform, and a rollout of it."""
    state = jax.jit(agent.init)(jax.random.key(0), PARAMS)
    leaves, treedef = jax.tree.flatten(state.variables)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    state = state.replace(variables=jax.tree.unflatten(treedef, noisy))
    return jax.jit(agent.collect_experience)(state, PARAMS)


@pytest.fixture(scope="module")
def rollout():
    agent = PPO(ProbeEnv(), PPO_SMALL)
    return agent, *collected(agent)


def numpy_policy(agent, variables, batch):
    """Log-probabilities float64[n, N] of the allowed items (-inf for the others), and values."""
    logits, value = agent.network.apply(variables, batch.obs, method="logits_and_value")
    mask = np.asarray(agent.masks(batch.obs, PARAMS))
    logits = np.where(mask, np.asarray(logits, np.float64), -np.inf)
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1, keepdims=True)) + top
    return logits - total, np.asarray(value, np.float64)


def entropy_of(log_p) -> float:
    p = np.exp(log_p)
    return float(-(p * np.where(p > 0, log_p, 0)).sum(axis=1).mean())


def test_experience_is_what_the_policy_did(rollout):
    agent, state, experience, totals = rollout
    assert experience.item.shape == (6, 4)
    assert totals.steps == 24
    batch = flatten(experience)
    log_p, value = numpy_policy(agent, state.variables, batch)
    chosen = log_p[np.arange(24), batch.item]
    np.testing.assert_allclose(batch.log_probability, chosen, atol=1e-5)
    np.testing.assert_allclose(batch.value, value, atol=1e-5)
    np.testing.assert_allclose(batch.target, batch.advantage + batch.value, atol=1e-5)
    seen = (batch.obs.items == batch.item[:, None]).any(axis=1)
    assert not seen.any()


def test_the_ppo_step_is_adam_on_the_clipped_loss(rollout):
    """After another step of the policy, so that ratios differ from 1 and some are clipped."""
    agent, state, experience, _ = rollout
    batch = flatten(experience)
    moved = jax.tree.map(lambda x: 1.5 * x, state.variables)
    optimiser = agent.optimiser.init(moved)
    (after, _), actual = jax.jit(agent._update)((moved, optimiser), batch, PARAMS)

    log_p, value = numpy_policy(agent, moved, batch)
    ratio = np.exp(log_p[np.arange(24), batch.item] - np.asarray(batch.log_probability))
    advantage = np.asarray(batch.advantage, np.float64)
    advantage = (advantage - advantage.mean()) / advantage.std()
    clipped = np.clip(ratio, 0.8, 1.2)
    assert 0 < (ratio != clipped).mean() < 1
    policy_loss = -np.minimum(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * (((value - np.asarray(batch.target)) / 2.0) ** 2).mean()
    expected = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy_of(log_p),
        "loss": policy_loss + 0.5 * value_loss - 0.1 * entropy_of(log_p),
        "kl": (ratio - 1 - np.log(ratio)).mean(),
        "clipped": (ratio != clipped).mean(),
    }
    assert set(actual) == set(expected)
    for name, number in expected.items():
        np.testing.assert_allclose(actual[name], number, rtol=1e-3, atol=1e-5, err_msg=name)
    # Adam's first step is the learning rate, up to its epsilon, against the sign of each gradient.
    step = np.concatenate([np.ravel(a - b) for a, b in zip(
        jax.tree.leaves(after), jax.tree.leaves(moved), strict=True)])  # fmt: skip
    assert np.abs(step).max() <= PPO_SMALL.learning_rate * 1.01
    assert np.median(np.abs(step[step != 0])) > 0.9 * PPO_SMALL.learning_rate


def test_minibatches_hold_every_step_once_and_as_many_of_each_session(rollout):
    agent, _, experience, _ = rollout
    numbered = dataclasses.replace(experience, item=jnp.arange(24).reshape(6, 4))
    batches = agent.minibatches(jax.random.key(3), numbered, 3)
    assert batches.item.shape == (3, 8)
    assert sorted(batches.item.ravel().tolist()) == list(range(24))
    np.testing.assert_array_equal(np.sort(batches.item % 4, axis=1), [[0, 0, 1, 1, 2, 2, 3, 3]] * 3)
    rows = np.asarray(batches.item)
    flat = flatten(experience)
    chex.assert_trees_all_equal(batches.obs, jax.tree.map(lambda x: x[rows], flat.obs))
    np.testing.assert_array_equal(batches.target, np.asarray(flat.target)[rows])
    other = agent.minibatches(jax.random.key(4), numbered, 3)
    assert not np.array_equal(other.item, batches.item)


@pytest.mark.slow
def test_the_a2c_step_follows_the_policy_gradient():
    agent = A2C(ProbeEnv(), A2C_SMALL)
    state, experience, _ = collected(agent)
    batch = flatten(experience)
    log_p, value = numpy_policy(agent, state.variables, batch)
    advantage = np.asarray(agent.advantages_of(batch), np.float64)
    np.testing.assert_allclose(advantage.mean(), 0, atol=1e-5)
    np.testing.assert_allclose(advantage.std(), 1, atol=1e-3)
    policy_loss = -(log_p[np.arange(12), batch.item] * advantage).mean()
    value_loss = 0.5 * (((value - np.asarray(batch.target)) / 2.0) ** 2).mean()
    # iterate() from the state before would collect the same rollout, from the same key.
    start = jax.jit(agent.init)(jax.random.key(0), PARAMS)
    before = dataclasses.replace(start, variables=state.variables)
    after, (_, actual) = jax.jit(agent.iterate)(before, PARAMS)
    expected = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy_of(log_p),
        "loss": policy_loss + 0.5 * value_loss - 0.1 * entropy_of(log_p),
    }
    assert set(actual) == set(expected)
    for name, number in expected.items():
        np.testing.assert_allclose(actual[name], number, rtol=1e-3, atol=1e-5, err_msg=name)
    assert optax.tree.norm(optax.tree.sub(after.variables, before.variables)) > 0


@pytest.mark.slow
def test_advantages_may_be_taken_as_they_are():
    agent = A2C(ProbeEnv(), dataclasses.replace(A2C_SMALL, normalise_advantages=False))
    _, experience, _ = collected(agent)
    batch = flatten(experience)
    np.testing.assert_array_equal(agent.advantages_of(batch), batch.advantage)


# ---- pure functions of key and settings -------------------------------------------------------------------


def by_meaning(state):
    return state.replace(key=jax.random.key_data(state.key))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        pytest.param(PPO, PPO_SMALL, marks=pytest.mark.slow),
        pytest.param(A2C, A2C_SMALL, marks=pytest.mark.slow),
        pytest.param(TRPO, TRPOConfig(**SMALL, rollout_length=4), marks=pytest.mark.slow),
    ],
    ids=["ppo", "a2c", "trpo"],
)
def test_seeds_and_settings_side_by_side_are_those_alone(kind, config):
    """One program over keys and numeric settings; each row is the run of its own key and settings."""

    def run(key, rate, gamma, config=config):
        changed = dataclasses.replace(config, learning_rate=rate, gamma=gamma)
        agent = kind(ProbeEnv(), changed)
        state, account = agent.iterations(agent.init(key, PARAMS), PARAMS, 3)
        return by_meaning(state), account

    cases = [(jax.random.key(0), 1e-3, 0.9), (jax.random.key(1), 2e-2, 0.5)]
    keys, rates, gammas = (jnp.stack([jnp.asarray(x) for x in c]) for c in zip(*cases, strict=True))
    both = jax.jit(jax.vmap(run))(keys, rates, gammas)
    mine = jax.tree.map(lambda x: x[1], both)
    # Settings that are numbers of the config, not traced ones.
    alone = jax.jit(lambda key: run(key, *cases[1][1:]))(cases[1][0])
    chex.assert_trees_all_close(mine, alone, atol=2e-4, rtol=2e-4)
    bias = both[0].variables["params"]["item_bias"]
    assert not np.array_equal(bias[0], bias[1])


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (PPOConfig(num_minibatches=3), "multiple of num_minibatches"),
        (PPOConfig(num_epochs=0), "num_epochs"),
        (PPOConfig(num_minibatches=0), "num_minibatches is 0"),
        (PPOConfig(clip_range=0.0), "clip_range"),
        (PPOConfig(gae_lambda=-0.1), "gae_lambda"),
        (PPOConfig(ent_coef=float("nan")), "ent_coef"),
        (PPOConfig(gamma=1.0), "gamma"),
        (PPOConfig(num_envs=1, num_minibatches=8), "which normalising makes 0"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_settings_that_make_no_sense_are_refused(config, name):
    with pytest.raises(InputError, match=name):
        PPO(ProbeEnv(), config)
