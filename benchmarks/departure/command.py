"""The command `python -m benchmarks departure`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.departure.planning import measure_planning
from benchmarks.departure.replay import (
    DRAWS,
    FOLDS,
    constant,
    kolmogorov_smirnov,
    mean_lengths,
    replayed,
)
from benchmarks.output import check_json, write_json
from jaxsim import InputError, Semantics, load_dataset
from jaxsim.departure import build_departure
from jaxsim.factory import DEPARTURE_PROBABILITY
from jaxsim.tables import format_table
from prep.departure_model import DepartureTraining


def run_departure(
    dataset: str = "ml-100k",
    semantics: tuple[Semantics, ...] = ("calibrated", "paper"),
    repeats: int = 1,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Show when users leave: the fitted hazard, session lengths beside real ones, and what planning earns.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        semantics: how users decide where planning is measured.
        repeats: sessions of each user there.
        seed: of all draws.
        json: also write the result here.
    """
    if repeats < 1:
        raise InputError(f"--repeats is {repeats}: give a whole number from 1")
    check_json(json)
    packed = load_dataset(dataset)
    build_departure(packed)  # raises if the pack has none
    entry = packed.manifest["departure"]
    config = DepartureTraining(**entry["training"])
    result: dict[str, Any] = {
        "dataset": packed.name,
        **{
            name: entry[name]
            for name in ("training", "sessions", "mean_length", "ends_seen", "tables")
        },
        "folds": FOLDS,
        "draws": DRAWS,
        "replay": {},
    }
    constant_lengths = constant(packed.arrays, config.session_gap, DEPARTURE_PROBABILITY, seed)
    for name, lengths in (
        ("training_logs", replayed(packed.arrays, config, whole=False, seed=seed)),
        ("whole_logs", replayed(packed.arrays, config, whole=True, seed=seed)),
        ("constant", constant_lengths),
    ):
        means = mean_lengths(lengths)
        result["replay"][name] = {"distance": kolmogorov_smirnov(lengths, seed), **means}
    print(format_hazard(result), flush=True)
    result["planning"] = measure_planning(packed, semantics, repeats, seed)
    print(format_planning(result))
    write_json(json, result)


def format_departure(result: Mapping[str, Any]) -> str:
    """The whole result as text."""
    return f"{format_hazard(result)}\n\n{format_planning(result)}"


def format_hazard(result: Mapping[str, Any]) -> str:
    """The tables of the hazard and of the replay."""
    chosen = result["training"]["specification"]
    rows = [
        (
            spec,
            row["term"],
            f"{row['coefficient']:+.3f}",
            f"{row['error']:.3f}",
            f"{row['low']:+.3f} to {row['high']:+.3f}",
            ("in the simulator" if spec == chosen else "clear") if row["kept"] else "dropped",
        )
        for spec, table in result["tables"].items()
        for row in table
    ]
    header = ("", "term", "log-odds", "error", "95 % interval", "")
    replay = [
        (
            name.replace("_", " "),
            f"{x['distance']['value']:.3f} ({x['distance']['low']:.3f} to {x['distance']['high']:.3f})",
            f"{x['real']:.1f}",
            f"{x['drawn']:.1f}",
        )
        for name, x in result["replay"].items()
    ]
    lengths = ("session lengths", "KS distance (95 % interval)", "real mean", "drawn mean")
    return "\n".join(
        [
            f"{result['dataset']}: {result['sessions']:,} sessions of {result['mean_length']:.1f} ratings, "
            f"{result['ends_seen']:,} ends seen",
            format_table(header, rows, left=(0, 1, 5)),
            "",
            format_table(lengths, replay, left=(0,)),
        ]
    )


def format_planning(result: Mapping[str, Any]) -> str:
    """The table of what policies earn under the fitted departure."""
    rows = [
        (
            row["semantics"],
            row["users"],
            row["policy"],
            f"{row['a_rwd']:.2f} ({row['a_rwd_low']:.2f} to {row['a_rwd_high']:.2f})",
            f"{row['over_oracle_low']:+.2f} to {row['over_oracle_high']:+.2f}",
            f"{row['over_oracle_share']:+.1%}",
            f"{row['steps']:.1f}",
        )
        for row in result["planning"]
    ]
    header = (
        "semantics",
        "users",
        "policy",
        "A.Rwd (95 % interval)",
        "over oracle",
        "share",
        "steps",
    )
    return format_table(header, rows, left=(0, 1, 2))
