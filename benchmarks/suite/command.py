"""`python -m benchmarks all`: all measurements of speed and size, and `report`: several devices side by side."""

import tempfile
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.rivals.command import interpreters_of
from benchmarks.suite.plan import Plan, chosen_parts, parts_of
from benchmarks.suite.report import format_runs, read_run
from benchmarks.suite.running import (
    DONE,
    Record,
    describe_machine,
    ended_with_its_parts,
    run_parts,
    write_record,
)
from jaxsim import InputError, load_dataset
from jaxsim.files import check_file, check_writable, write_text

REPORT = "report.md"
QUICK_SECONDS = 510.0
"""Of a quick run on an accelerator: under nine minutes with the start and the end."""


def run_all(
    out: Path,
    dataset: str = "ml-100k",
    quick: bool = False,
    only: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
    total_seconds: float | None = None,
    python: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    beside: tuple[Path, ...] = (),
) -> None:
    """Measure all that is said about speed and size, on this device.

    Each part runs in a process of its own with a time limit; one that fails does not stop the others. Nothing is
    downloaded.

    Example:
        --quick --out runs/gpu

    Args:
        out: folder for the results: a JSON and a log of each part, and report.md.
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        quick: fewer sizes, repeats and seeds: under nine minutes on a GPU with 16 CPU cores.
        only: parts to run, with those that they need; "throughput" also stands for "throughput-14684".
        skip: parts to leave out.
        total_seconds: time for all parts; those that do not fit are left out. 0 for no limit. By default only a
            quick run on an accelerator has one.
        python: option of `python -m benchmarks rivals`.
        beside: folders of other runs, whose figures stand beside these in the report.
    """
    check_folder(out)
    interpreters_of(python)
    others = [read_run(folder) for folder in beside]
    if total_seconds is not None and not 0 <= total_seconds < float("inf"):
        raise InputError(f"--total-seconds {total_seconds}: give seconds, or 0 for no limit")
    packed = load_dataset(dataset)
    machine = describe_machine()
    if total_seconds is None:
        total_seconds = QUICK_SECONDS if quick and machine["accelerator"] else 0.0
    with tempfile.TemporaryDirectory(prefix="jaxsim-benchmarks-") as scratch:
        plan = Plan(dataset, quick, machine["accelerator"], Path(scratch), python)
        parts = chosen_parts(parts_of(plan), only, skip)
        about: Record = {**machine, "dataset": packed.name, "quick": quick}
        out.mkdir(parents=True, exist_ok=True)
        print(f"{len(parts)} parts on {machine['device']}", flush=True)

        def keep(done: list[Record]) -> None:
            write_record(out, about, done)
            write_text(out / REPORT, format_runs([read_run(out), *others]))

        with ended_with_its_parts():
            records = run_parts(parts, plan, out, total_seconds, keep)
    failed = sum(record["status"] != DONE for record in records)
    print(f"{len(parts) - failed} of {len(parts)} parts have a result; written to {out / REPORT}")


def run_report(folders: tyro.conf.Positional[tuple[Path, ...]], out: Path | None = None) -> None:
    """Put the results of several folders of `python -m benchmarks all` side by side.

    Example:
        runs/cpu runs/gpu --out report.md

    Args:
        folders: one or more, a column for each.
        out: file for the report; without it, it is printed.
    """
    check_file("--out", out)
    if not folders:
        raise InputError("report: give one or more folders that `python -m benchmarks all` wrote")
    text = format_runs([read_run(folder) for folder in folders])
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


def check_folder(out: Path) -> None:
    """Make sure, before any long work, that files can be written into a folder.

    Raises:
        InputError: it is a file, or cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    check_writable(out / REPORT)
