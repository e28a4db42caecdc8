"""The taste model: its equations by hand and in NumPy, one interaction at a time, and in the environment."""

import dataclasses
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim
from jaxsim import InputError, taste, taste_session
from jaxsim.taste_kernel import build_taste_model, part_features, year_features
from tests.conftest import CAPACITY, HISTORY, WINDOW, allowed, leaving_with, simulator_of
from tests.factory import random_dataset, write_pack
from tests.taste_reference import expected_tastes, probabilities

NUM_ITEMS = 40
TOLERANCE = (
    1e-4  # between the posterior kept by steps, in float32, and the dense formula, in float64
)


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(0)


@pytest.fixture(scope="module", params=["tables", "features"])
def model(request, dataset) -> taste.TasteModel:
    return build_taste_model(dataset, 1 << 30, request.param)


@pytest.fixture(scope="module", params=["calibrated", pytest.param("soft", marks=pytest.mark.slow)])
def either(request, dataset):
    return simulator_of(dataset, semantics=request.param)


@pytest.fixture(scope="module")
def calibrated(dataset):
    return simulator_of(dataset, semantics="calibrated")


# ---- the model -----------------------------------------------------------------------------------------


def test_one_like_by_hand():
    """Kernel k of the pair, 1 of the item with itself: g = k (y - m - b) / (1 + 1)."""
    kernel = taste.KernelTable(jnp.array([[1.0, 0.4], [0.4, 1.0]], jnp.float32))
    model = taste.TasteModel(
        kernel=kernel,
        mood_weight=jnp.float32(0),
        mood_decay=jnp.float32(0.5),
        item_mean=jnp.array([0.25, 0.5], jnp.float32),
        calibration=jnp.array([-1.0, 2.0, 3.0], jnp.float32),
    )
    items, likes = jnp.array([0, -1], jnp.int32), jnp.array([1, 0], jnp.int8)
    alpha = taste.condition(model, items, likes, jnp.int32(1)).weights
    tastes = taste.expected_tastes(model, alpha, items, jnp.arange(2), jnp.int32(1))
    np.testing.assert_allclose(tastes, [0.75 / 2, 0.4 * 0.75 / 2], rtol=1e-6)
    np.testing.assert_allclose(
        model.log_odds(model.item_mean, tastes), [-1 + 0.5 + 1.125, -1 + 1 + 0.45], rtol=1e-6
    )


def test_mood_by_hand():
    """Without any other kernel, a like two interactions ago weighs the square of the decay."""
    model = taste.TasteModel(
        kernel=taste.KernelTable(jnp.zeros((3, 3), jnp.float32)),
        mood_weight=jnp.float32(1.0),
        mood_decay=jnp.float32(0.5),
        item_mean=jnp.full(3, 0.5, jnp.float32),
        calibration=jnp.array([0.0, 0.0, 1.0], jnp.float32),
    )
    items, likes = jnp.array([0, 1], jnp.int32), jnp.array([1, 0], jnp.int8)
    posterior = taste.condition(model, items, likes, jnp.int32(2))
    alpha = np.linalg.solve([[2, 0.5], [0.5, 2]], [0.5, -0.5])
    np.testing.assert_allclose(posterior.weights, alpha, rtol=1e-6)
    tastes = taste.expected_tastes(
        model, posterior.weights, items, jnp.arange(2, dtype=jnp.int32), jnp.int32(2)
    )
    np.testing.assert_allclose(tastes, np.full(3, 0.25 * alpha[0] + 0.5 * alpha[1]), rtol=1e-6)


def test_years_ten_apart_share_one_e_th():
    kernel = year_features(np.array([1990, 2000, np.nan, 1990], np.float32))
    kernel = kernel @ kernel.T
    np.testing.assert_allclose(kernel[0], [1, np.exp(-1), 0, 1], atol=1e-8)


def test_parts_that_the_data_lacks_are_left_out(dataset):
    arrays = {name: np.zeros_like(x) for name, x in dataset.arrays.items()}
    arrays["item_categories"] = np.full((NUM_ITEMS, 1), -1, np.int32)
    assert part_features(arrays, np.full(NUM_ITEMS, np.nan, np.float32), None) == {}


SLOW_BLOCKS = [pytest.param(rows, marks=pytest.mark.slow) for rows in (25, 1)]


