"""Tastes that are drawn when a session begins: the draws against the dense posterior, and sessions with them."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from jaxsim import InputError, latent_taste, taste
from jaxsim.taste_kernel import build_taste_model
from jaxsim.user_models import Interaction
from tests.conftest import (
    HISTORY,
    allowed,
    leaving_with,
    never_leaves,
    simulator_of,
)
from tests.factory import TASTE, random_dataset
from tests.taste_reference import part_kernels, tastes_later, variances_to_come

NUM_ITEMS, DRAWS = 40, 4000
TOLERANCE = 1e-4  # of float32 against the dense formula in float64
# Standard errors that a mean over draws may be off: one in three million, so that many means may be compared.
ERRORS = 5.1


def slow(*values):
    """A parameter that is one of many alike, or takes long."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(0)


@pytest.fixture(scope="module")
def kernel(dataset):
    return sum(part_kernels(dataset).values())


@pytest.fixture(scope="module", params=[slow("tables"), "features"])
def model(request, dataset) -> taste.TasteModel:
    return build_taste_model(dataset, 1 << 30, request.param, drawn=True)


@pytest.fixture(scope="module", params=["calibrated", "soft"])
def either(request, dataset):
    return simulator_of(dataset, semantics=request.param, taste="latent")


@pytest.fixture(scope="module")
def calibrated(dataset):
    return simulator_of(dataset, semantics="calibrated", taste="latent")


# ---- the draws -----------------------------------------------------------------------------------------


def history_of(size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    return rng.integers(0, NUM_ITEMS, size), rng.integers(0, 2, size)


def padded(items: np.ndarray, likes: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    rest = 0, HISTORY - len(items)
    window = jnp.asarray(np.pad(items, rest, constant_values=-1), jnp.int32)
    return window, jnp.asarray(np.pad(likes, rest), jnp.int8), jnp.int32(len(items))


@partial(jax.jit, static_argnames="later")
def draw_deviations(key, model, items, likes, length, later):
    """f of every item after `later` more interactions, for DRAWS tastes; float32[DRAWS, N]."""
    posterior = taste.condition(model, items, likes, length)

    def one(key):
        user = latent_taste.draw(key, model, posterior, items, length)
        for t in range(later):
            key_mood = jax.random.fold_in(key, 100 + t)
            user = user.replace(mood=latent_taste.next_mood(key_mood, model, user.mood))
        place = latent_taste.Place(items, length, length + later)
        return latent_taste.tastes(model, user, place).deviation

    return jax.vmap(one)(jax.random.split(key, DRAWS))


@pytest.mark.parametrize(("size", "later"), [slow(0, 0), slow(3, 0), slow(HISTORY, 4)])
def test_draws_have_the_posterior_s_mean_and_covariance(model, dataset, kernel, size, later):
    items, likes = history_of(size)
    covariance = variances_to_come(dataset, items, later, kernel)
    variance = np.diag(covariance)
    bound = ERRORS * np.sqrt((variance[:, None] * variance + covariance**2) / DRAWS)
    for seed in range(3):
        f = np.asarray(
            draw_deviations(jax.random.key(seed), model, *padded(items, likes), later), np.float64
        )
        assert (np.abs(f.mean(axis=0)) < ERRORS * np.sqrt(variance / DRAWS)).all()
        assert (np.abs(f.T @ f / DRAWS - covariance) < bound).all()


@pytest.mark.parametrize(("size", "later"), [slow(0, 0), slow(5, 0), (HISTORY, 3)])
def test_mean_and_variance_agree_with_the_dense_formula(model, dataset, kernel, size, later):
    items, likes = history_of(size)
    window, labels, length = padded(items, likes)
    posterior = jax.jit(taste.condition)(model, window, labels, length)
    user = jax.jit(latent_taste.draw)(jax.random.key(size), model, posterior, window, length)
    place = latent_taste.Place(window, length, length + later)
    every_item = jnp.arange(NUM_ITEMS, dtype=jnp.int32)
    everything = jax.jit(latent_taste.tastes)(model, user, place)
    one_by_one = jax.jit(jax.vmap(latent_taste.taste_for, (None, None, None, 0)))(
        model, user, place, every_item
    )
    chex.assert_trees_all_close(everything, one_by_one, atol=TOLERANCE)
    g = tastes_later(dataset, items, likes, later, kernel)
    np.testing.assert_allclose(everything.mean, g, atol=TOLERANCE)
    variance = np.diag(variances_to_come(dataset, items, later, kernel))
    np.testing.assert_allclose(everything.variance, variance, atol=TOLERANCE)


def test_many_items_are_compared_in_batches(dataset, monkeypatch):
    transform = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)), jnp.float32)
    arguments = transform, jnp.array([3, 1, 4], jnp.int32), jnp.array([0.5, 0, -1], jnp.float32)
    tables, features = (
        build_taste_model(dataset, 1 << 30, kind).kernel for kind in ("tables", "features")
    )
    monkeypatch.setattr(taste, "_ITEMS_AT_ONCE", 7)
    at_once = tables.squared_lengths(*arguments)
    np.testing.assert_allclose(features.squared_lengths(*arguments), at_once, rtol=1e-4)


