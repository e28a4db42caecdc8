"""Every agent trains the same with `jax_enable_x64`: its parameters stay float32."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from agents.algorithms.networks import ActorCritic
from agents.algorithms.registry import ALGORITHMS
from tests.agents.algorithms.probes import PROBES, ProbeEnv

SMALL = {"total_steps": 1000, "num_envs": 4, "width": 4}
OWN = {"dqn": {"batch_size": 16, "replay_steps": 64}}


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_agents_train_with_x64(name):
    entry = ALGORITHMS[name]
    with jax.enable_x64(True):
        agent = entry.algorithm(ProbeEnv(), entry.config(**SMALL, **OWN.get(name, {})))
        state = agent.init(jax.random.key(0), PROBES["masked"])
        state, (_, diagnostics) = jax.jit(agent.iterations, static_argnums=2)(
            state, PROBES["masked"], 2
        )
    assert {x.dtype for x in jax.tree.leaves(state.variables)} == {jnp.dtype("float32")}
    assert {x.dtype for x in diagnostics.values()} == {jnp.dtype("float32")}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["mean", "gru", "attention"])
def test_networks_have_float32_parameters_with_x64(encoder):
    with jax.enable_x64(True):
        obs, _ = ProbeEnv().reset(jax.random.key(0), PROBES["masked"])
        network = ActorCritic(ProbeEnv().num_items, 4, encoder, separate_critic=True)
        # Types need no numbers: nothing is compiled.
        variables = jax.eval_shape(network.init, jax.random.key(0), obs)
        apply = partial(network.apply, method="logits_and_value")
        outputs = jax.eval_shape(apply, variables, obs)
    assert {x.dtype for x in jax.tree.leaves((variables, outputs))} == {jnp.dtype("float32")}
