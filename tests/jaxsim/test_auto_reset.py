"""`reset_where` is `jnp.where` on whole states, for one session and under any nesting of vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim.auto_reset import reset_where

LENGTH, BEGINNING, USERS = 5, 3, 4


def start(user, params):
    """A fresh state; its cache has only the beginning."""
    return {"time": jnp.int32(0), "user": user, "cache": params["table"][user]}


def plain(done, state, user, params):
    fresh = start(user, params)
    fresh["cache"] = state["cache"].at[:BEGINNING].set(fresh["cache"])
    return jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, state)


def ours(done, state, user, params):
    return reset_where(done, state, user, params, start)


def random_state(rng, shape) -> dict[str, jax.Array]:
    return {
        "time": jnp.int32(rng.integers(1, 9, shape)),
        "user": jnp.int32(rng.integers(0, USERS, shape)),
        "cache": jnp.float32(rng.random((*shape, LENGTH, 2))),
    }


def random_params(rng, shape=()) -> dict[str, jax.Array]:
    return {"table": jnp.float32(rng.random((*shape, USERS, BEGINNING, 2)))}


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_one_session(done, jitted):
    rng = np.random.default_rng(0)
    args = jnp.bool_(done), random_state(rng, ()), jnp.int32(2), random_params(rng)
    assert_equal((jax.jit(ours) if jitted else ours)(*args), plain(*args))


AXES = (0, 0, 0, None)
ours_of_many, plain_of_many = (jax.jit(jax.vmap(f, AXES)) for f in (ours, plain))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([1, 2, 15, 16, 17, 40]),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_many_sessions(seed, count, share):
    rng = np.random.default_rng(seed)
    done = jnp.asarray(rng.random(count) < share)
    users = jnp.int32(rng.integers(0, USERS, count))
    args = done, random_state(rng, (count,)), users, random_params(rng)
    assert_equal(ours_of_many(*args), plain_of_many(*args))


@pytest.mark.parametrize("axes", [(0, None, None, None), (None, 0, None, None), (0, 0, None, 0),
                                  (None, None, None, 0), (None, None, 0, None)], ids=str)  # fmt: skip
def test_what_is_not_batched_counts_for_all(axes):
    rng = np.random.default_rng(1)
    count = 20
    shapes = [() if axis is None else (count,) for axis in axes]
    args = (
        jnp.asarray(rng.random(shapes[0]) < 0.5) if shapes[0] else jnp.bool_(True),
        random_state(rng, shapes[1]),
        jnp.int32(rng.integers(0, USERS, shapes[2])),
        random_params(rng, shapes[3]),
    )
    assert_equal(jax.jit(jax.vmap(ours, axes))(*args), jax.vmap(plain, axes)(*args))


@pytest.mark.parametrize("params_axis", [None, 0], ids=["params shared", "params of each"])
def test_sessions_within_seeds(params_axis):
    rng = np.random.default_rng(2)
    shape = (3, 20)
    params = random_params(rng, () if params_axis is None else (3,))
    args = (
        jnp.asarray(rng.random(shape) < np.array([[0.0], [0.1], [0.9]])),
        random_state(rng, shape),
        jnp.int32(rng.integers(0, USERS, shape)),
        params,
    )
    outer = (0, 0, 0, params_axis)
    actual, expected = (jax.jit(jax.vmap(jax.vmap(f, AXES), outer))(*args) for f in (ours, plain))
    assert_equal(actual, expected)
