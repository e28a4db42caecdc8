"""What holds of every reply, however odd."""

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prep.features.keywords import normalise_keyword
from prep.replies.parser import MAX_CHARACTERS, MAX_KEYWORDS, MAX_REASONS, MAX_WORDS, parse_reply

FRAGMENTS = st.sampled_from(
    ["\nPros 1: x\nKeywords: ", "\nCons 1: x\nKeywords: ", "Pros 1:", "Keywords:", "Evidence:",
     "优点1:", "关键词:", "\n| Cons 2 | Keywords |\n|---|---|\n| a | ", '\n{"Pros 1": {"Keywords": ["',
     '"], "Cons": {"Keywords": "', "'}", "{", "]", "<think>", "</think>\n", "<br>", "<b>", "</b>",
     "**", "- ", "1. ", "\n", "\n\n", " ", ",", "、", "。", "|", "/", " / ", "(", ")", '"', "“", "”",
     "```", "&amp;", "\uff1a", "\uff1b", ".", "funny", "slow pace", "sci-fi", "É", "\u0301", "none"]
)  # fmt: skip
REPLIES = st.lists(FRAGMENTS | st.text(max_size=8), max_size=40).map("".join)
POLARITIES = st.sampled_from([("pos", "neg"), ("pos",), ("neg",)])


def without_spaces(text):
    text = unicodedata.normalize("NFKC", text.replace("&amp;", "&"))
    return "".join(map(normalise_keyword, text.split()))


@given(REPLIES, POLARITIES, st.booleans())
def test_any_text_gives_its_own_keywords_or_a_reason(text, polarities, cut):
    parsed = parse_reply(text, polarities, cut)
    by_side = parsed.keywords._asdict()
    if parsed.problem:
        assert "\n" not in parsed.problem
        assert not parsed.keywords.pos | parsed.keywords.neg
        return
    assert {side for side, words in by_side.items() if words} == set(polarities)
    source = without_spaces(text)
    for keyword in parsed.keywords.pos | parsed.keywords.neg:
        assert normalise_keyword(keyword) == keyword
        assert len(keyword) <= MAX_CHARACTERS
        assert len(keyword.split()) <= MAX_WORDS
        # Words, not the whole: a tag such as <b> may stand between them.
        assert "\\" in text or all(without_spaces(word) in source for word in keyword.split())
    for words in by_side.values():
        assert len(words) <= MAX_KEYWORDS * MAX_REASONS


@given(REPLIES)
def test_a_reply_that_is_known_to_be_cut_gives_nothing_else_than_the_same_reply_whole(text):
    whole, cut = parse_reply(text), parse_reply(text, cut=True)
    assert cut.keywords.pos <= whole.keywords.pos
    assert cut.keywords.neg <= whole.keywords.neg


QUOTABLE = REPLIES.map(
    lambda text: unicodedata.normalize("NFKC", text).replace('"', "").replace("<", "").strip()
)


@given(QUOTABLE)
def test_nothing_leaks_from_a_quoted_review(review):
    text = (
        f'Pros 1: "{review}"\nKeywords: calm\nEvidence: "{review}", "{review}".\n'
        f'Pros 2: x\nEvidence: He says: "{review}"\nKeywords: mild, fair'
    )
    assert set(parse_reply(text, ("pos",)).keywords.pos) == {"calm", "mild", "fair"}


PATHOLOGICAL = [  # what is written once, and what is then repeated
    ("Pros 1: x\nKeywords: ", "a\u0301\u0323\u0f73"),
    ("Pros 1: x\nKeywords: a", ".-"),
    ("Pros 1: x\nEvidence: ", '"a '),
    ("Pros 1: x\n", 'Keywords: a\nEvidence: "'),
    ('{"Pros 1": {"Keywords": ["', '\\"'),
    ("", "| Keywords | Pros 1 (\n|---|\n"),
    ("", "<think>- **1. "),
    ("", " "),
]


@pytest.mark.slow
def test_a_megabyte_of_anything_is_parsed():
    """In linear time it takes seconds. In quadratic time it would take hours: the guard is generous."""
    program = (
        "import sys; from prep.replies.parser import parse_reply\n"
        "for start, part in eval(sys.argv[1]):\n"
        "    parse_reply(start + part * (1_000_000 // len(part)))\n"
    )
    subprocess.run([sys.executable, "-c", program, repr(PATHOLOGICAL)], check=True, timeout=300)
