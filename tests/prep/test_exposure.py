"""Fitting the exposure model: its steps by hand, what it reads, and coefficients that are known."""

import dataclasses

import numpy as np
import pytest
from scipy.special import expit

from jaxsim import Dataset, InputError, load_dataset, make
from jaxsim.dataset import TEST, TRAIN, VALIDATION
from jaxsim.exposure import HostModel
from prep.build import build_synthetic
from prep.config import BuildConfig
from prep.exposure import (
    ExposureTraining,
    cooccurrence_factors,
    draw_pairs,
    estimate,
    known_part,
    label_coefficients,
    train_exposure,
)
from prep.regression import Coefficient
from prep.report import exposure_line
from prep.statistic_model import SASRecTraining
from prep.synthetic import SyntheticConfig
from prep.taste_model import TasteTraining, validation_examples, validation_log_odds
from tests.factory import make_dataset, random_dataset
from tests.taste_reference import probabilities

SMALL = ExposureTraining(context=8, rank=3, negatives=20)


def taste_entry(dataset):
    training = dataclasses.asdict(TasteTraining(calibration_context=20))
    return {**dataset.manifest["taste"], "training": training}


def fit(dataset, config=SMALL):
    return train_exposure(dataset.arrays, dataset.taste, taste_entry(dataset), config)


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(3, num_users=120, num_items=60, max_sequence=40)


# ---- steps ---------------------------------------------------------------------------------------------


def test_the_last_eighth_of_training_is_predicted():
    """16 training interactions: 14 and 2. One interaction: nothing to predict."""
    dataset = make_dataset(
        [[0]] * 20, [[0]] * 20, [[1]] * 20, [(list(range(20)), [1, 0] * 10), ([3], [1])]
    )
    known = known_part(dataset.arrays)
    assert known.tolist() == [True] * 14 + [False] * 6 + [True]
    assert dataset.arrays["interaction_split"][14:20].tolist() == [0, 0, 1, 1, 2, 2]


def test_estimates_by_hand():
    """Of 4 ratings of 3 items: shares (2 + 1) / 7, (2 + 1) / 7, 1 / 7; activity log(3 / 7), log(1 / 7)."""
    dataset = make_dataset([[0]] * 3, [[0]] * 3, [[1]] * 3, [([0, 1], [1, 1]), ([0, 1], [0, 0])])
    arrays = {**dataset.arrays, "user_offsets": np.array([0, 3, 4], np.int64)}
    result = estimate(arrays, np.ones(4, bool), 7, 0)
    np.testing.assert_allclose(
        np.exp(result["item_popularity"]), np.array([3, 3, 1]) / 7, rtol=1e-6
    )
    np.testing.assert_allclose(np.exp(result["user_activity"]), np.array([3, 1]) / 7, rtol=1e-6)
    assert result["cooccurrence_factors"].shape == (3, 0)


