"""Fixed sessions, the baselines, intervals and the table."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from agents.baselines import (
    FixedRanking,
    Oracle,
    RandomPolicy,
    RepeatLastLiked,
    baselines,
    simulated_like_rate,
    training_counts,
)
from agents.evaluation import (
    Row,
    evaluate,
    fixed_sessions,
    format_table,
    interval,
    run_sessions,
    to_json,
)
from tests.conftest import CAPACITY, simulator_of
from tests.factory import make_dataset

# ---- fixed sessions --------------------------------------------------------------------------------------


def test_each_user_starts_the_same_number_of_sessions(simulator):
    _, env, params = simulator
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=3)
    expected = np.repeat(np.asarray(params.session_users), 3)
    np.testing.assert_array_equal(sessions.users, expected)
    keys = jax.random.key_data(sessions.keys)
    assert len(np.unique(keys, axis=0)) == len(expected)
    again = fixed_sessions(jax.random.key(0), env, params, repeats=3)
    np.testing.assert_array_equal(again.durations, sessions.durations)
    np.testing.assert_array_equal(jax.random.key_data(again.keys), keys)


def test_durations_are_those_of_the_environment(simulator):
    """Geometric with the departure probability, cut at the longest session."""
    _, env, params = simulator
    p = 0.2
    params = params.replace(departure_probability=jnp.float32(p))
    durations = np.asarray(fixed_sessions(jax.random.key(1), env, params, repeats=400).durations)
    steps = np.arange(1, CAPACITY + 1)
    chance = p * (1 - p) ** (steps - 1)
    chance[-1] = (1 - p) ** (CAPACITY - 1)
    counts = np.bincount(durations, minlength=CAPACITY + 1)[1:]
    assert counts.sum() == len(durations)
    assert stats.chisquare(counts, chance * len(durations)).pvalue > 1e-4
    short = params.replace(max_steps_in_episode=jnp.int32(2))
    assert fixed_sessions(jax.random.key(1), env, short).durations.max() == 2
    endless = params.replace(departure_probability=jnp.float32(0))
    assert (fixed_sessions(jax.random.key(1), env, endless).durations == CAPACITY).all()


def plain_run(env, params, policy, sessions):
    """Returns, recommendation counts and liking by a Python loop, one session at a time."""
    params = params.replace(departure_probability=jnp.float32(0))
    step_env, act = jax.jit(env.step_env), jax.jit(policy.act, static_argnums=2)
    returns, liking, counts = [], [], np.zeros(env.num_items, int)
    for user, key, duration in zip(*sessions, strict=True):
        obs, state = env.reset_user(user, params)
        memory = policy.begin(env, obs, params)
        likes = []
        for time in range(max(int(duration), 10)):
            key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
            item = act(key_policy, memory, env, obs, state, params)
            obs, state, reward, _, info = step_env(key_env, state, item, params)
            assert not info["invalid_action"]
            memory = policy.remember(memory, item, info["response"].like, params)
            counts[item] += time < duration
            likes.append(float(reward))
        returns.append(sum(likes[: int(duration)]))
        liking.append(np.mean(likes[:10]))
    return returns, counts, liking


@pytest.mark.parametrize("policy", [RandomPolicy(), Oracle()], ids=["random", "oracle"])
def test_run_sessions_is_a_plain_loop(simulator, policy):
    _, env, params = simulator
    params = params.replace(
        session_users=params.session_users[:6], departure_probability=jnp.float32(0.1)
    )
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=2)
    found = run_sessions(env, params, policy, sessions)
    returns, counts, liking = plain_run(env, params, policy, sessions)
    np.testing.assert_array_equal(found.returns, returns)
    np.testing.assert_array_equal(found.recommended, counts)
    np.testing.assert_allclose(found.liking, liking, rtol=1e-6)
    assert found.recommended.sum() == sessions.durations.sum()


def test_many_sessions_are_run_in_batches_without_a_trace(simulator, monkeypatch):
    _, env, params = simulator
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=1)
    policy = FixedRanking(jnp.arange(env.num_items, dtype=jnp.float32))
    whole = run_sessions(env, params, policy, sessions)
    monkeypatch.setattr("agents.evaluation._BATCH", 8)
    assert len(sessions.users) % 8
    for a, b in zip(whole, run_sessions(env, params, policy, sessions), strict=True):
        np.testing.assert_allclose(a, b)


def test_diversity_is_the_mean_distance_of_the_list(simulator):
    dataset, env, params = simulator
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=1)
    scores = -jnp.arange(env.num_items, dtype=jnp.float32)
    found = run_sessions(env, params, FixedRanking(scores), sessions)
    vectors = dataset.arrays["item_pos_embedding"].astype(np.float64)
    for row, user in enumerate(np.asarray(sessions.users)):
        history = set(np.asarray(params.histories.items[user]).tolist())
        listed = [item for item in range(env.num_items) if item not in history][:10]
        known = [item for item in listed if vectors[item].any()]
        distances = [1 - vectors[a] @ vectors[b] for a in known for b in known if a < b]
        np.testing.assert_allclose(found.diversity[row], np.mean(distances), atol=1e-5)


# ---- baselines -------------------------------------------------------------------------------------------

# User 0's ten interactions: eight train, one validation, one test. User 1 has four: all train.
SEQUENCES = [
    ([0, 1, 2, 3, 0, 1, 2, 0, 3, 3], [1, 0, 1, 1, 1, 0, 0, 0, 1, 1]),
    ([0, 1, 4, 4], [1, 1, 0, 0]),
]
COUNTS = [4, 3, 2, 1, 2, 0]
LIKES = [3, 1, 1, 1, 0, 0]


@pytest.fixture(scope="module")
def counted():
    dataset = make_dataset([[0]] * 6, [[0]] * 6, [[1]] * 6, SEQUENCES, window=4)
    return simulator_of(dataset, history_length=2, session_capacity=2, users="train")


def test_baselines_count_training_interactions(counted):
    dataset, env, params = counted
    counts, likes = training_counts(dataset)
    assert counts.tolist() == COUNTS
    assert likes.tolist() == LIKES
    found = baselines(dataset, env, params)
    assert list(found) == ["random", "popular", "like_rate", "static_best", "oracle"]
    assert found["popular"].scores.tolist() == COUNTS
    # The mean is 6 / 12; the smoothed rate (likes + 5 * 0.5) / (n + 5).
    expected = [5.5 / 9, 3.5 / 8, 3.5 / 7, 3.5 / 6, 2.5 / 7, 2.5 / 5]
    np.testing.assert_allclose(found["like_rate"].scores, expected, rtol=1e-6)
    _, state = env.reset_user(jnp.int32(0), params)  # the only session user
    expected = env.expected_response(state, params)
    np.testing.assert_allclose(found["static_best"].scores, expected, rtol=1e-6)


def test_fixed_rankings_go_down_the_list_past_the_window(counted):
    _, env, params = counted
    obs, state = env.reset_user(jnp.int32(0), params)  # his latest two: 2, 0
    policy = FixedRanking(jnp.array(COUNTS, jnp.float32))
    expected = [1, 4]  # after 0 (4), 1 (3); 2 and 4 have two each, and 2 was seen
    for step, item in enumerate(expected):
        assert policy.act(jax.random.key(0), (), env, obs, state, params) == item
        obs, state, *_ = env.step_env(jax.random.key(step), state, jnp.int32(item), params)


def test_static_best_averages_over_training_users(simulator):
    _, env, params = simulator
    users = params.session_users[:7]
    expected = [
        env.expected_response(env.reset_user(user, params)[1], params) for user in users[:2]
    ]
    found = simulated_like_rate(env, params.replace(session_users=users[:2]))
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-6)


def test_repeat_last_liked(dataset):
    _, env, params = simulator_of(dataset, repeats="allow")
    assert "repeat_last_liked" in baselines(dataset, env, params)
    obs, state = env.reset_user(params.session_users[0], params)
    act = RepeatLastLiked().act
    for responses, expected in (([1, -1, 1, -1], 2), ([1, -1, -1, -1], 0), ([-1, 1, 1, 1], 3)):
        seen = obs.replace(
            responses=jnp.zeros_like(obs.responses).at[:4].set(jnp.array(responses, jnp.int8)),
            items=obs.items.at[:4].set(jnp.array([30, 31, 32, 33])),
        )
        assert act(jax.random.key(0), (), env, seen, state, params) == 30 + expected
    nothing = obs.replace(responses=-jnp.abs(obs.responses))
    items = {int(act(jax.random.key(k), (), env, nothing, state, params)) for k in range(20)}
    assert len(items) > 5


def test_the_oracles_evidence_is_the_expected_response_from_scratch(either):
    _, env, params = either
    policy = Oracle()
    obs, state = env.reset(jax.random.key(3), params)
    memory = policy.begin(env, obs, params)
    scratch, kept = jax.jit(env.expected_response), jax.jit(env.expected_likes)
    for step in range(CAPACITY):
        expected = np.asarray(scratch(state, params))
        np.testing.assert_array_equal(kept(memory, state, params), expected)
        item = policy.act(jax.random.key(0), memory, env, obs, state, params)
        mask = np.asarray(env.action_mask(obs, params))
        assert mask[item]
        assert expected[item] == expected[mask].max()
        item = jnp.int32(np.flatnonzero(mask)[step])  # not the best, so that both responses occur
        obs, state, reward, *_ = env.step_env(jax.random.key(step), state, item, params)
        memory = policy.remember(memory, item, reward.astype(jnp.int8), params)


def test_lists_are_distinct_even_where_repeats_are_allowed(dataset):
    _, env, params = simulator_of(dataset, repeats="allow")
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=1)
    outcome = run_sessions(env, params, RepeatLastLiked(), sessions)
    assert outcome.returns.mean() > 0
    assert 0 < outcome.liking.mean() < 1
    assert (outcome.diversity > 0).any()


def test_policies_of_different_types_are_different_to_jit():
    """Treedefs of dataclasses are equal if their static fields are, whatever the type."""
    found = [jax.tree.structure(policy) for policy in (RandomPolicy(), Oracle(), RepeatLastLiked())]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


# ---- the table -------------------------------------------------------------------------------------------


def test_interval_over_seeds_by_hand():
    """Seed means 2, 3, 7: mean 4, deviation sqrt(7), and t(0.975, 2) = 4.302653."""
    values = np.array([[1.0, 3.0], [2.0, 4.0], [7.0, 7.0]])
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)
    np.testing.assert_allclose(interval(values), (4 - half, 4 + half), rtol=1e-6)


def test_interval_of_one_run_is_over_sessions():
    """Sessions 1, 2, 3, 4: mean 2.5, deviation sqrt(5 / 3), and t(0.975, 3) = 3.182446."""
    half = 3.182446 * math.sqrt(5 / 3) / 2
    np.testing.assert_allclose(
        interval(np.array([[1.0, 2, 3, 4]])), (2.5 - half, 2.5 + half), rtol=1e-6
    )


def test_interval_of_equal_values_is_a_point():
    assert interval(np.full((3, 5), 2.0)) == (2.0, 2.0)
    assert interval(np.zeros((1, 4))) == (0.0, 0.0)


@pytest.fixture(scope="module")
def table(learnable) -> list[Row]:
    dataset, env, params = learnable
    odd = FixedRanking(jnp.arange(40.0) % 2)
    even = FixedRanking(1 - jnp.arange(40.0) % 2)
    cost = {"taught": (1000, 2.5)}
    return evaluate(dataset, env, params, {"taught": [even, odd, even]}, jax.random.key(0), cost)


def test_the_table_of_a_dataset_with_known_answers(table):
    """Even items are always liked, odd ones never, whatever the user."""
    rows = {(row.policy, row.users): row for row in table}
    assert {users for _, users in rows} == {"train", "held_out"}
    names = {name for name, users in rows if users == "train"}
    assert names == {"taught", "random", "popular", "like_rate", "static_best", "oracle"}
    for users in ("train", "held_out"):
        best, taught, random = (rows[name, users] for name in ("oracle", "taught", "random"))
        for name in ("oracle", "like_rate", "static_best"):
            row = rows[name, users]
            assert (row.liking, row.share_of_oracle) == (100.0, 1.0)
            assert row.a_rwd == best.a_rwd
        assert random.share_of_oracle == 0
        assert 30 < random.liking < 70
        assert random.paired_random_low == random.paired_random_high == 0
        assert random.paired_high < 0
        # Two of the three seeds earn everything and one nothing.
        np.testing.assert_allclose(taught.a_rwd, best.a_rwd * 2 / 3, rtol=1e-6)
        np.testing.assert_allclose(taught.liking, 200 / 3, rtol=1e-6)
        assert (taught.seeds, taught.steps, taught.seconds) == (3, 1000, 2.5)
        assert (best.seeds, best.steps) == (1, 0)
        half = stats.t.ppf(0.975, 2) * best.a_rwd / 3  # deviation of (a, 0, a) is a / sqrt(3)
        np.testing.assert_allclose(taught.a_rwd_high - taught.a_rwd, half, rtol=1e-5)
        np.testing.assert_allclose(taught.paired_low, -best.a_rwd / 3 - half, rtol=1e-5)
    assert all(row.t_rwd == pytest.approx(12 * row.a_rwd) for row in table)


def test_the_table_as_text_and_as_data(table):
    text = format_table(table)
    text, _, paired = text.partition("\n\n")
    assert [line.split(" earns")[0] for line in paired.splitlines()] == [
        f"{row.policy} on {row.users} users" for row in table if row.steps
    ]
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(table)
    groups = [line.split("|")[2].strip() for line in lines[2:]]
    assert groups == sorted(groups, key=lambda group: group != "train")
    assert any(line.split("|")[1].strip() == "taught (3 seeds)" for line in lines)
    rewards = [float(line.split("|")[3].split()[0]) for line in lines[2:] if "| train" in line]
    assert rewards == sorted(rewards, reverse=True)
    plain = to_json([Row(**{**vars(table[0]), "diversity": math.nan})])[0]
    assert plain["diversity"] is None
    assert plain["policy"] == table[0].policy
