"""The explorer of sample sessions: its controls, its data, and what its signs mean; the rest is `explorer.js`."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from agents.report.reasons import SLATE, TASTE, VOTES
from jaxsim.explanation.taste_tables import MEANINGS
from jaxsim.pages.markup import Child, data_block, tag

_ABOUT = {
    VOTES: (
        "Users like a recommendation if at least two of three votes say so: f_mat compares keywords in common "
        "with liked and with disliked items, f_sim how alike the keywords are, and f_sta is the model of the "
        "ratings. * marks a tie, which a coin decided."
    ),
    TASTE: (
        "Users like a recommendation with the probability p of the taste model. It adds up what the item is worth "
        "to everyone and what this user's earlier responses say about it."
    ),
    SLATE: (
        "Users see several items at a time and choose one of them or none, with the probabilities shown. "
        "Choices from slates have no reasons in words here."
    ),
}


def explorer(runs: Sequence[Mapping[str, Any]], vocabulary: Mapping[str, Any]) -> list[Child]:
    """The section of the page; nothing without sessions.

    Args:
        runs: label, kind and described sessions of each run.
        vocabulary: words and items that the sessions refer to.
    """
    if not any(run["sessions"] for run in runs):
        return []
    kinds = dict.fromkeys(run["kind"] for run in runs)
    lead = (
        "Some of the fixed sessions of the evaluation, spread evenly over users. The greedy policy of the first "
        "training seed recommends. Open a session, then a recommendation, to see why the user responded so."
    )
    return [
        tag("h2", "Sample sessions"),
        tag("p", lead),
        [tag("p", _ABOUT[kind]) for kind in kinds],
        _key(kinds),
        _controls(runs),
        tag("p", id="status", class_="note", role="status"),
        tag("div", id="results"),
        tag("noscript", tag("p", "The sessions need JavaScript.")),
        data_block("sessions-data", {**vocabulary, "meanings": MEANINGS, "runs": list(runs)}),
    ]


def _key(kinds: Mapping[str, Any]) -> ET.Element | None:
    """What the marked words are."""
    if not {VOTES, TASTE} & {*kinds}:
        return None
    pro = tag("span", "+ ", tag("u", "word"), class_="chip pro")
    con = tag("span", "\N{MINUS SIGN} ", tag("u", "word"), class_="chip con")
    meaning = " a pro in common with a liked item, ", " a con in common with a disliked item."
    if VOTES not in kinds:
        meaning = " a pro in common, ", " a con in common with an earlier item."
    return tag("p", pro, meaning[0], con, meaning[1], class_="note")


def _controls(runs: Sequence[Mapping[str, Any]]) -> ET.Element:
    policy = None
    if len(runs) > 1:
        options = [tag("option", run["label"], value=index) for index, run in enumerate(runs)]
        policy = tag("label", "Policy", tag("select", options, id="run"))
    groups = {"": "all", "train": "trained on", "held_out": "held out from training"}
    names = [tag("option", text, value=value) for value, text in groups.items()]
    return tag(
        "div",
        policy,
        tag("label", "Users", tag("select", names, id="group")),
        tag("label", "Votes and responses", tag("select", id="pattern")),
        tag("label", "Title, keyword or category", tag("input", id="search", type="search")),
        class_="filters",
        role="search",
    )
