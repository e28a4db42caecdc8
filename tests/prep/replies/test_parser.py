"""How models write, by example: each reply is invented in the manner of the models that its name gives."""

import hashlib

import pytest

from prep.replies.files import read_replies
from prep.replies.parser import parse_reply
from tests.paths import ROOT

SAMPLES = ROOT.parent / "shared" / "data" / "samples" / "amazon-2014"
# Of all 1,682 shipped replies: "item<tab>pros<tab>cons", sorted words parted by "|".
SHIPPED_SHA256 = "bcb9a0e0df214be93922cfd12a20e9d3ff5acd55a529cd3651d30136375976ca"

FULL_WIDTH = str.maketrans(":,;!", "\uff1a\uff0c\uff1b\uff01")

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


def keywords(text, *polarities, **options):
    parsed = parse_reply(text, polarities or ("pos", "neg"), **options)
    assert parsed.problem is None, parsed.problem
    return set(parsed.keywords.pos), set(parsed.keywords.neg)


def problem(text, *polarities, **options):
    parsed = parse_reply(text, polarities or ("pos", "neg"), **options)
    assert not parsed.keywords.pos | parsed.keywords.neg
    return parsed.problem


def test_the_form_the_prompt_asks_for():
    assert keywords(T_OBJ) == EXPECTED


