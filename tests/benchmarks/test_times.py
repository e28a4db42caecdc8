"""`python -m benchmarks seeds`, `to-oracle` and `evaluation`: what they count, not how long it takes."""

import json
from dataclasses import dataclass, replace

import jax
import pytest

from agents.algorithms.a2c import A2C, A2CConfig
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.baselines import RandomPolicy
from benchmarks import evaluation_time
from benchmarks.checks import candidates_of, check_agent, check_counts, with_candidates
from benchmarks.training import seeds, to_oracle
from benchmarks.training.learner import Learner
from benchmarks.training.target import Attempt, spread_sessions
from jaxsim import InputError
from tests.conftest import simulator_of

TINY = A2CConfig(total_steps=160, num_envs=2, rollout_length=2, width=4)


@pytest.mark.slow
def test_a_call_for_several_seeds_counts_the_steps_of_all(simulator, monkeypatch):
    learner = Learner.compile_seeds(A2C(simulator.env, TINY), simulator.params, 5, seeds=3)
    assert learner.steps_per_call == 3 * TINY.iterations_per_log * TINY.steps_per_iteration
    assert learner.state.iteration.shape == (3,)
    learner.seconds(calls=2)
    assert learner.state.iteration.tolist() == [2 * TINY.iterations_per_log] * 3

    monkeypatch.setattr(Learner, "compile_seeds", lambda *args: replace(learner, seeds=args[-1]))
    monkeypatch.setattr(Learner, "speeds", lambda self, repeats: [100.0 * self.seeds] * repeats)
    rows = seeds.measure_seeds("a2c", TINY, simulator.env, simulator.params, [1, 4], 2)
    assert [row["steps_per_second"] for row in rows] == [100.0, 400.0]
    total = TINY.num_iterations * TINY.steps_per_iteration
    assert [row["seconds"] for row in rows] == [total / 100.0] * 2
    text = seeds.format_seeds(
        {"dataset": "d", "agent": "a2c", "items": 5, "device": "cpu", "jax": "0", "rows": rows}
    )
    assert text.splitlines()[-1].split()[:3] == ["4", "400", "100"]


def test_seeds_end_where_memory_does(simulator, monkeypatch):
    def compile_seeds(algorithm, params, seed, count):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(Learner, "compile_seeds", compile_seeds)
    with pytest.raises(InputError, match="1 seeds do not fit the device's memory"):
        seeds.measure_seeds("a2c", TINY, simulator.env, simulator.params, [1, 4], 1)


@pytest.mark.slow
def test_a_shorter_call_counts_its_own_iterations(simulator):
    config = replace(TINY, total_steps=1600)
    learner = Learner.compile(A2C(simulator.env, config), simulator.params, 0, iterations=3)
    assert learner.steps_per_call == 3 * config.steps_per_iteration
    learner.seconds(calls=1)
    assert int(learner.state.iteration) == 3


def test_the_median_training_needs_to_arrive():
    arrived = [Attempt(reached_seconds=2.0), Attempt(reached_seconds=4.0)]
    assert to_oracle.summary(arrived, 10.0) == {
        "reached": 2,
        "seconds": 3.0,
        "seconds_with_compilation": 13.0,
    }
    late = to_oracle.summary([Attempt(reached_seconds=2.0), Attempt(), Attempt()], 10.0)
    assert late == {"reached": 1, "seconds": None, "seconds_with_compilation": None}


@pytest.mark.slow
def test_the_way_to_the_oracle_lies_between_random_and_oracle(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(to_oracle, "load_dataset", lambda name: dataset)
    monkeypatch.setattr(to_oracle, "make", lambda dataset: simulator_of(dataset)[1:])
    out = tmp_path / "result.json"
    to_oracle.run_to_oracle(agent="a2c", share=0.01, seeds=1, sessions=16, json=out)
    result = json.loads(out.read_text())
    assert result["random_reward"] < result["target_reward"] < result["oracle_reward"]
    assert result["reached"] == 1


@pytest.mark.slow
def test_an_evaluation_is_timed_twice_in_the_same_sessions(simulator):
    sessions = spread_sessions(simulator.env, simulator.params, 3, seed=0)
    row = evaluation_time.time_policy(
        "random", RandomPolicy(), simulator.env, simulator.params, sessions
    )
    assert row["policy"] == "random"
    assert 0 < row["seconds"] <= row["first_seconds"]


def test_a_setting_of_candidates_is_used_where_an_agent_has_one():
    @dataclass(frozen=True)
    class WithCandidates(A2CConfig):
        candidates: int | None = None

    assert with_candidates(TINY, None) is TINY
    assert with_candidates(WithCandidates(), 7).candidates == 7

    @dataclass(frozen=True)
    class Without:
        def check(self):
            pass

    with pytest.raises(InputError, match="--candidates 7: this agent chooses among all items only"):
        with_candidates(Without(), 7)
    bare = Without()
    assert with_candidates(bare, 0) is bare  # all items, as it does anyway
    assert {candidates_of(name, 0, 1000) for name in ALGORITHMS} == {None}


def test_unusable_options_are_one_line():
    with pytest.raises(InputError, match="--agent sarsa: unknown; choose from"):
        check_agent("sarsa")
    with pytest.raises(InputError, match="--num-seeds 0: give a whole number from 1"):
        check_counts(num_seeds=0)
    with pytest.raises(InputError, match="--share 0: give a number above 0"):
        to_oracle.run_to_oracle(share=0)
    with pytest.raises(InputError, match="--counts 0: give a whole number from 1"):
        seeds.run_seeds(counts=())
    assert set(ALGORITHMS) >= {"ppo", "dqn"}