def test_a_probability_by_hand():
    """At log-odds 0 the quantile is sqrt(pi / 8) w_2 s f, with w_2 s = sqrt(w_2 / 2)."""
    model = taste.TasteModel(
        kernel=taste.KernelTable(jnp.zeros((1, 1), jnp.float32)),
        mood_weight=jnp.float32(0),
        mood_decay=jnp.float32(0.5),
        item_mean=jnp.zeros(1, jnp.float32),
        calibration=jnp.array([-2.0, 4.0, 8.0], jnp.float32),
    )
    one = latent_taste.Drawn(*(jnp.float32(x) for x in (0.0, 0.7, 0.3)))
    assert float(latent_taste.noise(model)) == 0.25
    quantile = jax.jit(latent_taste.quantile)
    assert float(quantile(model, jnp.float32(0.5), one)) == pytest.approx(
        0.626657 * 2 * 0.3, rel=1e-5
    )
    # Without any deviation and variance, p is the sigmoid of the log-odds, also far from 0.
    sure = latent_taste.Drawn(jnp.array([-1.5, 0.1, 1.5], jnp.float32), *jnp.zeros((2, 3)))
    p = jax.jit(latent_taste.probability)(quantile(model, jnp.float32(0.5), sure))
    np.testing.assert_allclose(p, expit([-12, 0.8, 12]), rtol=1e-4)


def test_a_taste_that_says_nothing_about_labels_is_not_drawn(model):
    backwards = model.replace(calibration=jnp.array([0.0, 1.0, -0.5], jnp.float32))
    one = latent_taste.Drawn(*(jnp.float32(x) for x in (0.0, 0.7, 0.3)))
    assert float(latent_taste.noise(backwards)) == 0
    assert float(jax.jit(latent_taste.quantile)(backwards, jnp.float32(0.0), one)) == 0


# ---- the environment -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_mean_over_draws_is_the_posterior_s_probability(calibrated, dataset, kernel):
    """At the first step, and later without the answers since."""
    env, params, later = calibrated.env, never_leaves(calibrated.params), 3
    posterior_env = dataclasses.replace(env, taste="posterior")

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def session(key, user):
        _, state = env.reset_user(user, params, key)
        first = env.expected_response(state, params)
        for t in range(later):
            # The first allowed items, so that all sessions have the same.
            item = jnp.argmax(env.action_mask(env.get_obs(state), params))
            _, state, *_ = env.step_env(jax.random.fold_in(key, t), state, item, params)
        return first, env.expected_response(state, params)

    w0, w1, w2 = TASTE["calibration"]
    item_part = w0 + w1 * (TASTE["mean"] + dataset.taste["item_effect"])
    for user in (0, 5):
        length = int(params.histories.length[user])
        history = params.histories.items[user][:length], params.histories.likes[user][:length]
        drawn = session(jax.random.split(jax.random.key(user), DRAWS), jnp.int32(user))
        for p, steps in zip(drawn, (0, later), strict=True):
            g = tastes_later(dataset, *map(np.asarray, history), steps, kernel)
            bound = ERRORS * np.asarray(p).std(axis=0) / np.sqrt(DRAWS) + TOLERANCE
            assert (np.abs(np.asarray(p).mean(axis=0) - expit(item_part + w2 * g)) < bound).all()
        _, state = posterior_env.reset_user(user, params)
        bound = ERRORS * np.asarray(drawn[0]).std(axis=0) / np.sqrt(DRAWS) + TOLERANCE
        expected = jax.jit(posterior_env.expected_response)(state, params)
        assert (np.abs(np.asarray(drawn[0]).mean(axis=0) - expected) < bound).all()