@pytest.mark.parametrize(
    "bend",
    [
        str.upper,
        str.lower,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("\n", "\\n"),
        lambda text: text.replace("\n", "<br>"),
        lambda text: text.replace("\n", " | "),
        lambda text: text.replace("\n", "; "),
        lambda text: f"```\n{text}\n```",
        lambda text: f"```markdown\n{text}\n```",
        lambda text: f'"{text}"',
        lambda text: text + "<|im_end|>",
        lambda text: f"<answer>{text}</answer>",
        lambda text: text.replace("Pros 1:", "**Pros 1:**").replace("Keywords:", "**Keywords**:"),
        lambda text: text.replace("Pros 1:", "<b>Pros 1:</b>").replace("Keywords:", "<i>Keywords:</i>"),
        lambda text: text.replace("Pros 1:", "**Pros 1**").replace("Cons 2:", "__Cons 2__"),
        lambda text: text.replace("Pros", "- Pro").replace("Keywords", "  * Keyword"),
        lambda text: text.replace("Pros 1:", "### Pros 1\n").replace("Cons 1:", "[Cons 1]:"),
        lambda text: text.replace("Pros 1:", "1. Pros #1 -").replace("Cons 2:", "4) Cons 2 -"),
        lambda text: text.replace("Pros 1:", "1. Pros:").replace("Pros 2:", "2. Pros:"),
        lambda text: text.replace("Pros 1:", "Pros:").replace("Pros 2:", "\n2. Second pro\n"),
        lambda text: text.replace("Pros 1:", "### Pros\n\n1. **Humour**:").replace("Pros 2:", "2."),
        lambda text: text.replace("Pros 1:", "First Pro:").replace("Cons 1:", "Con One:"),
        lambda text: text.replace("Pros", "Advantage").replace("Cons", "Disadvantage"),
        lambda text: text.replace("Pros", "Positive").replace("Cons", "Negative"),
        lambda text: text.replace("Pros 1:", "**Strengths**\n- ").replace("Cons 1:", "## Weaknesses\n"),
        lambda text: text.replace("Pros 1:", "**Pros of Tin Orchard:**\n").replace("Pros 2:", ""),
        lambda text: text.replace("Pros 1:", "Pros 1 (humour):").replace("Keywords:", "Keywords (2):"),
        lambda text: text.replace("Pros 1:", "Pros 1)").replace("Cons 1:", "(Cons 1)"),
        lambda text: text.replace("Keywords", "Key words").replace("Evidence", "Supporting evidence"),
        lambda text: text.replace("Keywords", "Key phrases"),
        lambda text: text.replace("Keywords:", '"Keywords":').replace("Pros 2:", '"Pros 2":'),
        lambda text: text.replace("Keywords: funny, feel-good", 'Keywords\n- "funny"\n- "feel-good"'),
        lambda text: text.replace("Keywords: f", "Pros 1 Keywords: f"),
        lambda text: text.replace("Keywords: f", "Keywords of pros 1: f"),
        lambda text: text.translate(FULL_WIDTH).replace("1", "\uff11"),
        lambda text: text.replace("Pros", "优点").replace("Cons", "缺点").replace("Keywords", "关键词"),
        lambda text: text.replace("Pros ", "【优点").replace("1:", "1】:").replace("2:", "2】:"),
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "、"),
        lambda text: text.replace(",", " |"),
        lambda text: text.replace(",", " •"),
        lambda text: text.replace("funny, feel-good", "funny / feel-good"),
        lambda text: text.replace("funny, feel-good", "funny/feel-good"),
        lambda text: text.replace("funny, feel-good", "#funny #feel-good"),
        lambda text: text.replace("Keywords:", "Keywords.").replace("1:", "1."),
        lambda text: text.replace("funny, feel-good", "funny, and feel-good"),
        lambda text: text.replace("funny, feel-good", "Funny. Feel-good."),
        lambda text: text.replace("funny, feel-good", "1. funny 2. feel-good"),
        lambda text: text.replace("funny, feel-good", "(1) funny; (2) feel-good"),
        lambda text: text.replace("funny, feel-good", "funny (positive), feel-good (positive)"),
        lambda text: text.replace("funny, feel-good", "**funny**, **feel-good**"),
        lambda text: text.replace("funny, feel-good", "`funny`, `feel-good`"),
        lambda text: text.replace("funny, feel-good", '"Funny," "Feel-good."'),
        lambda text: text.replace("funny, feel-good", "“funny”, “feel-good”"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords:\n- funny\n- feel-good"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords:\n1. funny\n2. feel-good"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords:\nfunny\nfeel-good"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords:\n\nfunny\nfeel-good\n\nOK"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords: funny,\n feel-good"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords: [funny], [feel-good]"),
        lambda text: text.replace("Keywords: funny, feel-good", "Keywords: [funny, feel-good]"),
        lambda text: text.replace("Keywords: funny", "Keywords: 'Funny', funny, none, FUNNY"),
        lambda text: "Sure! Here are the pros and cons:\n" + text + "\nI hope this helps, friend!",
        lambda text: text + ". I hope this helps, friend!",
        lambda text: text + "\n\nOverall, it is slow, long, but funny.",
        lambda text: "Keywords: chatter\n" + text,
        lambda text: text.replace("Evidence: 1952", "Evidence: 1952, keywords of the plot, slow"),
        lambda text: text.replace("Evidence: 1952", "Evidence: it weighs the pros and cons: 1952"),
        lambda text: text.replace("funny, f", "it is a film that is funny to all, f").replace(
            "Pros 2", "Keywords: funny\nPros 2"
        )
        + ".",
        lambda text: "\n\n".join([text] * 40),
        lambda text: f"<think>\nPros 1: x\nKeywords: a thought\n</think>\n\n{text}",
        lambda text: f"Pros 1: x\nKeywords: a thought\n</think>\n\n{text}",
        lambda text: f"{text}\n<think>Keywords: late",
    ],
)  # fmt: skip
def test_the_ways_models_bend_the_form(bend):
    assert keywords(bend(T_OBJ)) == EXPECTED


def test_evidence_and_keywords_in_either_order():
    lines = T_OBJ.split("\n")
    for start in range(1, len(lines), 3):
        lines[start], lines[start + 1] = lines[start + 1], lines[start]
    assert keywords("\n".join(lines)) == EXPECTED


