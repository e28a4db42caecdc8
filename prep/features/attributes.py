"""Keywords without a language model: the words of an item's categories and attributes.

They are a substitute, for trying the simulator on a dataset before a language model is available. A category or
attribute says what an item is, not why people like or dislike it, so each word is both a positive and a negative
keyword: a candidate shares it with the liked and with the disliked items of the history.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from prep.features.keywords import ItemKeywords, normalise_keyword

_MAX_WORDS = 4  # longer values are descriptions with too many words
_PARTS = re.compile(r"[,;|/]")
_WHOLE_NUMBER = re.compile(r"\d{1,4}")
_YES = frozenset({"true", "yes"})
_NO = frozenset({"false", "no", "none", "n/a", "unknown", ""})


def attribute_keywords(categories: Iterable[str], attributes: Mapping[str, str]) -> ItemKeywords:
    """The keywords of an item, from its categories and attributes.

    Args:
        categories: names, such as ("Comedy", "Slice of Life").
        attributes: such as {"type": "TV", "year": "1995", "outdoor seating": "True"}. A short value is a keyword
            itself. A whole number of up to four digits becomes a keyword together with the attribute's name, and a
            yes becomes the attribute's name. Other numbers and values of more than four words are left out.
            Commas, semicolons, bars and slashes separate values.

    Returns:
        The same normalised keywords as positive and as negative ones.
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
