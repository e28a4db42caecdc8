"""Extracting the keywords from a language model's reply.

The prompts T_obj and T_sub of the paper ask for lines such as

    Pros 1: ...
    Evidence: ...
    Keywords: ..., ...

T_obj for three Pros and three Cons, T_sub for three of one polarity with the Keywords before the
Evidence. Models vary the form: other case, bold, bullets, numbers, full-width punctuation, a list
under the label, a table, JSON, Chinese labels, everything on one line. All of that is understood.
But only the text after a Keywords label under a Pros or Cons label is a keyword, so other sentences
never become keywords, and the thoughts of a model in <think> are skipped.

Two risks decide the details:

- A reply may quote a review that imitates this form. Labels inside double quotes are not labels.
- A reply may be cut in the middle of a word, and looks complete. Its last keyword is kept unless there
  is a sign that the text should go on: the caller says that the model ran out of tokens; the last reason
  lacks the Evidence that follows all others; or it has fewer reasons than the other polarity. Then
  the unfinished keyword is dropped, and the rest is used. In the last two cases it is kept if the same
  words also occur elsewhere in the reply, which shows that they are complete.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from prep.features.keywords import ItemKeywords, normalise_keyword
from prep.replies.text import plain_text

POLARITIES = ("pos", "neg")

MAX_WORDS, MAX_CHARACTERS = 6, 60  # of a keyword; longer text is a sentence, and is left out
MAX_KEYWORDS = 12  # of one reason, where two or three are usual; a model that loops writes more
MAX_REASONS = 10  # of one polarity, where three are asked for

# -- Labels -------------------------------------------------------------------------------------
_POS = r"pro|advantage|positive|strength|优点"
_NEG = r"con|disadvantage|drawback|negative|weakness(?:e(?=s))?|缺点"
_OPEN, _CLOSE = r"""["\[(*_\u3010]""", r"""["\])*_\u3011]"""
_NUMBER = r"(?: \d{1,2} | [一二三四五] | (?:one|two|three|i{1,3})\b )"
_SECTION = re.compile(
    rf"""{_OPEN}{{0,3}} (?:(?:first|second|third)[ ])?
    (?: (?: (?P<pos>pro|优点) | (?P<neg>con|缺点) ) s?
        (?: [ ]of[ ][^:]{{1,80}} :? [*_ ]* $                            # Pros of the film:
          | (?: {_CLOSE}|[ ]){{0,4}} (?: :|$)                           # Pros: | Cons
        )
      | (?: (?P<numbered_pos>{_POS}) | (?P<numbered_neg>{_NEG}) ) s?
        (?: [ \#._(-]{{0,3}} {_NUMBER} (?: [ ]? \([^()]{{1,60}}\) )?    # Pros 1 (the cast): | Pro #1 -
            (?: (?: {_CLOSE}|[ ]){{0,4}} (?: [:.\u2013\u2014-]|$) | \*\* | __ | [)\]\u3011] )
          | {_CLOSE}{{0,4}} :? {_CLOSE}{{0,4}} $                        # ### Strengths
        )
    ) [*_" ]*""",
    re.IGNORECASE | re.VERBOSE,
)
_KEYWORDS_NAME = r"key[ -]?(?:words?|phrases?)|关键[词字]"
_EVIDENCE_NAME = r"evidences?|证据|依据"
_WHOSE = r"(?: pro|con|优点|缺点 ) s? [ ]? \#? \d{0,2}"
_FIELD = re.compile(
    rf"""{_OPEN}{{0,3}} (?: (?P<lead>{_WHOSE}) [ ]? (?:的|'s[ ])? | supporting[ ] )?
    (?: (?P<keywords>{_KEYWORDS_NAME}) | {_EVIDENCE_NAME} )
    [ ]? \d{{0,2}} (?: [ ] (?:of|for) [ ] (?P<tail>{_WHOSE}) )? (?: [ ]? \([^()]{{1,40}}\) )?
    (?: (?: {_CLOSE}|[ ]){{0,4}} (?: : | \.[ ] | [ ][\u2013\u2014-][ ] | $ ) | \*\*[ ] ) [*_ ]*""",
    re.IGNORECASE | re.VERBOSE,
)
# Inside a line a label needs a colon, and a polarity a number or a capital letter: prose contains "the cons:".
_INNER_LABEL = rf"""
    (?: {_OPEN}{{0,3}} (?: (?:{_POS}|{_NEG}) s? [ ]? \#? (?:\d{{1,2}}|[一二三四五])
                         | (?: {_WHOSE}[ ] )? (?P<keywords>{_KEYWORDS_NAME}) (?:[ ]?\d{{1,2}})?
                         | (?: {_WHOSE}[ ] | supporting[ ] )? (?:{_EVIDENCE_NAME}) (?:[ ]?\d{{1,2}})?
                         | (?:优点|缺点) | (?<!and[ ])(?<!or[ ])(?<!&[ ]) (?-i:Pros|Cons|PROS|CONS) )
        {_CLOSE}{{0,3}} [ ]? :
      | (?:pro|con)s? [ ]? \#? \d{{1,2}} [ ][\u2013\u2014-][ ] )"""
_LABEL_WITHIN_LINE = re.compile(
    rf"""(?<=[\s.;,。、|)\]}}"\u201d]) (?<![ ]of[ ])(?<!for[ ]) (?={_INNER_LABEL})""",
    re.IGNORECASE | re.VERBOSE,
)
_LABEL = re.compile(rf"(?<!\w) {_INNER_LABEL}", re.IGNORECASE | re.VERBOSE)
_OTHER_LABEL = re.compile(r"[^\W\d_][\w ]{0,30}:(?: |$)")

# -- Markup of a reply --------------------------------------------------------------------------
_DECORATION = " >*_#`~-+=|\u2013\u2014\u2022\u2023\u25aa\u25cf\u3010"
_BULLETS = ("- ", "* ", "+ ", "\u2013 ", "\u2014 ", "\u2022", "\u2023", "\u25aa", "\u25cf")
_NUMBERING = re.compile(r"^(?:\(?\d{1,3}[.)、](?=\D|$)|[一二三四五六七八九十]{1,2}、)")
# A quotation opens before a word and closes after one, unlike an inch mark or a forgotten quote.
_QUOTED = re.compile(
    r"""(?<![^\s(\[:,;。、-]) "(?=\S) [^"]{1,2000}+ (?<=\S) "(?!\w)
      | \u201c [^\u201c\u201d]{1,2000}+ \u201d | 「[^「」]{1,2000}+」 | 『[^『』]{1,2000}+』
      | « [^«»]{1,2000}+ »""",
    re.VERBOSE,
)
_ANY_QUOTE = re.compile(r"[\"\u201c「『«]")
_LABEL_OR_QUOTE = re.compile(rf"(?P<quote>{_ANY_QUOTE.pattern}) | {_LABEL.pattern}", re.I | re.X)
_TABLE_RULE = re.compile(r"[|: -]*---*[|: -]*")
_JSON_START = re.compile(r"""^[ \t]*[{\[]\s*+["'{\[]""", re.MULTILINE)
_JSON_TOKEN = re.compile(
    r"""(?: "(?P<double>(?:[^"\\]|\\.)*+)(?P<whole>")? | '(?P<single>(?:[^'\\\n]|\\.)*+)' )
        (?P<key>\s*+:)? | [{}\[\]]""",
    re.VERBOSE | re.DOTALL,
)

# -- Keywords -----------------------------------------------------------------------------------
# A slash separates words ("funny/witty", "funny / witty") but not short forms ("9/11", "and/or").
_SEPARATOR = re.compile(r"[,;、|•\n]|[ ][/·][ ]|[ ](?=#[^\W\d])|(?<=[^\W\d_]{3})/(?=[^\W\d_]{3})")
_SENTENCE_END = re.compile(r"(?<=[^\W\d_]{3})(?<!Mrs)[.!] (?=[(\[]?[A-Z])")
_WORDS_OF_A_REMARK = 3
_FIRST_NUMBER = re.compile(r"\(?1[.)] ")
_LIST_NUMBER = re.compile(r"(?<= )\(?\d{1,2}[.)] ")
_SENTIMENT = re.compile(r"\((?:positive|negative)\)", re.IGNORECASE)
_CONJUNCTION = re.compile(r"^(?:and |& ?)")
_NOT_A_KEYWORD = re.compile(
    r"""none(?:[ ](?:given|mentioned|stated))? | n/a | not[ ]applicable | null | nil | etc | tbd
      | no[ ](?:pro|con|keyword|evidence)s?
      | (?: (?:first|second|third|comma[- ]separated)[ ] )? key[ ]?words?
        (?: [ ]?\d{1,2} | [ ]here )? (?: [ ](?:of|for)[ ] (?:the[ ])? (?:pro|con)s? (?:[ ]\d+)? )?
      | (?:pro|con)s?[ ]?\d* | evidence | (?:(?:优点|缺点)\d*的?)?关键[词字]\d* | 无""",
    re.VERBOSE,
)
_RAW_CHARACTERS = 8 * MAX_CHARACTERS  # longer pieces are not even normalised
_GOES_ON = (",", ";", "、")


@dataclass(frozen=True)
class ParsedReply:
    """What one reply says.

    Attributes:
        keywords: the reply's normalised keywords by polarity; empty when there is a problem.
        problem: why the reply cannot be used; None when it can.
    """

    keywords: ItemKeywords
    problem: str | None = None


@dataclass
class _Reason:
    """The keywords of one Keywords label, in the reply's order, and whether Evidence follows them."""

    polarity: str
    keywords: list[str] = field(default_factory=list)
    evidence_follows: bool = False


@dataclass
class _Reading:
    """The labels and keywords read so far.

    Attributes:
        polarity: of the last Pros or Cons label; None before the first.
        sections: the polarities that have a label.
        reasons: one for each Keywords label under such a label.
        evidence_first: whether Evidence goes before Keywords under the last Pros or Cons label; None
            while there is neither.
        unfinished: the keyword at the very end of the text; None if it ends otherwise.
    """

    polarity: str | None = None
    sections: set[str] = field(default_factory=set)
    reasons: list[_Reason] = field(default_factory=list)
    evidence_first: bool | None = None
    unfinished: str | None = None

    def section(self, polarity: str) -> None:
        """Note a Pros or Cons label."""
        self.polarity, self.evidence_first = polarity, None
        self.sections.add(polarity)

    def evidence(self) -> None:
        """Note an Evidence label."""
        if self.evidence_first is None:
            self.evidence_first = True
        elif not self.evidence_first and self.reasons:
            self.reasons[-1].evidence_follows = True

    def reason(self) -> None:
        """Note a Keywords label, to which the next keywords belong."""
        if self.evidence_first is None:
            self.evidence_first = False
        if self.polarity is not None:
            self.reasons.append(_Reason(self.polarity))

    def keywords(self, text: str) -> None:
        """Add a line of keywords."""
        self.unfinished = None
        if self.polarity is None:
            return
        words = [_keyword(piece) for piece in _pieces(text)]
        self.reasons[-1].keywords += filter(None, words)
        self.unfinished = words[-1] or None if words else None


def parse_reply(
    text: str, polarities: Sequence[str] = POLARITIES, cut: bool = False
) -> ParsedReply:
    """Extract the keywords from a reply.

    Args:
        text: the reply, as the model wrote it.
        polarities: the sides that must have a keyword: both ("pos", "neg") for a reply to T_obj,
            the one that was asked for in the case of T_sub. Reasons of another side are ignored.
        cut: whether the reply is known to be cut, for example by a limit of tokens: a keyword at its end
            is then dropped. Otherwise the reply itself decides that.

    Returns:
        Keywords of the asked polarities, or the problem. Never raises.
    """
    plain = plain_text(text)
    reading = _read_json(plain) or _read_lines(plain)
    if reading.unfinished and _ends_within_a_word(plain) and (cut or _looks_cut(plain, reading)):
        reading.reasons[-1].keywords.pop()
    keywords = {side: _first_keywords(reading, side) for side in POLARITIES}
    for polarity in polarities:
        if not keywords[polarity]:
            problem = _problem(plain, reading, polarity)
            return ParsedReply(ItemKeywords(frozenset(), frozenset()), problem)
    asked = {side: keywords[side] if side in polarities else frozenset() for side in POLARITIES}
    return ParsedReply(ItemKeywords(**asked))


def _first_keywords(reading: _Reading, polarity: str) -> frozenset[str]:
    reasons = [
        reason for reason in reading.reasons if reason.polarity == polarity and reason.keywords
    ]
    return frozenset(
        word
        for reason in reasons[:MAX_REASONS]
        for word in list(dict.fromkeys(reason.keywords))[:MAX_KEYWORDS]
    )


def _problem(plain: str, reading: _Reading, polarity: str) -> str:
    label = "Pros" if polarity == "pos" else "Cons"
    if not plain.strip():
        return "it is empty"
    if polarity not in reading.sections:
        return f"no {label} in it"
    if reading.unfinished and reading.reasons[-1].polarity == polarity:
        return f"it is cut in its only keyword under {label}"
    return f"no keyword under {label}"


def _looks_cut(plain: str, reading: _Reading) -> bool:
    """Whether a reply that ends on a keyword of its last reason seems to end within that keyword."""
    last, earlier = reading.reasons[-1], reading.reasons[:-1]
    evidence_to_come = not reading.evidence_first and all(r.evidence_follows for r in earlier)
    same = sum(reason.polarity == last.polarity for reason in earlier) + 1
    if not earlier or not (evidence_to_come or same < len(reading.reasons) - same):
        return False
    word = re.escape(reading.unfinished or "")
    return len(re.findall(rf"(?<!\w){word}(?!\w)", plain, re.IGNORECASE)) < 2


def _ends_within_a_word(plain: str) -> bool:
    return plain.endswith((" ", "-", "'", "/")) or plain[-1:].isalnum()


def _pieces(text: str) -> list[str]:
    """Split a list of keywords, and leave out the remark that may follow it."""
    text = _SENTIMENT.sub("", text)
    if _FIRST_NUMBER.match(text):
        text = _LIST_NUMBER.sub(",", text)
    first, *sentences = _SENTENCE_END.split(text.partition("。")[0])
    pieces = _SEPARATOR.split(first)
    if len(pieces) == 1:  # "Funny. Witty." is a list as well
        pieces += takewhile(lambda sentence: len(sentence.split()) < _WORDS_OF_A_REMARK, sentences)
    return pieces


def _keyword(piece: str) -> str:
    """Normalise one piece of a list; "" if it is no keyword."""
    if len(piece) > _RAW_CHARACTERS:
        return ""
    word = normalise_keyword(_NUMBERING.sub("", piece.strip()))
    word = normalise_keyword(_CONJUNCTION.sub("", word))
    too_long = len(word) > MAX_CHARACTERS or len(word.split()) > MAX_WORDS
    if too_long or not any(map(str.isalnum, word)) or _NOT_A_KEYWORD.fullmatch(word):
        return ""
    return word


# -- Replies in lines -----------------------------------------------------------------------------


class _Line(NamedTuple):
    """A line without decoration; whether it was an item of a list; whether a blank line comes before it."""

    text: str
    in_list: bool
    after_blank: bool


# Where keywords may continue: below a bare label, after a comma, down a list of items or of short lines.
_NOTHING, _FIRST_LINE, _NEXT_LINE = "nothing", "first line", "next line"
_LIST_ITEM, _SHORT_LINE = "list item", "short line"
_WORDS_OF_A_SHORT_LINE = 4


def _read_lines(plain: str) -> _Reading:
    reading = _Reading()
    awaited = _NOTHING
    for line in _logical_lines(_without_quoted_labels(plain)):
        section, label = _SECTION.match(line.text), _FIELD.match(line.text)
        reading.unfinished = None
        if section:
            reading.section(_polarity(section))
            awaited = _NOTHING
        elif label:
            awaited = _read_field(reading, label, line.text[label.end() :])
        elif _goes_on(awaited, line):
            reading.keywords(line.text)
            awaited = _awaited_after(line, awaited)
        else:
            awaited = _NOTHING
    return reading


def _polarity(label: re.Match[str]) -> str:
    return "pos" if label["pos"] or label["numbered_pos"] else "neg"


def _read_field(reading: _Reading, label: re.Match[str], rest: str) -> str:
    """Read the text after an Evidence or Keywords label; return what may continue it."""
    if not label["keywords"]:
        reading.evidence()
        return _NOTHING
    whose = (label["lead"] or label["tail"] or "").lower()
    if whose:
        reading.section("pos" if whose.startswith(("pro", "优")) else "neg")
    reading.reason()
    reading.keywords(rest)
    if not rest:
        return _FIRST_LINE
    return _NEXT_LINE if rest.endswith(_GOES_ON) else _NOTHING


def _goes_on(awaited: str, line: _Line) -> bool:
    """Whether the line continues the keywords."""
    if awaited == _NOTHING or _OTHER_LABEL.match(line.text):
        return False
    if awaited == _LIST_ITEM:
        return line.in_list
    short = len(line.text.split()) <= _WORDS_OF_A_SHORT_LINE
    return awaited != _SHORT_LINE or (
        short and not line.after_blank and not line.text.endswith((".", "!", "?", "。"))
    )


def _awaited_after(line: _Line, awaited: str) -> str:
    if line.text.endswith(_GOES_ON):
        return _NEXT_LINE
    if line.in_list:
        return _LIST_ITEM
    return _SHORT_LINE if awaited in (_FIRST_LINE, _SHORT_LINE) else _NOTHING


def _logical_lines(text: str) -> Iterator[_Line]:
    """Yield the lines that hold something; a line with several labels comes as several lines."""
    after_blank = False
    for raw in _without_tables([" ".join(line.split()) for line in text.splitlines()]):
        if not raw:
            after_blank = True
        for part in _LABEL_WITHIN_LINE.sub("\n", raw).split("\n"):
            line = part.lstrip(_DECORATION)
            numbered = _NUMBERING.match(line)
            if numbered:
                line = line[numbered.end() :].lstrip(_DECORATION)
            if line and not part.startswith("```"):
                yield _Line(line, bool(numbered) or part.startswith(_BULLETS), after_blank)
                after_blank = False


def _without_quoted_labels(text: str) -> str:
    """Remove the quotations that contain a label: a review may imitate the form of a reply.

    Quotation marks before the first label are left, because they may enclose the whole reply.
    """
    if not _ANY_QUOTE.search(text):
        return text
    kept: list[str] = []
    start = position = 0
    label = None
    while match := _LABEL_OR_QUOTE.search(text, position):
        position = match.end()
        if not match["quote"]:
            label = match
            continue
        quotation = _QUOTED.match(text, match.start()) if label else None
        if quotation and label and _may_imitate(quotation, in_keywords=bool(label["keywords"])):
            kept.append(text[start : match.start()])
            start = quotation.end()
        if quotation and (start == quotation.end() or "\n" not in quotation.group()):
            position = quotation.end()
    return "".join(kept) + text[start:]


def _may_imitate(quotation: re.Match[str], in_keywords: bool) -> bool:
    """Whether a quotation may hold a label, and is not a label itself, as in "Pros 1": ..."""
    words = quotation.group()[1:-1]
    following = quotation.string[quotation.end() : quotation.end() + 2]
    if following.strip().startswith(":"):
        return False
    if "\n" in words:  # marks around keywords are the most likely to be forgotten
        return not in_keywords
    line = words.lstrip(_DECORATION)
    return bool(_LABEL.search(words) or _SECTION.match(line) or _FIELD.match(line))


# -- Tables ---------------------------------------------------------------------------------------


def _without_tables(lines: Sequence[str]) -> Iterator[str]:
    """Turn the rows of Markdown tables into lines with labels."""
    header: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        if not line.startswith("|"):
            header = []
            yield line
        elif _TABLE_RULE.fullmatch(following):
            header = _cells(line)
            if not _names_keywords(header):
                yield from _labelled(header)
                header = []
        elif not _TABLE_RULE.fullmatch(line):
            yield from _under(header, _cells(line)) if header else _labelled(_cells(line))


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("| ").split("|")]


