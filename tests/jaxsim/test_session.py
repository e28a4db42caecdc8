"""The session: the transition, invalid actions, departure, and the observation."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsim import InputError
from tests.conftest import CAPACITY, HISTORY, WINDOW, Simulator, allowed, never_leaves, simulator_of
from tests.factory import make_dataset


@pytest.fixture(scope="module")
def allow(dataset) -> Simulator:
    return simulator_of(dataset, repeats="allow")


# ---- the transition --------------------------------------------------------------------------------------


def test_step_decides_as_respond_and_appends_the_response(either):
    _, env, params = either
    params = never_leaves(params)
    respond = jax.jit(env.respond)
    obs, state = env.reset(jax.random.key(0), params)
    rewards = []
    for step in range(CAPACITY):
        key, action = jax.random.key(100 + step), allowed(env, obs, params, step)
        key_response, _ = jax.random.split(jax.random.split(key)[0])
        expected = respond(key_response, obs.items, obs.responses, action, params, state.user)
        before = obs
        _, next_state, reward, _, truncated, info = env.step(key, state, action, params)
        assert info["votes"].tolist() == expected.votes.tolist()
        assert reward == expected.reward == info["response"].like
        after, end = info["final_observation"], int(before.length)
        assert after.length == end + 1
        assert after.items[end] == action
        assert after.responses[end] == (1 if reward else -1)
        np.testing.assert_array_equal(after.items[:end], before.items[:end])
        np.testing.assert_array_equal(after.responses[:end], before.responses[:end])
        assert truncated == (step == CAPACITY - 1)
        obs, state = after, next_state
        rewards.append(float(reward))
    assert 0 < sum(rewards) < CAPACITY  # both outcomes were met


def invalid_actions(obs, env) -> dict[str, int]:
    return {
        "in the history": int(obs.items[0]),
        "in the session": int(obs.items[obs.length - 1]),
        "negative": -1,
        "very negative": -(2**31),
        "one too many": env.num_items,
        "far too many": 2**31 - 1,
    }


INVALID_CASES = pytest.mark.parametrize(
    "case",
    [
        "in the history",
        "in the session",
        "negative",
        "very negative",
        "one too many",
        "far too many",
    ],
)


def one_step_in(simulator):
    """A session that holds one recommendation, of a user who never leaves."""
    env, params = simulator.env, never_leaves(simulator.params)
    obs, state = env.reset(jax.random.key(4), params)
    obs, state, *_ = env.step(jax.random.key(5), state, allowed(env, obs, params, 0), params)
    return env, params, obs, state


@INVALID_CASES
def test_invalid_actions_earn_nothing_and_take_their_time(simulator, case):
    env, params, obs, state = one_step_in(simulator)
    action = jnp.int32(invalid_actions(obs, env)[case])
    step = jax.jit(env.step)
    for seed in range(8):
        after, new, reward, terminated, _, info = step(jax.random.key(seed), state, action, params)
        assert info["invalid_action"]
        assert reward == 0 == info["response"].like
        chex.assert_trees_all_equal(after, obs)
        chex.assert_trees_all_equal(new.replace(time=0), state.replace(time=0))
        assert new.time == state.time + 1
        assert not terminated
    _, _, _, terminated, _, _ = step(
        jax.random.key(0), state, action, params.replace(departure_probability=jnp.float32(1))
    )
    assert terminated  # the user may leave all the same


@INVALID_CASES
def test_invalid_actions_are_refused_where_they_are_known(simulator, case):
    env, params, obs, state = one_step_in(simulator)
    action = invalid_actions(obs, env)[case]
    expected = "action_mask allows" if "in the" in case else r"outside \[0, 40\)"
    with pytest.raises(InputError, match=rf"action (is )?{action}.*{expected}") as caught:
        env.step(jax.random.key(0), state, jnp.int32(action), params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "in jit"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": jnp.float32(1)}, r"action is float32\[\]: pass integers"),
        ({"action": np.array(True)}, r"action is bool\[\]: pass integers"),
        ({"action": jnp.array([1, 2])}, r"action is int32\[2\].*0 dimensions.*vmap"),
        ({"key": 0}, r"key is 0, not a PRNG key.*jax.random.key"),
        ({"key": jnp.float32(0)}, r"key is float32\[\], not a PRNG key"),
        ({"key": jax.random.split(jax.random.key(0), 3)}, r"not one key.*vmap"),
    ],
)
def test_wrong_types_and_ranks_are_refused_in_and_outside_jit(
    simulator, traced, arguments, message
):
    env, params = simulator.env, simulator.params
    _, state = env.reset(jax.random.key(4), params)
    given = {"key": jax.random.key(0), "action": jnp.int32(1), **arguments}

    def step(given):
        return env.step(given["key"], state, given["action"], params)

    if traced and isinstance(given["key"], int):  # jit makes an array of it
        message = r"key is int32\[\], not a PRNG key"
    with pytest.raises(InputError, match=message):
        (jax.jit(step) if traced else step)(given)


@pytest.mark.parametrize("shift", [2**32, -(2**32), 2**40])
def test_numbers_beyond_32_bits_never_wrap_to_an_item(simulator, shift):
    env, params = simulator.env, simulator.params
    obs, state = env.reset(jax.random.key(4), params)
    action = int(allowed(env, obs, params, 0)) + shift
    with pytest.raises(InputError, match="outside"):
        env.step(jax.random.key(0), state, action, params)
    step = jax.jit(lambda state: env.step_env(jax.random.key(0), state, np.int64(action), params))
    assert step(state)[-1]["invalid_action"]
    with pytest.raises(InputError, match="outside"):  # known, though the state is not
        jax.jit(lambda state: env.step(jax.random.key(0), state, action, params))(state)


@pytest.mark.parametrize("user", [-1, 23, 10**6])
def test_users_who_do_not_exist_start_no_session(simulator, user):
    env, params = simulator.env, simulator.params
    with pytest.raises(InputError, match=rf"user is {user}, outside \[0, 23\)"):
        env.reset_user(user, params)
    obs, _ = jax.jit(env.reset_user)(jnp.int32(user), params)
    assert obs.user == min(max(user, 0), 22)
    assert env.observation_space(params).contains(obs)


def test_valid_actions_are_not_called_invalid(simulator):
    env, params = simulator.env, simulator.params
    obs, state = env.reset(jax.random.key(4), params)
    step = jax.jit(jax.vmap(env.step_env, (None, None, 0, None)))
    *_, info = step(jax.random.key(0), state, jnp.arange(env.num_items), params)
    np.testing.assert_array_equal(~info["invalid_action"], env.action_mask(obs, params))


def test_action_mask_forbids_the_window_alone(simulator, allow):
    env, params = simulator.env, simulator.params
    obs, state = env.reset(jax.random.key(1), params)
    for step in range(4):
        seen = {int(i) for i in obs.items if i >= 0}
        mask = env.action_mask(obs, params)
        assert (mask.dtype, mask.shape) == (jnp.bool_, (env.num_items,))
        assert set(np.flatnonzero(~mask).tolist()) == seen
        assert allow.env.action_mask(obs, params).all()
        action = allowed(env, obs, params, step)
        obs, state, *_ = env.step(jax.random.key(step), state, action, never_leaves(params))


def test_repeats_may_be_allowed(allow):
    env, params = allow.env, never_leaves(allow.params)
    obs, state = env.reset(jax.random.key(4), params)
    action, length = obs.items[0], obs.length
    for step in range(3):
        obs, state, *_, info = env.step(jax.random.key(step), state, action, params)
        assert not info["invalid_action"]
    assert obs.items[length : length + 3].tolist() == [action] * 3
    with pytest.raises(InputError, match="outside"):
        env.step(jax.random.key(0), state, jnp.int32(env.num_items), params)


# ---- the end of a session --------------------------------------------------------------------------------


@pytest.mark.parametrize("longest", [1, 5, CAPACITY, CAPACITY + 50])
def test_sessions_are_cut_at_the_shorter_of_both_limits(simulator, longest):
    env = simulator.env
    params = never_leaves(simulator.params).replace(max_steps_in_episode=jnp.int32(longest))
    obs, state = env.reset(jax.random.key(0), params)
    expected = min(longest, CAPACITY)
    for step in range(2 * expected):
        action = allowed(env, obs, params, step)
        obs, state, _, terminated, truncated, info = env.step(
            jax.random.key(step), state, action, params
        )
        assert not terminated
        assert truncated == ((step + 1) % expected == 0)
        assert state.time == (step + 1) % expected
    start = env.reset_user(state.user, params)[0]
    chex.assert_trees_all_equal(obs, start)
    assert info["final_observation"].length > HISTORY or expected < HISTORY


@pytest.fixture(scope="module")
def full_length() -> Simulator:
    """Sessions of up to 100 steps, on a catalogue and a model as small as can be."""
    dataset = make_dataset([[0]] * 3, [[0]] * 3, [[]] * 3, [([0, 1, 2, 0, 1], [1] * 5)], window=101)
    return simulator_of(dataset, history_length=1, session_capacity=100, repeats="allow")


@pytest.mark.slow
def test_users_leave_with_the_stated_probability(full_length):
    """The defaults: departure 0.025, at most 100 steps, so 36.8 steps in the mean."""
    _, env, params = full_length
    assert params.departure_probability == np.float32(0.025)
    assert params.max_steps_in_episode == 100

    @jax.jit
    def length(key, params):
        def body(carry):
            state, _, key = carry
            key, key_step = jax.random.split(key)
            _, state, _, terminated, _ = env.step_env(key_step, state, jnp.int32(0), params)
            return state, terminated | env.is_truncated(state, params), key

        start = env.reset_user(jnp.int32(0), params)[1], jnp.array(False), key
        return jax.lax.while_loop(lambda carry: ~carry[1], body, start)[0].time

    keys = jax.random.split(jax.random.key(0), 1500)
    lengths = np.asarray(jax.vmap(length, (0, None))(keys, params))
    stay = 0.975
    expected = (1 - stay**100) / (1 - stay)
    assert round(expected, 1) == 36.8
    assert abs(lengths.mean() - expected) < 4 * lengths.std() / np.sqrt(1500)
    left, steps = (lengths < 100).sum(), np.minimum(lengths, 99).sum()
    assert abs(left / steps - 0.025) < 4.5 * np.sqrt(0.025 * stay / steps)
    assert lengths.max() == 100


def test_termination_and_truncation_are_two_things(simulator):
    env = simulator.env
    params = simulator.params.replace(
        departure_probability=jnp.float32(1), max_steps_in_episode=jnp.int32(1)
    )
    obs, state = env.reset(jax.random.key(0), params)
    args = jax.random.key(1), state, allowed(env, obs, params, 0)
    assert [bool(flag) for flag in env.step(*args, params)[3:5]] == [True, True]
    stays = never_leaves(params)
    assert [bool(flag) for flag in env.step(*args, stays)[3:5]] == [False, True]


# ---- the observation -------------------------------------------------------------------------------------


def plain_history(dataset, user: int, history_length: int) -> list[tuple[int, int]]:
    """The latest training interactions: the first 80 % of a user's, the last `history_length` of them."""
    arrays = dataset.arrays
    start, stop = arrays["user_offsets"][user : user + 2]
    count = int(stop - start)
    train = count if count < 5 else int(0.8 * count)
    pairs = zip(arrays["interaction_item"], arrays["interaction_label"], strict=True)
    return [(int(i), int(y)) for i, y in list(pairs)[start : start + train][-history_length:]]


