"""The result of `python -m benchmarks training` as text for a terminal."""

from collections.abc import Sequence
from typing import Any

from jaxsim.tables import format_table

_SPEED_COLUMNS = {
    "sb3_steps_per_second": "SB3, 1 env",
    "sb3_noop_steps_per_second": "SB3, empty",
    "sb3_vector_steps_per_second": "SB3, many envs",
    "sb3_vector_noop_steps_per_second": "SB3, many empty",
}
_TARGET_COLUMNS = {
    "sb3_seconds_to_like_rate": "SB3, 1 env",
    "sb3_vector_seconds_to_like_rate": "SB3, many envs",
}


def format_report(result: dict[str, Any]) -> str:
    """What was measured, on which machine."""
    return "\n".join([*_title_lines(result), "", format_results(result)])


def format_results(result: dict[str, Any]) -> str:
    """The two tables: speeds, and the time to like_rate's reward if that was measured."""
    lines = _speed_lines(result)
    if result["like_rate_reward"] is not None:
        lines += ["", *_target_lines(result)]
    return "\n".join(lines)


def _title_lines(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['dataset']}, {result['device']}, jax {result['jax']}"]
    sb3 = result["sb3"]
    if sb3 is not None:
        lines.append(
            f"SB3: Stable-Baselines3 {sb3['stable-baselines3']}, torch {sb3['torch']}, "
            f"{sb3['torch_threads']} threads"
        )
    return lines


def _speed_lines(result: dict[str, Any]) -> list[str]:
    rows = []
    for row in result["rows"]:
        ours = row["steps_per_second"]
        theirs = (_beside(row[key], ours, ",.0f", more_is_better=True) for key in _SPEED_COLUMNS)
        rows.append(
            (
                row["agent"],
                f"{row['samples_per_step']:.1f}",
                f"{ours:,.0f}",
                f"{row['compile_seconds']:.1f}",
                *theirs,
            )
        )
    header = ("agent", "samples", "ours", "compile s", *_SPEED_COLUMNS.values())
    lines = [
        f"steps/s with learning, median of {result['repeats']} runs; in brackets: ours / theirs",
        *_table_lines(header, rows),
    ]
    if result["sb3"] is not None:
        lines.append(
            "samples: how often a step is learned from; empty: an environment that does nothing"
        )
    return lines


def _target_lines(result: dict[str, Any]) -> list[str]:
    rows = []
    for row in result["rows"]:
        ours, total = row["seconds_to_like_rate"], row.get("seconds_to_like_rate_with_compilation")
        theirs = (_beside(row[key], ours, ".1f", more_is_better=False) for key in _TARGET_COLUMNS)
        rows.append((row["agent"], _seconds(ours), _seconds(total), *theirs))
    header = ("agent", "ours", "with compiling", *_TARGET_COLUMNS.values())
    return [
        f"seconds of training until the greedy policy earns {result['like_rate_reward']:.2f} likes a session, as "
        f"like_rate does in the same {result['sessions']:,} sessions",
        *_table_lines(header, rows),
        "ours choose among allowed items; SB3's agents learn which are allowed, and are judged on allowed ones",
        f"-: not measured, or not reached within {result['limit_seconds']:g} s or within the agent's training",
    ]


def _table_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in format_table(header, rows).splitlines()]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _beside(theirs: float | None, ours: float | None, form: str, more_is_better: bool) -> str:
    """Their figure, and how many times as good ours is."""
    if theirs is None:
        return "-"
    if ours is None:
        return format(theirs, form)
    ratio = ours / theirs if more_is_better else theirs / ours
    return f"{format(theirs, form)} ({ratio:.1f}x)"
