"""The language model's replies: reading the files, and taking the keywords out of a reply.

The prompts T_obj and T_sub of the paper ask for lines such as

    Pros 1: ...
    Evidence: ...
    Keywords: ..., ...

T_obj for three Pros and three Cons, T_sub for three of one polarity with the Keywords before the
Evidence. Models bend the form: other case, bold, bullets, numbering, full-width punctuation, a list
under the label, everything on one line. All of that is understood; but a keyword is only what
stands after a Keywords label under a Pros or Cons label, so chatter never becomes a keyword.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxsim import InputError
from prep.files import read_raw
from prep.keywords import ItemKeywords, normalise_keyword

POLARITIES = ("pos", "neg")

_DECORATION = " >*_#`~-+=|\u2013\u2014\u2022\u2023\u25aa\u25cf"
_BULLETS = ("- ", "* ", "+ ", "\u2013 ", "\u2014 ", "\u2022", "\u2023", "\u25aa", "\u25cf")
_NOTHING, _ANY_LINE, _LIST_ITEM = "nothing", "any line", "a list item"
_NUMBERING = re.compile(r"^\(?\d{1,3}[.)](?=\D|$)")
_SECTION = re.compile(
    r"""[\[(]? (?P<name>pro|con)s?
        (?: [ #._(-]{0,3} \d{1,2} [\])*_ ]{0,4} (?:[:.\u2013\u2014-]|$)   # Pros 1: | Pro #1 -
          | [\])*_ ]{0,4} (?::|$)                               # Pros: | Cons
        ) [*_ ]*""",
    re.IGNORECASE | re.VERBOSE,
)
_FIELD = re.compile(
    r"""[\[(]? (?P<name>key[ ]?words?|evidences?) [ ]? (?:\d{1,2})? [\])*_ ]{0,4}
        (?: : | [ ][\u2013\u2014-][ ] | $) [*_ ]*""",
    re.IGNORECASE | re.VERBOSE,
)
_LABEL_WITHIN_LINE = re.compile(
    r"""(?<=\S)[ ](?= [\[(*_]{0,3} (?: (?:pro|con)s?[ ]?\#?\d{1,2} | key[ ]?words? | evidences? )
        [\])*_]{0,3} [ ]? : )""",
    re.IGNORECASE | re.VERBOSE,
)
# A slash parts words ("funny/witty", "funny / witty") but not short forms ("9/11", "and/or").
_SEPARATOR = re.compile(r"[,;、。|•]|[ ]/[ ]|(?<=[^\W\d_]{3})/(?=[^\W\d_]{3})")
_CONJUNCTION = re.compile(r"^(?:and |& ?)")
_NOT_A_KEYWORD = re.compile(r"none|n/a|not applicable|keywords?( of (the )?(pro|con)s?( \d+)?)?")


@dataclass(frozen=True)
class ParsedReply:
    """What one reply says.

    Attributes:
        keywords: the reply's normalised keywords by polarity; empty when there is a problem.
        problem: why the reply cannot be used; None when it can.
    """

    keywords: ItemKeywords
    problem: str | None = None


def parse_reply(text: str, polarities: Sequence[str] = POLARITIES) -> ParsedReply:
    """Take the keywords out of a reply.

    Args:
        text: the reply, in whatever shape the model gave it.
        polarities: the sides that must have a keyword: both ("pos", "neg") for a reply to T_obj,
            the one that was asked for in the case of T_sub.

    Returns:
        Keywords of the asked polarities, or the problem. Never raises.
    """
    found: dict[str, list[str]] = {polarity: [] for polarity in POLARITIES}
    sections: set[str] = set()
    for polarity, keyword in _keywords_by_section(text, sections):
        found[polarity].append(keyword)
    for polarity in polarities:
        label = "Pros" if polarity == "pos" else "Cons"
        problem = f"no keyword under {label}" if polarity in sections else f"no {label} in it"
        if not text.strip():
            problem = "it is empty"
        if not found[polarity]:
            return ParsedReply(ItemKeywords(frozenset(), frozenset()), problem)
    asked = {side: frozenset(found[side]) if side in polarities else frozenset() for side in found}
    return ParsedReply(ItemKeywords(**asked))


def _keywords_by_section(text: str, sections: set[str]) -> Iterator[tuple[str, str]]:
    """Yield (polarity, keyword); note in `sections` each polarity that has a label."""
    polarity: str | None = None
    awaited = _NOTHING
    for line, in_list in _logical_lines(text):
        section, field = _SECTION.match(line), _FIELD.match(line)
        if section:
            polarity = "pos" if section["name"].lower() == "pro" else "neg"
            sections.add(polarity)
        if section or (field and not field["name"].lower().startswith("key")):
            awaited = _NOTHING
        elif field:
            yield from _split_keywords(polarity, line[field.end() :])
            awaited = _awaited_after(line[field.end() :], in_list=False)
        elif awaited == _ANY_LINE or (awaited == _LIST_ITEM and in_list):
            yield from _split_keywords(polarity, line)
            awaited = _awaited_after(line, in_list)
        else:
            awaited = _NOTHING


def _awaited_after(keywords: str, in_list: bool) -> str:
    """Where keywords may go on: any line after a bare label or a comma, down a list, nowhere."""
    if not keywords or keywords.endswith((",", ";", "、")):
        return _ANY_LINE
    return _LIST_ITEM if in_list else _NOTHING


def _split_keywords(polarity: str | None, text: str) -> Iterator[tuple[str, str]]:
    if polarity is None:
        return
    for piece in _SEPARATOR.split(text):
        word = normalise_keyword(_NUMBERING.sub("", piece.strip()))
        word = normalise_keyword(_CONJUNCTION.sub("", word))
        if any(map(str.isalnum, word)) and not _NOT_A_KEYWORD.fullmatch(word):
            yield polarity, word


def _logical_lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield (line without decoration, whether it was an item of a list).

    Blank lines are left out, and a line with several labels comes as several lines.
    """
    for raw in unicodedata.normalize("NFKC", text).splitlines():
        for part in _LABEL_WITHIN_LINE.sub("\n", " ".join(raw.split())).split("\n"):
            line = part.lstrip(_DECORATION)
            numbered = _NUMBERING.match(line)
            if numbered:
                line = line[numbered.end() :].lstrip(_DECORATION)
            if line:
                yield line, bool(numbered) or part.startswith(_BULLETS)


class ReplyLine(NamedTuple):
    """One reply in a file: where it stands (`file:line`), its item's raw id, and its text."""

    place: str
    item_id: str
    text: str


def read_replies(path: Path) -> list[ReplyLine]:
    """Read a file of replies to T_obj, plain or gzipped.

    Args:
        path: JSON lines, each an object with `item_id` (string or whole number) and `reply`.

    Raises:
        InputError: the file cannot be read, or a line is not such an object.
    """
    file = read_raw(path)
    return [_read_line(f"{file.label}:{number}", line) for number, line in file.lines()]


def _read_line(place: str, line: str) -> ReplyLine:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{place}: not a JSON object with item_id and reply")
    item_id, text = record.get("item_id"), record.get("reply")
    if isinstance(item_id, bool) or not isinstance(item_id, str | int):
        raise InputError(f"{place}: item_id is missing, or is not a string or whole number")
    if not isinstance(text, str):
        raise InputError(f"{place}: reply is missing, or is not a string")
    if "user_id" in record:
        raise InputError(
            f"{place}: a reply to T_sub (it has a user_id); only T_obj can be read yet"
        )
    return ReplyLine(place, str(item_id), text)


@dataclass(frozen=True)
class Annotations:
    """The replies of a whole dataset.

    Attributes:
        keywords: raw item id -> keywords, for each item whose reply could be parsed.
        missing: raw ids of the items without a reply, in the order of the items.
        unparsed: raw id -> why its reply could not be parsed.
    """

    keywords: dict[str, ItemKeywords]
    missing: list[str]
    unparsed: dict[str, str]


def annotate(
    replies: Sequence[ReplyLine], items: Mapping[str, str], allow_missing: bool
) -> Annotations:
    """Give each item the keywords of its reply.

    Args:
        replies: all replies, of one or several files.
        items: raw id -> name of each item, in index order.
        allow_missing: whether an item may lack a reply or have one that does not parse.

    Raises:
        InputError: a reply for an item that is not there, a second reply for an item, or, unless
            allowed, a missing or unparseable one.
    """
    by_item = _by_item(replies, items)
    parsed = {item: parse_reply(reply.text) for item, reply in by_item.items()}
    unparsed = {item: reply.problem for item, reply in parsed.items() if reply.problem}
    missing = [item for item in items if item not in by_item]
    hint = "mend it, or pass --allow-missing-replies"
    if unparsed and not allow_missing:
        item, problem = next(iter(unparsed.items()))
        others = f" ({len(unparsed) - 1} more do not parse either)" if len(unparsed) > 1 else ""
        raise InputError(
            f"{by_item[item].place}: the reply for item {item} ({items[item]}) does not parse: "
            f"{problem}{others}; {hint}"
        )
    if missing and not allow_missing:
        files = ", ".join(dict.fromkeys(reply.place.rpartition(":")[0] for reply in replies))
        raise InputError(
            f"{files or 'replies'}: no reply for {len(missing)} of {len(items)} items, such as "
            f"item {missing[0]} ({items[missing[0]]}); {hint}"
        )
    keywords = {item: reply.keywords for item, reply in parsed.items() if not reply.problem}
    return Annotations(keywords, missing, unparsed)


def _by_item(replies: Sequence[ReplyLine], items: Mapping[str, str]) -> dict[str, ReplyLine]:
    by_item: dict[str, ReplyLine] = {}
    for reply in replies:
        if reply.item_id not in items:
            raise InputError(
                f"{reply.place}: a reply for item {reply.item_id}, which does not exist"
            )
        if reply.item_id in by_item:
            first = by_item[reply.item_id].place
            raise InputError(
                f"{reply.place}: a second reply for item {reply.item_id} (the first: {first}); "
                "keep one"
            )
        by_item[reply.item_id] = reply
    return by_item
