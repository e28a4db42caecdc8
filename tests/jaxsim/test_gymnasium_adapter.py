"""The simulator behind Gymnasium's interface gives the sessions of the simulator itself."""

import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from jaxsim import InputError
from jaxsim.gymnasium_adapter import GymnasiumEnv, GymnasiumVectorEnv, _session_programs
from tests.conftest import CAPACITY, leaving_with, never_leaves, simulator_of
from tests.slates import with_rates

NUM_ENVS = 5


@pytest.fixture
def session(simulator) -> GymnasiumEnv:
    return GymnasiumEnv(simulator.env, simulator.params, seed=0)


def assert_same_obs(actual, expected):
    assert set(actual) == {"user", "items", "responses", "length"}
    for name, value in actual.items():
        np.testing.assert_array_equal(value.squeeze(), np.asarray(getattr(expected, name)))


# ---- one session -----------------------------------------------------------------------------------------


def test_gymnasium_accepts_it(session):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(session, skip_render_check=True)  # without a spec there is nothing to render


def test_stable_baselines_accepts_it(session):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(session)


def test_a_session_is_that_of_the_simulator(simulator):
    """The same keys and actions, stepped by hand."""
    _, env, params = simulator
    params = leaving_with(simulator.params, 0.2)
    session = GymnasiumEnv(env, params, seed=1)
    actual, info = session.reset(seed=7)
    key, key_reset = jax.random.split(jax.random.key(7))
    obs, state = env.reset(key_reset, params)
    step_env, rng, ended = jax.jit(env.step_env), np.random.default_rng(0), False
    while not ended:
        assert_same_obs(actual, obs)
        np.testing.assert_array_equal(info["action_mask"], env.action_mask(obs, params))
        action = rng.choice(np.flatnonzero(info["action_mask"]))
        actual, reward, terminated, truncated, info = session.step(action)
        key, key_step = jax.random.split(key)
        obs, state, own_reward, own_terminated, own_info = step_env(key_step, state, action, params)
        assert (reward, terminated) == (float(own_reward), bool(own_terminated))
        assert truncated == bool(env.is_truncated(state, params))
        assert info["response"] == {"like": own_info["response"].like}
        np.testing.assert_array_equal(info["votes"], own_info["votes"])
        assert not info["invalid_action"]
        ended = terminated or truncated
    assert_same_obs(actual, obs)
    assert int(actual["length"][0]) > int(state.history_length)


def play(session, seed, steps=6):
    obs, info = session.reset(seed=seed)
    record = [obs]
    for _ in range(steps):
        obs, reward, terminated, truncated, info = session.step(np.argmax(info["action_mask"]))
        record += [obs, reward, info["votes"]]
        if terminated or truncated:
            obs, info = session.reset()
            record.append(obs)
    return record


def equal(one, other):
    return len(jax.tree.leaves(one)) == len(jax.tree.leaves(other)) and all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


def test_sessions_are_a_function_of_the_seed(simulator, session):
    other = GymnasiumEnv(simulator.env, simulator.params, seed=99)
    first = play(session, 3)
    assert equal(first, play(other, 3))
    assert equal(first, play(session, 3))
    assert not equal(first, play(session, 4))


def test_without_a_seed_the_stream_goes_on(simulator, session):
    users = [int(session.reset()[0]["user"][0]) for _ in range(12)]
    assert len(set(users)) > 3
    again = GymnasiumEnv(simulator.env, simulator.params, seed=0)
    assert users == [int(again.reset()[0]["user"][0]) for _ in range(12)]


def test_the_largest_seed_serves(session):
    session.reset(seed=2**32 - 1)


def test_a_user_can_be_chosen(simulator, session):
    for user in (0, 11):
        obs, _ = session.reset(options={"user": user})
        assert_same_obs(obs, simulator.env.reset_user(jnp.int32(user), simulator.params)[0])
    first = session.reset(seed=2, options={"user": 3})
    assert equal(first, session.reset(seed=2, options={"user": 3}))


