"""Keywords without any language model: the words of an item's categories and attributes.

A stand-in, for trying the simulator on a dataset before a language model is at hand. A category or attribute
says what an item is, not why people like or dislike it, so each word stands on both sides: a candidate shares
it with the liked and with the disliked items of the history.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from prep.features.keywords import ItemKeywords, normalise_keyword

_MAX_WORDS = 4  # longer values are descriptions, whose words would drown the others
_PARTS = re.compile(r"[,;|/]")
_WHOLE_NUMBER = re.compile(r"\d{1,4}")
_YES = frozenset({"true", "yes"})
_NO = frozenset({"false", "no", "none", "n/a", "unknown", ""})


def attribute_keywords(categories: Iterable[str], attributes: Mapping[str, str]) -> ItemKeywords:
    """Make an item's keywords from what is known of it.

    Args:
        categories: names, such as ("Comedy", "Slice of Life").
        attributes: such as {"type": "TV", "year": "1995", "outdoor seating": "True"}. A short value is a keyword
            itself; a whole number of up to four digits, and a yes, only with the attribute's name; other numbers
            and values of more than four words are left out. Values may be parted by commas, semicolons, bars or
            slashes.

    Returns:
        The same normalised keywords on both sides.
    """
    words = {normalise_keyword(name) for name in categories}
    for name, value in attributes.items():
        words.update(_words_of(normalise_keyword(name), value))
    words = {word for word in words if any(map(str.isalnum, word))}
    return ItemKeywords(frozenset(words), frozenset(words))


def _words_of(name: str, value: str) -> Iterator[str]:
    for part in map(normalise_keyword, _PARTS.split(value)):
        if part in _YES:
            yield name
        elif _WHOLE_NUMBER.fullmatch(part):
            yield f"{name} {part}"
        elif part not in _NO and not _is_number(part) and len(part.split()) <= _MAX_WORDS:
            yield part


def _is_number(text: str) -> bool:
    return not any(map(str.isalpha, text))
