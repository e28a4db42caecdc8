"""A training run in chunks: several seeds at once, with metrics and checkpoints between the chunks."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from agents.algorithms.algorithm import LOG_POINTS, Algorithm
from agents.algorithms.parallel import ONE_DEVICE, Layout, lay_out
from agents.runs.metrics import Measurement, MetricsLog, MetricsWriter
from jaxsim import EnvParams, InputError, place_params

if TYPE_CHECKING:
    from agents.runs.checkpoints import Checkpoints


_SEEDS = 2**32  # a key is made of 32 bits


@dataclass(frozen=True)
class Training:
    """What a training run of S seeds leaves.

    Attributes:
        variables: the network's, leading dimension S; on the default device.
        log: one row a seed and log interval: seed, steps, like_rate, session_return, and the algorithm's
            diagnostics.
        steps: environment steps of one seed.
        compile_seconds, seconds: of compilation, and of training without it, for all seeds together; of a resumed
            run, of all its parts up to the checkpoints that it went on from.
    """

    variables: Any
    log: pd.DataFrame
    steps: int
    compile_seconds: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """A training run between two chunks.

    Attributes:
        state: of all seeds: networks, optimisers, environments, replay, keys.
        chunks: chunks done.
        log: text of metrics.csv so far.
        seconds, compile_seconds: spent so far, as of `Training`.
    """

    state: Any
    chunks: int
    log: str
    seconds: float
    compile_seconds: float


class TrainingFunctions(NamedTuple):
    """The jitted functions of a run of S seeds.

    Attributes:
        init: (keys [S], params, item_vectors) -> state.
        chunk: (state, params) -> (state, (account, diagnostics, finite bool[S])): what lies between two lines of
            the log. It takes over the buffers of the state that it is given.
    """

    init: Any
    chunk: Any


def training_functions(algorithm: Algorithm, layout: Layout = ONE_DEVICE) -> TrainingFunctions:
    """Several seeds side by side, on one device or as `agents.algorithms.parallel.lay_out` says."""
    seeds = layout.seeds_axis

    def chunk(state: Any, params: EnvParams) -> tuple[Any, tuple[Any, dict[str, jax.Array], Any]]:
        count = algorithm.config.iterations_per_log
        state, (totals, diagnostics) = algorithm.iterations(state, params, count)
        return state, (totals, diagnostics, _is_finite((state.variables, state.optimiser)))

    init = jax.vmap(algorithm.init, in_axes=(0, None, None))
    several = jax.vmap(chunk, in_axes=(0, None))
    state_axes = layout.state_axes
    return TrainingFunctions(
        init=jax.jit(layout.place(init, (seeds, None, None), state_axes)),
        chunk=jax.jit(
            layout.place(several, (state_axes, None), (state_axes, seeds)), donate_argnums=0
        ),
    )


def check_seeds(seed: int, num_seeds: int = 1, name: str = "seed") -> None:
    """Refuse seeds that no PRNG key can be made of, or that would give the key of another seed.

    Args:
        seed: the first; `seed`, ..., `seed + num_seeds - 1` must all be from 0 to 2**32 - 1.
        num_seeds: how many.
        name: of the setting.

    Raises:
        InputError: some are not, or there are none.
    """
    if num_seeds < 1:
        raise InputError(f"seeds is {num_seeds}, but must be at least 1")
    largest = _SEEDS - num_seeds
    if not 0 <= seed <= largest:
        raise InputError(f"{name} is {seed}, but must be from 0 to {largest}")


def _is_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree is, bool[]."""
    numbers = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in numbers]).all()


