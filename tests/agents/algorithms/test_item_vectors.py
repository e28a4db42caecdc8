"""Embeddings that start from keywords: near for items with the same keywords, and learned from there."""

import dataclasses

import jax
import numpy as np
import pytest

from agents.algorithms.a2c import A2C, A2CConfig
from agents.algorithms.item_vectors import keyword_vectors
from jaxsim import InputError
from tests.agents.conftest import learnable_dataset


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
    vectors = keyword_vectors(learnable_dataset(), 6)
    state = jax.jit(agent.init)(jax.random.key(0), learnable.params, vectors)
    embedding = np.asarray(state.variables["params"]["item_embedding"])
    np.testing.assert_allclose(embedding / embedding[0, 0], vectors / vectors[0, 0], atol=1e-4)


def test_without_keywords_there_is_nothing_to_start_from():
    dataset = learnable_dataset()
    names = ("item_pos_embedding", "item_neg_embedding")
    empty = {name: np.zeros_like(dataset.arrays[name]) for name in names}
    bare = dataclasses.replace(dataset, arrays={**dataset.arrays, **empty})
    with pytest.raises(InputError, match="no item has a keyword"):
        keyword_vectors(bare, 4)
