"""Logistic regression with clustered standard errors: against scikit-learn, and how often intervals cover."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from prep.regression import logistic_regression


def test_coefficients_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(3, 2, 800), "b": rng.normal(-1, 0.1, 800)}
    log_odds = 0.5 + 0.3 * columns["a"] + 2 * columns["b"]
    labels = rng.random(800) < expit(log_odds)
    table = logistic_regression(columns, labels, np.arange(800))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(np.stack(list(columns.values()), axis=1), labels)
    expected = [model.intercept_[0], *model.coef_[0]]
    ours = [table[name]["value"] for name in ("intercept", "a", "b")]
    np.testing.assert_allclose(ours, expected, rtol=2e-2)  # ours has a weak ridge


def test_an_offset_counts_with_coefficient_one():
    rng = np.random.default_rng(1)
    offset = rng.normal(0, 3, 4000)
    labels = rng.random(4000) < expit(offset - 0.5)
    table = logistic_regression({}, labels, np.arange(4000), offset)
    assert table["intercept"]["value"] == pytest.approx(-0.5, abs=0.15)


def test_one_label_a_group_gives_the_usual_standard_error():
    """Of a share of likes: the log-odds have the variance 1 / (n p (1 - p))."""
    labels = np.arange(1000) < 300
    row = logistic_regression({}, labels, np.arange(1000))["intercept"]
    assert row["standard_error"] == pytest.approx(1 / np.sqrt(1000 * 0.3 * 0.7), rel=1e-3)
    assert row["high"] - row["value"] == pytest.approx(1.96 * row["standard_error"], rel=1e-4)


def test_labels_that_are_given_twice_do_not_make_it_more_certain():
    rng = np.random.default_rng(2)
    x, labels, groups = rng.normal(size=300), rng.random(300) < 0.5, np.arange(300)
    once = logistic_regression({"x": x}, labels, groups)["x"]
    twice = logistic_regression({"x": np.tile(x, 2)}, np.tile(labels, 2), np.tile(groups, 2))["x"]
    assert twice["standard_error"] == pytest.approx(once["standard_error"], rel=1e-3)


def test_a_constant_column_has_no_coefficient():
    table = logistic_regression({"x": np.ones(9)}, np.arange(9) % 2 == 0, np.arange(9))
    assert list(table) == ["intercept"]


def test_labels_that_can_be_parted_have_finite_coefficients():
    x = np.linspace(-1, 1, 50)
    row = logistic_regression({"x": x}, x > 0, np.arange(50))["x"]
    assert 1 < row["value"] < 1e3
    assert np.isfinite(row["standard_error"])


def test_intervals_cover_the_truth_where_labels_of_a_user_belong_together():
    """Two in five labels of a user are decided together; 95 % of 200 intervals, give or take three errors."""
    covered = 0
    user = np.repeat(np.arange(200), 5)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=200)[user] + rng.normal(size=1000)
        chance = np.where(rng.random(1000) < 0.4, rng.random(200)[user], rng.random(1000))
        row = logistic_regression({"x": x}, chance < expit(0.3 * x), user)["x"]
        covered += row["low"] <= 0.3 <= row["high"]
    assert 0.90 <= covered / 200 <= 0.99
