"""What is measured of Stable-Baselines3's agents.

The module `benchmarks.training.sb3`, which needs torch, is passed in: this one can be imported without it.
"""

from dataclasses import asdict
from types import ModuleType
from typing import Any

from benchmarks.hardware import Timing
from benchmarks.training.own_agents import Plan, Row, median_seconds, plain_config
from benchmarks.training.target import Target
from jaxsim import EnvParams, UserSimulator

SB3_STEPS = {"default": 2048, "vector": 16384}  # of a timed run
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
    """What is measured of one of Stable-Baselines3's agents, with its defaults and with many environments."""
    config = plain_config(name)
    setups = {
        "default": sb3.default_setup(name, config.width, config.gamma),
        "vector": sb3.vector_setup(name, config.width, config.gamma, config.learning_rate),
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
        "attempts": [asdict(attempt) for attempt in attempts],
    }
