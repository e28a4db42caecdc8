from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import roc_auc_score

import jaxsim
from benchmarks.fidelity.events import events_of
from benchmarks.fidelity.simulator import Simulator
from benchmarks.fidelity.variants import with_permuted_keywords
from jaxsim import InputError
from prep.features.categories import filter_categories
from prep.features.keywords import ItemKeywords, filter_keywords, index_rows, normalise_keyword
from prep.interactions import split_codes
from prep.pack import PackedContents, write_dataset
from prep.synthetic import (
    SyntheticConfig,
    SyntheticData,
    make_synthetic,
    rows,
    true_like_probability,
)
from tests.factory import random_dataset, sasrec_weights, taste_arrays


def interaction_user(data):
    counts = np.diff(data.arrays["user_offsets"])
    return np.repeat(np.arange(len(counts)), counts)


def pack(data: SyntheticData, folder: Path) -> Path:
    """Write a packed folder with an untrained statistic model."""
    architecture = {"num_items": len(data.items), "num_users": len(data.users), "window": 60}
    small = {"width": 4, "num_blocks": 1, "num_heads": 1, "dropout": 0.0}
    contents = PackedContents(
        **{name: getattr(data, name) for name in ("items", "users", "keywords", "categories")},
        arrays=data.arrays,
        sasrec=sasrec_weights(architecture | small),
        taste=taste_arrays(len(data.items), 0),
        manifest=data.manifest | {"sasrec": {"architecture": architecture | small}},
    )
    write_dataset(folder, contents)
    return folder


configs = st.builds(
    SyntheticConfig,
    users=st.integers(1, 50),
    items=st.integers(80, 160),
    interactions_per_user=st.integers(1, 26),
    topics=st.integers(8, 16),
    keywords=st.sampled_from([None, 100, 400]),
    dimension=st.integers(1, 5),
    like_rate=st.sampled_from([0.02, 0.5, 0.9]),
    seed=st.integers(0, 2**40),
)


@given(configs, st.sampled_from([7, 64, 32_768]))
def test_whatever_the_size_it_keeps_the_rules_of_the_format(config, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "CHUNK_ROWS", at_once)
        data = make_synthetic(config)
    arrays = data.arrays
    actual = {name: (array.dtype.type, array.ndim) for name, array in arrays.items()}
    assert actual == jaxsim.dataset.ARRAY_SCHEMA
    assert (len(data.items), len(data.users)) == (config.items, config.users)
    assert len(arrays["interaction_item"]) == config.users * config.interactions_per_user
    counts = np.diff(arrays["user_offsets"])
    assert data.users["interactions"].tolist() == counts.tolist()
    mean = config.interactions_per_user
    assert (counts >= mean - mean // 2).all()
    assert (counts <= mean + mean // 2).all()
    np.testing.assert_array_equal(arrays["interaction_split"], split_codes(counts))
    np.testing.assert_array_equal(arrays["interaction_rating"], arrays["interaction_label"])
    for start, stop in zip(arrays["user_offsets"], arrays["user_offsets"][1:], strict=False):
        assert len(set(arrays["interaction_item"][start:stop].tolist())) == stop - start
        assert (np.diff(arrays["interaction_time"][start:stop]) > 0).all()


@given(configs)
def test_the_filters_of_every_dataset_would_drop_nothing(config):
    data = make_synthetic(config)
    names = np.array(data.keywords)

    def words(side):
        return [frozenset(names[row[row >= 0]]) for row in data.arrays[f"item_{side}_keywords"]]

    pos, neg = words("pos"), words("neg")
    kept = filter_keywords([ItemKeywords(*pair) for pair in zip(pos, neg, strict=True)], 2, 0.1)
    assert kept.kept == data.keywords
    assert [normalise_keyword(name) for name in data.keywords] == data.keywords
    for side, words_of_items in (("pos", pos), ("neg", neg)):
        expected = index_rows(words_of_items, data.keywords)
        np.testing.assert_array_equal(data.arrays[f"item_{side}_keywords"], expected)
    categories = filter_categories(data.items["categories"].tolist(), 0.5, 5)
    assert categories == data.items["categories"].tolist()
    expected = index_rows(categories, data.categories)
    np.testing.assert_array_equal(data.arrays["item_categories"], expected)


def test_the_same_seed_gives_the_same_and_another_seed_another():
    first, second = (make_synthetic(SyntheticConfig(users=60, dimension=4)) for _ in range(2))
    other = make_synthetic(SyntheticConfig(users=60, dimension=4, seed=1))
    for name, array in first.arrays.items():
        assert array.tobytes() == second.arrays[name].tobytes()
        if name not in ("user_offsets", "interaction_split"):
            assert array.tobytes() != other.arrays[name].tobytes()
    pd.testing.assert_frame_equal(first.items, second.items)
    pd.testing.assert_frame_equal(first.users, second.users)
    assert first.manifest == second.manifest


def test_the_probability_by_hand():
    arrays = {
        "item_pos_keywords": np.array([[0, 2], [1, -1], [-1, -1]], np.int32),
        "item_neg_keywords": np.array([[3, -1], [3, 4], [-1, -1]], np.int32),
    }
    users = pd.DataFrame({"bias": np.array([0.5, -1.0], np.float32)})
    users["liked_keywords"] = [np.array([0, 1, 2]), np.array([1, -1, -1])]
    users["annoying_keywords"] = [np.array([4, -1, -1]), np.array([3, 4, -1])]
    items = pd.DataFrame({"quality": np.array([0.25, 0.0, -0.25], np.float32)})
    manifest = {"synthetic": {"taste": 2.0}}
    data = SyntheticData(arrays, items, users, list("abcde"), ["c"], manifest)
    actual = true_like_probability(data, np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2] * 2))
    log_odds = [0.75 + 2 * 2, 0.5 + 2 * (1 - 1), 0.25, -0.75 - 2, -1.0 + 2 * (1 - 2), -1.25]
    np.testing.assert_allclose(actual, expit(log_odds), rtol=1e-6)
    assert actual.dtype == np.float32


