import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.features.keywords import ItemKeywords, filter_keywords, index_rows, normalise_keyword


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("  Strong   Acting ", "strong acting"),
        ("Witty.", "witty"),
        ('"feel-good"', "feel-good"),
        ("\u201cWry\u201d", "wry"),
        ("[dated]", "dated"),
        ("long (very)", "long very"),
        ("**bold**", "bold"),
        ("Children\u2019s film", "children's film"),
        ("'quoted'", "quoted"),
        ("ﬁne", "fine"),
        ("\uff33\uff2c\uff2f\uff37", "slow"),
        ("cafe\u0301", "café"),
        ("zero\u200bwidth", "zerowidth"),
        ("no\u00a0break", "no break"),
        ("half \ud800", "half"),
        ("U.S. setting", "u.s. setting"),
        ("...", ""),
        ("slow.-.' .", "slow"),
        (".net-like.", ".net-like"),
        ("\u0415\u0301\u0436.", "\u0435\u0301\u0436"),
        ("", ""),
    ],
)
def test_one_form_of_a_keyword(written, normal):
    assert normalise_keyword(written) == normal


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise_keyword(text)
    assert normalise_keyword(once) == once


def item(pos="", neg=""):
    return ItemKeywords(frozenset(pos.split()), frozenset(neg.split()))


def test_filter_by_hand():
    # Ten items. `both` is a pro and a con of the same item: counted once, so it is rare.
    items = [item("everywhere pair both", "both"), item("pair everywhere", "edge")]
    items += [item("everywhere", "edge"), item("", "edge")] + [item("x")] * 0 + [item()] * 6
    kept = filter_keywords(items, min_items=2, max_share=0.3)
    assert kept.counts == {"everywhere": 3, "pair": 2, "both": 1, "edge": 3}
    assert kept.kept == ["edge", "everywhere", "pair"]  # 3 of 10 is not more than 0.3
    kept = filter_keywords(items, min_items=2, max_share=0.29)
    assert kept.kept == ["pair"]
    assert kept.too_common == ["edge", "everywhere"]
    assert kept.too_rare == ["both"]


def test_polarities_count_together():
    items = [item("quirky"), item("", "quirky"), item()]
    assert filter_keywords(items, min_items=2, max_share=1.0).kept == ["quirky"]


def test_share_is_the_decimal_that_is_written():
    # In binary floating point 0.29 * 100 is 28.999999999999996.
    items = [item("word")] * 29 + [item()] * 71
    assert filter_keywords(items, min_items=1, max_share=0.29).kept == ["word"]


def test_index_rows_are_ascending_and_padded():
    table = index_rows([["c", "a"], [], ["b", "dropped"]], ["a", "b", "c"])
    np.testing.assert_array_equal(table, [[0, 2], [-1, -1], [1, -1]])
    assert table.dtype == np.int32
    assert index_rows([[], []], []).shape == (2, 1)
