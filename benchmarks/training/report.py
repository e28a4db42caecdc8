"""The measurement of `benchmarks.training.command` as a table."""

from typing import Any

_SPEED_COLUMNS = (
    ("sb3_steps_per_second", "SB3, 1 env"),
    ("sb3_noop_steps_per_second", "SB3, empty"),
    ("sb3_vector_steps_per_second", "SB3, many envs"),
    ("sb3_vector_noop_steps_per_second", "SB3, many empty"),
)
_TARGET_COLUMNS = (
    ("sb3_seconds_to_like_rate", "SB3, 1 env"),
    ("sb3_vector_seconds_to_like_rate", "SB3, many envs"),
)


def format_report(result: dict[str, Any]) -> str:
    """The measurement as text for a terminal."""
    sb3 = result["sb3"]
    lines = [f"{result['dataset']}, {result['device']}, jax {result['jax']}"]
    if sb3 is not None:
        lines.append(
            f"SB3: Stable-Baselines3 {sb3['stable-baselines3']}, torch {sb3['torch']}, "
            f"{sb3['torch_threads']} threads"
        )
    lines += ["", *_speed_lines(result)]
    if result["like_rate_reward"] is not None:
        lines += ["", *_target_lines(result)]
    return "\n".join(lines)


def _speed_lines(result: dict[str, Any]) -> list[str]:
    lines = [
        f"steps/s with learning, medians of {result['repeats']} runs; in brackets how many times that ours is",
        f"  {'agent':6s}{'samples':>8s}{'ours':>10s}{'compile s':>11s}"
        + "".join(f"{title:>19s}" for _, title in _SPEED_COLUMNS),
    ]
    for row in result["rows"]:
        line = f"  {row['agent']:6s}{row['samples_per_step']:8.1f}{row['steps_per_second']:10,.0f}"
        line += f"{row['compile_seconds']:11.1f}"
        for key, _ in _SPEED_COLUMNS:
            line += _beside(row[key], row["steps_per_second"], ",.0f", faster_is_more=True)
        lines.append(line)
    if result["sb3"] is not None:
        lines.append(
            "samples: learned from a step of the environment; empty: an environment that does nothing"
        )
    return lines


def _target_lines(result: dict[str, Any]) -> list[str]:
    lines = [
        f"seconds of training until the greedy policy earns {result['like_rate_reward']:.2f} likes a session, as "
        f"like_rate does in the same {result['sessions']:,} sessions",
        f"  {'agent':6s}{'ours':>10s}{'and compiling':>15s}"
        + "".join(f"{title:>19s}" for _, title in _TARGET_COLUMNS),
    ]
    for row in result["rows"]:
        own, whole = row["seconds_to_like_rate"], row.get("seconds_to_like_rate_with_compilation")
        line = f"  {row['agent']:6s}{_or_dash(own):>10s}{_or_dash(whole):>15s}"
        for key, _ in _TARGET_COLUMNS:
            line += _beside(row[key], own, ".1f", faster_is_more=False)
        lines.append(line)
    lines.append(
        "ours choose among allowed items; SB3's learn what is not from rewards of 0, and are judged without it"
    )
    lines.append(
        f"- not within {result['limit_seconds']:g} s, or not within its training; or not measured"
    )
    return lines


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _beside(theirs: float | None, ours: float | None, form: str, faster_is_more: bool) -> str:
    """Their figure, and how many times ours is as good."""
    if theirs is None:
        return f"{'-':>19s}"
    if ours is None:
        return f"{format(theirs, form):>19s}"
    ratio = ours / theirs if faster_is_more else theirs / ours
    return f"{f'{format(theirs, form)} ({ratio:.1f}x)':>19s}"
