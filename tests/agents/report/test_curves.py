"""The chart of learning curves: where lines stand, and names that do not overlap."""

import re

import pandas as pd
import pytest

from agents.report.curves import Curve, Frame, _apart, curve_charts, legend
from tests.agents.report.conftest import reported_run


def curve(run):
    rows = [r for r in run.rows if r.users == "train" and r.mode != "baseline"]
    return Curve(run.label, run.log, rows)


def baselines(run):
    return [r for r in run.rows if r.users == "train" and r.mode == "baseline"]


def test_places_by_hand():
    frame = Frame(200, 150, right=60, steps=1000, low=0.0, high=1.0, style="wide")
    assert [frame.x(s) for s in (0, 500, 1000)] == [40, 90, 140]
    assert [frame.y(r) for r in (1.0, 0.5, 0.0)] == [10, 60, 110]


@pytest.mark.parametrize(
    ("heights", "moved"),
    [
        ([10, 40, 90], [10, 40, 90]),  # apart already
        ([10, 12, 13], [10, 23, 36]),
        ([95, 96, 97], [74, 87, 100]),  # not below the floor at 100
        ([], []),
    ],
)
def test_names_are_moved_apart(heights, moved):
    assert _apart(heights, 13, 100) == moved


def test_a_line_a_band_and_two_markers_for_each_run_and_a_line_for_each_baseline(run):
    other = reported_run("ppo", 0.7)
    for chart in curve_charts([curve(run), curve(other)], baselines(run)):
        groups = chart.findall("g")
        assert [group.get("class") for group in groups] == ["s0 r0", "s1 r1"]
        for group in groups:
            assert len(group.findall("polyline")) == len(group.findall("polygon")) == 1
            assert len(group.findall("circle")) == len(group.findall("path")) == 1
            assert len(group.find("polyline").get("points").split()) == 40
        lines = [x for x in chart.findall("line") if x.get("class") == "baseline"]
        heights = [float(x.get("y1")) for x in lines]
        assert len(lines) == 5
        assert heights == sorted(heights)  # the best one on top
        texts = [text.text for text in chart.findall("text")]
        assert {"oracle", "static_best", "like_rate", "popular", "random"} <= set(texts)
        assert "environment steps of one seed" in texts


def test_the_band_is_the_range_of_the_seeds(run):
    frame_chart = curve_charts([curve(run)], baselines(run))[0]
    band = frame_chart.find("g").find("polygon").get("points").split()
    line = frame_chart.find("g").find("polyline").get("points").split()
    first = [float(p.split(",")[1]) for p in (band[0], line[0], band[-1])]
    assert first[0] > first[1] > first[2]  # low, mean and high; heights grow downwards
    assert first[1] == pytest.approx((first[0] + first[2]) / 2, abs=0.11)


def test_one_seed_has_no_band_and_missing_rates_do_not_matter(run):
    log = run.log[run.log["seed"] == 0].copy()
    log.loc[log["steps"] == 20, "like_rate"] = float("nan")
    single = Curve("dqn", log, curve(run).rows)
    chart = curve_charts([single], baselines(run))[0]
    assert chart.find("g").find("polygon") is None
    assert len(chart.find("g").find("polyline").get("points").split()) == 39
    assert "nan" not in " ".join(re.findall(r"points=.*", str(chart.attrib)))
    assert "one seed" in "".join(legend([single]).itertext())
    assert "mean and range of 2 seeds" in "".join(legend([curve(run)]).itertext())


def test_a_chart_where_everything_earns_the_same():
    flat = pd.DataFrame({"seed": [0], "steps": [0], "like_rate": [1.0]})
    assert len(curve_charts([Curve("dqn", flat, [])], [])) == 2
