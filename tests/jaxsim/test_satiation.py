"""Satiation: the features by hand, sessions against a NumPy reference, what it composes with, what is refused."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit

import jaxsim
from jaxsim import InputError
from jaxsim.catalogue import build_catalogue
from jaxsim.departure import Recent
from jaxsim.satiation import (
    Redundancy,
    build_satiation,
    check_satiation,
    redundancies,
    redundancy_of,
)
from tests.conftest import allowed, never_leaves, simulator_of
from tests.factory import make_dataset, random_dataset
from tests.taste_reference import probabilities

TOLERANCE = 1e-4  # of float32 against float64
TERMS = Redundancy._fields


@pytest.fixture(scope="module")
def dataset():
    return random_dataset(0, num_users=9, window=12, width=4, num_blocks=1)


def fitted(dataset, **changes):
    """The dataset with a fit that nobody made: keywords in a row are disliked, categories liked."""
    entry = {
        "terms": {
            "same_category": {"weight": 0.4, "mean": 0.5},
            "keyword_similarity": {"weight": -1.5, "mean": 0.3},
        },
        "shows": True,
        "tables": {"raw": []},
    }
    manifest = {**dataset.manifest, "satiation": {**entry, **changes}}
    return dataclasses.replace(dataset, manifest=manifest)


def bored(redundancy: Redundancy) -> jax.Array:
    return -(redundancy.latest_same_category + redundancy.keyword_similarity**2)


def features_of(dataset, history, item):
    """Redundancy by its definition; None where there is nothing to compare."""
    arrays, last = dataset.arrays, history[-5:]
    categories = [set(row[row >= 0]) for row in arrays["item_categories"]]
    pros = arrays["item_pos_embedding"].astype(np.float64)
    same = [bool(categories[item] & categories[i]) for i in last]
    cosines = [float(pros[item] @ pros[i]) for i in last if pros[i].any() and pros[item].any()]
    return (
        np.mean(same) if same else None,
        np.mean(cosines) if cosines else None,
        float(same[-1]) if same else None,
    )


def added_by(satiation, features):
    """What a setting adds to the log-odds, by its definition."""
    same, cosine, latest = features
    if satiation == "fitted":
        parts = [0.4 * (same - 0.5) if same is not None else 0]
        return sum(parts) + (-1.5 * (cosine - 0.3) if cosine is not None else 0)
    if callable(satiation):
        return -((latest or 0.0) + (cosine or 0.0) ** 2)
    return -satiation * (same or 0.0)


# ---- features ------------------------------------------------------------------------------------------


def by_hand():
    """Items 0 to 3: categories {0, 1}, {1}, {2}, {2}; pros along x, at 60 degrees, along y, and none."""
    vectors = np.array([[1.0, 0.0], [0.5, np.sqrt(3) / 2], [0.0, 1.0]])
    return make_dataset(
        [[0, 1], [1], [2], [2]], [[0], [1], [2], []], [[], [], [], []],
        [([0, 1, 2, 3, 0, 1], [1, 0, 1, 0, 1, 1])], vectors,
    )  # fmt: skip


@pytest.mark.parametrize("catalogue", ["tables", "features"])
def test_features_by_hand(catalogue):
    items = build_catalogue(by_hand().arrays, kind=catalogue)
    recent = Recent(
        jnp.array([0, 0, 1, 3, 2], jnp.int32),
        jnp.zeros(5),
        jnp.array([False, False, True, True, True]),
    )
    everything = jax.jit(redundancies)(items, recent)
    # Of 1, 3, 2: item 0 shares a category with 1, item 2 with 3 and 2. Item 3 has no pros to compare.
    np.testing.assert_allclose(everything.same_category, [1 / 3, 1 / 3, 2 / 3, 2 / 3])
    cosines = [(0.5 + 0) / 2, (1 + np.sqrt(3) / 2) / 2, (np.sqrt(3) / 2 + 1) / 2, np.nan]
    np.testing.assert_allclose(everything.keyword_similarity, cosines, atol=2e-6)
    np.testing.assert_array_equal(everything.latest_same_category, [0, 0, 1, 1])
    of_one = jax.jit(redundancy_of)
    for item in range(4):
        one = of_one(items, recent, jnp.int32(item))
        chex.assert_trees_all_close(one, jax.tree.map(lambda x, i=item: x[i], everything))
    nothing = of_one(items, recent._replace(present=jnp.zeros(5, bool)), 0)
    assert all(np.isnan(x) for x in nothing)


def test_a_number_and_a_fit_by_hand(dataset):
    redundancy = Redundancy(*(jnp.float32(x) for x in (0.6, 0.8, 1.0)))
    assert float(build_satiation(dataset, 2.0)(redundancy)) == pytest.approx(-1.2)
    weights = build_satiation(fitted(dataset), "fitted")
    assert float(weights(redundancy)) == pytest.approx(0.4 * 0.1 - 1.5 * 0.5)
    unknown = redundancy._replace(keyword_similarity=jnp.float32(jnp.nan))
    assert float(weights(unknown)) == pytest.approx(0.04)


# ---- sessions ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("satiation", [1.5, "fitted", bored], ids=["number", "fitted", "function"])
def test_steps_respond_and_expected_response_agree_with_the_reference(dataset, satiation):
    dataset = fitted(dataset)
    _, env, params = simulator_of(dataset, semantics="soft", satiation=satiation)
    params = never_leaves(params)
    obs, state = env.reset_user(0, params)
    for t in range(4):
        count = int(obs.length)
        items = np.asarray(obs.items[:count])
        likes = (np.asarray(obs.responses[:count]) > 0).astype(int)
        action = int(allowed(env, obs, params, seed=t))
        shift = added_by(satiation, features_of(dataset, items.tolist(), action))
        expected = expit(logit(probabilities(dataset, items, likes)[action]) + shift)
        answer = env.respond(jax.random.key(0), obs.items, obs.responses, action, params)
        everything = jax.jit(env.expected_response)(state, params)
        obs, state, reward, *_, info = env.step(jax.random.key(t), state, action, params)
        for value in (answer.probability, everything[action], reward, info["probability"]):
            assert float(value) == pytest.approx(expected, abs=TOLERANCE)
    empty = env.respond(jax.random.key(0), np.zeros(0, np.int32), np.zeros(0, np.int8), 3, params)
    first = probabilities(dataset, np.zeros(0, int), np.zeros(0, int))[3]
    plain = expit(logit(first) + added_by(satiation, features_of(dataset, [], 3)))
    assert float(empty.probability) == pytest.approx(plain, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("taste", ["posterior", "latent"])
def test_it_composes_with_exposure_and_agrees_with_expected_response(dataset, taste):
    """The log-odds of the posterior move by both; a drawn taste moves by the same in its quantile."""
    shifts = {}
    for name, options in {
        "none": {}, "exposure": {"exposure": True}, "satiation": {"satiation": 2.0},
        "both": {"exposure": True, "satiation": 2.0},
    }.items():  # fmt: skip
        _, env, params = simulator_of(dataset, semantics="soft", taste=taste, **options)
        _, state = env.reset_user(1, params, key=jax.random.key(5))
        probability = np.asarray(jax.jit(env.expected_response)(state, params), np.float64)
        item = int(allowed(env, env.get_obs(state), params, seed=2))
        info = env.step(jax.random.key(0), state, item, params)[-1]
        assert float(info["probability"]) == pytest.approx(probability[item], abs=TOLERANCE)
        shifts[name] = logit(probability)
    moved = {name: x - shifts["none"] for name, x in shifts.items()}
    assert (moved["satiation"] < 1e-4).all()
    assert (moved["satiation"] < -0.1).any()
    if taste == "posterior":
        np.testing.assert_allclose(
            moved["both"], moved["exposure"] + moved["satiation"], atol=TOLERANCE * 10
        )
    else:
        assert ((moved["both"] - moved["exposure"]) < 1e-4).all()


@pytest.mark.slow
def test_steps_draw_likes_as_often_as_expected(dataset):
    _, env, params = simulator_of(dataset, semantics="calibrated", satiation=1.5)
    _, state = env.reset_user(2, params)
    item = int(allowed(env, env.get_obs(state), params, seed=1))
    expected = float(env.expected_response(state, params)[item])
    step = jax.vmap(lambda key: env.step_env(key, state, jnp.int32(item), params)[2])
    likes = np.asarray(jax.jit(step)(jax.random.split(jax.random.key(0), 4000)))
    assert likes.mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 4000))


@pytest.mark.slow
def test_eager_jit_and_vmap_agree(dataset):
    _, env, params = simulator_of(dataset, semantics="soft", satiation=bored)
    _, state = env.reset_user(0, params)
    expected = jax.jit(env.expected_response)(state, params)
    with jax.disable_jit():
        eager = env.expected_response(state, params)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    batch = jax.vmap(env.expected_response, (0, None))(states, params)
    chex.assert_trees_all_close(expected, eager, batch[0], batch[1], atol=1e-5)


@pytest.mark.slow
def test_slates_score_items_with_it(dataset):
    _, env, params = simulator_of(
        dataset, semantics="soft", satiation=2.0, slate_size=3, session_capacity=5
    )
    _, single, of_single = simulator_of(dataset, semantics="soft", satiation=2.0)
    _, state = env.reset_user(0, params)
    _, alone = single.reset_user(0, of_single)
    expected = logit(np.asarray(single.expected_response(alone, of_single), np.float64))
    np.testing.assert_allclose(env.scores(state, params), expected, atol=1e-3)
    slate = jnp.array(np.flatnonzero(env.action_mask(env.get_obs(state)))[:3], jnp.int32)
    *_, info = env.step(jax.random.key(0), state, slate, params)
    np.testing.assert_allclose(info["scores"], expected[slate], atol=1e-3)


@pytest.mark.slow
def test_the_default_is_the_same_program_as_before(dataset):
    """Without satiation nothing is compared; with it, the program has more to do."""
    programs = []
    for options in ({}, {"satiation": None}, {"satiation": 1.0}):
        _, env, params = simulator_of(dataset, semantics="calibrated", **options)
        state = env.reset_user(0, params)[1]
        lowered = jax.jit(env.step_env).lower(jax.random.key(0), state, jnp.int32(0), params)
        programs.append(lowered.as_text())
    assert programs[0] == programs[1]
    assert len(programs[2]) > len(programs[0])


def test_repr_and_equality(dataset):
    env = simulator_of(dataset, semantics="soft", satiation=np.float32(0.5)).env
    assert "satiation=0.5" in repr(env)
    assert "satiation" not in repr(simulator_of(dataset, semantics="soft").env)
    assert env == simulator_of(dataset, semantics="soft", satiation=0.5).env


# ---- bad input -----------------------------------------------------------------------------------------


class Unhashable:
    __hash__ = None

    def __call__(self, redundancy):
        return redundancy.same_category


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("strong", "satiation is 'strong': give \"fitted\", a number from 0, or a function"),
        (True, "satiation is True"),
        (-1, "satiation is -1: give a finite number from 0"),
        (float("nan"), "satiation is nan: give a finite number"),
        (Unhashable(), "satiation Unhashable is not hashable"),
        (lambda r: r.rating, "satiation cannot be run inside jit (AttributeError"),
        (lambda r: r.same_category > 0, "satiation returns bool[] for one item: return float32[]"),
        (lambda r: r.same_category.sum(), "satiation returns float32[] for 4 items"),
        (lambda r: r.same_category / 0 * 0, "satiation is NaN for"),
    ],
)
def test_settings_that_mean_nothing_are_refused(value, message):
    with pytest.raises(InputError) as error:
        check_satiation(value)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_votes_and_own_models_are_refused(dataset):
    with pytest.raises(
        InputError, match="satiation changes the taste model, which semantics='paper'"
    ):
        jaxsim.make(dataset, satiation=0.5)


def test_a_fit_that_shows_none_is_refused_with_its_coefficients(dataset):
    row = {"term": "same_category", "coefficient": 0.05, "low": -0.02, "high": 0.12}
    none = fitted(dataset, shows=False, tables={"raw": [row]})
    for packed, message in (
        (dataset, r'^satiation="fitted": invented was built without it; run `python -m prep'),
        (fitted(dataset, reason="all times are equal"), "has no fit: all times are equal$"),
        (none, r"switched off for invented.*\(same_category \+0.050, -0.020 to \+0.120\); leave"),
    ):
        with pytest.raises(InputError, match=message):
            jaxsim.make(packed, semantics="soft", satiation="fitted")


# ---- explanations --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("satiation", [1.5, "fitted", bored], ids=["number", "fitted", "function"])
def test_an_explanation_names_the_satiation(dataset, satiation):
    """And agrees with `respond`, which `explain` checks by itself."""
    _, env, params = simulator_of(
        fitted(dataset), semantics="soft", satiation=satiation, exposure=True
    )
    for items in ([3, 7, 9], [1, 2, 3, 4, 5, 6, 8], []):
        features = features_of(dataset, items, 5)
        why = jaxsim.explain(fitted(dataset), env, params, items, [1] * len(items), 5)
        assert why.satiation_part == pytest.approx(added_by(satiation, features), abs=1e-5)
        known = why.to_dict()["redundancy"]
        assert tuple(known) == TERMS
        assert [None if x is None else pytest.approx(x, abs=1e-5) for x in features] == list(
            known.values()
        )
        parts = why.item_part + why.taste_part + why.exposure_part + why.satiation_part
        assert why.log_odds == pytest.approx(parts)
        assert why.probability == pytest.approx(expit(why.log_odds))
        assert "satiation" in str(why)


def test_without_the_option_an_explanation_says_nothing_about_it(dataset):
    simulator = simulator_of(dataset, semantics="soft")
    why = jaxsim.explain(*simulator, [3, 7], [1, 0], 5)
    assert (why.satiation_part, why.redundancy) == (0.0, None)
    assert "satiation" not in str(why)
