import re

import pytest

from benchmarks.fidelity.page import charts
from jaxsim.pages.markup import cell, tag


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high}


def test_limits_hold_everything_with_some_room():
    low, high = charts.limits([estimate(0.5, 0.4, 0.7), estimate(None)], 0.2)
    assert low == pytest.approx(0.18)
    assert high == pytest.approx(0.72)
    low, high = charts.limits([estimate(0.5)])
    assert low < 0.5 < high


def test_a_strip_by_hand():
    values = {"a": estimate(0.5, 0.25, 0.75), "b": estimate(None), "c": estimate(1.0)}
    strip = charts.track(values, {"a": "s1"}, 0.0, 1.0, mark=0.1)
    parts = [(child.get("class"), child.get("style")) for child in strip]
    assert parts == [
        ("mark", "left:10.0%"),
        ("range s1", "left:25.0%;width:50.0%"),
        ("dot s1", "left:50.0%"),
        ("dot ", "left:100.0%"),
    ]
    assert strip[2].get("title") == "a 0.500 (0.250 to 0.750)"


def test_a_line_has_a_point_where_there_is_a_value_and_no_bridge_over_a_gap():
    lines = {
        "a": [estimate(0.5, 0.4, 0.6), estimate(0.6, 0.5, 0.7), None, estimate(0.7, 0.6, 0.8)],
        "b": [None] * 4,
    }
    chart = charts.line_chart(lines, {"a": "s2"}, ["w", "x", "y", "z"], "title")
    group = next(child for child in chart if child.get("class") == "s2")
    parts = {
        kind: [p for p in group if p.tag == kind] for kind in ("polyline", "polygon", "circle")
    }
    assert [len(line.get("points").split()) for line in parts["polyline"]] == [2, 1]
    assert [len(band.get("points").split()) for band in parts["polygon"]] == [4, 2]
    heights = [float(dot.get("cy")) for dot in parts["circle"]]
    assert heights == sorted(heights, reverse=True)  # 0.5 stands lower than 0.7
    assert len(heights) == 3
    assert chart[0].text == "title"
    assert [text.text for text in chart if text.tag == "text"][-4:] == ["w", "x", "y", "z"]


def test_dots_of_a_reliability_chart_lie_in_its_frame():
    bins = [
        {"labels": 10, "predicted": 0.0, "observed": estimate(0.0)},
        {"labels": 90, "predicted": 1.0, "observed": estimate(1.0, 0.9, 1.0)},
    ]
    chart = charts.reliability_chart(bins, "s0", "title")
    frame = next(child for child in chart if child.tag == "rect")
    x, y, side = (float(frame.get(name)) for name in ("x", "y", "width"))
    circles = [child for child in chart[-1] if child.tag == "circle"]
    assert (float(circles[0].get("cx")), float(circles[0].get("cy"))) == (x, y + side)
    assert (float(circles[1].get("cx")), float(circles[1].get("cy"))) == (x + side, y)
    assert float(circles[0].get("r")) < float(circles[1].get("r"))
    assert len([child for child in chart[-1] if child.tag == "line"]) == 1


def test_texts_and_elements_stand_in_their_order():
    element = tag("p", "a", tag("b", "c"), "d", None, ["e", tag("i")], "f", class_="x", data_y=1)
    text = re.sub(r"\s+", "", "".join(element.itertext()))
    assert text == "acdef"
    assert element.attrib == {"class": "x", "data-y": "1"}
    assert cell("x", 0.25).get("data-value") == "0.25"
