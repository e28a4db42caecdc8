"""Sessions with slates: against NumPy, against single items, masks, labels, and what is refused."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logit

import jaxsim
from jaxsim import InputError, SlateSimulator
from jaxsim.types import HeldParams
from tests import taste_reference
from tests.conftest import CAPACITY, HISTORY, leaving_with, never_leaves, simulator_of
from tests.departure_logs import with_departure
from tests.slates import RATES, STEPS, FixedRates, K, with_rates

# Standard errors that a mean may be off: one in three million.
ERRORS = 5.1


@pytest.fixture(scope="module")
def rates():
    return RATES


@pytest.fixture(scope="module")
def fixed(dataset, rates):
    return with_rates(dataset)


def random_slate(env, obs, params, seed):
    allowed = np.flatnonzero(env.action_mask(obs, params))
    return jnp.asarray(
        np.random.default_rng(seed).permutation(allowed)[: env.slate_size], jnp.int32
    )


def choice_of(p):
    """The probabilities of each place, then of none, from the items' p alone, in NumPy."""
    odds = np.exp(logit(np.asarray(p, np.float64))) / np.arange(1, len(p) + 1)
    return np.append(odds, 1.0) / (1.0 + odds.sum())


# ---- one item at a time --------------------------------------------------------------------------------


def test_one_item_at_a_time_is_the_environment_of_single_items(dataset):
    plain = with_rates(dataset, slate_size=None)
    same = with_rates(dataset, slate_size=1)
    assert type(same.env) is jaxsim.UserSimulator
    assert same.env == plain.env
    chex.assert_trees_all_equal(same.params, plain.params)


def slow(**settings):
    return pytest.param(settings, marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"user_model": FixedRates(), "user_params": RATES},
        slow(semantics="calibrated"),
        slow(semantics="soft"),
        slow(semantics="calibrated", taste="latent"),
    ],
)
def test_slates_of_one_item_give_the_sessions_of_single_items(dataset, settings):
    """The same keys and items: the same users, answers, histories, departures and new sessions."""
    _, env, params = simulator_of(dataset, **settings)
    params = leaving_with(params, 0.2)
    slates = SlateSimulator(env, slate_size=1, session_capacity=CAPACITY)
    start = jax.random.split(jax.random.key(0), 8)
    obs, state = jax.vmap(env.reset, (0, None))(start, params)
    obs_1, state_1 = jax.vmap(slates.reset, (0, None))(start, params)
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    step_1 = jax.jit(jax.vmap(slates.step, (0, 0, 0, None)))
    masks = jax.jit(jax.vmap(slates.action_mask))
    for t in range(10):
        mask = masks(obs_1)
        item = jnp.asarray([np.flatnonzero(row)[t] for row in np.asarray(mask)], jnp.int32)
        keys = jax.random.split(jax.random.key(10 + t), 8)
        obs, state, reward, *ends, info = step(keys, state, item, params)
        obs_1, state_1, reward_1, *ends_1, info_1 = step_1(keys, state_1, item[:, None], params)
        np.testing.assert_allclose(info_1["probabilities"][:, 0], info["probability"], atol=1e-6)
        np.testing.assert_allclose(reward_1, reward, atol=1e-6)
        np.testing.assert_array_equal(info_1["place"], info["response"].like - 1)
        chex.assert_trees_all_equal(ends_1, ends)
        for name in ("user", "items", "responses", "length"):
            np.testing.assert_array_equal(getattr(obs_1, name), getattr(obs, name))
    assert (state.time < 10).any()  # some sessions ended


# ---- the choice ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(dataset):
    return simulator_of(dataset, semantics="calibrated", slate_size=K, session_capacity=STEPS)


