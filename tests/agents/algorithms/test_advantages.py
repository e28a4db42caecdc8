"""Advantages: a hand-worked case, and a plain loop over random ones."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.algorithms.advantages import generalised_advantages, next_values


def test_a_hand_worked_case():
    """Three steps of two sessions: one is truncated after its second step, the other's user leaves then."""
    rewards = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], np.float32)
    values = np.array([[2.0, 1.0], [3.0, 2.0], [1.0, 4.0]], np.float32)
    terminated = np.array([[0, 0], [0, 1], [0, 0]], bool)
    truncated = np.array([[0, 0], [1, 0], [0, 0]], bool)
    final = np.where(truncated, 8.0, 0.0).astype(np.float32)
    following = next_values(values, np.array([2.0, 6.0], np.float32), final, truncated)
    # The last row bootstraps from the observation after the rollout; the truncated step from its final one.
    np.testing.assert_array_equal(following, [[3, 2], [8, 4], [2, 6]])
    actual = generalised_advantages(rewards, values, following, terminated, truncated, 0.5, 0.5)
    errors = np.array(
        [[1 + 0.5 * 3 - 2, 0 + 0.5 * 2 - 1], [0 + 0.5 * 8 - 3, 1 - 2], [1 + 1 - 1, 1 + 3 - 4]]
    )
    # Neither a truncation nor a termination lets the next session's errors through.
    expected = [errors[0] + 0.25 * errors[1], errors[1], errors[2]]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31 - 1),
    gamma=st.floats(0.0, 0.999),
    gae_lambda=st.sampled_from([0.0, 0.7, 1.0]),
)
def test_it_is_a_plain_loop(seed, gamma, gae_lambda):
    rng = np.random.default_rng(seed)
    shape = (6, 3)
    rewards, values, following = rng.standard_normal((3, *shape)).astype(np.float32)
    ends = rng.random(shape)
    terminated, truncated = ends < 0.2, ends > 0.8
    actual = generalised_advantages(
        rewards, values, following, terminated, truncated, gamma, gae_lambda
    )
    later = np.zeros(3)
    for step in reversed(range(6)):
        bootstrap = np.where(terminated[step], 0.0, following[step])
        goes_on = ~(terminated[step] | truncated[step])
        later = (
            rewards[step]
            + gamma * bootstrap
            - values[step]
            + (gamma * gae_lambda * goes_on * later)
        )
        np.testing.assert_allclose(actual[step], later, rtol=1e-4, atol=1e-5)


def test_with_full_traces_it_is_the_return_less_the_value():
    rewards = np.array([[1.0], [2.0], [4.0]], np.float32)
    values = np.array([[7.0], [8.0], [9.0]], np.float32)
    none = np.zeros((3, 1), bool)
    left = np.array([[0], [0], [1]], bool)
    following = next_values(values, np.zeros(1, np.float32), np.zeros((3, 1), np.float32), none)
    actual = generalised_advantages(rewards, values, following, left, none, 0.5, 1.0)
    np.testing.assert_allclose(actual[:, 0], [1 + 1 + 1 - 7, 2 + 2 - 8, 4 - 9], rtol=1e-6)
