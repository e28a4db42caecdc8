"""SlateQ: values and slates by hand and by brute force, its replay, losses and targets, and what it learns."""

import itertools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agents import DQN, DQNConfig, fixed_sessions, run_sessions
from agents.algorithms import replay as replay_memory
from agents.algorithms.choice import draw_slate, mask_logits
from agents.algorithms.networks import ItemStart, with_item_start
from agents.algorithms.rollout import collect, start_sessions
from agents.algorithms.slate_q import SlateActions, SlateScores
from agents.evaluation.oracle import Oracle
from jaxsim import UserModel
from tests.conftest import simulator_of
from tests.slates import STEPS, K, with_rates

NUM_ENVS = 3
CONFIG = DQNConfig(
    total_steps=1000, num_envs=4, rollout_length=2, width=8, batch_size=16, replay_steps=32
)


def scores_of(values, none, scores, slope) -> SlateScores:
    values, scores = jnp.asarray(values, jnp.float32), jnp.asarray(scores, jnp.float32)
    return SlateScores(values, jnp.float32(none), scores, jnp.float32(slope))


# ---- values and slates -------------------------------------------------------------------------------------


def test_the_value_of_a_slate_is_the_mean_over_what_is_chosen():
    """Odds 2, 3 / 2 and 1 of none: probabilities 4/9, 3/9 and 2/9."""
    scores = scores_of([5.0, 1.0, 2.0], 7.0, np.log([9.0, 3.0, 2.0]), -1.0)
    expected = 4 / 9 * 2.0 + 3 / 9 * 1.0 + 2 / 9 * 7.0
    slate = jnp.array([2, 1])
    for function in (scores.value_of, jax.jit(scores.value_of)):
        np.testing.assert_allclose(function(slate), expected, rtol=1e-6)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), scores).replace(
        position_effect=jnp.float32(-1)
    )
    np.testing.assert_allclose(both.value_of(jnp.stack([slate, slate])), [expected] * 2, rtol=1e-6)


@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.5])
def test_the_best_slate_is_that_of_brute_force(slope):
    """Also with items that are worth less than none, and items that are not allowed."""
    slates = np.array(list(itertools.permutations(range(6), 3)))
    best_of = jax.jit(lambda scores, mask: scores.best(mask, 3))
    value_of = jax.jit(lambda scores, slates: jax.vmap(scores.value_of)(slates))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = scores_of(rng.normal(size=6), rng.normal(), 1.5 * rng.normal(size=6), slope)
        masked = seed % 6
        values = value_of(scores, slates)[(slates != masked).all(axis=1)]
        best = best_of(scores, jnp.arange(6) != masked)
        np.testing.assert_allclose(scores.value_of(best), values.max(), rtol=1e-4, atol=1e-6)
        assert masked not in best


def test_a_constant_of_all_values_changes_no_slate():
    scores = scores_of([2.0, -1.0, 2.0, 2.0], 0.0, [0.0, 9.0, 1.0, 2.0], -1.0)
    shifted = scores.replace(values=scores.values - 50, none=scores.none - 50)
    for one in (scores, shifted):
        assert one.best(jnp.ones(4, bool), 3).tolist() == [3, 2, 0]


@pytest.mark.slow
def test_scores_start_from_log_odds_and_values_do_not(dataset):
    _, env, params = with_rates(dataset)
    agent = DQN(env, CONFIG)
    variables = agent.init(jax.random.key(0), params).variables
    start = ItemStart(jnp.ones((40, 8)), jnp.linspace(-2.0, 2.0, 40))
    started = with_item_start(variables, start, 0.5)["params"]
    np.testing.assert_array_equal(started["choice_bias"], 0.5 * start.log_odds)
    np.testing.assert_array_equal(started["item_bias"], 0)