@pytest.mark.slow
def test_probabilities_agree_with_numpy_through_a_session(dataset, calibrated):
    """Of a step, and the scores of all items, from the window so far."""
    _, env, params = calibrated
    params, kernel = never_leaves(params), sum(taste_reference.part_kernels(dataset).values())
    obs, state = env.reset_user(jnp.int32(2), params)
    scores = jax.jit(env.scores)
    for t in range(STEPS - 1):
        items, likes = obs.items[: obs.length], obs.responses[: obs.length] > 0
        p = taste_reference.probabilities(dataset, items, likes, kernel)
        np.testing.assert_allclose(scores(state, params), logit(p), atol=5e-4)
        slate = random_slate(env, obs, params, t)
        expected = choice_of(p[slate])
        obs, state, reward, _, _, info = env.step(jax.random.key(t), state, slate, params)
        np.testing.assert_allclose(info["probabilities"], expected, atol=2e-4)
        np.testing.assert_array_equal(info["slate"], slate)
        place = int(info["place"])
        assert reward == info["response"].like == (place >= 0)
        np.testing.assert_array_equal(obs.shown[t], slate)


@pytest.mark.slow
def test_users_leave_as_with_single_items(dataset):
    """With a fitted departure the probability follows from the window and the time after the step."""
    _, env, params = with_rates(with_departure(dataset), departure="fitted")
    obs, state = env.reset_user(jnp.int32(4), params)
    for t in range(2):
        slate = random_slate(env, obs, params, t)
        obs, state, *_, info = env.step_env(jax.random.key(t), state, slate, params)
        expected = env.single.departure_of(state.single, params).probability
        np.testing.assert_allclose(info["departure_probability"], expected, rtol=1e-6)
        assert state.time == t + 1


@pytest.mark.slow
def test_any_history_and_any_slate_can_be_asked_about(dataset, calibrated):
    """`respond` and `expected_response` have the probabilities of a step."""
    _, env, params = calibrated
    obs, state = env.reset_user(jnp.int32(4), params)
    for seed in range(3):
        key, slate = jax.random.key(seed), random_slate(env, obs, params, seed)
        answer = env.respond(key, obs.items, obs.responses, slate, params, user=4)
        *_, info = env.step_env(key, state, slate, params)
        np.testing.assert_allclose(answer.probabilities, info["probabilities"], atol=2e-4)
        some = env.expected_response(state, slate, params)
        np.testing.assert_allclose(some, 1 - info["probabilities"][-1], atol=1e-6)


def test_choices_have_their_probabilities(fixed, rates):
    _, env, params = fixed
    slate = jnp.asarray([4, 17, 30], jnp.int32)
    chance = choice_of(rates[np.asarray(slate)])
    ask = jax.jit(jax.vmap(lambda key: env.respond(key, [-1], [0], slate, params)))
    for seed in range(3):
        answers = ask(jax.random.split(jax.random.key(seed), 4000))
        for place in range(K):
            share = np.mean(answers.place == place)
            error = np.sqrt(chance[place] * (1 - chance[place]) / 4000)
            assert abs(share - chance[place]) < ERRORS * error
        np.testing.assert_array_equal(answers.reward, answers.place >= 0)
        np.testing.assert_allclose(answers.probabilities[0], chance, rtol=1e-5)


@pytest.mark.slow
def test_soft_users_earn_the_probability_and_choose_the_highest_utility(dataset, rates):
    _, env, params = with_rates(dataset, semantics="soft")
    high, low = np.argsort(rates)[::-1][:K], np.argsort(rates)[:K]
    for slate, place in ((high, 0), (low, -1)):
        slate = jnp.asarray(slate, jnp.int32)
        answer = env.respond(jax.random.key(0), [-1], [0], slate, params)
        assert answer.place == place
        np.testing.assert_allclose(answer.reward, 1 - choice_of(rates[slate])[-1], rtol=1e-5)


def test_options_of_the_choice(dataset, rates):
    _, env, params = with_rates(dataset, position_effect=0.0, outside_option=float(np.log(2)))
    slate = jnp.asarray([1, 2, 3], jnp.int32)
    odds = rates[1:4] / (1 - rates[1:4])
    answer = env.respond(jax.random.key(0), [-1], [0], slate, params)
    expected = np.append(odds, 2.0) / (odds.sum() + 2.0)
    np.testing.assert_allclose(answer.probabilities, expected, rtol=1e-5)


