"""The chart of learning curves, and the table with the same values."""

import json

import numpy as np
import pandas as pd
import pytest
from bokeh.models import Line, Scatter, VArea

from agents.report.curves import Curve, curve_chart, draw_curves, line_key, seed_range, shorten
from tests.agents.report.conftest import LIKE_RATES, reported_run


def curve(run):
    rows = [r for r in run.rows if r.users == "train" and r.mode != "baseline"]
    return Curve(run.label, run.log, rows)


def baselines(run):
    return [r for r in run.rows if r.users == "train" and r.mode == "baseline"]


def drawn(plot, kind):
    """The data and the form of everything of a kind in a chart."""
    return [(x.data_source.data, x.glyph) for x in plot.renderers if isinstance(x.glyph, kind)]


def words_of(element):
    return " ".join(element.itertext())


def test_mean_and_range_of_seeds_by_hand():
    log = pd.DataFrame(
        {
            "seed": [0, 1, 0, 1, 0, 1],
            "steps": [10, 10, 20, 20, 30, 30],
            "like_rate": [0.25, 0.75, 0.5, np.nan, 0.5, 1.0],
        }
    )
    found = seed_range(log)  # without step 20, which a seed lacks
    assert found.to_dict("list") == {
        "steps": [10, 30], "rate": [0.5, 0.75], "low": [0.25, 0.5], "high": [0.75, 1.0],
    }  # fmt: skip


def test_a_line_a_band_and_two_markers_for_each_run_and_a_line_for_each_baseline(run):
    runs = [run, reported_run("ppo", 0.7)]
    plot = draw_curves([curve(x) for x in runs], baselines(run))
    lines = {data["name"][0]: (data, glyph) for data, glyph in drawn(plot, Line)}
    assert list(lines) == [*LIKE_RATES, "dqn, while training", "ppo, while training"]
    for name, rate in LIKE_RATES.items():
        data, glyph = lines[name]
        assert (data["steps"], data["rate"]) == ([0, 800], [rate, rate])
        assert glyph.line_dash == [2, 3]
    for x in runs:
        data, _ = lines[f"{x.label}, while training"]
        expected = x.log.groupby("steps")["like_rate"]
        np.testing.assert_allclose(data["rate"], expected.mean())
        np.testing.assert_allclose(data["low"], expected.min())
        np.testing.assert_allclose(data["high"], expected.max())
    assert len(drawn(plot, VArea)) == 2
    marks = [(d["name"][0], d["steps"], d["rate"], g.marker) for d, g in drawn(plot, Scatter)]
    assert marks == [
        (f"{label}, {mode}, evaluated", [800.0], [rate], marker)
        for label, rate in (("dqn", 0.8), ("ppo", 0.7))
        for mode, marker in (("greedy", "circle"), ("sampled", "x"))
    ]
    assert plot.right[0].major_label_overrides == {rate: name for name, rate in LIKE_RATES.items()}


def test_runs_differ_in_colour_and_in_dashes(run):
    runs = [reported_run(f"run {index}") for index in range(6)]
    plot = draw_curves([curve(x) for x in runs], [])
    lines = [glyph for _, glyph in drawn(plot, Line)]
    assert len({glyph.tags[0]["line_color"] for glyph in lines}) == 6
    dashes = [glyph.line_dash for glyph in lines]
    assert len({tuple(x) for x in dashes}) == 6
    for index, (glyph, dash) in enumerate(zip(lines, dashes, strict=True)):
        key = line_key(index)  # which stands before its name in the table of results
        assert key.get("class") == f"line-key s{glyph.tags[0]['line_color'][1:]}"
        assert key.find("line").get("stroke-dasharray") == (" ".join(map(str, dash)) or "none")
    assert [item.label.value for item in plot.legend[0].items] == [x.label for x in runs]


def test_long_names_stand_below_one_another_and_keep_their_ends():
    runs = [reported_run(f"{'a very long name of a folder ' * 3}{index}") for index in range(2)]
    plot = draw_curves([curve(x) for x in runs], [])
    short = draw_curves([curve(reported_run())], [])
    assert (plot.legend[0].orientation, short.legend[0].orientation) == ("vertical", "horizontal")
    assert plot.height > short.height
    labels = [item.label.value for item in plot.legend[0].items]
    assert labels == [f"a very long nam\u2026e of a folder {index}" for index in range(2)]
    assert shorten("x" * 32) == "x" * 32


def test_one_seed_has_no_band(run):
    log = run.log[run.log["seed"] == 0].copy()
    log.loc[log["steps"] == 20, "like_rate"] = float("nan")
    plot = draw_curves([Curve("dqn", log, curve(run).rows)], baselines(run))
    assert not drawn(plot, VArea)
    data = drawn(plot, Line)[-1][0]
    assert len(data["rate"]) == 39
    assert np.isfinite(data["rate"]).all()


def test_the_table_has_ten_lines_of_each_run_from_the_first_to_the_last(run):
    *_, details = curve_chart([curve(run), curve(reported_run("ppo", 0.7))], baselines(run))
    rows = [[words_of(part) for part in row] for row in details.iter("tr")][1:]
    assert [row[0] for row in rows] == ["dqn"] * 10 + ["ppo"] * 10
    assert rows[0] == ["dqn", "20", "0.510", "0.500 to 0.520"]
    assert rows[9] == ["dqn", "800", "0.800", "0.800 to 0.800"]


@pytest.mark.parametrize("rates", [[1.0], [float("nan")]])
def test_a_chart_of_one_line_or_of_none(rates):
    log = pd.DataFrame({"seed": [0], "steps": [0], "like_rate": rates})
    *_, details = curve_chart([Curve("dqn", log, [])], [])
    assert len(list(details.iter("tr"))) == 1 + np.isfinite(rates).sum()


def test_the_same_curves_give_the_same_chart(run):
    """Although Bokeh numbers its models on from chart to chart."""
    first, second = (curve_chart([curve(run)], baselines(run))[2].text for _ in range(2))
    assert first == second
    item = json.loads(first)
    assert item["root_id"] == item["doc"]["roots"][0]["id"]
