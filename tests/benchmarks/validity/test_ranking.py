import numpy as np
import pytest
from scipy import stats

from benchmarks.validity.ranking import against_truth, for_all_users, kendall, spearman


@pytest.mark.parametrize("seed", range(3))
def test_both_agree_with_scipy_with_and_without_ties(seed):
    rng = np.random.default_rng(seed)
    for values in (rng.random((2, 5, 12)), rng.integers(0, 4, (2, 5, 12)).astype(float)):
        first, second = values
        expected = [stats.kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(kendall(first, second), expected)
        expected = [stats.spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
        np.testing.assert_allclose(spearman(first, second), expected)


def test_by_hand():
    # Of six pairs, one is in the other order.
    first, second = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[1.0, 2.0, 4.0, 3.0]])
    np.testing.assert_allclose(kendall(first, second), [4 / 6])
    # One pair is equal in the second: five agree, and the bound is sqrt(6 * 5).
    np.testing.assert_allclose(kendall(first, np.array([[1.0, 2.0, 3.0, 3.0]])), [5 / 30**0.5])


def test_sums_in_another_order_are_equal():
    first = np.array([[0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 1.0]])
    assert first[0, 0] != first[0, 1]
    np.testing.assert_allclose(kendall(first, first), [1.0])
    np.testing.assert_allclose(spearman(first, np.array([[1.0, 1.0, 2.0]])), [1.0])


def test_equal_values_have_no_rank_correlation():
    assert np.isnan(kendall(np.ones((1, 4)), np.array([[1.0, 2.0, 3.0, 4.0]]))).all()
    assert np.isnan(spearman(np.ones((1, 4)), np.array([[1.0, 2.0, 3.0, 4.0]]))).all()


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_corrections_predict_the_tau_of_more_data_and_of_the_truth(spread):
    """Normal values with noise: half of the noise's variance with all users, none in the truth."""
    rng = np.random.default_rng(0)
    truth = spread * rng.standard_normal((100, 80))
    halves = truth + np.sqrt(2) * rng.standard_normal((2, 100, 80))
    one, other = truth + rng.standard_normal((2, 100, 80))
    tau = kendall(*halves).mean(keepdims=True)
    np.testing.assert_allclose(for_all_users(tau), kendall(one, other).mean(), atol=0.02)
    np.testing.assert_allclose(
        against_truth(for_all_users(tau)), kendall(truth, one).mean(), atol=0.02
    )
