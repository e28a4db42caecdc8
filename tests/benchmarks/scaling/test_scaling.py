"""The formulas of docs/scaling.md, and `python -m benchmarks scaling`."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.scaling import command
from benchmarks.scaling.formulas import (
    Case,
    fit,
    params_bytes,
    predict,
    session_bytes,
    training_terms,
    value_of,
)
from benchmarks.scaling.points import drawn_dataset, made
from benchmarks.scaling.report import format_constants
from benchmarks.throughput.step_cost import state_bytes, tree_bytes
from jaxsim import InputError

CONSTANTS = {
    "environment": {"seconds": [1e-3, 1e-6, 1e-8]},
    "training": {
        "ppo": {
            "seconds": [0.5, 0.1, 1e-4, 0.0],
            "bytes": [1e6, 1e5, 100.0, 0.0],
            "compile_seconds": 9.0,
            "steps_per_iteration": 1000,
        }
    },
    "evaluation": {
        "network": [1e-5, 1e-9],
        "fixed": [1e-6, 0.0],
        "oracle": [0.0, 1e-7],
        "compile_seconds": 7.0,
        "ranking": [0.5, 1e-9],
    },
}


def case_of(**changes) -> Case:
    values = {"items": 2000, "users": 100, "seeds": 2, "steps": 10_000, "algorithm": "ppo",
              "candidates": None, "sessions": 1000, "dimension": 64}  # fmt: skip
    return Case(**{**values, **changes})


def test_a_prediction_is_the_sum_of_its_terms():
    expected = predict(case_of(), CONSTANTS)
    assert expected["training_seconds"] == pytest.approx(10 * (0.5 + 2 * (0.1 + 2000 * 1e-4)))
    assert expected["training_steps_per_second"] == pytest.approx(20_000 / 11.0)
    assert expected["environment_steps_per_second"] == pytest.approx(1000 / (1e-3 + 1e-3))
    stored = params_bytes(2000, 100, 64)
    assert expected["training_bytes"] == stored + 1e6 + 2 * (1e5 + 2000 * 100)
    assert expected["environment_bytes"] == stored + 1000 * session_bytes()
    steps = 100 * 4 * 36.8
    of_step = 4 * (1e-5 + 2e-6) + 4 * 1e-6 + 2e-4
    assert expected["evaluation_seconds"] == pytest.approx(
        steps * of_step + 0.5 + 2000 * 100 * 1e-9
    )


def test_features_make_a_step_longer_and_tables_do_not():
    few, many = (predict(case_of(items=n), CONSTANTS) for n in (20_000, 30_000))
    assert few["environment_steps_per_second"] == pytest.approx(1000 / 2e-3)
    assert many["environment_steps_per_second"] == pytest.approx(1000 / (2e-3 + 1000 * 64e-8))


@settings(deadline=None, max_examples=30)
@given(
    constants=st.lists(st.floats(1e-6, 10), min_size=3, max_size=3), seed=st.integers(0, 2**31 - 1)
)
def test_constants_are_found_again(constants, seed):
    rng = np.random.default_rng(seed)
    terms = np.c_[np.ones(6), rng.uniform(1, 50, 6), rng.uniform(100, 10_000, 6)]
    values = terms @ constants
    found = fit(terms.tolist(), values.tolist())
    assert min(found) >= 0
    assert np.allclose(terms @ found, values, rtol=1e-3)


def test_candidates_take_the_place_of_a_term_that_is_zero_without_them():
    assert training_terms(3, 100, None) == [1.0, 3, 300, 0]
    assert training_terms(3, 100, 20) == [1.0, 3, 300, 60]
    assert value_of([1, 2, 3, 4], training_terms(1, 10, 5)) == 1 + 2 + 30 + 20
    with pytest.raises(InputError, match="--constants: has ppo, not ppo with candidates"):
        predict(case_of(candidates=5), CONSTANTS)


@pytest.mark.parametrize(("items", "catalogue"), [(600, "tables"), (600, "features")])
def test_bytes_are_those_of_the_simulator(items, catalogue):
    dataset = drawn_dataset(items, users=300, dimension=384)
    env, params = made(dataset, catalogue)
    budget = 4 << 30 if catalogue == "tables" else 0
    expected = params_bytes(items, 300, 384, budget)
    actual = tree_bytes(params)
    if catalogue == "features":  # the budget of `make` also decides about the prefixes
        actual -= tree_bytes(params.histories.prefix)
    assert expected == pytest.approx(actual, rel=0.1)
    assert state_bytes(env, params) == pytest.approx(session_bytes(), rel=0.05)


def test_a_prediction_is_printed_from_stored_constants(tmp_path, capsys):
    stored = {
        "device": "cpu",
        "jax": "0",
        "device_memory": 3.0e6,
        "points": {},
        "constants": CONSTANTS,
    }
    path, out = tmp_path / "constants.json", tmp_path / "out.json"
    path.write_text(json.dumps(stored))
    command.run_scaling(items=2000, users=100, steps=10_000, constants=path, json=out)
    text = capsys.readouterr().out
    assert "2,000 items, 100 users, on cpu" in text
    assert "does not fit the device's memory" in text
    written = json.loads(out.read_text())
    assert written["case"]["items"] == 2000
    assert written["prediction"]["training_seconds"] == pytest.approx(10 * (0.5 + 0.1 + 0.2))


def test_constants_are_shown_in_microseconds():
    text = format_constants({"constants": CONSTANTS})
    assert "1,000, 1, 0.01" in text  # the environment's
    assert "500,000, 100,000, 100 |" in text  # without candidates t3 is not shown
    assert "0, 0.1 |" in text  # the oracle


def test_unusable_options_are_one_line(tmp_path):
    with pytest.raises(InputError, match="--items 0: give a whole number from 1"):
        command.run_scaling(items=0)
    with pytest.raises(InputError, match="--algorithm sarsa: unknown"):
        command.run_scaling(algorithm="sarsa")
    with pytest.raises(InputError, match="does not exist"):
        command.run_scaling(constants=tmp_path / "none.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="give a file that"):
        command.run_scaling(constants=tmp_path / "other.json")


def test_candidates_are_measured_where_they_are_chosen():
    assert {chosen for _, _, chosen in command.training_sizes(None)} == {0}
    for wanted in (151, 1024, 50_000):
        sizes = command.training_sizes(wanted)
        of_candidates = {chosen for _, _, chosen in sizes}
        assert len(of_candidates) == 2
        assert all(151 < chosen < items for items, _, chosen in sizes)
        assert {seeds for _, seeds, _ in sizes} == {1, 4}
        assert len({items for items, _, _ in sizes}) == 2


@pytest.mark.slow
def test_points_are_measured_and_fitted(monkeypatch):
    monkeypatch.setattr(command, "SMALL", 200)
    monkeypatch.setattr(command, "MIDDLE", 300)
    monkeypatch.setattr(command, "LARGE", 400)
    monkeypatch.setattr(command, "_USERS", 60)
    monkeypatch.setattr(command, "training_sizes", lambda candidates: [(200, 1, 0), (200, 4, 0)])
    result = command.measure_constants("a2c", None)
    points = result["points"]
    assert [p["items"] for p in points["evaluation"]] == [200, 400]
    assert [p["seeds"] for p in points["training"]] == [1, 4]
    assert [p["dimension"] for p in points["environment"]] == [0, 0, 64]
    assert all(p["seconds"] > 0 for p in points["training"] + points["environment"])
    expected = predict(case_of(algorithm="a2c"), result["constants"])
    assert all(np.isfinite(value) for value in expected.values())
    jax.clear_caches()
