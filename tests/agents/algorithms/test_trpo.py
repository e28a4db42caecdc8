"""TRPO: its Fisher products and steps against dense matrices, and what the line search lets through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from agents.algorithms.choice import kl_divergence, mask_logits
from agents.algorithms.on_policy import flatten
from agents.algorithms.trpo import TRPO, TRPOConfig, split_critic
from jaxsim import InputError
from tests.agents.algorithms.probes import PROBES, ProbeEnv

CONFIG = TRPOConfig(
    total_steps=1000, num_envs=6, rollout_length=4, width=3, fisher_stride=1, cg_damping=0.01,
    cg_iterations=300, target_kl=0.01,
)  # fmt: skip
PARAMS = PROBES["masked"]


@pytest.fixture(scope="module")
def trust_region():
    """An agent with weights far from zero, what it collected, and its Fisher matrix from the KL's Hessian."""
    agent = TRPO(ProbeEnv(), CONFIG)
    state = jax.jit(agent.init)(jax.random.key(0), PARAMS)
    noise = jax.random.split(jax.random.key(1), 40)
    leaves, treedef = jax.tree.flatten(state.variables)
    leaves = [x + 0.5 * jax.random.normal(k, x.shape) for x, k in zip(leaves, noise, strict=False)]
    state = state.replace(variables=jax.tree.unflatten(treedef, leaves))
    _, experience, _ = jax.jit(agent.collect_experience)(state, PARAMS)
    batch = flatten(experience)
    mask = agent.masks(batch.obs, PARAMS)
    actor, _ = split_critic(state.variables)
    vector, unravel = ravel_pytree(actor)

    def log_p(vector):
        logits = agent.network.apply({"params": unravel(vector)}, batch.obs, method="logits")
        return jax.nn.log_softmax(mask_logits(logits, mask))

    old = jax.lax.stop_gradient(log_p(vector))
    hessian = jax.jit(jax.hessian(lambda v: kl_divergence(old, log_p(v)).mean()))(vector)
    return agent, state, experience, vector, unravel, np.asarray(hessian, np.float64), log_p


@pytest.fixture(scope="module")
def stepped(trust_region):
    agent, state, experience, *_ = trust_region
    return jax.jit(agent.step_policy)(state.variables, experience, PARAMS)


