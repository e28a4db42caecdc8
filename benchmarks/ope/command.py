"""The command `python -m benchmarks ope`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax

from benchmarks.checks import check_counts
from benchmarks.hardware import device_name
from benchmarks.ope.measure import TRUTH_SESSIONS, make_world, measure_pairs
from benchmarks.ope.policies import EPSILON, PAIRS, TEMPERATURE, TOP, make_policies
from benchmarks.output import check_json, write_json
from jaxsim import InputError, load_dataset, make
from jaxsim.tables import format_table

_LEVELS = {"first": "the first recommendation of a session", "session": "the likes of a session"}


def run_ope(
    dataset: str = "ml-100k",
    semantics: Literal["paper", "released", "calibrated"] = "calibrated",
    sessions: int = 2_000,
    logs: int = 40,
    horizon: int = 5,
    resamples: int = 200,
    train_steps: int = 40_960,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Show which off-policy estimator to trust: estimates from logs beside what the target policy earns here.

    Example:
        --dataset ml-100k --logs 40

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        semantics: how users decide.
        sessions: of a log.
        logs: of each logging policy.
        horizon: recommendations after which a session is cut.
        resamples: of the bootstrap.
        train_steps: environment steps of the learned policy, PPO.
        seed: of the training, the sessions and the logs.
        json: also write the result here.
    """
    check_json(json)
    check_counts(sessions=sessions, logs=logs, horizon=horizon, resamples=resamples)
    if sessions < 4 or logs < 2:
        raise InputError(
            "give --sessions from 4 and --logs from 2: errors are estimated over several"
        )
    packed = load_dataset(dataset)
    print(f"preparing the simulator of {packed.name} ...", flush=True)
    env, params = make(packed, semantics=semantics)
    if horizon > env.session_capacity:
        raise InputError(
            f"--horizon is {horizon}: a session has at most {env.session_capacity} recommendations"
        )
    policies = make_policies(packed, env, params, train_steps, seed)
    world = make_world(packed, env, params, policies, horizon, seed)
    result = {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": packed.name,
        "semantics": semantics,
        "sessions": sessions,
        "logs": logs,
        "horizon": horizon,
        "resamples": resamples,
        "train_steps": train_steps,
        "seed": seed,
        "truth_sessions": TRUTH_SESSIONS,
        "epsilon": EPSILON,
        "temperature": TEMPERATURE,
        "top": TOP,
        "values": world.values,
        "rows": measure_pairs(world, sessions, logs, resamples, seed),
    }
    print(format_ope(result))
    write_json(json, result)


def format_ope(result: Mapping[str, Any]) -> str:
    """The whole result as text: a table for each level, and which estimators had the smallest errors."""
    head = (
        f"{result['dataset']}, {result['semantics']} users: {result['logs']} logs of {result['sessions']:,} "
        f"sessions for each logging policy, sessions of at most {result['horizon']} recommendations"
    )
    return "\n\n".join([head, *(_format_level(result, level) for level in _LEVELS)])


def _format_level(result: Mapping[str, Any], level: str) -> str:
    rows = [row for row in result["rows"] if row["level"] == level]
    cells = [
        (
            row["logging"],
            row["target"],
            row["estimator"],
            f"{row['truth']:.3f}",
            f"{row['bias']:+.3f} ({row['bias_low']:+.3f} to {row['bias_high']:+.3f})",
            f"{row['rmse']:.3f}",
            f"{row['coverage']:.0%} ({row['coverage_low']:.0%} to {row['coverage_high']:.0%})",
            f"{row['width']:.3f}",
            f"{row['effective_size']:,.0f}",
            f"{row['support']:.0%}",
        )
        for row in rows
    ]
    header = (
        "logging", "target", "estimator", "truth", "bias (95 %)", "RMSE", "coverage (95 %)", "width",
        "eff. size", "support",
    )  # fmt: skip
    table = format_table(header, cells, left=(0, 1, 2))
    return f"{_LEVELS[level]}\n{table}\n{_smallest(rows)}"


def _smallest(rows: list[dict[str, Any]]) -> str:
    """How often each estimator had the smallest RMSE, and how often its intervals held what they promise."""
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    best = [
        min((r for r in rows if (r["logging"], r["target"]) == pair), key=lambda r: r["rmse"])
        for pair in PAIRS
    ]
    parts = [
        f"{name} {sum(row['estimator'] == name for row in best)}, "
        f"{sum(r['coverage_high'] >= 0.95 for r in rows if r['estimator'] == name)}"
        for name in names
    ]
    return f"of {len(PAIRS)} pairs, smallest RMSE in and coverage consistent with 95 % in: {'; '.join(parts)}"
