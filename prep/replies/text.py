r"""The plain text of a language model's reply, without its thoughts, HTML and special tokens.

Reasoning models write their thoughts in <think> first, chat templates leave tokens such as <|im_end|>, and some
models write <br> or the two characters \n for a line break.
"""

import html
import re
import unicodedata
from functools import lru_cache
from typing import Literal

_THINKING = re.compile(
    r"<(?P<close>/?)(?:think|thinking|thought|reasoning)>(?P<ends_line>[ \t\r]*(?:\n|$))?",
    re.IGNORECASE,
)
_LINE_BREAK = re.compile(r"<br ?/?>", re.IGNORECASE)
_BLOCK_TAG = re.compile(
    r"</?(?:p|div|li|ul|ol|h[1-6]|answer|response|output)>|<\|[^<>|]{1,40}\|>", re.IGNORECASE
)
_INLINE_TAG = re.compile(r"</?(?:b|strong|i|em|u|s|span|code|mark)>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:amp|quot|lt|gt|nbsp|apos|#39);")
_MARKS_OF_A_CHARACTER = 30  # as in Unicode's stream-safe format


def plain_text(text: str) -> str:
    """Remove thoughts and markup, and write the rest in Unicode's normal form NFKC.

    Takes linear time, whatever the text.
    """
    if "\n" not in text:
        text = text.replace("\\n", "\n")
    text = _ENTITY.sub(lambda entity: html.unescape(entity.group()), _without_thoughts(text))
    lines = normalised(_BLOCK_TAG.sub("\n", text)).split("\n")
    text = "\n".join(
        _LINE_BREAK.sub("; " if line.lstrip().startswith("|") else "\n", line) for line in lines
    )
    return _INLINE_TAG.sub(" ", text)


def _without_thoughts(text: str) -> str:
    """Leave out <think>...</think>, also if one of the two tags is missing."""
    kept: list[str] = []
    start, thinking = 0, False
    for number, tag in enumerate(_THINKING.finditer(text)):
        if not thinking and not tag["close"]:
            kept.append(text[start : tag.start()])
            thinking = True
        elif thinking and tag["close"]:
            start, thinking = tag.end(), False
        elif number == 0 and tag["ends_line"] is not None:  # chat templates may begin the thought
            start = tag.end()
    return "".join(kept) + ("" if thinking else text[start:])


def normalised(text: str, form: Literal["NFC", "NFKC"] = "NFKC") -> str:
    """Unicode's normal form, in linear time: Python sorts a run of combining marks in quadratic time."""
    if text.isascii():
        return text
    kept, run = [], 0
    for character in text:
        run = run + 1 if _is_mark(character) else 0
        if run <= _MARKS_OF_A_CHARACTER:
            kept.append(character)
    return unicodedata.normalize(form, "".join(kept))


@lru_cache(maxsize=1 << 16)
def _is_mark(character: str) -> bool:
    return unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) != 0
