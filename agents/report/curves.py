"""Learning curves as a chart of Bokeh: the runs with the range of their seeds, and the baselines as lines.

A chart names its colours by tags, and `curves.js` reads them from the style sheet of the page, so that it follows
the dark mode. The same values stand in a table, for people and programs that do not see a chart.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from bokeh.core.types import ID
from bokeh.embed import json_item
from bokeh.model import Model
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, LinearAxis, NumeralTickFormatter
from bokeh.plotting import figure
from bokeh.resources import Resources

from agents.evaluation.returns import GREEDY, SAMPLED
from agents.evaluation.table import Row
from jaxsim.pages.markup import cell, data_block, table, tag

# Numbers of the style sheet's colours, and dashes, which tell runs apart without colours.
_COLOURS = (0, 1, 2, 4, 3, 6, 7, 5)
_DASHES: tuple[list[int], ...] = ([], [8, 3], [2, 2], [9, 3, 2, 3], [14, 4], [4, 2, 1, 2])
_MARKERS = {GREEDY: "circle", SAMPLED: "x"}
# Bokeh escapes the values. The colours of the tooltip are those of its white panel, also in the dark mode.
_TOOLTIP = (
    "<div style='color: #22252a; max-width: 16rem'><b>@name</b><br>@rate{0.000} likes per recommendation"
    "<br>@steps{0,0} steps</div>"
)
_TABLE_ROWS = 10
_LEGEND_LETTERS = 20  # of all names; with more, they do not stand side by side on a phone
_LABEL_LETTERS = 32  # of one name
_LEGEND_LINE = 24  # pixels


class Curve(NamedTuple):
    """A run in the chart: its label, its training log, and its rows for users that agents train on."""

    label: str
    log: pd.DataFrame
    rows: Sequence[Row]


def line_key(index: int) -> ET.Element:
    """A short line in the colour and the dashes of a run."""
    dashes = " ".join(map(str, _dashes_of(index))) or "none"
    stroke = tag("line", class_="line", x1=1, x2=29, y1=5, y2=5, stroke_dasharray=dashes)
    style = f"line-key s{_colour_of(index)}"
    return tag("svg", stroke, class_=style, viewBox="0 0 30 10", aria_hidden="true")


def _colour_of(index: int) -> int:
    return _COLOURS[index % len(_COLOURS)]


def _dashes_of(index: int) -> list[int]:
    return _DASHES[index % len(_DASHES)]


def shorten(label: str) -> str:
    """A label that a phone has room for; the beginnings of two may be the same, so their ends stay too."""
    if len(label) <= _LABEL_LETTERS:
        return label
    kept = _LABEL_LETTERS // 2 - 1
    return f"{label[:kept]}\N{HORIZONTAL ELLIPSIS}{label[-kept:]}"


def seed_range(log: pd.DataFrame) -> pd.DataFrame:
    """Mean, lowest and highest like rate over the seeds, by steps; steps that a seed lacks are left out."""
    rates = log.pivot_table(index="steps", columns="seed", values="like_rate").dropna()
    ends = {"rate": rates.mean(axis=1), "low": rates.min(axis=1), "high": rates.max(axis=1)}
    return pd.DataFrame(ends, index=rates.index).reset_index()


def chart_script() -> str:
    """The code of Bokeh that draws a chart in a browser; it needs no network."""
    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def curve_chart(curves: Sequence[Curve], baselines: Sequence[Row]) -> list[ET.Element]:
    """The place of the chart, what `curves.js` draws there, and the same values as a table.

    Args:
        curves: the runs.
        baselines: rows of the baselines for users that agents train on.
    """
    item = json_item(draw_curves(curves, baselines), ID("curves"))
    label = "Chart of the learning curves; the table below has the same values"
    return [
        tag("div", id="curves", role="group", aria_label=label),
        tag("noscript", tag("p", "The chart needs JavaScript; the table below does not.")),
        data_block("curves-data", _renumbered(item)),
        tag("details", tag("summary", "The curves as a table"), _curve_table(curves)),
    ]


def _renumbered(item: Any) -> Any:
    """`item` with models numbered from 1, because Bokeh goes on counting from chart to chart."""
    numbers: dict[str, str] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: numbers.setdefault(part, f"p{len(numbers) + 1}")
                if key in ("id", "root_id") and isinstance(part, str)
                else walk(part)
                for key, part in value.items()
            }
        return [walk(part) for part in value] if isinstance(value, list) else value

    return walk(item)


def _curve_table(curves: Sequence[Curve]) -> ET.Element:
    """At most ten lines of each run, from its first to its last."""
    rows = []
    for curve in curves:
        seeds = seed_range(curve.log)
        chosen = np.unique(np.linspace(0, max(0, len(seeds) - 1), _TABLE_ROWS).round().astype(int))
        rows += [
            [
                tag("th", curve.label, scope="row"),
                cell(f"{line.steps:,.0f}"),
                cell(f"{line.rate:.3f}"),
                cell(f"{line.low:.3f} to {line.high:.3f}"),
            ]
            for line in seeds.iloc[chosen[: len(seeds)]].itertuples()
        ]
    grid = table(("run", "steps", "likes per recommendation", "lowest to highest seed"), rows)
    grid.set("tabindex", "0")  # so that it scrolls by keyboard
    return grid


def draw_curves(curves: Sequence[Curve], baselines: Sequence[Row]) -> Any:
    """The chart.

    Args:
        curves: the runs.
        baselines: rows of the baselines for users that agents train on.

    Returns:
        A figure of Bokeh.
    """
    plot: Any = figure(
        height=400,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,reset,save",
        active_drag=None,  # so that a finger on the chart scrolls the page
        toolbar_location="above",
        x_axis_label="environment steps of one seed",
        y_axis_label="likes per recommendation",
        background_fill_color=None,
        border_fill_color=None,
        min_border_right=12,
    )
    plot.toolbar.logo = None
    steps = max(int(curve.log["steps"].max()) for curve in curves) or 1
    _add_baselines(plot, baselines, steps)
    for index, curve in enumerate(curves):
        _add_curve(plot, curve, index)
    plot.add_tools(HoverTool(tooltips=_TOOLTIP, point_policy="snap_to_data", visible=False))
    plot.x_range.range_padding = 0.02
    _style(plot)
    return plot


def _coloured(model: Model, **names: str) -> None:
    """Note which variable of the style sheet gives each colour of a model."""
    model.tags = [names]


def _add_baselines(plot: Any, baselines: Sequence[Row], steps: int) -> None:
    """A dashed line for each baseline, with its name on an axis at the right, which moves with the chart."""
    for row in baselines:
        source = ColumnDataSource(
            {"steps": [0, steps], "rate": [row.like_rate] * 2, "name": [row.policy] * 2}
        )
        line = plot.line("steps", "rate", source=source, line_dash=[2, 3], line_width=1.2)
        _coloured(line.glyph, line_color="soft")
    names: Any = {row.like_rate: row.policy for row in baselines}
    ticker: Any = FixedTicker(ticks=sorted(names))  # Bokeh's type of an axis knows fewer tickers
    axis = LinearAxis(
        ticker=ticker, major_label_overrides=names, axis_line_color=None,
        minor_tick_line_color=None,
    )  # fmt: skip
    plot.add_layout(axis, "right")


def _add_curve(plot: Any, curve: Curve, index: int) -> None:
    """The mean of the seeds, their range as a band, and the evaluated policies at the end."""
    colour = f"c{_colour_of(index)}"
    seeds = seed_range(curve.log)
    shared = {"legend_label": shorten(curve.label)}
    data = {name: seeds[name].to_numpy(np.float64) for name in ("steps", "rate", "low", "high")}
    source = ColumnDataSource({**data, "name": [f"{curve.label}, while training"] * len(seeds)})
    if curve.log["seed"].nunique() > 1:
        band = plot.varea("steps", "low", "high", source=source, fill_alpha=0.15, **shared)
        _coloured(band.glyph, fill_color=colour)
    dashes = _dashes_of(index)
    line = plot.line("steps", "rate", source=source, line_width=2, line_dash=dashes, **shared)
    _coloured(line.glyph, line_color=colour)
    end = float(curve.log["steps"].max())
    for row in curve.rows:
        name = f"{curve.label}, {row.mode}, evaluated"
        at = ColumnDataSource({"steps": [end], "rate": [row.like_rate], "name": [name]})
        mark = plot.scatter(
            "steps", "rate", source=at, size=10, marker=_MARKERS[row.mode], line_width=2, **shared
        )
        _coloured(mark.glyph, fill_color=colour, line_color=colour)


def _style(plot: Any) -> None:
    """Colours by name, round numbers, and a legend below the chart that hides and shows runs."""
    for axis in plot.axis:
        axis.axis_label_text_font_style = "normal"
        _coloured(
            axis, axis_label_text_color="soft", major_label_text_color="soft", axis_line_color="rule",
            major_tick_line_color="rule", minor_tick_line_color="rule",
        )  # fmt: skip
    for grid in plot.grid:
        _coloured(grid, grid_line_color="rule")
    plot.outline_line_color = None
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    legend = plot.legend[0]
    plot.add_layout(legend, "below")
    labels = [item.label.value for item in legend.items]
    side_by_side = sum(map(len, labels)) <= _LEGEND_LETTERS
    if not side_by_side:
        plot.height += _LEGEND_LINE * len(labels)
    legend.update(
        orientation="horizontal" if side_by_side else "vertical", location="left", click_policy="hide",
        spacing=14 if side_by_side else 2, background_fill_color=None, border_line_color=None,
    )  # fmt: skip
    _coloured(legend, label_text_color="ink")
