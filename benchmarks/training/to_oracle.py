"""`python -m benchmarks to-oracle`: how long an agent trains until it earns nearly what the oracle does.

The way from random recommendations to the oracle is measured in fixed sessions of training users. A training has
arrived when its greedy policy earns a given share of this way in the same sessions.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax

from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.baselines import baselines
from benchmarks.checks import check_agent, check_counts, with_candidates
from benchmarks.hardware import device_name
from benchmarks.output import check_json, write_json
from benchmarks.training.learner import Learner
from benchmarks.training.own_agents import median_seconds
from benchmarks.training.target import SESSIONS_SEED, Attempt, Target, spread_sessions
from jaxsim import Dataset, EnvParams, InputError, UserSimulator, load_dataset, make


def run_to_oracle(
    dataset: str = "ml-100k",
    agent: str = "ppo",
    share: float = 0.95,
    candidates: int | None = None,
    seeds: int = 3,
    seed: int = 0,
    sessions: int = 512,
    limit_seconds: float = 240.0,
    json: Path | None = None,
) -> None:
    """Measure how long an agent trains until it earns a share of what the oracle earns.

    Example:
        --agent ppo --seeds 5

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        agent: one of ppo, trpo, a2c, dqn, with its default settings.
        share: of the way from random recommendations to the oracle.
        candidates: setting of the agent: choose among so many candidates in place of all items.
        seeds: trainings, one after the other; the median counts.
        seed: of the first one, and number of the set of fixed sessions.
        sessions: fixed sessions in which the reward is measured.
        limit_seconds: longest training.
        json: also write the result here.
    """
    check_json(json)
    check_agent(agent)
    check_counts(seeds=seeds, sessions=sessions)
    _check(share, limit_seconds)
    config = with_candidates(ALGORITHMS[agent].config(), candidates)
    packed = load_dataset(dataset)
    env, params = make(packed)
    target, random, oracle = oracle_target(packed, env, params, share, sessions, seed)
    print(f"{agent}: training to {target.reward:.2f} likes a session ...", flush=True)
    jax.clear_caches()  # a trace of another program would shorten the compilation
    learner = Learner.compile(ALGORITHMS[agent].algorithm(env, config), params, seed)
    attempts = learner.attempts(target, range(seed, seed + seeds), limit_seconds)
    result = {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": packed.name,
        "items": env.num_items,
        "agent": agent,
        "settings": asdict(config),
        "share": share,
        "sessions": sessions,
        "sessions_seed": SESSIONS_SEED + seed,
        "random_reward": random,
        "oracle_reward": oracle,
        "target_reward": target.reward,
        "limit_seconds": limit_seconds,
        "compile_seconds": learner.compile_seconds,
        **summary(attempts, learner.compile_seconds),
        "attempts": [asdict(attempt) for attempt in attempts],
    }
    print(format_to_oracle(result))
    write_json(json, result)


def _check(share: float, limit_seconds: float) -> None:
    """Check what is no whole number."""
    if not 0 < share <= 1:
        raise InputError(f"--share {share}: give a number above 0, up to 1")
    if not 0 < limit_seconds < float("inf"):
        raise InputError(f"--limit-seconds {limit_seconds}: give seconds above 0")


def oracle_target(
    dataset: Dataset, env: UserSimulator, params: EnvParams, share: float, sessions: int, seed: int
) -> tuple[Target, float, float]:
    """The target at a share of the way from random to the oracle, and what random and the oracle earn."""
    print(
        f"{dataset.name}: measuring what random recommendations and the oracle earn ...", flush=True
    )
    target = Target(env, params, spread_sessions(env, params, sessions, seed), reward=0.0)
    known = baselines(dataset, env, params)
    random, oracle = (target.mean_reward(known[name]) for name in ("random", "oracle"))
    return replace(target, reward=random + share * (oracle - random)), random, oracle


def summary(attempts: Iterable[Attempt], compile_seconds: float) -> dict[str, float | int | None]:
    """`reached`: how many arrived; the median `seconds` of training, without and `with_compilation`."""
    attempts = list(attempts)
    seconds = median_seconds(attempts)
    return {
        "reached": sum(attempt.reached_seconds is not None for attempt in attempts),
        "seconds": seconds,
        "seconds_with_compilation": None if seconds is None else seconds + compile_seconds,
    }


def format_to_oracle(result: dict[str, Any]) -> str:
    """The content of `--json` as text for a terminal."""
    count = len(result["attempts"])
    head = (
        f"{result['dataset']}: {result['agent']}, until its greedy policy earns {result['target_reward']:.2f} "
        f"likes a session, {result['share']:.0%} of the way from random ({result['random_reward']:.2f}) to the "
        f"oracle ({result['oracle_reward']:.2f}), {result['device']}, jax {result['jax']}"
    )
    if result["seconds"] is None:
        best = max(reward for attempt in result["attempts"] for _, _, reward in attempt["curve"])
        tail = f"the median training does not get there; the best evaluation was {best:.2f}"
    else:
        tail = (
            f"{result['seconds']:.1f} s of training, {result['seconds_with_compilation']:.1f} s with compilation "
            f"(median of {count} seeds)"
        )
    return "\n".join([head, f"{result['reached']} of {count} trainings get there; {tail}"])