def train_seeds(
    algorithm: Algorithm,
    params: EnvParams,
    seed: int,
    num_seeds: int,
    item_vectors: jax.Array | None = None,
    checkpoints: "Checkpoints | None" = None,
    writers: Sequence[MetricsWriter] = (),
    devices: int = 1,
) -> Training:
    """Train seeds `seed`, ..., `seed + num_seeds - 1` at once.

    Args:
        algorithm: on the environment.
        params: of the environment.
        seed: first seed.
        num_seeds: S.
        item_vectors: float32[N, width] that item embeddings start from, if any.
        checkpoints: where to keep them; if there is one already, the run goes on from it, and ends with the same
            bits as a run that was never stopped.
        writers: are told the metrics of each chunk.
        devices: how many to split the run over, see `agents.algorithms.parallel.lay_out`.

    Raises:
        InputError: there is no seed to train or one out of range, the devices cannot share the run, no checkpoint
            can be read, or training diverged: a diagnostic, or a number of a network or its optimiser, became
            infinite or NaN.
    """
    check_seeds(seed, num_seeds)
    config = algorithm.config
    steps_per_chunk = config.iterations_per_log * config.steps_per_iteration
    algorithm, layout = lay_out(algorithm, num_seeds, devices)
    functions = training_functions(algorithm, layout)
    if layout.mesh is not None:
        params = place_params(params, layout.mesh)
    keys = jnp.stack([jax.random.key(seed + index) for index in range(num_seeds)])
    compiled, progress = _prepare(algorithm, functions, (keys, params, item_vectors), checkpoints)
    state, log = progress.state, MetricsLog(progress.log)
    seeds = seed + np.arange(num_seeds)
    begin = time.perf_counter() - progress.seconds
    with _started(
        writers, log, seeds, progress.chunks * steps_per_chunk, LOG_POINTS * steps_per_chunk
    ):
        for chunks in range(progress.chunks + 1, LOG_POINTS + 1):
            state, (totals, diagnostics, finite) = compiled(state, params)
            values = jax.device_get({**totals.means(), **diagnostics})
            measurement = Measurement(chunks * steps_per_chunk, seeds, values)
            log.add(measurement)
            for writer in writers:
                writer.write(measurement)
            _check_finite(measurement, list(diagnostics), np.asarray(finite), checkpoints)
            if checkpoints and checkpoints.is_due(chunks, LOG_POINTS):
                seconds = time.perf_counter() - begin
                checkpoints.save(
                    Progress(state, chunks, log.text, seconds, progress.compile_seconds)
                )
    return Training(
        variables=_on_default_device(algorithm.variables(state), layout),
        log=log.frame(),
        steps=LOG_POINTS * steps_per_chunk,
        compile_seconds=progress.compile_seconds,
        seconds=time.perf_counter() - begin,
    )


def _on_default_device(tree: Any, layout: Layout) -> Any:
    """Arrays that what follows need not compute with on every device of a mesh."""
    return tree if layout.mesh is None else jax.tree.map(jnp.asarray, jax.device_get(tree))


def _prepare(
    algorithm: Algorithm,
    functions: TrainingFunctions,
    arguments: tuple[jax.Array, EnvParams, jax.Array | None],
    checkpoints: "Checkpoints | None",
) -> tuple[Any, Progress]:
    """The compiled chunk, and where the run starts: from its latest checkpoint, or from the beginning.

    `arguments` are those of `functions.init`: keys [S], params, item vectors.
    """
    keys, params, _ = arguments
    print(f"compiling the training of {len(keys)} seeds ...", flush=True)
    start = time.perf_counter()
    init = functions.init.lower(*arguments).compile()
    template = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(functions.init, *arguments),
        init.output_shardings,
    )
    compiled = functions.chunk.lower(template, params).compile()
    progress = checkpoints.restore(template) if checkpoints else None
    if progress is None:
        state = jax.block_until_ready(init(*arguments))
        progress = Progress(state, 0, "", 0.0, 0.0)
    seconds = time.perf_counter() - start
    config = algorithm.config
    total = config.num_iterations * config.steps_per_iteration
    done = total * progress.chunks // LOG_POINTS
    where = f"going on after {done:,} of" if done else "training for"
    print(f"compiled in {seconds:.1f} s; {where} {total:,} steps a seed", flush=True)
    return compiled, replace(progress, compile_seconds=progress.compile_seconds + seconds)


@contextmanager
def _started(
    writers: Sequence[MetricsWriter],
    log: MetricsLog,
    seeds: np.ndarray,
    steps: int,
    total_steps: int,
) -> Iterator[None]:
    """Start all writers, and close those that were started, however the block ends."""
    with ExitStack() as stack:
        for writer in writers:
            stack.callback(writer.close)
            writer.start(log, seeds, steps, total_steps)
        yield


def _check_finite(
    measurement: Measurement,
    diagnostics: list[str],
    finite: np.ndarray,
    checkpoints: "Checkpoints | None",
) -> None:
    """Stop a run in which a diagnostic, or what `finite` bool[S] tells of, is not finite any more."""
    found = {name: np.asarray(measurement.values[name]) for name in diagnostics}
    good = finite & np.all([np.isfinite(values) for values in found.values()], axis=0)
    if good.all():
        return
    index = int(np.argmin(good))
    told = [
        f"{name} {values[index]:.4g}"
        for name, values in found.items()
        if "loss" in name or not np.isfinite(values[index])
    ]
    state = (
        "" if finite[index] else ", and its network or optimiser holds numbers that are not finite"
    )
    latest = checkpoints.latest if checkpoints else None
    kept = f"the last good checkpoint is {latest}" if latest else "there is no checkpoint yet"
    raise InputError(
        f"training diverged: after {measurement.steps:,} steps seed {measurement.seeds[index]} has "
        f"{', '.join(told)}{state}; {kept}; train again with a lower learning_rate"
    )
