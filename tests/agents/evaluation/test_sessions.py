"""Fixed sessions, and what a policy earns in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy import stats

from agents.evaluation.baselines import FixedRanking, RepeatLastLiked
from agents.evaluation.sessions import FixedSessions, batch_size, fixed_sessions, run_sessions
from tests.conftest import CAPACITY, simulator_of
from tests.signals_factory import with_signals


def test_each_user_starts_the_same_number_of_sessions(simulator):
    _, env, params = simulator
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=3)
    expected = np.repeat(np.asarray(params.session_users), 3)
    np.testing.assert_array_equal(sessions.users, expected)
    keys = jax.random.key_data(sessions.keys)
    assert len(np.unique(keys, axis=0)) == len(expected)
    again = fixed_sessions(jax.random.key(0), env, params, repeats=3)
    np.testing.assert_array_equal(again.durations, sessions.durations)
    np.testing.assert_array_equal(jax.random.key_data(again.keys), keys)


def test_durations_are_those_of_the_environment(simulator):
    """Geometric with the departure probability, and at most the longest session."""
    _, env, params = simulator
    p = 0.2
    params = params.replace(departure_probability=jnp.float32(p))
    durations = np.asarray(fixed_sessions(jax.random.key(1), env, params, repeats=400).durations)
    steps = np.arange(1, CAPACITY + 1)
    chance = p * (1 - p) ** (steps - 1)
    chance[-1] = (1 - p) ** (CAPACITY - 1)
    counts = np.bincount(durations, minlength=CAPACITY + 1)[1:]
    assert counts.sum() == len(durations)
    assert stats.chisquare(counts, chance * len(durations)).pvalue > 1e-4
    short = params.replace(max_steps_in_episode=jnp.int32(2))
    assert fixed_sessions(jax.random.key(1), env, short).durations.max() == 2
    endless = params.replace(departure_probability=jnp.float32(0))
    assert (fixed_sessions(jax.random.key(1), env, endless).durations == CAPACITY).all()


@struct.dataclass
class Wanderer:
    """Recommends by its key, its memory (the number of likes), the observation and the state."""

    name: str = struct.field(pytree_node=False, default="wanderer")

    def begin(self, env, obs, params):
        return jnp.int32(0)

    def act(self, key, memory, env, obs, state, params):
        mask = env.action_mask(obs, params)
        noise = jax.random.uniform(key, mask.shape)
        preferred = (jnp.arange(mask.size) + memory + state.user) % 3 == 0
        return jnp.argmax(jnp.where(mask, noise + preferred, -1.0)).astype(jnp.int32)

    def remember(self, memory, item, like, params):
        return memory + like


def plain_run(env, params, policy, sessions):
    """Returns, recommendation counts and liking by a Python loop, one session at a time."""
    params = params.replace(departure_probability=jnp.float32(0))
    step_env, act = jax.jit(env.step_env), jax.jit(policy.act, static_argnums=2)
    reset = jax.jit(env.reset_user)
    returns, liking, counts = [], [], np.zeros(env.num_items, int)
    for user, key, duration in zip(*sessions, strict=True):
        obs, state = reset(user, params)
        memory = policy.begin(env, obs, params)
        likes = []
        for time in range(max(int(duration), 10)):
            key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
            item = act(key_policy, memory, env, obs, state, params)
            obs, state, reward, _, info = step_env(key_env, state, item, params)
            assert not info["invalid_action"]
            memory = policy.remember(memory, item, info["response"].like, params)
            counts[item] += time < duration
            likes.append(float(reward))
        returns.append(sum(likes[: int(duration)]))
        liking.append(np.mean(likes[:10]))
    return returns, counts, liking


@pytest.mark.slow
def test_run_sessions_is_a_plain_loop(simulator):
    """Here users like by chance, so the draws of the environment count, too."""
    _, env, params = simulator
    params = params.replace(
        session_users=params.session_users[:6], departure_probability=jnp.float32(0.1)
    )
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=2)
    outcome = run_sessions(env, params, Wanderer(), sessions)
    returns, counts, liking = plain_run(env, params, Wanderer(), sessions)
    assert 0 < np.mean(liking) < 1
    np.testing.assert_array_equal(outcome.returns, returns)
    np.testing.assert_array_equal(outcome.recommended, counts)
    np.testing.assert_allclose(outcome.liking, liking, rtol=1e-6)
    assert outcome.recommended.sum() == sessions.durations.sum()


@pytest.mark.slow
def test_returns_are_the_reward_and_likes_are_counted_beside_it(dataset):
    """Likes are drawn from the same keys with and without ratings, so they agree with the returns of likes."""
    rated = with_signals(dataset)
    outcomes = {}
    for reward in ("like", "rating"):
        _, env, params = simulator_of(rated, semantics="calibrated", reward=reward)
        params = params.replace(session_users=params.session_users[:5])
        sessions = fixed_sessions(jax.random.key(0), env, params, repeats=2)
        policy = FixedRanking(jnp.sin(jnp.arange(env.num_items, dtype=jnp.float32)))
        outcomes[reward] = run_sessions(env, params, policy, sessions)
    likes, ratings = outcomes["like"], outcomes["rating"]
    assert likes.liked is None
    np.testing.assert_array_equal(likes.likes, likes.returns)
    np.testing.assert_array_equal(ratings.likes, likes.returns)
    np.testing.assert_array_equal(ratings.liking, likes.liking)
    # Ratings of likes are 4 or 5, those of dislikes 1 to 3.
    others = np.asarray(sessions.durations) - likes.returns
    assert (ratings.returns >= 4 * likes.returns + others).all()
    assert (ratings.returns <= 5 * likes.returns + 3 * others).all()
    returns, _, _ = plain_run(env, params, policy, sessions)
    np.testing.assert_allclose(ratings.returns, returns, rtol=1e-6)


def test_batches_shrink_with_the_catalogue():
    """Arrays with a number for each session and item stay bounded, down to 16 sessions."""
    sizes = [batch_size(num_items) for num_items in (40, 1682, 14_684, 65_019, 10_000_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1:3] == [128, 16]
    assert sizes[-1] == 16
    assert batch_size(14_684) * 14_684 <= 1 << 18


def test_the_outcome_of_a_session_does_not_depend_on_its_batch(even, monkeypatch):
    """Sessions that fill several batches, the last in part, beside the same sessions in parts of one batch."""
    _, env, params = even
    monkeypatch.setattr("agents.evaluation.sessions.batch_size", lambda num_items: 128)
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=9)
    policy = FixedRanking(jnp.sin(jnp.arange(env.num_items, dtype=jnp.float32)))
    whole = run_sessions(env, params, policy, sessions)
    assert 128 < len(sessions.users) < 256
    parts = [
        run_sessions(env, params, policy, FixedSessions(*(x[rows] for x in sessions)))
        for rows in np.array_split(np.arange(len(sessions.users)), 3)
    ]
    for name in ("returns", "repeated", "liking", "diversity"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole, name), joined)
    np.testing.assert_array_equal(whole.recommended, sum(part.recommended for part in parts))


def test_diversity_is_the_mean_distance_of_the_list(simulator):
    dataset, env, params = simulator
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=1)
    scores = -jnp.arange(env.num_items, dtype=jnp.float32)
    outcome = run_sessions(env, params, FixedRanking(scores), sessions)
    vectors = dataset.arrays["item_pos_embedding"].astype(np.float64)
    for row, user in enumerate(np.asarray(sessions.users)):
        history = set(np.asarray(params.histories.items[user]).tolist())
        listed = [item for item in range(env.num_items) if item not in history][:10]
        known = [item for item in listed if vectors[item].any()]
        distances = [1 - vectors[a] @ vectors[b] for a in known for b in known if a < b]
        np.testing.assert_allclose(outcome.diversity[row], np.mean(distances), atol=1e-5)


@pytest.mark.slow
def test_lists_are_distinct_even_where_repeats_are_allowed(even_with_repeats):
    """Recommending the item that was liked last earns only likes, but a list of it would show one item."""
    _, env, params = even_with_repeats
    sessions = fixed_sessions(jax.random.key(0), env, params, repeats=1)
    outcome = run_sessions(env, params, RepeatLastLiked(), sessions)
    np.testing.assert_array_equal(outcome.returns, sessions.durations)
    assert 0 < outcome.liking.mean() < 1


@pytest.mark.slow
def test_repeats_are_counted_in_the_simulator(even_with_repeats):
    """Item 0 is always liked: where repeats are allowed, all but its first recommendation is a repeat."""
    _, env, params = even_with_repeats
    sessions = fixed_sessions(jax.random.key(0), env, params)
    is_new = [0 not in np.asarray(params.histories.items[user]) for user in sessions.users]
    sessions = FixedSessions(*(x[np.array(is_new)] for x in sessions))
    assert len(sessions.users)
    one_item = FixedRanking(jnp.zeros(40).at[0].set(1.0))
    outcome = run_sessions(env, params, one_item, sessions)
    np.testing.assert_array_equal(outcome.returns, sessions.durations)
    np.testing.assert_array_equal(outcome.repeated, sessions.durations - 1)
    assert outcome.recommended.sum() == outcome.recommended[0] == sessions.durations.sum()
