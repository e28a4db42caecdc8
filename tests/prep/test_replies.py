import gzip
import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsim import InputError
from prep.keywords import normalise_keyword
from prep.replies import annotate, parse_reply, read_replies

T_OBJ = """Pros 1: Funny from start to end
Evidence: Comedy category
Keywords: funny, feel-good
Pros 2: Fine cast
Evidence: Well-known actors
Keywords: Strong acting.
Cons 1: Long
Evidence: Three hours
Keywords: overlong, "slow"
Cons 2: Dated
Evidence: 1952
Keywords: dated"""
EXPECTED = ({"funny", "feel-good", "strong acting"}, {"overlong", "slow", "dated"})


def keywords(text, **options):
    parsed = parse_reply(text, **options)
    assert parsed.problem is None, parsed.problem
    return set(parsed.keywords.pos), set(parsed.keywords.neg)


def test_the_form_the_prompt_asks_for():
    assert keywords(T_OBJ) == EXPECTED


@pytest.mark.parametrize(
    "bend",
    [
        str.upper,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("Pros 1:", "**Pros 1:**").replace("Keywords:", "**Keywords**:"),
        lambda text: text.replace("Pros", "- Pro").replace("Keywords", "  * Keyword"),
        lambda text: text.replace("Pros 1:", "### Pros 1\n").replace("Cons 1:", "[Cons 1]:"),
        lambda text: text.replace("Pros 1:", "1. Pros #1 -").replace("Cons 2:", "4) Cons 2 -"),
        lambda text: text.replace("Pros 1:", "Pros:").replace("Pros 2:", "\n2. Second pro\n"),
        lambda text: text.replace(":", "\uff1a").replace(",", "\uff0c"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "、"),
        lambda text: text.replace("funny, feel-good", "funny / feel-good"),
        lambda text: text.replace("funny, feel-good", "funny/feel-good"),
        lambda text: text.replace("funny, feel-good", "funny, and feel-good"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords:\n- funny\n- feel-good"),
        lambda text: text.replace(
            "Keywords: funny, feel-good", "Keywords:\n1. funny\n2. feel-good"
        ),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords: funny,\n feel-good"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords: [funny], [feel-good]"),
        lambda text: text.replace("Keywords: funny", "Keywords: 'Funny', funny, none, FUNNY"),
        lambda text: "Sure! Here are the pros and cons:\n" + text + "\nI hope this helps, friend!",
        lambda text: "Keywords: chatter\n" + text,
        lambda text: text.replace("Evidence: 1952", "Evidence: 1952, keywords of the plot, slow"),
    ],
)
def test_the_ways_models_bend_the_form(bend):
    assert keywords(bend(T_OBJ)) == EXPECTED


def test_evidence_and_keywords_in_either_order():
    lines = T_OBJ.split("\n")
    for start in range(1, len(lines), 3):
        lines[start], lines[start + 1] = lines[start + 1], lines[start]
    assert keywords("\n".join(lines)) == EXPECTED


def test_short_forms_with_a_slash_and_hyphens_stay_whole():
    text = T_OBJ.replace("funny, feel-good", "sci-fi, 9/11 theme, b/w, R&B, a 10. of 10, /")
    expected = {"sci-fi", "9/11 theme", "b/w", "r&b", "a 10. of 10", "strong acting"}
    assert keywords(text)[0] == expected


def test_a_list_of_keywords_ends_at_the_first_line_that_is_not_an_item():
    text = "Pros:\nKeywords:\n- funny\nWhat a film!\nCons:\nKeywords: slow"
    assert keywords(text) == ({"funny"}, {"slow"})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("I cannot help with that.", "no Pros in it"),
        ("Pros 1: x\nKeywords: funny", "no Cons in it"),
        ("Pros 1: x\nKeywords: funny\nCons 1: y\nEvidence: z", "no keyword under Cons"),
        ("Pros 1: x\nKeywords: ,\nCons 1: y\nKeywords: slow", "no keyword under Pros"),
        ("Pros 1: x\nKeywords: N/A\nCons 1: y\nKeywords: slow", "no keyword under Pros"),
        (
            "Pros 1: [pros 1]\nKeywords: [keywords of pros 1]\nCons 1: y\nKeywords: slow",
            "no keyword under Pros",
        ),
    ],
)
def test_a_reply_without_keywords_on_both_sides_does_not_parse(text, problem):
    parsed = parse_reply(text)
    assert parsed.problem == problem
    assert not parsed.keywords.pos
    assert not parsed.keywords.neg