@pytest.mark.parametrize(
    "invalid",
    [
        pytest.param(None, id="an item of the history"),
        pytest.param(-1, id="below the catalogue"),
        pytest.param(40, id="above the catalogue"),
        pytest.param(2**32 + 20, id="one that would wrap to an item"),
    ],
)
def test_an_invalid_action_earns_nothing(simulator, invalid):
    session = GymnasiumEnv(simulator.env, leaving_with(simulator.params, 0.0), seed=0)
    before, info = session.reset(options={"user": 0})
    action = int(before["items"][0]) if invalid is None else invalid
    obs, reward, terminated, truncated, after = session.step(action)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert after["invalid_action"]
    assert after["response"] == {"like": 0}
    assert equal(obs, before)
    obs, _, _, _, after = session.step(np.argmax(info["action_mask"]))
    assert not after["invalid_action"]
    assert obs["length"][0] == before["length"][0] + 1


def test_the_mask_forbids_the_window(session):
    obs, info = session.reset(options={"user": 0})
    for _ in range(3):
        seen = obs["items"][obs["items"] >= 0]
        expected = ~np.isin(np.arange(40), seen)
        np.testing.assert_array_equal(info["action_mask"], expected)
        np.testing.assert_array_equal(session.action_masks(), expected)
        info["action_mask"][:] = True  # the caller's own
        obs, _, terminated, truncated, info = session.step(int(np.argmax(expected)))
        assert (terminated, truncated) == (False, False)


@pytest.mark.parametrize(("probability", "steps"), [(0.0, CAPACITY), (1.0, 1)])
def test_how_a_session_ends(simulator, probability, steps):
    session = GymnasiumEnv(simulator.env, leaving_with(simulator.params, probability), seed=0)
    _, info = session.reset()
    ends = []
    for _ in range(steps):
        _, _, terminated, truncated, info = session.step(np.argmax(info["action_mask"]))
        ends.append((terminated, truncated))
    assert ends[:-1] == [(False, False)] * (steps - 1)
    assert ends[-1] == (probability == 1.0, probability == 0.0)
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        session.step(0)


def test_arrays_belong_to_the_caller(session):
    obs, _ = session.reset(seed=1)
    for value in obs.values():
        value[:] = 0
    obs, *_ = session.step(0)
    assert obs["length"][0] > 0


def test_adapters_of_equal_environments_compile_once(simulator):
    sessions = [GymnasiumEnv(simulator.env, simulator.params, seed=s) for s in range(2)]
    for session in sessions:
        play(session, 0, steps=3)
    programs = _session_programs(simulator.env)
    assert all(session._programs is programs for session in sessions)
    assert programs.step._cache_size() == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda s: s.step(0), r"call reset\(\) first", id="no session"),
        pytest.param(
            lambda s: s.reset(options={"users": 0}), "options has 'users': use 'user'", id="option"
        ),
        pytest.param(lambda s: s.reset(options={"user": 23}), "user is 23, outside", id="user"),
        pytest.param(lambda s: s.reset(options={"user": [1, 2]}), "user is", id="users"),
        pytest.param(lambda s: (s.reset(), s.step(0.5)), "action is .*integers", id="action"),
        pytest.param(lambda s: s.reset(seed=2**32), "seed is 4294967296, outside", id="seed"),
    ],
)
def test_mistakes_are_one_line(session, call, message):
    with pytest.raises(InputError, match=message) as error:
        call(session)
    assert "\n" not in str(error.value)


# ---- many sessions ---------------------------------------------------------------------------------------


@pytest.fixture
def sessions(simulator) -> GymnasiumVectorEnv:
    return GymnasiumVectorEnv(simulator.env, leaving_with(simulator.params, 0.3), NUM_ENVS, seed=0)