def _names_keywords(cells: Sequence[str]) -> bool:
    fields = (_FIELD.fullmatch(cell.lstrip(_DECORATION)) for cell in cells)
    return len(cells) > 1 and any(label and label["keywords"] for label in fields)


def _under(header: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    """Give each cell the label of its column, the keywords last."""
    last = []
    for name, cell in zip(header, cells, strict=False):
        label = _FIELD.fullmatch(name.lstrip(_DECORATION))
        text = f"{name.strip(_DECORATION)}: {cell}" if label or _SECTION.fullmatch(name) else cell
        if label and label["keywords"]:
            last.append(text)
        else:
            yield cell if _SECTION.match(cell.lstrip(_DECORATION)) else text
    yield from last


def _labelled(cells: Sequence[str]) -> Iterator[str]:
    """A row such as | Keywords | funny, witty |, or cells that contain their labels."""
    first = cells[0].strip(_DECORATION)
    if len(cells) > 1 and (_FIELD.fullmatch(first) or _SECTION.fullmatch(first)):
        yield f"{first}: {', '.join(cells[1:])}"
    else:
        yield from cells


# -- JSON -----------------------------------------------------------------------------------------


def _read_json(plain: str) -> _Reading | None:
    """Read a reply in JSON, or in something like it; None if it is not JSON.

    Only strings count: a key is a string before a colon. So a reply that is cut, or has an extra comma, can
    still be read; a string without an end is left out.
    """
    start = _JSON_START.search(plain)
    if not start or _LABEL.search(plain[: start.start()]):
        return None
    reading = _Reading()
    in_list = awaited = False
    for token in _JSON_TOKEN.finditer(plain, start.start()):
        if token.group() in ("{", "}", "[", "]"):
            in_list = token.group() == "["
            awaited &= in_list
            continue
        text = _unescaped(token["double"] if token["single"] is None else token["single"])
        if token["key"]:
            awaited = _read_key(reading, text)
        elif awaited:
            if token["single"] is not None or token["whole"]:
                reading.keywords(text)
            awaited = in_list
    reading.unfinished = None
    return reading if reading.sections else None


def _read_key(reading: _Reading, key: str) -> bool:
    """Read a key; return whether it asks for keywords."""
    section, label = _SECTION.match(f"{key.strip()}:"), _FIELD.match(f"{key.strip()}:")
    if section:
        reading.section(_polarity(section))
    elif label:
        return _read_field(reading, label, "") == _FIRST_LINE
    return False


def _unescaped(string: str) -> str:
    try:
        return str(json.loads(f'"{string}"', strict=False))
    except ValueError:
        return string