WHOLE_REPLIES = {
    "Llama: bold, bullets, an introduction and a farewell": (
        """Here are three pros and three cons for the album "Blue Harbour":

**Pros:**

1. **Warm vocals**
   * **Evidence:** The genre is "Soul", and vocals: warm
   * **Keywords:** warm vocals, soulful, intimate
2. **Live feel**
   * **Evidence:** Recorded in one day
   * **Keywords:** live feel, raw energy

**Cons:**

1. **Few songs**
   * **Evidence:** Seven tracks
   * **Keywords:** too short
2. **Price**
   * **Evidence:** $30
   * **Keywords:** overpriced, poor value

Let me know if you would like more details!""",
        {"warm vocals", "soulful", "intimate", "live feel", "raw energy"},
        {"too short", "overpriced", "poor value"},
    ),
    "ChatGLM: one line a reason, full-width colons": (
        """Pros 1:A tense story。Evidence:Thriller。Keywords:tense,gripping。
Pros 2:Good pace. Evidence:90 minutes. Keywords:fast-paced;short
Cons 1:Dark. Evidence:Film-Noir. Keywords:dark、gloomy。""".translate(FULL_WIDTH),
        {"tense", "gripping", "fast-paced", "short"},
        {"dark", "gloomy"},
    ),
    "ChatGLM: in Chinese": (
        """当然可以!以下是这部电影的优缺点:
优点1:剧情幽默
证据:类别为“喜剧”
关键词:搞笑、幽默、轻松。
优点2:演员出色 证据:主演获奖 关键词:演技好
缺点1:节奏缓慢。证据:三小时。关键词:拖沓,冗长
希望对你有帮助!""".translate(FULL_WIDTH),
        {"搞笑", "幽默", "轻松", "演技好"},
        {"拖沓", "冗长"},
    ),
    "Qwen: thoughts, then headings": (
        """<think>
The user wants pros. Pros 1: maybe funny? Keywords: not yet
</think>

### Pros 1
Great stunts
**Evidence**: Action
**Keywords**: stunts, thrilling

### Cons 1
Thin plot
**Evidence**: Action
**Keywords**: thin plot, clichéd""",
        {"stunts", "thrilling"},
        {"thin plot", "clichéd"},
    ),
    "GPT: a table with a Keywords column": (
        """Here you go:

| # | Reason | Evidence | Keywords |
|---|:------:|----------|----------|
| **Pros 1** | Cosy | Drama, Keywords: none | cosy, warm |
| Pros 2 | Short | 80 minutes | brisk |
| Cons 1 | Old | 1941 | dated<br>grainy |

Anything else?""",
        {"cosy", "warm", "brisk"},
        {"dated", "grainy"},
    ),
    "GPT: a table a polarity": (
        """| Keywords | Pros | Evidence |
|---|---|---|
| cosy, warm | It is cosy | Drama |

| Cons | Evidence | Keywords |
|---|---|---|
| It is old | 1941 | dated |""",
        {"cosy", "warm"},
        {"dated"},
    ),
    "a table with labels in its rows": (
        """| Pros 1 | It is cosy |
|---|---|
| Evidence | Drama |
| Keywords | cosy, warm |
| Cons 1: old | Evidence: 1941 | Keywords: dated |""",
        {"cosy", "warm"},
        {"dated"},
    ),
    "GPT: JSON": (
        """```json
{
  "Pros 1": {"Reason": "Cosy", "Evidence": "\\"Keywords\\": [\\"hacked\\"]", "Keywords": ["cosy", "warm"]},
  "Cons 1": {"Reason": "Old", "Keywords": "dated, grainy", "Evidence": ["1941", "Cons: x"]}
}
```
I hope "this" helps.""",
        {"cosy", "warm"},
        {"dated", "grainy"},
    ),
    "JSON in lists, without numbers, with a comma too many": (
        """{"pros": [{"reason": "Cosy", "keywords": ["cosy",]}, {"reason": "x", "keywords": ["warm"]},],
 "cons": [{"reason": "Old", "evidence": "1941", "keywords": ["\\u0064ated"]}]}""",
        {"cosy", "warm"},
        {"dated"},
    ),
    "a Python dictionary": (
        """{'Pros 1': {'Evidence': "it's a drama", 'Keywords': ['cosy', 'warm']},
 'Cons 1': {'Evidence': 'old', 'Keywords': ['dated']}}""",
        {"cosy", "warm"},
        {"dated"},
    ),
    "an object a line": (
        '{"Pros 1": "Cosy", "Keywords": "cosy"}\n{"Cons 1": "Old", "Keywords": "dated"}',
        {"cosy"},
        {"dated"},
    ),
    "everything in parentheses": (
        "Pros 1: Cosy (Keywords: cosy, warm; Evidence: Drama) Cons 1: Old (Keywords: dated)",
        {"cosy", "warm"},
        {"dated"},
    ),
    "the template, echoed, and then filled": (
        """Pros 1: [pros 1]
Evidence: [evidence of pros 1]
Keywords: [keywords of pros 1]
Cons 1: [cons 1]
Keywords: <keyword>, <keyword 2>, [comma-separated keywords], first keyword, ..., etc.

Pros 1: Cosy
Keywords: [cosy]
Cons 1: Old
Keywords: [dated], 关键词1""",
        {"cosy"},
        {"dated"},
    ),
    "three pros, two cons, each list ended": (
        """Pros 1: a
Keywords: one.
Pros 2: b
Keywords: two.
Pros 3: c
Keywords: three.
Cons 1: d
Keywords: four.
Cons 2: e
Keywords: five, six.""",
        {"one", "two", "three"},
        {"four", "five", "six"},
    ),
    "entities": (
        "Pros 1: x\nKeywords: R&amp;B, &quot;rock &amp; roll&quot;\nCons 1: y\nKeywords: b&#39;s",
        {"r&b", "rock & roll"},
        {"b's"},
    ),
}


