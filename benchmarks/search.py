"""The search that chose the agents' default settings: random settings side by side in one program.

Numeric settings may be traced, so dozens of trainings with different ones are one vmapped training, compiled
once. Each is judged by its greedy policy in sessions of training users; trainings and sessions have other seeds
than the tables', and held-out users are never looked at. Whole-number settings are searched by running this again
with other ones.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.baselines import baselines
from agents.evaluation.sessions import fixed_sessions, run_sessions
from agents.runs.config import describe_machine
from agents.runs.memory import check_memory
from benchmarks.output import check_json, write_json
from jaxsim import EnvParams, InputError, UserSimulator, load_dataset, make

# Not those of the tables, which are to be of trainings and sessions that chose nothing.
SESSIONS_SEED = 2_000_000
TRAINING_SEED = 3_000_000

# Lowest and highest value, drawn uniformly in the logarithm or, where the lowest is 0, evenly.
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (4e-4, 1e-2),
    "gamma": (0.2, 0.98),
    "gae_lambda": (0.0, 0.95),
    "ent_coef": (1e-5, 1e-2),
    "vf_coef": (0.1, 2.0),
    "clip_range": (0.1, 0.4),
    "target_kl": (0.005, 0.3),
    "cg_damping": (1e-6, 1e-2),
    "tau": (0.002, 0.05),
    "exploration_final_eps": (0.0, 0.05),
    "exploration_fraction": (0.1, 0.8),
}


def draw_settings(
    key: jax.Array, config: AlgorithmConfig, names: tuple[str, ...], trials: int
) -> dict[str, jax.Array]:
    """Random values of some settings, float32[trials] each; the first trial has the config's own."""
    drawn = {}
    for name, one in zip(names, jax.random.split(key, len(names)), strict=True):
        low, high = RANGES[name]
        share = jax.random.uniform(one, (trials,), jnp.float32)
        value = low + share * (high - low) if low == 0 else low * (high / low) ** share
        drawn[name] = value.at[0].set(getattr(config, name))
    return drawn


def train_trials(
    env: UserSimulator,
    params: EnvParams,
    algorithm: str,
    config: AlgorithmConfig,
    drawn: dict[str, jax.Array],
    seeds: int,
) -> Any:
    """Variables of every trial and seed, leading dimensions [trials, seeds]."""
    kind = ALGORITHMS[algorithm].algorithm

    def train(key: jax.Array, settings: dict[str, Any], params: EnvParams) -> Any:
        trainer: Algorithm = kind(env, replace(config, **settings))
        return trainer.variables(trainer.train(key, params))

    keys = jnp.stack([jax.random.key(TRAINING_SEED + index) for index in range(seeds)])
    over_seeds = jax.vmap(train, (0, None, None))
    return jax.jit(jax.vmap(over_seeds, (None, 0, None)))(keys, drawn, params)


def search(
    algorithm: Annotated[str, tyro.conf.Positional],
    settings: Annotated[tuple[str, ...], tyro.conf.Positional],
    dataset: str = "ml-100k",
    trials: int = 12,
    seeds: int = 1,
    seed: int = 0,
    users: int = 200,
    whole: tuple[str, ...] = (),
    json: Path | None = None,
) -> None:
    """Train an agent with random settings and rank them.

    Args:
        algorithm: ppo, trpo, a2c or dqn.
        settings: numeric settings to search, by name, see RANGES.
        dataset: name or path.
        trials: settings to try; the first has the defaults.
        seeds: seeds of each.
        seed: of the random settings.
        users: training users whose sessions judge.
        whole: whole-number settings that differ from the defaults, as `name=value`.
        json: file to write.
    """
    check_json(json)
    if trials < 1 or seeds < 1 or users < 1:
        raise InputError("trials, seeds and users must be at least 1")
    if algorithm not in ALGORITHMS:
        raise InputError(f"unknown algorithm {algorithm!r}; known: {', '.join(ALGORITHMS)}")
    config = _config_of(algorithm, settings, whole)
    packed = load_dataset(dataset)
    env, params = make(packed)
    check_memory(ALGORITHMS[algorithm].algorithm(env, config), params, trials * seeds)
    drawn = draw_settings(jax.random.key(seed), config, settings, trials)
    variables = train_trials(env, params, algorithm, config, drawn, seeds)
    judges = params.replace(session_users=params.session_users[:users])
    sessions = fixed_sessions(jax.random.key(SESSIONS_SEED), env, judges, repeats=1)
    trainer = ALGORITHMS[algorithm].algorithm(env, config)
    rows = []
    for trial in range(trials):
        mine = [jax.tree.map(lambda x, at=(trial, one): x[at], variables) for one in range(seeds)]
        policies = map(trainer.policy_of, mine)
        rewards = [float(run_sessions(env, params, p, sessions).returns.mean()) for p in policies]
        values = {name: float(drawn[name][trial]) for name in settings}
        rows.append({"a_rwd": float(np.mean(rewards)), "worst": min(rewards), **values})
    rows.sort(key=lambda row: -row["a_rwd"])
    for row in rows:
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    references = {
        name: float(run_sessions(env, params, policy, sessions).returns.mean())
        for name, policy in baselines(packed, env, params).items()
    }
    print("  ".join(f"{name} {value:.4g}" for name, value in references.items()))
    result = {"device": describe_machine()["device"], "dataset": dataset, "algorithm": algorithm}
    write_json(json, {**result, "whole": whole, "baselines": references, "rows": rows})


def _config_of(
    algorithm: str, settings: tuple[str, ...], whole: tuple[str, ...]
) -> AlgorithmConfig:
    config = ALGORITHMS[algorithm].config()
    for name in settings:
        if name not in RANGES or not hasattr(config, name):
            known = ", ".join(n for n in RANGES if hasattr(config, n))
            raise InputError(f"{algorithm} has no setting {name!r} to search; known: {known}")
    changes: dict[str, Any] = {}
    for change in whole:
        name, _, value = change.partition("=")
        if not isinstance(getattr(config, name, None), int) or not value.isdigit():
            raise InputError(f"--whole {change}: give NAME=NUMBER of a whole-number setting")
        changes[name] = int(value)
    config = replace(config, **changes)
    config.check()
    return config
