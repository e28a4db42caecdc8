"""The command `python -m benchmarks visits`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.algorithms.policy import EvaluatedPolicy
from agents.evaluation.baselines import baselines
from agents.evaluation.visits import WINDOWS
from benchmarks.departure.planning import paired_rows
from benchmarks.departure.replay import DRAWS, FOLDS
from benchmarks.output import check_json, write_json
from benchmarks.visits.replay import QUANTILES, compared, replayed
from jaxsim import Dataset, InputError, Semantics, load_dataset, make
from jaxsim.tables import format_table
from jaxsim.visits import HORIZON_DAYS, build_visits
from prep.departure_model import DepartureTraining

_POLICIES = ("random", "oracle", "oracle_planning", "static_best")
_MODEL = (
    "session_gap",
    "ends",
    "returns",
    "bic",
    "intercept",
    "weights",
    "means",
    "scales",
    "table",
)


def run_visits(
    dataset: str = "ml-100k",
    semantics: Semantics = "calibrated",
    horizon_days: float = HORIZON_DAYS,
    session_capacity: int = 200,
    repeats: int = 1,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Show whether users return: the fitted model, drawn lives beside real ones, and what policies earn in a life.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        semantics: how users decide where policies are measured.
        horizon_days: days of a life there.
        session_capacity: the most recommendations in a life there.
        repeats: lives of each user there.
        seed: of all draws.
        json: also write the result here.
    """
    if repeats < 1:
        raise InputError(f"--repeats is {repeats}: give a whole number from 1")
    check_json(json)
    packed = load_dataset(dataset)
    build_visits(packed)  # raises if the pack has none
    settings: dict[str, Any] = {
        "semantics": semantics,
        "departure": "fitted",
        "visits": True,
        "horizon_days": horizon_days,
        "session_capacity": session_capacity,
    }
    env, params = make(packed, **settings)  # raises if a setting is not valid
    entry = packed.manifest["visits"]
    config = DepartureTraining(**packed.manifest["departure"]["training"])
    result: dict[str, Any] = {
        "dataset": packed.name,
        **{name: entry[name] for name in _MODEL},
        "folds": FOLDS,
        "draws": DRAWS,
        "replay": {},
        "settings": settings,
    }
    for name in ("training_logs", "whole_logs"):
        lives = replayed(packed.arrays, config, whole=name == "whole_logs", seed=seed)
        result["replay"][name] = compared(*lives, seed)
    print(format_model(result), flush=True)
    policies = _policies(packed, env, params)
    result["policies"] = paired_rows(packed, env, params, policies, repeats, seed)
    print(f"\n{format_policies(result)}")
    write_json(json, result)


def _policies(dataset: Dataset, env: Any, params: Any) -> dict[str, EvaluatedPolicy]:
    known = baselines(dataset, env, params)
    return {name: known[name] for name in _POLICIES}


def format_visits(result: Mapping[str, Any]) -> str:
    """The whole result as text."""
    return f"{format_model(result)}\n\n{format_policies(result)}"


def format_model(result: Mapping[str, Any]) -> str:
    """The tables of the model and of the replay."""
    terms = [
        (
            row["part"],
            row["term"],
            f"{row['coefficient']:+.3f}",
            f"{row['error']:.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            "in the simulator" if row["kept"] else "dropped",
        )
        for row in result["table"]
    ]
    components = [
        (
            f"{w:.0%}",
            f"{_days(result, m):.2f}",
            f"{_days(result, m - s):.2f} to {_days(result, m + s):.2f}",
        )
        for w, m, s in zip(*(result[name] for name in ("weights", "means", "scales")), strict=True)
    ]
    header = ("on", "term", "weight", "error", "95 % interval", "")
    return "\n".join(
        [
            f"{result['dataset']}: {result['returns']:,} returns after {result['ends']:,} sessions; log-odds of a "
            f"return {result['intercept']:+.3f} with average features",
            format_table(header, terms, left=(0, 1, 5)),
            "",
            format_table(
                ("gaps: share", "median (days)", "one standard deviation around it"), components
            ),
            "",
            _format_replay(result["replay"]),
        ]
    )


def _days(result: Mapping[str, Any], log_minutes: float) -> float:
    return float((result["session_gap"] + np.exp(log_minutes)) / 1440)


def _format_replay(replay: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = []
    for name, parts in replay.items():
        logs = name.replace("_", " ")
        for key, label, form in _statistics():
            cells = [_with_interval(parts[side][key], form) for side in ("real", "drawn")]
            rows.append((logs, label, *cells))
        rows.append(
            (logs, "KS distance of gaps", "", _with_interval(parts["distance"]["gaps"], ".3f"))
        )
    return format_table(
        ("lives", "", "real (95 % interval)", "drawn (95 % interval)"), rows, left=(0, 1)
    )


def _statistics() -> list[tuple[str, str, str]]:
    """The key, the label and the format of each statistic of lives."""
    return [
        ("sessions_per_life", "sessions", ".2f"),
        *((f"retention_{d}", f"back within {d} day{'s' * (d > 1)}", ".1%") for d in WINDOWS),
        *((f"gap_{q:.0%}", f"{q:.0%} of gaps up to (days)", ".2f") for q in QUANTILES),
    ]


def _with_interval(x: Mapping[str, float], form: str) -> str:
    return f"{x['value']:{form}} ({x['low']:{form}} to {x['high']:{form}})"


def format_policies(result: Mapping[str, Any]) -> str:
    """The table of what policies earn in a life."""
    rows = [
        (
            row["users"],
            row["policy"],
            f"{row['a_rwd']:.2f} ({row['a_rwd_low']:.2f} to {row['a_rwd_high']:.2f})",
            f"{row['over_oracle_low']:+.2f} to {row['over_oracle_high']:+.2f}",
            f"{row['steps']:.1f}",
            f"{row['cut']:.1%}",
            f"{row['sessions_per_life']:.2f}",
            *(f"{row[f'retention_{days}']:.1%}" for days in WINDOWS),
            f"{row['days_active']:.2f}",
            f"{row['days_first_to_last']:.1f}",
        )
        for row in result["policies"]
    ]
    header = (
        "users", "policy", "A.Rwd of a life (95 %)", "over oracle", "steps", "cut", "sessions",
        *(f"{days} d" for days in WINDOWS), "active days", "first to last",
    )  # fmt: skip
    settings = result["settings"]
    return (
        f"{settings['semantics']} users, lives of {settings['horizon_days']:g} days and at most "
        f"{settings['session_capacity']} steps\n{format_table(header, rows, left=(0, 1))}"
    )
