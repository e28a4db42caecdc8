"""Exposure: the correction against a NumPy reference, in sessions, in explanations, and where it is refused."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit

import jaxsim
from jaxsim import InputError
from jaxsim.exposure import ExposureModel, host_model
from tests.conftest import allowed, never_leaves, simulator_of
from tests.exposure_reference import chosen_log_odds, shift
from tests.factory import random_dataset, write_pack
from tests.taste_reference import probabilities

TOLERANCE = 1e-4  # of float32 against float64


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(0, num_users=9, window=12, width=4, num_blocks=1)


@pytest.fixture(scope="module")
def soft(dataset):
    return simulator_of(dataset, semantics="soft", exposure=True)


@pytest.fixture(scope="module")
def plain(dataset):
    return simulator_of(dataset, semantics="soft")


def with_entry(dataset, **changes):
    entry = {**dataset.manifest["exposure"], **changes}
    return dataclasses.replace(dataset, manifest={**dataset.manifest, "exposure": entry})


# ---- the model -----------------------------------------------------------------------------------------


def test_one_item_by_hand():
    """e = -1 + 2 * (0.5 * 0.5) = -0.5 with one of two interactions alike; beta (e - o) = 0.2 (-0.5 + 3) = 0.5."""
    model = ExposureModel(
        base=jnp.array([-1.0, 0.0, 0.0], jnp.float32),
        features=jnp.array([[0.5, 0.0], [0.5, 0.0], [0.0, 3.0]], jnp.float32),
        weights=jnp.array([4.0, 1.0], jnp.float32),
        slope=jnp.float32(0.2),
        offset=jnp.float32(-3.0),
    )
    total = model.total(jnp.array([1, 2, 0], jnp.int32), jnp.int32(2))
    assert total.tolist() == [0.5, 3.0]
    assert float(model.log_odds(total, jnp.int32(2), jnp.int32(0))) == pytest.approx(-0.5)
    assert float(model.shift(total, jnp.int32(2), jnp.int32(0))) == pytest.approx(0.5)
    assert float(model.shifts(total, jnp.int32(2))[0]) == pytest.approx(0.5)


def test_the_host_agrees_with_one_pair_at_a_time(dataset):
    rng = np.random.default_rng(0)
    history = rng.integers(0, dataset.num_items, (6, 5))
    present = np.arange(5) < np.arange(6)[:, None]
    items = rng.integers(0, dataset.num_items, 6)
    ours = host_model(dataset).log_odds(items, history, present)
    for row in range(6):
        expected = chosen_log_odds(dataset, history[row][present[row]].tolist(), int(items[row]))
        assert ours[row] == pytest.approx(expected, abs=1e-5)


# ---- sessions ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_steps_respond_and_expected_response_agree_with_the_reference(soft, dataset):
    env, params = soft.env, never_leaves(soft.params)
    obs, state = env.reset_user(0, params)
    for t in range(4):
        count = int(obs.length)
        items = np.asarray(obs.items[:count])
        likes = (np.asarray(obs.responses[:count]) > 0).astype(int)
        action = allowed(env, obs, params, seed=t)
        log_odds = logit(probabilities(dataset, items, likes)[int(action)])
        expected = expit(log_odds + shift(dataset, items.tolist(), int(action)))
        answer = env.respond(jax.random.key(0), obs.items, obs.responses, action, params)
        everything = jax.jit(env.expected_response)(state, params)
        obs, state, reward, *_, info = env.step(jax.random.key(t), state, action, params)
        for value in (answer.probability, everything[action], reward, info["probability"]):
            assert float(value) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.slow
def test_a_new_session_starts_from_its_own_history(soft):
    """After an automatic reset the sum of features is that of the next user."""
    env, params = soft.env, soft.params.replace(departure_probability=jnp.float32(1.0))
    states = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 5), params)[1]
    keys = jax.random.split(jax.random.key(1), 5)
    actions = jnp.zeros(5, jnp.int32)
    states = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))(keys, states, actions, params)[1]
    fresh = jax.vmap(env.reset_user, (0, None))(states.user, params)[1]
    chex.assert_trees_all_close(states.exposure, fresh.exposure, atol=1e-6)


@pytest.mark.slow
def test_eager_jit_and_vmap_agree_and_an_invalid_action_adds_nothing(soft):
    env, params = soft.env, never_leaves(soft.params)
    obs, state = env.reset_user(0, params)
    key, seen = jax.random.key(3), obs.items[0]
    action = allowed(env, obs, params, seed=0)
    jitted = jax.jit(env.step)(key, state, action, params)
    batch = jax.vmap(env.step, (0, None, 0, None))(key[None], state, action[None], params)
    with jax.disable_jit():
        eager = env.step(key, state, action, params)
    chex.assert_trees_all_close(eager[2], jitted[2], batch[2][0], atol=1e-6)
    chex.assert_trees_all_close(
        eager[1].exposure, jitted[1].exposure, batch[1].exposure[0], atol=1e-6
    )
    after = jax.jit(env.step)(key, state, seen, params)
    chex.assert_trees_all_equal(after[1].exposure, state.exposure)


@pytest.mark.slow
def test_an_item_that_nobody_would_choose_gets_less(soft, plain, dataset):
    """Where e falls below the offset the probability falls, elsewhere it rises."""
    state = soft.env.reset_user(0, soft.params)[1]
    ours = np.asarray(soft.env.expected_response(state, soft.params))
    base = plain.env.expected_response(plain.env.reset_user(0, plain.params)[1], plain.params)
    count = int(state.length)
    items = np.asarray(state.items[:count]).tolist()
    log_odds = [chosen_log_odds(dataset, items, c) for c in range(dataset.num_items)]
    above = np.array(log_odds) > dataset.manifest["exposure"]["offset"]
    assert above.any()
    assert not above.all()
    np.testing.assert_array_equal(ours > np.asarray(base), above)


def test_the_default_has_nothing_of_it(plain, dataset):
    """State, params and program are those of a dataset that has no exposure model."""
    bare = simulator_of(dataclasses.replace(dataset, exposure=None), semantics="soft")
    assert plain.env == bare.env
    assert plain.params.exposure is None
    state = plain.env.reset_user(0, plain.params)[1]
    assert state.exposure is None
    chex.assert_trees_all_equal(state, bare.env.reset_user(0, bare.params)[1])
    assert "exposure" not in repr(plain.env)


# ---- a drawn taste -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_mean_over_drawn_tastes_is_the_corrected_probability(dataset):
    """The shift moves the posterior's probability, which is the mean over draws."""
    _, env, params = simulator_of(dataset, semantics="soft", taste="latent", exposure=True)
    corrected = simulator_of(dataset, semantics="soft", exposure=True)
    keys = jax.random.split(jax.random.key(0), 3000)
    states = jax.jit(jax.vmap(env.reset_user, (None, None, 0)))(0, params, keys)[1]
    draws = jax.jit(jax.vmap(env.expected_response, (0, None)))(states, params)
    one_item = jax.jit(jax.vmap(env.user_model.decide, (0, None, 0, None)))(
        keys, params, states, jnp.int32(7)
    )
    np.testing.assert_allclose(one_item.probability, draws[:, 7], atol=1e-5)
    start = corrected.env.reset_user(0, corrected.params)[1]
    expected = corrected.env.expected_response(start, corrected.params)
    error = np.std(draws, axis=0) / np.sqrt(len(keys))
    assert (np.abs(draws.mean(axis=0) - expected) < 5.1 * error + 1e-5).all()


