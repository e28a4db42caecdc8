"""One fixed set of sessions, the same for every policy and seed, and what a policy earns in them.

Each user starts `repeats` sessions. When he leaves, and which way the coins of each step fall, is drawn once for
each session, so two policies differ by what they recommend alone, and their difference is a paired one.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from agents.evaluation.baselines import EvaluatedPolicy
from jaxsim import COSINE_UNIT, NO_COSINE, EnvParams, EnvState, Observation, UserSimulator

SESSIONS_PER_USER = 4
LIST_LENGTH = 10
# Sessions run at once. On two CPU cores 128 are fastest on MovieLens 100K: their state stays in the caches.
_CPU_BATCH = 128
_OTHER_BATCH = 1024


class FixedSessions(NamedTuple):
    """The sessions of an evaluation, M of them.

    Attributes:
        users: int32[M].
        keys: PRNG keys [M] of coins and of policies.
        durations: int32[M], steps until the user leaves or the session is cut.
    """

    users: jax.Array
    keys: jax.Array
    durations: jax.Array


class Outcome(NamedTuple):
    """What a policy did in M fixed sessions.

    Attributes:
        returns: float32[M], undiscounted.
        repeated: float32[M], likes among them for items that the window already held.
        recommended: int32[N], how often each item was recommended.
        liking: float32[M], share of likes among the first LIST_LENGTH items of a session that cannot end.
        diversity: float32[M], mean of 1 - cos(E_pos) over the pairs of those items; NaN without keywords.
    """

    returns: np.ndarray
    repeated: np.ndarray
    recommended: np.ndarray
    liking: np.ndarray
    diversity: np.ndarray


def fixed_sessions(
    key: jax.Array, env: UserSimulator, params: EnvParams, repeats: int = SESSIONS_PER_USER
) -> FixedSessions:
    """`repeats` sessions of each of the params' session users, with their departures drawn."""
    users = jnp.repeat(params.session_users, repeats)
    key_sessions, key_departures = jax.random.split(key)
    longest = jnp.minimum(params.max_steps_in_episode, env.session_capacity)
    # The number of steps until a departure of probability p after each is geometric.
    uniform = jax.random.uniform(key_departures, users.shape, jnp.float32, minval=1e-12)
    steps = jnp.ceil(jnp.log(uniform) / jnp.log1p(-params.departure_probability))
    durations = jnp.clip(steps, 1, longest).astype(jnp.int32)
    return FixedSessions(users, jax.random.split(key_sessions, len(users)), durations)


@struct.dataclass
class _Progress:
    """B sessions under way, at the same time step."""

    time: jax.Array
    memory: Any
    obs: Observation
    state: EnvState
    returns: jax.Array
    repeated: jax.Array
    counts: jax.Array
    items: jax.Array
    likes: jax.Array


@partial(jax.jit, static_argnames=("env", "list_length"))
def _run_batch(
    env: UserSimulator,
    params: EnvParams,
    policy: EvaluatedPolicy,
    sessions: FixedSessions,
    list_length: int,
) -> _Progress:
    """Run B sessions to the end of the longest; items and likes are those of the first L steps."""
    params = params.replace(departure_probability=jnp.float32(0.0))
    num_sessions = len(sessions.users)

    def one_session(
        key: jax.Array, time: jax.Array, memory: Any, obs: Observation, state: EnvState
    ) -> tuple[jax.Array, jax.Array, jax.Array, Any, Observation, EnvState]:
        key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
        item = policy.act(key_policy, memory, env, obs, state, params)
        known = (obs.items == item).any()
        obs, state, _, _, info = env.step_env(key_env, state, item, params)
        like = info["response"].like
        return item, like, known, policy.remember(memory, item, like, params), obs, state

    def one_step(now: _Progress) -> _Progress:
        item, like, known, memory, obs, state = jax.vmap(one_session, (0, None, 0, 0, 0))(
            sessions.keys, now.time, now.memory, now.obs, now.state
        )
        alive = now.time < sessions.durations
        return _Progress(
            time=now.time + 1,
            memory=memory,
            obs=obs,
            state=state,
            returns=now.returns + jnp.where(alive, like, 0),
            repeated=now.repeated + jnp.where(alive & known, like, 0),
            counts=now.counts.at[jnp.where(alive, item, env.num_items)].add(1, mode="drop"),
            # Past the list the column is out of range, and the write is dropped.
            items=now.items.at[:, now.time].set(item, mode="drop"),
            likes=now.likes.at[:, now.time].set(like, mode="drop"),
        )

    obs, state = jax.vmap(env.reset_user, (0, None))(sessions.users, params)
    start = _Progress(
        time=jnp.int32(0),
        memory=jax.vmap(policy.begin, (None, 0, None))(env, obs, params),
        obs=obs,
        state=state,
        returns=jnp.zeros(num_sessions, jnp.float32),
        repeated=jnp.zeros(num_sessions, jnp.float32),
        counts=jnp.zeros(env.num_items, jnp.int32),
        items=jnp.zeros((num_sessions, list_length), jnp.int32),
        likes=jnp.zeros((num_sessions, list_length), jnp.int8),
    )
    last = jnp.maximum(sessions.durations.max(), list_length)
    return jax.lax.while_loop(lambda now: now.time < last, one_step, start)


