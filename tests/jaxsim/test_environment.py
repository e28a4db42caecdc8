"""The session: gymnax's contract, the transition, invalid actions, departure, and the observation."""

import dataclasses
from functools import partial

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.environment import Environment
from gymnax.wrappers import LogWrapper

import jaxsim
from agents.algorithms.choice import random_allowed
from jaxsim import InputError
from jaxsim.factory import prefix_bytes
from tests import reference
from tests.conftest import CAPACITY, HISTORY, Simulator, simulator_of
from tests.factory import make_dataset, random_dataset, write_pack

WINDOW = HISTORY + CAPACITY


def allowed(env, obs, params, seed) -> jax.Array:
    choices = np.flatnonzero(env.action_mask(obs, params))
    return jnp.int32(np.random.default_rng(seed).choice(choices))


def never_leaves(params):
    return params.replace(departure_probability=jnp.float32(0))


@pytest.fixture(scope="module")
def allow(dataset) -> Simulator:
    return simulator_of(dataset, repeats="allow")


# ---- gymnax's contract -----------------------------------------------------------------------------------


def test_step_returns_six_values_with_both_flags(simulator):
    env, params = simulator.env, simulator.params
    obs, state = env.reset(jax.random.key(0), params)
    stepped = env.step(jax.random.key(1), state, allowed(env, obs, params, 0), params)
    obs, state, reward, terminated, truncated, info = stepped
    assert (reward.dtype, reward.shape) == (jnp.float32, ())
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        assert (flag.dtype, flag.shape) == (jnp.bool_, ())
        assert info[name] == flag
    assert info["response"].like == reward
    assert (info["votes"].dtype, info["votes"].shape) == (jnp.int8, (3,))
    chex.assert_trees_all_equal(info["final_observation"], obs)  # nothing ended


def test_reset_and_step_have_equal_shapes_and_types(simulator):
    env, params = simulator.env, simulator.params
    obs, state = env.reset(jax.random.key(0), params)
    next_obs, next_state, *_, info = env.step(jax.random.key(0), state, jnp.int32(0), params)
    chex.assert_trees_all_equal_shapes_and_dtypes((obs, state), (next_obs, next_state))
    chex.assert_trees_all_equal_shapes_and_dtypes(obs, info["final_observation"])


def test_reset_and_step_compile_once_also_for_a_second_environment(dataset):
    def run(env, key, params):
        return env.reset(key, params)

    def step(env, key, state, action, params):
        return env.step(key, state, action, params)

    once = [jax.jit(chex.assert_max_traces(f, n=1), static_argnums=0) for f in (run, step)]
    environments = [simulator_of(dataset) for _ in range(2)]
    assert environments[0].env is not environments[1].env
    for _, env, params in environments:
        _, state = once[0](env, jax.random.key(0), params)
        for action in range(5):
            key = jax.random.key(action)
            _, state, *_ = once[1](env, key, state, jnp.int32(action), params)


def test_calling_reset_and_step_compiles_each_once(dataset):
    """Also for a second environment of equal settings, and for actions given as other kinds of integers."""
    settings = {"history_length": 7, "session_capacity": 11}  # of no other test
    before = [f._cache_size() for f in (jaxsim.UserSimulator._reset, jaxsim.UserSimulator._step)]
    for _ in range(2):
        _, env, params = simulator_of(dataset, **settings)
        obs, state = env.reset(jax.random.key(0), params)
        for kind in (jnp.int32, int, np.int64, np.int32):
            action = kind(allowed(env, obs, params, 0))
            obs, state, *_ = env.step(jax.random.key(1), state, action, never_leaves(params))
    after = [f._cache_size() for f in (jaxsim.UserSimulator._reset, jaxsim.UserSimulator._step)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1]


def test_environments_of_equal_settings_are_equal(dataset, simulator):
    same, other = simulator_of(dataset).env, simulator_of(dataset, semantics="released").env
    assert same == simulator.env
    assert hash(same) == hash(simulator.env)
    assert other != simulator.env


