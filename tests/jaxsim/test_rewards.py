"""What a recommendation earns: words, functions, expectations, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim
from jaxsim import InputError
from tests.factory import random_dataset
from tests.jaxsim.test_signals import CUT, made, play
from tests.signals_factory import with_signals


@pytest.fixture(scope="module")
def plain():
    return random_dataset(0)


@pytest.fixture(scope="module")
def dataset(plain):
    return with_signals(plain)


def five_stars(response) -> jax.Array:
    return (response.rating == 5.0).astype(jnp.float32)


def twice(response) -> jax.Array:
    return 2.0 * response.like.astype(jnp.float32)


def whole(response) -> jax.Array:
    return response.rating + 10.0 * response.duration


@pytest.mark.parametrize("reward", ["rating", "duration"])
def test_a_signal_is_earned(dataset, reward):
    infos, _ = play(made(dataset, semantics="calibrated", reward=reward), jax.random.key(0), 5)
    for info in infos:
        assert info["reward"] == getattr(info["response"], reward)


def test_an_invalid_action_earns_nothing(dataset):
    env, params = made(dataset, semantics="calibrated", reward="rating")
    _, state = env.reset(jax.random.key(0), params)
    step = jax.jit(lambda s, a: env.step_env(jax.random.key(1), s, a, params))
    _, after, reward, _, info = step(state, state.items[0])
    assert info["invalid_action"]
    assert reward == 0
    np.testing.assert_array_equal(after.posterior.signal_scores, state.posterior.signal_scores)


@pytest.mark.parametrize("semantics", ["paper", "calibrated", "soft"])
@pytest.mark.slow
def test_a_function_of_the_like_is_earned_by_every_model(dataset, semantics):
    env, params = made(dataset, semantics=semantics, reward=twice)
    like, like_params = made(dataset, semantics=semantics)
    infos, state = play((env, params), jax.random.key(3), 4)
    for info in infos:
        assert info["reward"] == 2.0 * float(info["response"].like)
    if semantics != "soft":
        expected = like.expected_response(state, like_params)
        np.testing.assert_allclose(env.expected_response(state, params), 2 * expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("duration", ["free", "cut"])
@pytest.mark.parametrize("kind", ["posterior", "latent"])
def test_expected_rewards_are_means_of_draws(plain, duration, kind):
    """And those of a function that is linear in the signals are the sum of theirs."""
    data = with_signals(plain, duration=CUT) if duration == "cut" else with_signals(plain)
    options = {"semantics": "calibrated", "taste": kind}
    env, params = made(data, **options, reward=whole)
    _, state = env.reset(jax.random.key(0), params)
    expected = env.expected_response(state, params)
    parts = {
        name: made(data, **options, reward=name)[0].expected_response(state, params)
        for name in ("rating", "duration")
    }
    np.testing.assert_allclose(expected, parts["rating"] + 10 * parts["duration"], rtol=2e-4)
    item = int(np.flatnonzero(env.action_mask(env.get_obs(state), params))[0])

    def drawn(key):
        return env.step_env(key, state, jnp.int32(item), params)[2]

    draws = np.asarray(jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(1), 4000)))
    assert abs(draws.mean() - float(expected[item])) < 5 * draws.std() / len(draws) ** 0.5


@pytest.mark.slow
def test_soft_expectations_are_those_of_its_responses(dataset):
    env, params = made(dataset, semantics="soft", reward=whole)
    _, state = env.reset(jax.random.key(0), params)
    item = int(np.flatnonzero(env.action_mask(env.get_obs(state), params))[0])
    _, _, reward, *_ = env.step_env(jax.random.key(1), state, jnp.int32(item), params)
    np.testing.assert_allclose(env.expected_response(state, params)[item], reward, rtol=1e-4)


def test_equal_functions_compile_once(dataset):
    first, second = (made(dataset, semantics="calibrated", reward=five_stars) for _ in range(2))
    assert first[0] == second[0]
    assert "reward=<function five_stars" in repr(first[0])
    assert "reward" not in repr(made(dataset)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "stars"}, "is not like, rating or duration"),
        ({"reward": 3}, "reward is a int"),
        ({"reward": "rating"}, "semantics='paper' does not ask"),
        (
            {"reward": "rating", "semantics": "calibrated", "signals": "like"},
            'needs signals="auto" or "all"',
        ),
        ({"reward": lambda r: r.like}, r"returns int8\[\] for one response"),
        ({"reward": lambda r: jnp.zeros(2)}, r"returns float32\[2\]"),
        ({"reward": lambda r: jnp.float32(r.like) / 0 * 0}, "reward is NaN for like 0"),
        ({"reward": lambda r: r.rating + 1}, "reward cannot be run inside jit"),
        (
            {"reward": lambda r: jnp.log(3.0 - r.rating), "semantics": "soft"},
            "NaN for like 0, rating 4",
        ),
    ],
)
def test_what_is_refused(dataset, options, message):
    with pytest.raises(InputError, match=message) as error:
        made(dataset, **options)
    assert "\n" not in str(error.value)


def test_a_dataset_without_signals_says_how_to_add_them(plain):
    with pytest.raises(InputError, match="run `python -m prep build invented` again"):
        made(plain, semantics="calibrated", reward="rating")
    without = with_signals(plain, duration=None)
    with pytest.raises(InputError, match="build it from a table with a column duration"):
        made(without, semantics="calibrated", reward="duration")
    env, params = jaxsim.make(plain, semantics="calibrated", history_length=5, session_capacity=5)
    decision = env.respond(jax.random.key(0), [3], [1], 7, params)
    assert jax.tree.leaves(decision.response) == [decision.response.like]
