"""The two programs of a run: one starts all seeds, the other trains them between two lines of the log."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agents.algorithms.algorithm import Algorithm
from agents.algorithms.parallel import ONE_DEVICE, Layout
from agents.runs.seeds import over_runs
from jaxsim import EnvParams
from jaxsim.compilation_cache import programs_read


class TrainingFunctions(NamedTuple):
    """The jitted functions of a run of S seeds.

    Attributes:
        init: (keys [S], params, items) -> state.
        chunk: (state, params) -> (state, (totals, diagnostics, is_finite bool[S])): the training between two lines
            of the log. It reuses the buffers of the state that it is given.
    """

    init: Any
    chunk: Any


@dataclass(frozen=True)
class Programs:
    """The compiled functions of a run.

    Attributes:
        init, chunk: see `TrainingFunctions`.
        template: shapes, dtypes and shardings of the state.
        from_cache: whether `chunk` was read from a cache of compiled programs.
    """

    init: jax.stages.Compiled
    chunk: jax.stages.Compiled
    template: Any
    from_cache: bool


def training_functions(
    algorithm: Algorithm, layout: Layout = ONE_DEVICE, at_once: int = 1
) -> TrainingFunctions:
    """The training of several seeds.

    Args:
        algorithm: as each device runs it.
        layout: one device, or what `agents.algorithms.parallel.lay_out` chooses.
        at_once: number of seeds that a device computes side by side; see `agents.runs.seeds`.
    """
    seeds = layout.seeds_axis

    def chunk(state: Any, params: EnvParams) -> tuple[Any, tuple[Any, dict[str, jax.Array], Any]]:
        count = algorithm.config.iterations_per_log
        state, (totals, diagnostics) = algorithm.iterations(state, params, count)
        return state, (totals, diagnostics, _is_finite((state.variables, state.optimiser)))

    init = over_runs(algorithm.init, (0, None, None), at_once)
    chunk_of_seeds = over_runs(chunk, (0, None), at_once)
    state_axes = layout.state_axes
    return jit_functions(
        layout.place(init, (seeds, None, None), state_axes),
        layout.place(chunk_of_seeds, (state_axes, None), (state_axes, seeds)),
    )


def jit_functions(init: Callable[..., Any], chunk: Callable[..., Any]) -> TrainingFunctions:
    """Jit the start and the training of a run, for the default device; see `TrainingFunctions`."""
    options = compiler_options(jax.default_backend())
    return TrainingFunctions(
        init=jax.jit(init, compiler_options=options),
        chunk=jax.jit(chunk, donate_argnums=0, compiler_options=options),
    )


def compiler_options(backend: str) -> dict[str, int]:
    """How XLA compiles a training: the options that differ from its defaults.

    On a GPU, XLA by default runs each matrix product in several ways and keeps the fastest. The products of an
    agent are small: without this, compilation took less time and training was as fast (docs/scaling.md).

    Args:
        backend: `jax.default_backend()`.
    """
    if backend != "gpu":
        return {}
    return {"xla_gpu_autotune_level": 0}


def compile_programs(
    functions: TrainingFunctions,
    arguments: tuple[Any, ...],
    params: EnvParams,
    layout: Layout = ONE_DEVICE,
) -> Programs:
    """Compile both functions of a run at the same time.

    Args:
        functions: to compile.
        arguments: of `functions.init`.
        params: of the environment, for `functions.chunk`.
        layout: that `functions` are of.
    """
    lowered = functions.init.lower(*arguments)
    with ThreadPoolExecutor(1) as pool:
        # XLA does not hold Python's lock, so that the chunk is traced and compiled meanwhile.
        start = pool.submit(lowered.compile)
        template = lowered.out_info
        if layout.mesh is not None:  # what devices hold is known only then
            template = _with_shardings(template, start.result())
        read = programs_read()
        chunk = functions.chunk.lower(template, params).compile()
        from_cache = programs_read() > read
        init = start.result()
    return Programs(init, chunk, _with_shardings(template, init), from_cache)


def _with_shardings(template: Any, init: jax.stages.Compiled) -> Any:
    """The template with the shardings that the start gives to the state."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        template,
        init.output_shardings,
    )


def _is_finite(tree: Any) -> jax.Array:
    """Whether all floats of a tree are finite, bool[]."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()
