"""`python -m benchmarks rivals`: steps per second of other simulators beside ours, on one machine.

Each simulator has the size of its own defaults and random actions of its own. So the figures say how long one
waits, not who does more: a step is something else in each of them, and the table says what.
"""

import json as json_format
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from benchmarks.checks import check_counts
from benchmarks.hardware import device_name
from benchmarks.output import check_json, write_json
from benchmarks.rivals import foreign
from benchmarks.rivals.own_forms import FORMS
from jaxsim import Dataset, InputError, load_dataset
from jaxsim.tables import format_table

ABSENT = {
    "kuaisim": "not a package; its code needs the KuaiRand logs and a response model trained on them",
    "suber": "asks a language model at each step, and there is none here; see python -m benchmarks table6",
}
"""Simulators that cannot be stepped, and why."""
NAMES = (*FORMS, *foreign.SIMULATORS, *ABSENT)
_LIMIT_SECONDS = 300.0  # of one simulator of other authors, with its start

Row = dict[str, Any]


def run_rivals(
    dataset: str = "ml-100k",
    only: tuple[str, ...] = (),
    python: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    sessions: int = 1024,
    seconds: float = 2.0,
    repeats: int = 5,
    json: Path | None = None,
) -> None:
    """Measure steps per second of other simulators beside ours.

    Example:
        --python rivals/bin/python

    Args:
        dataset: for our environment: name that `python -m prep build` has built, or path of a packed folder.
        only: names of simulators; without any, all.
        python: the Python interpreter of an environment that has other simulators, or NAME=INTERPRETER for one of
            them. Without it, they are looked for beside this package.
        sessions: number of our sessions at once.
        seconds: shortest timed run.
        repeats: timed runs of each simulator; the median counts.
        json: also write the result here.
    """
    check_json(json)
    check_counts(sessions=sessions, repeats=repeats)
    if not 0 < seconds < float("inf"):
        raise InputError(f"--seconds {seconds}: give seconds above 0")
    for name in only:
        if name not in NAMES:
            raise InputError(f"--only {name}: unknown; choose from {', '.join(NAMES)}")
    interpreters = interpreters_of(python)
    packed = load_dataset(dataset)
    rows = []
    for name in NAMES:
        if only and name not in only:
            continue
        print(f"{name} ...", flush=True)
        if name in ABSENT:
            rows.append(row_of(name, {"error": ABSENT[name]}))
        elif name in FORMS:
            rows.append(own_row(name, packed, dataset, sessions, seconds, repeats))
        else:
            rows.append(foreign_row(name, interpreters[name], seconds, repeats))
    result = {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": packed.name,
        "seconds": seconds,
        "repeats": repeats,
        "rows": rows,
    }
    print(format_rivals(result))
    write_json(json, result)


def interpreters_of(options: tuple[str, ...]) -> dict[str, str]:
    """The interpreter of each simulator of other authors; later options win.

    Raises:
        InputError: an unknown name, or a file that does not exist.
    """
    chosen = dict.fromkeys(foreign.SIMULATORS, sys.executable)
    for option in options:
        name, _, path = option.rpartition("=")
        if name and name not in chosen:
            raise InputError(f"--python {option}: unknown; choose from {', '.join(chosen)}")
        if not Path(path).is_file():
            raise InputError(f"--python {option}: {path} does not exist")
        chosen |= {name: path} if name else dict.fromkeys(chosen, path)
    return chosen


def own_row(
    name: str, dataset: Dataset, path: str, sessions: int, seconds: float, repeats: int
) -> Row:
    """One form of our environment."""
    prepare, fixed_sessions = FORMS[name]
    return measured_row(
        name, lambda: prepare(dataset, path, fixed_sessions or sessions), seconds, repeats
    )


def measured_row(
    name: str, prepare: Callable[[], foreign.Prepared], seconds: float, repeats: int
) -> Row:
    """What is measured of a simulator; if it fails, why, in one line."""
    try:
        about, steps = prepare()
        return row_of(name, {**about, **foreign.timed(steps, seconds, repeats)})
    except Exception as error:  # one that fails must not stop the others
        return row_of(name, {"error": f"{type(error).__name__}: {one_line(str(error))}"})


def foreign_row(name: str, interpreter: str, seconds: float, repeats: int) -> Row:
    """A simulator of other authors, in a process of its own."""
    command = [interpreter, foreign.__file__, name, str(seconds), str(repeats)]
    environment = dict(os.environ)
    if interpreter != sys.executable:
        environment.pop("PYTHONPATH", None)  # our packages are not for its versions
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return row_of(name, {"error": f"took longer than {_LIMIT_SECONDS:g} s"})
    except OSError as error:
        return row_of(name, {"error": f"{interpreter}: {error.strerror}"})
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return row_of(name, {"error": one_line(last[-1])})
    return row_of(name, json_format.loads(lines[-1]))


def one_line(text: str) -> str:
    """The first line of a message, at most 150 characters."""
    return (text.strip().splitlines() or [""])[0][:150]


def row_of(name: str, measured: Row) -> Row:
    """A row with every field; those that were not measured are None."""
    empty = dict.fromkeys(
        ("version", "setting", "policy", "step", "sessions", "items", "users", "steps_per_second")
    )
    return {"simulator": name, **empty, "error": None, **measured}


def format_rivals(result: dict[str, Any], markdown: bool = False) -> str:
    """The content of `--json` as text; a table in Markdown alone, for a page."""
    done = [row for row in result["rows"] if row["error"] is None]
    table = [
        (
            " ".join(filter(None, (row["simulator"], row["version"]))),
            row["setting"],
            f"{row['steps_per_second']:,.0f}",
            f"{row['sessions']:,}",
            f"{row['items']:,}",
            "drawn" if row["users"] is None else f"{row['users']:,}",
            row["step"],
        )
        for row in sorted(done, key=lambda row: -row["steps_per_second"])
    ]
    header = ("simulator", "setting", "steps/s", "at once", "items", "users", "a step is")
    text = format_table(header, table, markdown, left=(0, 1, 6))
    failed = [
        f"{row['simulator']}: {row['error']}" for row in result["rows"] if row["error"] is not None
    ]
    if markdown:
        return "\n".join([text, "", *(f"- {line}" for line in failed)]).rstrip()
    title = f"our environment with {result['dataset']}, {result['device']}, jax {result['jax']}"
    return "\n".join([title, text, *(f"not measured: {line}" for line in failed)])