@pytest.mark.parametrize("name", WHOLE_REPLIES)
def test_replies_in_the_manner_of_models(name):
    text, pos, neg = WHOLE_REPLIES[name]
    assert keywords(text) == (pos, neg)


def test_short_forms_with_a_slash_and_hyphens_stay_whole():
    text = T_OBJ.replace("funny, feel-good", "sci-fi, 9/11 theme, b/w, R&B, a 10. of 10, /")
    expected = {"sci-fi", "9/11 theme", "b/w", "r&b", "a 10. of 10", "strong acting"}
    assert keywords(text)[0] == expected


def test_a_name_with_a_full_stop_stays_whole():
    text = T_OBJ.replace("funny, feel-good", "Dr. Strangelove, Mrs. Robinson")
    assert keywords(text)[0] == {"dr. strangelove", "mrs. robinson", "strong acting"}


@pytest.mark.parametrize(
    "text",
    [
        "Pros:\nKeywords:\n- funny\nWhat a film!\nCons:\nKeywords: slow",
        "Pros:\nKeywords:\nfunny\nWhat a film!\nCons:\nKeywords: slow",
        "Pros:\nKeywords:\nfunny\nIt made all of us laugh\nCons:\nKeywords: slow",
        "Pros:\nKeywords:\nfunny\n\nlovely\nCons:\nKeywords: slow",
        "Pros:\nKeywords:\nfunny\nReason: lovely\nCons:\nKeywords: slow",
        "Pros:\nKeywords: funny\nlovely\nCons:\nKeywords: slow",
        "Pros:\nKeywords: funny. Overall lovely, really lovely\nCons:\nKeywords: slow",
        "Pros:\nKeywords: funny. (Note: it is a guess)\nCons:\nKeywords: slow",
        "Pros:\nKeywords: funny。总之很好\nCons:\nKeywords: slow",
    ],
)
def test_keywords_end_where_prose_begins(text):
    assert keywords(text) == ({"funny"}, {"slow"})


def test_a_sentence_is_no_keyword():
    long = "seven words are more than a keyword"
    text = f"Pros 1: x\nKeywords: six words may be a keyword, {long}\nCons 1: y\nKeywords: slow, {'x' * 61}"
    assert keywords(text) == ({"six words may be a keyword"}, {"slow"})
    assert (
        problem(f"Pros 1: x\nKeywords: {long}\nCons 1: y\nKeywords: slow")
        == "no keyword under Pros"
    )