def test_step_is_the_base_class_step(each_path):
    """The short cut at a reset leaves nothing of the old session behind."""
    env = each_path.env
    params = each_path.params.replace(departure_probability=jnp.float32(0.2))
    obs, ours = env.reset(jax.random.key(0), params)
    theirs = ours
    ended = 0
    for step in range(60):
        key, action = jax.random.key(step), allowed(env, obs, params, step)
        obs, ours, *rest = env.step(key, ours, action, params)
        expected_obs, theirs, *expected = Environment.step(env, key, theirs, action, params)
        chex.assert_trees_all_close((obs, rest), (expected_obs, expected), atol=1e-6)
        meaning = [
            s.replace(key_values=jax.tree.map(lambda x, s=s: x[: s.length], s.key_values))
            for s in (ours, theirs)
        ]
        chex.assert_trees_all_close(*meaning, atol=1e-6)
        ended += bool(rest[1] | rest[2])
    assert ended >= 5


def test_batched_steps_are_the_base_class_steps(each_path):
    """Under vmap a reset writes to some rows alone; the observations are those of whole states selected."""
    env = each_path.env
    params = each_path.params.replace(departure_probability=jnp.float32(0.2))
    count = 37
    ours, theirs = (
        jax.jit(jax.vmap(partial(step, env), (0, 0, 0, None)))
        for step in (jaxsim.UserSimulator.step, Environment.step)
    )
    draw = jax.jit(jax.vmap(lambda key, obs: random_allowed(key, env.action_mask(obs, params))))
    keys = jax.random.split(jax.random.key(0), (25, 3, count))
    obs, state = jax.vmap(env.reset, (0, None))(keys[0, 0], params)
    other, ended = state, 0
    for key_reset, key_action, key_step in keys:
        del key_reset
        action = draw(key_action, obs)
        obs, state, *rest = ours(key_step, state, action, params)
        expected_obs, other, *expected = theirs(key_step, other, action, params)
        chex.assert_trees_all_close((obs, rest), (expected_obs, expected), atol=1e-5)
        small = [s.replace(key_values=None) for s in (state, other)]
        chex.assert_trees_all_close(*small, atol=1e-5)
        ended += int((rest[1] | rest[2]).sum())
    assert ended > 100


def test_the_cache_is_that_of_the_window_recomputed(each_path):
    """At every position of sessions with many resets: what was kept is what encoding the window gives."""
    _, env, params = each_path
    params = params.replace(departure_probability=jnp.float32(0.15))
    count, steps = 8, 30

    @jax.jit
    def recomputed(state):
        hidden, cache = env.sasrec.apply(
            params.sasrec, state.items, state.responses, method="encode"
        )
        return hidden[state.length - 1], cache

    def body(carry, key):
        obs, state = carry
        keys = jax.random.split(key, (2, count))
        action = jax.vmap(lambda k, o: random_allowed(k, env.action_mask(o, params)))(keys[0], obs)
        obs, state, *_ = jax.vmap(env.step, (0, 0, 0, None))(keys[1], state, action, params)
        return (obs, state), state

    start = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), count), params)
    _, states = jax.lax.scan(body, start, jax.random.split(jax.random.key(1), steps))
    hidden, cache = jax.vmap(jax.vmap(recomputed))(states)
    np.testing.assert_allclose(states.hidden, hidden, atol=2e-5)
    used = jnp.arange(env.window) < states.length[..., None]
    for kept, expected in zip(
        jax.tree.leaves(states.key_values), jax.tree.leaves(cache), strict=True
    ):
        np.testing.assert_allclose(kept[used], expected[used], atol=2e-5)
    assert set(np.unique(states.session_length)) >= {0, 1, 2, 3, 4}


