"""The page by keyboard alone: every control is reached, in the order in which it is seen, and does its work."""

import itertools

import pytest

from agents.report.page import format_page
from tests.agents.report.browser import CHROMIUM, opened
from tests.agents.report.conftest import explored, reported_run, words

pytest.importorskip("websocket")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

FOCUS = """(() => {
  const element = document.activeElement;
  const outline = getComputedStyle(element).outlineStyle;
  return [element.id || element.className || element.tagName, element.tagName, outline,
          element.textContent.trim().slice(0, 40), Math.round(element.getBoundingClientRect().top + scrollY)];
})()"""
OPEN = "[...document.querySelectorAll('details[open] > summary')].map((x) => x.textContent.trim().slice(0, 9))"
STATUS = "document.getElementById('status').textContent"


@pytest.fixture
def browser(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(format_page("films", [reported_run()], [explored()], words()), "utf-8")
    with opened(path, tmp_path) as browser:
        yield browser


def go_to(browser, name):
    """Tab until an element with this id, or with this beginning of its text, has the focus."""
    for _ in range(60):
        browser.press("Tab")
        focus = browser.evaluate(FOCUS)
        if focus[0] == name or focus[3].startswith(name):
            return focus
    raise AssertionError(f"Tab does not reach {name}")


def test_tab_goes_through_all_controls_from_top_to_bottom(browser):
    browser.send(
        "Emulation.setDeviceMetricsOverride",
        width=1000,
        height=4000,
        deviceScaleFactor=1,
        mobile=False,
    )
    reached = []
    for _ in range(60):
        browser.press("Tab")
        focus = browser.evaluate(FOCUS)
        if focus[1] == "BODY" or focus in reached:
            break
        reached.append(focus)
    names = [focus[0] for focus in reached]
    assert [x for x in names if x in ("group", "pattern", "search")] == [
        "group",
        "pattern",
        "search",
    ]
    summaries = [focus[3] for focus in reached if focus[1] == "SUMMARY"]
    assert summaries[0].startswith("Session 1")
    assert len(summaries) == browser.evaluate(
        "[...document.querySelectorAll('summary')].filter((x) => x.checkVisibility()).length"
    )
    tops = [focus[4] for focus in reached]
    assert all(after >= before - 60 for before, after in itertools.pairwise(tops)), tops
    assert all(focus[2] != "none" for focus in reached), "the focus is seen"


def test_a_step_opens_and_closes_with_enter_and_space(browser):
    go_to(browser, "History")
    before = len(browser.evaluate(OPEN))
    browser.press("Enter")
    assert len(browser.evaluate(OPEN)) == before + 1
    browser.press("Space")
    assert len(browser.evaluate(OPEN)) == before


def test_filter_and_search_by_keyboard(browser):
    assert browser.evaluate(STATUS) == "2 of 2 recommendations, in 1 session"
    go_to(browser, "pattern")
    browser.press("ArrowDown")
    browser.press("Enter")
    assert browser.evaluate("document.getElementById('pattern').value") == "liked"
    assert browser.evaluate(STATUS) == "1 of 2 recommendations, in 1 session"
    browser.press("Home")
    browser.press("Enter")
    go_to(browser, "search")
    browser.write("recommended")
    assert browser.evaluate(STATUS) == "1 of 2 recommendations, in 1 session"
    browser.press("Escape")


def test_a_column_sorts_by_keyboard(browser):
    rows = "[...document.querySelectorAll('table.sortable tbody tr')].map((x) => x.children[2].textContent)"
    before = browser.evaluate(rows)
    focus = go_to(browser, "A.Rwd")
    assert focus[1] == "BUTTON"
    browser.press("Enter")
    first = browser.evaluate(rows)
    browser.press("Enter")
    second = browser.evaluate(rows)
    assert sorted(before) == sorted(first) == sorted(second)
    assert first == second[::-1] or first != second
