"""One vector as the observation, and five values of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsim import FlatObservation, InputError, Observation
from tests.conftest import simulator_of
from tests.slates import with_rates


def test_a_window_by_hand(simulator):
    flat = FlatObservation(simulator.env)
    width = simulator.env.window
    items = jnp.full(width, -1, jnp.int32).at[:3].set(jnp.array([4, 0, 7], jnp.int32))
    responses = jnp.zeros(width, jnp.int8).at[:3].set(jnp.array([1, -1, 1], jnp.int8))
    obs = Observation(jnp.int32(0), items, responses, jnp.int32(3))
    expected = np.zeros(simulator.env.num_items, np.float32)
    expected[[4, 0, 7]] = 1, -1, 1
    np.testing.assert_array_equal(flat.flatten(obs), expected)
    assert flat.flatten(obs).dtype == np.float32


def test_repeated_items_stay_in_the_space(dataset):
    flat = FlatObservation(simulator_of(dataset, repeats="allow").env)
    width = flat.env.window
    items = jnp.full(width, -1, jnp.int32).at[:4].set(jnp.array([4, 4, 7, 7], jnp.int32))
    responses = jnp.zeros(width, jnp.int8).at[:4].set(jnp.array([1, 1, 1, -1], jnp.int8))
    vector = flat.flatten(Observation(jnp.int32(0), items, responses, jnp.int32(4)))
    assert vector[4] == 1
    assert vector[7] == 0


def test_a_session_is_that_of_the_simulator(simulator):
    _, env, params = simulator
    flat = FlatObservation(env)
    step, flat_step = jax.jit(env.step), jax.jit(flat.step)
    for seed in range(2):
        key = jax.random.key(seed)
        obs, state = env.reset(key, params)
        vector, flat_state = flat.reset(key, params)
        for number in range(15):
            np.testing.assert_array_equal(vector, flat.flatten(obs))
            action = jnp.argmax(env.action_mask(obs, params)) if number % 3 else obs.items[0]
            key, key_step = jax.random.split(key)
            obs, state, reward, terminated, truncated, info = step(key_step, state, action, params)
            vector, flat_state, flat_reward, done, described = flat_step(
                key_step, flat_state, action, params
            )
            assert flat_reward == reward
            assert done == (terminated | truncated)
            assert described["like"] == info["response"].like
            assert described["invalid_action"] == (number % 3 == 0)
            assert described["discount"] == (not terminated)


def test_spaces_hold_what_they_describe(simulator):
    _, env, params = simulator
    flat = FlatObservation(env)
    space, actions = flat.observation_space(params), flat.action_space(params)
    assert (space.shape, actions.n, flat.num_actions) == (
        (env.num_items,),
        env.num_items,
        actions.n,
    )
    vector, _ = flat.reset(jax.random.key(0), params)
    assert vector.shape == space.shape
    assert bool(space.contains(vector))
    assert flat == FlatObservation(env)  # equal wrappers share compiled programs
    assert hash(flat) == hash(FlatObservation(env))


def test_slates_are_refused(dataset):
    _, slates, _ = with_rates(dataset, slate_size=2, session_capacity=4)
    with pytest.raises(InputError, match="without slates"):
        FlatObservation(slates)
