"""How fast our agents learn, beside Stable-Baselines3's on the same simulator, network and machine.

Two figures. Steps of the environment a second with learning, at equally many samples learned from a step: what
Stable-Baselines3 does by default. And the wall time until the greedy policy earns, in fixed sessions, what
recommending by training like rate earns. Stable-Baselines3 runs with one environment and its defaults, and
with many environments and large batches; its speed is also measured on an environment that does nothing, which no
environment can beat.
"""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from agents.algorithms.algorithm import AlgorithmConfig
from agents.algorithms.registry import ALGORITHMS
from benchmarks.hardware import Timing, device_name
from benchmarks.output import check_json, write_json
from benchmarks.training.learner import Learner
from benchmarks.training.report import format_report
from benchmarks.training.target import Attempt, Target, like_rate_target
from jaxsim import Dataset, EnvParams, InputError, UserSimulator, load_dataset, make

SB3_STEPS = {"default": 2048, "vector": 16384}  # of a timed run
PPO_EPOCHS = 10  # those of Stable-Baselines3
DQN_SAMPLES_PER_STEP = 8  # Stable-Baselines3: a batch of 32 every 4 steps

Row = dict[str, Any]


def run_training(
    dataset: str = "ml-100k",
    agents: tuple[str, ...] = (),
    sb3: bool = True,
    repeats: int = 5,
    limit_seconds: float = 240.0,
    seeds: int = 1,
    sessions: int = 512,
    seed: int = 0,
    torch_threads: int = 0,
    json: Path | None = None,
) -> None:
    """Measure how fast agents learn, beside Stable-Baselines3's.

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        agents: which of ppo, trpo, a2c, dqn; without any, all.
        sb3: also run Stable-Baselines3's agents; takes most of the time.
        repeats: timed runs of each speed; the median counts.
        limit_seconds: longest training towards like_rate's reward, for each agent and setting; 0 leaves this out.
        seeds: trainings towards like_rate's reward, for each agent and setting; the median counts.
        sessions: fixed sessions in which the reward is measured.
        seed: of the fixed sessions, and the first of the trainings.
        torch_threads: of Stable-Baselines3; 0 leaves as many as torch takes. On a busy machine one is faster.
        json: also write the result here.
    """
    check_json(json)
    names = chosen_agents(agents)
    for name, value in (("repeats", repeats), ("seeds", seeds), ("sessions", sessions)):
        if value < 1:
            raise InputError(f"--{name} {value}: give a whole number from 1")
    if not 0 <= limit_seconds < float("inf"):
        raise InputError(f"--limit-seconds {limit_seconds}: give seconds, or 0 for no training")
    if torch_threads < 0:
        raise InputError(
            f"--torch-threads {torch_threads}: give a whole number, or 0 for torch's own"
        )
    comparison = import_sb3(torch_threads) if sb3 else None
    packed = load_dataset(dataset)
    plan = Plan(repeats, limit_seconds, seeds, sessions, seed)
    result = measure(packed, names, plan, comparison)
    print(format_report(result))
    write_json(json, result)


@dataclass(frozen=True)
class Plan:
    """How much is measured; see `run_training`."""

    repeats: int
    limit_seconds: float
    seeds: int
    sessions: int
    seed: int


def chosen_agents(names: tuple[str, ...]) -> list[str]:
    """The agents to measure, in the order of the table.

    Raises:
        InputError: an unknown one.
    """
    for name in names:
        if name not in ALGORITHMS:
            raise InputError(f"--agents {name}: unknown; known: {', '.join(ALGORITHMS)}")
    return [name for name in ALGORITHMS if name in (names or ALGORITHMS)]


def import_sb3(threads: int = 0) -> ModuleType:
    """The module that runs Stable-Baselines3, on `threads` threads of torch; 0 leaves torch's own number.

    Raises:
        InputError: it is not installed.
    """
    try:
        version("stable-baselines3")
    except PackageNotFoundError:
        raise InputError(
            "Stable-Baselines3 is not installed: pip install -c constraints.txt -e '.[sb3]', or pass --no-sb3"
        ) from None
    from benchmarks.training import (
        sb3,  # torch takes seconds to import, and is an optional dependency
    )

    if threads:
        sb3.torch.set_num_threads(threads)
    return sb3


def measure(
    dataset: Dataset, names: Iterable[str], plan: Plan, comparison: ModuleType | None
) -> dict[str, Any]:
    """The content of `--json`."""
    print(f"preparing the simulator of {dataset.name} ...", flush=True)
    env, params = make(dataset)
    target = None
    if plan.limit_seconds:
        print("measuring what like_rate earns ...", flush=True)
        target = like_rate_target(dataset, env, params, plan.sessions, plan.seed)
    rows = []
    for name in names:
        row = own_row(name, env, params, plan, target)
        if comparison is not None and name in comparison.MODELS:
            row |= sb3_row(name, env, params, plan, target, comparison)
        rows.append({**dict.fromkeys(SB3_KEYS), **row})
    return {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": dataset.name,
        "like_rate_reward": None if target is None else target.reward,
        **asdict(plan),
        "sb3": None if comparison is None else comparison.describe(),
        "rows": rows,
    }


# ---- our agents --------------------------------------------------------------------------------------------


def plain_config(name: str) -> AlgorithmConfig:
    """An agent's own settings, with a network that knows as much as that of Stable-Baselines3."""
    return replace(ALGORITHMS[name][0](), encoder="mean", item_embedding="learned")


