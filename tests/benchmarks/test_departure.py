"""The benchmark of the departure: lengths that are drawn, their distance, and the command on invented logs."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.departure import command
from benchmarks.departure.replay import (
    Lengths,
    constant,
    draw_lengths,
    kolmogorov_smirnov,
    replayed,
)
from jaxsim import InputError
from prep.departure_model import DepartureTraining, read_log, train_departure
from tests.departure_logs import draw_logs
from tests.factory import random_dataset


@pytest.fixture(scope="module")
def logs():
    return draw_logs(0, 0.4, users=150)


def test_drawn_lengths_are_geometric_where_the_hazard_is_constant(logs):
    log, _ = read_log(logs, 30.0)
    base = np.array([np.log(0.25 / 0.75)])
    drawn = draw_lengths(log, base, np.zeros(len(log.user)), np.random.default_rng(0)).drawn
    counts = drawn.sum(axis=0)
    assert counts.sum() == 20 * (log.position == 1).sum()
    expected = 0.25 * 0.75 ** np.arange(6)
    np.testing.assert_allclose(counts[1:7] / counts.sum(), expected, atol=0.01)


def test_items_count_at_their_place(logs):
    """Whoever meets an item from which everyone leaves, leaves there: the second one of each session."""
    log, _ = read_log(logs, 30.0)
    offset = np.where(log.position == 2, 100.0, 0.0)
    lengths = draw_lengths(log, np.array([-50.0]), offset, np.random.default_rng(0))
    longer = np.flatnonzero(log.position == 2).size
    assert lengths.drawn.sum(axis=0)[2] >= 20 * longer
    assert lengths.real.sum() == log.ends.sum()


def test_the_distance_by_hand():
    real = np.array([[0, 1, 0, 0], [0, 0, 0, 3.0]])
    drawn = np.array([[0, 2, 0, 0], [0, 0, 2, 0.0]])
    distance = kolmogorov_smirnov(Lengths(real, drawn))
    assert distance["value"] == pytest.approx(0.75)  # 1/4 and 1 of the sessions are at most 2 long
    assert kolmogorov_smirnov(Lengths(real, 20 * real))["high"] == 0


def test_the_fitted_hazard_draws_lengths_like_the_real_ones(logs):
    fitted = kolmogorov_smirnov(replayed(logs, DepartureTraining(), whole=False))["value"]
    always = kolmogorov_smirnov(constant(logs, 30.0, 0.025))["value"]
    assert fitted < 0.06 < always


def test_the_command_writes_what_it_prints(logs, monkeypatch, tmp_path, capsys):
    """Without the sessions of the planner, which tests/agents/evaluation checks."""
    departure, entry = train_departure(logs, DepartureTraining())
    packed = random_dataset(0, num_items=200)
    packed = replace(
        packed,
        arrays=logs,
        departure=departure,
        manifest={**packed.manifest, "departure": entry},
    )
    row = {
        "semantics": "calibrated", "users": "train", "policy": "oracle_planning", "steps": 20.0,
        "a_rwd": 12.0, "a_rwd_low": 11.0, "a_rwd_high": 13.0,
        "over_oracle_low": 1.0, "over_oracle_high": 3.0, "over_oracle_share": 0.2,
    }  # fmt: skip
    monkeypatch.setattr(command, "load_dataset", lambda name: packed)
    monkeypatch.setattr(command, "measure_planning", lambda *arguments: [row])
    command.run_departure(json=tmp_path / "departure.json")
    result = json.loads((tmp_path / "departure.json").read_text())
    printed = capsys.readouterr().out
    for line in command.format_departure(result).splitlines():
        assert line in printed
    assert "12.00 (11.00 to 13.00)" in printed
    assert set(result["replay"]) == {"training_logs", "whole_logs", "constant"}
    with pytest.raises(InputError, match=r"^--repeats is 0: give a whole number from 1$"):
        command.run_departure(repeats=0)