@pytest.mark.slow
def test_many_sessions_are_those_of_the_simulator(simulator, sessions):
    _, env, _ = simulator
    params = leaving_with(simulator.params, 0.3)
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    mask = jax.jit(jax.vmap(env.action_mask, (0, None)))
    actual, infos = sessions.reset(seed=5)
    assert infos == {}
    key, key_reset = jax.random.split(jax.random.key(5))
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, NUM_ENVS), params)
    ended = 0
    for _ in range(8):
        assert_same_obs(actual, obs)
        assert sessions.observation_space.contains(actual)
        masks = sessions.action_masks()
        np.testing.assert_array_equal(masks, mask(obs, params))
        actions = masks.argmax(axis=1)
        assert sessions.action_space.contains(actions)
        actual, rewards, terminations, truncations, infos = sessions.step(actions)
        key, key_step = jax.random.split(key)
        keys = jax.random.split(key_step, NUM_ENVS)
        obs, state, own_rewards, terminated, truncated, info = step(keys, state, actions, params)
        np.testing.assert_array_equal(rewards, own_rewards)
        np.testing.assert_array_equal(terminations, terminated)
        np.testing.assert_array_equal(truncations, truncated)
        np.testing.assert_array_equal(infos["votes"], info["votes"])
        np.testing.assert_array_equal(infos["response"]["like"], info["response"].like)
        assert not infos["invalid_action"].any()
        assert infos["_votes"].all()
        assert infos["response"]["_like"].all()
        ended += check_final_observations(infos, terminations | truncations, info)
    assert ended > 3


def check_final_observations(infos, done, info):
    assert ("final_obs" in infos) == done.any()
    for i in np.flatnonzero(done):
        final = jax.tree.map(lambda x, i=i: x[i], info["final_observation"])
        assert_same_obs(infos["final_obs"][i], final)
    if done.any():
        np.testing.assert_array_equal(infos["_final_obs"], done)
        np.testing.assert_array_equal(infos["_final_info"], done)
        final = infos["final_info"]
        np.testing.assert_array_equal(final["votes"][done], info["votes"][done])
        np.testing.assert_array_equal(final["response"]["like"][done], info["response"].like[done])
        assert not final["votes"][~done].any()
        assert all(infos["final_obs"][i] is None for i in np.flatnonzero(~done))
    return done.sum()


def test_many_sessions_declare_how_they_reset(sessions):
    assert sessions.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert sessions.num_envs == NUM_ENVS
    assert sessions.single_observation_space.contains(
        {name: value[0] for name, value in sessions.reset()[0].items()}
    )


def test_many_sessions_are_a_function_of_the_seed(sessions):
    first = sessions.reset(seed=1)
    assert not equal(first, sessions.reset())
    assert equal(first, sessions.reset(seed=1))


def test_users_of_many_sessions_can_be_chosen(sessions):
    users = np.array([4, 0, 22, 4, 9])
    np.testing.assert_array_equal(sessions.reset(options={"user": users})[0]["user"][:, 0], users)
    assert (sessions.reset(options={"user": 6})[0]["user"] == 6).all()


@pytest.mark.slow
def test_invalid_actions_of_many_sessions_earn_nothing(sessions):
    sessions.reset()
    actions = np.array([40, -3, 2**40, 2**32, sessions.action_masks()[4].argmax()])
    _, rewards, _, _, infos = sessions.step(actions)
    assert infos["invalid_action"].tolist() == [True] * 4 + [False]
    assert not rewards[:4].any()


def test_infos_are_those_of_gymnasiums_own_vector_environment(simulator):
    """Sessions of two steps, one of them restarted after the first: the others end one step earlier."""
    env, params = simulator.env, never_leaves(simulator.params)
    params = params.replace(max_steps_in_episode=jnp.int32(2))
    users, mask = [3, 11, 7], np.array([False, True, False])
    theirs = SyncVectorEnv(
        [lambda u=user: _OneUser(GymnasiumEnv(env, params, seed=0), u) for user in users],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    ours = GymnasiumVectorEnv(env, params, 3, seed=0)
    obs, _ = theirs.reset()
    assert equal(obs["items"], ours.reset(options={"user": np.array(users)})[0]["items"])
    actions = ours.action_masks().argmax(axis=1)
    theirs.step(actions)
    ours.step(actions)
    obs, _ = theirs.reset(options={"reset_mask": mask.copy()})
    again, _ = ours.reset(options={"user": np.array(users), "reset_mask": mask})
    assert equal(obs["items"], again["items"])
    actions = ours.action_masks().argmax(axis=1)
    *_, expected = theirs.step(actions)
    *_, actual = ours.step(actions)
    assert actual["_final_info"].tolist() == expected["_final_info"].tolist() == [True, False, True]
    assert actual["_final_obs"].tolist() == expected["_final_obs"].tolist()
    for row in (0, 2):
        assert equal(actual["final_obs"][row]["items"], expected["final_obs"][row]["items"])
    for name in ("action_mask", "_action_mask"):  # ours computes masks only in action_masks()
        del expected["final_info"][name]
    check_same_form(actual["final_info"], expected["final_info"])


class _OneUser(gymnasium.Wrapper):
    """Every session is of one user."""

    def __init__(self, session, user):
        super().__init__(session)
        self.user = user

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=seed, options={"user": self.user})


