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

# The chart has shadow trees, in which the focus goes on.
FOCUS = """(() => {
  let element = document.activeElement;
  while (element.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  const outline = getComputedStyle(element).outlineWidth;
  return [element.id || element.className || element.tagName, element.tagName, outline,
          (element.textContent.trim() || element.title).slice(0, 40),
          Math.round(element.getBoundingClientRect().top + scrollY)];
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
    browser.show(1000, 4000)
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
    heads = browser.evaluate(
        "[...document.querySelectorAll('th button')].map((x) => x.textContent)"
    )
    assert [focus[3] for focus in reached if focus[1] == "BUTTON"] == heads
    summaries = [focus[3] for focus in reached if focus[1] == "SUMMARY"]
    assert summaries[0] == "The curves as a table"
    assert summaries[1].startswith("Session 1")
    assert len(summaries) == browser.evaluate(
        "[...document.querySelectorAll('summary')].filter((x) => x.checkVisibility()).length"
    )
    tops = [focus[4] for focus in reached]
    assert all(after >= before - 60 for before, after in itertools.pairwise(tops)), tops
    chart = [focus for focus in reached if focus[0].startswith("bk-")]
    assert [focus[3] for focus in chart] == ["", "Pan", "Box Zoom", "Reset", "Save"]
    assert all(focus[2] == ("1px" if focus in chart else "3px") for focus in reached), "it is seen"


def test_the_curves_open_as_a_table(browser):
    go_to(browser, "The curves as a table")
    rows = "[...document.querySelectorAll('figure tbody tr')].filter((x) => x.checkVisibility()).length"
    assert browser.evaluate(rows) == 0
    browser.press("Enter")
    assert browser.evaluate(rows) == 10


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
    assert browser.evaluate(STATUS) == "2 of 2 recommendations, in 1 session"
    go_to(browser, "search")
    browser.write("recommended")
    assert browser.evaluate(STATUS) == "1 of 2 recommendations, in 1 session"


def column(browser, number):
    """The values by which a column sorts, and how it is sorted."""
    cells = f"[...document.querySelectorAll('table.sortable tbody tr')].map((x) => x.children[{number}])"
    values = browser.evaluate(f"{cells}.map((x) => x.dataset.value ?? x.textContent)")
    heads = f"document.querySelectorAll('table.sortable thead th')[{number}]"
    return values, browser.evaluate(f"{heads}.getAttribute('aria-sort')")


def test_a_column_sorts_by_keyboard(browser):
    """Numbers with the largest on top, texts from A to Z; a second press turns them round."""
    focus = go_to(browser, "A.Rwd")
    assert focus[1] == "BUTTON"
    before = [float(value) for value in column(browser, 3)[0]]
    assert len(set(before)) > 2
    for key, order in (("Enter", "descending"), ("Space", "ascending")):
        browser.press(key)
        values, sort = column(browser, 3)
        assert [float(x) for x in values] == sorted(before, reverse=order == "descending")
        assert sort == order
    for _ in range(60):
        browser.press("Tab", shift=True)
        if browser.evaluate(FOCUS)[3] == "policy":
            break
    for order in ("ascending", "descending"):
        browser.press("Enter")
        values, sort = column(browser, 0)
        assert values == sorted(values, key=str.lower, reverse=order == "descending")
        assert sort == order
