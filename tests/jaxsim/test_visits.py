"""Users who return: the chance and the gap by hand, lives in the environment, slates, Gymnasium, and refusals."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim
from jaxsim import InputError
from jaxsim.departure import recent_of
from jaxsim.visits import Return, Visit, build_visits, chance_of_return, draw_return, next_visit
from tests.conftest import leaving_with, simulator_of
from tests.departure_logs import with_departure
from tests.factory import write_pack
from tests.slates import RATES, with_rates
from tests.visit_logs import with_visits

OF_VISITS = {"session", "day", "left", "returned", "gap_days", "return_probability"}
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
KEYS = jax.random.split(jax.random.key(3), 3000)


def single(dataset, **settings):
    """Users of fixed rates, one item at a time."""
    return with_rates(dataset, slate_size=None, **{"session_capacity": 12, **settings})


@pytest.fixture(scope="module")
def living(dataset):
    """Users who leave with probability 0.5 after each step, and may return."""
    simulated = single(with_visits(dataset), visits=True, horizon_days=5.0)
    return simulated._replace(params=leaving_with(simulated.params, 0.5))


@partial(jax.jit, static_argnums=0)
def steps(env, keys, state, item, params):
    return jax.vmap(env.step_env, (0, None, None, None))(keys, state, item, params)


@partial(jax.jit, static_argnums=0)
def step_each(env, keys, state, item, params):
    return jax.vmap(env.step_env, (0, 0, 0, None))(keys, state, item, params)


def unseen(items):
    return next(item for item in range(40) if item not in np.asarray(items))


# ---- the model -------------------------------------------------------------------------------------------


def test_the_chance_of_a_return_by_hand(dataset):
    """Three items, of which the user liked two; their third session of the life, after those of the log."""
    dataset = with_visits(dataset)
    model, user = build_visits(dataset), 4
    items, likes = np.array([3, 8, 5]), np.array([1, 0, 1])
    window = jnp.asarray(np.r_[items, -1, -1], jnp.int32)
    responses = jnp.asarray(np.r_[2 * likes - 1, 0, 0], jnp.int8)
    liked = np.clip(np.mean(likes - dataset.visits["item_rate"][items]) / 0.25, -2, 2)
    count = dataset.visits["user_sessions"][user] + 3
    sessions = np.clip((np.log(count) - 0.7) / 0.9, -2, 2)

    def chance(session):
        recent = recent_of(window, responses, jnp.int32(3))
        return chance_of_return(model, recent, jnp.int32(user), session)

    for run in (chance, jax.jit(chance)):
        found = run(jnp.int32(2))
        np.testing.assert_allclose(found.log_odds["intercept"], 0.4, rtol=1e-6)
        np.testing.assert_allclose(found.log_odds["satisfaction"], 0.5 * liked, rtol=1e-5)
        np.testing.assert_allclose(found.log_odds["sessions"], 0.4 * sessions, rtol=1e-5)
        np.testing.assert_allclose(found.log_gap["satisfaction"], -0.3 * liked, rtol=1e-5)
        np.testing.assert_allclose(found.log_gap["sessions"], 0.2 * sessions, rtol=1e-5)
        total = 0.4 + 0.5 * liked + 0.4 * sessions
        np.testing.assert_allclose(found.probability, 1 / (1 + np.exp(-total)), rtol=1e-5)
    batch = jax.vmap(chance)(jnp.array([2, 0], jnp.int32))
    np.testing.assert_allclose(batch.probability[0], found.probability, rtol=1e-6)
    assert batch.log_odds["sessions"][1] < batch.log_odds["sessions"][0]


@pytest.mark.parametrize("seed", SEEDS)
def test_returns_and_gaps_are_drawn_as_stated(dataset, seed):
    """The share of returns, and the mean and the spread of the logarithms of the gaps."""
    model = build_visits(with_visits(dataset, means=(5.0, 8.0), scales=(0.5, 1.0)))
    chance = Return(jnp.float32(0.3), {}, {"satisfaction": jnp.float32(0.7)})
    keys = jax.random.split(jax.random.key(seed), 20_000)
    draw = jax.jit(jax.vmap(draw_return, (0, None, None)))
    returns, gap = draw(keys, model, chance)
    assert abs(returns.mean() - 0.3) < 5 * np.sqrt(0.21 / len(keys))
    log = np.log(np.asarray(gap, np.float64) * 1440 - 30)
    variance = np.mean([0.25, 1.0]) + 1.5**2
    assert abs(log.mean() - (6.5 + 0.7)) < 5 * np.sqrt(variance / len(keys))
    assert abs(log.var() - variance) < 0.1
    one = draw_return(keys[7], model, chance)
    np.testing.assert_allclose(one[1], gap[7], rtol=1e-5)
    assert one[0] == returns[7]


def test_the_next_visit_by_hand():
    """Who returns at the horizon itself is back; a moment later they are gone."""
    visit = Visit(jnp.int32(1), jnp.int32(4), jnp.float32(2.5))
    for left, returns, gap, back in (
        (True, True, 2.5, True),
        (True, True, 2.75, False),
        (True, False, 1.0, False),
        (False, True, 1.0, False),
    ):
        answer = next_visit(
            visit, jnp.int32(9), jnp.bool_(left), jnp.bool_(returns), jnp.float32(gap), 5.0
        )
        expected = (2, 9, 2.5 + gap) if back else (1, 4, 2.5)
        assert (int(answer[0].session), int(answer[0].began), float(answer[0].day)) == expected
        assert bool(answer[1]) == back


# ---- lives in the environment -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_step_says_what_happened(living):
    """From one state with many keys: who left, who returned, and where they are then."""
    _, env, params = living
    _, state = env.reset_user(jnp.int32(2), params)
    _, after, _, terminated, info = steps(env, KEYS, state, jnp.int32(unseen(state.items)), params)
    left, returned = np.asarray(info["left"]), np.asarray(info["returned"])
    gap = np.asarray(info["gap_days"])
    assert set(info) == OF_VISITS | {"response", "invalid_action", "probability"}
    np.testing.assert_array_equal(terminated, left & ~returned)
    assert not (returned & ~left).any()
    assert ((gap > 30 / 1440) & (gap <= 5.0))[returned].all()
    assert not gap[~returned].any()
    assert not info["session"].any()
    assert not info["day"].any()
    np.testing.assert_array_equal(after.visits.session, returned)
    np.testing.assert_array_equal(after.visits.began, returned)
    np.testing.assert_array_equal(after.visits.day, gap)
    assert abs(left.mean() - 0.5) < 5 * np.sqrt(0.25 / len(KEYS))
    ended = after.replace(visits=jax.tree.map(lambda x: jnp.repeat(x, len(KEYS)), state.visits))
    why = jax.jit(jax.vmap(env.return_of, (0, None)))(ended, params)
    np.testing.assert_allclose(why.probability, info["return_probability"], rtol=1e-6)
    keys = jax.vmap(jax.random.split)(KEYS)[:, 1]
    returns, far = jax.vmap(draw_return, (0, None, 0))(keys, params.visits, why)
    np.testing.assert_array_equal(returned, left & np.asarray(returns & (far <= 5.0)))
    assert 0 < returned.sum() < (left & np.asarray(returns)).sum()  # some return too late


def test_nothing_else_changes(dataset, living):
    """The same users, answers and departures as without the option, which leaves nothing behind."""
    plain = single(dataset)
    same = single(with_visits(dataset), visits=False)
    assert same.env == plain.env
    assert hash(same.env) == hash(plain.env)
    assert repr(same.env) == repr(plain.env)
    assert "visits" not in repr(plain.env)
    assert repr(living.env).count("visits=True, horizon_days=5.0") == 1
    assert same.params.visits is None
    params = leaving_with(plain.params, 0.5)
    _, state = plain.env.reset(jax.random.key(5), params)
    _, other = living.env.reset(jax.random.key(5), living.params)
    assert state.visits is None
    item = jnp.int32(unseen(state.items))
    obs, _, reward, left, info = steps(plain.env, KEYS, state, item, params)
    obs_2, _, reward_2, _, info_2 = steps(living.env, KEYS, other, item, living.params)
    assert not OF_VISITS & set(info)
    np.testing.assert_array_equal(info_2["left"], left)
    np.testing.assert_array_equal(reward_2, reward)
    assert jax.tree.all(jax.tree.map(np.array_equal, obs_2, obs))
    with pytest.raises(InputError, match=r"^users do not return: make the environment with visits"):
        plain.env.return_of(state, params)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_life_goes_on_from_session_to_session(living, seed):
    """Several lives at once, and one step again on its own; the days and sessions add up."""
    _, env, params = living
    keys = jax.random.split(jax.random.key(seed), 16)
    obs, state = jax.vmap(env.reset, (0, None))(keys, params)
    day, session, began = np.zeros(16), np.zeros(16, int), np.zeros(16, int)
    alive, sessions = np.ones(16, bool), 1
    for time in range(env.session_capacity):
        item = jnp.asarray([unseen(row) for row in obs.items], jnp.int32)
        keys = jax.random.split(jax.random.key(100 * seed + time), 16)
        before = state
        obs, state, _, terminated, info = step_each(env, keys, state, item, params)
        row = int(np.argmax(info["returned"]))
        if time == 1:  # without jit and vmap, which takes long
            before = jax.tree.map(lambda x, row=row: x[row], before)
            alone = env.step_env(keys[row], before, item[row], params)
            np.testing.assert_array_equal(alone[1].visits.session, state.visits.session[row])
            np.testing.assert_allclose(alone[-1]["gap_days"], info["gap_days"][row], rtol=1e-5)
        np.testing.assert_array_equal(info["session"], session)
        np.testing.assert_allclose(info["day"], day, rtol=1e-5)
        returned = np.asarray(info["returned"])
        day += np.asarray(info["gap_days"])
        session, began = session + returned, np.where(returned, time + 1, began)
        np.testing.assert_array_equal(state.visits.began, began)
        np.testing.assert_array_equal(jax.vmap(lambda s: s.position)(state), time + 1 - began)
        alive &= ~np.asarray(terminated)
        sessions = max(sessions, session[alive].max(initial=0) + 1)
        assert (day <= 5.0 + 1e-5).all()
    assert sessions > 1


def test_automatic_resets_begin_a_new_life(living):
    _, env, params = living
    params = params.replace(max_steps_in_episode=jnp.int32(2))
    obs, state = env.reset(jax.random.key(0), params)
    for time in range(2):
        key, item = jax.random.key(time + 20), jnp.int32(unseen(obs.items))
        obs, state, _, terminated, truncated, info = env.step(key, state, item, params)
        if terminated:
            break
    assert truncated or terminated
    assert (state.time, state.visits.session, state.visits.began, state.visits.day) == (0,) * 4
    assert info["final_observation"].length == state.history_length + time + 1 or terminated


def test_the_position_counts_from_the_beginning_of_a_session(dataset):
    """Nobody leaves after the first item of a session, everyone after the second; all return at once."""
    dataset = with_visits(with_departure(dataset, {}, base=(-50.0, 50.0)), 50.0, {}, (0.0,), (0.1,))
    _, env, params = single(dataset, departure="fitted", visits=True)
    obs, state = env.reset(jax.random.key(0), params)
    step = jax.jit(env.step_env)
    for time in range(7):
        item = jnp.int32(unseen(obs.items))
        obs, state, _, terminated, info = step(jax.random.key(time), state, item, params)
        assert info["left"] == info["returned"] == (time % 2 == 1)
        np.testing.assert_allclose(info["departure_probability"], time % 2, atol=1e-6)
        assert not terminated
        assert info["session"] == time // 2
        np.testing.assert_allclose(info["day"], (time // 2) * 31 / 1440, rtol=0.02)
        if not info["left"]:
            chance = env.departure_of(state, params).probability
            np.testing.assert_allclose(chance, info["departure_probability"], rtol=1e-6)


# ---- slates and Gymnasium ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_slates_end_as_single_items_do(dataset):
    """The same draws of departures and returns, whatever is chosen, where no term counts."""
    dataset = with_visits(dataset, terms={})
    _, env, params = with_rates(dataset, visits=True)
    params = leaving_with(params, 0.5)
    one = simulator_of(dataset, user_model=env.single.own_model, user_params=RATES, visits=True)
    assert "visits=True, horizon_days=30.0" in repr(env)
    assert env.visits
    assert env.end_depends_on_items
    obs, state = env.reset(jax.random.key(0), params)
    _, other = one.env.reset(jax.random.key(0), leaving_with(one.params, 0.5))
    slate = jnp.asarray(np.flatnonzero(env.action_mask(obs, params))[:3], jnp.int32)
    answers = steps(env, KEYS, state, slate, params)
    single_answers = steps(one.env, KEYS, other, slate[0], leaving_with(one.params, 0.5))
    np.testing.assert_array_equal(answers[3], single_answers[3])
    for name in OF_VISITS:
        np.testing.assert_allclose(answers[-1][name], single_answers[-1][name], rtol=1e-6)
    assert answers[-1]["returned"].any()
    np.testing.assert_array_equal(answers[1].single.visits.session, answers[-1]["returned"])
    after = jax.tree.map(lambda x: x[0], answers[1])
    chance = env.return_of(after, params).probability
    np.testing.assert_allclose(chance, answers[-1]["return_probability"][0], rtol=1e-6)


@pytest.mark.slow
def test_gymnasium_passes_it_on(living):
    """One session, and many: the same names; a life is one episode."""
    _, env, params = living
    session = jaxsim.GymnasiumEnv(env, params, seed=0)
    _, info = session.reset()
    *_, info = session.step(int(np.flatnonzero(info["action_mask"])[0]))
    assert set(info) >= OF_VISITS
    assert info["session"] == 0
    many = jaxsim.GymnasiumVectorEnv(env, params, num_envs=8, seed=0)
    many.reset()
    seen = set()
    for _ in range(5):
        actions = np.array([np.flatnonzero(mask)[0] for mask in many.action_masks()])
        *_, terminated, _, infos = many.step(actions)
        assert set(infos) >= OF_VISITS
        np.testing.assert_array_equal(terminated, infos["left"] & ~infos["returned"])
        seen |= set(infos["session"].tolist())
    assert seen > {0}


# ---- what is refused --------------------------------------------------------------------------------------


def test_what_is_refused(dataset, tmp_path):
    with pytest.raises(
        InputError, match=r"^visits=True: invented has no fitted returns: it was built without it;"
    ):
        simulator_of(dataset, visits=True)
    reason = "12 gaps of more than 30 minutes, fewer than 100"
    manifest = {**dataset.manifest, "visits": {"session_gap": 30.0, "none_because": reason}}
    with pytest.raises(InputError, match=rf"do not show when users return \({reason}\)$"):
        simulator_of(dataclasses.replace(dataset, manifest=manifest), visits=True)
    returning = with_visits(dataset)
    for settings, message in (
        ({"visits": "yes"}, r"^visits is 'yes': give one of False, True$"),
        ({"visits": True, "horizon_days": 0.0}, r"^horizon_days is 0.0: give a finite number abo"),
        ({"horizon_days": 7.0}, r"^horizon_days is a setting of visits: give visits=True with it$"),
    ):
        with pytest.raises(InputError, match=message):
            simulator_of(returning, **settings)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'visit'$"):
        simulator_of(returning, visit=True)
    short = with_visits(dataset)
    short.visits["user_sessions"] = short.visits["user_sessions"][1:]
    with pytest.raises(InputError, match="user_sessions of the visits is missing or damaged"):
        build_visits(short)
    read = jaxsim.load_dataset(write_pack(returning, tmp_path / "pack"))
    assert build_visits(read).user_sessions.dtype == jnp.int32
