"""How fast, and in how much memory, raw files of full size are read.

The command runs in a process of its own, as for a user. Beside it stand bounds that no such command can beat:
reading the file's bytes, and parsing its lines. Every figure is the median of several runs. The file was just
written, so it is read from the page cache if memory allows.
"""

import json as json_library
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import orjson
import pandas as pd
import pyarrow.csv

from benchmarks.output import check_json, write_json
from benchmarks.raw_files import ANIME_LINES, write_anime, write_movies
from jaxsim import InputError

Dataset = Literal["amazon-movies", "anime"]

DEFAULT_GIGABYTES = 3.0  # of amazon-movies; anime gets its published number of lines
PARSER_LINES = 500_000  # a part of the file is enough to measure a parser
_BLOCK = 8 << 20
_RATINGS = {"amazon-movies": "Movies_and_TV.json", "anime": "rating.csv"}
_ANIME_BYTES = 14.4  # the mean length of a line of rating.csv

# Measured by a small process, because the peak of a child includes the size of its parent at the fork.
_MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps({
    "code": done.returncode, "error": done.stderr[-2000:], "seconds": seconds,
    "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss * unit / 1e6,
}))
"""


def run_convert(
    dataset: Dataset = "amazon-movies",
    gigabytes: float | None = None,
    repeats: int = 3,
    text: bool = True,
    folder: Path | None = None,
    json: Path | None = None,
) -> None:
    """Measure `python -m prep convert` on a generated file of full size.

    Example:
        --gigabytes 1

    Args:
        dataset: the layout of the file: Movies & TV of 2018, or the anime list.
        gigabytes: size of the file of ratings. Without it, 3 for amazon-movies, and for anime the published 7.8
            million lines (0.1).
        repeats: how often each figure is measured; the median is reported.
        text: whether convert also keeps the texts of reviews.
        folder: where to put the temporary files; they are deleted at the end.
        json: also write the result here.
    """
    check_json(json)
    with tempfile.TemporaryDirectory(dir=folder, prefix="convert-") as temporary:
        result = measure(dataset, gigabytes, repeats, text, Path(temporary))
    print(format_report(result))
    write_json(json, result)


def measure(
    dataset: Dataset, gigabytes: float | None, repeats: int, text: bool, folder: Path
) -> dict[str, Any]:
    """Generate the raw files below `folder` and measure on them; the content of `--json`.

    Raises:
        InputError: a setting is out of range, or the command failed.
    """
    if gigabytes is not None and not 0 < gigabytes < 1000:
        raise InputError(f"--gigabytes {gigabytes:g}: give a number above 0")
    if repeats < 1:
        raise InputError(f"--repeats {repeats}: give a whole number from 1")
    raw = folder / "raw"
    raw.mkdir()
    print(f"writing raw files of {dataset} ...", flush=True)
    rows = write_raw(dataset, gigabytes, raw)
    path = raw / _RATINGS[dataset]
    command = [sys.executable, "-m", "prep", "convert", dataset, "--raw", str(raw)]
    command += ["--out", str(folder / "out"), *([] if text else ["--no-text"])]
    print("measuring ...", flush=True)
    runs = [run_measured(command) for _ in range(repeats)]
    bytes_read = sum(file.stat().st_size for file in raw.iterdir())
    megabytes = bytes_read / 1e6
    medians = {
        name: statistics.median(run[name] for run in runs)
        for name in ("seconds", "cpu_seconds", "peak_mb")
    }
    return {
        "device": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "dataset": dataset,
        "text": text,
        "rows": rows,
        "megabytes": megabytes,
        "convert": {
            **medians,
            "megabytes_per_second": megabytes / medians["seconds"],
            "megabytes_per_cpu_second": megabytes / medians["cpu_seconds"],
        },
        "bounds": {
            name: statistics.median(bound(path) for _ in range(repeats))
            for name, bound in bounds(dataset).items()
        },
        "runs": runs,
    }


def write_raw(dataset: Dataset, gigabytes: float | None, folder: Path) -> int:
    """Write the raw files of a dataset; return how many ratings they have."""
    if dataset == "amazon-movies":
        return write_movies(folder, int((gigabytes or DEFAULT_GIGABYTES) * 1e9))
    lines = ANIME_LINES if gigabytes is None else max(int(gigabytes * 1e9 / _ANIME_BYTES), 1)
    return write_anime(folder, lines)


def run_measured(command: list[str]) -> dict[str, float]:
    """Run a command in a process of its own.

    Returns:
        seconds (wall), cpu_seconds (user and system, of all its threads), peak_mb (10^6 bytes resident).

    Raises:
        InputError: it failed; the message contains its last line.
    """
    python = [sys.executable, "-I", "-c", _MEASURE, *command]
    done = subprocess.run(python, capture_output=True, text=True, check=True)
    measured = json_library.loads(done.stdout)
    code, error = measured.pop("code"), measured.pop("error")
    if code:
        reason = (error.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"{' '.join(command[1:])}: exit code {code}: {reason}")
    return measured


def bounds(dataset: Dataset) -> dict[str, Callable[[Path], float]]:
    """The bounds to measure: name -> function from the file of ratings to MB/s."""
    if dataset == "anime":
        return {"read": _read_speed, "pandas.read_csv": _pandas_speed, "pyarrow.csv": _arrow_speed}
    return {
        "read": _read_speed,
        "orjson": lambda path: _parser_speed(path, orjson.loads),
        "json": lambda path: _parser_speed(path, json_library.loads),
    }


def _read_speed(path: Path) -> float:
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(_BLOCK):
            pass
    return _speed(path.stat().st_size, start)


def _parser_speed(path: Path, parse: Callable[[bytes], Any]) -> float:
    with path.open("rb") as file:
        lines = list(islice(file, PARSER_LINES))
    start = time.perf_counter()
    for line in lines:
        parse(line)
    return _speed(sum(map(len, lines)), start)


def _pandas_speed(path: Path) -> float:
    start = time.perf_counter()
    pd.read_csv(path)
    return _speed(path.stat().st_size, start)


def _arrow_speed(path: Path) -> float:
    start = time.perf_counter()
    pyarrow.csv.read_csv(path, pyarrow.csv.ReadOptions(use_threads=False))
    return _speed(path.stat().st_size, start)


def _speed(size: int, start: float) -> float:
    return size / 1e6 / (time.perf_counter() - start)


def format_report(result: dict[str, Any]) -> str:
    """The measurement as text for a terminal."""
    convert = result["convert"]
    kept = ", texts kept" if result["text"] else ", texts left out"
    if result["dataset"] == "anime":  # has none
        kept = ""
    lines = [
        f"{result['dataset']}: {result['rows']:,} ratings, {result['megabytes']:,.0f} MB of raw files{kept}",
        "",
        f"convert   {convert['seconds']:8.1f} s wall, {convert['cpu_seconds']:.1f} s of CPU, "
        f"peak {convert['peak_mb']:,.0f} MB",
        f"          {convert['megabytes_per_second']:8.0f} MB/s, "
        f"{convert['megabytes_per_cpu_second']:.0f} MB per CPU second",
        "",
        "alone, in one thread (MB/s)",
    ]
    lines += [f"  {name:16s} {speed:8.0f}" for name, speed in result["bounds"].items()]
    return "\n".join(lines)
