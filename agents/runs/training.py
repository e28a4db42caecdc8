"""A training run in chunks: several seeds at once, with metrics and checkpoints after each chunk."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.algorithms.algorithm import LOG_POINTS, Algorithm
from agents.algorithms.networks import ItemStart
from agents.algorithms.parallel import Layout, lay_out
from agents.runs.checkpoints import Checkpoints
from agents.runs.metrics import Measurement, MetricsLog, MetricsWriter
from agents.runs.programs import TrainingFunctions, compile_programs, training_functions
from agents.runs.progress import Progress, Training
from agents.runs.seeds import choose_at_once
from jaxsim import EnvParams, InputError, place_params
from jaxsim.out_of_memory import advice_if_out_of_memory

NUM_KEYS = 2**32  # `jax.random.key` uses 32 bits of a seed


def check_seeds(seed: int, num_seeds: int) -> None:
    """Check that the seeds `seed`, ..., `seed + num_seeds - 1` give different PRNG keys.

    Raises:
        InputError: there is no seed, or one is not in [0, 2**32).
    """
    if num_seeds < 1:
        raise InputError(f"seeds is {num_seeds}: give a whole number from 1")
    largest = NUM_KEYS - num_seeds
    if not 0 <= seed <= largest:
        raise InputError(f"seed is {seed}: give a whole number from 0, up to {largest:,}")


def train_seeds(
    algorithm: Algorithm,
    params: EnvParams,
    seed: int,
    num_seeds: int,
    items: ItemStart | None = None,
    checkpoints: Checkpoints | None = None,
    writers: Sequence[MetricsWriter] = (),
    devices: int = 1,
    at_once: int | None = None,
) -> Training:
    """Train seeds `seed`, ..., `seed + num_seeds - 1` in one program.

    Args:
        algorithm: the algorithm on its environment.
        params: parameters of the environment.
        seed: first seed.
        num_seeds: number of seeds, S.
        items: what is known of the items; None if embeddings start from random numbers.
        checkpoints: where to write checkpoints. If it holds one already, the run continues from it and ends with
            the same bits as a run that was never stopped.
        writers: receive the metrics of each chunk.
        devices: number of devices to split the run over, see `agents.algorithms.parallel.lay_out`.
        at_once: number of seeds that a device computes side by side; None to choose by the device, see
            `agents.runs.seeds`. With 1 a seed has the same bits whatever seeds train beside it.

    Raises:
        InputError: a seed is out of range, the devices cannot share the run, no checkpoint can be read, or
            training diverged: a diagnostic, or a number of a network or its optimiser, became infinite or NaN; or
            a device has no memory left, with the settings to lower.
    """
    check_seeds(seed, num_seeds)
    algorithm, layout = lay_out(algorithm, num_seeds, devices)
    at_once = choose_at_once(num_seeds, at_once)
    seeds = seed + np.arange(num_seeds)
    with advice_if_out_of_memory(_advice(algorithm, num_seeds, at_once)):
        if layout.mesh is not None:
            params = place_params(params, layout.mesh)
        functions = training_functions(algorithm, layout, at_once)
        arguments = (_keys(seeds), params, items)
        compiled, start = _prepare(algorithm, functions, arguments, layout, checkpoints)
        loop = _ChunkLoop(compiled, params, seeds, _steps_per_chunk(algorithm), checkpoints)
        end = loop.run(start, writers)
    return Training(
        variables=_on_default_device(algorithm.variables(end.state), layout),
        log=MetricsLog(end.log).frame(),
        steps=end.chunks * loop.steps_per_chunk,
        compile_seconds=end.compile_seconds,
        seconds=end.seconds,
    )


def compile_seeds(
    algorithm: Algorithm,
    params: EnvParams,
    num_seeds: int,
    items: ItemStart | None = None,
    devices: int = 1,
    at_once: int | None = None,
) -> None:
    """Compile what `train_seeds` runs with these arguments, and start all seeds, but train none.

    If programs are kept (`jaxsim.compilation_cache`), a training with the same settings then starts at once.

    Raises:
        InputError: see `train_seeds`.
    """
    check_seeds(0, num_seeds)
    algorithm, layout = lay_out(algorithm, num_seeds, devices)
    at_once = choose_at_once(num_seeds, at_once)
    with advice_if_out_of_memory(_advice(algorithm, num_seeds, at_once)):
        if layout.mesh is not None:
            params = place_params(params, layout.mesh)
        functions = training_functions(algorithm, layout, at_once)
        arguments = (_keys(np.arange(num_seeds)), params, items)
        _prepare(algorithm, functions, arguments, layout, None)


def _keys(seeds: np.ndarray) -> jax.Array:
    return jnp.stack([jax.random.key(seed) for seed in seeds.tolist()])


def _advice(algorithm: Algorithm, num_seeds: int, at_once: int) -> str:
    """What to lower if training runs out of memory."""
    config = algorithm.config
    values = {"num_envs": config.num_envs, "seeds at once": at_once, "seeds": num_seeds}
    # Not every algorithm has all of them. `candidates` is not a number if every item gets a score.
    names = ("rollout_length", "batch_size", "replay_steps", "candidates")
    values |= {name: getattr(config, name) for name in names if hasattr(config, name)}
    lower = ", ".join(f"{name} ({x})" for name, x in values.items() if (x or 0) > 1)
    choose = "" if values.get("candidates", 1) else ", or choose a number of candidates"
    return f"to train with less memory, lower {lower}{choose}"


def _steps_per_chunk(algorithm: Algorithm) -> int:
    """Environment steps of one seed between two lines of the log."""
    return algorithm.config.iterations_per_log * algorithm.config.steps_per_iteration


def _prepare(
    algorithm: Algorithm,
    functions: TrainingFunctions,
    arguments: tuple[jax.Array, EnvParams, ItemStart | None],
    layout: Layout,
    checkpoints: Checkpoints | None,
) -> tuple[Any, Progress]:
    """Compile a run, and find its start: the latest checkpoint if there is one, otherwise a new state.

    Args:
        algorithm: the algorithm of `functions`.
        functions: the functions to compile.
        arguments: the arguments of `functions.init`: keys [S], params, item vectors.
        layout: that `functions` are of.
        checkpoints: of the run.

    Returns:
        The compiled chunk, and the progress to start from.
    """
    keys, params, _ = arguments
    print(f"compiling the training of {len(keys)} seeds ...", flush=True)
    start = time.perf_counter()
    programs = compile_programs(functions, arguments, params, layout)
    source = " (from the cache)" if programs.from_cache else ""
    progress = checkpoints.restore(programs.template) if checkpoints else None
    if progress is None:
        state = jax.block_until_ready(programs.init(*arguments))
        progress = Progress(state, 0, "", 0.0, 0.0)
    seconds = time.perf_counter() - start
    steps = _steps_per_chunk(algorithm)
    done, total = progress.chunks * steps, LOG_POINTS * steps
    action = f"continuing after {done:,} of" if done else "training for"
    print(f"compiled in {seconds:.1f} s{source}; {action} {total:,} steps per seed", flush=True)
    return programs.chunk, replace(progress, compile_seconds=progress.compile_seconds + seconds)


@dataclass(frozen=True)
class _ChunkLoop:
    """The chunks of a run of S seeds.

    Attributes:
        compiled: `TrainingFunctions.chunk`, compiled.
        params: parameters of the environment.
        seeds: int[S].
        steps_per_chunk: environment steps of one seed in a chunk.
        checkpoints: where to save progress, if anywhere.
    """

    compiled: Any
    params: EnvParams
    seeds: np.ndarray
    steps_per_chunk: int
    checkpoints: Checkpoints | None

    def run(self, start: Progress, writers: Sequence[MetricsWriter]) -> Progress:
        """Train from a progress to the end of the run."""
        state, log = start.state, MetricsLog(start.log)
        begin = time.perf_counter() - start.seconds
        with self._started(writers, log, start.chunks):
            for chunks in range(start.chunks + 1, LOG_POINTS + 1):
                state, (totals, diagnostics, is_finite) = self.compiled(state, self.params)
                values = jax.device_get({**totals.means(), **diagnostics})
                measurement = Measurement(chunks * self.steps_per_chunk, self.seeds, values)
                log.add(measurement)
                for writer in writers:
                    writer.write(measurement)
                self._check_finite(measurement, list(diagnostics), np.asarray(is_finite))
                if self.checkpoints and self.checkpoints.is_due(chunks, LOG_POINTS):
                    seconds = time.perf_counter() - begin
                    self.checkpoints.save(
                        Progress(state, chunks, log.text, seconds, start.compile_seconds)
                    )
        seconds = time.perf_counter() - begin
        return Progress(state, LOG_POINTS, log.text, seconds, start.compile_seconds)

    @contextmanager
    def _started(
        self, writers: Sequence[MetricsWriter], log: MetricsLog, chunks: int
    ) -> Iterator[None]:
        """Start all writers, and close those that were started, whether the block fails or not."""
        steps, total_steps = (count * self.steps_per_chunk for count in (chunks, LOG_POINTS))
        with ExitStack() as stack:
            for writer in writers:
                stack.callback(writer.close)
                writer.start(log, self.seeds, steps, total_steps)
            yield

    def _check_finite(
        self, measurement: Measurement, diagnostics: list[str], is_finite: np.ndarray
    ) -> None:
        """Stop the run if a diagnostic is not finite, or `is_finite` bool[S] is false for a seed."""
        values = {name: np.asarray(measurement.values[name]) for name in diagnostics}
        is_good = is_finite & np.all([np.isfinite(x) for x in values.values()], axis=0)
        if is_good.all():
            return
        index = int(np.argmin(is_good))
        losses = ", ".join(
            f"{name} {x[index]:.4g}"
            for name, x in values.items()
            if "loss" in name or not np.isfinite(x[index])
        )
        state = (
            ""
            if is_finite[index]
            else ", and its network or optimiser has numbers that are not finite"
        )
        latest = self.checkpoints.latest if self.checkpoints else None
        remedy = f"the last good checkpoint is {latest}" if latest else "there is no checkpoint yet"
        raise InputError(
            f"training diverged: after {measurement.steps:,} steps seed {self.seeds[index]} has {losses}{state}; "
            f"{remedy}; train again with a lower learning_rate"
        )


def _on_default_device(tree: Any, layout: Layout) -> Any:
    """The arrays on one device: later computations need not run on every device of a mesh."""
    return tree if layout.mesh is None else jax.tree.map(jnp.asarray, jax.device_get(tree))
