"""The page in a real browser: what it shows, how it answers, and whether it fits a phone; light and dark."""

import html
import re
import subprocess
from pathlib import Path

import pytest

from agents.report.curves import chart_script
from agents.report.page import format_page
from agents.report.reasons import TASTE, VOTES
from tests.agents.report.browser import CHROMIUM, opened, wait
from tests.agents.report.conftest import explored, reported_run, words

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

MINUS = "\N{MINUS SIGN}"
# What a test does on the page; its findings become the title.
FILTER = """
  const found = [];
  const count = () => document.querySelectorAll('ol.steps > li').length;
  const look = () => count() + ':' + document.getElementById('status').textContent;
  const set = (id, value, event) => {
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event(event));
  };
  const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  (async () => {
    await later(100); found.push(look());
    set('search', 'RECOMMENDED', 'input'); await later(100); found.push(look());
    set('search', 'wärm', 'input'); await later(100); found.push(look());
    set('search', '', 'input'); set('pattern', '=+ \\u2212 +', 'change'); await later(100); found.push(look());
    set('pattern', '', 'change'); set('group', 'held_out', 'change'); await later(100); found.push(look());
    document.title = found.join('|');
  })();
"""
OPEN = """
  setTimeout(() => document.querySelectorAll('details').forEach((element) => { element.open = true; }), 100);
  setTimeout(() => document.querySelectorAll('details').forEach((element) => { element.open = true; }), 300);
  setTimeout(() => {
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    document.title = [document.documentElement.scrollWidth, innerWidth, dark].join(' ');
  }, 600);
"""


# A window has at least 500 pixels, a frame may have fewer. The frame sends its document when it is done.
PHONE = """<!doctype html><meta name="color-scheme" content="light dark">
<script>addEventListener('message', (event) => { document.body.textContent = event.data; });</script>
<body><iframe src="page.html" style="width: 390px; height: 844px; border: 0"></iframe></body>"""
SEND = "setTimeout(() => parent.postMessage(document.documentElement.outerHTML, '*'), 900);"


def browse(folder: Path, page: str, script: str, *options: str) -> str:
    """The document after a script has run in it."""
    return dump(folder, write_page(folder, page, script), *options)


def write_page(folder: Path, page: str, script: str) -> Path:
    """Write a page with one more script."""
    plain = re.sub(r'<meta content="default-src[^>]*>', "", page)  # which forbids further scripts
    path = folder / "page.html"
    path.write_text(plain.replace("</body>", f"<script>{script}</script></body>"), "utf-8")
    return path


