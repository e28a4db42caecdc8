"""Intervals of mean returns: hand-worked values, and how often they cover the truth."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from agents.evaluation.comparison import difference
from agents.evaluation.intervals import mean_interval, user_means, welch_interval

TRIALS = 1000
TOLERANCE = 0.035  # five standard deviations of the share of intervals that cover, at 95 %
NUM_USERS, SESSIONS_PER_USER = 25, 4


def test_interval_over_seeds_by_hand():
    """Seed means 2, 3, 7: mean 4, deviation sqrt(7), and t(0.975, 2) = 4.302653. Users do not matter."""
    values = np.array([[1.0, 3.0], [2.0, 4.0], [7.0, 7.0]])
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)
    for users in ([0, 1], [5, 5]):
        np.testing.assert_allclose(
            mean_interval(values, np.array(users)), (4 - half, 4 + half), rtol=1e-6
        )


def test_interval_of_one_run_is_over_users_by_hand():
    """Users 7, 2 and 5 have the means 1, 3 and 5: mean 3, deviation 2, and t(0.975, 2) = 4.302653."""
    returns = np.array([[0.0, 2.0, 6.0, 0.0, 4.0, 6.0]])
    users = np.array([7, 7, 2, 2, 5, 5])
    assert user_means(returns[0], users).tolist() == [3.0, 5.0, 1.0]  # in the order of users
    half = 4.302653 * 2 / math.sqrt(3)
    expected = (3 - half, 3 + half)
    np.testing.assert_allclose(mean_interval(returns, users), expected, rtol=1e-6)
    order = [4, 0, 3, 5, 1, 2]  # of the sessions; it does not matter
    np.testing.assert_allclose(mean_interval(returns[:, order], users[order]), expected, rtol=1e-6)


def test_equal_sessions_of_a_user_do_not_narrow_the_interval():
    """Four equal sessions of a user say no more than one of them."""
    returns, users = np.array([[1.0, 4.0, 2.0]]), np.arange(3)
    repeated = mean_interval(np.repeat(returns, 4, axis=1), np.repeat(users, 4))
    np.testing.assert_allclose(repeated, mean_interval(returns, users), rtol=1e-12)


def test_interval_of_equal_values_is_a_point_and_that_of_one_user_unknown():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mean_interval(np.full((3, 5), 2.0), np.arange(5)) == (2.0, 2.0)
        assert mean_interval(np.zeros((1, 4)), np.arange(4)) == (0.0, 0.0)
        assert np.isnan(mean_interval(np.array([[1.0, 2.0]]), np.zeros(2, int))).all()
        # Seeds without any spread.
        assert welch_interval(np.array([2.0, 2.0]), np.array([1.5, 1.5, 1.5])) == (0.5, 0.5)


def test_welchs_interval_by_hand():
    """Means 4 and 1.5, errors 2 / 2 = 1 and 0.25 / 3 = 1 / 12.

    Degrees of freedom: (13 / 12)^2 / (1^2 / 1 + (1 / 12)^2 / 2) = 169 / 144.5.
    """
    half = stats.t.ppf(0.975, 169 / 144.5) * math.sqrt(13 / 12)
    interval = welch_interval(np.array([3.0, 5.0]), np.array([1, 1.5, 2]))
    np.testing.assert_allclose(interval, (2.5 - half, 2.5 + half), rtol=1e-12)


def draw_returns(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns float[2, M] of two policies with means 3 and 2, and the user int[M] of each session.

    Users and sessions each have an effect on both policies, and one on each policy. So the sessions of one user
    are correlated, and the sessions of the policies are paired.
    """
    users = np.repeat(np.arange(NUM_USERS), SESSIONS_PER_USER)
    of_users = rng.standard_normal((3, NUM_USERS))[:, users]
    of_sessions = rng.standard_normal((3, len(users)))
    both, of_policy = of_users[0] + of_sessions[0], of_users[1:] + of_sessions[1:]
    return np.array([[3.0], [2.0]]) + both + of_policy, users


@pytest.mark.parametrize(
    ("by_user", "low", "high"),
    [(True, 0.95 - TOLERANCE, 0.95 + TOLERANCE), (False, 0.7, 0.86)],
    ids=["users", "sessions"],
)
def test_intervals_cover_the_truth_as_often_as_they_say_only_over_users(by_user, low, high):
    """Half of the variance is between users. Treating their sessions as independent covers only 78 %."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(TRIALS):
        returns, users = draw_returns(rng)
        if not by_user:
            users = np.arange(len(users))  # each session as if it were of another user
        interval = mean_interval(returns[:1], users)
        hits += interval[0] <= 3 <= interval[1]
    assert low < hits / TRIALS < high


def test_the_comparison_of_single_seeds_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(TRIALS):
        (a, b), users = draw_returns(rng)
        row = difference("train", "greedy", a[None], b[None], users)
        hits += row.low <= 1 <= row.high
    assert abs(hits / TRIALS - 0.95) < TOLERANCE


def test_welchs_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(TRIALS):
        low, high = welch_interval(1 + rng.standard_normal(4), 3 * rng.standard_normal(6))
        hits += low <= 1 <= high
    assert abs(hits / TRIALS - 0.95) < TOLERANCE