@pytest.mark.parametrize("like_rate", [0.2, 0.6])
def test_labels_are_drawn_with_the_true_probability(like_rate):
    data = make_synthetic(SyntheticConfig(users=3000, dimension=2, like_rate=like_rate))
    labels = data.arrays["interaction_label"]
    truth = true_like_probability(data, interaction_user(data), data.arrays["interaction_item"])
    assert truth.mean() == pytest.approx(like_rate, abs=0.001)
    deviation = np.sqrt((truth * (1.0 - truth)).sum())
    assert abs(labels.sum() - truth.sum()) < 4 * deviation
    for part in np.array_split(np.argsort(truth), 20):
        deviation = np.sqrt((truth[part] * (1.0 - truth[part])).sum())
        assert abs(labels[part].sum() - truth[part].sum()) < 4 * deviation
    assert truth.std() > 0.2  # there is something to find


def test_popular_items_and_favourite_topics_are_met_more():
    data = make_synthetic(SyntheticConfig(users=2000, items=1000, dimension=2))
    met = np.sort(np.bincount(data.arrays["interaction_item"], minlength=1000))[::-1]
    assert met[:100].sum() > 0.3 * met.sum()
    # Favourite topics are those of the keywords that a user likes.
    names = np.array(data.keywords)
    topics = [set(data.items["categories"][item]) for item in data.arrays["interaction_item"]]
    liked = [
        {name.partition(" pro ")[0] for name in names[row[row >= 0]]}
        for row in data.users["liked_keywords"]
    ]
    share = np.mean([
        bool(actual & liked[user]) for user, actual in zip(interaction_user(data), topics, strict=True)
    ])  # fmt: skip
    assert share > 0.7


def test_better_items_have_more_pros_and_fewer_cons():
    data = make_synthetic(SyntheticConfig(users=1, items=2000, dimension=2))
    quality = data.items["quality"]
    counts = {s: (data.arrays[f"item_{s}_keywords"] >= 0).sum(axis=1) for s in ("pos", "neg")}
    assert np.corrcoef(quality, counts["pos"])[0, 1] > 0.4
    assert np.corrcoef(quality, counts["neg"])[0, 1] < -0.4