@pytest.mark.slow
def test_no_slate_of_the_catalogue_is_better_than_that_of_the_oracle(dataset, rates):
    """All ordered pairs of allowed items."""
    _, env, params = with_rates(dataset, slate_size=2)
    obs, state = env.reset_user(jnp.int32(0), params)
    allowed = np.flatnonzero(env.action_mask(obs, params))
    first, second = np.meshgrid(allowed, allowed)
    pairs = np.stack([first, second], -1)[first != second].astype(np.int32)
    expected = jax.jit(jax.vmap(env.expected_response, (None, 0, None)))(state, pairs, params)
    best = env.best_slate(env.scores(state, params), obs)
    np.testing.assert_array_equal(best, pairs[np.argmax(expected)])


# ---- what enters the history ---------------------------------------------------------------------------


@pytest.mark.parametrize("unchosen", ["examined", pytest.param("top", marks=pytest.mark.slow)])
def test_labels_that_enter_have_the_probability_of_the_item_alone(dataset, rates, unchosen):
    """With "top" only those of the first place."""
    _, env, params = with_rates(dataset, unchosen=unchosen)
    obs, state = env.reset_user(jnp.int32(0), params)
    slate = random_slate(env, obs, params, 0)
    step = jax.jit(jax.vmap(lambda key: env.step_env(key, state, slate, params)[0]))
    for seed in range(3):
        after = step(jax.random.split(jax.random.key(seed), 6000))
        new = np.asarray(after.items)[:, int(obs.length) :]
        labels = np.asarray(after.responses)[:, int(obs.length) :]
        np.testing.assert_array_equal(after.length - obs.length, (new >= 0).sum(1))
        for place in range(1 if unchosen == "top" else K):
            entered = labels[new == int(slate[place])]
            p = rates[int(slate[place])]
            error = np.sqrt(p * (1 - p) / len(entered))
            assert abs(np.mean(entered > 0) - p) < ERRORS * error
        if unchosen == "top":
            assert ((new >= 0).sum(1) == 1).all()
            later = labels[np.isin(new, np.asarray(slate[1:]))]
            assert (later == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 5])  # at most two and three entries a step
def test_dislikes_update_the_posterior(dataset, size):
    """After steps with several dislikes, probabilities are those of NumPy's posterior of the whole window."""
    settings = {"slate_size": size, "session_capacity": STEPS}
    _, env, params = simulator_of(dataset, semantics="calibrated", **settings)
    params, step = never_leaves(params), jax.jit(env.step_env)
    assert env.window == HISTORY + STEPS + 3  # half as many again as steps
    most = []
    for user in (1, 2, 5):
        obs, state = env.reset_user(jnp.int32(user), params)
        entered = []
        for t in range(4):
            before = int(obs.length)
            worst = env.best_slate(-env.scores(state, params), obs)
            obs, state, *_, info = step(jax.random.key(10 * user + t), state, worst, params)
            entered.append(int(obs.length) - before)
            new = slice(before, int(obs.length))
            if info["place"] < 0:
                assert set(obs.items[new].tolist()) <= set(worst.tolist())
                assert (obs.responses[new] == -1).all()
            else:
                assert obs.items[new].tolist() == [int(worst[info["place"]])]
        most.append(max(entered))
        items, likes = obs.items[: obs.length], obs.responses[: obs.length] > 0
        p = taste_reference.probabilities(dataset, items, likes)
        np.testing.assert_allclose(env.scores(state, params), logit(p), atol=5e-4)
    assert max(most) == (2 if size == 3 else 3)


def test_one_entry_a_step_always_has_room(dataset):
    """Users who like nothing: several entries at first, then one, and never more than the window holds."""
    _, env, params = with_rates(dataset)
    params = never_leaves(params).replace(user_params=jnp.full(40, 1e-4, jnp.float32))
    step = jax.jit(env.step_env)
    for user in range(3):
        obs, state = env.reset_user(jnp.int32(user), params)
        entered = []
        for t in range(STEPS):
            before = int(obs.length)
            slate = random_slate(env, obs, params, t)
            obs, state, *_ = step(jax.random.key(100 * user + t), state, slate, params)
            entered.append(int(obs.length) - before)
        assert min(entered) == 1
        assert entered[0] == 2 or entered[1] == 2
        assert entered[-1] == 1
        assert sum(entered) == env.single.session_capacity


