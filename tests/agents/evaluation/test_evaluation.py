"""Fixed sessions, the baselines, intervals and the table."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from scipy import stats

from agents.evaluation.baselines import (
    FixedRanking,
    Oracle,
    RandomPolicy,
    RepeatLastLiked,
    baselines,
    simulated_like_rate,
    training_counts,
)
from agents.evaluation.evaluate import (
    BASELINE,
    GREEDY,
    SAMPLED,
    Evaluation,
    Row,
    evaluate,
    find_warnings,
    format_table,
    interval,
    to_json,
)
from agents.evaluation.sessions import Outcome, fixed_sessions, run_sessions
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
    monkeypatch.setattr("agents.evaluation.sessions._CPU_BATCH", 8)
    monkeypatch.setattr("agents.evaluation.sessions._OTHER_BATCH", 8)
    assert len(sessions.users) % 8
    for a, b in zip(whole, run_sessions(env, params, policy, sessions), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


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
def evaluation(learnable) -> Evaluation:
    dataset, env, params = learnable
    odd = FixedRanking(jnp.arange(40.0) % 2)
    even = FixedRanking(1 - jnp.arange(40.0) % 2)
    return evaluate(
        dataset,
        env,
        params,
        {"taught": [even, odd, even]},
        jax.random.key(0),
        cost={"taught": (1000, 2.5)},
        sampled={"taught": [RandomPolicy(), odd, even]},
    )


@pytest.fixture(scope="module")
def table(evaluation) -> list[Row]:
    return evaluation.rows


def test_the_table_of_a_dataset_with_known_answers(table):
    """Even items are always liked, odd ones never, whatever the user."""
    rows = {(row.policy, row.users): row for row in table if row.mode != SAMPLED}
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
        assert (best.seeds, best.steps, best.mode) == (1, 0, BASELINE)
        half = stats.t.ppf(0.975, 2) * best.a_rwd / 3  # deviation of (a, 0, a) is a / sqrt(3)
        np.testing.assert_allclose(taught.a_rwd_high - taught.a_rwd, half, rtol=1e-5)
        np.testing.assert_allclose(taught.paired_low, -best.a_rwd / 3 - half, rtol=1e-5)
    assert all(row.t_rwd == pytest.approx(12 * row.a_rwd) for row in table)
    assert all(row.repeat_share == 0 for row in table)


def test_sampled_policies_have_rows_of_their_own(table):
    rows = {(row.policy, row.mode, row.users): row for row in table}
    assert len(rows) == len(table) == 2 * (5 + 2)
    for users in ("train", "held_out"):
        sampled, greedy = (rows["taught", mode, users] for mode in (SAMPLED, GREEDY))
        best, random = (rows[name, BASELINE, users] for name in ("oracle", "random"))
        np.testing.assert_allclose(sampled.a_rwd, (random.a_rwd + best.a_rwd) / 3, rtol=1e-6)
        assert sampled.a_rwd < greedy.a_rwd
        assert (sampled.seeds, sampled.steps, sampled.seconds) == (3, 1000, 2.5)


def test_returns_are_of_each_session_and_seed(evaluation, learnable):
    dataset, env, params = learnable
    for users in ("train", "held_out"):
        start = params.replace(session_users=jnp.asarray(dataset.session_users(users)))
        sessions = fixed_sessions(jax.random.key(0), env, start)
        durations = evaluation.sessions[f"sessions/durations/{users}"]
        np.testing.assert_array_equal(durations, sessions.durations)
        np.testing.assert_array_equal(
            evaluation.sessions[f"sessions/users/{users}"], sessions.users
        )
        greedy = evaluation.returns[f"taught/greedy/{users}"]
        assert greedy.dtype == np.float32
        # Even items alone are liked: of two seeds all recommendations are, of one none.
        np.testing.assert_array_equal(greedy, np.stack([durations, 0 * durations, durations]))
        np.testing.assert_array_equal(
            evaluation.returns[f"taught/sampled/{users}"][:1],
            evaluation.returns[f"random/baseline/{users}"],
        )
    assert len(evaluation.returns) == len(evaluation.rows)
    for row in evaluation.rows:
        found = evaluation.returns[f"{row.policy}/{row.mode}/{row.users}"]
        assert len(found) == row.seeds
        assert row.a_rwd == pytest.approx(found.mean())


def test_returns_are_written_whole_with_what_they_belong_to(evaluation, tmp_path, monkeypatch):
    path = tmp_path / "new" / "returns.safetensors"
    evaluation.save_returns(path, "abc", 7, {"repeats": "mask", "history_length": 4})
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert json.loads(metadata.pop("environment")) == {"repeats": "mask", "history_length": 4}
    assert metadata == {"returns_version": "1", "dataset_digest": "abc", "evaluation_seed": "7"}
    expected = {**evaluation.returns, **evaluation.sessions}
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(saved[name], value)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        evaluation.save_returns(path, "other", 8, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_table_as_text_and_as_data(table):
    text = format_table(table)
    text, _, paired = text.partition("\n\n")
    assert [line.split(" earns")[0] for line in paired.splitlines()] == [
        f"{row.policy} ({row.mode}) on {row.users} users" for row in table if row.steps
    ]
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + len(table)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    groups = [row[2] for row in cells]
    assert groups == sorted(groups, key=lambda group: group != "train")
    named = {(row[0], row[1]) for row in cells}
    assert {("taught (3 seeds)", "greedy"), ("taught (3 seeds)", "sampled"), ("random", "")} < named
    rewards = [float(row[3].split()[0]) for row in cells if row[2] == "train"]
    assert rewards == sorted(rewards, reverse=True)
    plain = to_json([Row(**{**vars(table[0]), "diversity": math.nan})])[0]
    assert plain["diversity"] is None
    assert plain["policy"] == table[0].policy


# ---- warnings --------------------------------------------------------------------------------------------


def outcome_of(returns, repeated=(0.0, 0.0), items=12, catalogue=20) -> Outcome:
    """Two sessions in which so many distinct items were recommended, each once."""
    recommended = (np.arange(catalogue) < items).astype(np.int64)
    nothing = np.zeros(2, np.float32)
    return Outcome(
        np.array(returns, np.float32), np.array(repeated, np.float32), recommended, nothing, nothing
    )


def warnings_of(
    *seeds: Outcome, held_out: tuple[Outcome, ...] = (), random=(1.0, 2.0)
) -> list[str]:
    """Of a policy `p` beside a random policy, and an oracle that earns 10 and 10."""
    found = {}
    for group, runs in (("train", seeds), ("held_out", held_out)):
        if runs:
            found[group] = {
                ("p", GREEDY): list(runs),
                ("random", BASELINE): [outcome_of(random)],
                # Baselines may repeat themselves as they like.
                ("oracle", BASELINE): [outcome_of((10.0, 10.0), (9.0, 9.0), items=1)],
            }
    return find_warnings(found)


def test_no_warning_where_none_is_due():
    assert (
        warnings_of(outcome_of((4.0, 6.0), (2.0, 3.0), items=10)) == []
    )  # half is not more than half
    assert warnings_of(outcome_of((4.0, 6.0)), random=(9.0, 9.0)) == []  # nor 90 % more than 90 %
    assert warnings_of(outcome_of((0.0, 0.0))) == []
    # All there is, is enough.
    assert warnings_of(outcome_of((4.0, 6.0), items=4, catalogue=4)) == []


def test_a_policy_that_earns_from_repeats_is_warned_of():
    (line,) = warnings_of(outcome_of((4.0, 6.0), (3.0, 3.0)))
    assert line == (
        "p (greedy) earns mostly from repeats: 6 of its 10 likes (60.0%) are for items that the user's window "
        "already held"
    )
    # Over all seeds and groups: 6 of 10 and 1 of 10 are 7 of 20.
    assert not warnings_of(outcome_of((4.0, 6.0), (3.0, 3.0)), outcome_of((5.0, 5.0), (1.0, 0.0)))
    repeating, fresh = outcome_of((4.0, 6.0), (3.0, 3.0)), outcome_of((5.0, 5.0))
    assert not warnings_of(repeating, held_out=(fresh,))
    assert "12 of its 20" in warnings_of(repeating, held_out=(repeating,))[0]


def test_a_policy_of_few_items_is_warned_of():
    (line,) = warnings_of(outcome_of((4.0, 6.0), items=9))
    assert line == "p (greedy) recommends only 9 distinct items of 20 in all its 2 sessions"
    seeds = [outcome_of((4.0, 6.0), items=items) for items in (3, 12, 5)]
    (line,) = warnings_of(*seeds)
    assert "only 3 distinct" in line
    assert "(2 of 3 seeds; the fewest)" in line
    # Each group recommends nine, together eleven.
    other = outcome_of((4.0, 6.0))._replace(recommended=(np.arange(20) >= 11).astype(np.int64))
    assert not warnings_of(outcome_of((4.0, 6.0), items=9), held_out=(other,))


def test_a_saturated_task_is_warned_of():
    (line,) = warnings_of(outcome_of((4.0, 6.0)), random=(9.0, 9.5))
    assert line == (
        "the task is saturated: on train users random earns 9.25, 92.5% of the oracle's 10.00, so that policies "
        "can hardly differ"
    )


def test_repeats_are_counted_in_the_simulator(learnable):
    """Item 0 is always liked: where repeats are allowed, all but its first recommendation is a repeat."""
    dataset, _, _ = learnable
    settings = {"history_length": 4, "session_capacity": 10, "users": "train"}
    _, env, params = simulator_of(dataset, repeats="allow", **settings)
    users = [user for user in range(9) if 0 not in np.asarray(params.histories.items[user])]
    params = params.replace(session_users=jnp.array(users[:3], jnp.int32))
    one_item = FixedRanking(jnp.zeros(40).at[0].set(1.0))
    sessions = fixed_sessions(jax.random.key(0), env, params)
    outcome = run_sessions(env, params, one_item, sessions)
    np.testing.assert_array_equal(outcome.returns, sessions.durations)
    np.testing.assert_array_equal(outcome.repeated, sessions.durations - 1)
    assert outcome.recommended.sum() == outcome.recommended[0] == sessions.durations.sum()


def test_warnings_stand_below_the_table_and_only_if_there_are_any(evaluation):
    assert evaluation.warnings == []
    assert evaluation.report() == format_table(evaluation.rows)
    warned = dataclasses.replace(evaluation, warnings=["one", "two"])
    assert warned.report() == f"{format_table(evaluation.rows)}\n\nwarning: one\nwarning: two"