def dump(folder: Path, path: Path, *options: str) -> str:
    """The document that the browser makes of a file."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=3000", *options, "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def browse_on_phone(folder: Path, page: str, script: str, *options: str) -> str:
    """The same at the width of a phone."""
    (folder / "phone.html").write_text(PHONE, "utf-8")
    write_page(folder, page, script + SEND)
    return html.unescape(dump(folder, folder / "phone.html", *options))


def page_of(kind: str = VOTES) -> str:
    return format_page("films", [reported_run()], [explored(kind=kind)], words())


def title_of(document: str) -> str:
    return re.search(r"<title>(.*?)</title>", document).group(1)


def test_sessions_are_shown_filtered_and_searched(tmp_path):
    document = browse(tmp_path, page_of(), FILTER)
    one, all_of_them = (
        "1:1 of 2 recommendations, in 1 session",
        "2:2 of 2 recommendations, in 1 session",
    )
    none = "0:0 of 0 recommendations, in 0 sessions"
    assert title_of(document).split("|") == [all_of_them, one, one, one, none]


@pytest.mark.parametrize("kind", [VOTES, TASTE])
@pytest.mark.parametrize("options", [(), ("--force-dark-mode",)], ids=["light", "dark"])
def test_reasons_fit_a_phone(tmp_path, kind, options):
    document = browse_on_phone(tmp_path, page_of(kind), OPEN, *options)
    width, screen, dark = title_of(document).split(" ")
    assert int(width) <= int(screen) == 390
    assert dark == str(bool(options)).lower()
    text = re.sub(r"<[^>]*>", "", document[document.index('id="results"') :])
    parts = {
        VOTES: (
            "Session 1: user 5",
            "1 of 2 liked",
            "f_mat +*",
            f"f_sim {MINUS}",
            "by a coin",
            "without Liked Film",
        ),
        TASTE: (
            "user 9, held out",
            "0 of 1 liked",
            "p 0.38",
            f"{MINUS}0.750",
            "went differently",
            "0.625",
        ),
    }[kind]
    for part in parts:
        assert part in text, part
    marked = re.findall(r'<span class="chip (pro|con)">(.) <u>(\w+)</u>', document)
    assert {("pro", "+", "epic"), ("con", MINUS, "slow")} <= {*marked}
    assert ("pro", "+", "warm") not in marked  # a keyword that the candidate does not have


def test_many_runs_with_long_names_fit_a_phone(tmp_path):
    runs = [
        reported_run(f"ppo_with_another_learning_rate_{'and_so_on_' * 4}{index}")
        for index in range(7)
    ]
    page = format_page("films", runs, [explored(x.label) for x in runs], words())
    document = browse_on_phone(tmp_path, page, OPEN)
    width, screen, _ = title_of(document).split(" ")
    assert int(width) <= int(screen) == 390


def test_nothing_of_a_title_runs(tmp_path):
    hostile = "<img src=x onerror=\"document.body.textContent='spoiled'\">"
    vocabulary = {"words": [hostile] * 5, "items": [[hostile, [0], [1], [3]]] * 3}
    page = format_page(hostile, [reported_run(label=hostile)], [explored(hostile)], vocabulary)
    document = browse(tmp_path, page, OPEN)
    assert "<img" not in document.replace("&lt;img", "")
    assert "Sample sessions" in document
    assert document.count("&lt;img") > 5


# Shadow trees hold the parts of the chart.
TOOLTIP = """(() => {
  const trees = (root) => [root, ...[...root.querySelectorAll('*')].flatMap((x) => x.shadowRoot ? trees(x.shadowRoot) : [])];
  return trees(document).flatMap((root) => [...root.querySelectorAll('.bk-tooltip-content')]).map((x) => x.textContent).join('|');
})()"""  # noqa: E501
CHART = """(() => {
  const lines = [...Bokeh.documents[0].all_models].filter((x) => x.type === 'Line' && x.tags.length);
  const box = document.getElementById('curves').getBoundingClientRect();
  const colours = lines.map((x) => x.line_color.value ?? x.line_color);
  return { colours: [...new Set(colours)].sort(), box: [box.x, box.y, box.width, box.height] };
})()"""
READY = "typeof Bokeh === 'object' && Bokeh.documents.length === 1"


def test_the_chart_is_drawn_answers_a_pointer_and_turns_dark(tmp_path):
    """With the page's own policy, under which nothing of the chart is refused; names are texts, not HTML."""
    path = tmp_path / "page.html"
    path.write_text(format_page("films", [reported_run("<i>dqn</i>")]), "utf-8")
    with opened(path, tmp_path) as browser:
        browser.show(1000, 2000)
        wait(lambda: browser.evaluate(READY))
        wait(lambda: browser.evaluate(CHART)["box"][3] > 200)
        colours = {}
        for mode in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": mode}
            browser.send("Emulation.setEmulatedMedia", features=[feature])
            wait(lambda seen=colours: browser.evaluate(CHART)["colours"] not in seen.values())
            colours[mode] = browser.evaluate(CHART)["colours"]
        assert colours == {"light": ["#6b7078", "#b3432b"], "dark": ["#9aa0a8", "#f08a70"]}
        x, y, width, height = browser.evaluate(CHART)["box"]
        for share in range(5, 95):
            browser.send(
                "Input.dispatchMouseEvent",
                type="mouseMoved",
                x=x + width / 2,
                y=y + height * share / 100,
            )
            if "while training" in browser.evaluate(TOOLTIP):
                break
        found = browser.evaluate(TOOLTIP)
        assert re.search(
            r"<i>dqn</i>, while training0\.[67]\d\d likes per recommendation\d{3} steps", found
        )
        assert browser.log() == []


def test_sessions_are_shown_where_the_chart_cannot_be_drawn(tmp_path):
    """As in an old browser, in which the code of Bokeh does not run."""
    document = browse(tmp_path, page_of().replace(chart_script(), "}"), "")
    assert "2 of 2 recommendations, in 1 session" in document
    assert "The curves as a table" in document


def test_the_log_of_a_browser_has_what_the_policy_refuses(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(page_of().replace("</body>", "<script>other()</script></body>"), "utf-8")
    with opened(path, tmp_path) as browser:
        (entry,) = browser.log()
    assert "Content Security Policy" in entry


def test_the_script_of_the_page_runs_and_no_other(tmp_path):
    path = tmp_path / "page.html"
    other = "<script>document.title = 'spoiled'</script></body>"
    path.write_text(page_of().replace("</body>", other), "utf-8")
    document = dump(tmp_path, path)
    assert title_of(document) == "DQN on films"
    assert "2 of 2 recommendations, in 1 session" in document
