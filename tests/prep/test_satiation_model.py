"""Fitting of satiation: running tastes by hand, a known satiation recovered, none where none is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from jaxsim.satiation import TERMS, build_satiation
from jaxsim.taste_kernel import part_features
from prep.satiation_model import (
    Log,
    read_log,
    redundancy,
    running_log_odds,
    running_tastes,
    train_satiation,
)
from prep.taste_effects import (
    ITEM_WEIGHTS,
    alternating_effects,
    item_effects,
    item_residual_means,
    training_residuals,
    without_own_label,
)
from tests.factory import random_dataset
from tests.taste_reference import probabilities

USERS, LENGTH, ITEMS, CATEGORIES = 150, 60, 60, 6
SEEDS = range(5)
# Of items with many ratings, so that one label of an item hardly matters.
ENTRY = {
    "mean": 0.5,
    "taste_weights": {"constant": 0.1, "category": 0.1},
    "item_weights": {"own": 0.01, "category": 0.05},
    "mood_decay": 0.85,
    "calibration": [-2.0, 4.0, 4.0],
    "training": {"seed": 0},
}


def draw_logs(seed, satiation):
    """Users of the taste model, who like an item less by `satiation` times its category's share of the last five.

    Each label is drawn with the model's own probability given the labels before it, moved by the satiation.
    """
    rng = np.random.default_rng(seed)
    category = rng.integers(0, CATEGORIES, ITEMS)
    vectors = rng.standard_normal((ITEMS, 4))
    one_hot = np.eye(CATEGORIES)[category]
    features = np.sqrt(0.1) * np.concatenate([np.ones((ITEMS, 1)), one_hot], axis=1)
    effect = rng.normal(0, 0.1, ITEMS)
    # Users come back to a few categories, so that shares differ.
    favourite = rng.integers(0, CATEGORIES, USERS)
    weight = np.where(category[None] == favourite[:, None], 3.0, 1.0)
    items = np.stack([rng.choice(ITEMS, LENGTH, p=w / w.sum()) for w in weight])
    labels = np.zeros((USERS, LENGTH))
    for user in range(USERS):
        phi = features[items[user]]
        factor = np.linalg.cholesky(phi @ phi.T + np.eye(LENGTH))
        scores = np.zeros(LENGTH)
        for t in range(LENGTH):
            item, taste = items[user, t], factor[t, :t] @ scores[:t]
            recent = category[items[user, max(0, t - 5) : t]]
            share = (recent == category[item]).mean() if t else 0.0
            log_odds = -2 + 4 * (0.5 + effect[item]) + 4 * taste - satiation * share
            labels[user, t] = rng.random() < expit(log_odds)
            scores[t] = (labels[user, t] - 0.5 - effect[item] - taste) / factor[t, t]
    split = np.where(np.arange(LENGTH) < 50, 0, np.where(np.arange(LENGTH) < 55, 1, 2))
    arrays = {
        "item_categories": category[:, None].astype(np.int32),
        "item_pos_keywords": np.zeros((ITEMS, 1), np.int32),
        "item_neg_keywords": np.full((ITEMS, 1), -1, np.int32),
        "item_pos_embedding": vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        "item_neg_embedding": np.zeros((ITEMS, 4)),
        "user_offsets": np.arange(USERS + 1) * LENGTH,
        "interaction_item": items.ravel().astype(np.int32),
        "interaction_label": labels.ravel().astype(np.int8),
        "interaction_time": np.arange(USERS * LENGTH),
        "interaction_split": np.tile(split, USERS).astype(np.int8),
    }
    taste = {
        "item_effect": effect.astype(np.float32),
        "item_year": np.full(ITEMS, np.nan, np.float32),
        "covariance_factors": np.zeros((ITEMS, 0), np.float32),
    }
    return arrays, taste


def row_of(entry, term="same_category", table="raw"):
    return next(row for row in entry["tables"][table] if row["term"] == term)


@pytest.fixture(scope="module")
def fits():
    return [train_satiation(*draw_logs(seed, 1.0), ENTRY) for seed in SEEDS]


def test_a_known_satiation_is_recovered(fits):
    rows = [row_of(entry) for entry in fits]
    inside = [abs(row["coefficient"] + 1.0) <= 2 * row["error"] for row in rows]
    assert sum(inside) >= 4
    assert all(row["kept"] and row["error"] < 0.25 for row in rows)
    assert all(entry["shows"] for entry in fits)
    assert np.mean([row["coefficient"] for row in rows]) == pytest.approx(-1.0, abs=0.15)
    assert np.mean([entry["calibration"] for entry in fits]) == pytest.approx(1, abs=0.1)
    for entry in fits:
        term = entry["terms"]["same_category"]
        assert term["weight"] == row_of(entry)["coefficient"]


def test_none_is_found_where_there_is_none():
    """At a level of 5 %, 15 terms without an effect seldom leave more than three."""
    fits = [train_satiation(*draw_logs(seed, 0.0), ENTRY) for seed in SEEDS]
    for entry in fits:
        row = row_of(entry)
        assert abs(row["coefficient"]) < 4 * row["error"]
    kept = [row["kept"] for entry in fits for row in entry["tables"]["raw"]]
    assert len(kept) == 15
    assert sum(kept) <= 3
    assert sum(entry["shows"] for entry in fits) <= 2
    for entry in fits:
        assert entry["shows"] == any(x["weight"] < 0 for x in entry["terms"].values())


def test_a_fit_that_shows_satiation_can_be_used(fits):
    packed = random_dataset(0)
    packed = replace(packed, manifest={**packed.manifest, "satiation": fits[0]})
    weights = build_satiation(packed, "fitted")
    term = fits[0]["terms"]["same_category"]
    assert float(weights.weights.same_category) == pytest.approx(term["weight"])
    assert float(weights.means.same_category) == pytest.approx(term["mean"])


def test_only_training_interactions_are_read():
    arrays, taste = draw_logs(1, 0.5)
    later = arrays["interaction_split"] > 0
    changed = {name: x.copy() for name, x in arrays.items()}
    changed["interaction_item"][later] = 0
    changed["interaction_label"][later] = 1
    assert train_satiation(changed, taste, ENTRY) == train_satiation(arrays, taste, ENTRY)


def test_running_tastes_know_only_what_came_before():
    """Each is that of the equations of `jaxsim.taste` after a history that ends before it."""
    rng = np.random.default_rng(0)
    features, residual = rng.normal(size=(7, 3)), rng.normal(size=7)
    tastes = running_tastes(features, residual, 0.3, 0.8)
    place = np.arange(7)
    kernel = features @ features.T + 0.3 * 0.8 ** np.abs(place[:, None] - place)
    for t in range(7):
        alpha = np.linalg.solve(kernel[:t, :t] + np.eye(t), residual[:t])
        assert tastes[t] == pytest.approx(kernel[t, :t] @ alpha, abs=1e-12)
    later = running_tastes(features, np.where(place < 5, residual, 9.0), 0.3, 0.8)
    np.testing.assert_allclose(later[:6], tastes[:6], atol=1e-12)


def test_log_odds_are_those_of_the_simulator():
    """But for the item effect, which is that of the other labels."""
    packed = random_dataset(0)
    entry = {**packed.manifest["taste"], "training": {"seed": 0}}
    log = read_log(packed.arrays, 0)
    ours = running_log_odds(log, packed.arrays, packed.taste, entry)
    row = int(np.flatnonzero(log.so_far == log.so_far.max())[0])
    first = row - int(log.so_far[row]) + 1
    history = slice(first, row)
    theirs = logit(probabilities(packed, log.item[history], log.label[history]))[log.item[row]]
    residuals = training_residuals(packed.arrays)
    effect = packed.taste["item_effect"].astype(np.float64)
    assert ours[row] != pytest.approx(theirs)
    own = entry["item_weights"]["own"]
    parts = part_features(packed.arrays, packed.taste["item_year"], None)
    user_mean = alternating_effects(residuals, parts, ITEM_WEIGHTS)[1]
    moved = (
        without_own_label(residuals, effect, user_mean, own)[log.row[row]] - effect[log.item[row]]
    )
    assert ours[row] - entry["calibration"][1] * moved == pytest.approx(theirs, abs=1e-6)


def test_an_effect_without_its_own_label_is_that_of_a_smaller_dataset():
    """Exactly so without other parts, where the effect is a smoothed mean of the item's residuals."""
    packed = random_dataset(3)
    residuals = training_residuals(packed.arrays)
    user_mean = np.random.default_rng(0).normal(0, 0.1, residuals.num_users)
    weights = {"own": 0.2}
    mean = item_residual_means(residuals, user_mean)
    effect = item_effects(residuals, {}, mean, weights)
    ours = without_own_label(residuals, effect, user_mean, 0.2)
    for row in range(0, len(residuals.item), 7):
        rest = np.arange(len(residuals.item)) != row
        fewer = residuals._replace(
            user=residuals.user[rest],
            item=residuals.item[rest],
            label=residuals.label[rest],
            item_count=residuals.item_count - np.eye(packed.num_items)[residuals.item[row]],
        )
        other = item_effects(fewer, {}, item_residual_means(fewer, user_mean), weights)
        assert ours[row] == pytest.approx(other[residuals.item[row]], abs=1e-9)


