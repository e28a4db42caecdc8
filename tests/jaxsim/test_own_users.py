"""A user's own model of users in the environment, and what `make` refuses."""

import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim
from jaxsim import InputError, UserModel
from tests.conftest import CAPACITY, HISTORY, WINDOW, allowed, never_leaves, simulator_of
from tests.paths import ROOT


class Memory(NamedTuple):
    user: jax.Array
    likes: jax.Array
    length: jax.Array
    latest: jax.Array


@dataclass(frozen=True)
class LikeShare(UserModel):
    """Likes an item with its rate, moved towards the share of likes so far; never likes the latest item again."""

    pull: float = 0.5

    def init(self, params, user, items, likes, length):
        inside = jnp.arange(len(items)) < length
        latest = jnp.where(length > 0, items[jnp.maximum(length - 1, 0)], -1)
        return Memory(user, jnp.sum(inside & (likes > 0), dtype=jnp.int32), length, latest)

    def probability(self, params, state, item):
        share = (state.likes + 1) / (state.length + 2)
        known = jnp.where(state.user >= 0, 1.0, 0.5)
        p = known * ((1 - self.pull) * params[item] + self.pull * share)
        return jnp.where(item == state.latest, 0.0, p).astype(jnp.float32)

    def update(self, params, state, item, like):
        return Memory(state.user, state.likes + (like > 0), state.length + 1, item)


def reference(rates, user, items, likes, item, pull=0.5):
    """`LikeShare.probability` after a whole history, in NumPy."""
    share = (np.sum(likes) + 1) / (len(items) + 2)
    p = (1.0 if user >= 0 else 0.5) * ((1 - pull) * rates[item] + pull * share)
    return 0.0 if len(items) and items[-1] == item else p


@pytest.fixture(scope="module")
def rates(dataset):
    return np.random.default_rng(3).random(dataset.num_items).astype(np.float32)


@pytest.fixture(scope="module", params=["calibrated", "soft"])
def simulator(request, dataset, rates):
    return simulator_of(dataset, user_model=LikeShare(), user_params=rates, semantics=request.param)


def window(obs):
    n = int(obs.length)
    return np.asarray(obs.items[:n]), np.asarray(obs.responses[:n] > 0)


def test_a_session_follows_the_model(simulator, rates):
    env, params = simulator.env, never_leaves(simulator.params)
    obs, state = env.reset_user(2, params)
    step = jax.jit(lambda *a: env.step(*a))
    for t in range(CAPACITY - 1):
        items, likes = window(obs)
        expected = [reference(rates, 2, items, likes, i) for i in range(env.num_items)]
        np.testing.assert_allclose(env.expected_response(state, params), expected, atol=1e-6)
        action = allowed(env, obs, params, t)
        key = jax.random.key(t)
        answer = env.respond(key, obs.items, obs.responses, action, params, user=2)
        np.testing.assert_allclose(answer.probability, expected[action], atol=1e-6)
        obs, state, reward, _, _, info = step(key, state, action, params)
        np.testing.assert_allclose(info["probability"], expected[action], atol=1e-6)
        like = int(info["response"].like)
        if env.semantics == "soft":
            assert reward == info["probability"]
            assert like == (reward >= 0.5)
        else:
            assert reward == like
        assert obs.responses[obs.length - 1] == (1 if like else -1)
    assert "votes" not in info


def test_likes_are_drawn_with_the_probability(dataset, rates):
    env, params = simulator_of(dataset, user_model=LikeShare(pull=0.0), user_params=rates)[1:]
    assert env.semantics == "calibrated"
    keys = jax.random.split(jax.random.key(0), 4000)
    ask = jax.vmap(lambda key, item: env.respond(key, [-1], [0], item, params), (0, None))
    for item in (0, 7, 31):
        decision = ask(keys, jnp.int32(item))
        p = rates[item] / 2  # an unknown user
        assert abs(decision.reward.mean() - p) < 5 * np.sqrt(0.25 / len(keys))
        np.testing.assert_array_equal(decision.reward, decision.response.like)


@pytest.mark.slow
def test_sessions_of_a_batch_are_those_of_single_steps_across_resets(dataset, rates):
    env, params = simulator_of(dataset, user_model=LikeShare(), user_params=rates)[1:]
    params = params.replace(departure_probability=jnp.float32(0.4))
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(1), 5), params)
    for t in range(4):
        keys = jax.random.split(jax.random.key(10 + t), 5)
        rows = [jax.tree.map(lambda x, i=i: x[i], obs) for i in range(5)]
        actions = jnp.stack([allowed(env, row, params, t) for row in rows])
        single = [
            env.step(keys[i], jax.tree.map(lambda x, i=i: x[i], state), actions[i], params)
            for i in range(5)
        ]
        batch = jax.vmap(env.step, (0, 0, 0, None))(keys, state, actions, params)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *single)
        jax.tree.map(np.testing.assert_array_equal, batch, stacked)
        obs, state = batch[:2]
    assert int(state.time.min()) < 4  # someone left


def test_an_invalid_action_changes_nothing(simulator):
    env, params = simulator.env, simulator.params
    obs, state = env.reset_user(2, params)
    step = jax.jit(lambda *a: env.step(*a))
    _, after, reward, _, _, info = step(
        jax.random.key(0), state, obs.items[0], never_leaves(params)
    )
    jax.tree.map(np.testing.assert_array_equal, state.user_state, after.user_state)
    assert (reward, bool(info["invalid_action"])) == (0, True)