@pytest.mark.slow
def test_fisher_products_are_those_of_the_hessian_of_the_kl(trust_region):
    agent, state, experience, vector, unravel, hessian, _ = trust_region
    batch = flatten(experience)
    actor, _ = split_critic(state.variables)
    mask = agent.masks(batch.obs, PARAMS)

    @jax.jit
    def multiply(v):
        product = agent.fisher_product(actor, batch.obs, mask, batch.item)
        return ravel_pytree(product(unravel(v)))[0]

    assert np.linalg.norm(hessian) > 0.1
    for seed in range(3):
        v = jax.random.normal(jax.random.key(seed), vector.shape)
        actual = multiply(v)
        expected = hessian @ v + CONFIG.cg_damping * v
        np.testing.assert_allclose(actual, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_the_step_is_that_of_a_dense_solve(trust_region, stepped):
    agent, _, experience, vector, _, hessian, log_p = trust_region
    batch = flatten(experience)
    variables, step = stepped
    after, _ = ravel_pytree(split_critic(variables)[0])

    advantage = np.asarray(agent.advantages_of(batch))
    rows = np.arange(len(advantage))
    old = log_p(vector)

    def surrogate(v):
        return (jnp.exp(log_p(v) - old)[rows, batch.item] * advantage).mean()

    gradient = np.asarray(jax.grad(surrogate)(vector), np.float64)
    fisher = hessian + CONFIG.cg_damping * np.eye(len(hessian))
    direction = np.linalg.solve(fisher, gradient)
    full = np.sqrt(2 * CONFIG.target_kl / (direction @ fisher @ direction)) * direction
    assert 0 < step.step_size <= 1
    actual = np.asarray(after - vector, np.float64)
    expected = float(step.step_size) * full
    assert np.linalg.norm(actual - expected) < 0.02 * np.linalg.norm(expected)

    kl = float(kl_divergence(old, log_p(after)).mean())
    np.testing.assert_allclose(step.kl, kl, rtol=1e-2, atol=1e-6)
    assert 0 < kl <= CONFIG.target_kl
    improvement = float(surrogate(after) - surrogate(vector))
    np.testing.assert_allclose(step.improvement, improvement, rtol=1e-2, atol=1e-6)
    assert improvement > 0


def test_the_step_leaves_the_critic_and_the_fit_leaves_the_actor(trust_region, stepped):
    agent, state, experience, *_ = trust_region
    variables, _ = stepped
    jax.tree.map(
        np.testing.assert_array_equal,
        split_critic(variables)[1],
        split_critic(state.variables)[1],
    )
    optimiser, losses = state.optimiser, []
    variables = state.variables
    fit = jax.jit(agent.fit_critic)
    for seed in range(5):
        variables, optimiser, loss = fit(jax.random.key(seed), variables, optimiser, experience)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    jax.tree.map(
        np.testing.assert_array_equal,
        split_critic(variables)[0],
        split_critic(state.variables)[0],
    )


def judged(surrogates, kls):
    """A policy of one number x, the step: its surrogate and KL are read off two functions."""
    return lambda x: (jnp.float32(surrogates(x["x"])), jnp.float32(kls(x["x"])))


def search(surrogate, kl):
    agent = TRPO(ProbeEnv(), CONFIG)
    start, full = {"x": jnp.float32(0)}, {"x": jnp.float32(1)}
    actor, step = agent.line_search(start, full, judged(surrogate, kl))
    return float(actor["x"]), step


def test_the_line_search_takes_the_largest_step_within_the_bound():
    shrink = CONFIG.line_search_shrink
    # KL x^2 / 50 is at most 0.01 up to x = 0.707; 0.7 is the second size tried.
    moved, step = search(lambda x: x, lambda x: x**2 / 50)
    assert moved == pytest.approx(shrink)
    assert float(step.step_size) == pytest.approx(shrink)
    assert float(step.improvement) == pytest.approx(shrink)
    assert float(step.kl) == pytest.approx(shrink**2 / 50)


def test_the_line_search_wants_an_improvement():
    moved, step = search(lambda x: x * (0.4 - x), lambda x: 0.0 * x)
    assert moved == pytest.approx(CONFIG.line_search_shrink**3)
    assert step.improvement > 0


@pytest.mark.parametrize(
    ("surrogate", "kl"),
    [
        (lambda x: -x, lambda x: 0.0 * x),
        (lambda x: x, lambda x: 1.0 + x),
        (lambda x: x * jnp.nan, lambda x: 0.0 * x),
        (lambda x: x, lambda x: x * jnp.nan),
    ],
    ids=["worse", "too far", "nan surrogate", "nan kl"],
)
def test_without_a_step_that_may_be_taken_nothing_moves(surrogate, kl):
    moved, step = search(surrogate, kl)
    assert moved == 0
    assert float(step.step_size) == float(step.kl) == float(step.improvement) == 0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"target_kl": 0.0}, "target_kl"),
        ({"cg_damping": -1.0}, "cg_damping"),
        ({"cg_iterations": 0}, "cg_iterations"),
        ({"fisher_stride": 3, "rollout_length": 16}, "multiple of fisher_stride"),
        ({"critic_minibatches": 3}, "multiple of critic_minibatches"),
        ({"line_search_shrink": 0.0}, "line_search_shrink"),
        ({"gae_lambda": 1.5}, "gae_lambda"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, name):
    with pytest.raises(InputError, match=name):
        TRPO(ProbeEnv(), TRPOConfig(**settings))
