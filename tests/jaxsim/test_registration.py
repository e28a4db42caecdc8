"""Gymnasium makes the simulators by name."""

import pickle
import shutil

import chex
import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import jaxsim
from jaxsim import GymnasiumEnv, GymnasiumVectorEnv, InputError
from jaxsim.registration import gymnasium_id, make_session
from tests.conftest import CAPACITY, HISTORY
from tests.factory import write_pack

SETTINGS = {"history_length": HISTORY, "session_capacity": CAPACITY, "users": "all"}


@pytest.fixture
def built(dataset, tmp_path, monkeypatch) -> str:
    """The id of a dataset that is in the cache folder."""
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(tmp_path))
    write_pack(dataset, jaxsim.dataset.dataset_path("anime"))
    return gymnasium_id("anime")


def played(session, steps=3):
    """Observations and rewards of the first allowed items."""
    obs, info = session.reset(seed=5)
    seen = [obs]
    for _ in range(steps):
        obs, reward, _, _, info = session.step(int(info["action_mask"].argmax()))
        seen += [obs, reward]
    return seen


def test_gymnasium_makes_a_session(built, simulator):
    assert built == "jaxsim/anime-v0"
    session = gymnasium.make(built, **SETTINGS)
    assert isinstance(session.unwrapped, GymnasiumEnv)
    _, env, params = simulator
    chex.assert_trees_all_equal(played(session), played(GymnasiumEnv(env, params, seed=0)))
    named = gymnasium.make("jaxsim/UserSimulator-v0", dataset="anime", **SETTINGS)
    chex.assert_trees_all_equal(played(named), played(session))
    check_env(gymnasium.make(built, **SETTINGS).unwrapped, skip_render_check=True)


def test_the_module_may_be_part_of_the_id(built):
    session = gymnasium.make(f"jaxsim:{built}", **SETTINGS)
    spec = pickle.loads(pickle.dumps(session.spec))
    assert spec.id == built
    assert spec.kwargs["dataset"] == "anime"


def test_gymnasium_makes_many_sessions(built, simulator):
    sessions = gymnasium.make_vec(built, num_envs=3, **SETTINGS)
    assert isinstance(sessions, GymnasiumVectorEnv)
    ours = GymnasiumVectorEnv(simulator.env, simulator.params, num_envs=3, seed=1)
    for one in (sessions, ours):
        one.reset(seed=7)
    items = ours.action_masks().argmax(axis=1)
    chex.assert_trees_all_equal(sessions.step(items), ours.step(items))
    with pytest.raises(InputError, match="leave out render_mode"):
        gymnasium.make_vec(built, num_envs=3, render_mode="ansi", **SETTINGS)


def test_the_seed_is_optional(built):
    """With one, sessions are equal; without, they are new each time."""
    seeded = [make_session("anime", seed=3, **SETTINGS).reset()[0] for _ in range(2)]
    chex.assert_trees_all_equal(*seeded)
    users = {int(make_session("anime", **SETTINGS).reset()[0]["user"][0]) for _ in range(20)}
    assert len(users) > 1


def test_environments_of_one_name_share_their_params(built, dataset):
    one, two = (make_session("anime", **SETTINGS) for _ in range(2))
    assert one._params is two._params
    other = make_session("anime", **{**SETTINGS, "semantics": "released"})
    assert other._params is not one._params
    folder = jaxsim.dataset.dataset_path("anime")
    shutil.rmtree(folder)
    write_pack(dataset, folder)
    assert make_session("anime", **SETTINGS)._params is not one._params  # built again


def test_settings_that_cannot_be_compared_are_no_mistake(built, simulator):
    settings = {**SETTINGS, "satiation": {}}  # a dict has no hash
    with pytest.raises(InputError, match="satiation"):
        make_session("anime", **settings)


def test_a_session_is_rendered_with_titles(built):
    session = gymnasium.make(built, render_mode="ansi", seed=0, **SETTINGS)
    _, info = session.reset()
    session.step(int(info["action_mask"].argmax()))
    assert "shared pros with liked items" in session.render()


def test_a_dataset_that_is_not_built_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(tmp_path))
    with pytest.raises(InputError, match="prep build yelp"):
        gymnasium.make(gymnasium_id("yelp"))
