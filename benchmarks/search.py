"""The search for the agents' default settings: many settings are trained in one program.

Floats of a config may be traced, so dozens of trainings with different settings are one program, compiled once. A
GPU trains them side by side, a CPU one by one. Each is judged by its greedy policy in sessions of training users.
Training seeds and session seeds are not those of the tables, and held-out users are not used. To search a
whole-number setting, run the search again with another value of it.
"""

from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.networks import ItemStart
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.baselines import EvaluatedPolicy, baselines
from agents.evaluation.sessions import FixedSessions, fixed_sessions, run_sessions
from agents.runs.config import describe_machine
from agents.runs.item_start import item_start
from agents.runs.memory import check_memory
from agents.runs.seeds import choose_at_once, over_runs
from benchmarks.checks import check_counts
from benchmarks.output import check_json, write_json
from benchmarks.table2 import PRESETS, Preset
from jaxsim import EnvParams, InputError, Semantics, UserSimulator, load_dataset, make
from jaxsim.departure import DepartureKind

# Other seeds than the tables', so that the tables' trainings and sessions have no influence on the settings.
SESSIONS_SEED = 2_000_000
TRAINING_SEED = 3_000_000

# Lowest and highest value. Values are drawn log-uniformly, or uniformly if the lowest is 0.
RANGES: dict[str, tuple[float, float]] = {
    "learning_rate": (4e-4, 1e-2),
    "gamma": (0.0, 0.99),
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
    key: jax.Array,
    config: AlgorithmConfig,
    names: tuple[str, ...],
    trials: int,
    is_sweep: bool = False,
) -> dict[str, jax.Array]:
    """Values of some settings in each trial, float32[trials]; the first trial has those of the config.

    Args:
        key: PRNG key.
        config: the default settings.
        names: settings to vary, of `RANGES`.
        trials: number of trials.
        is_sweep: space the values of the other trials evenly over the range, instead of drawing them.
    """
    values = {}
    for name, name_key in zip(names, jax.random.split(key, len(names)), strict=True):
        low, high = RANGES[name]
        if is_sweep:
            share = jnp.linspace(0, 1, trials - 1, dtype=jnp.float32)
            share = jnp.concatenate([jnp.zeros(1, jnp.float32), share])
        else:
            share = jax.random.uniform(name_key, (trials,), jnp.float32)
        value = low + share * (high - low) if low == 0 else low * (high / low) ** share
        values[name] = value.at[0].set(getattr(config, name))
    return values


def train_trials(
    trainer: Algorithm,
    params: EnvParams,
    settings: dict[str, jax.Array],
    seeds: int,
    items: ItemStart | None = None,
) -> Any:
    """Train each trial with each seed: the networks' variables, leading dimensions [trials, seeds]."""

    def train(
        key: jax.Array, values: dict[str, Any], params: EnvParams, items: ItemStart | None
    ) -> Any:
        changed = replace(trainer, config=replace(trainer.config, **values))
        return changed.variables(changed.train(key, params, items))

    keys = jnp.stack([jax.random.key(TRAINING_SEED + index) for index in range(seeds)])

    @jax.jit
    def train_all(
        settings: dict[str, jax.Array], params: EnvParams, items: ItemStart | None
    ) -> Any:
        def train_seeds(values: dict[str, jax.Array]) -> Any:
            at_once = choose_at_once(seeds)
            return over_runs(train, (0, None, None, None), at_once)(keys, values, params, items)

        trials = len(jax.tree.leaves(settings)[0])
        return over_runs(train_seeds, (0,), choose_at_once(trials))(settings)

    return train_all(settings, params, items)


