"""What is measured of our agents: steps per second with learning, and the time to like_rate's reward."""

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from agents.algorithms.algorithm import AlgorithmConfig
from agents.algorithms.registry import ALGORITHMS
from benchmarks.hardware import Timing
from benchmarks.training.learner import Learner
from benchmarks.training.target import Attempt, Target
from jaxsim import EnvParams, UserSimulator

PPO_EPOCHS = 10  # the default of Stable-Baselines3
DQN_SAMPLES_PER_STEP = 8  # Stable-Baselines3: a batch of 32 every 4 steps

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured; see `benchmarks.training.command.run_training`."""

    repeats: int
    limit_seconds: float
    seeds: int
    sessions: int
    seed: int
    iterations: int = 0


def plain_config(name: str) -> AlgorithmConfig:
    """An agent's default settings, with the network that Stable-Baselines3's agents get, too."""
    return replace(ALGORITHMS[name].config(), encoder="mean", item_embedding="learned")


def equal_samples(name: str, config: AlgorithmConfig) -> AlgorithmConfig:
    """The same settings, learning from each step as often as Stable-Baselines3 does by default."""
    settings: Any = config
    if name == "ppo":
        return replace(settings, num_epochs=PPO_EPOCHS)
    if name == "dqn":
        samples = DQN_SAMPLES_PER_STEP * config.steps_per_iteration
        return replace(settings, gradient_steps=max(1, samples // settings.batch_size))
    return config


def samples_per_step(name: str, config: AlgorithmConfig) -> float:
    """How many samples the policy learns from per environment step."""
    settings: Any = config
    if name == "ppo":
        return float(settings.num_epochs)
    if name == "dqn":
        return settings.gradient_steps * settings.batch_size / config.steps_per_iteration
    return 1.0


def own_row(
    name: str, env: UserSimulator, params: EnvParams, plan: Plan, target: Target | None
) -> Row:
    """What is measured of one of our agents."""
    equal = equal_samples(name, plain_config(name))
    print(f"{name}: measuring steps per second ...", flush=True)
    jax.clear_caches()  # a trace of another training would shorten the compilation
    algorithm = ALGORITHMS[name].algorithm(env, equal)
    learner = Learner.compile(algorithm, params, plan.seed, plan.iterations)
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
    learner = Learner.compile(ALGORITHMS[name].algorithm(env, config), params, plan.seed)
    seeds = range(plan.seed, plan.seed + plan.seeds)
    attempts = learner.attempts(target, seeds, plan.limit_seconds)
    seconds = median_seconds(attempts)
    total = None if seconds is None else seconds + learner.compile_seconds
    return {
        "seconds_to_like_rate": seconds,
        "seconds_to_like_rate_with_compilation": total,
        "like_rate_settings": asdict(config),
        "attempts": [asdict(attempt) for attempt in attempts],
    }


def median_seconds(attempts: Iterable[Attempt]) -> float | None:
    """The median time to the target; None if half or more of the attempts did not reach it."""
    never = float("inf")
    seconds = [never if a.reached_seconds is None else a.reached_seconds for a in attempts]
    median = statistics.median(seconds)
    return None if median == never else median
