"""The figures of each part, with the same names on every device, so that devices can stand side by side."""

from collections.abc import Callable
from typing import Any

Figure = tuple[str, str]
"""What was measured, and its value as text."""


def figures_of(kind: str, result: Any) -> list[Figure]:
    """The figures in the JSON of a command."""
    return _FIGURES[kind](result)


def _number(value: float | None, form: str = ",.0f") -> str:
    return "-" if value is None else format(value, form)


def _gigabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f}"


def _throughput(result: Any) -> list[Figure]:
    best, memory = result["best"], result["memory"]
    figures = [
        (f"steps/s, {row['batch']:,} sessions at once", _number(row["steps_per_second"]))
        for row in result["rows"]
    ]
    figures += [
        ("steps/s, best", f"{best['steps_per_second']:,.0f} ({best['batch']:,} at once)"),
        ("bound, steps/s", _number(result["bound_steps_per_second"])),
        ("share of the bound", f"{result['fraction_of_bound']:.1%}"),
        ("compilation s, best", f"{best['compile_seconds']:.1f}"),
        ("`jaxsim.make` s", f"{result['make_seconds']:.1f}"),
        ("speed with automatic reset / without", f"{result['reset']['ratio']:.3f}"),
        ("bytes a session", _number(memory["state_bytes_per_session"])),
        ("params GB", _gigabytes(memory["params_bytes"])),
        ("peak of the process GB", _gigabytes(memory["peak_process_bytes"])),
        ("peak of the device GB", _gigabytes(memory["peak_device_bytes"])),
    ]
    return figures + [
        (
            f"semantics {row['semantics']} / paper, {row['batch']:,} sessions at once",
            f"{row['ratio']:.2f}",
        )
        for row in result.get("semantics", [])
    ]


def _options(result: Any) -> list[Figure]:
    base, *others = result["rows"]
    at_once = f"{result['sessions']:,} sessions at once"
    return [
        (f"{base['option']}, steps/s, {at_once}", _number(base["steps_per_second"])),
        *((f"{row['option']}, share of that", f"{row['ratio']:.2f}") for row in others),
    ]


def _agreement(result: Any) -> list[Figure]:
    figures = []
    for row in result["rows"]:
        name = f"{row['catalogue']}, {row['precision']} precision"
        decisions, sessions = row["decisions"], row["sessions"]
        largest = decisions["largest_difference"]["sta_probability"]
        figures += [
            (f"{name}: equal responses", f"{decisions['equal_responses']:.4%}"),
            (f"{name}: largest difference of f_sta", f"{largest:.1e}"),
            (f"{name}: identical sessions", f"{sessions['identical']:.4%}"),
            (f"{name}: steps/s", _number(row["speed"]["steps_per_second"])),
        ]
    return figures


def _training(result: Any) -> list[Figure]:
    figures = []
    for row in result["rows"]:
        agent = row["agent"]
        figures += [
            (f"{agent}: steps/s with learning", _number(row["steps_per_second"])),
            (f"{agent}: compilation s", f"{row['compile_seconds']:.1f}"),
        ]
        if result["like_rate_reward"] is not None:
            total = row.get("seconds_to_like_rate_with_compilation")
            figures += [
                (f"{agent}: s to like_rate", _number(row["seconds_to_like_rate"], ".1f")),
                (f"{agent}: s to like_rate with compilation", _number(total, ".1f")),
            ]
    return figures


def _to_oracle(result: Any) -> list[Figure]:
    name = f"{result['agent']} to {result['share']:.0%} of the way from random to oracle"
    return [
        (f"{name}: s of training", _number(result["seconds"], ".1f")),
        (f"{name}: s with compilation", _number(result["seconds_with_compilation"], ".1f")),
        (f"{name}: trainings that get there", f"{result['reached']} of {len(result['attempts'])}"),
    ]


def _seeds(result: Any) -> list[Figure]:
    figures = []
    for row in result["rows"]:
        name = f"{result['agent']}, {row['seeds']} seeds"
        figures += [
            (f"{name}: steps/s of all", _number(row["steps_per_second"])),
            (f"{name}: compilation s", f"{row['compile_seconds']:.1f}"),
            (f"{name}: s of a whole training", f"{row['seconds']:.1f}"),
            (f"{name}: program GB", _gigabytes(row["program_bytes"])),
        ]
    return figures


def _evaluation(result: Any) -> list[Figure]:
    steps = result["session_steps"]
    figures = [
        (f"{row['policy']}: steps/s", _number(steps / row["seconds"])) for row in result["rows"]
    ]
    first = sum(row["first_seconds"] for row in result["rows"])
    return [
        *figures,
        (f"all policies, {result['sessions']:,} sessions, with compilation: s", f"{first:.1f}"),
        ("ranking of the items: s", f"{result['ranking_seconds']:.1f}"),
    ]


def _table2(result: Any) -> list[Figure]:
    seeds = result["seeds"]
    figures = [
        (
            f"{row['policy']}, {row['users']} users: A.Rwd",
            f"{row['a_rwd']:.2f} ({row['a_rwd_low']:.2f} to {row['a_rwd_high']:.2f})",
        )
        for row in result["rows"]
        if row["mode"] != "sampled" and row["users"] == "train"
    ]
    for agent, cost in result["training"].items():
        figures += [
            (f"{agent}: s of training {seeds} seeds", f"{cost['seconds']:.1f}"),
            (f"{agent}: compilation s", f"{cost['compile_seconds']:.1f}"),
        ]
    return [*figures, ("evaluation of all: s", f"{result['evaluation_seconds']:.1f}")]


def _rivals(result: Any) -> list[Figure]:
    return [
        (
            " ".join(filter(None, (row["simulator"], row["setting"]))),
            row["error"]
            if row["error"] is not None
            else f"{row['steps_per_second']:,.0f} ({row['items']:,} items)",
        )
        for row in result["rows"]
    ]


_FIGURES: dict[str, Callable[[Any], list[Figure]]] = {
    "throughput": _throughput,
    "options": _options,
    "agreement": _agreement,
    "training": _training,
    "to-oracle": _to_oracle,
    "seeds": _seeds,
    "evaluation": _evaluation,
    "table2": _table2,
    "rivals": _rivals,
}
