"""Merging replies into keywords of items."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsim import InputError
from prep.features.keywords import ItemKeywords
from prep.replies.files import Reply
from prep.replies.merge import ReplyCounts, ReplyMerger, vocabulary
from prep.replies.parser import ParsedReply, parse_reply

ITEMS = {"1": "One", "2": "Two", "3": "Three"}
RATINGS = {("a", "1"): True, ("b", "1"): False, ("c", "1"): None, ("a", "2"): True}


def t_obj(pos, neg):
    return f"Pros 1: r\nEvidence: e\nKeywords: {pos}\nCons 1: r\nEvidence: e\nKeywords: {neg}"


def t_sub(label, words):
    return f"{label} 1: r\nKeywords: {words}\nEvidence: e"


def replies(*rows):
    """Rows (item, text) or (item, text, user), on lines from 1 of one file."""
    return [Reply(f"r.jsonl:{number}", *row) for number, row in enumerate(rows, start=1)]


def merge(rows, allow_missing=True, left_out=(), ratings=RATINGS, partial=False):
    merger = ReplyMerger(ITEMS, left_out=left_out, ratings=ratings, partial=partial)
    for row in rows:
        merger.add(row)
    return merger.annotations(allow_missing)


ALL_OBJ = [(item, t_obj(f"p{item}", f"n{item}")) for item in ITEMS]


def test_keywords_of_an_item_are_the_union_of_both_prompts():
    rows = [
        ("1", t_sub("Pros", "fun, p1"), "a"),
        *ALL_OBJ,
        ("1", t_sub("Cons", "slow"), "b"),
        ("2", t_sub("Pros", "wry"), "a"),
    ]
    merged = merge(replies(*rows), allow_missing=False)
    assert merged.keywords == {
        "1": ({"p1", "fun"}, {"n1", "slow"}),
        "2": ({"p2", "wry"}, {"n2"}),
        "3": ({"p3"}, {"n3"}),
    }
    assert list(merged.keywords) == list(ITEMS)
    assert (merged.t_obj, merged.t_sub) == (ReplyCounts(parsed=3), ReplyCounts(parsed=3))
    assert (merged.missing, merged.unparsed, list(merged.notes)) == ([], {}, [])


def test_the_rating_decides_which_side_of_a_reply_counts():
    both = t_obj("fun", "slow")
    rows = [("1", both, "a"), ("1", both, "b")]
    merged = merge(replies(*rows[:1]))
    assert merged.keywords == {"1": ({"fun"}, set())}
    merged = merge(replies(*rows[1:]))
    assert merged.keywords == {"1": (set(), {"slow"})}


def test_what_gives_no_keywords_is_counted_and_told_with_the_first_place():
    merged = merge(
        replies(
            *ALL_OBJ,
            ("9", t_obj("p", "n")),
            ("1", t_sub("Pros", "fun"), "a"),
            ("1", t_sub("Pros", "fun"), "a"),
            ("1", "The review gives no reason.", "b"),
            ("1", t_sub("Pros", "leak"), "c"),
            ("9", t_sub("Pros", "leak"), "a"),
            ("1", t_sub("Pros", "leak"), "z"),
            ("3", t_sub("Pros", "leak"), "a"),
        ),
        allow_missing=False,
        left_out={"9"},
    )
    assert merged.t_obj == ReplyCounts(parsed=3, left_out=1)
    assert merged.t_sub == ReplyCounts(
        parsed=1, unparsed=1, left_out=1, not_training=1, unknown=2, repeated=1
    )
    words = {word for item in merged.keywords.values() for side in item for word in side}
    assert words == {"fun", "p1", "p2", "p3", "n1", "n2", "n3"}
    notes = "\n".join(merged.notes)
    assert (
        "1 replies to T_sub do not parse; the first: r.jsonl:7 (user b, item 1: no Cons in" in notes
    )
    assert (
        "1 replies to T_obj are about items that the build left out; the first: r.jsonl:4 ("
        in notes
    )
    assert "2 replies to T_sub are about ratings that do not exist" in notes
    assert "r.jsonl:10 (user z, item 1)" in notes
    assert len(merged.notes) == 6


def test_an_item_whose_only_parsed_reply_is_to_t_sub_counts():
    rows = [("1", "no"), ("1", t_sub("Pros", "fun"), "a")]
    merged = merge(replies(*rows))
    assert merged.keywords == {"1": ({"fun"}, set())}
    assert (merged.missing, merged.unparsed) == (["2", "3"], {"1": "no Pros in it"})


def test_a_reply_that_is_known_to_be_cut_is_read_as_such():
    rows = [Reply("r.jsonl:1", "1", "Pros 1: x\nKeywords: funny, wit", "a", cut=True)]
    merged = merge(rows)
    assert merged.keywords["1"].pos == {"funny"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ALL_OBJ[:1],
            r"r.jsonl: no reply for 2 of 3 items, such as item 2 (Two); correct it, or pass",
        ),
        ([], "replies: no reply for 3 of 3 items"),
        (
            [*ALL_OBJ[:1], ("2", "?"), ("3", "")],
            "r.jsonl:2: the reply for item 2 (Two) does not parse: no Pros in it (1 more do not parse",
        ),
        ([("8", "x")], "r.jsonl:1: a reply for item 8, which does not exist"),
        (
            [ALL_OBJ[0], ("1", t_obj("other", "n"))],
            "r.jsonl:2: a second reply for item 1 that differs (the first: r.jsonl:1); keep one",
        ),
        (
            [("1", t_sub("Pros", "fun"), "a"), ("1", t_sub("Pros", "wry"), "a")],
            "r.jsonl:2: a second reply for user a, item 1 that differs (the first: r.jsonl:1)",
        ),
        (
            [*ALL_OBJ, ("1", t_sub("Pros", "x"), "y"), ("2", t_sub("Pros", "x"), "z")],
            "r.jsonl:4 (user y, item 1): no such rating; none of 2 replies to T_sub",
        ),
    ],
)
def test_what_stops_a_build(rows, message):
    with pytest.raises(InputError) as caught:
        merge(replies(*rows), allow_missing=False)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_replies_to_t_sub_cannot_stand_in_for_a_missing_one_to_t_obj():
    rows = [*ALL_OBJ[:2], ("3", t_sub("Pros", "fun"), "a")]
    with pytest.raises(InputError, match="no reply for 1 of 3 items, such as item 3"):
        merge(replies(*rows), allow_missing=False, ratings={("a", "3"): True})


def test_partial_replies_may_lack_items_and_know_others():
    rows = replies(ALL_OBJ[1], ("9", t_obj("p", "n")))
    merged = merge(rows, allow_missing=False, partial=True)
    assert merged.keywords == {"2": ({"p2"}, {"n2"})}
    assert merged.missing == ["1", "3"]
    assert merged.t_obj == ReplyCounts(parsed=1, left_out=1)


def test_a_partial_reply_that_does_not_parse_still_stops_a_build():
    with pytest.raises(InputError, match=r"the reply for item 2 .* does not parse"):
        merge(replies(ALL_OBJ[0], ("2", "?")), allow_missing=False, partial=True)


ROW = st.tuples(
    st.sampled_from("129"),
    st.sampled_from([t_obj("fun", "slow"), t_sub("Cons", "dull"), "no reason"]),
    st.sampled_from("abcz"),
)


@given(st.lists(ROW, unique_by=lambda row: (row[0], row[2])), st.randoms())
def test_the_order_of_replies_does_not_matter_and_none_is_lost(rows, random):
    rows = [*replies(*rows, *ALL_OBJ), Reply("r.jsonl:0", "1", "no reason", "b0")]
    ratings = {**RATINGS, ("b0", "1"): True}
    first = merge(rows, False, {"9"}, ratings)
    random.shuffle(rows)
    again = merge(rows, False, {"9"}, ratings)
    assert (first.keywords, first.t_obj, first.t_sub) == (again.keywords, again.t_obj, again.t_sub)
    assert sum(vars(first.t_sub).values()) + sum(vars(first.t_obj).values()) == len(rows)
    for item, name in ITEMS.items():
        expected = parse_reply(dict(ALL_OBJ)[item]).keywords
        assert name
        assert first.keywords[item].pos >= expected.pos


def test_what_was_parsed_already_is_not_parsed_again():
    parsed = ParsedReply(ItemKeywords(frozenset({"wry"}), frozenset()))
    merged = merge([Reply("store:1", "1", "no form at all", "a", parsed=parsed)])
    assert merged.keywords == {"1": ({"wry"}, set())}


def test_the_vocabulary_has_the_keywords_of_both_sides():
    rows = [("1", t_obj("fun", "slow")), ("1", t_sub("Cons", "dull"), "b"), ("2", "no")]
    assert vocabulary(replies(*rows)) == ["dull", "fun", "slow"]