@pytest.mark.slow
def test_recommendations_do_not_change_what_a_drawn_user_would_have_chosen(dataset):
    _, env, params = simulator_of(dataset, semantics="soft", taste="latent", exposure=True)
    params = never_leaves(params)
    obs, state = env.reset_user(0, params, jax.random.key(0))
    action = allowed(env, obs, params, seed=0)
    after = env.step(jax.random.key(1), state, action, params)[1]
    chex.assert_trees_all_equal(after.exposure, state.exposure)


# ---- explanations --------------------------------------------------------------------------------------


def test_an_explanation_names_the_correction(soft, dataset):
    items, likes = [3, 7, 9], [1, 0, 1]
    why = jaxsim.explain(dataset, soft.env, soft.params, items, likes, 5)
    assert why.exposure_part == pytest.approx(shift(dataset, items, 5), abs=1e-5)
    assert why.chosen == pytest.approx(chosen_log_odds(dataset, items, 5), abs=1e-5)
    assert why.log_odds == pytest.approx(why.item_part + why.taste_part + why.exposure_part)
    assert "being chosen" in str(why)
    assert why.to_dict()["exposure"] == (0.4, -4.5)


def test_without_the_option_an_explanation_says_nothing_about_it(plain, dataset):
    why = jaxsim.explain(dataset, plain.env, plain.params, [3, 7], [1, 0], 5)
    assert (why.exposure_part, why.chosen, why.exposure) == (0.0, None, None)
    assert "being chosen" not in str(why)


