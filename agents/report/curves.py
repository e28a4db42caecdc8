"""Learning curves as an image in the page: the runs with the range of their seeds, and the baselines as lines.

The image is drawn twice, for a desk and for a phone, because a scaled one would have texts of the wrong size. The
style sheet shows one of them.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from agents.evaluation.returns import BASELINE, GREEDY, SAMPLED
from agents.evaluation.table import Row
from jaxsim.pages.charts import svg, ticks
from jaxsim.pages.markup import tag

# Colours of the style sheet, and dashes of the lines, which tell runs apart without colours.
_COLOURS = ("s0", "s1", "s2", "s4", "s3", "s6", "s7", "s5")
_DASHES = ("r0", "r1", "r2", "r3", "r4", "r5")
_TITLE = "Likes per recommendation while training, by environment steps of one seed"


class Curve(NamedTuple):
    """A run in the chart: its label, its training log, and its rows for users that agents train on."""

    label: str
    log: pd.DataFrame
    rows: Sequence[Row]


@dataclass(frozen=True)
class Frame:
    """The area of a chart: its size, its margins, and the ranges of its axes."""

    width: int
    height: int
    right: int
    steps: int
    low: float
    high: float
    style: str
    left: int = 40
    top: int = 10
    bottom: int = 40

    def x(self, steps: float) -> float:
        """The place of a number of steps."""
        return round(self.left + (self.width - self.left - self.right) * steps / self.steps, 1)

    def y(self, rate: float) -> float:
        """The height of a like rate."""
        share = (self.high - rate) / (self.high - self.low)
        return round(self.top + (self.height - self.top - self.bottom) * share, 1)


def style_of(index: int) -> str:
    """The colour and the dashes of a run."""
    return f"{_COLOURS[index % len(_COLOURS)]} {_DASHES[index % len(_DASHES)]}"


def curve_charts(curves: Sequence[Curve], baselines: Sequence[Row]) -> list[ET.Element]:
    """The chart for a desk, and the one for a phone.

    Args:
        curves: the runs.
        baselines: rows of the baselines for users that agents train on.
    """
    rates = [row.like_rate for row in baselines]
    rates += [row.like_rate for curve in curves for row in curve.rows]
    rates += [rate for curve in curves for rate in curve.log["like_rate"].dropna()]
    low, high = min(rates, default=0.0), max(rates, default=1.0)
    room = 0.05 * (high - low) or 0.05
    steps = max(int(curve.log["steps"].max()) for curve in curves) or 1
    axes: dict[str, Any] = {"steps": steps, "low": low - room, "high": high + room}
    frames = (
        Frame(760, 360, right=122, style="wide", **axes),
        Frame(350, 300, right=84, style="narrow", **axes),
    )
    return [_chart(frame, curves, baselines) for frame in frames]


def _chart(frame: Frame, curves: Sequence[Curve], baselines: Sequence[Row]) -> ET.Element:
    chart = svg(frame.width, frame.height, _TITLE, f"curves {frame.style}")
    _add_axes(chart, frame)
    _add_baselines(chart, frame, baselines)
    for index, curve in enumerate(curves):
        chart.append(_line(frame, curve, style_of(index)))
    return chart


def _add_axes(chart: ET.Element, frame: Frame) -> None:
    right, floor = frame.width - frame.right, frame.height - frame.bottom
    for value in ticks(frame.low, frame.high):
        at = frame.y(value)
        chart.append(tag("line", class_="grid", x1=frame.left, x2=right, y1=at, y2=at))
        chart.append(tag("text", f"{value:g}", x=frame.left - 6, y=at + 4, text_anchor="end"))
    for value in ticks(0, frame.steps, 5 if frame.style == "wide" else 3):
        name = f"{value:,.0f}"
        chart.append(tag("text", name, x=frame.x(value), y=floor + 16, text_anchor="middle"))
    middle = (frame.left + right) / 2
    text = "environment steps of one seed"
    chart.append(tag("text", text, x=middle, y=frame.height - 6, text_anchor="middle"))


def _add_baselines(chart: ET.Element, frame: Frame, baselines: Sequence[Row]) -> None:
    """A dashed line for each baseline, with its name at the right; names that would overlap are moved apart."""
    right, gap = frame.width - frame.right, 13
    ordered = sorted(baselines, key=lambda row: -row.like_rate)
    heights = _apart([frame.y(row.like_rate) for row in ordered], gap, frame.height - frame.bottom)
    for row, height in zip(ordered, heights, strict=True):
        at = frame.y(row.like_rate)
        label = tag("title", f"{row.policy} {row.like_rate:.3f}")
        chart.append(tag("line", label, class_="baseline", x1=frame.left, x2=right, y1=at, y2=at))
        points = f"{right},{at} {right + 6},{height} {right + 10},{height}"
        chart.append(tag("polyline", points=points, class_="pointer"))
        chart.append(tag("text", row.policy, x=right + 13, y=round(height + 4, 1)))


def _apart(heights: Sequence[float], gap: float, floor: float) -> list[float]:
    """Ascending heights, moved so that two are at least `gap` apart and the last is not below `floor`."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    limit = floor
    for index in reversed(range(len(moved))):
        moved[index] = round(min(moved[index], limit), 1)
        limit = moved[index] - gap
    return moved