def test_nothing_is_shown_twice(fixed):
    _, env, params = fixed
    params = never_leaves(params)
    obs, state = env.reset(jax.random.key(5), params)
    seen = set(obs.items[: obs.length].tolist())
    for t in range(STEPS):
        mask = np.asarray(env.action_mask(obs, params))
        assert set(np.flatnonzero(~mask)) == seen
        slate = random_slate(env, obs, params, t)
        seen |= set(slate.tolist())
        obs, state, _, _, truncated, info = env.step(jax.random.key(t), state, slate, params)
        assert bool(truncated) == (t == STEPS - 1)
    assert set(info["final_observation"].shown.ravel().tolist()) <= seen
    assert (obs.shown == -1).all()  # the next session
    assert state.time == 0


@pytest.mark.slow
def test_repeats_may_be_allowed(dataset, rates):
    _, env, params = with_rates(dataset, repeats="allow")
    obs, state = env.reset(jax.random.key(0), params)
    for t in range(3):
        slate = jnp.asarray([3, 4, 5], jnp.int32)
        obs, state, *_, info = env.step(jax.random.key(t), state, slate, never_leaves(params))
        assert not info["invalid_action"]
        assert env.action_mask(obs, params).all()


# ---- bad input -----------------------------------------------------------------------------------------


def bad_slates(obs):
    seen = int(obs.items[0])
    good = [i for i in range(10) if i not in obs.items.tolist()]
    return {
        "outside": [good[0], 40, good[1]],
        "below": [good[0], good[1], -1],
        "more than once": [good[0], good[1], good[0]],
        "in the history": [good[0], seen, good[1]],
    }


def test_invalid_slates_are_refused_outside_jit(fixed):
    _, env, params = fixed
    obs, state = env.reset(jax.random.key(0), params)
    messages = {"below": "outside", "outside": r"action has 40, outside \[0, 40\)"}
    for name, slate in bad_slates(obs).items():
        with pytest.raises(InputError, match=messages.get(name, name)) as caught:
            env.step(jax.random.key(0), state, jnp.asarray(slate, jnp.int32), params)
        assert "\n" not in str(caught.value)
    for slate, message in (
        ([1, 2], "action has 2 items: pass a slate of 3"),
        (1, "needs 1 dimension"),
        ([0.5, 1.0, 2.0], "pass integers"),
    ):
        with pytest.raises(InputError, match=message):
            env.step(jax.random.key(0), state, slate, params)
    with pytest.raises(InputError, match="slate has 4 more than once"):
        env.respond(jax.random.key(0), [-1], [0], [4, 4, 2], params)
    with pytest.raises(InputError, match=r"several sessions.*vmap"):
        env.step(jax.random.key(0), jax.tree.map(lambda x: x[None], state), [0, 1, 2], params)


