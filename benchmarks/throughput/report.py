"""The result of `python -m benchmarks throughput` as text for a terminal."""

from typing import Any

from benchmarks.throughput.vote_cost import CANDIDATES
from jaxsim.tables import format_table

_STEADY = 0.8  # the report warns if the slower copy is below this share of the faster one

Row = dict[str, Any]


def format_report(result: dict[str, Any]) -> str:
    """Speeds, their bound, memory, and what each vote costs if that was measured."""
    lines = [
        f"{result['dataset']}: {result['items']:,} items, {result['users']:,} users, {result['device']}, "
        f"jax {result['jax']}",
        f"item pairs from {result['catalogue']}, encoded initial histories: {result['prefixes']}; "
        f"made in {result['make_seconds']:.1f} s",
        "",
        *_speed_lines(result),
        *_device_lines(result["rows"]),
        "",
        *_bound_lines(result),
        "",
        *_memory_lines(result),
    ]
    if result.get("semantics"):
        lines += ["", *_semantics_lines(result["semantics"])]
    if result.get("votes"):
        lines += ["", *vote_lines(result["votes"])]
    return "\n".join(lines)


def _speed_lines(result: dict[str, Any]) -> list[str]:
    header = ("sessions", "steps/s", "(quartiles)", "of bound", "compile s", "program MB")
    rows = [
        (
            f"{row['batch']:,}",
            f"{row['steps_per_second']:,.0f}",
            f"({row['low_quartile']:,.0f} to {row['high_quartile']:,.0f})",
            f"{row['steps_per_second'] / result['bound_steps_per_second']:.1%}",
            f"{row['compile_seconds']:.1f}",
            "-" if row["program_bytes"] is None else f"{row['program_bytes'] / 1e6:,.0f}",
        )
        for row in result["rows"]
    ]
    reset = result["reset"]
    return [
        format_table(header, rows, left=()),
        f"with automatic reset {reset['with_reset']:,.0f} steps/s, the same program without it "
        f"{reset['without_reset']:,.0f}: ratio {reset['ratio']:.3f} "
        f"({reset['low_quartile']:.3f} to {reset['high_quartile']:.3f}), {reset['batch']:,} sessions",
    ]


def _device_lines(rows: list[Row]) -> list[str]:
    """How much faster several devices are than one."""
    header = ("sessions", "devices", "steps/s on one", "ratio", "(quartiles)")
    table = [
        (
            f"{row['batch']:,}",
            str(row["devices"]),
            f"{row['one_device']['steps_per_second']:,.0f}",
            f"{row['one_device']['ratio']:.2f}",
            f"({row['one_device']['low_quartile']:.2f} to {row['one_device']['high_quartile']:.2f})",
        )
        for row in rows
        if "one_device" in row
    ]
    if not table:
        return []
    title = "sessions split over devices, beside the same program on one device, in turn"
    return ["", title, *format_table(header, table, left=()).splitlines()]


def _bound_lines(result: dict[str, Any]) -> list[str]:
    step, measured, bounds = result["step"], result["measured"], result["bounds"]
    lines = [
        f"bound {result['bound_steps_per_second']:,.0f} steps/s, the lower of",
        f"  memory  {bounds['copy']:12,.0f}   {step['bytes']:,} bytes a step, copied at "
        f"{measured['copy_bytes_per_second'] / 1e9:.1f} GB/s (reading alone: "
        f"{measured['read_bytes_per_second'] / 1e9:.1f} GB/s)",
        f"  matmul  {bounds['matmul']:12,.0f}   {step['flops']:,} operations a step, at "
        f"{measured['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s",
        f"the best batch reaches {result['fraction_of_bound']:.1%} of the bound",
    ]
    low, high = sorted(measured["copy_before_and_after"])
    if low < _STEADY * high:
        lines.append(
            f"the machine was not steady: it copied {low / 1e9:.1f} and {high / 1e9:.1f} GB/s before and after; "
            "the higher figure counts"
        )
    if any(row["steps_per_second"] > result["bound_steps_per_second"] for row in result["rows"]):
        lines.append(
            "a batch that stays in the processor's caches, or a step that reads more than it writes, can pass the "
            "bound of copying through memory"
        )
    return lines


def _memory_lines(result: dict[str, Any]) -> list[str]:
    memory = result["memory"]
    line = (
        f"memory: {memory['state_bytes_per_session']:,} bytes a session, "
        f"{memory['params_bytes'] / 1e6:,.1f} MB of params; peak of the process "
        f"{memory['peak_process_bytes'] / 1e6:,.0f} MB"
    )
    if memory["peak_device_bytes"] is not None:
        line += f", of the device {memory['peak_device_bytes'] / 1e6:,.0f} MB"
    return [line]


def _semantics_lines(rows: list[Row]) -> list[str]:
    header = ("semantics", "sessions", "steps/s", "of paper", "(quartiles)", "of bound", "bytes")
    table = [
        (
            row["semantics"],
            f"{row['batch']:,}",
            f"{row['steps_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
            f"({row['low_quartile']:.2f} to {row['high_quartile']:.2f})",
            f"{row['steps_per_second'] / row['bound_steps_per_second']:.1%}",
            f"{row['state_bytes']:,}",
        )
        for row in rows
    ]
    title = "every semantics in turn; bytes of a session's state"
    return [title, *format_table(header, table).splitlines()]


def vote_lines(rows: list[Row]) -> list[str]:
    """The table of votes: a line for each vote, path and catalogue size, a column for each history length."""
    histories = sorted({row["history"] for row in rows})
    microseconds = {
        (row["vote"], row["catalogue"] or "-", row["items"], row["history"]): row["microseconds"]
        for row in rows
    }
    kinds = sorted({key[:3] for key in microseconds})
    table = [
        (*kind[:2], f"{kind[2]:,}", *(f"{microseconds[*kind, h]:.2f}" for h in histories))
        for kind in kinds
    ]
    title = (
        f"microseconds per decision of each vote alone ({CANDIDATES:,} at once), by history length"
    )
    header = ("vote", "catalogue", "items", *map(str, histories))
    return [title, *format_table(header, table, left=(0, 1)).splitlines()]
