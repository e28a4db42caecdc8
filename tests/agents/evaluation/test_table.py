"""Rows of a table, written as JSON and read again."""

import json
import math

import pytest

from agents.evaluation.table import format_rows, from_json, to_json
from tests.agents.report.conftest import row

VISITS = {
    "sessions_per_life": 1.5,
    "retention_1": 0.25,
    "retention_7": 0.5,
    "retention_30": math.nan,
}


@pytest.mark.parametrize(
    "visits", [None, {**VISITS, "days_active": 1.0, "days_first_to_last": 2.0}]
)
def test_rows_come_back_from_json(visits):
    rows = [row("dqn", "greedy", "train", 0.8, 2), row("random", "baseline", "held_out", 0.5)]
    rows = [type(r)(**{**vars(r), "paired_low": math.nan, "visits": visits}) for r in rows]
    again = from_json(json.loads(json.dumps(to_json(rows), allow_nan=False)))
    assert format_rows(again) == format_rows(rows)
    assert [str(r) for r in again] == [str(r) for r in rows]  # NaN is not equal to itself


def test_rows_of_another_version_are_refused():
    (written,) = to_json([row("dqn", "greedy", "train", 0.8)])
    del written["share_past_static_best"]
    with pytest.raises(TypeError):
        from_json([written])