@pytest.mark.parametrize("block_rows", [5, *SLOW_BLOCKS])
def test_steps_agree_with_the_dense_formula(model, dataset, block_rows, monkeypatch):
    """Short and full initial histories, then a session that grows through the blocks of the factor."""
    monkeypatch.setattr(taste_session, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(taste_session, "_MOST_BLOCKS", CAPACITY)
    step, tastes = jax.jit(_step), jax.jit(_tastes)
    rng = np.random.default_rng(block_rows)
    for first in (0, 3, HISTORY):
        items = rng.integers(0, NUM_ITEMS, first + CAPACITY)
        likes = rng.integers(0, 2, len(items))
        short = len(items), WINDOW - len(items)
        window = jnp.asarray(np.pad(items, (0, short[1]), constant_values=-1), jnp.int32)
        start = jnp.int32(first)
        history = window[:HISTORY], jnp.asarray(np.pad(likes, (0, short[1]))[:HISTORY], jnp.int8)
        session = taste_session.begin(taste.condition(model, *history, start), CAPACITY, True)
        # What another session left behind must not count.
        session = session.replace(
            rows=tuple(x + 7 for x in session.rows), inverses=session.inverses - 3
        )
        for n in range(first, len(items)):
            expected = expected_tastes(dataset, items[:n], likes[:n])
            ours = tastes(model, session, window, start, jnp.int32(n))
            np.testing.assert_allclose(ours, expected, atol=TOLERANCE)
            like = jnp.int8(likes[n])
            session, one = step(model, session, window, start, jnp.int32(n), like)
            assert float(one) == pytest.approx(expected[items[n]], abs=TOLERANCE)


def _tastes(model, session, window, start, n):
    return taste_session.tastes(model, session, taste_session.place(session, window, start, n))


def _step(model, session, window, start, n, like):
    """The session with the n-th item of the window, and the taste for it before."""
    place = taste_session.place(session, window, start, n)
    projection = taste_session.project(model, session, place, window[n])
    after = taste_session.update(model, session, place, projection, like, jnp.bool_(True))
    return after, projection.taste


# ---- the environment -----------------------------------------------------------------------------------


def test_steps_respond_and_expected_response_agree(either, dataset):
    """Over several sessions with resets, under vmap: info's probability is that of the dense formula."""
    env, params = either.env, leaving_with(either.params, 0.15)
    batch = 7
    reset, step = jax.vmap(env.reset, (0, None)), jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    everything = jax.jit(jax.vmap(env.expected_response, (0, None)))
    obs, state = reset(jax.random.split(jax.random.key(0), batch), params)
    for t in range(25):
        keys = jax.random.split(jax.random.key(t + 1), batch)
        rows = [jax.tree.map(lambda x, b=b: x[b], obs) for b in range(batch)]
        actions = jnp.stack([allowed(env, row, params, 100 * t + b) for b, row in enumerate(rows)])
        expected = everything(state, params)
        for b in (0, batch - 1):
            size = int(rows[b].length)
            history = np.asarray(rows[b].items[:size]), np.asarray(rows[b].responses[:size]) > 0
            dense = probabilities(dataset, *history)
            np.testing.assert_allclose(expected[b], dense, atol=3 * TOLERANCE)
            answer = env.respond(keys[b], rows[b].items, rows[b].responses, actions[b], params)
            assert float(answer.probability) == pytest.approx(dense[actions[b]], abs=3 * TOLERANCE)
        obs, state, reward, _, _, info = step(keys, state, actions, params)
        chosen = jnp.take_along_axis(expected, actions[:, None], axis=1)[:, 0]
        np.testing.assert_allclose(info["probability"], chosen, atol=TOLERANCE)
        if env.semantics == "soft":
            np.testing.assert_array_equal(reward, info["probability"])
            np.testing.assert_array_equal(info["response"].like, info["probability"] >= 0.5)
        else:
            np.testing.assert_array_equal(reward, info["response"].like)


@pytest.mark.slow
def test_likes_are_drawn_with_probability_p(calibrated):
    env, params = calibrated.env, calibrated.params
    _, state = env.reset_user(0, params)
    p = env.expected_response(state, params)
    mask = env.action_mask(env.get_obs(state), params)
    count = 2000
    for item in np.flatnonzero(mask)[:3]:
        keys = jax.random.split(jax.random.key(int(item)), count)
        step = jax.vmap(env.step, (0, None, None, None))
        likes = step(keys, state, jnp.int32(item), params)[5]["response"].like
        # Five standard deviations: about once in two million keys.
        bound = 5 * np.sqrt(0.25 / count)
        assert abs(float(likes.mean()) - float(p[item])) < bound


@pytest.mark.slow
def test_eager_jit_and_vmap_agree(either):
    env, params = either.env, either.params
    key = jax.random.key(3)
    obs, state = env.reset(key, params)
    action = allowed(env, obs, params, 0)
    eager = env.step(key, state, action, params)
    with jax.disable_jit():
        plain = env.step_env(jax.random.split(key)[0], state, action, params)
    batched = jax.vmap(env.step, (None, None, 0, None))(key, state, action[None], params)
    chex.assert_trees_all_close(eager[2], plain[2], atol=1e-6)
    chex.assert_trees_all_close(eager, jax.tree.map(lambda x: x[0], batched), atol=1e-5)


def test_an_invalid_action_earns_nothing_and_is_not_appended(either):
    env, params = either.env, leaving_with(either.params, 0.0)
    obs, state = env.reset_user(0, params)
    seen = obs.items[0]
    after = jax.jit(env.step)(jax.random.key(0), state, seen, params)
    assert float(after[2]) == 0
    assert bool(after[5]["invalid_action"])
    assert int(after[1].length) == int(state.length)
    chex.assert_trees_all_equal(after[1].posterior, state.posterior)


@pytest.mark.slow
def test_tables_and_features_and_both_prefixes_agree(dataset):
    answers = []
    for catalogue, prefixes in (("tables", "table"), ("features", "encode")):
        _, env, params = simulator_of(
            dataset, semantics="calibrated", catalogue=catalogue, prefixes=prefixes
        )
        assert (env.catalogue, env.prefixes) == (catalogue, prefixes)
        states = jax.vmap(env.reset_user, (0, None))(jnp.arange(dataset.num_users), params)[1]
        answers.append(jax.vmap(env.expected_response, (0, None))(states, params))
    np.testing.assert_allclose(*answers, atol=TOLERANCE)


def test_no_statistic_model_is_in_params_or_state(calibrated):
    assert calibrated.params.sasrec == {}
    _, state = calibrated.env.reset(jax.random.key(0), calibrated.params)
    assert state.hidden is None
    assert state.key_values is None


def test_a_user_without_history_is_asked_by_item_means(calibrated, dataset):
    answer = calibrated.env.respond(
        jax.random.key(0), jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.int8), 5, calibrated.params
    )
    np.testing.assert_allclose(answer.probability, probabilities(dataset, [], [])[5], atol=1e-5)


