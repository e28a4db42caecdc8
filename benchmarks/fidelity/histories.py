"""How much the answer depends on the history: strictly earlier times only, and short histories."""

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.fidelity.events import events_of, reason_without_times
from benchmarks.fidelity.predictor import TrainingData
from benchmarks.fidelity.study import Scores, Study, predictions

CONTEXTS = (3, 5, 10, 20, 50)


def _compare_on(
    study: Study, data: TrainingData, reference: str | None
) -> tuple[dict[str, Any], np.ndarray]:
    """`Study.compare` with events of other histories, and the histories' lengths int64[E]."""
    settings = study.settings
    events = events_of(study.dataset, settings.split, data.context, data.strictly_earlier)
    scores = predictions(study.fit(data), events)
    return study.compare(scores, reference), events.present.sum(axis=1)


def strictly_earlier(study: Study, reference: str | None) -> dict[str, Any] | None:
    """The comparison with histories of smaller times only; None, with a note, if the dataset has no times.

    Many people enter several ratings in one second. Their order within it is that of the file, which may say
    something about the labels.

    Returns:
        The result of `Study.compare`; `changed`, the share of labels whose history differs by this; and
        `without_history`, how many labels have none.
    """
    reason = reason_without_times(study.dataset)
    if reason is not None:
        study.note(f"strictly earlier times: skipped, because {reason}")
        return None
    settings = study.settings
    data = replace(study.data, strictly_earlier=True, weights_from=study.data)
    comparison, lengths = _compare_on(study, data, reference)
    earlier = events_of(study.dataset, settings.split, settings.context, strictly_earlier=True)
    changed = (earlier.history_items != study.events.history_items).any(axis=1)
    return {
        **comparison,
        "changed": round(float(changed.mean()), 6),
        "without_history": int((lengths == 0).sum()),
    }


def short_histories(study: Study, scores: Scores, reference: str | None) -> list[dict[str, Any]]:
    """The comparison for histories of at most 3, 5, 10, 20 and 50 interactions, and of the study's own length.

    Predictors that are fitted on validation labels are fitted again, with histories of the same length.

    Args:
        study: its `scores` are taken for its own length.
        scores: of the study's events.
        reference: as in `Study.compare`.

    Returns:
        The result of `Study.compare` with `context`, one for each length in ascending order.
    """
    rows = []
    for context in sorted({*CONTEXTS, study.settings.context}):
        if context == study.settings.context:
            comparison = study.compare(scores, reference)
        else:
            data = replace(study.data, context=context, weights_from=study.data)
            comparison, _ = _compare_on(study, data, reference)
        rows.append({"context": context, **comparison})
    return rows