def test_both_paths_play_the_same_sessions(dataset):
    """The same keys give the same sessions, whatever was worked out beforehand."""
    runs = []
    for settings in (
        {"catalogue": "tables", "prefixes": "table"},
        {"catalogue": "tables", "prefixes": "encode"},
        {"table_budget": 0},
    ):
        _, env, params = simulator_of(dataset, **settings)

        def body(carry, key, env=env, params=params):
            obs, state = carry
            mask = jax.vmap(env.action_mask, (0, None))(obs, params)
            action = jax.vmap(random_allowed)(jax.random.split(key, 16), mask)
            keys = jax.random.split(jax.random.fold_in(key, 1), 16)
            obs, state, reward, *_, info = jax.vmap(env.step, (0, 0, 0, None))(
                keys, state, action, params
            )
            return (obs, state), (action, reward, info["votes"], obs.user)

        start = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 16), params)
        runs.append(jax.lax.scan(body, start, jax.random.split(jax.random.key(1), 60))[1])
    assert (env.catalogue, env.prefixes) == ("features", "encode")
    for run in runs[1:]:
        chex.assert_trees_all_equal(run, runs[0])


def test_the_representation_says_which_paths_are_taken(dataset):
    _, env, _ = simulator_of(dataset, table_budget=0, semantics="released")
    assert repr(env) == (
        "UserSimulator(num_items=40, num_users=23, history_length=8, session_capacity=12, "
        "semantics='released', repeats='mask', catalogue='features', prefixes='encode')"
    )
    pairs = sum(x.nbytes for x in jax.tree.leaves(simulator_of(dataset).params.catalogue))
    prefixes = 23 * prefix_bytes(env.sasrec, HISTORY)
    for budget, expected in (
        (pairs + prefixes, ("tables", "table")),
        (pairs + prefixes - 1, ("tables", "encode")),
        (pairs - 1, ("features", "encode")),
    ):
        _, env, params = simulator_of(dataset, table_budget=budget)
        assert (env.catalogue, env.prefixes) == expected
        found = sum(x.nbytes for x in jax.tree.leaves(params.histories.prefix))
        assert found == (prefixes if env.prefixes == "table" else 0)


def test_jit_and_vmap_agree(simulator):
    _, env, params = simulator
    keys = jax.random.split(jax.random.key(0), 4)
    resets = jax.vmap(env.reset, (0, None))(keys, params)
    first = [
        allowed(env, jax.tree.map(lambda x, i=i: x[i], resets[0]), params, i) for i in range(4)
    ]
    actions = jnp.stack(first)
    steps = jax.vmap(env.step, (0, 0, 0, None))(keys, resets[1], actions, params)
    expected = jax.vmap(env.expected_response, (0, None))(steps[1], params)
    for row in range(4):
        reset = env.reset(keys[row], params)
        step = env.step(keys[row], reset[1], actions[row], params)
        response = jax.jit(env.expected_response)(step[1], params)
        one = jax.tree.map(lambda x, row=row: x[row], (resets, steps, expected))
        chex.assert_trees_all_close((reset, step, response), one, atol=1e-5)


def test_eager_and_jit_agree(simulator):
    _, env, params = simulator
    key, action = jax.random.key(0), jnp.int32(3)
    reset = jax.jit(env.reset_env)(key, params)
    chex.assert_trees_all_close(env.reset_env(key, params), reset, atol=1e-6)
    step = jax.jit(env.step_env)(key, reset[1], action, params)
    chex.assert_trees_all_close(env.step_env(key, reset[1], action, params), step, atol=1e-5)
    expected = jax.jit(env.expected_response)(step[1], params)
    chex.assert_trees_all_close(env.expected_response(step[1], params), expected, atol=1e-6)


def test_works_under_scan_and_gymnax_log_wrapper(simulator):
    params = simulator.params.replace(departure_probability=jnp.float32(0.2))
    env = LogWrapper(simulator.env)

    def body(carry, key):
        obs, state = carry
        action = jnp.argmax(simulator.env.action_mask(obs, params)).astype(jnp.int32)
        obs, state, reward, terminated, truncated, info = env.step(key, state, action, params)
        return (obs, state), (reward, terminated | truncated, info["returned_episode_returns"])

    def run(key):
        key_reset, key_steps = jax.random.split(key)
        start = env.reset(key_reset, params)
        return jax.lax.scan(body, start, jax.random.split(key_steps, 40))[1]

    rewards, done, returned = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 3))
    for row in range(3):
        ends = np.flatnonzero(done[row])
        assert len(ends) >= 3
        for start, end in zip([0, *(ends[:-1] + 1)], ends, strict=True):
            assert returned[row, end] == rewards[row, start : end + 1].sum()