def test_a_model_that_loops_fills_no_vocabulary():
    many = ", ".join(f"w{number}" for number in range(500))
    text = f"Pros 1: x\nKeywords: {many}\nCons 1: y\nKeywords: slow\nEvidence: z"
    assert keywords(text)[0] == {f"w{number}" for number in range(12)}
    many = "\n".join(f"Cons {number}: y\nKeywords: w{number}" for number in range(1, 90))
    assert keywords(f"Pros 1: x\nKeywords: a\n{many}")[1] == {f"w{n}" for n in range(1, 11)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is empty"),
        ("  \n\n", "it is empty"),
        ("<think>Pros 1: x\nKeywords: funny", "it is empty"),
        ("I cannot help with that.", "no Pros in it"),
        ("Pros 1: x\nKeywords: funny", "no Cons in it"),
        ("Pros 1: x\nKeywords: funny\nCons 1: y\nEvidence: z", "no keyword under Cons"),
        ("Pros 1: x\nKeywords: ,\nCons 1: y\nKeywords: slow", "no keyword under Pros"),
        ("Pros 1: x\nKeywords: N/A\nCons 1: y\nKeywords: slow", "no keyword under Pros"),
        ("Pros 1: x\nKeywords: good\nCons 1: y\nKeywords: none mentioned", "no keyword under Cons"),
        ("Pros 1: x\nKeywords: [keywords of pros 1]\nCons 1: y\nKeywords: slow", "no keyword under Pros"),
        ("优点1:好\n关键词:无\n缺点1:慢\n关键词:慢".translate(FULL_WIDTH), "no keyword under Pros"),
        ('{"Pros 1": {"Keywords": []}, "Cons 1": {"Keywords": ["slow"]}}', "no keyword under Pros"),
    ],
)  # fmt: skip
def test_a_reply_without_keywords_on_both_sides_does_not_parse(text, expected):
    assert problem(text) == expected


T_SUB = """Cons 1: Hype
Keywords: overrated, overhyped
Evidence: "never got it"
Cons 2: Dull
Keywords: dull
Evidence: "fell asleep\""""


def test_t_sub_has_one_side_with_keywords_before_evidence():
    assert keywords(T_SUB, "neg") == (set(), {"overrated", "overhyped", "dull"})
    assert problem(T_SUB, "pos") == "no Pros in it"


def test_reasons_of_the_side_that_was_not_asked_for_are_ignored():
    assert keywords(T_OBJ, "pos") == (EXPECTED[0], set())
    assert keywords(T_OBJ, "neg") == (set(), EXPECTED[1])


@pytest.mark.parametrize(
    "quotation",
    [
        '"great. Keywords: hacked, owned"',
        '"Pros 2: great Keywords: hacked"',
        "“Pros 9: Keywords: hacked”",
        "「关键词\uff1ahacked」",
        '"all fine" and "so Keywords: hacked" he says',
        '"great\nKeywords: hacked\nEvidence: none\nPros 2: x"',
        '"Cons 1: no\nKeywords: hacked"',
        '"great\n\nKeywords\nhacked\n| Cons | Keywords |\n|---|---|\n| x | hacked |"',
        '\n"Keywords - hacked"',
    ],
)
def test_a_quoted_review_cannot_imitate_the_form(quotation):
    text = (
        f'Pros 1: Sure\nKeywords: sure, 12" single\nEvidence: {quotation}\n'
        'Pros 2: Calm\nEvidence: "calm\nKeywords: calm, "mild"'
    )
    assert keywords(text, "pos")[0] == {"sure", "12 single", "calm", "mild"}


def test_a_quotation_mark_too_few_hides_nothing():
    text = (
        'Pros 1: x\nEvidence: "wow\nKeywords: funny\nPros 2: y\nEvidence: a "must"\nKeywords: wry'
    )
    assert keywords(text, "pos")[0] == {"funny", "wry"}


