"""Keywords of items: their normal form, the filter, and their indices.

The filter is the paper's "excluding those that are either too common or too rare" (Section
"Objective and subjective item description"), with the numbers of `min_items` and `max_share`.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

_APOSTROPHES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201b": "'"})
# Unicode's categories of brackets, quotes, control characters, invisible characters and surrogate halves. With
# them, keywords that look equal would differ.
_DROPPED_CATEGORIES = frozenset(["Ps", "Pe", "Pi", "Pf", "Cc", "Cf", "Cs"])
_EDGES = " '`*_#~:-\u2013\u2014\u2022"  # allowed inside a keyword, not at its ends


def normalise_keyword(text: str) -> str:
    """The normal form of a keyword; "" if nothing is left of it.

    Unicode NFKC, lower case, single spaces, no brackets or double quotes, and at the ends no single
    quotes, markup, dashes or closing full stop. Applying it twice changes nothing.
    """
    previous = None
    while text != previous:  # without a character, its neighbours may combine
        previous, text = text, _normalise_once(text)
    return text


def _normalise_once(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
    words = ("".join(filter(_belongs, word)) for word in text.split())
    return " ".join(" ".join(words).split()).strip(_EDGES).rstrip(_EDGES + ".\u3002")


def _belongs(character: str) -> bool:
    return character not in '"<>' and unicodedata.category(character) not in _DROPPED_CATEGORIES


class ItemKeywords(NamedTuple):
    """The distinct normalised keywords of one item: reasons to like it and to dislike it."""

    pos: frozenset[str]
    neg: frozenset[str]


@dataclass(frozen=True)
class KeywordFilter:
    """The result of the filter.

    Attributes:
        kept: the keywords that pass, sorted; a keyword's position is its index.
        counts: every keyword -> number of items that have it, in either polarity or both.
        too_rare, too_common: the keywords that were dropped.
    """

    kept: list[str]
    counts: Mapping[str, int]
    too_rare: list[str]
    too_common: list[str]


def filter_keywords(
    items: Iterable[ItemKeywords], min_items: int, max_share: float
) -> KeywordFilter:
    """Drop the keywords that fewer than `min_items` or more than `max_share` of the items have.

    Args:
        items: the keywords of each item with a parsed reply; the share is of their number.
        min_items: at least 1.
        max_share: in (0, 1]; taken as the decimal it is written as, so 0.1 of 30 items is 3.
    """
    counts: Counter[str] = Counter()
    total = 0
    for item in items:
        counts.update(item.pos | item.neg)
        total += 1
    rare = {word for word, count in counts.items() if count < min_items}
    common = {word for word, count in counts.items() if exceeds_share(count, max_share, total)}
    common -= rare  # with few items, even one item is a large share
    return KeywordFilter(
        kept=sorted(counts.keys() - rare - common),
        counts=counts,
        too_rare=sorted(rare),
        too_common=sorted(common),
    )


def exceeds_share(count: int, share: float, total: int) -> bool:
    """Whether `count` is over `share` of `total`, the share read as the decimal it stands for."""
    return count > Fraction(str(share)) * total


def index_rows(rows: Sequence[Iterable[str]], vocabulary: Sequence[str]) -> np.ndarray:
    """Replace each row's words by their indices in `vocabulary`; words that are not in it are left out.

    Returns:
        int32[len(rows), W], each row ascending and padded with -1; W is the longest row's length,
        but at least 1.
    """
    index_of = {word: index for index, word in enumerate(vocabulary)}
    indices = [sorted({index_of[word] for word in row if word in index_of}) for row in rows]
    width = max([1, *map(len, indices)])
    table = np.full((len(rows), width), -1, np.int32)
    for row, values in zip(table, indices, strict=True):
        row[: len(values)] = values
    return table


def count_empty(keyword_rows: np.ndarray) -> int:
    """The number of rows of int32[N, K] that hold only padding."""
    return int((keyword_rows < 0).all(axis=1).sum())
