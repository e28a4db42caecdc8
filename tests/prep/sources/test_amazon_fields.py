"""What the fields of Amazon's reviews and metadata become, one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.readers import json_lines
from prep.readers.json_lines import parse_literal
from prep.sources import amazon


@pytest.mark.parametrize(
    ("value", "price"),
    [
        (9.49, "$9.49"),
        (12, "$12.00"),
        ("12.5", "$12.50"),
        ("$1,250.00", "$1,250.00"),
        ("$5.00 - $9.00", "$5.00 - $9.00"),
        ("from 14.99", "from 14.99"),
        (0, ""),
        (None, ""),
        ("", ""),
        ("—", ""),
        (-3.0, ""),
        (float("nan"), ""),
        (float("inf"), ""),
        (True, ""),
        (["$9"], ""),
        (".a-box-inner{background-color:#fff}", ""),
    ],
)
def test_prices(value, price):
    assert amazon.price_of(value) == price


@pytest.mark.parametrize(
    ("record", "names"),
    [
        ({"categories": [["Music", "Folk"], ["Music", "Rock"]]}, ("Music", "Folk", "Rock")),
        ({"categories": ["Kids &amp; Family", " ", None, 5]}, ("Kids & Family",)),
        ({"category": ["Movies", "a bullet point " * 9]}, ("Movies",)),
        ({"categories": [], "main_category": "Digital Music"}, ("Digital Music",)),
        ({"categories": [], "main_category": None}, ()),
        ({"categories": "Folk"}, ("Folk",)),
        ({"categories": {"a": 1}}, ()),
        ({}, ()),
    ],
)
def test_categories_of_all_shapes(record, names):
    assert amazon.categories_of(record) == names


def test_details_are_of_the_item_and_not_of_its_ratings():
    details = {
        "Director\u200f : ": "Ann Lee",
        "Directors:": "somebody else",
        "Starring": ["Bo Ray", "Cy Dee"],
        "Customer Reviews": {"stars": 4.5},
        "Best Sellers Rank": "#7",
        "Run time": None,
    }
    assert amazon.describe({"details": details}, "credited to") == {
        "director": "Ann Lee",
        "actors": "Bo Ray, Cy Dee",
    }


@given(st.text(st.sampled_from("ab ,.;é")), st.integers(2, 30))
def test_clipped_texts_are_beginnings_of_whole_words(text, length):
    text = " ".join(text.split())
    clipped = amazon.clip_words(text, length)
    assert len(clipped) <= length
    if clipped != text:
        head = clipped.removesuffix("…")
        words = text.split()[: len(head.split())]
        only_one_word = not head.rpartition(" ")[0].strip(" ,;:.")
        assert text.startswith(head)
        assert head == " ".join(words).rstrip(" ,;:.") or only_one_word


@given(st.lists(st.text("ab é", min_size=1, max_size=2)), st.integers(1, 5))
def test_a_column_of_ids_keeps_rows_and_distinct_ids_in_their_order(ids, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "_IDS_OF_A_BLOCK", block)
        column = json_lines.IdColumn()
        for each in ids:
            column.append(each)
        codes, distinct = column.encode()
    assert codes.dtype == np.int32
    assert list(distinct) == list(dict.fromkeys(ids))
    assert [distinct[code] for code in codes] == ids


@given(st.integers(amazon.EARLIEST, amazon.LATEST - 1), st.integers(0, 999))
def test_milliseconds_are_cut_to_whole_seconds(seconds, rest):
    read = amazon.LAYOUT_2023.seconds
    assert read(seconds * 1000 + rest) == seconds
    assert amazon.LAYOUT.seconds(seconds) == seconds


def test_escapes_in_literals_give_no_warning(recwarn):
    assert parse_literal(r"{'title': 'a\/b'}") == {"title": r"a\/b"}
    assert not recwarn.list