def test_the_paper_s_semantics_needs_no_taste_model(dataset):
    without = dataclasses.replace(dataset, taste=None)
    simulator_of(without)
    with pytest.raises(InputError, match=r"built without a taste model.*build it again"):
        simulator_of(without, semantics="calibrated")


def test_a_part_without_weight_counts_nothing(dataset):
    """A dataset without times has no mood: its manifest holds no weight for it."""
    entry = dataset.manifest["taste"]
    weights = {
        name: w for name, w in entry["taste_weights"].items() if name not in ("mood", "cons")
    }
    manifest = {**dataset.manifest, "taste": {**entry, "taste_weights": weights}}
    timeless = dataclasses.replace(dataset, manifest=manifest)
    _, env, params = simulator_of(timeless, semantics="soft")
    items, likes = jnp.array([3, 7, 9], jnp.int32), jnp.array([1, 0, 1], jnp.int8)
    answer = env.respond(jax.random.key(0), items, likes, 5, params)
    expected = probabilities(timeless, np.array([3, 7, 9]), [1, 0, 1])[5]
    assert float(answer.probability) == pytest.approx(expected, abs=1e-5)


def test_a_table_that_does_not_fit_is_refused(dataset):
    with pytest.raises(InputError, match=r"taste model's kernel takes 6,400 bytes.*table_budget"):
        build_taste_model(dataset, 6_399, "tables")


def test_a_written_pack_is_read_with_its_taste_model(dataset, tmp_path):
    read = jaxsim.load_dataset(write_pack(dataset, tmp_path / "pack"))
    for name, array in dataset.taste.items():
        np.testing.assert_array_equal(read.taste[name], array)
    simulator_of(read, semantics="soft", session_capacity=CAPACITY)


@pytest.mark.slow
def test_a_step_copies_no_block_of_the_factor(calibrated):
    """In a scan over donated states, the blocks are updated in place."""
    _, env, params = calibrated
    keys = jax.random.split(jax.random.key(0), 7)
    states = jax.vmap(env.reset, (0, None))(keys, params)[1]

    def rollout(states, params):
        def step(states, key):
            actions = jnp.zeros(7, jnp.int32)
            of_sessions = jax.random.split(key, 7)
            return jax.vmap(env.step, (0, 0, 0, None))(of_sessions, states, actions, params)[
                1
            ], None

        return jax.lax.scan(step, states, jax.random.split(jax.random.key(1), 4))[0]

    program = jax.jit(rollout, donate_argnums=0).lower(states, params).compile().as_text()
    blocks = (*states.posterior.rows, states.posterior.inverses)
    for block in blocks:
        shape = ",".join(map(str, block.shape))
        assert f"f32[{shape}]" in program
        assert not re.search(rf"= f32\[{shape}\]\S* copy\(", program), shape
