"""Ratings and durations: by hand, in distribution, consistent with the like, and in sessions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

import jaxsim
from jaxsim import InputError, taste, taste_session, taste_users
from jaxsim.ensemble import Decision, Response
from jaxsim.signal_params import build_signals, duration_head, rating_head
from jaxsim.signals import Context, Signals, _level_at, answer, residuals
from tests.conftest import CAPACITY, HISTORY, allowed
from tests.factory import random_dataset, write_pack
from tests.signals_factory import DURATION, LEVELS, RATING, with_signals

CUT = {**DURATION, "like_threshold": 2.0, "weights": [0.1, 0.9, 0.8, 0.2, 0.0]}
DRAWS = 20_000


def made(dataset, **options):
    """Environment and params of short sessions of all users, who answer with all signals."""
    sizes = {"history_length": HISTORY, "session_capacity": CAPACITY, "users": "all"}
    return jaxsim.make(dataset, **{**sizes, "signals": "all", **options})


@pytest.fixture(scope="module")
def plain():
    return random_dataset(0)


@pytest.fixture(scope="module")
def dataset(plain):
    return with_signals(plain)


@pytest.fixture(scope="module")
def calibrated(dataset):
    return made(dataset, semantics="calibrated")


def heads(duration=DURATION) -> Signals:
    one = np.ones(1, np.float32)
    return Signals(rating_head(RATING, 3.5 * one), duration_head(duration, 0.4 * one))


def context(log_odds: float = 0.3) -> Context:
    return Context(jnp.int32(0), jnp.float32(log_odds), jnp.array([0.2, -0.1], jnp.float32))


def answers(duration=DURATION, log_odds: float = 0.3, seed: int = 0) -> Decision:
    """DRAWS answers to one item, whose likes are drawn as the environment draws them."""
    probability = jax.nn.sigmoid(jnp.float32(log_odds))

    def one(key):
        like = jax.random.bernoulli(key, probability).astype(jnp.int8)
        decision = Decision(jnp.float32(like), Response(like), probability)
        return answer(key, heads(duration), "calibrated", context(log_odds), decision)

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), DRAWS))


# ---- the distributions ---------------------------------------------------------------------------------------


def test_probabilities_of_ratings_by_hand():
    """An ordered logit within the likes (4, 5) and within the dislikes (1, 2, 3); together p and 1 - p."""
    score = 2.0 * 3.5 + 1.5 * 0.2 - 0.3 * 0.3
    below = np.concatenate([[0], expit(np.array(RATING["thresholds"]) - score), [1]])
    q, p = np.diff(below), expit(0.3)
    expected = np.concatenate([(1 - p) * q[:3] / q[:3].sum(), p * q[3:] / q[3:].sum()])
    head = heads().rating
    got = head.probabilities(context(), jnp.float32(0.2), jnp.float32(p))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("log_odds", [-60.0, -12.0, 12.0, 60.0])
def test_the_tails_of_the_score_are_finite(log_odds):
    signals = Signals(heads().rating.replace(weights=jnp.array([2.0, 1.5, 2.0], jnp.float32)))
    one = context(log_odds)
    for like in (False, True):
        chances = jnp.exp(signals.rating.given_like(one, jnp.float32(0.2), jnp.bool_(like)))
        assert np.isfinite(chances).all()
        np.testing.assert_allclose(chances.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_drawn_ratings_and_durations_have_their_distribution(seed):
    decision = answers(seed=seed)
    response, probability = decision.response, float(decision.probability[0])
    rating, like = np.asarray(response.rating), np.asarray(response.like)
    assert ((rating >= 4) == (like == 1)).all()
    shares = [(rating == level).mean() for level in LEVELS]
    np.testing.assert_allclose(
        shares, decision.rating_probabilities[0], atol=4.5 * 0.5 / DRAWS**0.5
    )
    np.testing.assert_allclose((rating >= 4).mean(), probability, atol=4.5 * 0.5 / DRAWS**0.5)
    logs = np.log(np.asarray(response.duration))
    for value, effect in ((0, 0.0), (1, 0.6)):
        mean = 0.1 + 0.9 * 0.4 + 0.8 * -0.1 + 0.2 * 0.3 + effect
        chosen = logs[like == value]
        assert abs(chosen.mean() - mean) < 4.5 * 0.7 / len(chosen) ** 0.5
        assert abs(chosen.std() - 0.7) < 4.5 * 0.7 / (2 * len(chosen)) ** 0.5
    error = np.asarray(response.duration).std() / DRAWS**0.5
    assert (
        abs(np.asarray(response.duration).mean() - float(decision.expected_duration[0])) < 5 * error
    )


@pytest.mark.parametrize("log_odds", [-3.0, 0.3, 3.0])
def test_a_like_by_duration_is_cut_at_the_threshold(log_odds):
    decision = answers(CUT, log_odds)
    duration, like = np.asarray(decision.response.duration), np.asarray(decision.response.like)
    assert ((duration >= 2.0) == (like == 1)).all()
    assert np.isfinite(duration).all()
    error = duration.std() / DRAWS**0.5
    assert abs(duration.mean() - float(decision.expected_duration[0])) < 5 * error


@pytest.mark.parametrize("mean", [-40.0, 40.0])
def test_a_cut_far_from_the_mean_stays_finite(mean):
    head = duration_head({**CUT, "weights": [mean, 0, 0, 0, 0]}, np.ones(1, np.float32))
    shares = jnp.array([1e-30, 0.5, 1 - 2.0**-24], jnp.float32)
    for like in (False, True):
        drawn = head.quantile(jnp.float32(mean), jnp.bool_(like), shares)
        assert np.isfinite(drawn).all()
        assert ((np.asarray(drawn) >= 2.0) == like).all()


def test_a_level_without_probability_is_never_drawn():
    logs = jnp.log(jnp.array([0.0, 0.3, 0.7, 0.0], jnp.float32))
    for share, level in ((1e-38, 1), (0.29, 1), (0.31, 2), (1 - 2.0**-24, 2)):
        assert _level_at(jnp.float32(share), logs) == level


def test_unknown_values_take_the_typical_residual():
    signals = heads()
    items, likes = jnp.zeros(3, jnp.int32), jnp.array([1, 0, 1], jnp.int8)
    values = jnp.array([[5.0, jnp.nan], [jnp.nan, jnp.e], [4.0, 1.0]], jnp.float32)
    expected = [[1.5, 0.4], [-0.9, 0.6], [0.5, -0.4]]
    np.testing.assert_allclose(residuals(signals, items, likes, values), expected, atol=1e-6)
    typical = [[0.7, 0.4], [-0.9, -0.5], [0.7, 0.4]]
    np.testing.assert_allclose(residuals(signals, items, likes, None), typical, atol=1e-6)


# ---- in sessions ---------------------------------------------------------------------------------------------


def play(simulator, key, steps=12):
    """A session of random allowed items: its responses, probabilities and last state."""
    env, params = simulator
    obs, state = env.reset(key, params)
    infos, step = [], jax.jit(env.step_env)
    for number in range(steps):
        step_key = jax.random.fold_in(key, number)
        action = allowed(env, obs, params, number)
        obs, state, reward, _, info = step(step_key, state, action, params)
        infos.append({**info, "reward": reward, "action": action})
    return infos, state


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"taste": "latent"},
        {"semantics": "soft"},
        {"exposure": True},
        {"taste": "latent", "exposure": True},
    ],
)
@pytest.mark.slow
def test_likes_are_the_same_with_and_without_signals(dataset, options):
    """Probabilities differ by rounding at most, which decides hardly any draw."""
    chosen, options = options, {"semantics": "calibrated", **options}
    both = [made(dataset, **options), made(dataset, **options, signals="like")]
    for seed in range(3):
        (mine, _), (plain, _) = (play(x, jax.random.key(seed)) for x in both)
        for a, b in zip(mine, plain, strict=True):
            assert a["response"].like == b["response"].like
            np.testing.assert_allclose(a["probability"], b["probability"], rtol=1e-5)
            assert b["response"].rating is b["response"].duration is None
            if "semantics" not in chosen:
                assert (a["response"].rating >= 4) == (a["response"].like == 1)


@pytest.mark.parametrize("options", [{"semantics": "calibrated"}, {}])
def test_by_default_the_program_is_that_of_a_dataset_without_signals(plain, dataset, options):
    def program(data) -> str:
        env, params = made(data, **options, signals="auto")
        state = jax.eval_shape(env.reset_env, jax.random.key(0), params)[1]
        action = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.jit(env.step_env).lower(jax.random.key(0), state, action, params).as_text()

    assert program(dataset) == program(plain)


@pytest.mark.slow
def test_a_session_agrees_with_the_whole_history_at_once(dataset, calibrated):
    """The signals' scores kept by steps are those of `taste.condition` on all ratings and durations."""
    env, params = calibrated
    infos, state = play(calibrated, jax.random.key(1))
    model, user = params.taste, int(state.user)
    start, length = int(state.history_length), int(state.length)
    values = np.full((env.window, 2), np.nan, np.float32)
    values[:start] = np.asarray(params.histories.values)[user, :start]
    for number, info in enumerate(infos):
        values[start + number] = info["response"].rating, info["response"].duration
    posterior = taste.condition(
        model, state.items, state.responses, state.length, jnp.asarray(values)
    )
    kernel = taste.history_kernel(model, jnp.int32(7), state.items, state.length)
    expected = (posterior.inverse_factor @ kernel) @ posterior.signal_scores
    projection = taste_users._project(params, state, jnp.int32(7))
    np.testing.assert_allclose(projection.signal_tastes, expected, atol=1e-4)
    tastes = taste_session.signal_tastes(model, state.posterior, taste_users._place(state))
    np.testing.assert_allclose(tastes[7], expected, atol=1e-4)
    assert length == start + len(infos)


