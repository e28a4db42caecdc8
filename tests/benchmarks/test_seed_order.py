"""The benchmark of seeds: both orders of a small training, its table, and what it refuses."""

import json

import pytest

from agents.algorithms.a2c import A2C, A2CConfig
from benchmarks.training.seed_order import format_order, measure_order, run_seed_order
from jaxsim import InputError
from tests.agents.algorithms.probes import PROBES, ProbeEnv


@pytest.mark.slow  # compiles two trainings
def test_both_orders_are_measured():
    agent = A2C(ProbeEnv(), A2CConfig(total_steps=160, num_envs=4, rollout_length=2, width=4))
    rows = measure_order(agent, PROBES["masked"], seeds=3, repeats=2)
    assert [(row["seeds"], row["at_once"]) for row in rows] == [(3, 1), (3, 3)]
    for row in rows:
        assert row["seconds_a_seed"] == pytest.approx(
            agent.config.num_iterations * 8 / row["steps_per_second"]
        )
    assert rows[0]["ratio"] == rows[0]["low_quartile"] == 1
    result = {"dataset": "probe", "device": "cpu", "rows": [{"agent": "a2c", **x} for x in rows]}
    lines = format_order(json.loads(json.dumps(result))).splitlines()
    assert [line.split()[:2] for line in lines[-2:]] == [["a2c", "3"]] * 2
    assert "one after the other" in lines[-2]
    assert "side by side" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agents": ("sarsa",)}, "--agents sarsa: unknown; choose from ppo"),
        ({"seeds": (3, 0)}, "--seeds 0: give a whole number from 1"),
        ({"repeats": 0}, "--repeats 0: give a whole number from 1"),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, message):
    with pytest.raises(InputError, match=message):
        run_seed_order(**arguments)