def test_invalid_slates_earn_nothing_and_change_nothing_inside_jit(fixed):
    _, env, params = fixed
    params = never_leaves(params)
    obs, state = env.reset(jax.random.key(0), params)
    step = jax.jit(lambda *args: env.step(*args))
    for name, slate in bad_slates(obs).items():
        args = jax.random.key(0), state, jnp.asarray(slate, jnp.int32), params
        after, next_state, reward, _, _, info = step(*args)
        chex.assert_trees_all_equal(after, obs)
        assert (info["invalid_action"], reward, info["place"]) == (True, 0, -1), name
        np.testing.assert_array_equal(info["probabilities"], [0, 0, 0, 1])
        assert info["response"].like == 0
        assert next_state.time == 1
    respond = jax.jit(lambda slate: env.respond(jax.random.key(0), [-1], [0], slate, params))
    answer = respond(jnp.asarray([4, 4, 2], jnp.int32))
    assert (answer.place, answer.reward) == (-1, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"semantics": "paper"}, "slate_size=3 needs probabilities.*'paper'.*calibrated"),
        ({"signals": "all"}, "slates earn likes, without ratings"),
        ({"session_capacity": 11}, r"slate_size \* session_capacity is 41, too many.*40 items"),
        ({"slate_size": 40, "repeats": "allow"}, "slate_size is 40, too many"),
        ({"slate_size": 0}, "slate_size is 0: give a whole number from 1"),
        ({"slate_size": 2.5}, "slate_size is 2.5: give a whole number"),
        ({"position_effect": np.inf}, "position_effect is inf: give a finite number"),
        ({"outside_option": "x"}, "outside_option is 'x': give a finite number"),
        ({"unchosen": "all"}, "unchosen is 'all': give one of top, examined"),
        ({"slate_size": 1, "position_effect": 0.0}, "position_effect is a setting of slates"),
    ],
)
def test_settings_that_cannot_be_served_are_refused(dataset, settings, message):
    settings = {"slate_size": K, "semantics": "calibrated", "session_capacity": STEPS, **settings}
    with pytest.raises(InputError, match=message) as caught:
        simulator_of(dataset, **settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_argument_of_make_is_a_type_error(dataset):
    with pytest.raises(TypeError, match="unexpected keyword argument 'slates'"):
        jaxsim.make(dataset, slates=3)


# ---- the interface -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_batch_has_the_sessions_of_single_steps_across_resets(fixed):
    _, env, params = fixed
    params = leaving_with(params, 0.4)
    obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(1), 4), params)
    ended = 0
    for t in range(4):
        keys = jax.random.split(jax.random.key(10 + t), 4)
        rows = [jax.tree.map(lambda x, i=i: x[i], (obs, state)) for i in range(4)]
        slates = jnp.stack([random_slate(env, rows[i][0], params, t) for i in range(4)])
        one_by_one = [env.step(keys[i], rows[i][1], slates[i], params) for i in range(4)]
        batch = jax.vmap(env.step, (0, 0, 0, None))(keys, state, slates, params)
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *one_by_one)
        chex.assert_trees_all_close(batch, stacked, rtol=1e-6)
        obs, state = batch[:2]
        ended += int(batch[3].sum())
    assert ended


@pytest.mark.slow
def test_steps_are_the_same_without_jit(fixed):
    _, env, params = fixed
    obs, state = env.reset_user(jnp.int32(3), params)
    slate = random_slate(env, obs, params, 0)
    jitted = jax.jit(env.step_env)(jax.random.key(2), state, slate, params)
    with jax.disable_jit():
        eager = env.step_env(jax.random.key(2), state, slate, params)
    chex.assert_trees_all_close(eager, jitted, rtol=1e-6)


@pytest.mark.slow
def test_spaces_and_settings(fixed):
    _, env, params = fixed
    obs, _ = env.reset(jax.random.key(0), params)
    sample = env.observation_space(params).sample(jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(sample, obs)
    assert env.action_space(params).shape == (K,)
    assert "slate_size=3" in repr(env)
    assert env == replace(env)
    assert hash(env) == hash(replace(env))
    assert env != replace(env, position_effect=-0.5)
    with pytest.raises(InputError, match="pass the params"):
        env.reset(jax.random.key(0))
    held = replace(env, defaults=HeldParams(params))  # as `gymnax.make` does
    chex.assert_trees_all_equal(held.reset(jax.random.key(0))[0], obs)
    with pytest.raises(InputError, match=r"SlateSimulator.*env\.single"):
        jaxsim.explain(fixed.dataset, env, params, [1], [1], 2)


def test_a_sentence_says_what_was_chosen_and_why(fixed):
    dataset, env, _ = fixed
    info = {
        "slate": np.asarray([1, 2, 3]), "invalid_action": False,
        "scores": np.log([4.0, 2.0, 3.0]), "probabilities": np.asarray([4, 1, 1, 1]) / 7,
    }  # fmt: skip
    first = "'1' at place 1 of 3 (probability 0.57: alone it is liked with 0.80)"
    sentences = {
        0: f"The user chose {first}, the most probable item; none has probability 0.14.",
        1: "The user chose '2' at place 2 of 3 (probability 0.14: alone it is liked with 0.67, and place 2 "
        f"multiplies the odds by 0.50); none has probability 0.14, and most probable was {first}.",
        -1: f"The user chose none; none has probability 0.14, and most probable was {first}.",
    }
    for place, sentence in sentences.items():
        assert env.describe(dataset, {**info, "place": place}) == sentence
    invalid = {**info, "place": -1, "invalid_action": True}
    assert "invalid" in env.describe(dataset, invalid)
    with pytest.raises(InputError, match="several sessions"):
        env.describe(dataset, {**info, "place": np.zeros(2)})
