"""Which prompts are asked: every item once, and training reviews alone."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from jaxsim.dataset import TRAIN
from prep.annotation.tasks import count_tasks, make_tasks, training_reviews
from prep.config import LanguageModelConfig, RatingsConfig
from prep.ratings import read_ratings
from prep.sources.base import RawData
from tests.prep.test_ratings import Invented, Texts


class TenReviews(Invented):
    """User u rates ten items in the order 9, 8, ..., 0 of time; each review has a text but that of item 5."""

    def load(self, options):
        items = [str(number) for number in range(10)]
        return RawData(
            ratings=pd.DataFrame(
                {
                    "user_id": pd.Categorical(["u"] * 10),
                    "item_id": pd.Categorical(items),
                    "rating": np.array([5, 1] * 5, np.float32),
                    "time": np.arange(10, 0, -1, dtype=np.int64),
                }
            ),
            items=pd.DataFrame(
                {
                    "item_id": items,
                    "name": [f"Thing {item}" for item in items],
                    "categories": [("gadgets",)] * 10,
                    "attributes": [{"colour": "red"}] * 10,
                }
            ),
            files={},
            origin="nowhere",
            reviews=Texts({row: f"review of row {row}" for row in range(10) if row != 5}),
        )


def test_every_item_is_asked_about_and_only_training_reviews():
    ratings = read_ratings(TenReviews(), RatingsConfig())
    tasks = list(make_tasks(ratings, LanguageModelConfig()))
    objective = [task for task in tasks if task.prompt_name == "T_obj"]
    assert [task.item_id for task in objective] == [str(number) for number in range(10)]
    assert all(task.user_id is None and task.polarities == ("pos", "neg") for task in objective)
    assert "Thing 3" in objective[3].prompt
    assert "gadgets" in objective[3].prompt
    assert "red" in objective[3].prompt

    subjective = tasks[10:]
    # By time 9, 8, 7, ... 2 are the first eight, the training ones; 1 is validation, 0 test; 5 has no text.
    assert [task.item_id for task in subjective] == ["2", "3", "4", "6", "7", "8", "9"]
    assert all(task.user_id == "u" for task in subjective)
    assert [task.polarities for task in subjective] == [
        ("pos",) if int(task.item_id) % 2 == 0 else ("neg",) for task in subjective
    ]
    for task in subjective:
        assert f"review of row {task.item_id}" in task.prompt
        assert f"Thing {task.item_id}" in task.prompt
    everything = "".join(task.prompt for task in tasks)
    assert "review of row 0" not in everything
    assert "review of row 1" not in everything
    assert count_tasks(ratings, LanguageModelConfig()) == 18  # the blank one is not known before


def test_reviews_are_left_out_on_request():
    ratings = read_ratings(TenReviews(), RatingsConfig())
    tasks = list(make_tasks(ratings, LanguageModelConfig(subjective=False)))
    assert {task.prompt_name for task in tasks} == {"T_obj"}
    assert count_tasks(ratings, LanguageModelConfig(subjective=False)) == 10


class Drawn(Invented):
    def __init__(self, rows):
        self.rows = rows

    def load(self, options):
        users, items, times = zip(*self.rows, strict=True)
        stars = np.arange(len(users), dtype=np.float32) % 2 * 4 + 1
        return RawData(
            ratings=pd.DataFrame(
                {
                    "user_id": pd.Categorical([str(user) for user in users]),
                    "item_id": pd.Categorical([str(item) for item in items]),
                    "rating": stars,
                    "time": np.array(times, np.int64),
                }
            ),
            items=pd.DataFrame(columns=["item_id", "name", "categories", "attributes"]),
            files={},
            origin="nowhere",
        )


numbers = st.integers(0, 4)


@given(
    st.lists(st.tuples(numbers, numbers, numbers), min_size=2, max_size=50, unique_by=lambda row: row[:2]),
    st.integers(1, 4),
)  # fmt: skip
def test_the_latest_reviews_of_an_item_are_taken(rows, per_item):
    ratings = read_ratings(Drawn(rows), RatingsConfig())
    arrays = ratings.interactions.arrays
    expected = []
    for item in range(len(ratings.items)):
        places = np.flatnonzero(
            (arrays["interaction_item"] == item) & (arrays["interaction_split"] == TRAIN)
        )
        key = lambda at: (arrays["interaction_time"][at], ratings.interactions.rows[at])  # noqa: E731
        expected += sorted(places.tolist(), key=key)[-per_item:]
    assert training_reviews(ratings, per_item).tolist() == sorted(expected)
    everything = np.flatnonzero(arrays["interaction_split"] == TRAIN)
    assert training_reviews(ratings, None).tolist() == everything.tolist()