def test_items_that_the_same_people_rate_occur_together():
    """Two groups of users, each with its own half of the items."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(40), 8)
    item = np.concatenate([rng.choice(10, 8, replace=False) + 10 * (u % 2) for u in range(40)])
    of_user, of_item = np.bincount(user), np.bincount(item, minlength=20)
    factors = cooccurrence_factors(user, item, of_user, of_item, 1)
    likeness = factors @ factors.T
    assert (likeness[:10, :10] > 0).all()
    assert (likeness[:10, 10:] < 0).all()


def test_pairs_that_are_drawn_are_not_rated_and_have_a_history_of_their_user(dataset):
    arrays = dataset.arrays
    train, known = arrays["interaction_split"] == TRAIN, known_part(arrays)
    pairs = draw_pairs(arrays, known, train & ~known, SMALL, 1)
    user = dataset.interaction_user()
    rated = set(zip(user[train], arrays["interaction_item"][train], strict=True))
    both = list(zip(pairs.user, pairs.item, strict=True))
    assert all(
        (pair in rated) == is_rated for pair, is_rated in zip(both, pairs.rated, strict=True)
    )
    assert pairs.rated.sum() == (train & ~known).sum()
    for n in np.random.default_rng(0).choice(len(both), 50):
        history = pairs.history[pairs.place[n]][pairs.present[pairs.place[n]]]
        assert {(pairs.user[n], item) for item in history} <= rated


def test_the_taste_model_s_log_odds_are_the_dense_formula(dataset):
    examples = validation_examples(dataset.arrays, 20, 6, 0)
    log_odds = validation_log_odds(dataset.arrays, dataset.taste, taste_entry(dataset), examples)
    for n in range(6):
        present = examples.present[n]
        items, likes = examples.history_items[n][present], examples.history_labels[n][present]
        expected = probabilities(dataset, items, likes)[examples.item[n]]
        assert expit(log_odds[n]) == pytest.approx(expected, abs=1e-4)


# ---- what it reads -------------------------------------------------------------------------------------


def test_the_test_split_changes_nothing(dataset):
    """Neither its labels nor its items."""
    arrays = {name: x.copy() for name, x in dataset.arrays.items()}
    test = arrays["interaction_split"] == TEST
    arrays["interaction_label"][test] ^= 1
    arrays["interaction_item"][test] = 0
    ours, theirs = fit(dataset), fit(dataclasses.replace(dataset, arrays=arrays))
    assert ours[1] == theirs[1]
    for name in ours[0]:
        np.testing.assert_array_equal(ours[0][name], theirs[0][name])


def test_the_propensity_is_fitted_to_training_alone(dataset):
    arrays = {name: x.copy() for name, x in dataset.arrays.items()}
    arrays["interaction_item"][arrays["interaction_split"] == VALIDATION] = 0
    ours, theirs = fit(dataset), fit(dataclasses.replace(dataset, arrays=arrays))
    assert ours[1]["coefficients"] == theirs[1]["coefficients"]
    for name in ours[0]:
        np.testing.assert_array_equal(ours[0][name], theirs[0][name])


def test_the_same_seed_gives_the_same_fit_and_another_one_another(dataset):
    again, other = fit(dataset)[1], fit(dataset, dataclasses.replace(SMALL, seed=1))[1]
    assert fit(dataset)[1] == again
    assert again["coefficients"] != other["coefficients"]


def test_with_few_interactions_there_is_no_model():
    packed, entry = fit(random_dataset(0))
    assert packed is None
    assert "fewer than 200" in entry["reason"]


def test_with_few_validation_labels_there_is_no_correction(dataset):
    arrays = dict(dataset.arrays)
    arrays["interaction_split"] = np.zeros_like(arrays["interaction_split"])
    packed, entry = fit(dataclasses.replace(dataset, arrays=arrays))
    assert packed is not None
    assert (entry["label"], entry["applies"], entry["validation"]) == (None, False, None)
    assert "200 validation labels" in entry["reason"]


def test_labels_without_dependence_are_rarely_corrected():
    """Random labels of random items: about one in twenty intervals leaves zero out."""
    applied = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        user = np.repeat(np.arange(60), 10)
        of_taste, chosen = rng.normal(size=600), rng.normal(size=60)[user] + rng.normal(size=600)
        labels = (rng.random(600) < expit(of_taste)).astype(np.int8)
        row = label_coefficients(labels, of_taste, chosen, np.zeros(600), user)["exposure"]
        applied += not row["low"] <= 0 <= row["high"]
    assert applied <= 4


@pytest.mark.parametrize(("name", "value"), [("context", 0), ("negatives", 0), ("rank", -1)])
def test_settings_out_of_bounds_are_refused(name, value):
    with pytest.raises(InputError, match=rf"--exposure\.{name}"):
        ExposureTraining(**{name: value}).check()


def test_the_report_of_a_build_says_what_was_found():
    row = {"value": 0.06, "standard_error": 0.02, "low": 0.02, "high": 0.1}
    entry = {
        "coefficients": {},
        "validation": {"auc": 0.92},
        "label": {"exposure": row},
        "applies": True,
    }
    assert exposure_line(entry) == "validation AUC 0.920; beta 0.060 (0.020 to 0.100), kept"
    assert "switched off" in exposure_line({**entry, "applies": False})
    none = {**entry, "label": None, "reason": "all labels are the same", "validation": None}
    assert exposure_line(none) == "likes are not corrected: all labels are the same"
    assert exposure_line({"reason": "too few"}) == "not fitted: too few"


@pytest.mark.slow
def test_a_synthetic_dataset_is_built_with_it(tmp_path):
    """Users of `synthetic` meet popular items of their favourite topics, and the model finds both."""
    config = BuildConfig(
        out=tmp_path / "synthetic",
        sasrec=SASRecTraining(width=4, max_steps=1),
        taste=TasteTraining(iterations=0),
    )
    path, data = build_synthetic(SyntheticConfig(), config)
    dataset = load_dataset(path)
    entry = dataset.manifest["exposure"]
    assert entry["coefficients"]["popularity"]["low"] > 0
    assert entry["coefficients"]["category"]["low"] > 0
    assert entry["validation"]["auc_within_user"] > 0.7
    again = train_exposure(
        data.arrays, dataset.taste, dataset.manifest["taste"], ExposureTraining()
    )
    assert again[1] == entry
    settings = {"semantics": "calibrated", "history_length": 10, "session_capacity": 10}
    if entry["applies"]:
        make(dataset, **settings, exposure=True)
    else:
        with pytest.raises(InputError, match="contains zero"):
            make(dataset, **settings, exposure=True)


# ---- known coefficients --------------------------------------------------------------------------------

NUM_USERS, NUM_ITEMS, LENGTH, NUM_KINDS = 800, 300, 30, 6
OF_APPEAL, OF_KIND, BETA = 1.0, 2.0, 0.4


def self_chosen(seed: int) -> tuple[Dataset, np.ndarray]:
    """People who choose what appeals to everybody and what is of their own kind, and like what they would choose.

    A user takes one new item after another, each with a probability that is proportional to exp(e). They like it
    with the log-odds of a taste that has nothing to do with e, plus BETA e.

    Returns:
        The dataset, and the taste's log-odds of each interaction.
    """
    rng = np.random.default_rng(seed)
    kind = np.arange(NUM_ITEMS) % NUM_KINDS
    own = rng.integers(0, NUM_KINDS, NUM_USERS)
    e = OF_APPEAL * rng.normal(size=NUM_ITEMS) + OF_KIND * (own[:, None] == kind)
    # The largest sums with Gumbel noise are the choices without replacement, in order.
    items = np.argsort(-e - rng.gumbel(size=e.shape), axis=1)[:, :LENGTH]
    taste = rng.normal(size=items.shape)
    chosen = np.take_along_axis(e, items, axis=1)
    labels = rng.random(items.shape) < expit(taste + BETA * (chosen - chosen.mean()))
    sequences = [(i.tolist(), y.astype(int).tolist()) for i, y in zip(items, labels, strict=True)]
    words = [[n % 2] for n in range(NUM_ITEMS)]
    dataset = make_dataset([[k] for k in kind.tolist()], words, words, sequences)
    dataset.taste["item_year"][:] = np.nan
    return dataset, taste.ravel()


def beta_of(seed: int) -> Coefficient:
    """Beta by the fitted propensities, given the true log-odds of the taste."""
    dataset, taste = self_chosen(seed)
    arrays, user = dataset.arrays, dataset.interaction_user().astype(np.int64)
    packed, entry = fit(dataset, ExposureTraining(rank=0, context=LENGTH, negatives=50))
    rows = np.flatnonzero(arrays["interaction_split"] == VALIDATION)
    examples = validation_examples(arrays, LENGTH, None, 0)
    model = HostModel(arrays, dataset.taste["item_year"], packed, entry["coefficients"])
    e = model.log_odds(examples.item, examples.history_items, examples.present)
    labels = arrays["interaction_label"][rows]
    return label_coefficients(labels, taste[rows], e, np.zeros(len(rows)), user[rows])["exposure"]


@pytest.mark.slow
def test_a_known_beta_is_recovered():
    """Within two standard errors in nearly all of several data sets, and on average."""
    rows = [beta_of(seed) for seed in range(8)]
    off = np.array([(row["value"] - BETA) / row["standard_error"] for row in rows])
    assert (np.abs(off) < 2).sum() >= 7, off
    assert abs(off.mean()) < 3 / np.sqrt(len(off)), off
    assert all(row["low"] > 0 for row in rows)
