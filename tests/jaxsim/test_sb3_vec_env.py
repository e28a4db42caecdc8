"""Sessions of one program as a vector environment of Stable-Baselines3."""

import importlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from jaxsim import FlatObservation, GymnasiumVectorEnv, InputError, Observation
from tests.conftest import simulator_of

vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
sb3 = pytest.importorskip("jaxsim.sb3_vec_env")
NUM_ENVS = 4


def first_allowed(envs):
    return np.stack(envs.env_method("action_masks")).argmax(axis=1)


def test_it_steps_as_the_vector_environment_does(simulator):
    ours = GymnasiumVectorEnv(simulator.env, simulator.params, NUM_ENVS, seed=3)
    envs = sb3.make_sb3_vec_env(simulator.env, simulator.params, NUM_ENVS, seed=3)
    theirs = envs.reset()
    expected, _ = ours.reset()
    ends = 0
    for _ in range(40):
        for name in expected:
            np.testing.assert_array_equal(theirs[name], expected[name])
        actions = first_allowed(envs)
        expected, rewards, terminated, truncated, infos = ours.step(actions)
        theirs, got, done, described = envs.step(actions)
        np.testing.assert_array_equal(got, rewards)
        np.testing.assert_array_equal(done, terminated | truncated)
        for i in np.flatnonzero(done):
            ends += 1
            last = described[i]["terminal_observation"]
            np.testing.assert_array_equal(last["items"], infos["final_obs"][i]["items"])
            assert described[i]["TimeLimit.truncated"] == (truncated[i] and not terminated[i])
    assert ends > 0


def test_a_flat_observation_is_what_the_user_thought_of_each_item(simulator):
    dicts = sb3.make_sb3_vec_env(simulator.env, simulator.params, NUM_ENVS, seed=5)
    flats = sb3.make_sb3_vec_env(simulator.env, simulator.params, NUM_ENVS, seed=5, flat=True)
    obs, flat = dicts.reset(), flats.reset()
    for _ in range(20):
        expected = np.zeros((NUM_ENVS, simulator.env.num_items))
        for i in range(NUM_ENVS):
            for item, response in zip(obs["items"][i], obs["responses"][i], strict=True):
                if item >= 0:
                    expected[i, item] = response
        np.testing.assert_array_equal(flat, expected)
        assert flat.dtype == np.int8
        actions = first_allowed(dicts)
        obs, _, done, infos = dicts.step(actions)
        flat, _, _, flat_infos = flats.step(actions)
        for i in np.flatnonzero(done):
            last = infos[i]["terminal_observation"]
            assert (flat_infos[i]["terminal_observation"] != 0).sum() == last["length"].item()


def test_sessions_are_a_function_of_their_seeds(simulator):
    envs = sb3.make_sb3_vec_env(simulator.env, simulator.params, NUM_ENVS, flat=True)
    starts = []
    for seed in (7, 7, 8):
        envs.seed(seed)
        starts.append(envs.reset())
    np.testing.assert_array_equal(starts[0], starts[1])
    assert (starts[0] != starts[2]).any()
    np.testing.assert_array_equal(starts[0][1:], starts[2][:-1])  # seed 8 is the second one of 7


def test_masks_are_found_and_other_methods_refused(simulator):
    envs = sb3.make_sb3_vec_env(simulator.env, simulator.params, NUM_ENVS)
    obs = envs.reset()
    masks = envs.env_method("action_masks", indices=[2])
    assert len(masks) == 1
    assert not masks[0][obs["items"][2][obs["items"][2] >= 0]].any()
    assert envs.has_attr("action_masks")
    assert not envs.has_attr("no_such_attribute")
    with pytest.raises(NotImplementedError):
        envs.env_method("render")


def test_a_vector_environment_that_resets_later_is_refused(simulator):
    class Later(GymnasiumVectorEnv):
        metadata = {}  # noqa: RUF012

    with pytest.raises(InputError, match="autoreset_mode is None, and must be"):
        sb3.SB3VecEnv(Later(simulator.env, simulator.params, NUM_ENVS, seed=0))


def test_options_choose_the_users(simulator):
    envs = sb3.make_sb3_vec_env(simulator.env, simulator.params, NUM_ENVS)
    envs.set_options({"user": 3})
    assert envs.reset()["user"].ravel().tolist() == [3] * NUM_ENVS
    envs.set_options([{"user": user} for user in range(NUM_ENVS)])
    assert envs.reset()["user"].ravel().tolist() == [*range(NUM_ENVS)]
    envs.set_options([{"user": 3}, *[{}] * (NUM_ENVS - 1)])
    with pytest.raises(InputError, match="set_options: user is not given for every environment"):
        envs.reset()


def test_repeated_items_are_flat_as_in_flat_observation(dataset):
    repeating = simulator_of(dataset, repeats="allow")
    dicts, flats = (
        sb3.make_sb3_vec_env(repeating.env, repeating.params, NUM_ENVS, seed=2, flat=flat)
        for flat in (False, True)
    )
    obs, flat = dicts.reset(), flats.reset()
    as_jax = FlatObservation(repeating.env)
    differed = 0
    for _ in range(25):
        for i in range(NUM_ENVS):
            one = Observation(
                user=jnp.int32(obs["user"][i, 0]),
                items=jnp.asarray(obs["items"][i]),
                responses=jnp.asarray(obs["responses"][i]),
                length=jnp.int32(obs["length"][i, 0]),
            )
            np.testing.assert_array_equal(flat[i], as_jax.flatten(one))
            counts = np.bincount(obs["items"][i][obs["items"][i] >= 0])
            differed += (counts > 1).any()
        actions = np.full(NUM_ENVS, 1)
        obs, flat = dicts.step(actions)[0], flats.step(actions)[0]
    assert differed, "no item was repeated"


def test_other_observations_are_not_flat(simulator):
    class Other(GymnasiumVectorEnv):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.single_observation_space = spaces.Box(0, 1, (3,))

    with pytest.raises(InputError, match="flat: the observations of envs have no items"):
        sb3.SB3VecEnv(Other(simulator.env, simulator.params, NUM_ENVS, seed=0), flat=True)


def test_without_stable_baselines3_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)
    monkeypatch.delitem(sys.modules, "jaxsim.sb3_vec_env")
    with pytest.raises(InputError, match=r'pip install "jaxsim-recsys\[sb3\]"'):
        importlib.import_module("jaxsim.sb3_vec_env")
