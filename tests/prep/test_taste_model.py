"""Fitting the taste model: its steps by hand and against dense formulas, what it reads, and what it recovers."""

import numpy as np
import pandas as pd
import pytest
from jax import numpy as jnp
from sklearn.metrics import roc_auc_score

from jaxsim import InputError
from jaxsim.taste_kernel import part_features
from prep.taste_effects import (
    ITEM_WEIGHTS,
    LABEL_NOISE,
    alternating_effects,
    covariance_factors,
    item_effects,
    item_residual_means,
    training_residuals,
)
from prep.taste_model import (
    TasteTraining,
    default_weights,
    gram_matrices,
    predicted_tastes,
    train_taste,
    validation_examples,
)
from prep.years import item_years
from tests.factory import random_dataset

FAST = TasteTraining(context=12, iterations=3, covariance_rank=3, calibration_context=12)


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(2, num_users=150)  # 250 validation labels


@pytest.fixture(scope="module")
def years(dataset):
    return dataset.taste["item_year"]


def test_item_effects_are_the_dense_posterior_mean(dataset, years):
    residuals = training_residuals(dataset.arrays)
    parts = part_features(dataset.arrays, years, None)
    mean = item_residual_means(residuals, np.zeros(dataset.num_users))
    kernel = sum(ITEM_WEIGHTS[name] * x @ x.T for name, x in parts.items())
    kernel = kernel + ITEM_WEIGHTS["own"] * np.eye(dataset.num_items)
    rated = residuals.item_count > 0
    noise = np.diag(LABEL_NOISE / residuals.item_count[rated])
    dense = kernel[:, rated] @ np.linalg.solve(kernel[np.ix_(rated, rated)] + noise, mean[rated])
    ours = item_effects(residuals, parts, mean, ITEM_WEIGHTS)
    np.testing.assert_allclose(ours, dense, atol=1e-10)


def test_an_unrated_item_gets_the_effect_of_similar_ones(dataset, years):
    """An item's twin without ratings is expected to be liked as it is, but less surely."""
    arrays = {name: x.copy() for name, x in dataset.arrays.items()}
    first, twin = 0, 1
    for name in ("item_categories", "item_pos_embedding", "item_neg_embedding"):
        arrays[name][twin] = arrays[name][first]
    years = years.copy()
    years[twin] = years[first] = 1990
    arrays["interaction_item"][arrays["interaction_item"] == twin] = 2
    arrays["interaction_label"][arrays["interaction_item"] == first] = 1
    residuals = training_residuals(arrays)
    assert residuals.item_count[twin] == 0
    parts = part_features(arrays, years, None)
    effect, _ = alternating_effects(residuals, parts, ITEM_WEIGHTS)
    assert 0 < effect[twin] < effect[first]


def test_generous_users_do_not_make_items_look_good():
    """Both items are liked by half of their users; but item 1's are those who like everything else."""
    generous, strict = range(10), range(10, 20)
    rows = [(u, i, 1) for u in generous for i in range(2, 12)]
    rows += [(u, i, 0) for u in strict for i in range(2, 12)]
    rows += [(u, 1, u % 2) for u in generous] + [(u, 0, u % 2) for u in strict]
    rows.sort()
    users, items, labels = (np.array(column) for column in zip(*rows, strict=True))
    arrays = {
        "user_offsets": np.concatenate([[0], np.cumsum(np.bincount(users))]),
        "interaction_item": items.astype(np.int32),
        "interaction_label": labels.astype(np.int8),
        "interaction_split": np.zeros(len(rows), np.int8),
        "item_categories": np.full((12, 1), -1, np.int32),
    }
    effect, user_mean = alternating_effects(training_residuals(arrays), {}, {"own": 0.2})
    assert effect[0] > effect[1] + 0.1
    assert user_mean[:10].min() > user_mean[10:].max()


def test_predicted_tastes_are_the_dense_formula(dataset, years):
    examples = validation_examples(dataset.arrays, 7, None, 0)
    assert not examples.present.all()  # some histories are short
    parts = part_features(dataset.arrays, years, np.random.default_rng(0).normal(size=(40, 2)))
    weights = default_weights(parts, has_times=True)
    items = np.concatenate([examples.history_items, examples.item[:, None]], axis=1)
    grams = {n: np.stack([x[row] @ x[row].T for row in items]) for n, x in parts.items()}
    of_items = 0.06 + sum(float(weights.taste[n]) * g for n, g in grams.items())
    residual = np.random.default_rng(1).normal(size=examples.present.shape)
    ours = predicted_tastes(
        *(jnp.asarray(x, jnp.float32) for x in (of_items, 0.1, 0.85, residual)),
        jnp.asarray(examples.present),
    )
    ones = gram_matrices(next(iter(parts.values())), examples)
    np.testing.assert_allclose(ones, next(iter(grams.values())), atol=1e-5)
    for e in range(0, len(items), 5):
        here = np.append(examples.present[e], True)
        place = np.arange(8)
        kernel = of_items[e] + 0.1 * 0.85 ** np.abs(place[:, None] - place[None])
        kernel = kernel[np.ix_(here, here)]
        alpha = np.linalg.solve(kernel[:-1, :-1] + np.eye(here.sum() - 1), residual[e][here[:-1]])
        assert float(ours[e]) == pytest.approx(kernel[-1, :-1] @ alpha, abs=1e-5)


def test_examples_hold_the_interactions_before_the_label(dataset):
    examples = validation_examples(dataset.arrays, 4, None, 0)
    arrays = dataset.arrays
    rows = np.flatnonzero(arrays["interaction_split"] == 1)
    users = dataset.interaction_user()
    for e, row in enumerate(rows):
        before = [r for r in range(row - 4, row) if r >= 0 and users[r] == users[row]]
        assert examples.present[e].sum() == len(before)
        np.testing.assert_array_equal(
            examples.history_items[e][examples.present[e]], arrays["interaction_item"][before]
        )


