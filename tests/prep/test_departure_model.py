"""Fitting when users leave: sessions, features and regression by hand, what it recovers, and what it refuses."""

import numpy as np
import pytest

from jaxsim import InputError
from prep.departure_model import (
    KNOTS,
    DepartureTraining,
    item_arrays,
    position_basis,
    read_log,
    train_departure,
    window_features,
)
from prep.regression import fit_logistic
from tests.departure_logs import base_log_odds, draw_logs

SEEDS = range(5)


def row_of(entry, specification, term="obscurity"):
    return next(row for row in entry["tables"][specification] if row["term"] == term)


@pytest.fixture(scope="module")
def fits():
    """Obscure items make users leave; and users who have more of them leave more, whatever they have just had."""
    return [
        train_departure(draw_logs(seed, 0.4, differences=2.0), DepartureTraining())
        for seed in SEEDS
    ]


def test_a_known_hazard_is_recovered(fits):
    """Within users; compared between users, too, obscurity looks worse than it is."""
    rows = [row_of(entry, "within") for _, entry in fits]
    inside = [abs(row["coefficient"] - 0.4) <= 2 * row["error"] for row in rows]
    assert sum(inside) >= 4
    assert all(row["kept"] and row["error"] < 0.1 for row in rows)
    raw = [row_of(entry, "raw") for _, entry in fits]
    assert np.mean([row["coefficient"] for row in raw]) > 0.5
    for _, entry in fits:
        assert entry["terms"]["obscurity"]["weight"] == row_of(entry, "within")["coefficient"]


def test_the_base_is_recovered():
    """The cut of each log counts as an end there, one in eighteen."""
    arrays, _ = train_departure(draw_logs(7, 0.4), DepartureTraining())
    expected = [base_log_odds(t) for t in (1, 4, 8)]
    np.testing.assert_allclose(arrays["position_log_odds"][[0, 3, 7]], expected, atol=0.3)


def test_terms_without_an_effect_are_dropped(fits):
    """At a level of 5 %, 15 terms without an effect seldom leave more than three."""
    others = ("same_category", "keyword_similarity", "satisfaction")
    kept = [
        row_of(entry, "within", name)["kept"]
        for _, entry in fits
        for name in others
        if any(row["term"] == name for row in entry["tables"]["within"])
    ]
    assert 0 < len(kept) <= 15
    assert sum(kept) <= 3
    for _, entry in fits:
        for row in entry["tables"]["within"]:
            assert row["kept"] == (row["low"] > 0 or row["high"] < 0)
            assert row["kept"] == (row["term"] in entry["terms"])


def test_the_raw_specification_is_an_option():
    arrays = draw_logs(0, 0.4, users=60, differences=2.0)
    _, entry = train_departure(arrays, DepartureTraining(specification="raw"))
    assert entry["terms"]["obscurity"]["weight"] == row_of(entry, "raw")["coefficient"]


def test_only_training_interactions_are_read():
    arrays = draw_logs(1, 0.4, users=60)
    fitted, entry = train_departure(arrays, DepartureTraining())
    later = arrays["interaction_split"] > 0
    changed = {name: x.copy() for name, x in arrays.items()}
    changed["interaction_item"][later] = 0
    changed["interaction_label"][later] = 1
    changed["interaction_time"][later] += 10**6
    again, same = train_departure(changed, DepartureTraining())
    assert same == entry
    for name, array in fitted.items():
        np.testing.assert_array_equal(again[name], array)


def two_users():
    """User 0: sessions of 3 and 2 (cut), then test data; user 1: one of 2 (cut)."""
    return {
        "item_categories": np.array([[0, 1], [1, -1], [2, -1]], np.int32),
        "item_pos_keywords": np.array([[0], [0], [-1]], np.int32),
        "item_pos_embedding": np.array([[1, 0], [0.6, 0.8], [0, 0]], np.float32),
        "user_offsets": np.array([0, 6, 8], np.int64),
        "interaction_item": np.array([0, 1, 2, 0, 1, 2, 0, 0], np.int32),
        "interaction_label": np.array([1, 0, 1, 1, 1, 0, 0, 1], np.int8),
        "interaction_time": np.array([0, 60, 1860, 9000, 9060, 9061, 5, 9], np.int64),
        "interaction_split": np.array([0, 0, 0, 0, 0, 2, 0, 0], np.int8),
    }


