from dataclasses import replace

import numpy as np
import pytest

from benchmarks.fidelity.histories import short_histories, strictly_earlier
from benchmarks.fidelity.predictor import Fitted, Predictor
from benchmarks.fidelity.study import Settings, Study, predictions

LENGTH = Predictor(
    "length", "baseline", "", lambda data: Fitted(lambda e: e.present.sum(axis=1).astype(float))
)


def test_short_histories_are_as_long_as_they_say(people):
    study = Study.of(people, Settings(resamples=5, context=4), (LENGTH,))
    seen = []

    def fit(data):
        seen.append(data.context)
        return Fitted(lambda events: np.minimum(events.present.sum(axis=1), data.context) + 0.0)

    study = replace(study, predictors=(Predictor("length", "baseline", "", fit),))
    scores = predictions(study.fit(study.data), study.events)
    rows = short_histories(study, scores, "length")
    assert [row["context"] for row in rows] == [3, 4, 50]
    assert seen == [4, 3, 50]
    assert rows[1]["auc"] == study.compare(scores, "length")["auc"]


def test_strictly_earlier_counts_what_it_changes(people):
    # Everything but the first interaction of each user happens in one second.
    time = np.ones(len(people.interaction_user()), np.int64)
    time[people.arrays["user_offsets"][:-1]] = 0
    at_once = replace(people, arrays={**people.arrays, "interaction_time": time})
    study = Study.of(at_once, Settings(resamples=5), (LENGTH,))
    result = strictly_earlier(study, "length")
    assert result is not None
    assert result["changed"] == 1.0
    assert result["without_history"] == 0
    assert result["auc"]["length"]["value"] == 0.5  # every history is one interaction long


@pytest.mark.parametrize("value", [0, 123])
def test_without_times_it_is_skipped(people, value):
    time = np.full(len(people.interaction_user()), value, np.int64)
    timeless = replace(people, arrays={**people.arrays, "interaction_time": time})
    study = Study.of(timeless, Settings(resamples=5), (LENGTH,))
    assert strictly_earlier(study, None) is None
    assert study.notes == ["strictly earlier times: skipped, because the dataset has no times"]
