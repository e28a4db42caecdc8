"""The page as a whole: complete, self-contained, and safe with whatever a dataset is called."""

import re
from html.parser import HTMLParser

import pytest

from benchmarks.fidelity.page.page import format_page

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Outline(HTMLParser):
    """Checks that elements are nested properly, and collects tags, attributes and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_shows_every_part(result):
    page = outline(format_page(result))
    text = " ".join(page.texts)
    for part in (
        "What it means",
        "Who ranks likes above dislikes",
        "Whether probabilities can be believed",
        "Who is simulated with the right like rate",
        "How much history it takes",
        "Strictly earlier times only",
        "Items that nobody has rated",
        "Controls",
        "How this was measured",
    ):
        assert part in text
    assert all(name in text for name in result["auc"])
    assert all(line in text for line in result["notes"])
    # A reliability plot for each probability; short histories, cold items, and what keywords are worth there.
    assert page.tags.count("svg") == len(result["ece"]) + 3
    assert "jax" in text
    assert not re.search(r"\b(nan|None)\b", text)


def test_the_page_needs_nothing_else(result):
    page = format_page(result)
    assert not re.search(r"(?:src|href)=|url\(|@import|https?://", page)
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page
    parser = outline(page)
    identifiers = [value for name, value in parser.attributes if name == "id"]
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a & b", "\"'><img src=x onerror=y>"]
)
def test_names_from_the_dataset_are_escaped(result, name):
    groups = [{**group, "group": name} for group in result["groups"]]
    page = outline(format_page({**result, "dataset": name, "groups": groups}))
    plain = outline(format_page(result))
    assert page.tags == plain.tags  # no new element
    assert page.texts.count(name) == len(groups) + 1
    assert f"How true is the simulator of {name} to people?" in page.texts


def test_a_quick_result_without_times_has_a_shorter_page(result):
    quick = {k: v for k, v in result.items() if not k.startswith("cold")}
    quick |= {"strictly_earlier": None, "notes": [], "reference": None, "difference": {}}
    text = " ".join(outline(format_page(quick)).texts)
    assert "Items that nobody has rated" not in text
    assert "Strictly earlier" not in text
    assert "dashed line is" not in text