def test_t_sub_has_one_side_with_keywords_before_evidence():
    text = 'Cons 1: Hype\nKeywords: overrated, overhyped\nEvidence: "never got it"'
    assert keywords(text, polarities=("neg",)) == (set(), {"overrated", "overhyped"})
    assert parse_reply(text, polarities=("pos",)).problem == "no Pros in it"


FRAGMENTS = st.sampled_from(
    ["\nPros 1: x\nKeywords: ", "\nCons 1: x\nKeywords: ", "Pros 1:", "Keywords:", "Evidence:",
     "**", "- ", "1. ", "\n", "\n\n", " ", ",", "、", "/", " / ", "(", ")", '"', "\uff1a", "\uff1b",
     ".", "funny", "slow pace", "sci-fi", "É", "none"]
)  # fmt: skip
REPLIES = st.lists(FRAGMENTS | st.text(max_size=8), max_size=40).map("".join)


def without_spaces(text):
    return "".join(map(normalise_keyword, unicodedata.normalize("NFKC", text).split()))


@given(REPLIES)
def test_any_text_gives_its_own_keywords_or_a_reason(text):
    parsed = parse_reply(text)
    pos, neg = parsed.keywords
    if parsed.problem:
        assert not pos | neg
        return
    assert pos
    assert neg
    for keyword in pos | neg:
        assert normalise_keyword(keyword) == keyword
        assert without_spaces(keyword) in without_spaces(text)


WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1)


@given(WORDS, WORDS)
def test_every_keyword_of_a_well_formed_reply_is_found(pros, cons):
    pro_part = f"Pros 1: r\nEvidence: e\nKeywords: {', '.join(pros)}"
    con_part = f"Cons 1: r\nKeywords: {';'.join(cons)}\nEvidence: e"
    assert keywords(f"{pro_part}\n{con_part}") == (set(pros), set(cons))


def test_long_runs_of_anything_are_parsed_in_linear_time():
    start = time.perf_counter()
    for run in ("-", " ", "*", "1. ", "Keywords", "Pros 1", "(", "Keywords: ", "a/"):
        parse_reply(run * 50_000)
    assert time.perf_counter() - start < 10  # it takes 0.1; quadratic time would take minutes


def write(path, *records):
    path.write_text("\n".join(json.dumps(record) for record in records), "utf-8")
    return path


def test_plain_and_gzipped_files_read_alike(tmp_path):
    plain = write(tmp_path / "r.jsonl", {"item_id": 3, "reply": "é"}, {"item_id": "4", "reply": ""})
    packed = tmp_path / "r.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    rows = [(reply.item_id, reply.text) for reply in read_replies(plain)]
    assert rows == [("3", "é"), ("4", "")]
    assert [(reply.item_id, reply.text) for reply in read_replies(packed)] == rows


def test_annotations_without_replies_are_counted_when_allowed(tmp_path):
    good, bad = {"item_id": "1", "reply": T_OBJ}, {"item_id": "3", "reply": "no"}
    replies = read_replies(write(tmp_path / "r.jsonl", good, bad))
    items = {"1": "One", "2": "Two", "3": "Three"}
    found = annotate(replies, items, allow_missing=True)
    assert (found.missing, found.unparsed) == (["2"], {"3": "no Pros in it"})
    assert found.keywords.keys() == {"1"}
    with pytest.raises(InputError, match=r"r\.jsonl:2: the reply for item 3 \(Three\)"):
        annotate(replies, items, allow_missing=False)