# ---- replay ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unchosen", "repeats"),
    [
        ("examined", "mask"),
        pytest.param("examined", "allow", marks=pytest.mark.slow),
        pytest.param("top", "mask", marks=pytest.mark.slow),
    ],
)
def test_sampled_observations_are_those_that_were_seen(dataset, unchosen, repeats):
    """Also over the ends of sessions, and where nothing was chosen and several items entered."""
    _, env, params = with_rates(dataset, unchosen=unchosen, repeats=repeats)
    params = params.replace(departure_probability=jnp.float32(0.1))

    def act(keys, obs):
        masks = jax.vmap(env.action_mask, (0, None))(obs, params)
        return jax.vmap(lambda k, m: draw_slate(k, mask_logits(jnp.zeros(40), m), K))(
            keys, masks
        ), None

    @jax.jit
    def record(key, params):
        sessions = start_sessions(jax.random.key(1), env, params, NUM_ENVS)
        _, rollout, _ = collect(key, env, params, sessions, act, 60, keep_obs=True)
        numbered = jnp.arange(60.0 * NUM_ENVS).reshape(60, NUM_ENVS)
        replay = replay_memory.empty_replay(20, NUM_ENVS, K)
        for start in range(0, 60, 20):
            rows = slice(start, start + 20)
            part = jax.tree.map(lambda x, rows=rows: x[rows], rollout.transitions)
            replay = replay_memory.add(replay, part.replace(reward=numbered[rows]))
        return rollout, replay_memory.sample(key, replay, env, params, 300)

    rollout, batch = jax.device_get(record(jax.random.key(0), params))
    step, column = np.divmod(batch.transition.reward.astype(int), NUM_ENVS)
    assert step.min() >= 40 + STEPS
    seen = jax.tree.map(lambda x: x[step, column], rollout.obs)
    chex.assert_trees_all_equal(batch.obs, seen)
    done = rollout.transitions.terminated | rollout.transitions.truncated
    goes_on = ~done[step, column] & (step < 59)
    after = jax.tree.map(lambda x: x[np.minimum(step + 1, 59), column], rollout.obs)
    chex.assert_trees_all_equal(
        jax.tree.map(lambda x: x[goes_on], batch.next_obs),
        jax.tree.map(lambda x: x[goes_on], after),
    )
    # A choice alone earns; without one, items are disliked.
    entered = rollout.transitions.like
    chosen = (entered > 0).sum(axis=-1)
    np.testing.assert_array_equal(chosen, rollout.transitions.reward)
    assert (entered[chosen == 1] >= 0).all()
    assert 0 < chosen.mean() < 1
    if unchosen == "top":
        assert (entered[chosen == 0] == [-1, 0, 0]).all()
    assert ((entered < 0).sum(axis=-1) > 1).any() == (unchosen == "examined")


# ---- learning ----------------------------------------------------------------------------------------------


class Known:
    """A network whose scores are its variables, one row for each observation."""

    def apply(self, variables, obs, method):
        return variables


