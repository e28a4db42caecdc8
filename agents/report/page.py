"""The page as a whole: one file without any reference to another, in light and dark, for a phone or a desk."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agents.evaluation.returns import BASELINE, GREEDY, GROUPS
from agents.evaluation.table import HEADER, Row, format_interval, ranked, row_cells, row_names
from agents.evaluation.visits import format_visits
from agents.report.curves import Curve, chart_script, curve_chart, line_key
from agents.report.explorer import explorer
from agents.report.runs import ReportedRun
from jaxsim.pages.markup import cell, document, table, tag, tile

_DECIDE = {
    "paper": "by the three votes of the paper",
    "released": "by the votes of the authors' released code",
    "calibrated": "with the probability that the taste model predicts",
    "soft": "by the probability that the taste model predicts, without a draw",
}


def format_page(
    dataset: str,
    runs: Sequence[ReportedRun],
    sessions: Sequence[Mapping[str, Any]] = (),
    vocabulary: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The page of some runs.

    Args:
        dataset: its name.
        runs: evaluated on the same sessions; the baselines are those of the first.
        sessions: label, kind and described sessions of each run.
        vocabulary: what the sessions refer to.
        notes: sentences about how the page was made.
    """
    rows = _labelled(runs)
    body = tag(
        "main",
        _headline(dataset, runs, rows),
        _curves(runs, rows),
        _results(runs, rows),
        explorer(sessions, vocabulary or {}),
        _settings(runs, notes),
    )
    style, *scripts = (
        Path(__file__).with_name(name).read_text("utf-8")
        for name in ("report.css", "explorer.js", "curves.js")
    )
    return document(_title(dataset, runs), [body], style, "".join(scripts), chart_script())


def _title(dataset: str, runs: Sequence[ReportedRun]) -> str:
    if len(runs) == 1:
        return f"{runs[0].config.algorithm.upper()} on {dataset}"
    return f"{len(runs)} recommenders on {dataset}"


def _labelled(runs: Sequence[ReportedRun]) -> list[Row]:
    """The learned policies of all runs under their labels, and the baselines of the first run."""
    learned = [
        replace(row, policy=run.label) for run in runs for row in run.rows if row.mode != BASELINE
    ]
    return ranked([*learned, *(row for row in runs[0].rows if row.mode == BASELINE)])


def _headline(dataset: str, runs: Sequence[ReportedRun], rows: Sequence[Row]) -> list[ET.Element]:
    environment = runs[0].config.environment
    decide = _DECIDE[environment["semantics"]]
    users = f"who like an item {decide}"
    if environment.get("slate_size", 1) > 1:
        users = f"who choose an item of a slate of {environment['slate_size']}, or none"
    lead = (
        f"Trained by reinforcement learning on simulated users of {dataset}, {users}. "
        "Evaluated on fixed sessions, which are the same for every policy."
    )
    groups = GROUPS if len(runs) == 1 else GROUPS[:1]  # on a phone tiles stand below one another
    shown = [row for row in rows if row.mode == GREEDY and row.users in groups]
    tiles = [tile(f"{row.a_rwd:.2f}", _tile_text(row)) for row in shown]
    return [
        tag("h1", _title(dataset, runs)),
        tag("p", lead, class_="lead"),
        tag("div", tiles, class_="tiles"),
    ]


def _tile_text(row: Row) -> str:
    """What the figure of a learned policy means."""
    interval = format_interval(row.a_rwd_low, row.a_rwd_high)
    users = "users that it trained on" if row.users == "train" else "held-out users"
    text = f"is earned in a session by {row.policy}, greedy, from {users} ({interval})"
    if math.isfinite(row.share_of_oracle):
        text += f": {row.share_of_oracle:.1%} of the way from random recommendations to the oracle"
    return text


def _curves(runs: Sequence[ReportedRun], rows: Sequence[Row]) -> list[ET.Element]:
    shown = [row for row in rows if row.users == "train"]
    curves = [
        Curve(
            run.label, run.log, [r for r in shown if r.policy == run.label and r.mode != BASELINE]
        )
        for run in runs
    ]
    chart = curve_chart(curves, [row for row in shown if row.mode == BASELINE])
    text = (
        "Likes per recommendation. Agents explore while they train, so a curve can end below the evaluated "
        "policy. Evaluated policies and baselines are those on users that agents train on."
    )
    key = (
        "A line is the mean of the seeds while they train, and its band reaches from the lowest to the highest "
        "seed. At the end stand the evaluated policies: a disc for greedy, a cross for sampled. Dotted lines are "
        "baselines, evaluated. Point at a line to read its values; a name below the chart hides and shows its run."
    )
    return [
        tag("h2", "Learning curves"),
        tag("p", text),
        tag("figure", chart, tag("figcaption", key)),
    ]


def _results(runs: Sequence[ReportedRun], rows: Sequence[Row]) -> list[ET.Element]:
    places = {run.label: index for index, run in enumerate(runs)}
    lines = [_line(row, places) for row in rows]
    text = (
        "A.Rwd is the mean of what is earned in a session. Intervals are 95 % intervals: over training seeds "
        "where there are several, otherwise over users. The head of a column sorts the table."
    )
    grid = table(HEADER, lines, sortable=True)
    grid.set("class", "scroll results")
    grid.set("tabindex", "0")  # so that it scrolls by keyboard
    grid.set("role", "region")
    grid.set("aria-label", "Results")
    lives = [(row_names(r), r.visits) for r in rows if r.visits is not None]
    warnings = [(run.label, line) for run in runs for line in run.warnings]
    return [
        tag("h2", "Results"),
        tag("p", text),
        grid,
        *([tag("pre", format_visits(lives), class_="scroll", tabindex="0")] if lives else []),
        *(tag("p", f"Warning about {label}: {line}") for label, line in warnings),
    ]


def _line(row: Row, places: Mapping[str, int]) -> list[ET.Element]:
    """A line of the table; numbers sort by their values."""
    name, *texts = row_cells(row)
    key = None if row.mode == BASELINE else line_key(places[row.policy])
    values = (
        None, None, row.a_rwd, row.paired_low, row.paired_static_best_low, row.share_of_oracle, row.like_rate,
        row.t_rwd, row.liking, row.coverage, row.diversity,
    )  # fmt: skip
    cells = [
        cell(text, value if value is not None and math.isfinite(value) else None)
        for text, value in zip(texts, values, strict=True)
    ]
    return [tag("th", key, name, scope="row"), *cells]


def _settings(runs: Sequence[ReportedRun], notes: Sequence[str]) -> list[ET.Element]:
    """Settings, cost and versions of each run, and how the page was made."""
    parts = [tag("h2", "How this was made")]
    parts += [tag("p", note) for note in notes]
    for run in runs:
        config = run.config
        about = {
            "seeds": f"{config.num_seeds}, from {config.seed}",
            "training": f"{config.steps:,} steps of each seed, {config.seconds:,.1f} s in all",
            "settings": _listed(config.settings),
            "environment": _listed(config.environment),
            "dataset": f"{config.dataset}, build {config.dataset_digest[:12]}",
            "evaluation seed": str(config.evaluation_seed),
            "trained on": _listed(config.machine),
        }
        entries = [[tag("dt", name), tag("dd", value)] for name, value in about.items()]
        heading = run.label
        if config.algorithm not in heading:
            heading = f"{heading}: {config.algorithm}"
        parts.append(tag("details", tag("summary", heading), tag("dl", entries)))
    return parts


def _listed(values: Mapping[str, Any]) -> str:
    """Names and values; those of a further level in brackets."""
    return ", ".join(
        f"{name} ({_listed(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in values.items()
    )