def equal_samples(name: str, config: AlgorithmConfig) -> AlgorithmConfig:
    """The settings with as many samples learned from a step as Stable-Baselines3 has by default."""
    settings: Any = config
    if name == "ppo":
        return replace(settings, num_epochs=PPO_EPOCHS)
    if name == "dqn":
        samples = DQN_SAMPLES_PER_STEP * config.steps_per_iteration
        return replace(settings, updates_per_rollout=max(1, samples // settings.batch_size))
    return config


def samples_per_step(name: str, config: AlgorithmConfig) -> float:
    """Samples that the policy learns from for each step of the environment."""
    settings: Any = config
    if name == "ppo":
        return float(settings.num_epochs)
    if name == "dqn":
        return settings.updates_per_rollout * settings.batch_size / config.steps_per_iteration
    return 1.0


def own_row(
    name: str, env: UserSimulator, params: EnvParams, plan: Plan, target: Target | None
) -> Row:
    """What is measured of one of our agents."""
    equal = equal_samples(name, plain_config(name))
    print(f"{name}: measuring steps per second ...", flush=True)
    jax.clear_caches()  # what was traced for another training would shorten the compilation
    learner = Learner.compile(ALGORITHMS[name][1](env, equal), params, plan.seed)
    variables = learner.algorithm.variables(learner.state)
    parameters = sum(x.size for x in jax.tree.leaves(variables))
    speed = Timing.of(learner.speeds(plan.repeats))
    row: Row = {
        "agent": name,
        "steps_per_second": speed.median,
        "low_quartile": speed.low,
        "high_quartile": speed.high,
        "samples_per_step": samples_per_step(name, equal),
        "compile_seconds": learner.compile_seconds,
        "parameters": parameters,
        "settings": asdict(equal),
        "seconds_to_like_rate": None,
    }
    return row if target is None else row | own_attempts(name, env, params, plan, target)


def own_attempts(
    name: str, env: UserSimulator, params: EnvParams, plan: Plan, target: Target
) -> Row:
    """Trainings of one of our agents, with its own settings, until like_rate's reward is reached."""
    print(f"{name}: training to like_rate's reward ...", flush=True)
    config = plain_config(name)
    jax.clear_caches()
    learner = Learner.compile(ALGORITHMS[name][1](env, config), params, plan.seed)
    attempts = []
    for seed in range(plan.seed, plan.seed + plan.seeds):
        learner.restart(seed)
        attempts.append(learner.attempt(target, plan.limit_seconds))
    seconds = median_seconds(attempts)
    compiling = learner.compile_seconds
    return {
        "seconds_to_like_rate": seconds,
        "seconds_to_like_rate_with_compilation": None if seconds is None else seconds + compiling,
        "like_rate_settings": asdict(config),
        "attempts": [asdict(one) for one in attempts],
    }


def median_seconds(attempts: Iterable[Attempt]) -> float | None:
    """The median time to the target; None if half of the attempts or more did not reach it."""
    never = float("inf")
    found = [never if a.reached_seconds is None else a.reached_seconds for a in attempts]
    median = statistics.median(found)
    return None if median == never else median


# ---- Stable-Baselines3 -------------------------------------------------------------------------------------

SB3_FIGURES = ("steps_per_second", "noop_steps_per_second", "seconds_to_like_rate")
SB3_PREFIXES = {"default": "sb3_", "vector": "sb3_vector_"}
SB3_KEYS = [prefix + figure for prefix in SB3_PREFIXES.values() for figure in SB3_FIGURES]


def sb3_row(
    name: str,
    env: UserSimulator,
    params: EnvParams,
    plan: Plan,
    target: Target | None,
    sb3: ModuleType,
) -> Row:
    """What is measured of one of Stable-Baselines3's agents, by its defaults and with many environments."""
    config = plain_config(name)
    setups = {
        "default": sb3.default_setup(name, config.width, config.discount),
        "vector": sb3.vector_setup(name, config.width, config.discount, config.learning_rate),
    }
    row: Row = {}
    for kind, setup in setups.items():
        print(f"{name} of Stable-Baselines3, environments: {setup.num_envs} ...", flush=True)
        measured = sb3_speeds(kind, setup, env, params, plan, sb3)
        if target is not None:
            measured |= sb3_attempts(setup, env, params, plan, target, sb3)
        row |= {SB3_PREFIXES[kind] + figure: value for figure, value in measured.items()}
    return row


def sb3_speeds(
    kind: str, setup: Any, env: UserSimulator, params: EnvParams, plan: Plan, sb3: ModuleType
) -> Row:
    """Steps per second with learning, on the simulator and on an environment that does nothing."""
    empty = sb3.empty_envs(env, params, setup.num_envs)
    real = sb3.simulator_envs(env, params, setup.num_envs, plan.seed)
    speeds = [
        Timing.of(sb3.training_speeds(setup, envs, SB3_STEPS[kind], plan.repeats))
        for envs in (real, empty)
    ]
    return {
        "steps_per_second": speeds[0].median,
        "noop_steps_per_second": speeds[1].median,
        "quartiles": [(speed.low, speed.high) for speed in speeds],
        "setup": {
            **asdict(setup),
            "samples_per_step": setup.samples_per_step,
            "parameters": sb3.count_parameters(setup, empty),
        },
    }


def sb3_attempts(
    setup: Any,
    env: UserSimulator,
    params: EnvParams,
    plan: Plan,
    target: Target,
    sb3: ModuleType,
) -> Row:
    """Trainings until like_rate's reward is reached."""
    attempts = []
    for seed in range(plan.seed, plan.seed + plan.seeds):
        envs = sb3.simulator_envs(env, params, setup.num_envs, seed)
        attempts.append(sb3.attempt(setup, envs, target, seed, plan.limit_seconds))
    return {
        "seconds_to_like_rate": median_seconds(attempts),
        "attempts": [asdict(one) for one in attempts],
    }