def test_losses_against_numpy():
    rng = np.random.default_rng(0)
    values, scores = rng.normal(size=(2, 4, 6)).astype(np.float32)
    none, slope = rng.normal(size=4).astype(np.float32), -0.7
    slates = jnp.array([[0, 1, 2], [3, 4, 5], [5, 0, 3], [2, 4, 1]])
    like = jnp.array([[0, 1, 0], [-1, 0, -1], [1, 0, 0], [-1, 0, 0]], jnp.int8)
    place, targets = np.array([1, 3, 0, 3]), np.array([0.2, 0.1, -0.3, 0.4], np.float32)
    batch = replay_memory.Batch(
        obs=None, next_obs=None, reward=None, discount=None,
        transition=replay_memory.Transition(
            user=None, item=slates, like=like, reward=None, session_length=None, terminated=None,
            truncated=None,
        ),
    )  # fmt: skip
    actions = SlateActions(Known(), 3)
    variables = SlateScores(*map(jnp.asarray, (values, none, scores)), jnp.float32(slope))
    total, parts = actions.loss(variables, batch, jnp.asarray(targets))
    errors, likelihood = [], []
    for row in range(4):
        items = np.asarray(slates[row])
        outcomes = np.append(values[row, items], none[row])
        utilities = np.append(scores[row, items] + slope * np.log([1, 2, 3]), 0.0)
        error = abs(outcomes[place[row]] - targets[row])
        errors.append(error**2 / 2 if error < 1 else error - 0.5)
        likelihood.append(utilities[place[row]] - np.log(np.exp(utilities).sum()))
    np.testing.assert_allclose(parts["value_loss"], np.mean(errors), rtol=1e-5)
    np.testing.assert_allclose(parts["choice_loss"], -np.mean(likelihood), rtol=1e-5)
    np.testing.assert_allclose(total, np.mean(errors) - np.mean(likelihood), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("double", [True, False])
def test_the_target_is_the_value_of_the_best_allowed_slate(dataset, double):
    _, env, params = with_rates(dataset)
    agent = DQN(env, DQNConfig(**{**vars(CONFIG), "double": double}))
    state = agent.init(jax.random.key(0), params)
    rng = np.random.default_rng(0)
    online, target = (
        jax.tree.map(lambda w: w + 0.3 * rng.standard_normal(w.shape, np.float32), state.variables)
        for _ in range(2)
    )
    state = state.replace(variables=online, target=target)
    obs, _ = jax.vmap(env.reset_user, (0, None))(jnp.arange(4), params)
    reward, discount = jnp.array([0.0, 1.0, 1.0, 0.0]), jnp.array([0.8, 0.0, 0.8, 0.8])
    batch = replay_memory.Batch(obs, None, obs, reward, discount)
    actual = agent.bellman_targets(state, batch, agent.masks(batch.next_obs, params))
    ranking, values = (
        agent.network.apply(w, obs, method="slate_scores")
        for w in (online if double else target, target)
    )
    for row in range(4):
        mask = env.action_mask(jax.tree.map(lambda x, r=row: x[r], obs))
        of_row = SlateScores(
            ranking.values[row], ranking.none[row], ranking.scores[row], ranking.position_effect
        )
        slate = of_row.best(mask, K)
        assert mask[slate].all()
        odds = np.exp(values.scores[row, slate]) * np.arange(1, K + 1) ** values.position_effect
        worth = (odds @ values.values[row, slate] + values.none[row]) / (1 + odds.sum())
        np.testing.assert_allclose(actual[row], reward[row] + discount[row] * worth, rtol=1e-4)


@dataclass(frozen=True)
class Traps(UserModel):
    """Likes ten items most of all; but once one of them was chosen, likes hardly anything any more."""

    def init(self, params, user, items, likes, length):
        return jnp.bool_(False)

    def probability(self, params, state, item):
        return jnp.where(state, 0.02, jnp.where(item < 10, 0.9, params[item]))

    def update(self, params, state, item, like):
        return state | ((like > 0) & (item < 10))


@pytest.mark.slow
def test_slates_of_what_is_best_in_the_long_run_are_learned(dataset):
    """Greed, even that of an oracle, walks into the trap; the slope of position is learned as well."""
    rates = np.where(np.arange(40) % 3 == 0, 0.7, 0.3).astype(np.float32)
    _, env, params = simulator_of(
        dataset, user_model=Traps(), user_params=rates, slate_size=K, session_capacity=STEPS,
        position_effect=-1.5, history_length=4,
    )  # fmt: skip
    config = DQNConfig(
        total_steps=60_000, num_envs=32, rollout_length=4, width=16, batch_size=128, gradient_steps=2, gamma=0.8,
        replay_steps=512, learning_rate=5e-3, tau=0.02,
    )  # fmt: skip
    agent = DQN(env, config)
    train = jax.jit(jax.vmap(lambda key, params: agent.train(key, params).variables, (0, None)))
    variables = train(jax.random.split(jax.random.key(0), 3), params)
    sessions = fixed_sessions(jax.random.key(1), env, params, repeats=10)
    greedy = run_sessions(env, params, Oracle(), sessions).returns.mean()
    slopes, earned = [], []
    for seed in range(3):
        of_seed = jax.tree.map(lambda x, s=seed: x[s], variables)
        policy = agent.policy_of(of_seed)
        earned.append(run_sessions(env, params, policy, sessions).returns.mean())
        slopes.append(10 * float(of_seed["params"]["position_effect"]))
    assert min(earned) > 1.5 * greedy
    np.testing.assert_allclose(slopes, -1.5, atol=0.4)


@pytest.mark.slow
def test_the_sampled_policy_explores(dataset):
    _, env, params = with_rates(dataset)
    agent = DQN(env, DQNConfig(**{**vars(CONFIG), "exploration_final_eps": 1.0}))
    variables = agent.init(jax.random.key(0), params).variables
    obs, _ = env.reset_user(jnp.int32(2), params)
    greedy, sampled = (agent.policy_of(variables, sampled=x) for x in (False, True))
    act = jax.jit(lambda policy, key: policy(key, obs, params))
    shown = {
        name: {tuple(act(policy, jax.random.key(seed)).tolist()) for seed in range(6)}
        for name, policy in (("greedy", greedy), ("sampled", sampled))
    }
    assert (len(shown["greedy"]), len(shown["sampled"])) == (1, 6)
    allowed = np.flatnonzero(env.action_mask(obs, params))
    assert all(len(set(slate)) == K for slate in shown["sampled"])
    assert np.isin([list(slate) for slate in shown["sampled"] | shown["greedy"]], allowed).all()
