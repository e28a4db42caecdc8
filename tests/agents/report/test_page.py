"""The page: complete, self-contained, the same every time, and safe with whatever items are called."""

import json
import re

import pytest

from agents.report.curves import chart_script
from agents.report.page import format_page
from agents.report.reasons import TASTE, VOTES
from tests.agents.report.conftest import explored, reported_run, words
from tests.benchmarks.fidelity.page.test_page import outline

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "\"'><img src=x onerror=alert(2)>",
    "a & b &amp; c",
    "line\u2028separator \ud800 lone",
]


def page_of(runs, sessions=(), vocabulary=None, notes=()):
    return format_page("films", runs, sessions, vocabulary, notes)


def own_part(page):
    """The page without the code of Bokeh."""
    before, library, after = page.partition(chart_script())
    assert library
    return before + after


def data_of(page):
    """What the explorer reads."""
    block = re.search(r'<script id="sessions-data"[^>]*>(.*?)</script>', page, re.DOTALL)
    return json.loads(block.group(1))


def test_the_page_has_curves_results_sessions_and_settings(run):
    page = page_of([run], [explored()], words(), ["made with care"])
    text = " ".join(outline(page).texts)
    for part in (
        "DQN on films", "Learning curves", "Results", "Sample sessions", "How this was made", "made with care",
        "by the three votes of the paper", "gamma 0.4", "jax 0.10.2", "800 steps of each seed",
        "dqn (2 seeds)", "28.80 (27.80 to 29.80)", "75.0%",
    ):  # fmt: skip
        assert part in text, part
    assert all(name in text for name in ("oracle", "static_best", "popular", "like_rate", "random"))
    assert data_of(page)["items"] == words()["items"]
    assert not re.search(r"\b(nan|None)\b", text)


def test_several_runs_share_one_table_with_the_baselines_once(run):
    page = page_of([run, reported_run("ppo", 0.7)], [explored(), explored("ppo")], words())
    parsed = outline(page)
    assert parsed.texts.count("oracle") == 2  # two groups of users
    assert parsed.texts.count("ppo (2 seeds)") == 4  # and two modes
    assert "2 recommenders on films" in parsed.texts
    assert ("id", "run") in parsed.attributes  # the choice of the policy whose sessions are shown
    assert ("id", "run") not in outline(page_of([run], [explored()], words())).attributes


def test_without_sessions_there_is_no_explorer(run):
    page = page_of([run], [{"label": "dqn", "kind": VOTES, "sessions": []}], words())
    assert "Sample sessions" not in outline(page).texts
    assert 'id="sessions-data"' not in page


@pytest.mark.parametrize("kind", [VOTES, TASTE])
def test_the_page_needs_nothing_else_and_its_names_are_unique(run, kind):
    page = own_part(page_of([run], [explored(kind=kind)], words()))
    assert not re.search(r"(?:src|href|action)=|url\(|@import|https?://|innerHTML|eval\(", page)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    names = [value for name, value in outline(page).attributes if name == "id"]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_escaped_wherever_they_come_from(text):
    vocabulary = {"words": [text] * 5, "items": [[text, [0], [1], [3]]] * 3}
    session = explored(label=text)
    session["sessions"][0]["steps"][0]["flips"] = [[f"without {text} (liked)", None]]
    static = text.replace("\ud800", "")  # a name of a folder or a warning
    run = reported_run(label=static, warnings=[static])
    page = format_page(static, [run, reported_run()], [session] * 2, vocabulary, [static])
    plain = page_of(
        [reported_run("x", warnings=["x"]), reported_run()], [explored()] * 2, words(), ["x"]
    )
    page.encode("utf-8")
    assert outline(page).tags == outline(plain).tags  # no new element
    assert page.count("<script") == plain.count("<script")
    assert own_part(page).count("<script") == 4  # two of data, Bokeh, and the page's own
    assert own_part(page).count("<!--") == 0
    assert static in outline(page).texts
    data = data_of(page)
    assert data["items"][0][0] == data["words"][0] == text  # and nothing is lost


def test_the_same_run_makes_the_same_page_of_few_bytes(run):
    pages = {page_of([reported_run()], [explored()], words()) for _ in range(2)}
    assert len(pages) == 1
    page = pages.pop()
    assert len(own_part(page)) < 120_000  # all but the sessions
    assert len(page) < 1_600_000
