"""When users leave: the fitted hazard against a plain reference, in sessions, and where there is none."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim
from jaxsim import InputError
from jaxsim.catalogue import build_catalogue
from jaxsim.departure import TERMS, build_departure, depart, recent_of
from prep.departure_model import log_odds_of_terms, read_log, window_features
from tests.conftest import allowed, simulator_of
from tests.departure_logs import draw_logs, with_departure
from tests.factory import random_dataset, write_pack


@pytest.fixture(scope="module")
def leaving(dataset):
    return simulator_of(with_departure(dataset), departure="fitted")


def plain_log_odds(dataset, items, likes, position):
    """What each term adds after a window of items and likes, one number at a time."""
    arrays, own, clip = dataset.arrays, dataset.departure, 2.0
    latest = list(zip(items[-5:], likes[-5:], strict=True))
    names = [set(row[row >= 0]) for row in arrays["item_categories"]]
    last, earlier = items[-1], items[-5:-1]
    vectors = arrays["item_pos_embedding"]
    known = [i for i in earlier if vectors[i].any() and vectors[last].any()]
    values = {
        "obscurity": [own["item_obscurity"][i] for i, _ in latest],
        "same_category": [float(bool(names[i] & names[last])) for i in earlier],
        "keyword_similarity": [float(vectors[i] @ vectors[last]) for i in known],
        "satisfaction": [like - own["item_rate"][i] for i, like in latest],
    }
    result = {"position": own["position_log_odds"][min(position, 2) - 1]}
    for name, term in dataset.manifest["departure"]["terms"].items():
        mean = np.mean(values[name]) if values[name] else term["mean"]
        standard = np.clip((mean - term["mean"]) / term["scale"], -clip, clip)
        result[name] = term["weight"] * standard
    return result


@pytest.mark.parametrize("length", [1, 9])
def test_the_hazard_is_that_of_a_plain_reference(leaving, length):
    dataset, env, params = leaving
    rng = np.random.default_rng(length)
    windows = [rng.choice(env.num_items, length, replace=False) for _ in range(6)]
    likes = rng.integers(0, 2, (6, length))
    items = np.full((6, env.window), -1, np.int32)
    items[:, :length] = windows
    responses = np.zeros((6, env.window), np.int8)
    responses[:, :length] = 2 * likes - 1
    positions = np.array([1, 1, 2, 3, 50, 2], np.int32)

    def chance(items, responses, position):
        recent = recent_of(items, responses, jnp.int32(length))
        return depart(params.departure, params.catalogue, recent, position)

    batch = jax.jit(jax.vmap(chance))(items, responses, positions)
    for row in range(6):
        expected = plain_log_odds(dataset, windows[row], likes[row], int(positions[row]))
        assert batch.log_odds.keys() == expected.keys() == {"position", *TERMS}
        for name, value in expected.items():
            np.testing.assert_allclose(batch.log_odds[name][row], value, atol=1e-5)
        probability = 1 / (1 + np.exp(-sum(expected.values())))
        np.testing.assert_allclose(batch.probability[row], probability, atol=1e-5)
    eager = chance(jnp.array(items[0]), jnp.array(responses[0]), jnp.int32(positions[0]))
    np.testing.assert_allclose(eager.probability, batch.probability[0], atol=1e-6)


def test_nothing_is_known_of_an_empty_window(leaving):
    _, env, params = leaving
    empty = recent_of(
        jnp.full(env.window, -1, jnp.int32), jnp.zeros(env.window, jnp.int8), jnp.int32(0)
    )
    chance = depart(params.departure, params.catalogue, empty, jnp.int32(1))
    assert [float(x) for name, x in chance.log_odds.items() if name != "position"] == [0] * 4
    np.testing.assert_allclose(chance.probability, 1 / (1 + np.exp(1.5)), rtol=1e-6)


def test_the_simulator_reads_windows_as_the_fit_does():
    """The same features in the training logs and in a session's window."""
    arrays = draw_logs(0, 0.4, users=12)
    log, _ = read_log({**arrays}, 30.0)
    dataset = random_dataset(0, num_items=200)
    own = {name: arrays[name] for name in arrays if name.startswith("item_")}
    own["item_neg_keywords"], own["item_neg_embedding"] = (
        own["item_pos_keywords"],
        own["item_pos_embedding"],
    )
    dataset = with_departure(dataclasses.replace(dataset, arrays={**dataset.arrays, **own}))
    terms = dataset.manifest["departure"]["terms"]
    expected = log_odds_of_terms(window_features(log, arrays, dataset.departure), terms)
    model = build_departure(dataset)
    catalogue = build_catalogue(dataset.arrays)
    label = arrays["interaction_label"][arrays["interaction_split"] == 0]
    signed = np.where(label > 0, 1, -1).astype(np.int8)

    @jax.jit
    def total(items, responses, length):
        recent = recent_of(items, responses, length)
        log_odds = depart(model, catalogue, recent, jnp.int32(1)).log_odds
        return sum(log_odds.values()) - log_odds["position"]

    for row in [*range(8), 120, 350, 1000]:
        first = row - int(log.so_far[row]) + 1
        items, responses = np.full(120, -1, np.int32), np.zeros(120, np.int8)
        length = row + 1 - first
        items[:length], responses[:length] = log.item[first : row + 1], signed[first : row + 1]
        np.testing.assert_allclose(total(items, responses, length), expected[row], atol=1e-5)


