"""The prompts that a dataset needs answered: T_obj for every item, T_sub for its training reviews."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jaxsim.dataset import TRAIN
from prep.annotation.prompts import ItemFacts, t_obj, t_sub
from prep.config import LanguageModelConfig
from prep.ratings import Ratings
from prep.replies import T_OBJ, T_SUB
from prep.replies.parser import POLARITIES

_LIKED, _DISLIKED = POLARITIES


class Task(NamedTuple):
    """A prompt that needs a reply.

    Attributes:
        prompt_name: "T_obj" or "T_sub".
        item_id: raw id of the item that it is about.
        user_id: raw id of the user whose review it quotes, not empty; None for T_obj.
        prompt: the text to send.
        polarities: the sides that the reply must have keywords of, as `prep.replies.parser.parse_reply` takes
            them.
    """

    prompt_name: str
    item_id: str
    user_id: str | None
    prompt: str
    polarities: tuple[str, ...]


def make_tasks(ratings: Ratings, config: LanguageModelConfig) -> Iterator[Task]:
    """Yield a task for each item and then, if configured, for each training review that has a text.

    Reviews of the validation and test splits are never shown to a language model.
    """
    items = ratings.items
    rows = zip(
        items["item_id"], items["name"], items["categories"], items["attributes"], strict=True
    )
    facts = {item: ItemFacts(name, names, attributes) for item, name, names, attributes in rows}
    for item, item_facts in facts.items():
        yield Task(T_OBJ, item, None, t_obj(item_facts, ratings.noun), POLARITIES)
    if config.subjective and ratings.raw.reviews is not None:
        yield from _review_tasks(ratings, config, facts)


def count_tasks(ratings: Ratings, config: LanguageModelConfig) -> int:
    """How many tasks `make_tasks` yields at most: reviews without a text are counted too."""
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
        yield Task(T_SUB, item, user, prompt, (_LIKED if liked else _DISLIKED,))


def training_reviews(ratings: Ratings, per_item: int | None) -> np.ndarray:
    """Indices of the training interactions whose reviews are asked about.

    Args:
        ratings: the interactions.
        per_item: the largest number of reviews of an item, of which the latest are taken; None for all.

    Returns:
        int64[R], ascending indices into the M interactions.
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