# ---- where it is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("semantics", ["paper", "released"])
def test_votes_are_not_corrected(dataset, semantics):
    with pytest.raises(InputError, match=r"exposure=True corrects the taste model.*semantics"):
        simulator_of(dataset, semantics=semantics, exposure=True)


def test_a_model_of_the_user_s_own_is_not_corrected(dataset):
    class Own(jaxsim.UserModel):
        def init(self, params, user, items, likes, length):
            return length

        def probability(self, params, state, item):
            return jnp.float32(0.5)

        def update(self, params, state, item, like):
            return state

    with pytest.raises(InputError, match="exposure=True has no meaning beside user_model"):
        simulator_of(dataset, user_model=Own(), exposure=True)


def test_only_true_and_false_are_settings(dataset):
    with pytest.raises(InputError, match="exposure is 'yes'"):
        simulator_of(dataset, semantics="soft", exposure="yes")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exposure": None}, r"no exposure model: build it again"),
        ({"entry": {"label": None, "reason": "it takes 200 validation labels"}}, "it takes 200"),
        ({"entry": {"applies": False}}, r"switched off.*0\.200 to 0\.600.*contains zero"),
    ],
)
def test_a_dataset_that_cannot_be_corrected_is_refused_in_one_line(dataset, changes, message):
    dataset = with_entry(dataset, **changes.pop("entry", {}))
    dataset = dataclasses.replace(dataset, **changes)
    with pytest.raises(InputError, match=message) as caught:
        simulator_of(dataset, semantics="calibrated", exposure=True)
    assert "\n" not in str(caught.value)


def test_a_dataset_too_small_for_the_model_says_so(dataset):
    entry = {"reason": "3 training ratings to fit it to are fewer than 200"}
    manifest = {**dataset.manifest, "exposure": entry}
    dataset = dataclasses.replace(dataset, exposure=None, manifest=manifest)
    with pytest.raises(InputError, match="no exposure model: 3 training ratings"):
        simulator_of(dataset, semantics="calibrated", exposure=True)


def test_packs_with_and_without_the_file_are_read(dataset, tmp_path):
    read = jaxsim.load_dataset(write_pack(dataset, tmp_path / "with"))
    for name, array in dataset.exposure.items():
        np.testing.assert_array_equal(read.exposure[name], array)
    manifest = {name: x for name, x in dataset.manifest.items() if name != "exposure"}
    old = dataclasses.replace(dataset, exposure=None, manifest=manifest)
    read = jaxsim.load_dataset(write_pack(old, tmp_path / "without"))
    assert read.exposure is None
    simulator_of(read, semantics="calibrated")
