"""The items of a synthetic dataset, and the keywords that describe them."""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from jaxsim import InputError
from prep.features.keywords import exceeds_share
from prep.synthetic.config import ITEMS, MAX_SHARE, MIN_ITEMS, TOPICS, VECTORS, SyntheticConfig
from prep.synthetic.rows import chunks, first_distinct, left_aligned, random_columns, trim

SPARE_DRAWS = (
    3  # for each value wanted, because some are drawn twice and the filter drops some words
)
CON, PRO = 0, 1  # in alphabetical order, as keywords are
_TOPICS_OF_ITEM = 3  # at most
_KEYWORDS_OF_ITEM = 6  # of each polarity, at most


class Vocabulary(NamedTuple):
    """The words that keywords are drawn from, in lists: one for each topic and polarity.

    Attributes:
        per_list: words in each list; word w of topic t has the number (2 t + polarity) per_list + w.
        keyword: int32[all words], the index of the keyword that a word is; -1 if the filter drops the word.
    """

    per_list: int
    keyword: np.ndarray


class Catalogue(NamedTuple):
    """The items.

    Attributes:
        topics: int32[N, 3], ascending, -1 pads.
        quality: float32[N].
        pos, neg: int32[N, K], int32[N, L], keywords, ascending, -1 pads.
    """

    topics: np.ndarray
    quality: np.ndarray
    pos: np.ndarray
    neg: np.ndarray


def draw_catalogue(config: SyntheticConfig) -> tuple[Catalogue, Vocabulary]:
    """Draw the topics, quality and keywords of all items.

    Raises:
        InputError: the filter drops every word.
    """
    rng = config.rng(TOPICS)
    # Permutations spread the topics evenly, so that the category filter keeps all of them.
    topics = [rng.permutation(config.items) % config.topics for _ in range(_TOPICS_OF_ITEM)]
    wanted = rng.integers(1, _TOPICS_OF_ITEM + 1, config.items)
    topic_rows = first_distinct(np.stack(topics, axis=1), wanted, _TOPICS_OF_ITEM)
    per_list = config.words_per_list
    standard = np.empty(config.items, np.float32)
    pos, neg = (np.empty((config.items, _KEYWORDS_OF_ITEM), np.int32) for _ in range(2))
    for number, chunk in enumerate(chunks(config.items)):
        rng = config.rng(ITEMS, number)
        z = standard[chunk] = rng.standard_normal(chunk.stop - chunk.start, np.float32)
        for rows, side, odds in ((pos, PRO, z), (neg, CON, -z)):
            wanted = 1 + rng.binomial(_KEYWORDS_OF_ITEM - 1, expit(odds))
            drawn = draw_words(rng, topic_rows[chunk], side, per_list, _KEYWORDS_OF_ITEM)
            rows[chunk] = first_distinct(drawn, wanted, _KEYWORDS_OF_ITEM)
    words = _filter_words(config, per_list, pos, neg)
    quality = np.float32(config.quality_spread) * standard
    return Catalogue(topic_rows, quality, _renumber(pos, words), _renumber(neg, words)), words


def draw_words(
    rng: np.random.Generator, topics: np.ndarray, side: int, per_list: int, wanted: int
) -> np.ndarray:
    """Draw words by Zipf's law from random topics of each row.

    Args:
        rng: random numbers.
        topics: int32[B, 3], -1 pads.
        side: CON or PRO.
        per_list: as in `Vocabulary`.
        wanted: distinct words that the caller needs.

    Returns:
        Numbers of words, int64[B, 3 wanted]; some occur twice.
    """
    shape = (len(topics), wanted * SPARE_DRAWS)
    topic = np.take_along_axis(topics, random_columns(rng, topics, shape), axis=1)
    weight = np.cumsum(1.0 / np.arange(1, per_list + 1))
    rank = np.searchsorted(weight, rng.random(shape) * weight[-1], side="right")
    return (2 * topic.astype(np.int64) + side) * per_list + np.minimum(rank, per_list - 1)


def _filter_words(
    config: SyntheticConfig, per_list: int, pos: np.ndarray, neg: np.ndarray
) -> Vocabulary:
    total = 2 * config.topics * per_list
    counts = sum(np.bincount(rows[rows >= 0], minlength=total) for rows in (pos, neg))
    kept = np.array(
        [
            count >= MIN_ITEMS and not exceeds_share(count, MAX_SHARE, config.items)
            for count in np.asarray(counts).tolist()
        ]
    )
    if not kept.any():
        raise InputError(
            f"--synthetic.items is {config.items}: none of {total} keywords is on at least {MIN_ITEMS} items and "
            f"at most {MAX_SHARE:.0%} of them; give more items, or another number of --synthetic.keywords"
        )
    return Vocabulary(per_list, np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32))


def _renumber(rows: np.ndarray, words: Vocabulary) -> np.ndarray:
    return trim(left_aligned(np.where(rows >= 0, words.keyword[rows], -1)))


def draw_vectors(config: SyntheticConfig, words: Vocabulary) -> np.ndarray:
    """Vectors of the keywords, float32[W, D], of unit length."""
    rng = config.rng(VECTORS)
    topics = _unit(rng.standard_normal((config.topics, config.dimension), np.float32))
    numbers = np.flatnonzero(words.keyword >= 0)
    own = _unit(rng.standard_normal((len(numbers), config.dimension), np.float32))
    own += topics[numbers // (2 * words.per_list)]
    return _unit(own)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=vectors, where=norms > 0)


def name_keywords(words: Vocabulary, categories: list[str]) -> list[str]:
    """Names of the keywords in index order, which is alphabetical."""
    digits = len(str(words.per_list - 1))
    names = []
    for number in np.flatnonzero(words.keyword >= 0).tolist():
        block, word = divmod(number, words.per_list)
        topic, side = divmod(block, 2)
        names.append(f"{categories[topic]} {('con', 'pro')[side]} {word:0{digits}d}")
    return names
