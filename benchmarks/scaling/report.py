"""The result of `python -m benchmarks scaling` as text."""

from collections.abc import Mapping
from typing import Any

from jaxsim.tables import format_table


def format_scaling(result: Mapping[str, Any]) -> str:
    """The prediction as text for a terminal."""
    case, expected = result["case"], result["prediction"]
    of = (
        f"{case['seeds']} seeds of {case['steps']:,} steps"
        if case["seeds"] > 1
        else f"{case['steps']:,} steps"
    )
    chosen = "" if case["candidates"] is None else f" over {case['candidates']:,} candidates"
    memory = result["device_memory"]
    rows = [
        (
            f"{case['algorithm']}{chosen}, {of}",
            f"{expected['training_seconds']:,.1f}",
            f"{expected['training_compile_seconds']:.1f}",
            f"{expected['training_steps_per_second']:,.0f}",
            f"{expected['training_bytes'] / 1e9:.2f}",
        ),
        (
            f"evaluation of {case['users']:,} users, baselines and seeds",
            f"{expected['evaluation_seconds']:,.1f}",
            f"{expected['evaluation_compile_seconds']:.1f}",
            "",
            "",
        ),
        (
            f"environment alone, {case['sessions']:,} sessions at once",
            "",
            "",
            f"{expected['environment_steps_per_second']:,.0f}",
            f"{expected['environment_bytes'] / 1e9:.2f}",
        ),
    ]
    lines = [
        f"{case['items']:,} items, {case['users']:,} users, on {result['device']}, jax {result['jax']}",
        format_table(("expected", "seconds", "compilation s", "steps/s", "GB"), rows),
    ]
    if expected["training_bytes"] > memory:
        lines.append(f"this does not fit the device's memory of {memory / 1e9:.0f} GB")
    lines += [
        f"{check['dataset']}, {check['items']:,} items: an iteration takes {check['seconds']:.3f} s, and the "
        f"formula says {check['predicted_seconds']:.3f} s: {check['ratio']:.2f} times as much"
        for check in result["checks"]
    ]
    return "\n".join(lines)


def format_constants(result: Mapping[str, Any]) -> str:
    """The constants of the formulas as a Markdown table for docs/scaling.md."""
    constants = result["constants"]
    environment, evaluation = constants["environment"]["seconds"], constants["evaluation"]
    rows = [
        (
            "a step of all sessions, of each session, of each number of an embedding",
            "e0, e1, e2",
            _micro(environment),
        ),
    ]
    for name, entry in constants["training"].items():
        used = 4 if name.endswith("candidates") else 3
        times, sizes = (", ".join(f"{letter}{i}" for i in range(used)) for letter in "tm")
        held = ", ".join(f"{x:,.0f}" for x in entry["bytes"][:used])
        steps = entry["steps_per_iteration"]
        rows += [
            (
                f"an iteration of {name}, R = {steps:,} steps",
                times,
                _micro(entry["seconds"][:used]),
            ),
            ("its bytes", sizes, held),
            ("its compilation, seconds", "", f"{entry['compile_seconds']:.1f}"),
        ]
    rows += [
        (f"a step of one session in an evaluation: {name}", "n0, n1", _micro(evaluation[kind]))
        for kind, name in (
            ("network", "a network"),
            ("fixed", "a fixed ranking"),
            ("oracle", "the oracle"),
        )
    ]
    rows += [
        ("ranking the items, and each of them for a user", "r0, r1", _micro(evaluation["ranking"])),
        ("compilation of the evaluation, seconds", "", f"{evaluation['compile_seconds']:.1f}"),
    ]
    header = ("what", "constants", "microseconds, unless said otherwise")
    return format_table(header, rows, markdown=True, left=(0, 1))


def _micro(seconds: list[float]) -> str:
    """Seconds as microseconds, with three significant digits; less than a nanosecond is 0."""
    return ", ".join(
        f"{float(f'{1e6 * value:.3g}'):,.10g}" if value >= 1e-9 else "0" for value in seconds
    )
