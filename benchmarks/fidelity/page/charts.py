"""Charts from estimates, drawn in the current colour of the text, so that one style sheet colours them all."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from benchmarks.fidelity.bootstrap import Estimate
from benchmarks.fidelity.report import with_interval
from jaxsim.pages.charts import svg, ticks
from jaxsim.pages.markup import tag

WIDTH, HEIGHT = 340, 240  # of a line chart, in pixels: a phone shows it unscaled
SQUARE = 220  # side of a reliability chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 10, 10, 30  # margins of a line chart


def limits(estimates: Sequence[Estimate], *more: float) -> tuple[float, float]:
    """A range that holds all values and intervals, and some more values, with a little room."""
    ends = [e[key] for e in estimates for key in ("value", "low", "high")]
    values = [float(x) for x in (*ends, *more) if x is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = 0.04 * (high - low) or 0.01
    return low - room, high + room


def track(
    estimates: Mapping[str, Estimate],
    series: Mapping[str, str],
    low: float,
    high: float,
    mark: float | None = None,
    form: str = ".3f",
) -> ET.Element:
    """A strip with a dot and an interval for each estimate, as wide as its cell.

    Args:
        estimates: by name; those without a value are left out.
        series: the style of each name.
        low, high: the numbers at the ends of the strip.
        mark: where a vertical line stands, if anywhere.
        form: of the numbers in the tooltip.
    """

    def percent(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    strip = tag("div", class_="track")
    if mark is not None:
        strip.append(tag("i", class_="mark", style=f"left:{percent(mark)}%"))
    for name, estimate in estimates.items():
        if estimate["value"] is None:
            continue
        style = series.get(name, "")
        text = f"{name} {with_interval(estimate, form)}"
        if estimate["low"] is not None and estimate["high"] is not None:
            start, end = percent(estimate["low"]), percent(estimate["high"])
            where = f"left:{start}%;width:{round(end - start, 2)}%"
            strip.append(tag("i", class_=f"range {style}", style=where))
        where = f"left:{percent(estimate['value'])}%"
        strip.append(tag("i", class_=f"dot {style}", style=where, title=text))
    return strip


def scale(low: float, high: float, form: str = "g") -> ET.Element:
    """The numbers below the strips of a table."""
    strip = tag("div", class_="track scale")
    for value in ticks(low, high, 7):
        where = f"left:{round(100 * (value - low) / (high - low), 2)}%"
        strip.append(tag("span", format(value, form) if value else "0", style=where))
    return strip


def line_chart(
    lines: Mapping[str, Sequence[Estimate | None]],
    series: Mapping[str, str],
    names: Sequence[str],
    title: str,
) -> ET.Element:
    """Lines over named places, with their intervals as bands.

    Args:
        lines: for each line, an estimate at each place, or None.
        series: the style of each line.
        names: of the places, from left to right.
        title: what the chart shows, for people who cannot see it.
    """
    low, high = limits([e for line in lines.values() for e in line if e is not None])
    step = (WIDTH - _LEFT - _RIGHT) / max(1, len(names) - 1)

    def x(place: int) -> float:
        return round(_LEFT + place * step, 1)

    def y(value: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low), 1)

    chart = svg(WIDTH, HEIGHT, title)
    for value in ticks(low, high):
        ends = {"x1": _LEFT, "x2": WIDTH - _RIGHT, "y1": y(value), "y2": y(value)}
        chart.append(tag("line", class_="grid", **ends))
        chart.append(tag("text", f"{value:g}", x=_LEFT - 6, y=y(value) + 4, text_anchor="end"))
    for place, name in enumerate(names):
        chart.append(tag("text", name, x=x(place), y=HEIGHT - 10, text_anchor="middle"))
    for name, line in lines.items():
        places = [(i, e) for i, e in enumerate(line) if e is not None and e["value"] is not None]
        group = tag("g", class_=series.get(name, ""))
        for _, run in groupby(enumerate(places), key=lambda pair: pair[1][0] - pair[0]):
            _add_line(group, name, [(x(place), e) for _, (place, e) in run], y)
        chart.append(group)
    return chart


def _add_line(
    group: ET.Element,
    name: str,
    points: Sequence[tuple[float, Estimate]],
    y: Callable[[float], float],
) -> None:
    """Add a line without gaps to a group, with its band and its dots."""
    ends = [(x, e["low"], e["high"]) for x, e in points]
    outline = [f"{x},{y(low)}" for x, low, _ in ends if low is not None]
    outline += [f"{x},{y(high)}" for x, _, high in reversed(ends) if high is not None]
    group.append(tag("polygon", points=" ".join(outline), class_="band"))
    values = [(x, e, y(e["value"])) for x, e in points if e["value"] is not None]
    path = " ".join(f"{x},{height}" for x, _, height in values)
    group.append(tag("polyline", points=path, class_="line"))
    for x, e, height in values:
        label = tag("title", f"{name} {with_interval(e)}")
        group.append(tag("circle", label, cx=x, cy=height, r=2.5, fill="currentColor"))


def reliability_chart(bins: Sequence[Mapping[str, Any]], style: str, title: str) -> ET.Element:
    """Like rate against predicted probability; the area of a dot is the number of its labels.

    A dot with a `name` shows it in its tooltip.
    """
    margin, room = 30, 16  # room for half of a circle at the upper and right edges
    side = SQUARE - margin - room

    def x(value: float) -> float:
        return round(margin + side * value, 1)

    def y(value: float) -> float:
        return round(room + side * (1 - value), 1)

    chart = svg(SQUARE, SQUARE, title)
    chart.append(tag("rect", x=x(0), y=y(1), width=side, height=side, class_="frame"))
    chart.append(tag("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), class_="diagonal"))
    for value in (0, 0.5, 1):
        chart.append(tag("text", f"{value:g}", x=x(value), y=SQUARE - 6, text_anchor="middle"))
        chart.append(tag("text", f"{value:g}", x=margin - 5, y=y(value) + 4, text_anchor="end"))
    total = sum(entry["labels"] for entry in bins)
    group = tag("g", class_=style)
    for entry in bins:
        observed = entry["observed"]
        at = x(entry["predicted"])
        if observed["low"] is not None:
            ends = {"y1": y(observed["low"]), "y2": y(observed["high"])}
            group.append(tag("line", x1=at, x2=at, class_="line", **ends))
        liked = f"liked {with_interval(observed, '.2f')}, {entry['labels']:,} labels"
        name = f"{entry['name']}: " if "name" in entry else ""
        label = f"{name}predicted {entry['predicted']:.2f}, {liked}"
        radius = round(2 + 12 * math.sqrt(entry["labels"] / total), 1)
        dot = {"cx": at, "cy": y(observed["value"]), "r": radius}
        group.append(tag("circle", tag("title", label), class_="bubble", **dot))
    chart.append(group)
    return chart