@pytest.mark.slow
def test_steps_and_expected_response_agree(either):
    """Over several sessions with resets, under vmap."""
    env, params, batch = either.env, leaving_with(either.params, 0.15), 5
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    everything = jax.jit(jax.vmap(env.expected_response, (0, None)))
    mask = jax.jit(jax.vmap(env.action_mask, (0, None)))
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), batch), params)
    for t in range(25):
        weights = np.random.default_rng(t).random((batch, NUM_ITEMS))
        actions = jnp.asarray((weights * mask(obs, params)).argmax(axis=1), jnp.int32)
        expected = everything(state, params)[jnp.arange(batch), actions]
        keys = jax.random.split(jax.random.key(t + 1), batch)
        obs, state, reward, _, _, info = step(keys, state, actions, params)
        np.testing.assert_allclose(info["probability"], expected, atol=TOLERANCE)
        if env.semantics == "soft":
            np.testing.assert_array_equal(reward, info["probability"])
            np.testing.assert_array_equal(info["response"].like, info["probability"] >= 0.5)
        else:
            np.testing.assert_array_equal(reward, info["response"].like)


def test_answers_teach_nothing(calibrated):
    env, params = calibrated.env, calibrated.params
    _, state = env.reset(jax.random.key(0), params)
    both = [
        Interaction(jnp.int32(3), jnp.int8(like), jnp.bool_(True), state.length, jax.random.key(1))
        for like in (0, 1)
    ]
    append = jax.jit(env.user_model.append)
    after = [append(params, state, new) for new in both]
    chex.assert_trees_all_equal(*after)
    chex.assert_trees_all_equal(after[0]["latent"].direction, state.latent.direction)
    chex.assert_trees_all_equal(after[0]["latent"].history, state.latent.history)


@pytest.mark.slow
def test_without_moods_nothing_changes_in_a_session(dataset):
    entry = dataset.manifest["taste"]
    weights = {name: w for name, w in entry["taste_weights"].items() if name != "mood"}
    manifest = {**dataset.manifest, "taste": {**entry, "taste_weights": weights}}
    _, env, params = simulator_of(
        dataclasses.replace(dataset, manifest=manifest), semantics="calibrated", taste="latent"
    )
    params, expected = never_leaves(params), jax.jit(env.expected_response)
    obs, state = env.reset(jax.random.key(4), params)
    before = expected(state, params)
    for t in range(5):
        obs, state, *_ = env.step(jax.random.key(t), state, allowed(env, obs, params, t), params)
    np.testing.assert_allclose(expected(state, params), before, atol=1e-6)


def test_a_taste_is_a_function_of_user_and_key(calibrated):
    env, params = calibrated.env, calibrated.params
    expected = jax.jit(env.expected_response)
    for seed in range(3):
        key = jax.random.key(seed)
        _, state = env.reset(key, params)
        chex.assert_trees_all_equal(state, env.reset_user(state.user, params, key)[1])
        _, other = env.reset_user(state.user, params, jax.random.key(seed + 100))
        assert not np.allclose(state.latent.direction, other.latent.direction)
        p, q = (expected(x, params) for x in (state, other))
        assert not np.allclose(p, q, atol=0.01)


