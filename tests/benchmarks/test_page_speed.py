"""How soon a page can be used: what is measured, and one line for what is missing."""

import json
import shutil

import pytest

from benchmarks.page_speed import BROWSERS, run_page
from jaxsim import InputError


def test_without_a_page_or_a_browser_it_is_one_line(tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    with pytest.raises(InputError, match=r"report\.html: no such file; python -m agents report"):
        run_page(page)
    for content in (b"<html></html>", b"<body>\xff</body>"):
        page.write_bytes(content)
        with pytest.raises(InputError, match=r"report\.html: not a page of HTML in UTF-8"):
            run_page(page)
    page.write_text("<html><body></body></html>")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="there is no browser: install one of chromium"):
        run_page(page)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="there is no browser here")
def test_a_slow_script_is_seen(tmp_path, capsys):
    """A script that works for 300 ms keeps the page from being used for so long."""
    page = tmp_path / "report.html"
    wait = "const end = performance.now() + 300; while (performance.now() < end);"
    page.write_text(f"<html><body><p>text</p><script>{wait}</script></body></html>")
    run_page(page, repeats=2, json=tmp_path / "out.json")
    result = json.loads((tmp_path / "out.json").read_text("utf-8"))
    assert result["page"]["interactive_ms"] >= 300
    assert result["page"]["elements"] > result["empty"]["elements"]
    assert "usable after ms" in capsys.readouterr().out