def test_a_session_starts_from_the_latest_training_interactions(simulator):
    dataset, env, params = simulator
    users = jnp.arange(dataset.num_users)
    obs, _ = jax.vmap(env.reset_user, (0, None))(users, params)
    lengths = set()
    for user in range(dataset.num_users):
        history = plain_history(dataset, user, HISTORY)
        lengths.add(len(history))
        padding = WINDOW - len(history)
        assert obs.user[user] == user
        assert obs.length[user] == len(history)
        assert obs.items[user].tolist() == [i for i, _ in history] + [-1] * padding
        assert obs.responses[user].tolist() == [2 * y - 1 for _, y in history] + [0] * padding
    assert {HISTORY} < lengths  # shorter ones were met too


def test_no_later_interaction_is_ever_observed(simulator):
    """Items are distinct within a user here, so a later interaction's item would give it away."""
    dataset, env, params = simulator
    arrays = dataset.arrays
    obs, _ = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 200), params)
    for user, items in zip(obs.user.tolist(), np.asarray(obs.items), strict=True):
        rows = slice(*arrays["user_offsets"][user : user + 2])
        later = arrays["interaction_item"][rows][arrays["interaction_split"][rows] > 0]
        assert not set(later.tolist()) & set(items.tolist())


@pytest.mark.parametrize("users", ["train", "held_out", "all"])
def test_session_users_are_eligible_and_of_the_group(dataset, users):
    _, env, params = simulator_of(dataset, users=users)
    counts = np.diff(dataset.arrays["user_offsets"])
    group = {
        "train": lambda user: user % 10 != 9,
        "held_out": lambda user: user % 10 == 9,
        "all": lambda user: True,
    }[users]
    expected = {u for u in range(dataset.num_users) if counts[u] >= 5 and group(u)}
    assert (counts < 5).any()
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = jax.vmap(env.reset, (0, None))(keys, params)[1].user
    assert set(np.asarray(drawn).tolist()) == expected


def test_users_are_drawn_uniformly(simulator):
    _, env, params = simulator
    keys = jax.random.split(jax.random.key(7), 4000)
    drawn = jax.vmap(env.reset, (0, None))(keys, params)[1].user
    counts = np.bincount(drawn)[np.asarray(params.session_users)]
    expected = 4000 / len(params.session_users)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = len(params.session_users) - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("session_length", [0, 1, 5, CAPACITY])
def test_window_of_puts_the_session_after_the_history(simulator, session_length):
    dataset, env, params = simulator
    rng = np.random.default_rng(session_length)
    items, likes = rng.integers(0, env.num_items, CAPACITY), rng.integers(0, 2, CAPACITY)
    session = list(zip(items, likes, strict=True))[:session_length]
    window = jax.jit(env.window_of)
    for user in range(5):
        obs = window(user, jnp.int32(items), jnp.int8(likes), session_length, params)
        expected = plain_history(dataset, user, HISTORY) + session
        padding = WINDOW - len(expected)
        assert obs.length == len(expected)
        assert obs.items.tolist() == [i for i, _ in expected] + [-1] * padding
        assert obs.responses.tolist() == [2 * y - 1 for _, y in expected] + [0] * padding
