"""The parts of the page about the main result: headline, ranking, calibration and groups."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from benchmarks.fidelity.bootstrap import Estimate
from benchmarks.fidelity.page import charts
from benchmarks.fidelity.page.series import legend, series_of
from benchmarks.fidelity.page.words import best_model, percent, range_of, sentences, verdict
from benchmarks.fidelity.registry import DEFAULT_SIMULATOR
from benchmarks.fidelity.report import interval, number, ranked, with_interval
from jaxsim.pages.markup import cell, row_head, table, tag, tile

_CHANCE = 0.5
_METRICS = {
    "auc": ("ROC-AUC", ".4f"),
    "difference": ("over {reference}", "+.4f"),
    "dislike_precision": ("AP of dislikes", ".3f"),
    "log_loss": ("log-loss", ".4f"),
    "brier": ("Brier", ".4f"),
    "ece": ("ECE", ".3f"),
    "like_rate_error": ("like rate error", "+.3f"),
}


def plot_cell(content: ET.Element) -> ET.Element:
    """A wide cell with a strip of `charts`."""
    element = cell(content)
    element.set("class", "plot")
    return element


def number_cell(estimate: Estimate | None, form: str) -> ET.Element:
    """A cell with a value; its interval is in the tooltip."""
    element = cell(number(estimate, form), estimate["value"] if estimate else None)
    element.set("title", interval(estimate, form))
    return element


def headline(result: Mapping[str, Any]) -> list[ET.Element]:
    """Title, tiles with the most important figures, and what they mean."""
    lead = (
        f"{result['labels']:,} ratings of {result['users']:,} people were held out ({result['split']} split). "
        f"Each is predicted from at most {result['context']} ratings of the same person before it."
    )
    return [
        tag("h1", f"How true is the simulator of {result['dataset']} to people?"),
        tag("p", lead, class_="lead"),
        tag("div", _tiles(result), class_="tiles"),
        tag("h2", "What it means"),
        tag("ul", [tag("li", sentence) for sentence in sentences(result)]),
    ]


def _tiles(result: Mapping[str, Any]) -> list[ET.Element]:
    auc, rates = result["auc"], result["like_rate"]
    best, reference = best_model(result), result["reference"]
    names = {DEFAULT_SIMULATOR: "by the default simulator", best: f"by the best model, {best}"}
    if reference is not None:
        names[reference] = f"by {reference}, the best simple baseline"
        if best is not None:
            names[reference] += f"; {best} {verdict(result['difference'].get(best))} it"
    tiles = [
        tile(
            percent(auc[name]["value"]), f"of pairs in the right order{range_of(auc[name])} {text}"
        )
        for name, text in names.items()
        if name in auc
    ]
    if DEFAULT_SIMULATOR in rates:
        real = percent(rates["real"]["value"])
        text = f"of the ratings are likes by the default simulator; in truth, {real} are"
        tiles.append(tile(percent(rates[DEFAULT_SIMULATOR]["value"]), text))
    return tiles


def ranking(result: Mapping[str, Any]) -> list[ET.Element]:
    """The dot plot of ROC-AUCs, the table of all metrics, and what the predictors are."""
    series, auc, reference = series_of(result), result["auc"], result["reference"]
    base = auc[reference]["value"] if reference else None
    low, high = charts.limits(list(auc.values()), _CHANCE)
    rows = [
        [
            row_head(name, series[name]),
            cell(number(auc[name])),
            plot_cell(charts.track({name: auc[name]}, series, low, high, base)),
        ]
        for name in ranked(auc)
    ]
    rows.append([tag("th"), tag("td"), plot_cell(charts.scale(low, high))])
    text = (
        "ROC-AUC: the share of pairs of a like and a dislike in which the like gets the higher score. Lines are "
        f"95 % intervals over people ({result['resamples']:,} resamples). "
    )
    if reference:
        text += (
            f"The dashed line is {reference}, the baseline that was best on the validation split."
        )
    about = [
        [tag("dt", name), tag("dd", entry["about"])] for name, entry in result["predictors"].items()
    ]
    sorting = "A click on a column sorts the table. Only predictors of probabilities have losses and calibration."
    return [
        tag("h2", "Who ranks likes above dislikes"),
        tag("p", text),
        table(("", "AUC", ""), rows),
        tag("h3", "All metrics"),
        tag("p", sorting, class_="note"),
        _metrics(result),
        tag("h3", "The predictors"),
        tag("dl", about),
    ]


def _metrics(result: Mapping[str, Any]) -> ET.Element:
    reference = result["reference"] or "the best baseline"
    rows = [
        [
            row_head(name),
            *(number_cell(result[k].get(name), form) for k, (_, form) in _METRICS.items()),
        ]
        for name in ranked(result["auc"])
    ]
    titles = (title.format(reference=reference) for title, _ in _METRICS.values())
    return table(("predictor", *titles), rows, sortable=True)


def calibration(result: Mapping[str, Any]) -> list[ET.Element]:
    """A reliability chart for each predictor of probabilities."""
    series = series_of(result)
    figures = []
    for name, bins in result["reliability"].items():
        caption = tag("figcaption", tag("b", name), f" ECE {with_interval(result['ece'][name])}")
        chart = charts.reliability_chart(bins, series[name], f"reliability of {name}")
        figures.append(tag("figure", caption, chart))
    text = (
        "Each circle stands for ratings with about the same predicted probability (across). Its height is the "
        "share of likes among them, and its area their number. On the diagonal, a probability means what it says."
    )
    return [
        tag("h2", "Whether probabilities can be believed"),
        tag("p", text),
        tag("div", figures, class_="charts small"),
    ]


def groups(result: Mapping[str, Any]) -> list[ET.Element]:
    """Errors of the like rate by group, and like rates on unrated items."""
    series, names = series_of(result), list(result["ece"])
    errors = [e for group in result["groups"] for e in group["like_rate_error"].values()]
    low, high = charts.limits(errors, 0.0)
    text = "Predicted like rate minus the real one. Right of the dashed line, simulated people like too much."
    parts = [
        tag("h2", "Who is simulated with the right like rate"),
        tag("p", text),
        legend(names, series),
    ]
    for kind in dict.fromkeys(group["kind"] for group in result["groups"]):
        members = [group for group in result["groups"] if group["kind"] == kind]
        rows = [
            [
                row_head(group["group"]),
                cell(f"{group['labels']:,}"),
                cell(number(group["real"], ".0%")),
                plot_cell(charts.track(group["like_rate_error"], series, low, high, 0.0, "+.3f")),
            ]
            for group in members
        ]
        rows.append([tag("th"), tag("td"), tag("td"), plot_cell(charts.scale(low, high, "+g"))])
        parts.append(table((kind, "labels", "liked", ""), rows))
    return parts + _unrated(result)


def _unrated(result: Mapping[str, Any]) -> list[ET.Element]:
    rated, unrated = result["like_rate"], result["unrated_like_rate"]
    if not unrated:
        return []
    rows = [
        [row_head(name), number_cell(rated[name], ".3f"), number_cell(unrated[name], ".3f")]
        for name in unrated
    ]
    rows.append([row_head("real"), number_cell(rated["real"], ".3f"), cell("unknown")])
    text = (
        "People choose what they watch, read or buy. An agent recommends from the whole catalogue, where nobody "
        "knows the real like rate."
    )
    return [
        tag("h3", "Items that people have rated, and the rest of the catalogue"),
        tag("p", text),
        table(("like rate", "on rated items", "on unrated items"), rows),
    ]
