"""The measured points that the constants of the formulas are fitted to, on drawn datasets of some sizes.

Speed does not depend on what the models have learned. So the datasets are drawn in memory, with random weights of
f_sta, and nothing is fitted.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from agents.algorithms.policy import EvaluatedPolicy
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.baselines import baselines
from benchmarks.checks import with_candidates
from benchmarks.evaluation_time import time_policy
from benchmarks.hardware import program_bytes, seconds_of
from benchmarks.scaling.formulas import BLOCKS, HISTORY, WIDTH, WINDOW
from benchmarks.throughput.measurement import STEPS, calls_of
from benchmarks.throughput.rollout import Runner
from benchmarks.throughput.step_cost import tree_bytes
from benchmarks.training.learner import Learner
from benchmarks.training.target import spread_sessions
from jaxsim import Dataset, EnvParams, SASRec, UserSimulator, make
from prep.synthetic import SyntheticConfig, make_synthetic

DIMENSION = 64
_LONG = 3.0  # seconds of an iteration that is not repeated

Point = dict[str, Any]


def drawn_dataset(items: int, users: int, dimension: int = DIMENSION) -> Dataset:
    """A synthetic dataset of N items and U users in memory, with random weights of f_sta."""
    data = make_synthetic(SyntheticConfig(users=users, items=items, dimension=dimension))
    model = SASRec(
        num_items=items, num_users=users, window=WINDOW, width=WIDTH, num_blocks=BLOCKS, num_heads=1
    )
    position = np.zeros(2, np.int32)
    shapes = jax.eval_shape(
        lambda key: model.init(
            key, position, position.astype(np.int8), position[0], method="next_logits"
        ),
        jax.random.key(0),
    )["params"]
    rng = np.random.default_rng(0)
    weights = {
        "/".join(name): (0.1 * rng.standard_normal(shape.shape)).astype(np.float32)
        for name, shape in flatten_dict(shapes).items()
    }
    manifest = {**data.manifest, "sasrec": {"architecture": model.architecture}}
    return Dataset(
        Path("drawn"),
        manifest,
        data.arrays,
        weights,
        data.items,
        data.users,
        data.keywords,
        data.categories,
    )


def environment_point(env: UserSimulator, params: EnvParams, sessions: int) -> Point:
    """Seconds of one step of B sessions at once, after warming up."""
    runner = Runner(env, params, sessions, STEPS)
    calls = calls_of(runner)
    seconds = min(runner.seconds(calls) for _ in range(2)) / (calls * STEPS)
    dimension = 0 if env.catalogue == "tables" else DIMENSION
    return {"sessions": sessions, "dimension": dimension, "seconds": seconds}


def training_point(
    env: UserSimulator, params: EnvParams, algorithm: str, seeds: int, candidates: int | None
) -> Point:
    """Seconds of one iteration of S seeds, of compilation, and bytes of the program without the params.

    `candidates` is the setting of the algorithm, and in the result the number that it chooses among, None for all.
    """
    config = with_candidates(ALGORITHMS[algorithm].config(), candidates)
    config = replace(config, total_steps=config.steps_per_iteration)  # a call is one iteration
    trainer = ALGORITHMS[algorithm].algorithm(env, config)
    jax.clear_caches()
    learner = Learner.compile_seeds(trainer, params, 0, seeds)
    first = learner.seconds(calls=1)
    calls = max(1, min(100, round(1.5 / first)))
    seconds = first if first > _LONG else learner.seconds(calls) / calls
    needed = program_bytes(learner.program)
    return {
        "items": env.num_items,
        "seeds": seeds,
        "candidates": getattr(trainer, "candidates", None),
        "seconds": seconds,
        "compile_seconds": learner.compile_seconds,
        "bytes": None if needed is None else max(1, needed - tree_bytes(params)),
        "steps_per_iteration": config.steps_per_iteration,
    }


def evaluation_point(
    dataset: Dataset, env: UserSimulator, params: EnvParams, algorithm: str, sessions: int
) -> Point:
    """Seconds a step of one session, of a network, a fixed ranking and the oracle; of ranking; of compilation.

    Each of `sessions` users has one session, and items are ranked for these users only.
    """
    users = params.session_users[:sessions]
    params = params.replace(session_users=users)
    known: dict[str, EvaluatedPolicy] = baselines(dataset, env, params)  # also compiles
    ranking = seconds_of(lambda: baselines(dataset, env, params))
    trainer = ALGORITHMS[algorithm].algorithm(env, ALGORITHMS[algorithm].config())
    start = jax.jit(trainer.init)(jax.random.key(0), params)
    policies = {
        "network": trainer.policy_of(trainer.variables(start)),
        "fixed": known["popular"],
        "oracle": known["oracle"],
    }
    fixed = spread_sessions(env, params, sessions, seed=0)
    steps = int(fixed.durations.sum())
    rows = {name: time_policy(name, p, env, params, fixed) for name, p in policies.items()}
    return {
        "items": env.num_items,
        "users": len(users),
        **{name: row["seconds"] / steps for name, row in rows.items()},
        "compile_seconds": sum(row["first_seconds"] - row["seconds"] for row in rows.values()),
        "ranking": ranking,
    }


def made(dataset: Dataset, catalogue: Any = "auto") -> tuple[UserSimulator, EnvParams]:
    """The simulator of a dataset, with the history that the formulas assume."""
    return make(dataset, history_length=HISTORY, catalogue=catalogue)