def test_vectors_are_unit_and_close_within_a_topic():
    data = make_synthetic(SyntheticConfig(users=1, items=400, dimension=64))
    topics = data.arrays["item_categories"]
    lone = np.flatnonzero((topics >= 0).sum(axis=1) == 1)
    vectors = data.arrays["item_pos_embedding"][lone]
    has_keywords = (data.arrays["item_pos_keywords"][lone] >= 0).any(axis=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), has_keywords, atol=1e-6)
    cosine, same = vectors @ vectors.T, topics[lone, 0][:, None] == topics[lone, 0]
    np.fill_diagonal(same, False)
    apart = topics[lone, 0][:, None] != topics[lone, 0]
    assert cosine[same].mean() > 0.5 > 0.1 > abs(cosine[apart].mean())


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    config = SyntheticConfig(users=1000, items=500, interactions_per_user=30, dimension=64)
    data = make_synthetic(config)
    return data, pack(data, tmp_path_factory.mktemp("synthetic") / "pack")


def test_a_packed_folder_holds_the_whole_truth(packed):
    data, folder = packed
    users, items = np.arange(1000).repeat(3), np.arange(3000) % 500
    expected = true_like_probability(data, users, items)
    np.testing.assert_array_equal(true_like_probability(folder, users, items), expected)
    dataset = jaxsim.load_dataset(folder)
    np.testing.assert_array_equal(true_like_probability(dataset, users, items), expected)
    assert dataset.manifest["synthetic"]["seed"] == 0
    assert dataset.manifest["encoder"]["name"] == "synthetic"
    assert true_like_probability(dataset, users[:0], items[:0]).shape == (0,)


def test_votes_find_the_truth_by_keywords_and_not_without(packed):
    dataset = jaxsim.load_dataset(packed[1])
    simulator = Simulator.of(dataset)
    events = events_of(dataset, "validation+test")
    truth = true_like_probability(dataset, events.user, events.item)
    above = truth > np.median(truth)

    def auc(simulator):
        names = zip(("f_mat", "f_sim"), simulator.margins(events), strict=True)
        return {name: roc_auc_score(above, margin) for name, margin in names}

    real = auc(simulator)
    dealt = auc(simulator.with_keywords_of(with_permuted_keywords(dataset, 0)))
    assert real["f_mat"] > 0.7
    assert real["f_sim"] > 0.62
    for name in real:  # what is left: who likes much is liked for much
        assert abs(dealt[name] - 0.5) < 0.07
        assert real[name] > dealt[name] + 0.06


def test_what_is_not_synthetic_has_no_truth():
    with pytest.raises(InputError, match="invented: not synthetic"):
        true_like_probability(random_dataset(0), np.zeros(1, int), np.zeros(1, int))


@pytest.mark.parametrize(("users", "items"), [([1000], [0]), ([-1], [0]), ([0], [500])])
def test_an_index_out_of_range(packed, users, items):
    with pytest.raises(InputError, match=r"an index is not from 0 to (999|499)"):
        true_like_probability(packed[0], np.array(users), np.array(items))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"users": 0}, "users is 0: give a whole number from 1, up to 100,000,000"),
        ({"topics": 7}, "topics is 7: give a whole number from 8"),
        ({"like_rate": 1.0}, "like-rate is 1.0: give a finite number above 0, below 1"),
        ({"seed": -1}, "seed is -1: give a whole number from 0"),
        ({"items": 60}, "items is 60: give 100 or more, or fewer --synthetic.topics"),
        ({"interactions_per_user": 167}, "interactions-per-user is 167: give at most a third of"),
        ({"keywords": 39}, "keywords is 39: give 40 or more, two for each topic"),
    ],
)
def test_unusable_settings(settings, message):
    with pytest.raises(InputError, match=f"^--synthetic.{message}"):
        SyntheticConfig(**settings).check()


def test_too_few_words_for_the_items():
    config = SyntheticConfig(items=40, topics=8, interactions_per_user=5, keywords=16)
    with pytest.raises(
        InputError, match=r"items is 40: none of 16 keywords is on at least 2 items"
    ):
        make_synthetic(config)
