"""The program of a step as XLA gets it for a GPU: what would make the host wait, or copy the sessions' states."""

import re

import jax
import jax.numpy as jnp
import pytest

from tests.conftest import simulator_of

SESSIONS = 256


def lowered_for_a_gpu(env, params) -> tuple[str, int]:
    """A batched step with donated states, lowered for CUDA, as text; and the number of the state's arrays."""
    keys = jax.random.split(jax.random.key(0), SESSIONS)
    states = jax.eval_shape(lambda: jax.vmap(env.reset, (0, None))(keys, params)[1])

    def step(states, keys, actions, params):
        _, states, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(keys, states, actions, params)
        return states, reward

    actions = jnp.zeros(SESSIONS, jnp.int32)
    traced = jax.jit(step, donate_argnums=0).trace(states, keys, actions, params)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return text, len(jax.tree.leaves(states))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="tables"),
        pytest.param({"table_budget": 0}, id="features and encoding"),
        pytest.param({"cache_dtype": "bfloat16"}, id="16 bits"),
    ],
)
def test_a_step_has_one_loop_and_updates_the_states_in_place(dataset, settings):
    """The loop begins the sessions that ended. Before each round a GPU's host waits for whether it goes on."""
    _, env, params = simulator_of(dataset, **settings)
    text, leaves = lowered_for_a_gpu(env, params)
    assert text.count("stablehlo.while") == 1
    # The host would wait for a branch, too, but not for those between platforms, which a constant decides.
    assert ("stablehlo.case" in text) == (env.catalogue == "features")
    assert text.count("tf.aliasing_output") == leaves
    assert not re.search(r"[x<]f64", text)
    # Attention widens 16 bits as it reads them: no cache of float32 enters or leaves.
    arguments = text.split("func.func public @main(", 1)[1].split("{\n", 1)[0]
    kind = "ui16" if env.cache_dtype == "bfloat16" else "f32"
    cache = f"tensor<{SESSIONS}x{env.window}x{env.sasrec.width}x"
    assert set(re.findall(re.escape(cache) + r"(\w+)>", arguments)) == {kind}
