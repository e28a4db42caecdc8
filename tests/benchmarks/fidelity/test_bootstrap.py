import numpy as np
import pytest

from benchmarks.fidelity.bootstrap import UserBootstrap, estimate, estimate_over_repeats


@pytest.fixture
def bootstrap() -> UserBootstrap:
    return UserBootstrap(np.array([9, 4, 4, 7, 9, 9]), resamples=25, seed=3)


def test_each_resample_draws_as_many_users_as_there_are(bootstrap):
    assert bootstrap.code.tolist() == [2, 0, 0, 1, 2, 2]
    assert bootstrap.weights.shape == (26, 3)
    assert (bootstrap.weights[0] == 1).all()
    assert (bootstrap.weights.sum(axis=1) == 3).all()
    assert len(np.unique(bootstrap.weights, axis=0)) > 5


def test_the_seed_decides(bootstrap):
    users = np.array([9, 4, 4, 7, 9, 9])
    np.testing.assert_array_equal(UserBootstrap(users, 25, 3).weights, bootstrap.weights)
    assert (UserBootstrap(users, 25, 4).weights != bootstrap.weights).any()


def test_sums_and_means_agree_with_a_loop_over_repeated_events(bootstrap):
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    where = np.array([True, True, False, True, False, False])
    sums, means = bootstrap.sums(values), bootstrap.means(values, where)
    for row, weights in enumerate(bootstrap.weights.astype(int)):
        repeats = weights[bootstrap.code]
        assert sums[row] == pytest.approx(np.repeat(values, repeats).sum())
        sample = np.repeat(values[where], repeats[where])
        assert means[row] == pytest.approx(sample.mean() if len(sample) else np.nan, nan_ok=True)


def test_an_interval_is_between_quantiles_of_the_resamples():
    result = estimate(np.concatenate([[0.5], np.linspace(0, 1, 1001)]))
    assert result == {"value": 0.5, "low": 0.025, "high": 0.975}
    with_gaps = np.array([0.5, 0.0, np.nan, 1.0])
    assert estimate(with_gaps) == {"value": 0.5, "low": 0.025, "high": 0.975}


def test_a_centred_interval_has_only_the_spread_of_the_resamples():
    resampled = 0.3 + np.linspace(0, 1, 1001)
    result = estimate(np.concatenate([[0.6], resampled]), centred=True)
    assert result == {"value": 0.6, "low": 0.125, "high": 1.075}
    near_zero = estimate(np.concatenate([[0.1], resampled]), centred=True)
    assert near_zero["low"] == 0.0


def test_what_is_not_defined_has_no_value_and_a_single_user_no_interval():
    nothing = {"value": None, "low": None, "high": None}
    assert estimate(np.array([np.nan, 0.5])) == nothing
    assert estimate(np.zeros(5)) == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert estimate(np.array([0.25])) == {"value": 0.25, "low": None, "high": None}
    alone = UserBootstrap(np.zeros(4, int), 10, 0)
    assert estimate(alone.means(np.arange(4.0))) == {"value": 1.5, "low": None, "high": None}
    assert estimate_over_repeats([]) == nothing
    assert estimate_over_repeats([0.5]) == {"value": 0.5, "low": None, "high": None}


def test_repetitions_have_students_interval():
    result = estimate_over_repeats([0.4, 0.5, 0.6, float("nan")])
    assert result["value"] == 0.5
    # t(0.975, 2) = 4.302653; standard error 0.1 / sqrt(3).
    assert result["high"] == pytest.approx(0.5 + 4.302653 * 0.1 / np.sqrt(3), abs=1e-5)


@pytest.mark.slow
def test_intervals_of_a_mean_cover_it_about_as_often_as_they_say():
    """Users whose events are alike; an interval over events would cover about half as often."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 5)
    hits = []
    for seed in range(300):
        values = rng.standard_normal(60)[users] + 0.1 * rng.standard_normal(300)
        ends = estimate(UserBootstrap(users, 300, seed).means(values))
        hits.append(ends["low"] <= 0 <= ends["high"])
    assert 0.89 < np.mean(hits) < 0.98