@pytest.mark.parametrize("vmapped", [slow(False), True], ids=["one", "vmap"])
def test_an_automatic_reset_draws_a_new_taste(calibrated, vmapped):
    env, params = calibrated.env, leaving_with(calibrated.params, 1.0)
    for seed in range(3):
        key = jax.random.key(seed)
        obs, state = env.reset(key, params)
        action = allowed(env, obs, params, seed)
        fresh = env.reset(jax.random.split(key)[1], params)[1]
        if vmapped:
            step = jax.vmap(env.step, (None, None, 0, None))
            after = jax.tree.map(lambda x: x[0], step(key, state, action[None], params)[1])
        else:
            after = env.step(key, state, action, params)[1]
        chex.assert_trees_all_close(after, fresh, atol=1e-6)
        assert not np.allclose(after.latent.direction, state.latent.direction)


@pytest.mark.slow
def test_eager_jit_and_vmap_agree(either):
    env, params = either.env, either.params
    key = jax.random.key(3)
    obs, state = env.reset(key, params)
    batched = jax.vmap(env.reset, (0, None))(key[None], params)
    chex.assert_trees_all_close((obs, state), jax.tree.map(lambda x: x[0], batched), atol=1e-5)
    action = allowed(env, obs, params, 0)
    eager = env.step(key, state, action, params)
    with jax.disable_jit():
        chex.assert_trees_all_close((obs, state), env.reset_env(key, params), atol=1e-5)
        plain = env.step_env(jax.random.split(key)[0], state, action, params)
    batched = jax.vmap(env.step, (None, None, 0, None))(key, state, action[None], params)
    chex.assert_trees_all_close(eager[2], plain[2], atol=1e-6)
    chex.assert_trees_all_close(eager, jax.tree.map(lambda x: x[0], batched), atol=1e-5)


@pytest.mark.slow
def test_an_invalid_action_leaves_the_mood(calibrated):
    env, params = calibrated.env, never_leaves(calibrated.params)
    obs, state = env.reset(jax.random.key(0), params)
    step = jax.jit(env.step)
    invalid = step(jax.random.key(1), state, obs.items[0], params)
    chex.assert_trees_all_equal(invalid[1].latent, state.latent)
    valid = step(jax.random.key(1), state, allowed(env, obs, params, 0), params)
    assert float(valid[1].latent.mood) != float(state.latent.mood)


@pytest.mark.slow
def test_tables_and_features_and_both_prefixes_agree(dataset):
    answers = []
    users = jnp.arange(dataset.num_users, dtype=jnp.int32)
    keys = jax.random.split(jax.random.key(0), dataset.num_users)
    for catalogue, prefixes in (("tables", "table"), ("features", "encode")):
        _, env, params = simulator_of(
            dataset, semantics="soft", taste="latent", catalogue=catalogue, prefixes=prefixes
        )
        assert (env.catalogue, env.prefixes) == (catalogue, prefixes)
        shared = params.taste.features is params.taste.kernel.values
        assert shared == (catalogue == "features")  # stored once
        states = jax.vmap(env.reset_user, (0, None, 0))(users, params, keys)[1]
        answers.append(jax.jit(jax.vmap(env.expected_response, (0, None)))(states, params))
    np.testing.assert_allclose(*answers, atol=TOLERANCE)


@pytest.mark.slow
def test_respond_states_the_posterior_s_probability(calibrated, dataset):
    posterior = simulator_of(dataset, semantics="calibrated")
    items, likes = jnp.array([3, 7, 9], jnp.int32), jnp.array([1, 0, 1], jnp.int8)
    answers = [
        env.respond(jax.random.key(0), items, likes, 5, params)
        for _, env, params in (calibrated, posterior)
    ]
    chex.assert_trees_all_equal(*answers)


def test_the_representation_names_it(calibrated):
    assert repr(calibrated.env).endswith(", prefixes='table', taste='latent')")


def test_what_cannot_be_drawn_is_refused(dataset, calibrated):
    with pytest.raises(InputError, match=r'^taste="latent" draws from the taste model.*"soft"$'):
        simulator_of(dataset, taste="latent")
    with pytest.raises(InputError, match=r"^taste.*'fixed'"):
        simulator_of(dataset, semantics="calibrated", taste="fixed")
    with pytest.raises(InputError, match=r"pass reset_user a key="):
        calibrated.env.reset_user(0, calibrated.params)