@jax.jit
def _list_diversity(params: EnvParams, items: jax.Array) -> jax.Array:
    """Mean of 1 - cos(E_pos) over the pairs of each list int32[B, L], float32[B]."""
    liked = jnp.ones(items.shape[1], jnp.int32)

    def compare(item: jax.Array, others: jax.Array) -> jax.Array:
        return params.catalogue.compare(item, others, liked).cosine

    cosine = jax.vmap(jax.vmap(compare, (0, None)))(items, items)
    pairs = jnp.triu(jnp.ones(cosine.shape[-2:], bool), 1) & (cosine != NO_COSINE)
    total = jnp.where(pairs, 1.0 - cosine / COSINE_UNIT, 0.0).sum((1, 2))
    return (total / pairs.sum((1, 2))).astype(jnp.float32)


def run_sessions(
    env: UserSimulator, params: EnvParams, policy: EvaluatedPolicy, sessions: FixedSessions
) -> Outcome:
    """Let a policy recommend in the fixed sessions.

    Liking% and diversity are of distinct items: where repeats are allowed, the lists come from a second
    run in which they are masked.
    """
    outcome = _run_all(env, params, policy, sessions)
    if env.repeats == "mask":
        return outcome
    masked = dataclasses.replace(env, repeats="mask")
    lists = sessions._replace(durations=jnp.ones_like(sessions.durations))
    distinct = _run_all(masked, params, policy, lists)
    return outcome._replace(liking=distinct.liking, diversity=distinct.diversity)


def _batch_size() -> int:
    return _CPU_BATCH if jax.default_backend() == "cpu" else _OTHER_BATCH


def _run_all(
    env: UserSimulator, params: EnvParams, policy: EvaluatedPolicy, sessions: FixedSessions
) -> Outcome:
    """Run in batches of similar durations, each only as long as its longest."""
    num_sessions = len(sessions.users)
    list_length = min(LIST_LENGTH, env.session_capacity)
    order = np.argsort(np.asarray(sessions.durations), kind="stable")
    # The last batch is filled with repetitions: every batch has one shape, and there is one compilation for all
    # groups of users.
    size = _batch_size()
    padded = np.resize(order, -(-num_sessions // size) * size)
    returns = np.zeros(num_sessions, np.float32)
    repeated = np.zeros(num_sessions, np.float32)
    liking = np.zeros(num_sessions, np.float32)
    diversity = np.zeros(num_sessions, np.float32)
    recommended = np.zeros(env.num_items, np.int64)
    for start in range(0, len(padded), size):
        rows = padded[start : start + size]
        fresh = np.arange(start, start + size) < num_sessions
        # A repetition has no duration: it counts for nothing.
        batch = FixedSessions(
            sessions.users[rows],
            sessions.keys[rows],
            jnp.where(fresh, sessions.durations[rows], 0),
        )
        end = _run_batch(env, params, policy, batch, list_length)
        kept = rows[fresh]
        returns[kept] = np.asarray(end.returns)[fresh]
        repeated[kept] = np.asarray(end.repeated)[fresh]
        liking[kept] = np.asarray(end.likes)[fresh].mean(axis=1)
        diversity[kept] = np.asarray(_list_diversity(params, end.items))[fresh]
        recommended += np.asarray(end.counts)
    return Outcome(returns, repeated, recommended, liking, diversity)
