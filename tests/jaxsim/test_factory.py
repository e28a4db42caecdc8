"""`jaxsim.make`: settings that it refuses, and the params that it builds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim
from jaxsim import InputError
from jaxsim.factory import prefix_bytes
from tests.conftest import HISTORY, simulator_of
from tests.factory import make_dataset, random_dataset


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"history_length": 15, "session_capacity": 6}, "21.*trained.*20"),
        ({"history_length": 40, "session_capacity": 10}, "40 items cannot fill a window of 50"),
        ({"history_length": 30, "session_capacity": 10}, "40 items cannot fill a window of 40"),
        ({"history_length": 0}, "history_length is 0: give a whole number from 1"),
        ({"session_capacity": 0}, "session_capacity is 0: give a whole number from 1"),
        ({"semantics": "papers"}, "semantics is 'papers': give one of paper, released"),
        ({"repeats": "no"}, "repeats is 'no': give one of mask, allow"),
        ({"users": "some"}, "users is 'some': give one of train, held_out, all"),
        ({"catalogue": "table"}, "catalogue is 'table': give one of auto, tables, features"),
        ({"prefixes": "x"}, "prefixes is 'x': give one of auto, table, encode"),
        ({"table_budget": "4GB"}, "table_budget is '4GB': give a whole number from 0"),
        ({"table_budget": -1}, "table_budget is -1: give a whole number from 0"),
        ({"history_length": 50.0}, "history_length is 50.0: give a whole number"),
        ({"session_capacity": True}, "session_capacity is True: give a whole number"),
        (
            {"catalogue": "tables", "table_budget": 9},
            "tables of 40 items.*table_budget of 9: raise",
        ),
        ({"prefixes": "table", "table_budget": 9}, "23 histories.*table_budget leaves: raise"),
        ({"cache_dtype": "float16"}, "cache_dtype is 'float16': give one of float32, bfloat16"),
        (
            {"cache_dtype": "bfloat16", "semantics": "calibrated"},
            "cache_dtype='bfloat16' is of f_sta's cache, and semantics='calibrated' does not ask f_sta",
        ),
    ],
)
def test_settings_that_cannot_be_served_are_refused(dataset, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        simulator_of(dataset, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_cache_of_sixteen_bits_takes_half_the_memory(dataset):
    sizes, runs = {}, []
    for name, settings in {
        "float32": {"cache_dtype": "float32"},
        "table": {"cache_dtype": "bfloat16", "prefixes": "table"},
        "encode": {"cache_dtype": "bfloat16", "prefixes": "encode"},
    }.items():
        _, env, params = simulator_of(dataset, **settings)
        state = env.reset_user(3, params)[1]
        cached = jax.tree.leaves((state.key_values.keys, state.key_values.values))
        sizes[name] = sum(x.nbytes for x in cached)
        prefix = params.histories.prefix
        if prefix is not None:
            actual = sum(x.nbytes for x in jax.tree.leaves(prefix))
            assert actual == 23 * prefix_bytes(env.sasrec, HISTORY, env.cache_dtype)
        if name != "float32":
            assert "cache_dtype='bfloat16'" in repr(env)
            item = jnp.argmax(env.action_mask(env.get_obs(state), params)).astype(jnp.int32)
            _, state, reward, *_ = env.step(jax.random.key(0), state, item, params)
            runs.append((state.hidden, reward))
    assert sizes["table"] == sizes["encode"] == sizes["float32"] / 2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), *runs)
    assert simulator_of(dataset).env == simulator_of(dataset, cache_dtype="float32").env


def test_a_name_is_not_a_dataset():
    with pytest.raises(InputError, match=r"dataset is a str.*load_dataset"):
        jaxsim.make("ml-100k")


def test_states_of_several_sessions_need_vmap(simulator):
    _, env, params = simulator
    _, states = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 3), params)
    with pytest.raises(InputError, match=r"several sessions.*vmap"):
        env.step(jax.random.key(0), states, jnp.int32(0), params)


def test_an_empty_group_of_users_is_refused():
    with pytest.raises(InputError, match="held_out"):
        simulator_of(random_dataset(0, num_users=5), users="held_out")


def test_users_of_few_interactions_have_histories_but_no_session():
    sequences = [([0, 1, 2, 3, 4], [1] * 5), ([5, 6], [1, 0])]
    dataset = make_dataset([[0]] * 30, [[0]] * 30, [[1]] * 30, sequences)
    _, env, params = simulator_of(dataset)
    assert params.session_users.tolist() == [0]
    assert env.reset_user(jnp.int32(1), params)[0].items[:3].tolist() == [5, 6, -1]
    assert env.reset_user(jnp.int32(0), params)[0].items[:5].tolist() == [0, 1, 2, 3, -1]


def test_the_default_settings(dataset):
    defaults = {f.name: f.default for f in dataclasses.fields(jaxsim.UserSimulator)}
    chosen = {
        "history_length": 50,
        "session_capacity": 100,
        "semantics": "paper",
        "repeats": "mask",
    }
    assert chosen.items() <= defaults.items()
