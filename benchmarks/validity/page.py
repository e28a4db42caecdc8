"""The measurement as a page of HTML: one file without any reference to another, as that of fidelity."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.fidelity.bootstrap import Estimate
from benchmarks.fidelity.page import charts
from benchmarks.fidelity.page.sections import number_cell, plot_cell
from benchmarks.fidelity.page.series import GREY, legend, series_of
from benchmarks.fidelity.page.studies import how_it_was_measured
from benchmarks.fidelity.page.words import percent, range_of
from benchmarks.fidelity.registry import BEST_MODELS, DEFAULT_SIMULATOR
from benchmarks.fidelity.report import interval, number, with_interval
from benchmarks.validity.judgement import REFERENCE
from benchmarks.validity.mixed import POPULARITY
from benchmarks.validity.report import AGREEMENT, MIXED, REAL, SEQUENCES, by_tau, by_value
from jaxsim.pages.markup import cell, document, row_head, table, tag, tile


def format_page(result: Mapping[str, Any]) -> str:
    """The measurement as a page of HTML, from the content of `--json`."""
    parts = (_headline, _ranking, _optimism, _policies, _truth, _mixed, _sequences, _settings)
    body = tag("main", [part(result) for part in parts])
    return document(f"Validity of {result['dataset']}", [body])


def _shown(result: Mapping[str, Any]) -> list[str]:
    """The simulators that the text speaks of: the best model, the default, and the simplest one."""
    judged = result["simulators"]
    best = [name for name in BEST_MODELS if name in judged][:1]
    return [name for name in (*best, DEFAULT_SIMULATOR, REFERENCE) if name in judged]


def _headline(result: Mapping[str, Any]) -> list[ET.Element]:
    """Title, tiles, and what they mean."""
    lead = (
        f"{len(result['policies'])} recommenders pick {result['picks']} of the items that each of "
        f"{result['users']:,} people rated in the test split. What people said is compared with what simulated "
        "people say."
    )
    judged = result["simulators"]
    tiles = [
        tile(
            number(judged[name]["tau"]),
            f"is Kendall's tau of {name} with people ({interval(judged[name]['tau'])}); 1 is the same ranking",
        )
        for name in _shown(result)
    ]
    text = f"is that of one half of the people with the other ({interval(result['split_half'])})"
    tiles.append(tile(number(result["split_half"]), text))
    return [
        tag("h1", f"Does the simulator of {result['dataset']} rank recommenders as people do?"),
        tag("p", lead, class_="lead"),
        tag("div", tiles, class_="tiles"),
        tag("h2", "What it means"),
        tag("ul", [tag("li", sentence) for sentence in sentences(result)]),
    ]


def sentences(result: Mapping[str, Any]) -> list[str]:
    """The meaning of the result, one statement each."""
    lines = []
    for name in _shown(result):
        entry = result["simulators"][name]
        if entry["own_real"]["value"] is not None:
            lines.append(
                f"A recommender that believes {name} and picks what it finds most probable expects "
                f"{percent(entry['own_simulated']['value'])} likes. People like "
                f"{percent(entry['own_real']['value'])} of these picks{range_of(entry['own_real'])}."
            )
    answered = result["sequences"]["simulators"]
    for name in _shown(result):
        auc = answered.get(name, {}).get("trees_auc")
        if auc and auc["value"] is not None:
            lines.append(
                f"Given a sequence of answers by a person and one by {name}, a classifier finds the simulated one "
                f"in {percent(auc['value'])}{range_of(auc)} of such pairs. Guessing gives 50%."
            )
    return lines


def _dots(
    result: Mapping[str, Any],
    judged: Mapping[str, Mapping[str, Any]],
    key: str,
    form: str,
    mark: float | None,
) -> ET.Element:
    """A dot plot of one estimate of each simulator."""
    series = {REAL: GREY, **series_of(result)}
    names = [name for name in by_tau(judged) if key in judged[name]]
    low, high = charts.limits([judged[n][key] for n in names], *([] if mark is None else [mark]))
    rows = [
        [
            row_head(name, series[name]),
            cell(number(judged[name][key], form)),
            plot_cell(charts.track({name: judged[name][key]}, series, low, high, mark, form)),
        ]
        for name in names
    ]
    rows.append([tag("th"), tag("td"), plot_cell(charts.scale(low, high))])
    return table(("", "", ""), rows)


def _agreement(judged: Mapping[str, Mapping[str, Any]]) -> ET.Element:
    rows = [
        [
            row_head(name),
            *(number_cell(judged[name].get(key), form) for key, (_, form) in AGREEMENT.items()),
        ]
        for name in by_tau(judged)
    ]
    header = ("simulator", *(title for title, _ in AGREEMENT.values()))
    return table(header, rows, sortable=True)


def _ranking(result: Mapping[str, Any]) -> list[ET.Element]:
    text = (
        "Kendall's tau: pairs of recommenders in the order of reality minus those in the other order, as a share "
        "of all pairs. Lines are 95 % intervals over people. The dashed line is the tau between two halves of the "
        f"people. One that knew every true value would reach about {number(result['ceiling'], '.2f')}."
    )
    about = [
        [tag("dt", name), tag("dd", entry["about"])] for name, entry in result["predictors"].items()
    ]
    return [
        tag("h2", "Who ranks recommenders as people do"),
        tag("p", text),
        _dots(result, result["simulators"], "tau", ".3f", result["split_half"]["value"]),
        tag("p", "A click on a column sorts the table.", class_="note"),
        _agreement(result["simulators"]),
        tag("h3", "The simulators"),
        tag("dl", about),
    ]


def _optimism(result: Mapping[str, Any]) -> list[ET.Element]:
    judged = result["simulators"]
    text = (
        "For each simulator, the recommender that picks what it finds most probable: the like rate that the "
        "simulator believes in, minus the real one. Right of the dashed line, it promises too much."
    )
    rows = [
        [
            row_head(name),
            cell(judged[name]["own"]),
            *(number_cell(judged[name][key], ".3f") for key in ("own_simulated", "own_real")),
            cell(judged[name]["best"]),
            number_cell(judged[name]["optimism_of_best"], "+.3f"),
            number_cell(judged[name]["regret"], ".3f"),
        ]
        for name in by_tau(judged)
    ]
    header = ("simulator", "greedy on it", "believed", "real", "finds best", "optimism", "regret")
    return [
        tag("h2", "Who promises too much"),
        tag("p", text),
        _dots(result, judged, "optimism", "+.3f", 0.0),
        table(header, rows, sortable=True),
    ]


def _scatter(result: Mapping[str, Any], name: str, style: str) -> ET.Element:
    """Real against simulated values, a dot for each policy."""
    dots = [
        {
            "name": row["policy"],
            "predicted": row["simulated"][name]["value"],
            "observed": row["real"],
            "labels": result["picks"] * result["users"],
        }
        for row in result["policies"]
    ]
    tau = with_interval(result["simulators"][name]["tau"])
    caption = tag("figcaption", tag("b", name), f" tau {tau}")
    return tag("figure", caption, charts.reliability_chart(dots, style, f"policies by {name}"))


def _policies(result: Mapping[str, Any]) -> list[ET.Element]:
    series, shown = series_of(result), _shown(result)
    scatters = [_scatter(result, name, series[name]) for name in result["simulators"]]
    styles = {**{name: series[name] for name in shown}, REAL: ""}

    def of(row: Mapping[str, Any]) -> dict[str, Estimate]:
        return {**{name: row["simulated"][name] for name in shown}, REAL: row["real"]}

    low, high = charts.limits([e for row in result["policies"] for e in of(row).values()])
    rows = [
        [
            _policy_head(row),
            number_cell(row["real"], ".3f"),
            plot_cell(charts.track(of(row), styles, low, high)),
        ]
        for row in by_value(result)
    ]
    rows.append([tag("th"), tag("td"), plot_cell(charts.scale(low, high))])
    text = (
        "Each circle is a recommender: what the simulator says of its picks (across), and what people said "
        "(upwards). On the diagonal, the value is right; if the circles rise, the ranking is."
    )
    return [
        tag("h2", "The recommenders"),
        tag("p", text),
        tag("div", scatters, class_="charts small"),
        legend([*shown, REAL], styles),
        table(("share of likes among the picks", REAL, ""), rows),
    ]


def _policy_head(row: Mapping[str, Any]) -> ET.Element:
    head = row_head(row["policy"])
    same = f"; the same as {', '.join(row['same_as'])}" if row["same_as"] else ""
    head.set("title", f"{row['about']}{same}")
    return head


def _truth(result: Mapping[str, Any]) -> list[ET.Element]:
    truth = result.get("truth")
    if not truth:
        return []
    text = (
        "The people of this dataset are drawn from a known model, so the true probability of each like is known. "
        f"Here the values are compared with it. {REAL} stands for the drawn likes."
    )
    return [
        tag("h2", "Against the truth"),
        tag("p", text),
        _dots(result, truth, "tau", ".3f", None),
        _agreement(truth),
    ]


def _mixed(result: Mapping[str, Any]) -> list[ET.Element]:
    text = (
        "The test of Agent4Rec: rated items are mixed with others that the same person never rated, and every "
        "like counts as the answer that an item was rated. This measures whether a simulator knows what people "
        "come to rate, not what they like: one that is right about likes says that many rated items are disliked. "
        f"{POPULARITY}, the number of training ratings, knows nobody's taste."
    )
    parts: list[ET.Element] = [tag("h2", "Rated items among unrated ones"), tag("p", text)]
    for row in result["mixed_items"]:
        names = (*row["accuracy"], POPULARITY)
        rows = [
            [row_head(name), *(number_cell(row[key].get(name), ".3f") for key in MIXED)]
            for name in names
        ]
        parts.append(tag("h3", f"{row['items']} items, 1:{row['ratio']}"))
        parts.append(table((f"{row['pairs']:,} pairs", *MIXED.values()), rows, sortable=True))
    return parts


def _sequences(result: Mapping[str, Any]) -> list[ET.Element]:
    part = result["sequences"]
    entries: Sequence[tuple[str, Mapping[str, Estimate]]] = [
        ("people", part["people"]),
        *part["simulators"].items(),
    ]
    rows = [
        [row_head(name), *(_with_range(entry.get(key)) for key in SEQUENCES)]
        for name, entry in entries
    ]
    text = (
        "Simulated people answer the items that people rated in the test split, one after the other. KS is the "
        "largest distance of two distribution functions, of the like rates of people and of the lengths of runs "
        "of equal answers; the row of people compares two halves of them. The last columns are ROC-AUCs of "
        "classifiers that look for the simulated sequences; 0.5 means that they cannot be told apart."
    )
    return [
        tag("h2", "Simulated sequences beside real ones"),
        tag("p", text),
        table(("", *SEQUENCES.values()), rows),
    ]


def _with_range(estimate: Estimate | None) -> ET.Element:
    ends = interval(estimate)
    return cell([number(estimate), tag("small", f" {ends}", class_="note")])


def _settings(result: Mapping[str, Any]) -> list[ET.Element]:
    more = {
        "picks of a recommender": result["picks"],
        "fewest test ratings of a person": result["min_interactions"],
        "divisions into halves": result["halves"],
        "simulated sequences of a person": result["draws"],
    }
    return how_it_was_measured(result, more, "docs/validity.md")
