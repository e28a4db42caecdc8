"""The comparison of the default device with the CPU: here CPU with CPU, and a simulator with a changed one."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import agreement
from benchmarks.agreement import (
    compare_decisions,
    compare_sessions,
    decide,
    format_report,
    play,
    random_histories,
)
from benchmarks.throughput import measurement
from jaxsim.dataset import TRAIN
from tests.conftest import CAPACITY, HISTORY

COUNT, STEPS = 64, 2 * CAPACITY
CPU = jax.devices("cpu")[0]


@pytest.fixture(scope="module")
def asked(simulator):
    return random_histories(simulator.env, simulator.params, COUNT, seed=0)


@pytest.fixture(scope="module")
def shifted(simulator):
    """Params whose f_sta likes everything less."""
    weights = jax.tree.map(lambda x: x, simulator.params.sasrec)
    weights["params"]["offset"] = weights["params"]["offset"] - 1
    return simulator.params.replace(sasrec=weights)


@pytest.mark.slow
def test_histories_are_initial_ones_with_tails(simulator, asked):
    _, env, params = simulator
    lengths = (asked.items >= 0).sum(axis=1)
    initial = np.asarray(params.histories.length)[asked.user]
    tails = lengths - initial
    assert tails.min() >= 0
    assert tails.max() <= env.session_capacity
    assert len(set(tails.tolist())) > CAPACITY / 2
    for row, user, length in zip(asked.items, asked.user, initial, strict=True):
        np.testing.assert_array_equal(row[:length], params.histories.items[user][:length])
        used = int((row >= 0).sum())
        assert (row[:used] >= 0).all()  # pads come last
    assert asked.items.shape == (COUNT, HISTORY + CAPACITY)


@pytest.mark.slow
def test_a_device_agrees_with_itself(simulator, asked):
    _, env, params = simulator
    decisions = [decide(env, params, asked, CPU, seed=0) for _ in range(2)]
    report = compare_decisions(*decisions)
    assert report["equal_votes"] == [1, 1, 1]
    assert report["equal_responses"] == 1
    assert set(report["largest_difference"].values()) == {0}
    assert report["flips"] == report["flips_within"] == 0
    sessions = [play(env, params, COUNT, STEPS, CPU, seed=0) for _ in range(2)]
    report = compare_sessions(*sessions)
    assert report["identical"] == report["equal_responses"] == 1
    assert report["first_step"] is report["median_step"] is None
    assert report["parted_by"] == [0, 0, 0]


def test_a_changed_f_sta_shows_in_its_vote_alone(simulator, shifted, asked):
    _, env, params = simulator
    theirs, ours = (decide(env, x, asked, CPU, seed=0) for x in (params, shifted))
    report = compare_decisions(theirs, ours)
    assert report["equal_votes"][:2] == [1, 1]
    assert report["equal_votes"][2] == 1 - report["flips"] / COUNT < 1
    assert report["largest_difference"]["keywords"] == 0
    assert report["largest_difference"]["cosine_millionths"] == 0
    # The sigmoid of a logit one lower falls by at most 0.2449, and crosses one half from at most 0.7311.
    assert 0 < report["mean_difference_sta_probability"] < 0.245
    assert report["largest_difference"]["sta_probability"] < 0.245
    assert 0 < report["flips_within"] < 0.2311
    assert report["equal_responses"] == (theirs.response.like == ours.response.like).mean()


def test_sessions_part_where_the_vote_flips(simulator, shifted):
    _, env, params = simulator
    theirs, ours = (play(env, x, COUNT, STEPS, CPU, seed=0) for x in (params, shifted))
    report = compare_sessions(theirs, ours)
    assert 0 < 1 - report["identical"] <= 1
    mat, sim, sta = report["parted_by"]
    assert mat == sim == 0  # until then the windows were equal
    assert sta == round((1 - report["identical"]) * COUNT)
    step = report["first_step"]
    for name in ("user", "item", "like"):
        np.testing.assert_array_equal(getattr(theirs, name)[:step], getattr(ours, name)[:step])
    assert (theirs.like[step] != ours.like[step]).any()


def test_cosines_are_compared_in_millionths(simulator, asked):
    _, env, params = simulator
    theirs = decide(env, params, asked, CPU, seed=0)
    finite = np.isfinite(theirs.beta_pos)
    ours = theirs.replace(
        beta_pos=np.where(finite, theirs.beta_pos - np.float32(3e-6), theirs.beta_pos)
    )
    assert finite.any()
    report = compare_decisions(theirs, ours)
    assert report["largest_difference"]["cosine_millionths"] == 3


@pytest.mark.slow
def test_measurement_and_report(dataset, monkeypatch):
    monkeypatch.setattr(agreement, "_RUN_SECONDS", 0.001)
    sizes = {"history_length": HISTORY, "session_capacity": CAPACITY, "users": "all"}
    result = agreement.measure(dataset, 8, 4, 3, 4, 1, 0, **sizes)
    assert [(row["catalogue"], row["precision"]) for row in result["rows"]] == [
        (catalogue, precision)
        for catalogue in ("tables", "features")
        for precision in ("default", "highest")
    ]
    for row in result["rows"]:
        assert row["decisions"]["equal_responses"] == row["sessions"]["identical"] == 1
        assert row["speed"]["steps_per_second"] > 0
    assert json.loads(json.dumps(result)) == result
    report = format_report(result)
    assert "identical sessions 100.0000%, none differs" in report
    assert "features, highest precision" in report


@pytest.mark.slow
def test_types_of_the_cache_are_compared_on_what_users_rated_next(dataset, monkeypatch):
    monkeypatch.setattr(measurement, "_RUN_SECONDS", 0.001)
    monkeypatch.setattr(agreement, "STEPS", 2)
    sizes = {"history_length": HISTORY, "session_capacity": CAPACITY, "users": "all"}
    items, labels = agreement.real_continuations(dataset, CAPACITY)
    user = 3
    of_user = dataset.interaction_user() == user
    later = np.flatnonzero(of_user & (dataset.arrays["interaction_split"] != TRAIN))[:CAPACITY]
    np.testing.assert_array_equal(
        items[user, : len(later)], dataset.arrays["interaction_item"][later]
    )
    np.testing.assert_array_equal(
        labels[user, : len(later)], dataset.arrays["interaction_label"][later]
    )
    assert (items[user, len(later) :] == -1).all()
    result = agreement.measure_cache(dataset, "bfloat16", 16, STEPS, 4, 1, 0, **sizes)
    decisions = result["decisions"]
    assert decisions["count"] == int((items >= 0).sum())
    assert 0 < decisions["largest_difference"]["sta_probability"] < 0.02
    assert decisions["equal_votes"][:2] == [1.0, 1.0]
    assert decisions["equal_votes"][2] > 0.97
    assert result["sessions"]["identical"] > 0.5
    assert result["state_bytes"]["bfloat16"] < result["state_bytes"]["float32"]
    assert json.loads(json.dumps(result)) == result
    assert f"{decisions['count']:,} decisions" in agreement.format_cache(result)


def test_precision_reaches_matrix_products():
    def product(x):
        return x @ x

    matrix = jnp.ones((2, 2))
    with agreement.matmul_precision("highest"):
        assert "HIGHEST" in str(jax.make_jaxpr(product)(matrix))
    with agreement.matmul_precision("default"):
        assert "HIGHEST" not in str(jax.make_jaxpr(product)(matrix))


@pytest.mark.slow
def test_an_impossible_size_is_one_line():
    command = [sys.executable, "-m", "benchmarks", "agreement", "--decisions", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "--decisions 0: give a whole number from 1" in done.stderr
