"""Candidates: how they are drawn, that learning on rows is learning on whole tables, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agents.algorithms import replay
from agents.algorithms.a2c import A2C, A2CConfig
from agents.algorithms.algorithm import LARGEST_SOFTMAX, least_candidates
from agents.algorithms.candidates import (
    distinct,
    draw_candidates,
    first_distinct,
    liked_by,
    places_of,
)
from agents.algorithms.dqn import DQN, DQNConfig
from agents.algorithms.lazy_target import start_clock, take_target, tick
from agents.algorithms.on_policy import flatten
from agents.algorithms.ppo import PPO, PPOConfig
from agents.algorithms.registry import ALGORITHMS
from agents.algorithms.rows import Rows, in_rows, put, take
from agents.algorithms.trpo import TRPO, TRPOConfig
from agents.evaluation.sessions import fixed_sessions, run_sessions
from agents.runs.training import train_seeds
from jaxsim import InputError, Observation, make

NUM_ITEMS, NUM_ENVS, COUNT = 40, 8, 21
COMMON = {"num_envs": NUM_ENVS, "width": 8, "candidates": COUNT, "total_steps": 4000}
DQN_SETTINGS = {"rollout_length": 4, "batch_size": 16, "replay_steps": 64}


# ---- drawing ---------------------------------------------------------------------------------------------


ITEMS = arrays.arrays(np.int32, 20, elements=st.integers(-1, 12))  # one shape, one compilation


@given(items=ITEMS)
@settings(max_examples=50, deadline=None)
def test_distinct_items_and_their_places_against_numpy(items):
    num_items, count = 12, 6
    known = items[(items >= 0) & (items < num_items)]
    ascending = np.unique(known)
    in_order = known[np.sort(np.unique(known, return_index=True)[1])]
    for actual, expected in (
        (distinct([jnp.asarray(items)], num_items, count), ascending),
        (first_distinct(jnp.asarray(items), num_items, count), in_order),
    ):
        padded = np.full(count, num_items)
        padded[: len(expected[:count])] = expected[:count]
        np.testing.assert_array_equal(actual, padded)
        places = np.asarray(places_of(actual, num_items))
        for item in range(num_items):
            where = np.flatnonzero(padded == item)
            assert places[item] == (where[0] if len(where) else count)


@pytest.fixture(scope="module")
def started(learnable):
    """The learnable simulator with sessions in progress, and the index of its likes."""
    _, env, params = learnable
    keys = jax.random.split(jax.random.key(0), NUM_ENVS)
    obs, _ = jax.vmap(env.reset, (0, None))(keys, params)
    return obs, params, liked_by(params, NUM_ITEMS)


def test_candidates_are_different_items_and_all_kinds_are_drawn(started):
    obs, params, index = started
    draw = jax.jit(draw_candidates, static_argnums=(4, 5))
    histories = np.asarray(params.histories.items[params.session_users])
    known = np.bincount(histories[histories >= 0], minlength=NUM_ITEMS)
    total = np.zeros(NUM_ITEMS)
    for seed in range(60):
        drawn = np.asarray(draw(jax.random.key(seed), index, obs, params, COUNT, NUM_ENVS))
        assert len(np.unique(drawn)) == COUNT
        assert drawn.min() >= 0
        assert drawn.max() < NUM_ITEMS
        total[drawn] += 1
    assert (total > 0).all()
    # What is in histories is drawn more often than what is not.
    assert total[known > 0].mean() > 1.2 * total[known == 0].mean()
    drawn = [draw(jax.random.key(3), index, obs, params, COUNT, NUM_ENVS) for _ in range(2)]
    np.testing.assert_array_equal(*drawn)


def test_neighbours_are_liked_by_someone_who_liked_the_same(started):
    """With windows of one liked item, the walk ends at what its likers liked, and nowhere else."""
    obs, params, index = started
    items, likes = (np.asarray(x) for x in (params.histories.items, params.histories.likes))
    users = np.asarray(params.session_users)
    item = int(items[users[0]][likes[users[0]] > 0][0])
    alone = obs.items.at[:].set(-1).at[:, 0].set(item)
    window = dataclasses.replace(
        obs, items=alone, responses=jnp.where(alone >= 0, 1, 0).astype(jnp.int8)
    )
    near = set()
    for user in users:
        liked = set(items[user][likes[user] > 0].tolist())
        near |= liked if item in liked else set()
    nobody = dataclasses.replace(window, responses=jnp.zeros_like(window.responses))
    share = COUNT // 3
    draw = jax.jit(draw_candidates, static_argnums=(4, 5))
    found = set()
    for seed in range(40):
        key = jax.random.key(seed)
        with_walk = draw(key, index, window, params, COUNT, NUM_ENVS)
        without = draw(key, index, nobody, params, COUNT, NUM_ENVS)
        new = set(np.asarray(with_walk).tolist()) - set(np.asarray(without).tolist())
        assert new <= near
        assert len(new) <= share
        found |= new
    assert found


# ---- rows ------------------------------------------------------------------------------------------------


def test_rows_are_taken_and_put_back(learnable):
    _, env, params = learnable
    agent = PPO(env, PPOConfig(**COMMON))
    state = jax.jit(agent.init)(jax.random.key(0), params)
    trees = (state.variables, state.optimiser)
    rows = Rows(jnp.array([3, 1, NUM_ITEMS]), jnp.array([0, 7]))
    local = take(trees, rows)
    table = local[0]["params"]["item_embedding"]
    assert table.shape == (3, 8)
    np.testing.assert_array_equal(
        table[:2], state.variables["params"]["item_embedding"][jnp.array([3, 1])]
    )
    changed = jax.tree.map(lambda x: x + 1, local)
    back = put(trees, changed, rows)
    for name, chosen in (("item_embedding", [1, 3]), ("item_bias", [1, 3])):
        before, after = (x[0]["params"][name] for x in (trees, back))
        expected = np.zeros(before.shape)
        expected[chosen] = 1
        np.testing.assert_allclose(after - before, expected, atol=1e-6)
    before, after = (x[0]["params"]["history"]["history_embedding"] for x in (trees, back))
    np.testing.assert_allclose(np.flatnonzero((after != before).any(axis=1)), [0, 7])


def test_items_without_a_row_leave_the_window():
    obs = Observation(
        user=jnp.int32(0),
        items=jnp.array([4, 9, 2, -1]),
        responses=jnp.array([1, -1, -1, 0], jnp.int8),
        length=jnp.int32(3),
    )
    local = in_rows(obs, jnp.array([2, 4]), 10)
    np.testing.assert_array_equal(local.items, [1, -1, 0, -1])
    np.testing.assert_array_equal(local.responses, [1, 0, -1, 0])


def among(batch_masks, candidates):
    """Masks bool[n, N] of all items that allow what masks bool[n, C] of the candidates allow."""
    whole = jnp.zeros((*batch_masks.shape[:-1], NUM_ITEMS), bool)
    return whole.at[..., candidates].set(batch_masks)


ON_POLICY = {
    "ppo": (PPO, PPOConfig, {"rollout_length": 4, "num_epochs": 1, "num_minibatches": 1}),
    "a2c": (A2C, A2CConfig, {"rollout_length": 4}),
    "trpo": (
        TRPO,
        TRPOConfig,
        {"rollout_length": 4, "critic_epochs": 1, "critic_minibatches": 1, "cg_damping": 0.1},
    ),
}


@pytest.mark.slow  # compiles the training twice
@pytest.mark.parametrize("name", ON_POLICY)
def test_learning_on_rows_is_learning_on_whole_tables(learnable, name):
    """From the same rollout among candidates, the first update is the same with all rows as with a few."""
    _, env, params = learnable
    kind, config_type, settings = ON_POLICY[name]
    agent = kind(env, config_type(**COMMON, **settings))
    start = jax.jit(agent.init)(jax.random.key(0), params)
    end, _ = jax.jit(agent.iterate)(start, params)

    key, key_candidates = jax.random.split(start.key)
    candidates = jax.jit(agent._draw_candidates)(key_candidates, start, params)
    acting = agent.with_tables(COUNT, NUM_ITEMS)
    collected, experience, _ = jax.jit(acting.collect_experience)(
        start.replace(key=key, variables=take(start.variables, Rows(candidates))),
        params,
        candidates,
    )
    whole = experience.replace(
        item=candidates[experience.item], mask=among(experience.mask, candidates)
    )
    expected, _ = jax.jit(agent.learn)(collected.replace(variables=start.variables), whole, params)
    moved = 0.0
    for actual, reference, before in zip(
        jax.tree.leaves(end.variables),
        jax.tree.leaves(expected.variables),
        jax.tree.leaves(start.variables),
        strict=True,
    ):
        np.testing.assert_allclose(actual, reference, atol=2e-5)
        moved = max(moved, float(np.abs(reference - before).max()))
    assert moved > 1e-4


@pytest.mark.slow
def test_log_probabilities_among_candidates_are_exact(learnable):
    _, env, params = learnable
    agent = PPO(env, PPOConfig(**COMMON, rollout_length=4, num_minibatches=4))
    state = jax.jit(agent.init)(jax.random.key(0), params)
    noisy = jax.tree.map(
        lambda x: x + jax.random.normal(jax.random.key(x.size), x.shape), state.variables
    )
    candidates = jax.jit(agent._draw_candidates)(jax.random.key(5), state, params)
    acting = agent.with_tables(COUNT, NUM_ITEMS)
    local = state.replace(variables=take(noisy, Rows(candidates)))
    _, experience, _ = jax.jit(acting.collect_experience)(local, params, candidates)
    batch = flatten(experience)
    logits = np.asarray(agent.network.apply(noisy, batch.obs), np.float64)
    seen = [set(items[items >= 0].tolist()) for items in np.asarray(batch.obs.items)]
    for step, place in enumerate(np.asarray(batch.item)):
        allowed = [int(i) for i in candidates if int(i) not in seen[step]]
        chosen = int(candidates[place])
        assert chosen in allowed
        expected = logits[step, chosen] - np.log(np.exp(logits[step, allowed]).sum())
        np.testing.assert_allclose(batch.log_probability[step], expected, atol=1e-4)


@pytest.mark.slow  # compiles a training
def test_the_first_gradient_step_of_dqn_on_rows_is_that_on_whole_tables(learnable):
    _, env, params = learnable
    agent = DQN(env, DQNConfig(**COMMON, **DQN_SETTINGS))
    state = jax.jit(agent.init)(jax.random.key(0), params)
    noise = jax.tree.map(
        lambda x: 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), state.variables
    )
    filled = jax.jit(lambda s: agent.iterations(s, params, 4)[0])(state)
    state = state.replace(
        replay=filled.replay,
        variables=jax.tree.map(jnp.add, state.variables, noise),
        target=jax.tree.map(jnp.subtract, state.target, noise),
    )
    candidates = jax.jit(agent._draw_candidates)(jax.random.key(3), state, params)
    key = jax.random.key(4)
    end, _ = jax.jit(agent.update)(key, state, params, candidates)

    c = agent.config
    batch = replay.sample(key, state.replay, env, params, c.batch_size, c.n_steps, c.gamma)
    choices = distinct([candidates, batch.transition.item], NUM_ITEMS, NUM_ITEMS)
    masks = agent.masks(batch.next_obs, params) & jnp.isin(jnp.arange(NUM_ITEMS), choices)
    expected, _ = jax.jit(agent._gradient_step)(state, batch, masks)
    for actual, reference in zip(
        jax.tree.leaves(end.variables), jax.tree.leaves(expected.variables), strict=True
    ):
        np.testing.assert_allclose(actual, reference, atol=2e-5)


def test_a_lazy_target_has_the_values_of_a_full_one():
    """Over many updates of random rows, also of rows that are not seen for long."""
    num_items, tau = 6, 0.1
    rng = np.random.default_rng(0)
    tables = {"item_embedding": (num_items, 2), "history_embedding": (num_items, 3), "dense": (2,)}
    online, full = (
        {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in tables.items()}
        for _ in range(2)
    )
    lazy, clock = full, start_clock(num_items)
    for _ in range(30):
        choices, windows = (jnp.asarray(rng.permutation(num_items)[:2]) for _ in range(2))
        rows = Rows(choices, windows)
        before = take(online, rows)
        own = take_target(lazy, before, clock, rows, tau)
        for name, value in take(full, rows).items():
            np.testing.assert_allclose(own[name], value, atol=1e-5)
        after = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(size=x.shape)), before)
        online = put(online, after, rows)
        full = optax.incremental_update(online, full, tau)
        lazy = put(lazy, optax.incremental_update(after, own, tau), rows)
        clock = tick(clock, rows)
    everything = Rows(jnp.arange(num_items), jnp.arange(num_items))
    final = take_target(lazy, online, clock, everything, tau)
    for name, value in full.items():
        np.testing.assert_allclose(final[name], value, atol=1e-5)


# ---- learning --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_agents_learn_among_candidates(learnable, name):
    """Half of the items are liked by everyone. The greedy policy over all items finds them, from every seed."""
    _, env, params = learnable
    entry = ALGORITHMS[name]
    more = DQN_SETTINGS if name == "dqn" else {}
    config = entry.config(**{**COMMON, "total_steps": 30_000}, **more)
    agent = entry.algorithm(env, config)
    sessions = fixed_sessions(jax.random.key(9), env, params)
    for seed in range(3):
        training = train_seeds(agent, params, seed, 1)
        variables = jax.tree.map(lambda x: x[0], training.variables)
        outcome = run_sessions(env, params, agent.policy_of(variables), sessions)
        rate = outcome.returns.sum() / np.asarray(sessions.durations).sum()
        assert rate > 0.9, (name, seed, rate)


# ---- settings --------------------------------------------------------------------------------------------


def test_the_fewest_candidates_always_leave_one(learnable):
    _, env, _ = learnable
    assert least_candidates(env) == env.window + 1
    assert least_candidates(dataclasses.replace(env, repeats="allow")) == 1


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (41, "candidates is 41, but the catalogue has 40 items: lower it, or use 0 for all items"),
        (14, "candidates is 14: use at least 15, so that .* always leave 1 to recommend"),
        (-1, "candidates is -1"),
    ],
)
def test_candidates_that_cannot_be_are_refused(learnable, candidates, message):
    _, env, _ = learnable
    with pytest.raises(InputError, match=message):
        PPO(env, PPOConfig(candidates=candidates))


def test_large_catalogues_have_candidates_by_default(learnable):
    _, env, _ = learnable
    large = dataclasses.replace(env, sasrec=env.sasrec.clone(num_items=LARGEST_SOFTMAX + 1))
    assert PPO(large, PPOConfig()).candidates == 1024
    assert PPO(large, PPOConfig(candidates=0)).candidates is None
    assert PPO(env, PPOConfig()).candidates is None
    assert PPO(env, PPOConfig(candidates=NUM_ITEMS)).candidates is None


@pytest.mark.parametrize("repeats", ["mask", "allow"])
def test_masks_of_candidates_are_those_of_all_items(learnable, repeats):
    """Also with padding among the candidates, and several sessions at once."""
    options = {"history_length": 4, "session_capacity": 10, "repeats": repeats}
    env, params = make(learnable.dataset, **options)
    agent = ALGORITHMS["ppo"].algorithm(env, ALGORITHMS["ppo"].config(num_envs=16))
    keys = jax.random.split(jax.random.key(0), 16)
    obs, _ = jax.vmap(env.reset, (0, None))(keys, params)
    items = jnp.append(jax.random.permutation(jax.random.key(1), NUM_ITEMS)[:30], NUM_ITEMS)
    everything = np.asarray(agent.masks(obs, params))
    expected = np.pad(everything, ((0, 0), (0, 1)))[:, items]  # an item N may never be shown
    np.testing.assert_array_equal(agent.masks(obs, params, items), expected)
    assert everything.all() == (repeats == "allow")
