"""The report of one or several runs of `python -m benchmarks all`: Markdown tables, a column for each device."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.suite.figures import Figure, figures_of
from benchmarks.suite.running import DONE, Record, read_record, read_result
from jaxsim import InputError
from jaxsim.tables import format_table

_VERSIONS = ("python", "jax", "jaxlib", "numpy", "commit", "devices", "dataset", "quick")


@dataclass(frozen=True)
class Run:
    """What a folder holds.

    Attributes:
        record: what was run, on which machine.
        figures: part to its figures; parts without a result are missing.
    """

    record: Record
    figures: dict[str, list[Figure]]


def read_run(folder: Path) -> Run:
    """Read a folder of `python -m benchmarks all`.

    Raises:
        InputError: it is none, or a result in it cannot be used.
    """
    record = read_record(folder)
    figures = {}
    try:
        for part in record["parts"]:
            result = read_result(folder, part["part"]) if part["kind"] else None
            if result is not None:
                figures[part["part"]] = figures_of(part["kind"], result)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{folder}: its results are of another version ({error!r}); run the benchmarks again"
        ) from None
    return Run(record, figures)


def format_runs(runs: Sequence[Run]) -> str:
    """The report: machines, parts, and a table for each part, with one column for each run."""
    names = column_names(runs)
    lines = ["# Benchmarks", "", *_machine_lines(runs, names), "", *_part_lines(runs, names)]
    for part in _in_order([list(run.figures) for run in runs]):
        lines += ["", f"## {part}", "", *_figure_lines(runs, names, part)]
    return "\n".join(lines) + "\n"


def column_names(runs: Sequence[Run]) -> list[str]:
    """The device of each run, with a number if several runs have the same."""
    devices = [run.record["device"] for run in runs]
    return [
        device if devices.count(device) == 1 else f"{device} ({devices[: i + 1].count(device)})"
        for i, device in enumerate(devices)
    ]


def _machine_lines(runs: Sequence[Run], names: list[str]) -> list[str]:
    rows = [(key, *(_text(run.record.get(key)) for run in runs)) for key in _VERSIONS]
    memory = [f"{run.record['device_memory'] / 1e9:.0f}" for run in runs]
    return _table(("", *names), [*rows, ("memory of the device GB", *memory)])


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


def _part_lines(runs: Sequence[Run], names: list[str]) -> list[str]:
    """Seconds and status of each part, then the commands."""
    parts = [{part["part"]: part for part in run.record["parts"]} for run in runs]
    order = _in_order([list(of_run) for of_run in parts])
    rows = [(f"{name}, s", *(_status(of_run.get(name)) for of_run in parts)) for name in order]
    total = [sum(part["seconds"] for part in of_run.values()) for of_run in parts]
    rows.append(("all, s", *(f"{seconds:.0f}" for seconds in total)))
    commands = []
    for name in order:
        known = dict.fromkeys(of_run[name]["command"] for of_run in parts if name in of_run)
        commands += [f"- {name}: `{command}`" for command in known]
    failed = [
        f"- {name} on {device}: {of_run[name]['status']}"
        for device, of_run in zip(names, parts, strict=True)
        for name in order
        if name in of_run and of_run[name]["status"] != DONE
    ]
    lines = ["## parts", "", *_table(("", *names), rows)]
    if failed:
        lines += ["", "Without a result:", "", *failed]
    return [*lines, "", "Commands, where DIR is a folder of one's own:", "", *commands]


def _status(part: Record | None) -> str:
    if part is None:
        return "-"
    seconds = f"{part['seconds']:.0f}"
    return seconds if part["status"] == DONE else f"{seconds}, no result"


def _figure_lines(runs: Sequence[Run], names: list[str], part: str) -> list[str]:
    of_runs = [dict(run.figures.get(part, [])) for run in runs]
    order = _in_order([list(figures) for figures in of_runs])
    return _table(
        ("", *names), [(name, *(figures.get(name, "-") for figures in of_runs)) for name in order]
    )


def _in_order(lists: Sequence[Sequence[str]]) -> list[str]:
    """All names, each once: a name that only later lists have comes after the one that it follows there."""
    order: list[str] = []
    for names in lists:
        place = 0
        for name in names:
            if name in order:
                place = order.index(name) + 1
            else:
                order.insert(place, name)
                place += 1
    return order


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    safe = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    return format_table(header, safe, markdown=True).splitlines()