KEYS = jax.random.split(jax.random.key(1), 2000)


@partial(jax.jit, static_argnums=0)
def steps(env, keys, state, item, params):
    return jax.vmap(env.step_env, (0, None, None, None))(keys, state, item, params)


def step_often(simulated, item):
    """One step from one state with many keys, and the state."""
    _, state = simulated.env.reset(jax.random.key(0), simulated.params)
    return state, steps(simulated.env, KEYS, state, jnp.int32(item(state)), simulated.params)


def unseen(state):
    return next(item for item in range(40) if item not in np.asarray(state.items))


@pytest.mark.slow
def test_users_leave_with_the_probability_that_info_states(leaving):
    _, (_, after, _, terminated, info) = step_often(leaving, unseen)
    chance = np.asarray(info["departure_probability"])
    assert chance.dtype == np.float32
    assert abs(np.mean(terminated) - chance.mean()) < 5 * np.sqrt(0.25 / len(KEYS))
    why = jax.jit(leaving.env.departure_of)(jax.tree.map(lambda x: x[0], after), leaving.params)
    np.testing.assert_allclose(why.probability, chance[0], rtol=1e-6)
    total = sum(map(float, why.log_odds.values()))
    np.testing.assert_allclose(why.probability, 1 / (1 + np.exp(-total)), rtol=1e-5)


def test_an_invalid_action_changes_the_position_only(leaving):
    before, (_, after, _, _, info) = step_often(leaving, lambda state: state.items[0])
    assert info["invalid_action"].all()
    assert (after.time == 1).all()
    chance = jax.jit(leaving.env.departure_of)(before.replace(time=jnp.int32(1)), leaving.params)
    np.testing.assert_allclose(info["departure_probability"], chance.probability, rtol=1e-6)


def test_a_constant_departure_is_as_before(dataset, simulator, leaving):
    """The same params but for the fitted arrays, the same responses, and departures as they were drawn."""
    again = simulator_of(with_departure(dataset))
    assert again.env == simulator.env
    assert hash(again.env) == hash(simulator.env)
    assert again.params.departure is None
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, simulator.params))
    assert "departure" not in repr(again.env)
    assert "departure='fitted'" in repr(leaving.env)
    _, (_, state, _, terminated, info) = step_often(again, unseen)
    _, (_, other, _, _, _) = step_often(leaving, unseen)
    assert jax.tree.all(jax.tree.map(np.array_equal, state, other))
    assert "departure_probability" not in info
    keys = jax.vmap(jax.random.split)(KEYS)[:, 1]
    left = jax.vmap(jax.random.bernoulli, (0, None))(keys, jnp.float32(0.025))
    np.testing.assert_array_equal(terminated, left)
    with pytest.raises(InputError, match=r"^the departure is constant: make the environment with"):
        simulator.env.departure_of(jax.tree.map(lambda x: x[0], state), simulator.params)


@pytest.mark.slow
def test_an_own_model_of_users_leaves_too(dataset):
    @dataclasses.dataclass(frozen=True)
    class Fair(jaxsim.UserModel):
        def init(self, params, user, items, likes, length):
            return ()

        def probability(self, params, state, item):
            return jnp.float32(0.5)

        def update(self, params, state, item, like):
            return state

    _, env, params = simulator_of(with_departure(dataset), departure="fitted", user_model=Fair())
    obs, state = env.reset(jax.random.key(0), params)
    item = allowed(env, obs, params, 0)
    *_, info = env.step(jax.random.key(1), state, item, params)
    assert 0 < info["departure_probability"] < 1


def test_what_a_pack_without_a_departure_says(dataset, tmp_path):
    with pytest.raises(
        InputError, match=r"was built without it; run `python -m prep build invented` again$"
    ):
        simulator_of(dataset, departure="fitted")
    manifest = {**dataset.manifest, "departure": {"constant_because": "all times are equal"}}
    with pytest.raises(InputError, match=r"do not show when users leave \(all times are equal\)$"):
        simulator_of(dataclasses.replace(dataset, manifest=manifest), departure="fitted")
    with pytest.raises(InputError, match=r"^departure is 'never': give one of constant, fitted$"):
        simulator_of(dataset, departure="never")
    short = with_departure(dataset)
    short.departure["item_rate"] = short.departure["item_rate"][1:]
    with pytest.raises(InputError, match="item_rate of the departure is missing or damaged"):
        simulator_of(short, departure="fitted")
    packed = write_pack(with_departure(dataset), tmp_path / "pack")
    read = jaxsim.load_dataset(packed)
    assert build_departure(read).item_rate.shape == (dataset.num_items,)
