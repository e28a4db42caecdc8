"""Embeddings that start from keywords: near for items with the same keywords, and learned from there."""

import dataclasses

import chex
import jax
import numpy as np
import pytest

from agents.algorithms.a2c import A2C, A2CConfig
from agents.evaluation.baselines import training_counts
from agents.runs.item_start import covariance_factors, item_start, keyword_vectors, log_start
from jaxsim import InputError
from jaxsim.dataset import TRAIN
from jaxsim.taste_kernel import part_features
from tests.agents.conftest import learnable_dataset
from tests.factory import random_dataset


def test_items_with_the_same_keywords_have_the_same_vector():
    dataset = learnable_dataset()
    vectors = keyword_vectors(dataset, 6)
    assert vectors.shape == (dataset.num_items, 6)
    assert vectors.dtype == np.float32
    # Even items share one pro, odd ones one con: one component tells them apart, and there is no other.
    np.testing.assert_allclose(vectors[::2], np.tile(vectors[0], (20, 1)), atol=1e-6)
    np.testing.assert_allclose(vectors[1::2], np.tile(vectors[1], (20, 1)), atol=1e-6)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.1
    np.testing.assert_allclose(vectors[:, 1:], 0, atol=1e-6)


def test_products_are_those_of_the_centred_vectors():
    """With all components kept, a rotation: inner products stay."""
    dataset = learnable_dataset()
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((dataset.num_items, 3)).astype(np.float32)
    arrays = {**dataset.arrays, "item_pos_embedding": drawn, "item_neg_embedding": -drawn[:, :2]}
    vectors = keyword_vectors(dataclasses.replace(dataset, arrays=arrays), 5)
    both = np.concatenate([drawn, -drawn[:, :2]], axis=1)
    both -= both.mean(axis=0)
    np.testing.assert_allclose(vectors @ vectors.T, both @ both.T, atol=1e-4)


def test_training_starts_from_them(learnable):
    agent = A2C(learnable.env, A2CConfig(num_envs=4, width=6, item_embedding="keywords"))
    start = item_start(learnable_dataset(), "keywords", 6)
    vectors = np.asarray(start.vectors)
    state = jax.jit(agent.init)(jax.random.key(0), learnable.params, start)
    embedding = np.asarray(state.variables["params"]["item_embedding"])
    np.testing.assert_allclose(embedding / embedding[0, 0], vectors / vectors[0, 0], atol=1e-4)


def test_without_keywords_there_is_nothing_to_start_from():
    dataset = learnable_dataset()
    names = ("item_pos_embedding", "item_neg_embedding")
    empty = {name: np.zeros_like(dataset.arrays[name]) for name in names}
    bare = dataclasses.replace(dataset, arrays={**dataset.arrays, **empty})
    with pytest.raises(InputError, match="no item has a keyword"):
        keyword_vectors(bare, 4)


def test_products_from_logs_are_the_weighted_parts():
    """With all components kept, the inner products are those of the parts that the data has."""
    dataset = random_dataset(num_users=30)
    counts, likes = training_counts(dataset)
    rate = (likes + 5 * likes.sum() / counts.sum()) / (counts + 5)
    factors = covariance_factors(dataset, rate)
    start = log_start(dataset, 100)
    vectors = np.asarray(start.vectors, float)
    parts = part_features(dataset.arrays, dataset.taste["item_year"], factors)
    assert set(parts) == {"category", "year", "pros", "cons", "covariance"}
    weights = {"category": 0.05, "year": 0.05, "pros": 0.10, "cons": 0.05, "covariance": 0.03}
    expected = 0.06 + sum(weights[name] * x @ x.T for name, x in parts.items())
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-5)
    np.testing.assert_allclose(start.log_odds, np.log(rate / (1 - rate)), rtol=1e-4, atol=1e-5)
    # Fewer components are the leading ones.
    few = np.asarray(log_start(dataset, 3).vectors, float)
    np.testing.assert_allclose(few @ few.T, vectors[:, :3] @ vectors[:, :3].T, atol=1e-5)


def test_items_that_the_same_people_like_have_like_factors():
    """Two kinds of people and two kinds of items: one factor tells them apart."""
    dataset = learnable_dataset()
    user = dataset.interaction_user()
    item = dataset.arrays["interaction_item"]
    labels = ((user + item) % 2).astype(np.int8)
    taught = dataclasses.replace(dataset, arrays={**dataset.arrays, "interaction_label": labels})
    factors = covariance_factors(taught, np.full(dataset.num_items, 0.5))
    train = item[dataset.arrays["interaction_split"] == TRAIN]
    np.testing.assert_allclose(np.mean((factors[train] ** 2).sum(axis=1)), 1.0, rtol=1e-6)
    products = factors @ factors.T
    seen = np.unique(train)
    same = (seen[:, None] + seen[None]) % 2 == 0
    of_seen = products[np.ix_(seen, seen)]
    # Items that nobody has in common with others may have a factor of their own.
    assert of_seen[same].mean() > 0.1 > -0.1 > of_seen[~same].mean()


@pytest.mark.parametrize("embedding", ["keywords", "logs"])
def test_held_out_labels_are_not_read(embedding):
    dataset = random_dataset(num_users=30)
    held_out = dataset.arrays["interaction_split"] != TRAIN
    labels = np.where(held_out, 1 - dataset.arrays["interaction_label"], 0).astype(np.int8)
    labels[~held_out] = dataset.arrays["interaction_label"][~held_out]
    changed = dataclasses.replace(dataset, arrays={**dataset.arrays, "interaction_label": labels})
    assert held_out.any()
    chex.assert_trees_all_equal(
        item_start(dataset, embedding, 6), item_start(changed, embedding, 6)
    )


def test_random_embeddings_need_no_start():
    assert item_start(learnable_dataset(), "learned", 6) is None


def test_the_residual_encoder_needs_logs():
    with pytest.raises(InputError, match="encoder residual needs item_embedding logs, but it is"):
        A2CConfig(encoder="residual").check()
    A2CConfig(encoder="residual", item_embedding="logs").check()


@pytest.mark.parametrize("label", [0, 1])
def test_logs_in_which_all_labels_are_equal_give_finite_numbers(label):
    dataset = random_dataset(num_users=30)
    labels = np.full_like(dataset.arrays["interaction_label"], label)
    same = dataclasses.replace(dataset, arrays={**dataset.arrays, "interaction_label": labels})
    start = log_start(same, 6)
    assert np.isfinite(start.vectors).all()
    assert np.isfinite(start.log_odds).all()
