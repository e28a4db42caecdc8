"""`python -m benchmarks page`: how soon a page about runs can be used in a browser.

A headless Chromium loads the page and an empty one in turn, each time as a new process. A page can be used when it
is read and its script has run (`domInteractive` of the browser's own timing); the empty page is what no page can
be faster than.
"""

import json as json_format
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.checks import check_counts
from benchmarks.hardware import device_name
from benchmarks.output import check_json, write_json
from jaxsim import InputError
from jaxsim.tables import format_table

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120.0
_EMPTY = "<!doctype html><html><head><title>empty</title></head><body></body></html>"
_REPORT = """<script>addEventListener("load", () => {
  const { domInteractive, loadEventStart } = performance.getEntriesByType("navigation")[0];
  document.title = JSON.stringify([domInteractive, loadEventStart, document.getElementsByTagName("*").length - 1]);
});</script></body>"""
_POLICY = re.compile(r'<meta content="default-src[^>]*>')


def run_page(
    page: Annotated[Path, tyro.conf.Positional], repeats: int = 7, json: Path | None = None
) -> None:
    """Measure how soon a page of `python -m agents report` can be used in a browser, beside an empty page.

    Example:
        report.html

    Args:
        page: the page.
        repeats: how often each page is loaded.
        json: also write the result here.
    """
    check_json(json)
    check_counts(repeats=repeats)
    if not page.is_file():
        raise InputError(f"{page}: no such file; python -m agents report RUN --out FILE writes one")
    browser = _browser()
    text = _read(page)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        pages = {"empty": _EMPTY, "page": text}
        times: dict[str, list[list[float]]] = {name: [] for name in pages}
        for _ in range(repeats):
            for name, content in pages.items():
                times[name].append(_load(browser, content, Path(folder)))
    result = {
        "device": device_name(),
        "browser": _version(browser),
        "megabytes": len(text.encode("utf-8")) * 1e-6,
        "repeats": repeats,
        **{name: _summary(rows) for name, rows in times.items()},
    }
    print(format_page_speed(result))
    write_json(json, result)


def _read(page: Path) -> str:
    try:
        text = page.read_text("utf-8")
    except UnicodeDecodeError:
        text = ""
    if "</body>" not in text:
        raise InputError(f"{page}: not a page of HTML in UTF-8 (it has no </body>)")
    return text


def _browser() -> str:
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise InputError(f"there is no browser: install one of {', '.join(BROWSERS)}")


def _version(browser: str) -> str:
    return subprocess.run([browser, "--version"], capture_output=True, text=True).stdout.strip()


def _load(browser: str, content: str, folder: Path) -> list[float]:
    """Milliseconds until the page can be used and until it is loaded, and its number of elements."""
    # Without its policy, which forbids scripts that are not its own, as the one that reads the times.
    path = folder / "page.html"
    before, _, after = _POLICY.sub("", content).rpartition("</body>")
    path.write_text(f"{before}{_REPORT}{after}", "utf-8")
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
    )
    command = [browser, *options, "--dump-dom", path.as_uri()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise InputError(f"{browser}: did not load the page within {SECONDS:g} s") from None
    found = re.search(r"<title>(\[.*?\])</title>", done.stdout)
    if found is None:
        raise InputError(f"{browser}: did not load the page (exit code {done.returncode})")
    times: list[float] = json_format.loads(found[1])
    return times


def _summary(rows: list[list[float]]) -> dict[str, Any]:
    interactive, loaded, elements = (list(column) for column in zip(*rows, strict=True))
    return {
        "interactive_ms": statistics.median(interactive),
        "slowest_ms": max(interactive),
        "loaded_ms": statistics.median(loaded),
        "elements": int(elements[0]),
    }


def format_page_speed(result: dict[str, Any]) -> str:
    """The result as a table for people."""
    rows = [
        (
            name,
            f"{result[name]['interactive_ms']:.0f}",
            f"{result[name]['slowest_ms']:.0f}",
            f"{result[name]['loaded_ms']:.0f}",
            f"{result[name]['elements']:,}",
        )
        for name in ("empty", "page")
    ]
    header = ("", "usable after ms (median)", "slowest", "loaded after ms", "elements")
    about = f"{result['megabytes']:.2f} MB, {result['browser']}, {result['repeats']} loads each"
    return f"{format_table(header, rows)}\n{about}"
