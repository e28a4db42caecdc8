"""The whole measurement, as the content of `--json`."""

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from benchmarks.fidelity.accuracy import (
    accuracy,
    best_baseline,
    group_errors,
    like_rates,
    reliability,
)
from benchmarks.fidelity.cold_items import cold_items
from benchmarks.fidelity.controls import controls
from benchmarks.fidelity.exposure import propensity_weighted
from benchmarks.fidelity.histories import short_histories, strictly_earlier
from benchmarks.fidelity.signals import signal_accuracy
from benchmarks.fidelity.study import Settings, Study, predictions
from benchmarks.fidelity.variants import has_keywords
from benchmarks.hardware import device_name
from jaxsim import Dataset, __version__

_LIBRARIES = ("jax", "numpy", "scikit-learn")


def fidelity(
    dataset: Dataset,
    settings: Settings | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Judge every predictor of a dataset; docs/fidelity.md explains each entry of the result.

    Args:
        dataset: of `jaxsim.load_dataset`.
        settings: by default those of `Settings()`.
        say: called with a line before each part, for progress.

    Raises:
        InputError: nobody has a label in the split, or a setting is out of its bounds.
    """
    start, processor = time.perf_counter(), time.process_time()
    study = Study.of(dataset, settings or Settings())
    note_gaps(study)
    say(f"predicting {len(study.events):,} labels of {study.bootstrap.num_users:,} users ...")
    fitted = study.fit(study.data)
    scores = predictions(fitted, study.events)
    reference = best_baseline(study, fitted)
    result: dict[str, Any] = {
        **_description(study, reference),
        **accuracy(study, scores, reference),
        **like_rates(study, scores, fitted),
        "reliability": reliability(study, scores),
        "groups": group_errors(study, scores),
        "propensity": propensity_weighted(study, scores, fitted),
        **signal_accuracy(study),
    }
    say("histories: strictly earlier times, and short ones ...")
    result["strictly_earlier"] = strictly_earlier(study, reference)
    result["contexts"] = short_histories(study, scores, reference)
    say("controls: exchanged histories, shuffled labels, permuted keywords ...")
    result["controls"] = controls(study, scores, fitted)
    if study.settings.cold_items:
        say("cold items: fitting without their ratings ...")
        result |= cold_items(study, reference)
    result["notes"] = study.notes
    result["seconds"] = round(time.perf_counter() - start, 1)
    result["processor_seconds"] = round(time.process_time() - processor, 1)
    return result


def _description(study: Study, reference: str | None) -> dict[str, Any]:
    settings = study.settings
    return {
        "dataset": study.dataset.name,
        "split": settings.split,
        "labels": len(study.events),
        "users": study.bootstrap.num_users,
        "context": settings.context,
        "resamples": settings.resamples,
        "seed": settings.seed,
        "repeats": settings.repeats,
        "reference": reference,
        **provenance(study),
    }


def provenance(study: Study) -> dict[str, Any]:
    """What was judged, and with what."""
    return {
        "predictors": {p.name: {"kind": p.kind, "about": p.about} for p in study.predictors},
        "device": device_name(),
        "versions": {"jaxsim": __version__, **{name: version(name) for name in _LIBRARIES}},
    }


def note_gaps(study: Study) -> None:
    """Say what the dataset lacks for some of the metrics."""
    labels, events = study.events.label, study.events
    if len(np.unique(labels)) < 2:
        which = "likes" if labels[0] else "dislikes"
        study.note(f"ROC-AUC: not defined, because all labels of the split are {which}")
    without = int((~events.present.any(axis=1)).sum())
    if without:
        study.note(f"histories: {without:,} labels have none, and are predicted without one")
    if not has_keywords(study.dataset):
        study.note("keywords: no item has any, so f_mat and f_sim always toss coins")
    if study.bootstrap.num_users < 2:
        study.note("intervals: none, because only one user has labels in the split")
