"""The benchmark of returns: lives by hand, drawn lives like the real ones, and the command on invented logs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.visits import command
from benchmarks.visits.replay import (
    Judged,
    compared,
    count_ends,
    draw_lives,
    no_lives,
    real_lives,
    replayed,
)
from jaxsim import InputError
from prep import return_model
from prep.departure_model import DepartureTraining, read_log, train_departure
from prep.return_model import train_visits
from tests.factory import random_dataset
from tests.prep.test_departure_model import two_users
from tests.visit_logs import draw_visit_logs

# Everyone leaves at once and returns after almost a day, until the horizon.
DAILY = {
    "session_gap": 30.0, "intercept": 50.0, "weights": [1.0], "means": [float(np.log(1400))],
    "scales": [1e-6], "terms": {"return": {}, "gap": {}},
}  # fmt: skip


def judged(arrays, horizon):
    log, _ = read_log(arrays, 30.0)
    zeros = np.zeros(len(log.user))
    first = np.flatnonzero(log.so_far == 1)
    return Judged(log, first, np.flatnonzero(log.cut), np.array(horizon), zeros, zeros)


def test_ends_are_counted_by_hand():
    total = no_lives(2)
    count_ends(
        total,
        user=np.array([0, 0, 1]),
        left=np.array([40.0, 7.0, 0.5]),
        gap=np.array([2.0, 0.4, np.inf]),
        back=np.array([True, True, False]),
    )
    assert total.ends.tolist() == [[2, 2, 1], [0, 0, 0]]
    assert total.returns.tolist() == [[1, 2, 1], [0, 0, 0]]
    assert total.gaps.sum(axis=1).tolist() == [2, 0]


def test_real_lives_by_hand(monkeypatch):
    """User 0 returns after 119 minutes; the last time of all is 9,060 seconds after the first."""
    monkeypatch.setattr("prep.departure_model.MIN_ENDS", 1)
    arrays = two_users()
    time = arrays["interaction_time"][arrays["interaction_split"] == 0]
    lives = real_lives(judged(arrays, [40.0, 0.1]), time)
    assert lives.lives.tolist() == [1, 1]
    assert lives.sessions.tolist() == [2, 1]
    assert lives.ends.tolist() == [[2, 2, 2], [0, 0, 0]]
    assert lives.returns.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_drawn_lives_by_hand(monkeypatch):
    """One session a day, from day 0 to the last day before the horizon."""
    monkeypatch.setattr("prep.departure_model.MIN_ENDS", 1)
    users = judged(two_users(), [4.5, 0.5])
    lives = draw_lives(users, np.array([50.0]), DAILY, np.random.default_rng(0))
    np.testing.assert_allclose(lives.sessions / lives.lives, [5, 1])
    np.testing.assert_allclose(lives.ends[0] / lives.lives[0], [4, 0, 0])
    np.testing.assert_array_equal(lives.returns, lives.ends * np.array([[1], [0]]))
    np.testing.assert_array_equal(lives.gaps.sum(axis=1), lives.sessions - lives.lives)


@pytest.fixture(scope="module")
def logs():
    return draw_visit_logs(0, users=700)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("prep.departure_model.MIN_ENDS", 50)


@pytest.mark.slow
def test_drawn_lives_are_like_the_real_ones(logs, small_parts):
    result = compared(*replayed(logs, DepartureTraining(), whole=False))
    for name, real in result["real"].items():
        drawn = result["drawn"][name]
        assert real["low"] <= real["value"] <= real["high"]
        assert max(real["low"], drawn["low"]) <= min(real["high"], drawn["high"]) * 1.1, name
    assert result["distance"]["gaps"]["value"] < 0.08
    same = compared(*replayed(logs, DepartureTraining(), whole=True))
    assert same == result  # these logs are all training data


@pytest.mark.slow
def test_the_command_writes_what_it_prints(logs, small_parts, monkeypatch, tmp_path, capsys):
    """Without the lives of policies, which tests/agents/evaluation checks."""
    monkeypatch.setattr(return_model, "MAX_COMPONENTS", 1)
    departure, entry = train_departure(logs, DepartureTraining())
    visits, of_visits = train_visits(logs, 30.0)
    packed = random_dataset(0, num_items=60)
    packed = replace(
        packed,
        arrays=logs,
        departure=departure,
        visits=visits,
        manifest={**packed.manifest, "departure": entry, "visits": of_visits},
    )
    row = {
        "users": "train", "policy": "oracle", "steps": 60.0, "cut": 0.1, "a_rwd": 12.0, "a_rwd_low": 11.0,
        "a_rwd_high": 13.0, "over_oracle_low": 0.0, "over_oracle_high": 0.0,
        "sessions_per_life": 2.5, "retention_1": 0.2, "retention_7": 0.4, "retention_30": 0.5,
        "days_active": 1.9, "days_first_to_last": 6.0,
    }  # fmt: skip
    monkeypatch.setattr(command, "load_dataset", lambda name: packed)
    monkeypatch.setattr(command, "build_visits", lambda dataset: None)
    monkeypatch.setattr(command, "make", lambda dataset, **settings: (None, None))
    monkeypatch.setattr(command, "_policies", lambda *arguments: {})
    monkeypatch.setattr(command, "paired_rows", lambda *arguments: [row])
    command.run_visits(json=tmp_path / "visits.json")
    result = json.loads((tmp_path / "visits.json").read_text())
    printed = capsys.readouterr().out
    for line in command.format_visits(result).splitlines():
        assert line in printed
    assert "12.00 (11.00 to 13.00)" in printed
    assert set(result["replay"]) == {"training_logs", "whole_logs"}
    with pytest.raises(InputError, match=r"^--repeats is 0: give a whole number from 1$"):
        command.run_visits(repeats=0)
