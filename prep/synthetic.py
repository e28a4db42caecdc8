"""Synthetic datasets of any size with a known preference model: for tests with ground truth, and for scale.

Items belong to one to three topics and have a latent quality. The better an item, the more positive and the
fewer negative keywords it has; they are drawn by Zipf's law from the words of its topics. A user has three
favourite topics and, among their words, keywords that they like and keywords that annoy them. Users meet items
by popularity (Zipf's law again), mostly in their favourite topics and never twice, and

    logit P(like) = user bias + item quality + taste (positive keywords liked - negative keywords that annoy).

Keywords and categories obey the filters of every dataset. Tastes are drawn among the keywords that are left, so
that a packed folder holds the whole truth: `true_like_probability` reads it there. The vector of a keyword is
the direction of its topic plus a direction of its own.

Everything is drawn by chunks of items or users, each from a random stream of its own.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit
from tqdm import tqdm

from jaxsim import Dataset, InputError, load_dataset
from jaxsim.dataset import MIN_INTERACTIONS
from prep.features.embedding import item_embeddings
from prep.features.keywords import exceeds_share
from prep.interactions import split_codes

ENCODER = "synthetic"
MIN_ITEMS, MAX_SHARE = 2, 0.10  # of keywords, as in every dataset
MIN_CATEGORY_ITEMS, MAX_CATEGORY_SHARE = 5, 0.5

# Beyond these no machine has the memory, or the index the bits.
_LARGEST = {"users": 10**8, "items": 10**8, "interactions_per_user": 10**6, "dimension": 1 << 16}
_MOST_KEYWORDS = 10**7
_MIN_TOPICS = 8  # with fewer, a topic could be on more than MAX_CATEGORY_SHARE of the items
_TOPICS_OF_ITEM = 3
_KEYWORDS_OF_ITEM = 6  # of each polarity, at most
_FAVOURITE_TOPICS = 3
_KEYWORDS_OF_USER = 8  # that a user likes, at most, and as many that annoy
_SPARE_DRAWS = 3  # for each word wanted, for some come twice and some are filtered out
_POPULARITY_EXPONENT = 0.8
_SHARE_OUTSIDE_FAVOURITES = 0.2
_CON, _PRO = 0, 1  # in alphabetical order, as keywords are
_START, _YEAR, _DAY = 1_577_836_800, 31_536_000, 86_400  # 2020-01-01, in seconds
_AT_ONCE = 32_768  # items or users
_PAIRS_AT_ONCE = 1 << 18
# Random streams.
_TOPICS, _POPULARITY, _ITEMS, _VECTORS, _COUNTS, _TASTES, _HISTORIES = range(7)


@dataclass(frozen=True)
class SyntheticConfig:
    """The size and the taste of a synthetic dataset."""

    users: int = 1000
    """Number of users."""
    items: int = 500
    """Number of items."""
    interactions_per_user: int = 20
    """Interactions of a user on average; each has between half and one and a half times as many."""
    topics: int = 20
    """Number of topics, which are the categories."""
    keywords: int | None = None
    """Number of words that keywords are drawn from. Without it, 25 times the square root of the items, as
    vocabularies grow (Heaps' law)."""
    dimension: int = 384
    """Length of the keyword vectors."""
    like_rate: float = 0.6
    """Share of likes among the interactions."""
    taste: float = 1.5
    """Log-odds that a keyword which the user likes adds, and one which annoys takes away."""
    user_spread: float = 0.5
    """Standard deviation of the users' biases, in log-odds."""
    quality_spread: float = 0.5
    """Standard deviation of the items' qualities, in log-odds."""
    seed: int = 0
    """Seed of everything that is drawn."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        for name, largest in _LARGEST.items():
            self._require(
                name,
                1 <= getattr(self, name) <= largest,
                f"give a whole number from 1 to {largest:,}",
            )
        self._require("seed", self.seed >= 0, "give a whole number from 0")
        self._require(
            "topics", self.topics >= _MIN_TOPICS, f"give a whole number from {_MIN_TOPICS}"
        )
        fewest = MIN_CATEGORY_ITEMS * self.topics
        self._require("items", self.items >= fewest, f"give {fewest}, or fewer --synthetic.topics")
        if self.keywords is not None:
            fewest = 2 * self.topics
            self._require(
                "keywords",
                fewest <= self.keywords <= _MOST_KEYWORDS,
                f"give a whole number from {fewest} to {_MOST_KEYWORDS:,}",
            )
        self._require(
            "interactions_per_user",
            3 * self.interactions_per_user <= self.items,
            f"give at most a third of the {self.items:,} items",
        )
        self._require("like_rate", 0 < self.like_rate < 1, "give a share above 0 and below 1")
        for name in ("taste", "user_spread", "quality_spread"):
            value = getattr(self, name)
            self._require(name, math.isfinite(value) and value >= 0, "give a finite number from 0")

    def _require(self, name: str, holds: bool, advice: str) -> None:
        if not holds:
            flag = name.replace("_", "-")
            raise InputError(f"--synthetic.{flag} {getattr(self, name)}: {advice}")

    @property
    def words_per_list(self) -> int:
        """Words of one topic and polarity, before the filter."""
        keywords = self.keywords or round(25 * math.sqrt(self.items))
        return max(1, keywords // (2 * self.topics))

    def rng(self, stream: int, chunk: int = 0) -> np.random.Generator:
        """The random numbers of one chunk of one stream."""
        return np.random.default_rng([self.seed, stream, chunk])


@dataclass(frozen=True)
class SyntheticData:
    """Everything of a packed dataset but its name and its statistic model; see `prep.pack.PackedContents`.

    The truth is in `items` (`quality` float32) and `users` (`bias` float32; `liked_keywords` and
    `annoying_keywords`, lists of 8 indices into `keywords`, ascending, -1 pads).
    """

    arrays: dict[str, np.ndarray]
    items: pd.DataFrame
    users: pd.DataFrame
    keywords: list[str]
    categories: list[str]
    manifest: dict[str, Any]


class _Words(NamedTuple):
    """The vocabulary.

    Attributes:
        per_list: words of one topic and polarity; word w of topic t is number (2 t + polarity) per_list + w.
        kept: int32[all words], the index among the words that the filter left, -1 for the others.
    """

    per_list: int
    kept: np.ndarray


class _Items(NamedTuple):
    """The catalogue.

    Attributes:
        topics: int32[N, 3], ascending, -1 pads.
        quality: float32[N].
        pos, neg: int32[N, K], int32[N, L] keywords, ascending, -1 pads.
    """

    topics: np.ndarray
    quality: np.ndarray
    pos: np.ndarray
    neg: np.ndarray


class _Shelves(NamedTuple):
    """The items of each topic, topic after topic, to be drawn from by popularity.

    Attributes:
        item: int32[E], an item once for each of its topics.
        weight: float64[E], running total of the popularity.
        start: int64[T + 1] into both.
    """

    item: np.ndarray
    weight: np.ndarray
    start: np.ndarray


class _Tastes(NamedTuple):
    """What some users want.

    Attributes:
        favourites: int32[B, 3] topics, -1 pads.
        liked, annoying: int32[B, 8] keywords, ascending, -1 pads.
        bias: float32[B].
    """

    favourites: np.ndarray
    liked: np.ndarray
    annoying: np.ndarray
    bias: np.ndarray


def make_synthetic(config: SyntheticConfig) -> SyntheticData:
    """Draw a dataset.

    Raises:
        InputError: a setting that makes no sense, or so many words that the filter leaves none.
    """
    config.check()
    items, words = _draw_items(config)
    arrays = {
        "item_categories": _trim(items.topics),
        "item_pos_keywords": items.pos,
        "item_neg_keywords": items.neg,
    }
    vectors = _draw_vectors(config, words)
    for side in ("pos", "neg"):
        arrays[f"item_{side}_embedding"] = item_embeddings(arrays[f"item_{side}_keywords"], vectors)
    interactions, tastes = _draw_interactions(config, items, words)
    arrays |= interactions
    categories = [
        f"topic {topic:0{len(str(config.topics - 1))}d}" for topic in range(config.topics)
    ]
    keywords = _name_words(words, categories)
    return SyntheticData(
        arrays=arrays,
        items=_item_table(items, categories),
        users=_user_table(np.diff(arrays["user_offsets"]), tastes),
        keywords=keywords,
        categories=categories,
        manifest=_manifest(config, arrays, len(keywords), len(words.kept)),
    )


def true_like_probability(
    dataset: Dataset | SyntheticData | str | os.PathLike[str],
    users: np.ndarray,
    items: np.ndarray,
) -> np.ndarray:
    """The probability with which users like items, as the dataset's labels were drawn.

    Args:
        dataset: a synthetic dataset, or its name or path.
        users, items: int[B], indices.

    Returns:
        float32[B].

    Raises:
        InputError: the dataset is not synthetic, or an index is out of its range.
    """
    if not isinstance(dataset, Dataset | SyntheticData):
        dataset = load_dataset(dataset)
    if "synthetic" not in dataset.manifest:
        raise InputError(f"{dataset.manifest['dataset']}: not a synthetic dataset; it has no truth")
    for name, index, stop in (("users", users, dataset.users), ("items", items, dataset.items)):
        if len(index) and not 0 <= np.min(index) <= np.max(index) < len(stop):
            raise InputError(f"{name}: an index is not from 0 to {len(stop) - 1}")
    quality = dataset.items["quality"].to_numpy(np.float32)
    taste = dataset.manifest["synthetic"]["taste"]
    arrays, result = dataset.arrays, np.empty(len(users), np.float32)
    for chunk in _chunks(len(users), _PAIRS_AT_ONCE):
        rows, item = dataset.users.iloc[users[chunk]], items[chunk]
        log_odds = _log_odds(
            rows["bias"].to_numpy(np.float32) + quality[item],
            _shared(arrays["item_pos_keywords"][item], np.stack(rows["liked_keywords"].tolist())),
            _shared(
                arrays["item_neg_keywords"][item], np.stack(rows["annoying_keywords"].tolist())
            ),
            taste,
        )
        result[chunk] = expit(log_odds)
    return result


def _log_odds(
    base: np.ndarray, liked: np.ndarray, annoying: np.ndarray, taste: float
) -> np.ndarray:
    """Log-odds of a like, float32[B], given bias + quality and how many keywords please and annoy."""
    return base + np.float32(taste) * (liked - annoying).astype(np.float32)


def _shared(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Size of the intersection of each row of int32[B, K] with that of int32[B, L] (-1 pads), int64[B]."""
    equal = (rows[:, :, None] == others[:, None, :]) & (rows >= 0)[:, :, None]
    return equal.sum(axis=(1, 2))


def _chunks(total: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


def _first_distinct(candidates: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """The first distinct values of each row, int32[B, width], ascending and padded with -1.

    Args:
        candidates: int[B, W]; negative ones are never taken.
        counts: int[B], how many to take at most, up to `width`.
        width: of the result.
    """
    order = np.argsort(candidates, axis=1, kind="stable")
    ordered = np.take_along_axis(candidates, order, axis=1)
    fresh = candidates >= 0
    repeated = np.zeros_like(fresh)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    fresh &= ~repeated
    chosen = fresh & (np.cumsum(fresh, axis=1) <= counts[:, None])
    return _left_aligned(np.where(chosen, candidates, -1))[:, :width]


def _left_aligned(rows: np.ndarray) -> np.ndarray:
    """Rows in ascending order with the negative values, now -1, at the end, int32[B, W]."""
    last = np.iinfo(np.int32).max
    ordered = np.sort(np.where(rows < 0, last, rows).astype(np.int32), axis=1)
    return np.where(ordered == last, np.int32(-1), ordered)


def _trim(rows: np.ndarray) -> np.ndarray:
    """Rows without the columns that only pad, but with at least one column."""
    return np.ascontiguousarray(rows[:, : max(1, int((rows >= 0).sum(axis=1).max()))])


def _draw_items(config: SyntheticConfig) -> tuple[_Items, _Words]:
    rng = config.rng(_TOPICS)
    # Permutations spread the topics evenly: each has the items that the category filter wants.
    topics = [rng.permutation(config.items) % config.topics for _ in range(_TOPICS_OF_ITEM)]
    wanted = rng.integers(1, _TOPICS_OF_ITEM + 1, config.items)
    topic_rows = _first_distinct(np.stack(topics, axis=1), wanted, _TOPICS_OF_ITEM)
    per_list = config.words_per_list
    standard = np.empty(config.items, np.float32)
    pos, neg = (np.empty((config.items, _KEYWORDS_OF_ITEM), np.int32) for _ in range(2))
    for number, chunk in enumerate(_chunks(config.items, _AT_ONCE)):
        rng = config.rng(_ITEMS, number)
        z = standard[chunk] = rng.standard_normal(chunk.stop - chunk.start, np.float32)
        for rows, side, odds in ((pos, _PRO, z), (neg, _CON, -z)):
            wanted = 1 + rng.binomial(_KEYWORDS_OF_ITEM - 1, expit(odds))
            found = _draw_words(rng, topic_rows[chunk], side, per_list, _KEYWORDS_OF_ITEM)
            rows[chunk] = _first_distinct(found, wanted, _KEYWORDS_OF_ITEM)
    words = _filter_words(config, per_list, pos, neg)
    quality = np.float32(config.quality_spread) * standard
    return _Items(topic_rows, quality, _renumber(pos, words), _renumber(neg, words)), words


def _draw_words(
    rng: np.random.Generator, topics: np.ndarray, side: int, per_list: int, wanted: int
) -> np.ndarray:
    """Word numbers of random topics of each row of int32[B, 3], int64[B, 3 wanted]; some come twice."""
    shape = (len(topics), wanted * _SPARE_DRAWS)
    topic = np.take_along_axis(topics, _random_columns(rng, topics, shape), axis=1)
    law = np.cumsum(1.0 / np.arange(1, per_list + 1))
    rank = np.searchsorted(law, rng.random(shape) * law[-1], side="right")
    return (2 * topic.astype(np.int64) + side) * per_list + np.minimum(rank, per_list - 1)


def _random_columns(
    rng: np.random.Generator, rows: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Random columns of each row that are not padding, int64[B, W]."""
    known = (rows >= 0).sum(axis=1, keepdims=True)
    return (rng.random(shape) * known).astype(np.int64)


def _filter_words(
    config: SyntheticConfig, per_list: int, pos: np.ndarray, neg: np.ndarray
) -> _Words:
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
            f"--synthetic.items {config.items}: none of {total} keywords is on at least {MIN_ITEMS} and at most "
            f"{MAX_SHARE:.0%} of the items; give more items, or another number of --synthetic.keywords"
        )
    return _Words(per_list, np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32))


def _renumber(rows: np.ndarray, words: _Words) -> np.ndarray:
    return _trim(_left_aligned(np.where(rows >= 0, words.kept[rows], -1)))


def _draw_vectors(config: SyntheticConfig, words: _Words) -> np.ndarray:
    """Vectors of the words that are left, float32[W, D], of unit length."""
    rng = config.rng(_VECTORS)
    topics = _unit(rng.standard_normal((config.topics, config.dimension), np.float32))
    kept = np.flatnonzero(words.kept >= 0)
    own = _unit(rng.standard_normal((len(kept), config.dimension), np.float32))
    own += topics[kept // (2 * words.per_list)]
    return _unit(own)


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=vectors, where=norms > 0)


def _draw_interactions(
    config: SyntheticConfig, items: _Items, words: _Words
) -> tuple[dict[str, np.ndarray], _Tastes]:
    """The interaction arrays of the format, and the tastes of all users."""
    shelves = _fill_shelves(config, items.topics)
    counts = _draw_counts(config)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    item = np.empty(offsets[-1], np.int32)
    label = np.empty(offsets[-1], np.int8)
    time = np.empty(offsets[-1], np.int64)
    tastes: list[_Tastes] = []
    shift = np.float32(0)
    bar = tqdm(desc="drawing users", total=config.users, disable=None, delay=1)
    for number, chunk in enumerate(_chunks(config.users, _AT_ONCE)):
        taste = _draw_tastes(config, words, number, chunk.stop - chunk.start)
        rng = config.rng(_HISTORIES, number)
        rows = slice(offsets[chunk.start], offsets[chunk.stop])
        item[rows] = _draw_histories(rng, shelves, counts[chunk], taste.favourites, config)
        time[rows] = _draw_times(rng, counts[chunk])
        if number == 0:  # one chunk is enough to find the like rate: all are drawn alike
            unshifted = _log_odds_of(config, items, taste, counts[chunk], item[rows])
            shift = _shift_to_rate(unshifted, config.like_rate)
        taste = taste._replace(bias=taste.bias + shift)
        log_odds = _log_odds_of(config, items, taste, counts[chunk], item[rows])
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
    return arrays, _Tastes(*map(np.concatenate, zip(*tastes, strict=True)))


def _draw_counts(config: SyntheticConfig) -> np.ndarray:
    """Interactions of each user, int64[U]; their mean is exactly `interactions_per_user`."""
    rng = config.rng(_COUNTS)
    more = rng.integers(0, config.interactions_per_user // 2 + 1, config.users // 2)
    differences = np.concatenate([more, -more, np.zeros(config.users % 2, np.int64)])
    return config.interactions_per_user + rng.permutation(differences)


def _draw_tastes(config: SyntheticConfig, words: _Words, number: int, users: int) -> _Tastes:
    rng = config.rng(_TASTES, number)
    drawn = rng.integers(0, config.topics, (users, _FAVOURITE_TOPICS * _SPARE_DRAWS))
    favourites = _first_distinct(drawn, np.full(users, _FAVOURITE_TOPICS), _FAVOURITE_TOPICS)
    wanted = np.full(users, _KEYWORDS_OF_USER)

    def draw(side: int) -> np.ndarray:
        found = _draw_words(rng, favourites, side, words.per_list, _KEYWORDS_OF_USER)
        return _first_distinct(words.kept[found], wanted, _KEYWORDS_OF_USER)

    bias = np.float32(config.user_spread) * rng.standard_normal(users, np.float32)
    return _Tastes(favourites, draw(_PRO), draw(_CON), bias)


def _fill_shelves(config: SyntheticConfig, topics: np.ndarray) -> _Shelves:
    rank = config.rng(_POPULARITY).permutation(config.items)
    popularity = (rank + 1.0) ** -_POPULARITY_EXPONENT
    item, column = np.nonzero(topics >= 0)
    topic = topics[item, column]
    item = item[np.argsort(topic, kind="stable")].astype(np.int32)
    start = np.concatenate([[0], np.cumsum(np.bincount(topic, minlength=config.topics))])
    return _Shelves(item, np.cumsum(popularity[item]), start)


def _draw_histories(
    rng: np.random.Generator,
    shelves: _Shelves,
    counts: np.ndarray,
    favourites: np.ndarray,
    config: SyntheticConfig,
) -> np.ndarray:
    """Distinct items of each user in random order, int32[sum of counts], user after user."""
    closed: list[np.ndarray] = []
    pairs = np.zeros(0, np.int64)  # user * N + item, ascending, of the users who miss some
    missing = counts
    while missing.any():
        users = np.repeat(np.arange(len(counts)), missing)
        met = _meet_items(rng, shelves, favourites[users])
        pairs = np.union1d(pairs, users * config.items + met)
        found = np.bincount(pairs // config.items, minlength=len(counts))
        missing = np.where(missing > 0, counts - found, 0)
        still = missing[pairs // config.items] > 0
        closed.append(pairs[~still])
        pairs = pairs[still]
    pairs = np.concatenate(closed)
    order = np.argsort(pairs // config.items + rng.random(len(pairs)))
    return (pairs[order] % config.items).astype(np.int32)


def _meet_items(rng: np.random.Generator, shelves: _Shelves, favourites: np.ndarray) -> np.ndarray:
    """An item by popularity from a topic of each row of int32[B, 3], or from any, int32[B]."""
    shape = (len(favourites), 1)
    topic = np.take_along_axis(favourites, _random_columns(rng, favourites, shape), axis=1)[:, 0]
    elsewhere = rng.random(len(topic)) < _SHARE_OUTSIDE_FAVOURITES
    topic = np.where(elsewhere, rng.integers(0, len(shelves.start) - 1, len(topic)), topic)
    first, last = shelves.start[topic], shelves.start[topic + 1] - 1
    below = np.where(first > 0, shelves.weight[first - 1], 0.0)
    point = below + rng.random(len(topic)) * (shelves.weight[last] - below)
    place = np.searchsorted(shelves.weight, point, side="right")
    return shelves.item[np.clip(place, first, last)]


def _draw_times(rng: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Strictly ascending seconds of each user, int64[sum of counts]: a day apart on average."""
    gaps = 1 + rng.exponential(_DAY, counts.sum()).astype(np.int64)
    total = np.cumsum(gaps)
    before = np.concatenate([[0], total])[np.cumsum(counts) - counts]
    start = _START + rng.integers(0, _YEAR, len(counts))
    return total + np.repeat(start - before, counts)


def _log_odds_of(
    config: SyntheticConfig,
    items: _Items,
    tastes: _Tastes,
    counts: np.ndarray,
    item: np.ndarray,
) -> np.ndarray:
    """Log-odds of a like of some users' items, float32[sum of counts]."""
    user = np.repeat(np.arange(len(counts)), counts)
    return _log_odds(
        tastes.bias[user] + items.quality[item],
        _shared(items.pos[item], tastes.liked[user]),
        _shared(items.neg[item], tastes.annoying[user]),
        config.taste,
    )


def _shift_to_rate(log_odds: np.ndarray, rate: float) -> np.float32:
    """What must be added to log-odds so that their mean probability is `rate`."""
    bound = float(np.abs(log_odds).max()) + 50.0
    return np.float32(brentq(lambda shift: expit(log_odds + shift).mean() - rate, -bound, bound))


def _name_words(words: _Words, categories: list[str]) -> list[str]:
    """Names of the words that are left, in index order, which is the alphabet's."""
    digits = len(str(words.per_list - 1))
    names = []
    for number in np.flatnonzero(words.kept >= 0).tolist():
        block, word = divmod(number, words.per_list)
        topic, side = divmod(block, 2)
        names.append(f"{categories[topic]} {('con', 'pro')[side]} {word:0{digits}d}")
    return names


def _item_table(items: _Items, categories: list[str]) -> pd.DataFrame:
    rows = [[categories[topic] for topic in row if topic >= 0] for row in items.topics.tolist()]
    ids = [str(index) for index in range(len(rows))]
    return pd.DataFrame(
        {
            "item_id": ids,
            "name": [f"item {index}" for index in ids],
            "categories": pd.Series(rows, dtype=object),
            "quality": items.quality,
        }
    )


def _user_table(counts: np.ndarray, tastes: _Tastes) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": [str(index) for index in range(len(counts))],
            "interactions": counts,
            "bias": tastes.bias,
            "liked_keywords": pd.Series(list(tastes.liked), dtype=object),
            "annoying_keywords": pd.Series(list(tastes.annoying), dtype=object),
        }
    )


def _manifest(
    config: SyntheticConfig, arrays: dict[str, np.ndarray], keywords: int, words: int
) -> dict[str, Any]:
    empty = {
        f"items_without_{side}_keywords": int(
            (arrays[f"item_{side}_keywords"] < 0).all(axis=1).sum()
        )
        for side in ("pos", "neg")
    }
    return {
        "dataset": ENCODER,
        "synthetic": asdict(config),
        "counts": {
            "users": config.users,
            "session_users": int((np.diff(arrays["user_offsets"]) >= MIN_INTERACTIONS).sum()),
            "items": config.items,
            "interactions": len(arrays["interaction_item"]),
            "duplicates_dropped": 0,
            "likes": int(arrays["interaction_label"].sum()),
            "keywords": keywords,
            "keywords_before_filter": words,
            "categories": config.topics,
            **empty,
        },
        "settings": {
            "like_threshold": 1.0,
            "split": "ratio",
            "min_items": MIN_ITEMS,
            "max_share": MAX_SHARE,
            "max_category_share": MAX_CATEGORY_SHARE,
            "min_category_items": MIN_CATEGORY_ITEMS,
            "single_category": False,
        },
        "encoder": {"name": ENCODER, "dimension": config.dimension, "files": []},
        "language_model": {"name": "none", "files": []},
        "raw": {},
    }
