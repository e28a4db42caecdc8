"""Reading files of replies, and merging the replies into keywords of items."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsim import InputError
from prep.readers.lines import LineFile, SkippedLines
from prep.replies.files import (
    ReplyCounts,
    ReplyLine,
    annotate,
    parse_reply,
    read_replies,
    stream_replies,
)


def write(path, *records):
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_plain_and_gzipped_files_read_alike(tmp_path):
    plain = write(
        tmp_path / "r.jsonl",
        {"item_id": 3, "reply": "é"},
        "",
        {"item_id": "4", "user_id": 7, "reply": "", "prompt": "?", "finish_reason": "length"},
        {"item_id": "4", "user_id": None, "reply": "x", "finish_reason": "stop"},
    )
    packed = tmp_path / "r.jsonl.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n")))
    read = read_replies(plain)
    assert read.lines == [
        ReplyLine(f"{plain}:1", "3", "é"),
        ReplyLine(f"{plain}:3", "4", "", "7", cut=True),
        ReplyLine(f"{plain}:4", "4", "x"),
    ]
    assert read.skipped.total == 0
    assert len(read.sha256) == 64
    assert [line[1:] for line in read_replies(packed).lines] == [line[1:] for line in read.lines]


BAD_LINES = {
    "{": "not JSON",
    "[" * 100_000: "not JSON",
    '{"item_id": ' + "9" * 5000 + ', "reply": "x"}': "not JSON",
    "[1]": "not a JSON object with item_id and reply",
    '{"reply": "x"}': "item_id is missing, or is not a string or whole number",
    '{"item_id": "", "reply": "x"}': "item_id is missing, or is not a string or whole number",
    '{"item_id": true, "reply": "x"}': "item_id is missing, or is not a string or whole number",
    '{"item_id": 1.0, "reply": "x"}': "item_id is missing, or is not a string or whole number",
    '{"item_id": 1, "user_id": [], "reply": "x"}': "user_id is not a string or whole number",
    '{"item_id": 1}': "reply is missing, or is not a string",
    '{"item_id": 1, "reply": null}': "reply is missing, or is not a string",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=lambda line: line[:40])
def test_a_line_that_cannot_be_read_is_counted_or_stops_a_strict_reader(tmp_path, capsys, line):
    good = {"item_id": 1, "reply": "x"}
    path = write(tmp_path / "r.jsonl", good, line, line)
    read = read_replies(path)
    assert [reply.place for reply in read.lines] == [f"{path}:1"]
    assert read.skipped.counts == {BAD_LINES[line]: 2}
    assert read.skipped.first == {BAD_LINES[line]: 2}
    assert capsys.readouterr().err.count(f"{path}:2: {BAD_LINES[line]}") == 1
    with pytest.raises(InputError) as caught:
        read_replies(path, strict=True)
    assert str(caught.value).startswith(f"{path}:2: {BAD_LINES[line]}")


def test_text_that_is_not_utf_8_is_a_bad_line(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"item_id": 1, "reply": "\xe9"}\n{"item_id": 1, "reply": "e"}')
    assert read_replies(path).skipped.counts == {"not valid UTF-8 text": 1}


def test_a_file_without_a_readable_line_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"r\.jsonl:1: not JSON"):
        read_replies(write(tmp_path / "r.jsonl", "item_id,reply", "[]"))
    with pytest.raises(InputError, match=r"empty\.jsonl: the file is empty"):
        read_replies(write(tmp_path / "empty.jsonl"))
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        read_replies(tmp_path / "none.jsonl")


def test_replies_are_streamed(tmp_path):
    path = write(tmp_path / "r.jsonl", {"item_id": 1, "reply": "x"}, "{")
    stream = stream_replies(LineFile(path), SkippedLines(str(path), strict=True))
    assert next(stream).text == "x"
    with pytest.raises(InputError, match=r"r\.jsonl:2: not JSON"):
        next(stream)


ITEMS = {"1": "One", "2": "Two", "3": "Three"}
RATINGS = {("a", "1"): True, ("b", "1"): False, ("c", "1"): None, ("a", "2"): True}


def t_obj(pos, neg):
    return f"Pros 1: r\nEvidence: e\nKeywords: {pos}\nCons 1: r\nEvidence: e\nKeywords: {neg}"


def t_sub(label, words):
    return f"{label} 1: r\nKeywords: {words}\nEvidence: e"


def replies(*rows):
    """Rows (item, text) or (item, text, user), on lines from 1 of one file."""
    return [ReplyLine(f"r.jsonl:{number}", *row) for number, row in enumerate(rows, start=1)]


ALL_OBJ = [(item, t_obj(f"p{item}", f"n{item}")) for item in ITEMS]


def test_keywords_of_an_item_are_the_union_of_both_prompts():
    found = annotate(
        replies(
            ("1", t_sub("Pros", "fun, p1"), "a"),
            *ALL_OBJ,
            ("1", t_sub("Cons", "slow"), "b"),
            ("2", t_sub("Pros", "wry"), "a"),
        ),
        ITEMS,
        allow_missing=False,
        ratings=RATINGS,
    )
    assert found.keywords == {
        "1": ({"p1", "fun"}, {"n1", "slow"}),
        "2": ({"p2", "wry"}, {"n2"}),
        "3": ({"p3"}, {"n3"}),
    }
    assert list(found.keywords) == list(ITEMS)
    assert (found.t_obj, found.t_sub) == (ReplyCounts(parsed=3), ReplyCounts(parsed=3))
    assert (found.missing, found.unparsed, list(found.notes)) == ([], {}, [])


def test_the_rating_decides_which_side_of_a_reply_counts():
    both = t_obj("fun", "slow")
    rows = [("1", both, "a"), ("1", both, "b")]
    found = annotate(replies(*rows[:1]), ITEMS, allow_missing=True, ratings=RATINGS)
    assert found.keywords == {"1": ({"fun"}, set())}
    found = annotate(replies(*rows[1:]), ITEMS, allow_missing=True, ratings=RATINGS)
    assert found.keywords == {"1": (set(), {"slow"})}


def test_what_gives_no_keywords_is_counted_and_told_with_the_first_place():
    found = annotate(
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
        ITEMS,
        allow_missing=False,
        left_out={"9"},
        ratings=RATINGS,
    )
    assert found.t_obj == ReplyCounts(parsed=3, left_out=1)
    assert found.t_sub == ReplyCounts(
        parsed=1, unparsed=1, left_out=1, not_training=1, unknown=2, repeated=1
    )
    words = {word for item in found.keywords.values() for side in item for word in side}
    assert words == {"fun", "p1", "p2", "p3", "n1", "n2", "n3"}
    notes = "\n".join(found.notes)
    assert (
        "1 replies to T_sub do not parse; the first: r.jsonl:7 (user b, item 1: no Cons in" in notes
    )
    assert (
        "1 replies to T_obj are about items that the build left out; the first: r.jsonl:4 ("
        in notes
    )
    assert "2 replies to T_sub are about ratings that do not exist" in notes
    assert "r.jsonl:10 (user z, item 1)" in notes
    assert len(found.notes) == 6


def test_an_item_whose_only_parsed_reply_is_to_t_sub_counts():
    rows = [("1", "no"), ("1", t_sub("Pros", "fun"), "a")]
    found = annotate(replies(*rows), ITEMS, allow_missing=True, ratings=RATINGS)
    assert found.keywords == {"1": ({"fun"}, set())}
    assert (found.missing, found.unparsed) == (["2", "3"], {"1": "no Pros in it"})


def test_a_reply_that_is_known_to_be_cut_is_read_as_such():
    rows = [ReplyLine("r.jsonl:1", "1", "Pros 1: x\nKeywords: funny, wit", "a", cut=True)]
    found = annotate(rows, ITEMS, allow_missing=True, ratings=RATINGS)
    assert found.keywords["1"].pos == {"funny"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ALL_OBJ[:1],
            r"r.jsonl: no reply for 2 of 3 items, such as item 2 (Two); mend it, or pass",
        ),
        ([], "replies: no reply for 3 of 3 items"),
        (
            [*ALL_OBJ[:1], ("2", "?"), ("3", "")],
            "r.jsonl:2: the reply for item 2 (Two) does not parse: no Pros in it (1 more do not parse",
        ),
        ([("8", "x")], "r.jsonl:1: a reply for item 8, which does not exist"),
        (
            [ALL_OBJ[0], ("1", t_obj("other", "n"))],
            "r.jsonl:2: a second reply for item 1, and another one (the first: r.jsonl:1); keep one",
        ),
        (
            [("1", t_sub("Pros", "fun"), "a"), ("1", t_sub("Pros", "wry"), "a")],
            "r.jsonl:2: a second reply for user a, item 1, and another one (the first: r.jsonl:1)",
        ),
        (
            [*ALL_OBJ, ("1", t_sub("Pros", "x"), "y"), ("2", t_sub("Pros", "x"), "z")],
            "r.jsonl:4 (user y, item 1): no such rating; not one of 2 replies to T_sub",
        ),
    ],
)
def test_what_stops_a_build(rows, message):
    with pytest.raises(InputError) as caught:
        annotate(replies(*rows), ITEMS, allow_missing=False, ratings=RATINGS)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_replies_to_t_sub_cannot_stand_in_for_a_missing_one_to_t_obj():
    rows = [*ALL_OBJ[:2], ("3", t_sub("Pros", "fun"), "a")]
    with pytest.raises(InputError, match="no reply for 1 of 3 items, such as item 3"):
        annotate(replies(*rows), ITEMS, allow_missing=False, ratings={("a", "3"): True})


ROW = st.tuples(
    st.sampled_from("129"),
    st.sampled_from([t_obj("fun", "slow"), t_sub("Cons", "dull"), "no reason"]),
    st.sampled_from("abcz"),
)


@given(st.lists(ROW, unique_by=lambda row: (row[0], row[2])), st.randoms())
def test_the_order_of_replies_does_not_matter_and_none_is_lost(rows, random):
    rows = [*replies(*rows, *ALL_OBJ), ReplyLine("r.jsonl:0", "1", "no reason", "b0")]
    ratings = {**RATINGS, ("b0", "1"): True}
    first = annotate(rows, ITEMS, allow_missing=False, left_out={"9"}, ratings=ratings)
    random.shuffle(rows)
    again = annotate(iter(rows), ITEMS, allow_missing=False, left_out={"9"}, ratings=ratings)
    assert (first.keywords, first.t_obj, first.t_sub) == (again.keywords, again.t_obj, again.t_sub)
    assert sum(vars(first.t_sub).values()) + sum(vars(first.t_obj).values()) == len(rows)
    for item, name in ITEMS.items():
        expected = parse_reply(dict(ALL_OBJ)[item]).keywords
        assert name
        assert first.keywords[item].pos >= expected.pos