def search(
    algorithm: Annotated[str, tyro.conf.Positional],
    settings: Annotated[tuple[str, ...], tyro.conf.Positional],
    dataset: str = "ml-100k",
    semantics: Semantics = "paper",
    departure: DepartureKind = "constant",
    preset: Preset = "default",
    trials: int = 12,
    seeds: int = 1,
    seed: int = 0,
    users: int = 200,
    whole: tuple[str, ...] = (),
    sweep: bool = False,
    json: Path | None = None,
) -> None:
    """Train an agent with different settings and rank them.

    Example:
        ppo learning_rate gamma --trials 12 --seeds 2

    Args:
        algorithm: ppo, trpo, a2c or dqn.
        settings: names of the settings to search, see RANGES.
        dataset: name or path.
        semantics: how users decide, see `jaxsim.make`.
        departure: when users leave, see `jaxsim.make`.
        preset: the settings to start from, as in `benchmarks table2`.
        trials: number of trials; the first has the settings of the preset.
        seeds: training seeds of each trial.
        seed: seed of the random settings.
        users: number of training users whose sessions judge the trials.
        whole: whole-number settings that differ from the defaults, as `name=value`.
        sweep: vary one setting in even steps over its whole range.
        json: file to write the results to.
    """
    check_json(json)
    check_counts(trials=trials, seeds=seeds, users=users)
    if sweep and (len(settings) != 1 or trials < 3):
        raise InputError("--sweep needs exactly one setting, and 3 trials or more")
    config = _config_of(algorithm, settings, whole, preset)
    packed = load_dataset(dataset)
    env, params = make(packed, semantics=semantics, departure=departure)
    trainer = ALGORITHMS[algorithm].algorithm(env, config)
    check_memory(trainer, params, trials * seeds)
    values = draw_settings(jax.random.key(seed), config, settings, trials, sweep)
    items = item_start(packed, config.item_embedding, config.width)
    variables = train_trials(trainer, params, values, seeds, items)
    sessions = _sessions(env, params, users)
    returns = _mean_returns(trainer, env, params, sessions, variables, (trials, seeds))
    rows = _rows(returns, values)
    if not sweep:
        rows.sort(key=lambda row: -row["a_rwd"])
    known = baselines(packed, env, params)
    references = {name: _mean_return(env, params, known[name], sessions) for name in known}
    for row in (*rows, references):
        print("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
    machine = {"device": describe_machine()["device"]}
    task = {"dataset": dataset, "algorithm": algorithm, "seeds": seeds, "whole": whole}
    world = {"semantics": semantics, "departure": departure, "preset": preset}
    write_json(json, {**machine, **task, **world, "baselines": references, "rows": rows})


def _mean_return(
    env: UserSimulator, params: EnvParams, policy: EvaluatedPolicy, sessions: FixedSessions
) -> float:
    return float(run_sessions(env, params, policy, sessions).returns.mean())


def _rows(returns: np.ndarray, settings: dict[str, jax.Array]) -> list[dict[str, float]]:
    """A row for each trial: the mean and the worst of its returns [trials, seeds], and its settings."""
    return [
        {
            "a_rwd": float(of_seeds.mean()),
            "worst": float(of_seeds.min()),
            **{name: float(value[trial]) for name, value in settings.items()},
        }
        for trial, of_seeds in enumerate(returns)
    ]


def _sessions(env: UserSimulator, params: EnvParams, users: int) -> FixedSessions:
    """One session of each of the first training users."""
    judging = params.replace(session_users=params.session_users[:users])
    return fixed_sessions(jax.random.key(SESSIONS_SEED), env, judging, repeats=1)


def _mean_returns(
    trainer: Algorithm,
    env: UserSimulator,
    params: EnvParams,
    sessions: FixedSessions,
    variables: Any,
    shape: tuple[int, int],
) -> np.ndarray:
    """Mean returns of greedy policies, float64 of `shape`, the leading dimensions of the variables."""
    means = np.empty(shape)
    for index in np.ndindex(shape):
        policy = trainer.policy_of(jax.tree.map(itemgetter(index), variables))
        means[index] = run_sessions(env, params, policy, sessions).returns.mean()
    return means


def _config_of(
    algorithm: str, settings: tuple[str, ...], whole: tuple[str, ...], preset: Preset
) -> AlgorithmConfig:
    if algorithm not in ALGORITHMS:
        raise InputError(f"unknown algorithm {algorithm!r}; known: {', '.join(ALGORITHMS)}")
    config = ALGORITHMS[algorithm].config(**PRESETS[preset].get(algorithm, {}))
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