def rollout_of(env, steps=5, count=8):
    def rollout(state, key, params):
        def body(state, key):
            obs = env.get_obs(state)
            keys = jax.random.split(key, (2, count))
            mask = jax.vmap(env.action_mask, (0, None))(obs, params)
            action = jax.vmap(random_allowed)(keys[0], mask)
            _, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
                keys[1], state, action, params
            )
            return state, reward

        return jax.lax.scan(body, state, jax.random.split(key, steps))

    return rollout


def test_a_rollout_is_a_small_program_without_callbacks(each_path):
    _, env, params = each_path
    _, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 8), params)
    lowered = jax.jit(rollout_of(env)).lower(state, jax.random.key(1), params)
    text = lowered.as_text()
    assert len(text) < 1_000_000
    assert "callback" not in text
    # No table rides in the program: a constant of the size of one would show.
    assert 'dense<"0x' not in text or max(map(len, text.splitlines())) < 20_000


def test_the_state_may_be_donated(simulator):
    """The cache is written in place: the compiled rollout needs no second copy of it."""
    _, env, params = simulator
    count = 64
    _, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), count), params)
    cache = sum(x.nbytes for x in jax.tree.leaves(state.key_values))
    rollout = jax.jit(rollout_of(env, count=count), donate_argnums=0)
    compiled = rollout.lower(state, jax.random.key(1), params).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= cache
    expected, rewards = jax.jit(rollout_of(env, count=count))(state, jax.random.key(1), params)
    after, donated = compiled(state, jax.random.key(1), params)
    np.testing.assert_array_equal(donated, rewards)
    chex.assert_trees_all_equal(after, expected)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.key_values))


@pytest.mark.parametrize("catalogue", ["tables", "features"])
def test_64_bit_mode_and_strict_ranks_change_nothing(catalogue):
    def play():
        _, env, params = simulator_of(random_dataset(0), catalogue=catalogue)

        def body(carry, key):
            obs, state = carry
            mask = jax.vmap(env.action_mask, (0, None))(obs, params)
            obs, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
                jax.random.split(key, 9), state, mask.argmax(axis=1).astype("int32"), params
            )
            return (obs, state), (obs.user, reward, state.items)

        start = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 9), params)
        found = jax.lax.scan(body, start, jax.random.split(jax.random.key(1), 30))[1]
        one = jax.tree.map(lambda x: x[0], start[1])
        return *found, jax.jit(env.expected_response)(one, params)

    expected = play()
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        assert jnp.arange(1.0).dtype == jnp.float64  # the mode is on
        found = play()
    assert [x.dtype for x in found] == [jnp.int32, jnp.float32, jnp.int32, jnp.float32]
    chex.assert_trees_all_equal(found, expected)


def test_the_state_of_a_given_user_may_be_donated(simulator):
    _, env, params = simulator
    obs, state = env.reset_user(3, params)
    step = jax.jit(env.step_env, donate_argnums=1)
    step(jax.random.key(0), state, allowed(env, obs, params, 0), params)
    assert int(obs.length) > 0  # the observation has arrays of its own


def test_raw_and_typed_keys_give_the_same_session(simulator):
    _, env, params = simulator
    typed, raw = jax.random.key(3), jax.random.PRNGKey(3)
    chex.assert_trees_all_equal(env.reset(typed, params), env.reset(raw, params))
    obs, state = env.reset(typed, params)
    action = allowed(env, obs, params, 0)
    chex.assert_trees_all_equal(
        env.step(typed, state, action, params), env.step(raw, state, action, params)
    )