def check_same_form(actual, expected):
    """The same entries, of the same shapes and types; the masks are equal."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        if isinstance(value, dict):
            check_same_form(actual[name], value)
        else:
            assert (actual[name].shape, actual[name].dtype) == (value.shape, value.dtype)
            if name.startswith("_"):
                np.testing.assert_array_equal(actual[name], value)


def test_each_session_may_have_a_seed_of_its_own(simulator, sessions):
    """Session i is a function of seed i and its actions, whatever the others do."""

    def play_with(seeds):
        obs, _ = sessions.reset(seed=seeds)
        record = [obs]
        for _ in range(6):
            record.append(sessions.step(sessions.action_masks().argmax(axis=1))[0])
        return [jax.tree.map(lambda x: x[0], record), jax.tree.map(lambda x: x[1:], record)]

    first, rest = play_with([3, 5, 5, 8, 9])
    own, _ = GymnasiumEnv(simulator.env, simulator.params, seed=0).reset(seed=3)
    assert equal(first[0], own)
    other_first, same_rest = play_with([4, 5, 5, 8, 9])
    assert equal(rest, same_rest)
    assert not equal(first, other_first)
    assert equal(first, play_with([3, 1, 2, 3, 4])[0])


def test_a_mask_says_which_sessions_start_anew(simulator):
    sessions = GymnasiumVectorEnv(simulator.env, never_leaves(simulator.params), NUM_ENVS, seed=0)
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        sessions.reset(options={"reset_mask": np.arange(NUM_ENVS) == 1})
    sessions.reset(seed=[1, 2, 3, 4, 5])
    actions = sessions.action_masks().argmax(axis=1)
    before, *_ = sessions.step(actions)
    mask = np.array([True, False, False, True, False])
    options = {"reset_mask": mask, "user": 6}
    after, infos = sessions.reset(seed=[7, None, 9, 10, 11], options=options)
    assert infos == {}
    assert set(options) == {"reset_mask", "user"}  # the caller's own
    for name in before:
        np.testing.assert_array_equal(after[name][~mask], before[name][~mask])
    assert (after["user"][mask] == 6).all()
    stepped, *_ = sessions.step(sessions.action_masks().argmax(axis=1))
    assert (stepped["length"] == after["length"] + 1).all()
    # The sessions that went on are those that nobody interrupted: the mask protects their seeds, too.
    sessions.reset(seed=[1, 2, 3, 4, 5])
    sessions.step(actions)
    undisturbed, *_ = sessions.step(sessions.action_masks().argmax(axis=1))
    for name in stepped:
        np.testing.assert_array_equal(stepped[name][~mask], undisturbed[name][~mask])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda s: s.step(np.zeros(5, int)), r"call reset\(\) first", id="step"),
        pytest.param(lambda s: s.action_masks(), r"call reset\(\) first", id="masks"),
        pytest.param(
            lambda s: (s.reset(), s.step(np.zeros(4, int))), "actions has 4 .* pass 5", id="actions"
        ),
        pytest.param(lambda s: s.reset(options={"user": [1, 2]}), "user has shape", id="users"),
        pytest.param(lambda s: s.reset(options={"user": [0, 1, 2, 3, 23]}), "has 23", id="user"),
        pytest.param(lambda s: s.reset(seed=[1, 2]), "seed has 2 numbers: pass 5", id="seeds"),
        pytest.param(lambda s: s.reset(seed=[1, 2, -3, 4, 5]), r"seed\[2\] is -3", id="seed"),
        pytest.param(
            lambda s: s.reset(options={"reset_mask": [1, 0, 0, 0, 0]}),
            r"reset_mask is int64\[5\]: pass bool\[5\]",
            id="mask",
        ),
        pytest.param(
            lambda s: s.reset(options={"reset_mask": np.zeros(5, bool)}),
            "chooses no session",
            id="empty mask",
        ),
    ],
)
def test_mistakes_with_many_sessions_are_one_line(sessions, call, message):
    with pytest.raises(InputError, match=message) as error:
        call(sessions)
    assert "\n" not in str(error.value)


def test_no_sessions_are_refused(simulator):
    with pytest.raises(InputError, match="num_envs is 0"):
        GymnasiumVectorEnv(simulator.env, simulator.params, 0, seed=0)


# ---- users of the taste model --------------------------------------------------------------------------------


@pytest.mark.slow  # compiles two programs
def test_every_session_draws_a_taste_of_its_own(dataset):
    """The same users again, chosen or not, and the same items: other probabilities. A seed brings them back."""
    _, env, params = simulator_of(dataset, semantics="calibrated", taste="latent")
    params = never_leaves(params)
    one, many = GymnasiumEnv(env, params, seed=0), GymnasiumVectorEnv(env, params, 3, seed=0)

    def of_one(seed=None) -> float:
        _, info = one.reset(seed=seed, options={"user": 4})
        return float(one.step(int(info["action_mask"].argmax()))[4]["probability"])

    def of_many(seed=None) -> np.ndarray:
        many.reset(seed=seed, options={"user": 4})
        infos = many.step(many.action_masks().argmax(axis=1))[4]
        assert "votes" not in infos
        assert infos["_probability"].all()
        return infos["probability"]

    assert len({of_one(seed) for seed in (1, None, None, 2)}) == 4
    assert of_one(1) == of_one(1)
    drawn = np.concatenate([of_many(1), of_many()])
    assert len(set(drawn.tolist())) == 6
    np.testing.assert_array_equal(of_many(1), drawn[:3])


# ---- slates ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slates(dataset):
    return with_rates(dataset, slate_size=2, session_capacity=4)


@pytest.mark.slow
def test_a_session_with_slates_is_that_of_the_simulator(slates):
    _, env, params = slates
    params = leaving_with(params, 0.2)
    session = GymnasiumEnv(env, params, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(session, skip_render_check=True)
    assert session.action_space == gymnasium.spaces.MultiDiscrete([env.num_items] * 2)
    actual, info = session.reset(seed=7)
    key, key_reset = jax.random.split(jax.random.key(7))
    obs, state = env.reset(key_reset, params)
    step_env, ended = jax.jit(env.step_env), False
    while not ended:
        for name, value in actual.items():
            np.testing.assert_array_equal(value.squeeze(), getattr(obs, name))
        slate = np.flatnonzero(info["action_mask"])[[3, 1]]
        actual, reward, terminated, truncated, info = session.step(slate)
        key, key_step = jax.random.split(key)
        obs, state, expected, left, stepped = step_env(key_step, state, jnp.asarray(slate), params)
        assert (reward, terminated) == (expected, left)
        for name in ("slate", "scores", "probabilities", "place", "invalid_action"):
            np.testing.assert_allclose(info[name], stepped[name], rtol=1e-6)
        ended = terminated or truncated
    session.reset()
    *_, info = session.step([3, 3])
    assert info["invalid_action"]
    session.reset()
    with pytest.raises(InputError, match="action has 3 items: pass a slate of 2"):
        session.step([1, 2, 3])


@pytest.mark.slow
def test_many_sessions_with_slates(slates):
    _, env, params = slates
    sessions = GymnasiumVectorEnv(env, never_leaves(params), NUM_ENVS, seed=0)
    obs, _ = sessions.reset()
    assert obs in sessions.observation_space
    for t in range(4):
        masks = sessions.action_masks()
        slate = np.stack([np.flatnonzero(mask)[:2] for mask in masks])
        assert slate in sessions.action_space
        obs, rewards, _, truncations, infos = sessions.step(slate)
        np.testing.assert_array_equal(infos["slate"], slate)
        np.testing.assert_array_equal(rewards, infos["place"] >= 0)
        if t < 3:
            np.testing.assert_array_equal(obs["shown"][:, t], slate)
    assert truncations.all()
    np.testing.assert_array_equal(infos["final_obs"][0]["shown"][3], slate[0])
    with pytest.raises(InputError, match=r"actions is int\d+\[5\], but needs 2 dimensions"):
        sessions.step(np.zeros(NUM_ENVS, int))