def test_respond_takes_ratings_of_the_history(calibrated):
    env, params = calibrated
    history = [3, 5, 9, -1], [1, 0, 1, 0]

    def rating_of(**signals):
        d = env.respond(jax.random.key(0), *history, 7, params, history_signals=signals)
        return float(d.rating_probabilities @ jnp.array(LEVELS)), float(d.probability)

    low = rating_of(rating=jnp.array([4.0, 1.0, 4.0, jnp.nan]))
    high = rating_of(rating=jnp.array([5.0, 3.0, 5.0, jnp.nan]))
    assert low[0] < rating_of()[0] < high[0]
    assert low[1] == high[1]
    with pytest.raises(InputError, match="history_signals has 'stars'"):
        rating_of(stars=jnp.zeros(4))
    with pytest.raises(InputError, match=r"shape \[3\]: pass a number for each of the 4"):
        rating_of(rating=jnp.zeros(3))


def test_soft_users_state_expectations(dataset):
    env, params = made(dataset, semantics="soft", reward="rating")
    decision = env.respond(jax.random.key(0), [3, 5], [1, 0], 7, params)
    expected = float(decision.rating_probabilities @ jnp.array(LEVELS))
    assert float(decision.response.rating) == pytest.approx(expected, rel=1e-6)
    assert float(decision.reward) == pytest.approx(expected, rel=1e-6)
    assert decision.response.duration == decision.expected_duration


