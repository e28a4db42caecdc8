import numpy as np
import pytest

from benchmarks.fidelity.baselines import BASELINES, decay_weights, residual_means
from benchmarks.fidelity.events import Events, events_of
from benchmarks.fidelity.predictor import CannotFitError, Predictor
from tests.benchmarks.fidelity.conftest import training_data
from tests.factory import random_dataset


def named(name: str) -> Predictor:
    return next(p for p in BASELINES if p.name == name)


def test_simple_predictors_by_hand(two_users):
    test, data = events_of(two_users, "test"), training_data(two_users)
    names = ("bias", "bias_running", "counts")
    actual = {name: named(name).fit(data).predict(test) for name in names}
    # Training: user 0's first eight (likes 5), user 1's four (likes 2); item 9 was never seen in it.
    mean = 7 / 12
    item = mean
    running_n = sum(0.97**k for k in range(9))
    running_likes = sum(0.97 ** (8 - at) for at in (0, 2, 3, 6, 7))
    assert actual["bias"][0] == pytest.approx(item + (5 + 5 * mean) / (8 + 5))
    assert actual["bias_running"][0] == pytest.approx(
        item + (running_likes + 5 * mean) / (running_n + 5)
    )
    # Items 2, 3, 5 and 7 are of item 9's category; of these 2, 3 and 7 were liked.
    assert actual["counts"][0] == pytest.approx((3 + 5 * mean) / (4 + 5))


def test_residual_means_by_hand():
    rate = np.array([0.25, 0.5, 0.75])
    events = Events(
        user=np.zeros(2, np.int32),
        item=np.zeros(2, np.int32),
        label=np.zeros(2, np.int8),
        history_items=np.array([[-1, 0, 2], [-1, -1, -1]], np.int32),
        history_labels=np.array([[0, 1, 0], [0, 0, 0]], np.int8),
    )
    # Item 2, disliked, is the latest (age 0); item 0, liked, the one before.
    expected = [(decay * 0.75 - 0.75) / (1 + decay + 5) for decay in (0.8, 0.97)]
    actual = residual_means(rate, events)
    np.testing.assert_allclose(actual, [expected, [0.0, 0.0]])
    np.testing.assert_allclose(decay_weights(events, 0.8), [[0, 0.8, 1], [0, 0, 0]])


def test_bias_residual_is_a_probability_from_item_rate_and_residuals():
    dataset = random_dataset(0, num_users=60)
    data = training_data(dataset)
    fitted = named("bias_residual").fit(data)
    events = events_of(dataset, "test")
    features = np.column_stack(
        [data.item_rate[events.item], residual_means(data.item_rate, events)]
    )
    log_odds = features @ fitted.parameters["coefficients"][0] + fitted.parameters["intercept"]
    np.testing.assert_allclose(fitted.predict(events), 1 / (1 + np.exp(-log_odds)))


def test_bias_residual_needs_validation_labels(two_users):
    with pytest.raises(
        CannotFitError, match="needs likes and dislikes among the validation labels"
    ):
        named("bias_residual").fit(training_data(two_users))
