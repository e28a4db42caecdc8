"""HTML and SVG as trees of elements, so that every text and attribute is escaped when the page is written."""

import base64
import hashlib
import json
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Union

Child = Union[ET.Element, str, None, Iterable["Child"]]  # noqa: UP007 - an alias that names itself


def tag(name: str, /, *children: Child, **attributes: object) -> ET.Element:
    """An element.

    Args:
        name: of the element, such as "p".
        children: texts, elements, or sequences of these; None is left out.
        attributes: `class_` stands for class, `stroke_width` for stroke-width.
    """
    names = {key.rstrip("_").replace("_", "-"): str(value) for key, value in attributes.items()}
    element = ET.Element(name, names)
    for child in children:
        _append(element, child)
    return element


def _append(element: ET.Element, child: Child) -> None:
    if child is None:
        return
    if isinstance(child, ET.Element):
        element.append(child)
    elif not isinstance(child, str):
        for part in child:
            _append(element, part)
    elif len(element):  # ElementTree keeps a text after a child in that child
        element[-1].tail = (element[-1].tail or "") + child
    else:
        element.text = (element.text or "") + child


def table(
    header: Sequence[Child], rows: Iterable[Sequence[ET.Element]], sortable: bool = False
) -> ET.Element:
    """A table that scrolls sideways where it is too wide, with rows of a `row_head` and `cell`s."""
    heads = [tag("th", name, scope="col") for name in header]
    body = tag("tbody", [tag("tr", row) for row in rows])
    inner = tag("table", tag("thead", tag("tr", heads)), body)
    if sortable:
        inner.set("class", "sortable")
    return tag("div", inner, class_="scroll")


def row_head(text: str, series: str = "") -> ET.Element:
    """The first cell of a row: its name, with a coloured mark for a series."""
    mark = tag("span", class_=f"swatch {series}") if series else None
    return tag("th", mark, text, scope="row")


def cell(content: Child, value: float | None = None) -> ET.Element:
    """A cell; `value` is what a sortable table sorts by."""
    element = tag("td", content)
    if value is not None:
        element.set("data-value", f"{value:.6g}")
    return element


def tile(figure: str, text: str) -> ET.Element:
    """A panel with a large figure and a small text below it."""
    return tag("div", tag("b", figure), tag("small", text), class_="tile")


def document(
    title: str, body: Iterable[Child], style: str = "", script: str = "", library: str = ""
) -> str:
    """A whole page, with the style and the script that stand beside this file.

    The page may load nothing, and no other script runs in it.

    Args:
        title: of the page.
        body: its contents.
        style, script: more of them, for this kind of page.
        library: code of others that `script` calls; it may show the images that it contains.
    """
    own_style, own_script = (
        Path(__file__).with_name(name).read_text("utf-8") for name in ("page.css", "page.js")
    )
    scripts = [*([library] if library else []), own_script + script]
    allowed = " ".join(map(_source, scripts))
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"
    if library:
        policy += "; img-src data:"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", content=policy, http_equiv="Content-Security-Policy"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", own_style + style),
    )
    # The HTML form of ElementTree escapes everything except the contents of style and script.
    page = tag(
        "html", head, tag("body", body, [tag("script", code) for code in scripts]), lang="en"
    )
    text = "<!doctype html>\n" + ET.tostring(page, encoding="unicode", method="html") + "\n"
    # A name of a file that is no valid UTF-8 has surrogates, which cannot be written.
    return text.encode("utf-8", "replace").decode("utf-8")


def _source(code: str) -> str:
    """A script as a policy names it: by its hash."""
    digest = hashlib.sha256(code.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def data_block(identifier: str, content: Any) -> ET.Element:
    """Plain values for a script of the page, as JSON: `JSON.parse(element.textContent)`.

    A text among them cannot end the element, because no `<` is written.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return tag("script", text, id=identifier, type="application/json")
