"""Several runs in one program: a run's bits do not depend on the others, and both ways agree."""

import re
from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents.algorithms.a2c import A2C, A2CConfig
from agents.algorithms.registry import ALGORITHMS
from agents.runs.programs import training_functions
from agents.runs.seeds import choose_at_once, over_runs
from agents.runs.training import train_seeds
from tests.agents.algorithms.probes import PROBES, ProbeEnv
from tests.agents.runs.device_process import numbers


def test_one_at_a_time_on_a_cpu_and_all_elsewhere(monkeypatch):
    assert choose_at_once(5) == 1
    assert choose_at_once(5, asked=2) == 2
    assert choose_at_once(5, asked=9) == 5
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_at_once(5) == 5
    assert choose_at_once(5, asked=1) == 1


@pytest.mark.parametrize("at_once", [1, 2, 3, 5, 9])
def test_every_way_is_vmap(at_once):
    def function(x, shared, key):
        return {"a": x * shared, "b": jax.random.key_data(key)}, shared.sum()

    x = jnp.arange(10, dtype=jnp.float32).reshape(5, 2)
    arguments = x, jnp.float32([2, 3]), jax.random.split(jax.random.key(0), 5)
    axes = (0, None, 0)
    expected = jax.vmap(function, axes)(*arguments)
    for run in (over_runs(function, axes, at_once), jax.jit(over_runs(function, axes, at_once))):
        jax.tree.map(np.testing.assert_array_equal, run(*arguments), expected)


def test_one_at_a_time_is_a_loop_over_a_program_without_an_axis_of_runs():
    x = jnp.zeros((5, 3), jnp.float32)

    def program(at_once: int) -> str:
        return jax.jit(over_runs(jax.lax.sin, (0,), at_once)).lower(x).as_text()

    loop = r"stablehlo\.while"
    assert re.search(loop, program(1))
    assert re.search(r"stablehlo\.sine .*tensor<3xf32>", program(1))
    assert not re.search(loop, program(5))
    assert re.search(r"stablehlo\.sine .*tensor<5x3xf32>", program(5))


def agent(name: str):
    config, kind = ALGORITHMS[name]
    settings = {"total_steps": 320, "num_envs": 4, "rollout_length": 4, "width": 4}
    extra = {"batch_size": 8, "replay_steps": 64} if name == "dqn" else {}
    extra |= {"num_minibatches": 2} if name == "ppo" else {}
    return kind(ProbeEnv(), config(**settings, **extra))


@pytest.mark.slow  # compiles two trainings of each algorithm
@pytest.mark.parametrize("name", list(ALGORITHMS))
def test_a_seed_has_the_same_bits_alone_and_beside_others(name):
    ends = {}
    for seeds in ((7,), (3, 7, 8)):
        functions = training_functions(agent(name), at_once=1)
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        state = functions.init(keys, PROBES["masked"], None)
        for _ in range(3):
            state, log = functions.chunk(state, PROBES["masked"])
        place = seeds.index(7)
        ends[len(seeds)] = jax.tree.map(itemgetter(place), (state, log))
    for alone, beside in zip(numbers(ends[1]), numbers(ends[3]), strict=True):
        np.testing.assert_array_equal(alone, beside)


@pytest.mark.slow
def test_the_order_changes_nothing_but_rounding():
    config = A2CConfig(total_steps=160, num_envs=4, rollout_length=2, width=4)
    train = partial(train_seeds, A2C(ProbeEnv(), config), PROBES["masked"], 3, 3)
    after, beside, groups = (train(at_once=at_once) for at_once in (1, 3, 2))
    for other in (beside, groups):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
            after.variables,
            other.variables,
        )
