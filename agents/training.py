"""A training run in chunks: several seeds at once, with progress and a log between the chunks."""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm import tqdm

from agents.algorithm import LOG_POINTS, Algorithm
from jaxsim import EnvParams, InputError


@dataclass(frozen=True)
class Training:
    """What a training run of S seeds leaves.

    Attributes:
        variables: the network's, leading dimension S.
        log: one row a seed and log interval: seed, steps, like_rate, session_return, and the algorithm's
            diagnostics.
        steps: environment steps of one seed.
        compile_seconds, seconds: of compilation, and of training without it, for all seeds together.
    """

    variables: Any
    log: pd.DataFrame
    steps: int
    compile_seconds: float
    seconds: float


def train_seeds(algorithm: Algorithm, params: EnvParams, seed: int, num_seeds: int) -> Training:
    """Train seeds `seed`, ..., `seed + num_seeds - 1` at once.

    Raises:
        InputError: a diagnostic became infinite or NaN.
    """
    config = algorithm.config
    keys = jnp.stack([jax.random.key(seed + index) for index in range(num_seeds)])
    init = jax.jit(jax.vmap(algorithm.init, in_axes=(0, None)))
    chunk = jax.jit(
        jax.vmap(partial(algorithm.iterations, count=config.iterations_per_log), in_axes=(0, None)),
        donate_argnums=0,
    )
    print(f"compiling the training of {num_seeds} seeds ...", flush=True)
    start = time.perf_counter()
    state = jax.block_until_ready(init(keys, params))
    compiled = chunk.lower(state, params).compile()
    compile_seconds = time.perf_counter() - start
    total = config.num_iterations * config.steps_per_iteration
    print(f"compiled in {compile_seconds:.1f} s; training for {total:,} steps a seed", flush=True)

    log = []
    start = time.perf_counter()
    progress = tqdm(total=total * num_seeds, unit="step", unit_scale=True, disable=None, delay=1)
    for point in range(1, LOG_POINTS + 1):
        state, (totals, diagnostics) = compiled(state, params)
        measured = jax.device_get({**totals.means(), **diagnostics})
        steps = point * config.iterations_per_log * config.steps_per_iteration
        log.append(pd.DataFrame({"seed": seed + np.arange(num_seeds), "steps": steps, **measured}))
        progress.update(config.iterations_per_log * config.steps_per_iteration * num_seeds)
        progress.set_postfix(like_rate=f"{measured['like_rate'].mean():.3f}")
        _check_finite(diagnostics, steps)
    progress.close()
    seconds = time.perf_counter() - start
    return Training(
        variables=algorithm.variables(state),
        log=pd.concat(log, ignore_index=True),
        steps=total,
        compile_seconds=compile_seconds,
        seconds=seconds,
    )


def _check_finite(diagnostics: dict[str, jax.Array], steps: int) -> None:
    for name, values in diagnostics.items():
        if not np.isfinite(np.asarray(values)).all():
            raise InputError(
                f"training diverged: {name} is {np.asarray(values)} after {steps:,} steps; "
                "lower the learning rate"
            )