@pytest.mark.slow
@pytest.mark.parametrize("semantics", ["calibrated", "soft"])
def test_with_exposure_ratings_follow_the_corrected_like(dataset, semantics):
    """Also in what is expected of every item: there, as in a response, one side of the threshold has p."""
    env, params = made(dataset, semantics=semantics, exposure=True, reward="rating")
    bare, bare_params = made(dataset, semantics=semantics, reward="rating")
    history = [3, 5, 9], [1, 0, 1]
    for item in range(20, 25):
        decision = env.respond(jax.random.key(0), *history, item, params)
        before = bare.respond(jax.random.key(0), *history, item, bare_params)
        chance = decision.rating_probabilities[3:].sum()
        np.testing.assert_allclose(chance, decision.probability, rtol=1e-5)
        moved = float(decision.probability - before.probability)
        expected = [float(d.rating_probabilities @ jnp.array(LEVELS)) for d in (before, decision)]
        assert (expected[1] > expected[0]) == (moved > 0)
    _, state = env.reset_user(3, params)
    everything = np.asarray(env.expected_response(state, params))
    position = int(state.length)
    items, likes = state.items[:position], (state.responses[:position] > 0).astype(jnp.int8)
    known = {"rating": params.histories.values[3, :position, 0]}
    known["duration"] = params.histories.values[3, :position, 1]
    for item in range(20, 23):
        one = env.respond(jax.random.key(0), items, likes, item, params, history_signals=known)
        mean = float(one.rating_probabilities @ jnp.array(LEVELS))
        np.testing.assert_allclose(everything[item], mean, rtol=1e-4)


@pytest.mark.slow
def test_eager_jit_and_vmap_agree(calibrated):
    env, params = calibrated
    items, labels = jnp.array([3, 5, 9], jnp.int32), jnp.array([1, 0, 1], jnp.int8)
    keys = jax.random.split(jax.random.key(0), 4)

    def respond(key):
        return env.respond(key, items, labels, jnp.int32(7), params).response

    mapped = jax.jit(jax.vmap(respond))(keys)
    with jax.disable_jit():
        single = respond(keys[2])
    assert single.rating == mapped.rating[2]
    np.testing.assert_allclose(single.duration, mapped.duration[2], rtol=1e-5)


def test_a_pack_keeps_its_signals(dataset, tmp_path):
    folder = write_pack(dataset, tmp_path / "pack")
    loaded = jaxsim.load_dataset(folder)
    assert loaded.duration_unit == "hours"
    np.testing.assert_array_equal(loaded.signals["item_rating"], dataset.signals["item_rating"])
    assert build_signals(loaded).names == ["rating", "duration"]


@pytest.mark.slow
def test_explanations_and_gymnasium_show_them(dataset, calibrated):
    env, params = calibrated
    explained = jaxsim.explain(dataset, env, params, [3, 5], [1, 0], 7, key=jax.random.key(0))
    decision = env.respond(jax.random.key(0), [3, 5], [1, 0], 7, params)
    assert explained.signals.rating == float(decision.response.rating)
    assert explained.signals.unit == "hours"
    assert "Rating and duration" in str(explained)
    unkeyed = jaxsim.explain(dataset, env, params, [3, 5], [1, 0], 7)
    assert unkeyed.signals.rating is None
    assert unkeyed.signals.expected_rating == explained.signals.expected_rating
    session = jaxsim.GymnasiumEnv(env, params, seed=0)
    _, info = session.reset()
    info = session.step(int(np.flatnonzero(info["action_mask"])[0]))[-1]
    assert set(info["response"]) == {"like", "rating", "duration"}
    many = jaxsim.GymnasiumVectorEnv(env, params, num_envs=3, seed=0)
    many.reset()
    actions = many.action_masks().argmax(axis=1)
    assert many.step(actions)[-1]["response"]["rating"].shape == (3,)
