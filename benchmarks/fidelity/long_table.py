"""The measurement as one long table, a row for each estimate: the content of `--csv`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from benchmarks.fidelity.bootstrap import Estimate
from benchmarks.fidelity.controls import EXCHANGED, OWN, PERMUTED, SHUFFLED

COLUMNS = ("split", "group", "model", "metric", "value", "low", "high")
EVERYTHING = "all"
_METRICS = (
    "auc",
    "difference",
    "keyword_gain",
    "dislike_precision",
    "log_loss",
    "brier",
    "ece",
    "like_rate_error",
)
_COMPARISONS = ("auc", "difference", "keyword_gain")
_WEIGHTED = ("auc", "difference", "like_rate", "like_rate_error")
_CONTROLS = {
    OWN: ("own history", "auc_within_item"),
    EXCHANGED: ("exchanged history", "auc_within_item"),
    SHUFFLED: ("labels shuffled", "auc"),
    PERMUTED: ("keywords permuted", "auc"),
}

Row = tuple[str, str, str, Estimate]


def long_table(result: Mapping[str, Any]) -> pd.DataFrame:
    """Every estimate of a result, with the columns of COLUMNS; a value that is not defined is NaN."""
    return as_table(result["split"], _estimates(result))


def as_table(split: str, estimates: Iterable[Row]) -> pd.DataFrame:
    """The table with the columns of COLUMNS of some estimates of a split."""
    rows = [
        (split, group, model, metric, e["value"], e["low"], e["high"])
        for group, model, metric, e in estimates
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(dict.fromkeys(("value", "low", "high"), "float64"))


def _estimates(result: Mapping[str, Any]) -> Iterator[Row]:
    yield from _of_models(EVERYTHING, result, _METRICS)
    for model, estimate in result["like_rate"].items():
        if model != "catalogue":  # it stands among the unrated items
            yield EVERYTHING, model, "like_rate", estimate
    for model, estimate in result["unrated_like_rate"].items():
        yield "unrated items", model, "like_rate", estimate
    for group in result["groups"]:
        name = f"{group['kind']}: {group['group']}"
        yield name, "real", "like_rate", group["real"]
        yield from _of_models(name, group, ("like_rate_error",))
    if result["strictly_earlier"] is not None:
        yield from _of_models("strictly earlier times", result["strictly_earlier"], _COMPARISONS)
    for row in result["contexts"]:
        yield from _of_models(f"history of {row['context']}", row, _COMPARISONS)
    for row in result.get("cold_curve", ()):
        yield from _of_models(f"{row['ratings']} ratings of the item", row, _COMPARISONS)
    for signal, entry in result.get("signals", {}).items():
        metrics = tuple(name for name, part in entry.items() if isinstance(part, dict))
        yield from _of_models(f"{signal}s", entry, metrics)
    yield from _controls(result)
    if result.get("propensity") is not None:
        yield from _of_models("weighted by propensity", result["propensity"], _WEIGHTED)


def _of_models(group: str, part: Mapping[str, Any], metrics: tuple[str, ...]) -> Iterator[Row]:
    for metric in metrics:
        for model, estimate in part[metric].items():
            yield group, model, metric, estimate


def _controls(result: Mapping[str, Any]) -> Iterator[Row]:
    for model in result["auc"]:
        for suffix, (group, metric) in _CONTROLS.items():
            estimate = result["controls"].get(f"{model}_{suffix}")
            if estimate is not None:
                yield group, model, metric, estimate