def _line(frame: Frame, curve: Curve, style: str) -> ET.Element:
    """The mean of the seeds, their range as a band, and the evaluated policies at the end."""
    seeds = curve.log.pivot_table(index="steps", columns="seed", values="like_rate").dropna()
    steps = [frame.x(float(x)) for x in seeds.index]
    lows, highs, means = (
        [frame.y(float(y)) for y in values]
        for values in (seeds.min(axis=1), seeds.max(axis=1), seeds.mean(axis=1))
    )
    group = tag("g", class_=style)
    if seeds.shape[1] > 1:
        outline = [*zip(steps, lows, strict=True), *reversed([*zip(steps, highs, strict=True)])]
        group.append(tag("polygon", points=_points(outline), class_="band"))
    title = tag("title", f"{curve.label}, while training")
    points = _points([*zip(steps, means, strict=True)])
    group.append(tag("polyline", title, points=points, class_="line"))
    end = frame.x(float(curve.log["steps"].max()))
    for row in curve.rows:
        label = tag("title", f"{curve.label}, {row.mode}: {row.like_rate:.3f}")
        group.append(_marker(row.mode, end, frame.y(row.like_rate), label))
    return group


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in pairs)


def _marker(mode: str, x: float, y: float, label: ET.Element) -> ET.Element:
    """A disc for the greedy policy, a cross for the stochastic one."""
    if mode == GREEDY:
        return tag("circle", label, cx=x, cy=y, r=4.5, class_="evaluated")
    path = f"M{x - 4},{y - 4}l8,8M{x - 4},{y + 4}l8,-8"
    return tag("path", label, d=path, class_="cross")


def legend(curves: Sequence[Curve]) -> ET.Element:
    """What the lines and the markers are."""
    entries = []
    for index, curve in enumerate(curves):
        seeds = curve.log["seed"].nunique()
        text = f"{curve.label}, while training: " + (
            f"mean and range of {seeds} seeds" if seeds > 1 else "one seed"
        )
        entries.append(tag("li", line_key(style_of(index)), text))
    modes = {row.mode for curve in curves for row in curve.rows} - {BASELINE}
    for mode, mark in ((GREEDY, "\N{BLACK CIRCLE}"), (SAMPLED, "\N{MULTIPLICATION SIGN}")):
        if mode in modes:
            entries.append(tag("li", tag("span", mark, class_="key"), f"evaluated, {mode}"))
    entries.append(tag("li", _key("baseline", ""), "baselines, evaluated"))
    return tag("ul", entries, class_="legend")


def line_key(style: str) -> ET.Element:
    """A short line in the colour and the dashes of a run."""
    return _key("line", style)


def _key(line: str, style: str) -> ET.Element:
    stroke = tag("line", class_=line, x1=1, x2=29, y1=5, y2=5)
    return tag(
        "svg", stroke, class_=f"line-key {style}".strip(), viewBox="0 0 30 10", aria_hidden="true"
    )
