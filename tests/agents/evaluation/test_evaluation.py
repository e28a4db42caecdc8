"""The rows of an evaluation, its table and its warnings."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from scipy import stats

from agents.evaluation.baselines import FixedRanking, RandomPolicy
from agents.evaluation.evaluate import Evaluation, evaluate, find_warnings
from agents.evaluation.intervals import mean_interval
from agents.evaluation.returns import BASELINE, GREEDY, SAMPLED
from agents.evaluation.sessions import Outcome, fixed_sessions
from agents.evaluation.table import Row, format_rows, to_json

# ---- the table -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluation(even) -> Evaluation:
    dataset, env, params = even
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
        # Two of the three seeds earn everything and one nothing.
        np.testing.assert_allclose(taught.a_rwd, best.a_rwd * 2 / 3, rtol=1e-6)
        np.testing.assert_allclose(taught.liking, 200 / 3, rtol=1e-6)
        assert (taught.seeds, taught.steps, taught.seconds) == (3, 1000, 2.5)
        assert (best.seeds, best.steps, best.mode) == (1, 0, BASELINE)
        half = stats.t.ppf(0.975, 2) * best.a_rwd / 3  # deviation of (a, 0, a) is a / sqrt(3)
        np.testing.assert_allclose(taught.a_rwd_high - taught.a_rwd, half, rtol=1e-5)
        np.testing.assert_allclose(taught.paired_low, -best.a_rwd / 3 - half, rtol=1e-5)
    assert rows["random", "train"].paired_high < 0
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


def test_returns_are_of_each_session_and_seed(evaluation, even):
    dataset, env, params = even
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
        returns = evaluation.returns[f"{row.policy}/{row.mode}/{row.users}"]
        assert len(returns) == row.seeds
        assert row.a_rwd == pytest.approx(returns.mean())


def test_intervals_of_baselines_are_over_users(evaluation):
    """Also the paired ones."""
    for row in evaluation.rows:
        if row.mode != BASELINE:
            continue
        users = evaluation.sessions[f"sessions/users/{row.users}"]
        returns = evaluation.returns[f"{row.policy}/baseline/{row.users}"]
        assert (row.a_rwd_low, row.a_rwd_high) == mean_interval(returns, users)
        paired = returns - evaluation.returns[f"random/baseline/{row.users}"]
        expected = mean_interval(paired, users)
        assert (row.paired_random_low, row.paired_random_high) == expected


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
    text = format_rows(table)
    text, _, paired = text.partition("\n\n")
    assert all(line.endswith(".") for line in paired.splitlines())
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
    outcomes = {}
    for group, runs in (("train", seeds), ("held_out", held_out)):
        if runs:
            outcomes[group] = {
                ("p", GREEDY): list(runs),
                ("random", BASELINE): [outcome_of(random)],
                # Baselines may repeat themselves as they like.
                ("oracle", BASELINE): [outcome_of((10.0, 10.0), (9.0, 9.0), items=1)],
            }
    return find_warnings(outcomes)


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
        "already held."
    )
    # Over all seeds and groups: 6 of 10 and 1 of 10 are 7 of 20.
    assert not warnings_of(outcome_of((4.0, 6.0), (3.0, 3.0)), outcome_of((5.0, 5.0), (1.0, 0.0)))
    repeating, fresh = outcome_of((4.0, 6.0), (3.0, 3.0)), outcome_of((5.0, 5.0))
    assert not warnings_of(repeating, held_out=(fresh,))
    assert "12 of its 20" in warnings_of(repeating, held_out=(repeating,))[0]


def test_a_policy_of_few_items_is_warned_of():
    (line,) = warnings_of(outcome_of((4.0, 6.0), items=9))
    assert line == "p (greedy) recommends only 9 distinct items of 20 in all its 2 sessions."
    seeds = [outcome_of((4.0, 6.0), items=items) for items in (3, 12, 5)]
    (line,) = warnings_of(*seeds)
    assert "only 3 distinct" in line
    assert "2 of 3 seeds recommend fewer than 10 items" in line
    # Each group recommends nine, together eleven.
    other = outcome_of((4.0, 6.0))._replace(recommended=(np.arange(20) >= 11).astype(np.int64))
    assert not warnings_of(outcome_of((4.0, 6.0), items=9), held_out=(other,))


def test_a_saturated_task_is_warned_of():
    (line,) = warnings_of(outcome_of((4.0, 6.0)), random=(9.0, 9.5))
    assert line == (
        "the task is saturated for train users: random earns 9.25, which is 92.5% of the oracle's 10.00. "
        "Policies can hardly differ."
    )


def test_warnings_stand_below_the_table_and_only_if_there_are_any(evaluation):
    assert evaluation.warnings == []
    assert evaluation.report() == format_rows(evaluation.rows)
    warned = dataclasses.replace(evaluation, warnings=["one", "two"])
    assert warned.report() == f"{format_rows(evaluation.rows)}\n\nwarning: one\nwarning: two"
