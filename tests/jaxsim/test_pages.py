"""Pages: elements are escaped, charts have round numbers, and data and scripts stay what they are."""

import base64
import hashlib
import json
import re

import pytest

from jaxsim.pages.charts import svg, ticks
from jaxsim.pages.markup import data_block, document, tag


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.49, 0.83, [0.5, 0.6, 0.7, 0.8]),
        (-0.31, 0.42, [-0.2, 0.0, 0.2, 0.4]),
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.501, 0.509, [0.502, 0.504, 0.506, 0.508]),
    ],
)
def test_ticks_are_round_numbers_in_the_range(low, high, expected):
    assert ticks(low, high) == expected


def test_an_image_has_a_title_and_its_size():
    image = svg(20, 10, "a <title>", "wide")
    assert image.attrib == {"viewBox": "0 0 20 10", "role": "img", "class": "wide"}
    assert image.find("title").text == "a <title>"
    assert "class" not in svg(20, 10, "plain").attrib


def test_only_the_script_of_the_page_runs():
    page = document("t", [tag("p", "text")], "p { color: red }", "let x = 1 < 2;")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert script.endswith("let x = 1 < 2;")
    assert "default-src 'none'" in page
    assert "p { color: red }" in page


def test_the_library_of_a_page_runs_first_and_may_show_its_own_images():
    page = document("t", [], "", "draw();", "function draw() {}")
    library, own = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert library == "function draw() {}"
    hashes = [
        base64.b64encode(hashlib.sha256(x.encode()).digest()).decode() for x in (library, own)
    ]
    assert f"script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}'; img-src data:" in page
    assert "img-src" not in document("t", [])


@pytest.mark.parametrize("text", ["</script>", "<!--", "a & b > c", "\u2028", "\ud800", '"'])
def test_data_cannot_end_its_element_and_is_read_as_it_was(text):
    block = data_block("data", {text: [text, 1, None]})
    assert not re.search(r"[<>&]", block.text)
    assert block.text.isascii()
    assert json.loads(block.text) == {text: [text, 1, None]}


def test_numbers_that_json_does_not_have_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        data_block("data", [float("nan")])


def test_names_that_cannot_be_written_do_not_stop_the_page():
    document("t", [tag("p", "bad \udcff name")]).encode("utf-8")
