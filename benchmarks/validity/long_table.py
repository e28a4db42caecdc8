"""The measurement as one long table, a row for each estimate: the content of `--csv`."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import pandas as pd

from benchmarks.fidelity.bootstrap import Estimate
from benchmarks.fidelity.long_table import EVERYTHING, Row, as_table
from benchmarks.validity.report import MIXED, REAL

_HALVES = ("split_half", "split_half_of_all", "ceiling")


def long_table(result: Mapping[str, Any]) -> pd.DataFrame:
    """Every estimate of a result, with the columns of fidelity's table; a value that is not defined is NaN."""
    return as_table(result["split"], _estimates(result))


def _estimates(result: Mapping[str, Any]) -> Iterator[Row]:
    yield from _judged(EVERYTHING, result["simulators"])
    yield from _judged("truth", result.get("truth", {}))
    for key in _HALVES:
        yield EVERYTHING, REAL, key, result[key]
    for row in result["policies"]:
        group = f"policy: {row['policy']}"
        for kind in (REAL, "true"):
            if kind in row:
                yield group, kind, "value", row[kind]
        for name, estimate in row["simulated"].items():
            yield group, name, "value", estimate
    for row in result["mixed_items"]:
        for key in MIXED:
            for name, estimate in row[key].items():
                yield f"{row['items']} items 1:{row['ratio']}", name, key, estimate
    for key, estimate in result["sequences"]["people"].items():
        yield "sequences", REAL, key, estimate
    for name, entry in result["sequences"]["simulators"].items():
        for key, estimate in entry.items():
            yield "sequences", name, key, estimate


def _judged(group: str, judged: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    for name, entry in judged.items():
        for key, estimate in entry.items():
            if isinstance(estimate, Mapping):  # the others are names of policies
                yield group, name, key, cast(Estimate, estimate)
