"""Which prompts a dataset needs answered: T_obj of every item, T_sub of its training reviews."""

from collections.abc import Iterator

import numpy as np

from jaxsim.dataset import TRAIN
from prep.annotation.prompts import ItemFacts, t_obj, t_sub
from prep.annotation.run import Task
from prep.config import LanguageModelConfig
from prep.ratings import Ratings
from prep.replies.files import POLARITIES

_LIKED, _DISLIKED = POLARITIES


def make_tasks(ratings: Ratings, config: LanguageModelConfig) -> Iterator[Task]:
    """Yield a task for each item and then, if wanted, for each review of the training split that has a text.

    Reviews of the validation and test splits are never shown to a language model.
    """
    items = ratings.items
    rows = zip(
        items["item_id"], items["name"], items["categories"], items["attributes"], strict=True
    )
    facts = {item: ItemFacts(name, names, attributes) for item, name, names, attributes in rows}
    for item, known in facts.items():
        yield Task("T_obj", item, None, t_obj(known, ratings.noun), POLARITIES)
    if config.subjective and ratings.raw.reviews is not None:
        yield from _review_tasks(ratings, config, facts)


def count_tasks(ratings: Ratings, config: LanguageModelConfig) -> int:
    """How many tasks `make_tasks` yields at most; reviews without a text are counted here."""
    reviews = 0
    if config.subjective and ratings.raw.reviews is not None:
        reviews = len(training_reviews(ratings, config.reviews_per_item))
    return len(ratings.items) + reviews


def _review_tasks(
    ratings: Ratings, config: LanguageModelConfig, facts: dict[str, ItemFacts]
) -> Iterator[Task]:
    interactions, reviews = ratings.interactions, ratings.raw.reviews
    assert reviews is not None
    places = training_reviews(ratings, config.reviews_per_item)
    places = places[np.argsort(interactions.rows[places])]  # the order of the file
    rows = interactions.rows[places]
    users = interactions.users_of_rows
    arrays = interactions.arrays
    for row, text in reviews.texts(rows):
        place = places[np.searchsorted(rows, row)]
        user = interactions.users[users[place]]
        item = interactions.items[arrays["interaction_item"][place]]
        liked = bool(arrays["interaction_label"][place])
        rating = float(arrays["interaction_rating"][place])
        prompt = t_sub(
            facts[item],
            ratings.noun,
            rating,
            ratings.best_rating,
            liked,
            text,
            config.comment_tokens,
        )
        yield Task("T_sub", item, user, prompt, (_LIKED if liked else _DISLIKED,))


def training_reviews(ratings: Ratings, per_item: int | None) -> np.ndarray:
    """Places of the training interactions whose reviews are asked about.

    Args:
        ratings: the interactions.
        per_item: take only so many of each item, the latest; None for all.

    Returns:
        int64[R], ascending places among the M interactions.
    """
    arrays = ratings.interactions.arrays
    places = np.flatnonzero(arrays["interaction_split"] == TRAIN)
    if per_item is None:
        return places
    item, time = arrays["interaction_item"][places], arrays["interaction_time"][places]
    order = np.lexsort((ratings.interactions.rows[places], time, item))[::-1]  # latest first
    ranked = item[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    rank = np.arange(len(ranked)) - np.repeat(starts, np.diff(np.r_[starts, len(ranked)]))
    return np.sort(places[order[rank < per_item]])
