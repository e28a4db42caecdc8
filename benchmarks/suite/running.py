"""Runs the parts one after the other, each in a process of its own with a time limit."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.output import write_json
from benchmarks.suite.plan import Part, Plan, as_json
from jaxsim import InputError

RECORD = "all.json"
"""The file in a folder of results that says what was run there."""
DONE = "done"

Record = dict[str, Any]

_VERSIONS = """
import json, platform
import jax, jaxlib, numpy
from benchmarks.hardware import device_memory, device_name
print(json.dumps({
    "device": device_name(), "accelerator": jax.default_backend() != "cpu", "devices": jax.device_count(),
    "device_memory": device_memory(), "python": platform.python_version(), "jax": jax.__version__,
    "jaxlib": jaxlib.__version__, "numpy": numpy.__version__,
}))
"""


def describe_machine() -> dict[str, Any]:
    """The device and the versions, asked in another process: this one must not hold the device's memory.

    Raises:
        InputError: JAX does not start.
    """
    done = subprocess.run([sys.executable, "-c", _VERSIONS], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"JAX does not start: {last_line(done.stderr)}")
    return {**json.loads(done.stdout.splitlines()[-1]), "commit": current_commit()}


def current_commit() -> str | None:
    """The commit of this checkout, with "+" if files differ from it; None if that cannot be told."""
    folder = Path(__file__).parent

    def git(*words: str) -> str | None:
        with suppress(OSError):
            done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True)
            return done.stdout.strip() if done.returncode == 0 else None
        return None

    commit = git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no", "..") else "")


def run_parts(
    parts: list[Part],
    plan: Plan,
    folder: Path,
    total_seconds: float,
    after_each: Callable[[list[Record]], None],
) -> list[Record]:
    """Run parts one after the other; a failure of one does not stop the others.

    Args:
        parts: in their order.
        plan: that they are of.
        folder: where NAME.json and NAME.log are written.
        total_seconds: time for all of them; parts that do not fit are left out. 0 for no limit.
        after_each: called with all records so far.

    Returns:
        For each part `part`, `kind`, `command`, `status` ("done", or why not in one line) and `seconds`.
    """
    begin = time.perf_counter()
    records: list[Record] = []
    for part in parts:
        left = total_seconds - (time.perf_counter() - begin) if total_seconds else part.limit
        status, seconds = _run_if_possible(part, records, folder, min(left, part.limit))
        records.append({**as_json(part, plan), "status": status, "seconds": seconds})
        print(f"{part.name}: {status}, {seconds:.0f} s", flush=True)
        after_each(records)
    return records


def _run_if_possible(
    part: Part, records: list[Record], folder: Path, limit: float
) -> tuple[str, float]:
    """The status and the seconds of a part."""
    failed = [record["part"] for record in records if record["status"] != DONE]
    output = folder / f"{part.name}.json"
    output.unlink(missing_ok=True)  # of an earlier run
    if part.needs in failed:
        return f"left out: {part.needs} failed", 0.0
    if limit <= 0:
        return "left out: no time was left", 0.0
    words = [sys.executable, "-m", part.module, *part.arguments]
    if part.kind:
        words += ["--json", str(output)]
    print(f"{part.name} ...", flush=True)
    begin = time.perf_counter()
    status = run_logged(words, folder / f"{part.name}.log", limit)
    if status == DONE and part.kind and not output.is_file():
        status = "failed: wrote no result"
    return status, time.perf_counter() - begin


def run_logged(words: list[str], log: Path, limit: float) -> str:
    """Run a command with its output in a file; end it, and all that it started, after `limit` seconds.

    Returns:
        "done", or what went wrong in one line.
    """
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            words, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return f"ended after its limit of {limit:.0f} s"
        finally:
            _end_group(process)
    return DONE if code == 0 else f"failed: {reason_of(code, log)}"


@contextmanager
def ended_with_its_parts() -> Iterator[None]:
    """Within this block SIGTERM, which `timeout` sends, also ends the part that runs."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a command: on its limit, on an interrupt, and children that it left behind."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def reason_of(code: int, log: Path) -> str:
    """Why a command failed, in one line: the end of its log, or the signal that ended it."""
    if code < 0:
        name = signal.Signals(-code).name
        memory = ", often because memory ran out" if name == "SIGKILL" else ""
        return f"ended by {name}{memory}"
    return last_line(log.read_text("utf-8", errors="replace")) or f"exit code {code}"


def last_line(text: str) -> str:
    """The last line of a text that says something, at most 200 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ")[:200] if lines else ""


def write_record(folder: Path, about: Record, parts: list[Record]) -> None:
    """Write what was run, also while it goes on."""
    write_json(folder / RECORD, {**about, "parts": parts})


def read_record(folder: Path) -> Record:
    """What was run in a folder.

    Raises:
        InputError: it is not a folder of results.
    """
    path = folder / RECORD
    if not path.is_file():
        raise InputError(
            f"{folder}: has no {RECORD}; give a folder that `python -m benchmarks all` wrote"
        )
    return _read_json(path)


def read_result(folder: Path, part: str) -> Any:
    """The JSON of a part; None if it wrote none.

    Raises:
        InputError: it is not JSON.
    """
    path = folder / f"{part}.json"
    return _read_json(path) if path.is_file() else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        raise InputError(f"{path}: is not JSON; run the part again") from None
