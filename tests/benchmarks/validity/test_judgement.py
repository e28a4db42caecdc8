"""Agreement of simulated with real values, with results that are known beforehand."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.validity.judgement import judge, judge_all, split_half
from benchmarks.validity.policies import Policy

REAL = np.array([[0.2, 0.4, 0.6, 0.8], [0.1, 0.5, 0.6, 0.7]])
BUILT = (frozenset(), frozenset({"a"}), frozenset(), frozenset({"b"}))
POLICIES = [
    Policy(f"p{i}", "", np.zeros(1, bool), greedy_on=on, built_on=on) for i, on in enumerate(BUILT)
]


def test_a_simulator_that_is_right():
    judged = judge("a", POLICIES, REAL, REAL)
    for key in ("tau", "tau_of_others", "spearman"):
        assert judged[key] == {"value": 1.0, "low": 1.0, "high": 1.0}
    for key in ("value_error", "optimism", "optimism_of_best", "regret"):
        assert judged[key]["value"] == 0.0
    assert (judged["own"], judged["best"]) == ("p1", "p3")


def test_a_simulator_that_is_wrong():
    judged = judge("b", POLICIES, REAL[:, ::-1], REAL)
    assert judged["tau"]["value"] == -1.0
    # Without its own policy, p3, three are left: 0.8, 0.6, 0.4 against 0.2, 0.4, 0.6.
    assert judged["tau_of_others"]["value"] == -1.0
    assert judged["value_error"]["value"] == pytest.approx(0.4)
    assert judged["own_simulated"]["value"] == pytest.approx(0.2)
    assert judged["optimism"]["value"] == pytest.approx(-0.6)
    assert judged["best"] == "p0"
    assert judged["optimism_of_best"]["value"] == pytest.approx(0.6)
    assert judged["regret"]["value"] == pytest.approx(0.6)


def test_its_own_policies_are_left_out():
    simulated = np.tile([0.2, 0.9, 0.6, 0.8], (2, 1))
    judged = judge("a", POLICIES, simulated, REAL)
    assert judged["tau"]["value"] == pytest.approx(2 / 6)  # two pairs of six are in the other order
    assert judged["tau_of_others"]["value"] == 1.0


def test_what_is_no_simulator_has_no_policy_of_its_own():
    judged = judge_all(POLICIES, {"real": REAL}, REAL)["real"]
    assert "own" not in judged
    assert judged["tau"]["value"] == 1.0


def test_the_difference_to_the_simplest_simulator_is_paired():
    values = {"item_rate": REAL[:, ::-1], "b": REAL}
    judged = judge_all(POLICIES[1:] + POLICIES[:1], values, REAL)
    assert judged["b"]["tau_difference"] == {"value": 2.0, "low": 2.0, "high": 2.0}
    assert "tau_difference" not in judged["item_rate"]


def test_halves_agree_where_all_users_are_alike_and_not_where_labels_are_random(replay):
    rng = np.random.default_rng(0)
    chances = np.linspace(0.35, 0.65, 6)
    picked = rng.random((6, len(replay.label))) < chances[:, None]
    alike = replace(replay, label=np.ones_like(replay.label))
    tau = split_half(alike, picked)
    assert (
        0.3
        < tau["split_half"]["value"]
        < tau["split_half_of_all"]["value"]
        < tau["ceiling"]["value"]
        < 1
    )
    picked = np.array([replay.place(rng.random(len(replay.label))) < 2 for _ in range(40)])
    assert abs(split_half(replay, picked)["split_half"]["value"]) < 0.4


def test_no_value_where_no_ranking_is_defined(replay):
    dislikes = replace(replay, label=np.zeros_like(replay.label))
    picked = np.ones((3, len(replay.label)), bool)
    nothing = {"value": None, "low": None, "high": None}
    assert split_half(dislikes, picked)["split_half"] == nothing
