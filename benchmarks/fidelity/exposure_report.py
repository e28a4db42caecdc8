"""`python -m benchmarks exposure`, and its figures as text."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.fidelity.events import CONTEXT, Split
from benchmarks.fidelity.exposure import JUDGED, propensity_weighted
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.study import Settings, Study, predictions
from benchmarks.fidelity.texts import interval, number, with_interval
from benchmarks.hardware import device_name
from benchmarks.output import check_json, write_json
from jaxsim import Dataset, InputError, load_dataset
from jaxsim.exposure import host_model
from jaxsim.tables import format_table


def run_exposure(
    dataset: str = "ml-100k",
    split: Split = "test",
    context: int = CONTEXT,
    resamples: int = 1000,
    seed: int = 0,
    json: Path | None = None,
) -> None:
    """Describe a dataset's exposure model, and judge predictors with labels weighted by 1 / propensity.

    It is the part of `fidelity` about exposure, without the rest.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        split: which labels to predict.
        context: the longest history that a label is predicted from.
        resamples: resamples of the users, for the intervals.
        seed: of the resamples.
        json: also write the result here.
    """
    check_json(json)
    settings = Settings(split=split, context=context, resamples=resamples, seed=seed)
    settings.check()
    result = measure_exposure(load_dataset(dataset), settings)
    print(format_exposure(result))
    write_json(json, result)


def measure_exposure(dataset: Dataset, settings: Settings) -> dict[str, Any]:
    """The manifest's entry of the exposure model, and the result of `propensity_weighted`.

    Raises:
        InputError: the dataset has no exposure model, or nobody has a label in the split.
    """
    start = time.process_time()
    host_model(dataset)  # raises without one
    study = Study.of(dataset, settings, [p for p in PREDICTORS if p.name in JUDGED])
    fitted = study.fit(study.data)
    propensity = propensity_weighted(study, predictions(fitted, study.events), fitted)
    if propensity is None:
        raise InputError(f"{dataset.path}: {study.notes[-1]}")
    return {
        "dataset": dataset.name,
        "split": settings.split,
        "users": study.bootstrap.num_users,
        "context": settings.context,
        "resamples": settings.resamples,
        "seed": settings.seed,
        "model": dataset.manifest["exposure"],
        "propensity": propensity,
        "notes": study.notes,
        "device": device_name(),
        "processor_seconds": round(time.process_time() - start, 1),
    }


def format_exposure(result: Mapping[str, Any]) -> str:
    """The coefficients, the check on validation, and the weighted figures."""
    intervals = (
        "95 % intervals: of coefficients by standard errors clustered by user, of the rest by "
        f"{result['resamples']:,} resamples of the users"
    )
    parts = [
        f"{result['dataset']}, {result['split']} split\n{intervals}",
        format_model(result["model"]),
        format_propensity(result["propensity"]),
        "\n".join(f"note: {line}" for line in result["notes"]),
    ]
    return "\n\n".join(part for part in parts if part)


def format_model(entry: Mapping[str, Any]) -> str:
    """The manifest's entry of the exposure model."""
    sections = [("log-odds of being rated", entry["coefficients"])]
    if entry["label"] is not None:
        sections.append(("log-odds of a like, by those of being chosen", entry["label"]))
    tables = []
    for title, rows in sections:
        cells = [
            (
                name,
                f"{row['value']:+.3f}",
                f"{row['standard_error']:.3f}",
                f"{row['low']:+.3f} to {row['high']:+.3f}",
            )
            for name, row in rows.items()
        ]
        tables.append(format_table((title, "coefficient", "standard error", "interval"), cells))
    validation = entry["validation"]
    if validation is not None:
        tenths = [
            (f"{x['expected']:,.0f}", f"{x['observed']:,.0f}") for x in validation["calibration"]
        ]
        table = format_table(("expected ratings", "observed"), tenths, left=())
        text = (
            f"validation: AUC {validation['auc']:.3f}, within users {validation['auc_within_user']:.3f}; tenths "
            f"of the {validation['rated']:,} ratings, the least expected first"
        )
        tables.append(f"{text}\n\n{table}")
    return "\n\n".join(tables)


def format_propensity(result: Mapping[str, Any] | None) -> str:
    """The weighted figures beside the plain ones, and what the bound of the weights does."""
    if result is None:
        return ""
    plain = result["plain"]
    names = [name for name in JUDGED if name in result["auc"]]
    rows = [
        (
            name,
            *(with_interval(part["auc"][name]) for part in (plain, result)),
            *(interval(part["difference"].get(name), "+.4f") for part in (plain, result)),
            *(with_interval(part["like_rate_error"].get(name), "+.3f") for part in (plain, result)),
            number(result["unrated_like_rate"].get(name)),
        )
        for name in names
    ]
    people = [with_interval(part["like_rate"]["real"]) for part in (plain, result)]
    header = ("predictor", "AUC", "weighted", "over taste", "weighted")
    text = (
        f"labels weighted by 1 / probability of being rated, at most {result['clip']:g} times the median weight: "
        f"{result['labels']:,} labels, worth {result['effective_labels']:,.0f} of equal weight\n"
        f"like rate of people: {people[0]}; weighted {people[1]}"
    )
    table = format_table((*header, "like rate error", "weighted", "unrated items"), rows)
    return f"{text}\n\n{table}\n\n{_bounds(result, names)}"


def _bounds(result: Mapping[str, Any], names: list[str]) -> str:
    rows = [
        (
            "none" if row["clip"] is None else f"{row['clip']:g}",
            f"{row['clipped']:.1%}",
            f"{row['effective_labels']:,.0f}",
            with_interval(row["like_rate"]["real"]),
            *(number(row["auc"][name]) for name in names),
        )
        for row in result["clips"]
    ]
    header = ("bound", "at it", "effective labels", "like rate of people", *names)
    return f"ROC-AUC by the bound of the weights\n\n{format_table(header, rows, left=())}"
