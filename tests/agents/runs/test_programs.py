"""How a training is compiled."""

import jax
import jax.numpy as jnp
import pytest

from agents.runs.programs import compiler_options


@pytest.mark.parametrize("backend", ["cpu", "gpu", "tpu"])
def test_the_options_of_every_backend_exist(backend):
    """XLA refuses options that it does not know, on any backend."""
    assert bool(compiler_options(backend)) == (backend == "gpu")
    double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options(backend))
    assert double(jnp.int32(3)) == 6
    with pytest.raises(Exception, match="No such compile option"):
        jax.jit(lambda x: x, compiler_options={"xla_no_such_option": 1})(jnp.int32(3))