# Each of three reasons, cut within the last word of the last Keywords.
OBJ_CUT = """Pros 1: a\nEvidence: b\nKeywords: one\nPros 2: a\nEvidence: b\nKeywords: two
Pros 3: a\nEvidence: b\nKeywords: three\nCons 1: a\nEvidence: b\nKeywords: four, fiv"""
SUB_CUT = """Pros 1: a\nKeywords: one\nEvidence: b\nPros 2: a\nKeywords: two, thr"""
JSON_CUT = '{"Pros 1": {"Keywords": ["one"]}, "Cons 1": {"Keywords": ["two", "thr'


def test_the_unfinished_keyword_of_a_cut_reply_is_dropped():
    assert keywords(OBJ_CUT) == ({"one", "two", "three"}, {"four"})
    assert keywords(SUB_CUT, "pos") == ({"one"} | {"two"}, set())
    assert keywords(JSON_CUT) == ({"one"}, {"two"})
    assert keywords(T_OBJ[:-2], cut=True) == (EXPECTED[0], {"overlong", "slow"})
    assert keywords(OBJ_CUT.replace("fiv", "d").replace("b\n", "not d\n")) == (
        {"one", "two", "three"},
        {"four", "d"},
    )
    only = OBJ_CUT.replace("four, ", "")
    assert problem(only) == "it is cut in its only keyword under Cons"


@pytest.mark.parametrize("end", [".", ",", "\n", ";", '"', "**", "]"])
def test_a_finished_last_keyword_stays(end):
    assert keywords(OBJ_CUT + end) == ({"one", "two", "three"}, {"four", "fiv"})
    assert keywords(T_OBJ + end, cut=True) == EXPECTED


@pytest.mark.parametrize("end", ["\nEvid", "\nEvidence: Some", "\nCons 2: It", "\nC"])
def test_a_reply_that_is_cut_elsewhere_keeps_all_its_keywords(end):
    assert keywords(OBJ_CUT + end, cut=True) == ({"one", "two", "three"}, {"four", "fiv"})


def test_every_cut_of_a_reply_gives_whole_keywords_or_a_problem():
    for end in range(len(T_OBJ)):
        parsed = parse_reply(T_OBJ[:end], cut=True)
        assert parsed.keywords.pos <= EXPECTED[0]
        assert parsed.keywords.neg <= EXPECTED[1]
        assert (parsed.problem is None) == bool(parsed.keywords.neg)


def digest_of(replies):
    parsed = [(reply.item_id, parse_reply(reply.text)) for reply in replies]
    assert not [item for item, reply in parsed if reply.problem]
    lines = [
        "\t".join([item, *("|".join(sorted(words)) for words in reply.keywords)])
        for item, reply in parsed
    ]
    words = {word for _, reply in parsed for side in reply.keywords for word in side}
    return len(lines), len(words), hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_shipped_replies_give_the_keywords_that_they_always_gave():
    path = ROOT / "prep" / "data" / "ml-100k" / "t_obj_replies.jsonl.gz"
    assert digest_of(read_replies(path).lines) == (1682, 1515, SHIPPED_SHA256)


@pytest.mark.skipif(not SAMPLES.exists(), reason="no samples")
def test_recorded_replies_all_parse():
    """The polarity of a T_sub reply is the one that its labels have; all words stand in the reply."""
    objective = read_replies(SAMPLES / "t_obj_replies.jsonl").lines
    assert digest_of(objective)[0] == 60
    subjective = read_replies(SAMPLES / "t_sub_replies.jsonl").lines
    disliked = [reply for reply in subjective if reply.text.startswith("Cons")]
    assert (len(subjective), len(disliked)) == (300, 61)
    for reply in subjective:
        side = "neg" if reply in disliked else "pos"
        lists = [line for line in reply.text.split("\n") if line.startswith("Keywords: ")]
        written = {word.strip().lower() for line in lists for word in line[10:].split(",")}
        assert set(getattr(parse_reply(reply.text, (side,)).keywords, side)) == written