def test_features_by_hand():
    """One user; items 0 to 2 with categories {0, 1}, {1}, {2}, and pros along x, at 53 degrees, and none."""
    arrays = {
        "item_categories": np.array([[0, 1], [1, -1], [2, -1]], np.int32),
        "item_pos_keywords": np.array([[0], [0], [-1]], np.int32),
        "item_pos_embedding": np.array([[1, 0], [0.6, 0.8], [0, 0]], np.float32),
    }
    item = np.array([0, 1, 2, 0, 1, 1, 0])
    log = Log(np.arange(7), np.zeros(7, int), item, np.zeros(7), np.arange(1, 8))
    features = redundancy(log, arrays)
    nan = np.nan
    np.testing.assert_allclose(features["same_category"], [nan, 1, 0, 2 / 3, 3 / 4, 4 / 5, 4 / 5])
    cosines = [
        nan,
        0.6,
        nan,
        1.6 / 2,
        (0.6 + 1 + 0.6) / 3,
        (0.6 + 1 + 0.6 + 1) / 4,
        (0.6 * 3 + 1) / 4,
    ]
    np.testing.assert_allclose(features["keyword_similarity"], cosines, rtol=1e-6)
    np.testing.assert_array_equal(features["latest_same_category"], [nan, 1, 0, 0, 1, 1, 1])
    assert tuple(features) == TERMS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"interaction_time": np.zeros(USERS * LENGTH, int)}, "all times are equal, so nothing"),
        ({"interaction_label": np.ones(USERS * LENGTH, np.int8)}, "all training labels are the"),
        (
            {"interaction_split": (np.arange(USERS * LENGTH) >= 50).astype(np.int8)},
            "49 training labels with an earlier one are fewer than 200",
        ),
    ],
)
def test_logs_that_cannot_show_it(change, reason):
    arrays, taste = draw_logs(0, 0.0)
    entry = train_satiation({**arrays, **change}, taste, ENTRY)
    assert entry["reason"].startswith(reason)
