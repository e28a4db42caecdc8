"""Satiation: what the training labels show of it, and what policies would earn if users tired more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.evaluation.baselines import baselines
from agents.evaluation.intervals import mean_interval
from agents.evaluation.sessions import fixed_sessions, run_sessions
from benchmarks.output import check_json, write_json
from jaxsim import Dataset, InputError, load_dataset, make
from jaxsim.tables import format_table
from prep.satiation_model import SPECIFICATION, train_satiation

POLICIES = ("random", "static_best", "oracle")
STRENGTHS = (0.0, 0.5, 1.0, 2.0)


def run_satiation(
    dataset: str = "ml-100k",
    strengths: tuple[float, ...] = STRENGTHS,
    repeats: int = 1,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Show whether users tire of the same thing in a row, and what policies earn if they are made to.

    The fit is made here, from the pack, whether the pack has one or not.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        strengths: numbers for `jaxsim.make(satiation=)`, of users of the taste model ("calibrated").
        repeats: sessions of each training user.
        seed: of the sessions.
        json: also write the result here.
    """
    if repeats < 1:
        raise InputError(f"--repeats is {repeats}: give a whole number from 1")
    check_json(json)
    packed = load_dataset(dataset)
    if packed.taste is None:
        raise InputError(f"{dataset}: has no taste model; build it again with this version")
    entry = train_satiation(packed.arrays, packed.taste, packed.manifest["taste"])
    result: dict[str, Any] = {"dataset": packed.name, "fit": entry, "sessions": []}
    print(format_fit(result), flush=True)
    for strength in strengths:
        result["sessions"] += measure(packed, strength, repeats, seed)
    print(format_sessions(result))
    write_json(json, result)


def measure(dataset: Dataset, strength: float, repeats: int, seed: int) -> list[dict[str, Any]]:
    """What each policy earns from training users who tire by this number; a row for each.

    Args:
        dataset: with a taste model.
        strength: of `jaxsim.make(satiation=)`.
        repeats: sessions of each user.
        seed: of the sessions, which are the same for every strength and policy.
    """
    env, params = make(dataset, semantics="calibrated", satiation=strength)
    policies = baselines(dataset, env, params)
    sessions = fixed_sessions(jax.random.key(seed), env, params, repeats)
    owners = np.asarray(jnp.repeat(params.session_users, repeats))
    rows = []
    for name in POLICIES:
        outcome = run_sessions(env, params, policies[name], sessions)
        print(f"satiation {strength:g}: {name} done", flush=True)
        low, high = mean_interval(outcome.returns[None], owners)
        has_diversity = ~np.isnan(outcome.diversity)
        rows.append(
            {
                "satiation": strength,
                "policy": name,
                "sessions": len(outcome.returns),
                "a_rwd": float(outcome.returns.mean()),
                "a_rwd_low": low,
                "a_rwd_high": high,
                "like_rate": float(outcome.returns.sum() / np.asarray(sessions.durations).sum()),
                "diversity": float(outcome.diversity[has_diversity].mean()),
            }
        )
    return rows


def format_satiation(result: Mapping[str, Any]) -> str:
    """The whole result as text."""
    return f"{format_fit(result)}\n\n{format_sessions(result)}"


def format_fit(result: Mapping[str, Any]) -> str:
    """The table of the fit, or why there is none."""
    fit = result["fit"]
    if "reason" in fit:
        return f"{result['dataset']}: no fit: {fit['reason']}"
    rows = [
        (
            table,
            row["term"],
            f"{row['coefficient']:+.3f}",
            f"{row['error']:.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            _judged(row),
        )
        for table, of_table in fit["tables"].items()
        for row in of_table
    ]
    verdict = "satiation" if fit["shows"] else "no satiation"
    labels = f"{fit['interactions']:,} training labels of {fit['users']:,} users"
    header = ("", "term", "log-odds", "error", "95 % interval", "")
    return "\n".join(
        [
            f"{result['dataset']}: {labels} show {verdict} ({SPECIFICATION})",
            format_table(header, rows, left=(0, 1, 5)),
        ]
    )


def _judged(row: Mapping[str, Any]) -> str:
    if not row["kept"]:
        return "dropped"
    return "satiation" if row["coefficient"] < 0 else "the contrary"


def format_sessions(result: Mapping[str, Any]) -> str:
    """The table of what policies earn."""
    rows = [
        (
            f"{row['satiation']:g}",
            row["policy"],
            f"{row['a_rwd']:.2f} ({row['a_rwd_low']:.2f} to {row['a_rwd_high']:.2f})",
            f"{row['like_rate']:.3f}",
            f"{row['diversity']:.3f}",
        )
        for row in result["sessions"]
    ]
    header = ("satiation", "policy", "A.Rwd (95 % interval)", "like rate", "diversity")
    return format_table(header, rows, left=(1,))