def test_sessions_and_features_by_hand(monkeypatch):
    monkeypatch.setattr("prep.departure_model.MIN_ENDS", 1)
    arrays = two_users()
    log, _ = read_log(arrays, 30.0)  # a pause of exactly 30 minutes does not part
    assert log.user.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert log.position.tolist() == [1, 2, 3, 1, 2, 1, 2]
    assert log.so_far.tolist() == [1, 2, 3, 4, 5, 1, 2]
    assert log.ends.tolist() == [False, False, True, False, True, False, True]
    assert log.cut.tolist() == [False, False, False, False, True, False, True]
    items = item_arrays(arrays)
    np.testing.assert_allclose(items["item_obscurity"], -np.log([5, 3, 2]), rtol=1e-6)
    mean = 5 / 7
    rate = (np.array([3, 1, 1]) + 5 * mean) / (np.array([4, 2, 1]) + 5)
    np.testing.assert_allclose(items["item_rate"], rate, rtol=1e-6)
    features = window_features(log, arrays, items)
    logs = np.log([5, 3, 2, 5, 3])
    np.testing.assert_allclose(
        features["obscurity"][:5], [-logs[: n + 1].mean() for n in range(5)], rtol=1e-6
    )
    nan = np.nan
    np.testing.assert_allclose(features["same_category"], [nan, 1, 0, 2 / 3, 3 / 4, nan, 1])
    np.testing.assert_allclose(
        features["keyword_similarity"],
        [nan, 0.6, nan, (1 + 0.6) / 2, (0.6 + 1 + 0.6) / 3, nan, 1],
        rtol=1e-6,
    )
    rest = arrays["interaction_label"][[0, 1, 2]] - rate
    np.testing.assert_allclose(features["satisfaction"][2], rest.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (lambda t: np.zeros_like(t), "all times are equal"),
        (lambda t: t[::-1].copy(), "times run backwards"),
        (lambda t: np.arange(len(t)), "0 gaps of more than 30 minutes, fewer than 100"),
        (
            lambda t: np.arange(len(t)) * 86_400,
            "nearly all interactions are more than 30 minutes apart",
        ),
    ],
)
def test_logs_without_sessions_stay_constant(times, reason):
    arrays = draw_logs(0, 0.0, users=20)
    arrays["interaction_time"] = times(arrays["interaction_time"])
    fitted, entry = train_departure(arrays, DepartureTraining())
    assert fitted is None
    assert entry["constant_because"] == reason


def test_the_gap_must_be_positive():
    with pytest.raises(InputError, match=r"^--session-gap is 0.0: give a finite number above 0$"):
        DepartureTraining(session_gap=0.0).check()


def test_logistic_regression_by_hand():
    """One column of ones: the logarithm of the odds; errors as from the two clusters' sums of residuals."""
    outcome = np.array([1, 0, 0, 0, 1, 0, 0, 0, 0, 0], bool)
    cluster = np.array([0] * 4 + [1] * 6)
    fit = fit_logistic(np.ones((10, 1)), outcome, cluster)
    assert fit.coefficients[0] == pytest.approx(np.log(0.2 / 0.8), abs=1e-3)
    sums = np.array([1 - 4 * 0.2, 1 - 6 * 0.2])
    assert fit.errors[0] == pytest.approx(np.sqrt(2 * (sums**2).sum()) / (10 * 0.16), rel=1e-3)
    shifted = fit_logistic(np.ones((10, 1)), outcome, cluster, offset=np.full(10, 0.5))
    assert shifted.coefficients[0] == pytest.approx(fit.coefficients[0] - 0.5, abs=1e-3)


def test_the_base_is_linear_between_knots():
    basis = position_basis(np.arange(1, 200), KNOTS)
    np.testing.assert_allclose(basis.sum(axis=1), 1)
    np.testing.assert_array_equal(basis[127:, -1], 1)
    middle = position_basis(np.sqrt([4 * 8]), KNOTS)[0]
    np.testing.assert_allclose(middle[[2, 3]], [0.5, 0.5])