def test_factors_have_mean_square_one_and_find_a_block():
    """Users who like one half of the items dislike the other: the first factor has a sign for each half."""
    rng = np.random.default_rng(0)
    users, items = np.repeat(np.arange(40), 20), np.tile(np.arange(20), 40)
    sides = np.where(items < 10, 1, -1) * np.where(users < 20, 1, -1)
    label = 0.4 * sides + rng.normal(0, 0.05, len(users))
    residuals = training_residuals(
        {
            "user_offsets": np.arange(41) * 20,
            "interaction_item": items.astype(np.int32),
            "interaction_label": np.zeros(800, np.int8),
            "interaction_split": np.zeros(800, np.int8),
            "item_categories": np.full((20, 1), -1, np.int32),
        }
    )._replace(label=label)
    factors = covariance_factors(residuals, np.zeros(20), np.zeros(40), 2)
    assert ((factors**2).sum(axis=1)).mean() == pytest.approx(1)
    shares = factors @ factors.T
    assert shares[:10, :10].min() > 0.5
    assert shares[:10, 10:].max() < -0.5


def test_labels_of_the_test_split_change_nothing(dataset, years):
    arrays = {name: x.copy() for name, x in dataset.arrays.items()}
    test = arrays["interaction_split"] == 2
    arrays["interaction_label"][test] = 1 - arrays["interaction_label"][test]
    assert test.any()
    before, after = (train_taste(a, years, FAST) for a in (dataset.arrays, arrays))
    assert before[1] == after[1]
    for name in before[0]:
        np.testing.assert_array_equal(before[0][name], after[0][name])


def test_without_validation_labels_the_defaults_stay(dataset, years):
    arrays = {
        **dataset.arrays,
        "interaction_split": np.zeros_like(dataset.arrays["interaction_split"]),
    }
    _, entry = train_taste(arrays, years, FAST)
    assert entry["labels"] == entry["steps"] == 0
    assert entry["calibration"] == pytest.approx([-2.7, 5.3, 6.1])


def test_parts_that_the_data_lacks_get_no_weight(dataset):
    arrays = {name: x.copy() for name, x in dataset.arrays.items()}
    arrays["interaction_time"][:] = 0
    for side in ("pos", "neg"):
        arrays[f"item_{side}_embedding"][:] = 0
    nowhere = np.full(dataset.num_items, np.nan, np.float32)
    result, entry = train_taste(
        arrays, nowhere, TasteTraining(context=8, covariance_rank=0, iterations=2)
    )
    assert entry["taste_weights"].keys() == {"constant", "category"}
    assert entry["item_weights"].keys() == {"own", "category", "label_noise"}
    assert result["covariance_factors"].shape == (40, 0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(x, marks=pytest.mark.slow) for x in (1, 2))])
def test_a_taste_for_categories_is_recovered(seed):
    """Users like the items of one category and dislike those of the other; items are equal otherwise."""
    dataset = random_dataset(seed, num_users=150, num_items=80, num_categories=2, max_sequence=40)
    arrays = {name: x.copy() for name, x in dataset.arrays.items()}
    rng = np.random.default_rng(seed)
    arrays["item_categories"] = np.repeat(np.arange(2), 40)[rng.permutation(80), None].astype(
        np.int32
    )
    likes_second = rng.integers(0, 2, dataset.num_users)[dataset.interaction_user()]
    match = arrays["item_categories"][arrays["interaction_item"], 0] == likes_second
    arrays["interaction_label"] = (
        rng.uniform(size=len(match)) < np.where(match, 0.85, 0.15)
    ).astype(np.int8)
    years = np.full(80, np.nan, np.float32)
    _, entry = train_taste(arrays, years, TasteTraining(context=30, covariance_rank=0))
    weights = entry["taste_weights"]
    assert weights["category"] > 3 * max(weights["constant"], weights["pros"], weights["cons"])


def test_years_are_read_from_attributes():
    rows = [
        {"year": "1995"},
        {"Release Date": "x"},
        {"Release_Year": "in 2003"},
        {},
        {"year": "12345"},
    ]
    years = item_years(pd.DataFrame({"attributes": rows}))
    np.testing.assert_array_equal(years, np.array([1995, np.nan, 2003, np.nan, np.nan], np.float32))


@pytest.mark.parametrize(("name", "value"), [("context", 0), ("prior_deviation", 0.0)])
def test_settings_out_of_bounds_are_refused(name, value):
    with pytest.raises(InputError, match=rf"--taste\.{name.replace('_', '-')}"):
        TasteTraining(**{name: value}).check()


def test_the_score_of_a_fitted_model_beats_the_item_means(dataset):
    """On labels that depend on the user alone, histories tell more than items."""
    arrays = {name: x.copy() for name, x in dataset.arrays.items()}
    rng = np.random.default_rng(5)
    happy = rng.uniform(0.1, 0.9, dataset.num_users)[dataset.interaction_user()]
    arrays["interaction_label"] = (rng.uniform(size=len(happy)) < happy).astype(np.int8)
    result, entry = train_taste(arrays, dataset.taste["item_year"], FAST)
    examples = validation_examples(arrays, 12, None, 0)
    mean = entry["mean"] + result["item_effect"]
    share = np.where(
        examples.present, examples.history_labels - mean[examples.history_items], 0
    ).sum(1)
    assert roc_auc_score(examples.label, share) > roc_auc_score(examples.label, mean[examples.item])
