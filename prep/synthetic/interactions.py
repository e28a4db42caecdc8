"""What the users of a synthetic dataset meet, when, and whether they like it."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from tqdm import tqdm

from prep.interactions import split_codes
from prep.synthetic.catalogue import CON, PRO, SPARE_DRAWS, Catalogue, Vocabulary, draw_words
from prep.synthetic.config import COUNTS, HISTORIES, POPULARITY, TASTES, SyntheticConfig
from prep.synthetic.rows import chunks, count_shared, first_distinct, random_columns

_FAVOURITE_TOPICS = 3  # at most
_KEYWORDS_OF_USER = 8  # that a user likes, at most, and as many that annoy them
_POPULARITY_EXPONENT = 0.8
_SHARE_OUTSIDE_FAVOURITES = 0.2
_FIRST_TIME, _YEAR, _DAY = 1_577_836_800, 31_536_000, 86_400  # 2020-01-01, in seconds


class Tastes(NamedTuple):
    """What users like and dislike.

    Attributes:
        favourites: int32[B, 3] topics, -1 pads.
        liked, annoying: int32[B, 8] keywords, ascending, -1 pads.
        bias: float32[B].
    """

    favourites: np.ndarray
    liked: np.ndarray
    annoying: np.ndarray
    bias: np.ndarray


class ItemsByTopic(NamedTuple):
    """The items of each topic, topic after topic, for draws by popularity.

    Attributes:
        item: int32[E], each item once for each of its topics.
        weight: float64[E], running total of the popularity.
        start: int64[T + 1], where each topic starts in both.
    """

    item: np.ndarray
    weight: np.ndarray
    start: np.ndarray


def draw_interactions(
    config: SyntheticConfig, items: Catalogue, words: Vocabulary
) -> tuple[dict[str, np.ndarray], Tastes]:
    """The interaction arrays of the format, and the tastes of all users."""
    by_topic = _group_items_by_topic(config, items.topics)
    counts = _draw_counts(config)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    item = np.empty(offsets[-1], np.int32)
    label = np.empty(offsets[-1], np.int8)
    time = np.empty(offsets[-1], np.int64)
    tastes: list[Tastes] = []
    shift = np.float32(0)
    bar = tqdm(desc="drawing users", total=config.users, disable=None, delay=1)
    for number, chunk in enumerate(chunks(config.users)):
        taste = _draw_tastes(config, words, number, chunk.stop - chunk.start)
        rng = config.rng(HISTORIES, number)
        rows = slice(offsets[chunk.start], offsets[chunk.stop])
        item[rows] = _draw_histories(rng, by_topic, counts[chunk], taste.favourites, config)
        time[rows] = _draw_times(rng, counts[chunk])
        if (
            number == 0
        ):  # all chunks have the same distribution: the first one is enough to fit the like rate
            unshifted = _log_odds_of_items(config, items, taste, counts[chunk], item[rows])
            shift = _shift_to_rate(unshifted, config.like_rate)
        taste = taste._replace(bias=taste.bias + shift)
        log_odds = _log_odds_of_items(config, items, taste, counts[chunk], item[rows])
        label[rows] = rng.random(len(log_odds)) < expit(log_odds)
        tastes.append(taste)
        bar.update(len(taste.bias))
    bar.close()
    arrays = {
        "user_offsets": offsets,
        "interaction_item": item,
        "interaction_label": label,
        "interaction_rating": label.astype(np.float32),
        "interaction_time": time,
        "interaction_split": split_codes(counts),
    }
    return arrays, Tastes(*map(np.concatenate, zip(*tastes, strict=True)))


def _draw_counts(config: SyntheticConfig) -> np.ndarray:
    """Interactions of each user, int64[U]; their mean is exactly `interactions_per_user`."""
    rng = config.rng(COUNTS)
    more = rng.integers(0, config.interactions_per_user // 2 + 1, config.users // 2)
    differences = np.concatenate([more, -more, np.zeros(config.users % 2, np.int64)])
    return config.interactions_per_user + rng.permutation(differences)


def _draw_tastes(config: SyntheticConfig, words: Vocabulary, number: int, users: int) -> Tastes:
    """Tastes of the users of one chunk; the biases are not yet shifted to the like rate."""
    rng = config.rng(TASTES, number)
    topics = rng.integers(0, config.topics, (users, _FAVOURITE_TOPICS * SPARE_DRAWS))
    favourites = first_distinct(topics, np.full(users, _FAVOURITE_TOPICS), _FAVOURITE_TOPICS)
    wanted = np.full(users, _KEYWORDS_OF_USER)

    def draw(side: int) -> np.ndarray:
        drawn = draw_words(rng, favourites, side, words.per_list, _KEYWORDS_OF_USER)
        return first_distinct(words.keyword[drawn], wanted, _KEYWORDS_OF_USER)

    bias = np.float32(config.user_spread) * rng.standard_normal(users, np.float32)
    return Tastes(favourites, draw(PRO), draw(CON), bias)


def _group_items_by_topic(config: SyntheticConfig, topics: np.ndarray) -> ItemsByTopic:
    rank = config.rng(POPULARITY).permutation(config.items)
    popularity = (rank + 1.0) ** -_POPULARITY_EXPONENT
    item, column = np.nonzero(topics >= 0)
    topic = topics[item, column]
    item = item[np.argsort(topic, kind="stable")].astype(np.int32)
    start = np.concatenate([[0], np.cumsum(np.bincount(topic, minlength=config.topics))])
    return ItemsByTopic(item, np.cumsum(popularity[item]), start)


def _draw_histories(
    rng: np.random.Generator,
    by_topic: ItemsByTopic,
    counts: np.ndarray,
    favourites: np.ndarray,
    config: SyntheticConfig,
) -> np.ndarray:
    """Distinct items of each user in random order, int32[sum of counts], user after user."""
    complete: list[np.ndarray] = []
    pairs = np.zeros(0, np.int64)  # user * N + item, ascending, of the users who still need items
    missing = counts
    while missing.any():
        users = np.repeat(np.arange(len(counts)), missing)
        drawn = _draw_items_by_topic(rng, by_topic, favourites[users])
        pairs = np.union1d(pairs, users * config.items + drawn)
        distinct = np.bincount(pairs // config.items, minlength=len(counts))
        missing = np.where(missing > 0, counts - distinct, 0)
        needs_more = missing[pairs // config.items] > 0
        complete.append(pairs[~needs_more])
        pairs = pairs[needs_more]
    pairs = np.concatenate(complete)
    order = np.argsort(pairs // config.items + rng.random(len(pairs)))
    return (pairs[order] % config.items).astype(np.int32)


def _draw_items_by_topic(
    rng: np.random.Generator, by_topic: ItemsByTopic, favourites: np.ndarray
) -> np.ndarray:
    """Draw an item by popularity from a topic of each row of int32[B, 3], or from any topic, int32[B]."""
    shape = (len(favourites), 1)
    topic = np.take_along_axis(favourites, random_columns(rng, favourites, shape), axis=1)[:, 0]
    elsewhere = rng.random(len(topic)) < _SHARE_OUTSIDE_FAVOURITES
    topic = np.where(elsewhere, rng.integers(0, len(by_topic.start) - 1, len(topic)), topic)
    first, last = by_topic.start[topic], by_topic.start[topic + 1] - 1
    below = np.where(first > 0, by_topic.weight[first - 1], 0.0)
    point = below + rng.random(len(topic)) * (by_topic.weight[last] - below)
    place = np.searchsorted(by_topic.weight, point, side="right")
    return by_topic.item[np.clip(place, first, last)]


def _draw_times(rng: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Times in seconds, strictly ascending for each user, a day apart on average, int64[sum of counts]."""
    gaps = 1 + rng.exponential(_DAY, counts.sum()).astype(np.int64)
    total = np.cumsum(gaps)
    before = np.concatenate([[0], total])[np.cumsum(counts) - counts]
    start = _FIRST_TIME + rng.integers(0, _YEAR, len(counts))
    return total + np.repeat(start - before, counts)


def log_odds_of_like(
    base: np.ndarray, liked: np.ndarray, annoying: np.ndarray, taste: float
) -> np.ndarray:
    """Log-odds of a like, float32[B], from bias + quality and the numbers of liked and annoying keywords."""
    return base + np.float32(taste) * (liked - annoying).astype(np.float32)


def _log_odds_of_items(
    config: SyntheticConfig,
    items: Catalogue,
    tastes: Tastes,
    counts: np.ndarray,
    item: np.ndarray,
) -> np.ndarray:
    """Log-odds of a like for each interaction of some users, float32[sum of counts]."""
    user = np.repeat(np.arange(len(counts)), counts)
    return log_odds_of_like(
        tastes.bias[user] + items.quality[item],
        count_shared(items.pos[item], tastes.liked[user]),
        count_shared(items.neg[item], tastes.annoying[user]),
        config.taste,
    )


def _shift_to_rate(log_odds: np.ndarray, rate: float) -> np.float32:
    """The number to add to log-odds so that their mean probability is `rate`."""
    bound = float(np.abs(log_odds).max()) + 50.0
    return np.float32(brentq(lambda shift: expit(log_odds + shift).mean() - rate, -bound, bound))
