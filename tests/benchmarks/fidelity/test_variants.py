import numpy as np

from benchmarks.fidelity.variants import (
    has_keywords,
    with_permuted_keywords,
    with_shuffled_labels,
    without_interactions,
)
from jaxsim.catalogue import build_catalogue
from tests.factory import make_dataset, random_dataset


def test_permuting_moves_words_and_vectors_together():
    original = random_dataset(1).arrays
    arrays = with_permuted_keywords(random_dataset(1), seed=0).arrays

    def rows(arrays):
        pairs = zip(arrays["item_pos_keywords"], arrays["item_pos_embedding"], strict=True)
        return {tuple(keywords) + tuple(vector) for keywords, vector in pairs}

    assert rows(arrays) == rows(original)
    assert (arrays["item_pos_keywords"] != original["item_pos_keywords"]).any()
    assert (arrays["item_categories"] == original["item_categories"]).all()


def test_shuffling_moves_labels_and_nothing_else():
    dataset = random_dataset(1)
    shuffled = with_shuffled_labels(dataset, seed=0)
    assert shuffled.arrays["interaction_label"].sum() == dataset.arrays["interaction_label"].sum()
    assert (shuffled.arrays["interaction_label"] != dataset.arrays["interaction_label"]).any()
    for name in set(dataset.arrays) - {"interaction_label"}:
        assert shuffled.arrays[name] is dataset.arrays[name]


def test_interactions_are_removed_from_every_array(two_users):
    removed = np.isin(two_users.arrays["interaction_item"], [0, 9])
    rest = without_interactions(two_users, removed)
    assert rest.arrays["user_offsets"].tolist() == [0, 8, 11]
    assert rest.arrays["interaction_item"].tolist() == [*range(1, 9), 1, 2, 3]
    assert rest.arrays["interaction_split"].tolist() == [0] * 7 + [1] + [0] * 3
    assert rest.interaction_user().tolist() == [0] * 8 + [1] * 3
    assert (rest.num_items, rest.num_users) == (10, 2)
    assert two_users.arrays["user_offsets"].tolist() == [0, 10, 14]
    assert all(len(rest.arrays[n]) == 11 for n in rest.arrays if n.startswith("interaction_"))
    build_catalogue(rest.arrays)


def test_a_user_may_lose_everything(two_users):
    rest = without_interactions(two_users, np.arange(14) >= 10)
    assert rest.arrays["user_offsets"].tolist() == [0, 10, 10]


def test_whether_any_item_has_a_keyword():
    assert has_keywords(random_dataset(0))
    bare = make_dataset([[0]] * 5, [[]] * 5, [[]] * 5, [([0, 1, 2, 3, 4], [1, 0, 1, 0, 1])])
    assert not has_keywords(bare)
