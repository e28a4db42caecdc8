"""Evaluation of lives: counts by hand, paired lives against a plain loop, rows, slates, and the planner."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.evaluation.baselines import FixedRanking
from agents.evaluation.evaluate import evaluate
from agents.evaluation.planning import plan
from agents.evaluation.sessions import fixed_sessions, run_sessions
from agents.evaluation.table import to_json
from agents.evaluation.visits import (
    count_visits,
    format_visits,
    joined,
    no_visits,
    visit_statistics,
)
from tests.agents.conftest import learnable_dataset
from tests.agents.evaluation.conftest import SETTINGS
from tests.conftest import simulator_of
from tests.departure_logs import with_departure
from tests.slates import with_rates
from tests.visit_logs import with_visits

FIELDS = {
    "sessions_per_life", "retention_1", "retention_7", "retention_30", "days_active",
    "days_first_to_last",
}  # fmt: skip


@pytest.fixture(scope="module")
def living():
    """Users who leave by the constant probability, now one in four, and may return within ten days."""
    dataset = with_visits(learnable_dataset(20))
    simulated = simulator_of(dataset, visits=True, horizon_days=10.0, **SETTINGS)
    leaving = simulated.params.replace(departure_probability=jnp.float32(0.25))
    return simulated._replace(params=leaving)


def test_counts_by_hand():
    """Three lives, a horizon of 10 days: sessions on days 0, 0.5 and 8; one that stays; one that is over."""
    counts = no_visits(3)
    for day, session, left, returned, gap in (
        ([0.0, 0.0, 0.0], [0, 0, 0], [1, 0, 1], [1, 0, 0], [0.5, 0.0, 0.0]),
        ([0.5, 0.0, 0.0], [1, 0, 0], [1, 0, 1], [1, 0, 1], [7.5, 0.0, 1.0]),
        ([8.0, 0.0, 1.0], [2, 0, 1], [1, 0, 0], [0, 0, 0], [0.0, 0.0, 0.0]),
    ):
        info = {
            "day": jnp.array(day, jnp.float32), "session": jnp.array(session, jnp.int32),
            "left": jnp.array(left, bool), "returned": jnp.array(returned, bool),
            "gap_days": jnp.array(gap, jnp.float32),
        }  # fmt: skip
        alive = jnp.array([True, True, session == [0, 0, 0] and day == [0.0, 0.0, 0.0]])
        counts = count_visits(counts, info, alive, 10.0)
    # The end on day 8 has one day before the horizon; none has 30.
    assert counts.sessions.tolist() == [3, 1, 1]
    assert counts.ends.tolist() == [[3, 2, 0], [0, 0, 0], [1, 1, 0]]
    assert counts.returns.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert counts.active_days.tolist() == [2, 1, 1]
    assert counts.last_day.tolist() == [8.0, 0.0, 0.0]
    assert count_visits(None, info, alive, None) is None
    numbers = visit_statistics([counts])
    assert numbers.keys() == FIELDS
    assert numbers["sessions_per_life"] == pytest.approx(5 / 3)
    assert (numbers["retention_1"], numbers["retention_7"]) == (1 / 4, 1 / 3)
    assert np.isnan(numbers["retention_30"])
    assert numbers["days_active"] == pytest.approx(4 / 3)
    assert numbers["days_first_to_last"] == pytest.approx(8 / 3)
    assert visit_statistics([None]) is None
    parts = [(np.array([4, 2, 0]), np.array([True, True, False]), counts)]
    assert joined(parts, 5).sessions.tolist() == [0, 0, 1, 0, 3]
    assert joined([], 5) is None


@pytest.mark.slow
def test_lives_are_those_of_a_plain_loop(living):
    """The constant departure is drawn there, too, and every policy meets the same draws."""
    _, env, params = living
    policy = FixedRanking(jnp.cos(jnp.arange(env.num_items, dtype=jnp.float32)))
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=3)
    assert (sessions.durations == env.session_capacity).all()
    outcome = run_sessions(env, params, policy, sessions)
    other = run_sessions(env, params, FixedRanking(-policy.scores), sessions)
    step_env, act = jax.jit(env.step_env), jax.jit(policy.act, static_argnums=2)
    several = 0
    for row in range(0, len(sessions.users), 5):
        key, likes, ends, back, days = sessions.keys[row], 0, 0, 0, set()
        obs, state = env.reset_user(sessions.users[row], params)
        for time in range(env.session_capacity):
            key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
            item = act(key_policy, (), env, obs, state, params)
            obs, state, _, left_for_good, info = step_env(key_env, state, item, params)
            likes += int(info["response"].like)
            days.add(int(info["day"]))
            if info["left"] and info["day"] <= 3:
                ends += 1
                back += bool(info["returned"]) and info["gap_days"] <= 7
            if left_for_good:
                break
        assert outcome.steps[row] == time + 1
        assert outcome.returns[row] == likes
        assert outcome.visits.sessions[row] == info["session"] + 1
        assert outcome.visits.ends[row, 1] == ends
        assert outcome.visits.returns[row, 1] == back
        assert outcome.visits.active_days[row] == len(days)
        np.testing.assert_allclose(outcome.visits.last_day[row], info["day"], rtol=1e-5)
        several += info["session"] > 0
    assert several
    assert other.visits.sessions.mean() > 1


@pytest.mark.slow
def test_rows_and_the_report_have_lives_only_with_visits(living, even):
    for simulated, has in ((living, True), (even, False)):
        evaluation = evaluate(*simulated, {}, jax.random.key(0))
        rows = to_json(evaluation.rows)
        assert all((set(row) >= FIELDS) == has for row in rows)
        assert all("visits" not in row for row in rows)
        assert ("back in 7 d" in evaluation.report()) == has
        if has:
            assert all(row["sessions_per_life"] > 1 for row in rows)
            assert all(row["retention_30"] is None for row in rows)  # longer than the horizon


@pytest.mark.slow
def test_slates_are_evaluated_over_lives(dataset):
    """Users who are certain to leave, and to return after a moment, stay until the end."""
    dataset = with_visits(dataset, 50.0, {}, (0.0,), (0.1,))
    _, env, params = with_rates(dataset, visits=True)
    params = params.replace(departure_probability=jnp.float32(1.0))
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=1)
    policy = FixedRanking(jnp.arange(env.num_items, dtype=jnp.float32))
    outcome = run_sessions(env, params, policy, sessions)
    assert (outcome.steps == env.session_capacity).all()
    gone = params.replace(visits=params.visits.replace(intercept=jnp.float32(-50.0)))
    assert (run_sessions(env, gone, policy, sessions).steps == 1).all()


@pytest.mark.slow
def test_the_planner_counts_from_the_beginning_of_the_session():
    dataset = with_departure(learnable_dataset(20), {}, base=(-2.0,))
    _, env, params = simulator_of(with_visits(dataset), departure="fitted", visits=True, **SETTINGS)
    planner = plan(env, params)
    # Values that say at which position the planner thinks it is: the nearer obscurity the better there.
    ramp = jnp.linspace(0, 100, planner.grid.shape[0], dtype=jnp.float32)
    signs = jnp.where(jnp.arange(len(planner.value)) == 0, 1.0, -1.0)
    planner = dataclasses.replace(planner, value=signs[:, None] * ramp)
    obs, state = env.reset_user(jnp.int32(0), params)
    memory = planner.begin(env, obs, params)

    def chosen(state):
        item = planner.act(jax.random.key(0), memory, env, obs, state, params)
        return float(params.departure.item_obscurity[item])

    later = state.replace(time=jnp.int32(4))
    begins = later.replace(visits=state.visits.replace(began=jnp.int32(4)))
    assert chosen(begins) == chosen(state) > chosen(later)


def test_a_share_of_no_session_ends_is_a_dash():
    row = {"sessions_per_life": 1.5, "retention_1": 0.25, "retention_7": 0.5}
    row |= {"retention_30": float("nan"), "days_active": 1.0, "days_first_to_last": 0.5}
    cells = format_visits([(("oracle", "", "train"), row)]).splitlines()[-1].split("|")
    assert [cell.strip() for cell in cells[4:8]] == ["1.50", "25.0%", "50.0%", "-"]
