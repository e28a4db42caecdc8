"""The parts of the page about changed circumstances: histories, cold items, controls; and the settings."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.fidelity.bootstrap import Estimate
from benchmarks.fidelity.page import charts
from benchmarks.fidelity.page.sections import number_cell
from benchmarks.fidelity.page.series import legend, series_of, shown_in_charts
from benchmarks.fidelity.page.words import percent
from benchmarks.fidelity.report import CONTROL_COLUMNS, control_rows, ranked, with_interval
from jaxsim.pages.markup import cell, row_head, table, tag


def _curve(
    result: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, Estimate]],
    names: Sequence[str],
    title: str,
    below: str,
) -> ET.Element:
    """A figure of some predictors' estimates in several circumstances."""
    series = series_of(result)
    lines = {name: [column.get(name) for column in columns.values()] for name in names}
    lines = {name: line for name, line in lines.items() if any(line)}
    caption = tag("figcaption", tag("b", title), f" by {below}")
    chart = charts.line_chart(lines, series, list(columns), title)
    return tag("figure", caption, legend(lines, series), chart)


def histories(result: Mapping[str, Any]) -> list[ET.Element]:
    """Short histories and strictly earlier times."""
    columns = {str(row["context"]): row["auc"] for row in result["contexts"]}
    figure = _curve(result, columns, shown_in_charts(result), "ROC-AUC", "longest history")
    parts = [tag("h2", "How much history it takes"), tag("div", figure, class_="charts")]
    earlier = result["strictly_earlier"]
    if earlier is None:
        return parts
    rows = [
        [
            row_head(name),
            number_cell(result["auc"][name], ".4f"),
            number_cell(earlier["auc"][name], ".4f"),
            number_cell(earlier["difference"].get(name), "+.4f"),
        ]
        for name in ranked(result["auc"])
        if name in earlier["auc"]
    ]
    text = (
        "Many people enter several ratings in one second, in an order that may say something about them. Here "
        "histories hold only ratings with a smaller time than the one to be predicted. That changes "
        f"{percent(earlier['changed'])} of the histories, and {earlier['without_history']:,} ratings have none."
    )
    reference = result["reference"] or "the best baseline"
    return [
        *parts,
        tag("h3", "Strictly earlier times only"),
        tag("p", text),
        table(("ROC-AUC", "all before", "earlier times", f"over {reference}"), rows, sortable=True),
    ]


def cold_items(result: Mapping[str, Any]) -> list[ET.Element]:
    """The curve of cold items, and what keywords add to it."""
    curve = result.get("cold_curve")
    if not curve:
        return []
    names = list(curve[0]["auc"])
    columns = {str(row["ratings"]): row["auc"] for row in curve}
    columns["all"] = {name: result["auc"][name] for name in names}
    shown = [name for name in shown_in_charts(result) if name in names]
    figures = [_curve(result, columns, shown, "ROC-AUC", "training ratings left to an item")]
    gains = {str(row["ratings"]): row["keyword_gain"] for row in curve}
    if any(gains.values()):
        figures.append(_curve(result, gains, shown, "Gain by keywords", "training ratings left"))
    rows = [
        [row_head(name), *(number_cell(column.get(name), ".3f") for column in columns.values())]
        for name in ranked(columns["all"])
    ]
    text = (
        "A fifth of the items at a time loses its ratings everywhere, and the predictors are fitted again. "
        "At 0, an item is new. Keywords are there before any rating, so this is where they can help most."
    )
    return [
        tag("h2", "Items that nobody has rated"),
        tag("p", text),
        tag("div", figures, class_="charts"),
        table(("ratings left", *columns), rows),
    ]


def control_table(result: Mapping[str, Any]) -> list[ET.Element]:
    """The controls of each predictor."""
    rows = [
        [row_head(name), *(cell(with_interval(estimate)) for estimate in entries.values())]
        for name, entries in control_rows(result)
    ]
    text = (
        "ROC-AUCs. The first two columns compare ratings of the same item, so that only the person matters: with "
        "another person's history nothing may be left above 0.5. Nothing may be left after fitting on shuffled "
        "labels, either. With permuted keywords, what is left does not come from what the keywords say."
    )
    return [
        tag("h2", "Controls"),
        tag("p", text),
        table(("predictor", *CONTROL_COLUMNS.values()), rows),
    ]


def settings(result: Mapping[str, Any]) -> list[ET.Element]:
    """Notes, settings and versions."""
    return how_it_was_measured(
        result, {"repetitions of controls": result["repeats"]}, "docs/fidelity.md"
    )


def how_it_was_measured(
    result: Mapping[str, Any], more: Mapping[str, object], definitions: str
) -> list[ET.Element]:
    """Notes, settings and versions of a result.

    Args:
        result: the content of `--json`.
        more: settings that only this measurement has, by the name that is shown.
        definitions: the file that defines the figures.
    """
    entries = {
        "dataset": result["dataset"],
        "split": result["split"],
        "longest history": result["context"],
        "resamples of people": f"{result['resamples']:,}",
        "seed": result["seed"],
        **more,
        "device": result["device"],
        "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        "seconds": f"{result['seconds']:,.0f} ({result['processor_seconds']:,.0f} of processor time)",
    }
    pairs = [[tag("dt", name), tag("dd", str(value))] for name, value in entries.items()]
    parts = [tag("h2", "How this was measured")]
    if result["notes"]:
        parts.append(tag("ul", [tag("li", line) for line in result["notes"]]))
    where = f"{definitions} in the source of jaxsim defines every figure."
    return [*parts, tag("dl", pairs), tag("p", where, class_="note")]
