"""The environment: gymnax's contract, compilation, equal results on every path, and the expected response."""

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
from tests.conftest import CAPACITY, HISTORY, allowed, never_leaves, simulator_of
from tests.factory import random_dataset, write_pack

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_batched_steps_are_the_base_class_steps(each_path):
    """Under vmap a reset writes only to some rows; the observations equal those of a selection of whole states."""
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_both_paths_play_the_same_sessions(dataset):
    """The same keys give the same sessions, with and without tables."""
    runs = []
    for settings in (
        {"catalogue": "tables", "prefixes": "table"},
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
        actual = sum(x.nbytes for x in jax.tree.leaves(params.histories.prefix))
        assert actual == (prefixes if env.prefixes == "table" else 0)


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_64_bit_mode_and_strict_ranks_change_nothing():
    def play():
        _, env, params = simulator_of(random_dataset(0), catalogue="features")

        def body(carry, key):
            obs, state = carry
            mask = jax.vmap(env.action_mask, (0, None))(obs, params)
            obs, state, reward, *_ = jax.vmap(env.step, (0, 0, 0, None))(
                jax.random.split(key, 9), state, mask.argmax(axis=1).astype("int32"), params
            )
            return (obs, state), (obs.user, reward, state.items)

        start = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 9), params)
        actual = jax.lax.scan(body, start, jax.random.split(jax.random.key(1), 30))[1]
        one = jax.tree.map(lambda x: x[0], start[1])
        return *actual, jax.jit(env.expected_response)(one, params)

    expected = play()
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        assert jnp.arange(1.0).dtype == jnp.float64  # the mode is on
        actual = play()
    assert [x.dtype for x in actual] == [jnp.int32, jnp.float32, jnp.int32, jnp.float32]
    chex.assert_trees_all_equal(actual, expected)


def test_the_state_of_a_given_user_may_be_donated(simulator):
    _, env, params = simulator
    obs, state = env.reset_user(3, params)
    step = jax.jit(env.step_env, donate_argnums=1)
    step(jax.random.key(0), state, allowed(env, obs, params, 0), params)
    assert int(obs.length) > 0  # the observation shares no arrays with the state


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
    assert sizes.pop("key_values") == (2 * 2 * 32 + len(reference.DECAYS)) * 150 * 4
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
        actual = np.asarray(expected_response(state, params))
        history = reference.real_history(obs.items, obs.responses)
        for candidate in range(env.num_items):
            logit = reference.sta_logit(dataset.sasrec, history, candidate, int(state.user))
            expected = reference.expected_response(
                catalogue, history, candidate, reference.probability(logit), env.semantics
            )
            assert actual[candidate] == expected or abs(logit) < 1e-4
            halves += 0 < expected < 1
        means = mean_reward(obs, state.user, jnp.arange(env.num_items), params)
        spread = np.sqrt(actual * (1 - actual) / 400)
        assert (np.abs(means - actual) <= 4.5 * spread).all()
    assert (halves > 0) == (env.semantics == "paper")  # the released code has no coins


# ---- gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vmapped", "jitted"),
    [(False, False), (False, True), (True, True)],
    ids=["one session, eager", "one session, jit", "vmap, jit"],
)
def test_gradients_through_a_step_are_zero(each_path, vmapped, jitted):
    """With respect to every float of params and of the state, from every float of the result."""
    _, env, params = each_path
    count = 3 if vmapped else None
    keys = jax.random.split(jax.random.key(0), 3) if vmapped else jax.random.key(0)
    reset, step = env.reset, env.step
    if vmapped:
        reset, step = jax.vmap(reset, (0, None)), jax.vmap(step, (0, 0, 0, None))
    _, state = reset(keys, params)
    action = jnp.zeros(() if count is None else count, jnp.int32)

    def total(floats):
        hidden, key_values, departure, weights = floats
        _, new, reward, *_ = step(
            keys,
            state.replace(hidden=hidden, key_values=key_values),
            action,
            params.replace(departure_probability=departure, sasrec=weights),
        )
        return reward.sum() + new.hidden.sum()

    gradient = jax.grad(total)
    floats = state.hidden, state.key_values, params.departure_probability, params.sasrec
    actual = (jax.jit(gradient) if jitted else gradient)(floats)
    assert not any(leaf.any() for leaf in jax.tree.leaves(actual))


def test_64_bit_mode_changes_no_type(each_path):
    """Of anything that reset, step, respond and expected_response return."""
    _, env, params = each_path
    items = np.zeros(3, np.int32)

    def everything(key, params):
        obs, state = env.reset(key, params)
        stepped = env.step(key, state, np.int32(0), params)
        decision = env.respond(key, items, items, np.int32(0), params, reasons=True)
        return obs, state, stepped, decision, env.expected_response(state, params)

    key = jax.random.key(0)
    expected = jax.eval_shape(everything, key, params)
    with jax.enable_x64(True):
        chex.assert_trees_all_equal_dtypes(jax.eval_shape(everything, key, params), expected)
