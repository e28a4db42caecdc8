"""`python -m benchmarks evaluation`: how long it takes to evaluate policies in fixed sessions.

Every policy is run twice. The first run also compiles; the second one is what a further seed or group of users
takes.
"""

import time
from pathlib import Path
from typing import Any

import jax

from agents.algorithms.policy import EvaluatedPolicy
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.baselines import baselines
from agents.evaluation.sessions import FixedSessions, run_sessions
from benchmarks.checks import check_agent, check_counts, with_candidates
from benchmarks.hardware import device_name, seconds_of
from benchmarks.output import check_json, write_json
from benchmarks.training.target import spread_sessions
from jaxsim import EnvParams, UserSimulator, load_dataset, make
from jaxsim.tables import format_table

SESSIONS = 2048

Row = dict[str, Any]


def run_evaluation(
    dataset: str = "ml-100k",
    agent: str = "ppo",
    candidates: int | None = None,
    sessions: int = SESSIONS,
    json: Path | None = None,
) -> None:
    """Measure how long the evaluation of each baseline and of a network takes.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        agent: one of ppo, trpo, a2c, dqn, whose network is evaluated before any training.
        candidates: setting of the agent: choose among so many candidates in place of all items.
        sessions: fixed sessions; not more than there are session users.
        json: also write the result here.
    """
    check_json(json)
    check_agent(agent)
    check_counts(sessions=sessions)
    config = with_candidates(ALGORITHMS[agent].config(), candidates)
    packed = load_dataset(dataset)
    print(f"preparing the simulator of {packed.name} ...", flush=True)
    env, params = make(packed)
    print("ranking items for the baselines ...", flush=True)
    begin = time.perf_counter()
    policies: dict[str, EvaluatedPolicy] = dict(
        jax.block_until_ready(baselines(packed, env, params))
    )
    ranking_seconds = time.perf_counter() - begin
    trainer = ALGORITHMS[agent].algorithm(env, config)
    start = jax.jit(trainer.init)(jax.random.key(0), params)
    policies[agent] = trainer.policy_of(trainer.variables(start))
    fixed = spread_sessions(env, params, sessions, seed=0)
    result = {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": packed.name,
        "items": env.num_items,
        "agent": agent,
        "candidates": candidates,
        "sessions": len(fixed.users),
        "session_steps": int(fixed.durations.sum()),
        "ranking_seconds": ranking_seconds,
        "rows": [time_policy(name, p, env, params, fixed) for name, p in policies.items()],
    }
    print(format_evaluation(result))
    write_json(json, result)


def time_policy(
    name: str,
    policy: EvaluatedPolicy,
    env: UserSimulator,
    params: EnvParams,
    sessions: FixedSessions,
) -> Row:
    """`policy`, and the `first_seconds` and `seconds` of a first and a second run in the same sessions."""
    print(f"evaluating {name} ...", flush=True)
    first, second = (
        seconds_of(lambda: run_sessions(env, params, policy, sessions)) for _ in range(2)
    )
    return {"policy": name, "first_seconds": first, "seconds": second}


def format_evaluation(result: dict[str, Any]) -> str:
    """The content of `--json` as text for a terminal."""
    table = [
        (
            row["policy"],
            f"{row['first_seconds']:.2f}",
            f"{row['seconds']:.2f}",
            f"{result['session_steps'] / row['seconds']:,.0f}",
        )
        for row in result["rows"]
    ]
    title = (
        f"{result['dataset']}, {result['items']:,} items: {result['sessions']:,} fixed sessions with "
        f"{result['session_steps']:,} steps, {result['device']}, jax {result['jax']}"
    )
    header = ("policy", "first run s", "again s", "steps/s")
    last = f"ranking all items for the baselines took {result['ranking_seconds']:.1f} s"
    return "\n".join([title, format_table(header, table), last])