def test_gymnax_makes_the_simulators(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(tmp_path))
    env_id = jaxsim.environment_id("anime")
    assert env_id == "UserSimulator-anime-v0"
    assert {env_id, "UserSimulator-v0"} <= set(gymnax.registered_envs)
    with pytest.raises(InputError, match="prep build anime"):
        gymnax.make(env_id)
    write_pack(dataset, jaxsim.dataset.dataset_path("anime"))
    settings = {"history_length": HISTORY, "session_capacity": CAPACITY}
    made = [
        gymnax.make(env_id, **settings),
        gymnax.make("UserSimulator-v0", dataset=dataset, **settings),
    ]
    env, params = jaxsim.make(dataset, **settings)
    expected = env.reset(jax.random.key(0), params)
    for other, other_params in made:
        assert other.name == "UserSimulator-v0"
        chex.assert_trees_all_equal(other.reset(jax.random.key(0)), expected)
        chex.assert_trees_all_equal(other.reset(jax.random.key(0), other_params), expected)
    assert made[0][0] != made[1][0]  # two environments with params of their own are never confused


def test_state_is_small_beside_the_cache():
    """At the default lengths and the default size of the model."""
    dataset = random_dataset(0, window=150, width=32)
    env, params = jaxsim.make(dataset, repeats="allow", users="all")
    _, state = jax.eval_shape(env.reset, jax.random.key(0), params)
    sizes = {
        name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(getattr(state, name)))
        for name in ("key_values", *vars(state))
    }
    assert sizes.pop("key_values") == 2 * 2 * 150 * 32 * 4
    assert sum(sizes.values()) < 16_000


def test_spaces(simulator):
    env, params = simulator.env, simulator.params
    space = env.observation_space(params)
    for seed in range(5):
        obs, state = env.reset(jax.random.key(seed), params)
        sample = space.sample(jax.random.key(seed))
        assert space.contains(obs)
        assert space.contains(sample)
        chex.assert_trees_all_equal_shapes_and_dtypes(sample, obs)
        obs, *_ = env.step(jax.random.key(seed), state, allowed(env, obs, params, seed), params)
        assert space.contains(obs)
    assert not space.contains(obs.replace(items=obs.items + env.num_items))
    assert env.num_actions == env.action_space(params).n == simulator.dataset.num_items


def test_params_are_asked_for(simulator):
    with pytest.raises(InputError, match="params"):
        simulator.env.reset(jax.random.key(0))


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


# ---- the expected response -------------------------------------------------------------------------------


def test_expected_response_is_the_reference_and_the_mean_of_respond(either):
    dataset, env, params = either
    catalogue = reference.items_of(dataset.arrays)
    expected_response = jax.jit(env.expected_response)

    @jax.jit
    @partial(jax.vmap, in_axes=(None, None, 0, None))
    def mean_reward(obs, user, candidate, params):
        keys = jax.random.split(jax.random.key(0), 400)
        rewards = jax.vmap(
            lambda key: env.respond(key, obs.items, obs.responses, candidate, params, user).reward
        )(keys)
        return rewards.mean()

    halves = 0
    for seed in range(3):
        obs, state = env.reset(jax.random.key(seed), params)
        for step in range(seed):
            action = allowed(env, obs, params, step)
            obs, state, *_ = env.step(jax.random.key(step), state, action, never_leaves(params))
        found = np.asarray(expected_response(state, params))
        history = reference.real_history(obs.items, obs.responses)
        for candidate in range(env.num_items):
            logit = reference.sta_logit(dataset.sasrec, history, candidate, int(state.user))
            expected = reference.expected_response(
                catalogue, history, candidate, reference.probability(logit), env.semantics
            )
            assert found[candidate] == expected or abs(logit) < 1e-4
            halves += 0 < expected < 1
        means = mean_reward(obs, state.user, jnp.arange(env.num_items), params)
        spread = np.sqrt(found * (1 - found) / 400)
        assert (np.abs(means - found) <= 4.5 * spread).all()
    assert (halves > 0) == (env.semantics == "paper")  # the released code has no coins


# ---- jaxsim.make -----------------------------------------------------------------------------------------


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
    ],
)
def test_settings_that_cannot_be_served_are_refused(dataset, settings, message):
    with pytest.raises(InputError, match=message) as caught:
        simulator_of(dataset, **settings)
    assert "\n" not in str(caught.value)


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