def test_equal_models_make_equal_environments(simulator):
    env = simulator.env
    same, other = (replace(env, own_model=LikeShare(pull)) for pull in (0.5, 0.25))
    assert env == same != other
    assert hash(env) == hash(same)
    assert "LikeShare(pull=0.5)" in repr(env)


def test_the_window_may_be_longer_than_that_of_the_statistic_model(dataset, rates):
    env, _ = simulator_of(
        dataset, history_length=WINDOW, user_model=LikeShare(), user_params=rates
    )[1:]
    assert env.window > env.sasrec.window


def test_default_environments_hold_nothing_of_it(dataset):
    _, env, params = simulator_of(dataset)
    assert (env.own_model, params.user_params) == (None, None)
    assert (env.semantics, env.reset_user(0, params)[1].user_state) == ("paper", None)
    assert "own_model" not in repr(env)


# ---- what is refused ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken(UserModel):
    """A model with one mistake."""

    mistake: str = ""

    def init(self, params, user, items, likes, length):
        if self.mistake == "if":
            return jnp.float32(1.0 if user > 0 else 0.0)
        return {"a": jnp.zeros(2, jnp.float32)}

    def probability(self, params, state, item):
        value = {
            "nan": jnp.float32(jnp.nan),
            "large": jnp.float32(1.5),
            "negative": jnp.float32(-0.1),
        }
        if self.mistake == "int":
            return jnp.int32(1)
        if self.mistake == "vector":
            return jnp.full(3, 0.5, jnp.float32)
        if self.mistake == "later":
            return jnp.where(state["a"][0] > 0, jnp.nan, 0.5).astype(jnp.float32)
        return value.get(self.mistake, jnp.float32(0.5))

    def update(self, params, state, item, like):
        grown = {"a": jnp.zeros(3, jnp.float32)}
        renamed = {"b": state["a"]}
        return {"grown": grown, "renamed": renamed}.get(self.mistake, {"a": state["a"] + 1})

    def probabilities(self, params, state, num_items):
        if self.mistake == "few":
            return jnp.full(num_items - 1, 0.5, jnp.float32)
        return jnp.full(num_items, 0.25 if self.mistake == "other" else 0.5, jnp.float32)


class Unhashable(Broken):
    __hash__: Any = None


class NoMethods:
    def init(self, *_):
        return ()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("nan", "user_model.probability is nan: return probabilities"),
        ("large", "user_model.probability is 1.5: return probabilities, from 0 to 1"),
        ("negative", "user_model.probability is -0.1"),
        ("int", "user_model.probability is int32[] for one session: return float32[]"),
        ("vector", "user_model.probability is float32[3] for one session: return float32[]"),
        ("later", "user_model.probability after an update is nan"),
        ("if", "user_model.init cannot be run inside jit and vmap (TracerBoolConversionError"),
        ("grown", "update returns float32[3] at state['a'], but init float32[2]"),
        ("renamed", "a state must keep its form"),
        ("few", "user_model.probabilities is float32[39] for one session: return float32[40]"),
        ("other", "probabilities gives 0.25 for item 0, but user_model.probability 0.5"),
    ],
)
def test_a_model_with_a_mistake_is_refused(dataset, mistake, message):
    refused(message, dataset, user_model=Broken(mistake))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user_model": Broken(), "semantics": "paper"}, "semantics='paper' counts votes"),
        ({"user_model": Broken(), "prefixes": "table"}, "prefixes='table' has no meaning beside"),
        ({"user_model": NoMethods()}, "no object with the methods init, probability, update"),
        ({"user_model": LikeShare}, "pass an object of a subclass of jaxsim.UserModel"),
        ({"user_model": Unhashable()}, "Unhashable is not hashable"),
        ({"user_params": jnp.zeros(3)}, "user_params are of a user_model: give both"),
        ({"user_model": Broken(), "user_params": {"a": "text"}}, "user_params holds a str"),
    ],
)
def test_settings_that_do_not_fit_are_refused(dataset, settings, message):
    refused(message, dataset, **settings)


def refused(message, dataset, **settings):
    with pytest.raises(InputError) as caught:
        simulator_of(dataset, **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_mistakes_is_taken(dataset):
    env, _ = simulator_of(dataset, user_model=Broken())[1:]
    assert env.history_length == HISTORY


def test_explain_says_that_it_knows_no_other_models(simulator):
    with pytest.raises(InputError, match="explain describes the votes and the taste model"):
        jaxsim.explain(*simulator, [0], [1], 2)


def test_the_example_of_the_documentation_runs(dataset, monkeypatch):
    page = (ROOT / "docs" / "user_models.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    monkeypatch.setattr(jaxsim, "load_dataset", lambda name: dataset)
    smaller = jaxsim.make
    monkeypatch.setattr(
        jaxsim, "make", lambda *a, **k: smaller(*a, **k, history_length=4, session_capacity=5)
    )
    scope: dict = {}
    exec(compile(code[1], "user_models.md", "exec"), scope)
    assert scope["rates"][scope["best"]] == scope["rates"].max()
    assert len(code[1].split("class ItemRate")[1].split("\n\n\n")[0].splitlines()) <= 10
