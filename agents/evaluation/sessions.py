"""One fixed set of sessions, the same for every policy and seed, and what a policy earns in them.

Each user starts `repeats` sessions. The step at which they leave and the random draws of each step are made once
per session. So two policies differ only by what they recommend, and their difference is paired.

With `departure="fitted"` the step at which a user leaves depends on the recommendations. Then each session and
step has one uniform number instead, drawn from the session's key and the step, and the user leaves at the first
step at which it falls below the probability of leaving. It is the same number for every policy. So it is with
`visits=True`, where a session of the evaluation is a whole life, until the user does not return. Whether and when
they return is also drawn from the life's key and the step.

With slates a policy shows K items at a step. A like is then a slate of which an item was chosen.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from agents.algorithms.policy import EvaluatedPolicy, Simulator, single_of
from agents.algorithms.rollout import slate_size_of
from agents.evaluation.visits import VisitCounts, count_visits, joined, no_visits
from jaxsim import COSINE_UNIT, NO_COSINE, EnvParams, Observation, SlateSimulator

SESSIONS_PER_USER = 4
LIST_LENGTH = 10
# Sessions that run at once. On a CPU those are fastest whose arrays with a number for each item fit its caches: on
# two cores 128 with MovieLens 100K, and 16 with 15,000 items, where the oracle takes a third of the time of 128.
_CPU_BATCH = (16, 128)
_CPU_NUMBERS = 1 << 18
_OTHER_BATCH = (64, 1024)
_OTHER_NUMBERS = 1 << 26


class FixedSessions(NamedTuple):
    """The sessions of an evaluation, M of them.

    Attributes:
        users: int32[M].
        keys: PRNG keys [M] of the environment's and the policies' random draws.
        durations: int32[M], steps until the user leaves or the session is cut; until it is cut, if its end
            depends on what is recommended.
    """

    users: jax.Array
    keys: jax.Array
    durations: jax.Array


class Outcome(NamedTuple):
    """The results of a policy in M fixed sessions.

    Attributes:
        returns: float32[M], undiscounted: likes, or under another `reward` of the environment the sum of it.
        repeated: float32[M], number of likes for items that the window already held.
        recommended: int32[N], how often each item was recommended, or shown in a slate.
        liking: float32[M], share of likes at the first LIST_LENGTH steps when the session cannot end and no item
            may be recommended twice.
        diversity: float32[M], mean of 1 - cos(E_pos) over the pairs of these items; with slates over the pairs
            within each slate of these steps, then over slates. NaN if no pair has keywords.
        steps: int32[M], steps until the user left or the session was cut, if its end depends on what is
            recommended; otherwise None, because they are the durations of the fixed sessions.
        visits: counts of the M lives; None if users do not return.
        liked: float32[M], number of likes under another reward; otherwise None, because the returns are likes.
    """

    returns: np.ndarray
    repeated: np.ndarray
    recommended: np.ndarray
    liking: np.ndarray
    diversity: np.ndarray
    steps: np.ndarray | None = None
    visits: VisitCounts | None = None
    liked: np.ndarray | None = None

    @property
    def likes(self) -> np.ndarray:
        """Number of likes of each session, float32[M]."""
        return self.returns if self.liked is None else self.liked


def fixed_sessions(
    key: jax.Array, env: Simulator, params: EnvParams, repeats: int = SESSIONS_PER_USER
) -> FixedSessions:
    """`repeats` sessions of each session user of the params, with the step at which the user leaves."""
    users = jnp.repeat(params.session_users, repeats)
    key_sessions, key_departures = jax.random.split(key)
    longest = jnp.minimum(params.max_steps_in_episode, env.session_capacity)
    if env.end_depends_on_items:
        durations = jnp.full(users.shape, longest, jnp.int32)
        return FixedSessions(users, jax.random.split(key_sessions, len(users)), durations)
    # The number of steps until a departure of probability p after each is geometric.
    uniform = jax.random.uniform(key_departures, users.shape, jnp.float32, minval=1e-12)
    steps = jnp.ceil(jnp.log(uniform) / jnp.log1p(-params.departure_probability))
    durations = jnp.clip(steps, 1, longest).astype(jnp.int32)
    return FixedSessions(users, jax.random.split(key_sessions, len(users)), durations)


@struct.dataclass
class _Batch:
    """B sessions in progress, all at the same time step; items and likes are those of the first L steps.

    The items of a step are one item or K.

    `alive` says which users have not left yet, and `steps` counts their steps; both are None if the end does not
    depend on what is recommended, because the sessions' durations say it. `visits` counts if users return. `liked`
    counts likes; it is None if the returns do.
    """

    time: jax.Array
    memory: Any
    obs: Observation
    state: Any
    returns: jax.Array
    repeated: jax.Array
    counts: jax.Array
    items: jax.Array
    likes: jax.Array
    alive: jax.Array | None
    steps: jax.Array | None
    visits: VisitCounts | None
    liked: jax.Array | None


@partial(jax.jit, static_argnames=("env", "list_length"))
def _run_batch(
    env: Simulator,
    params: EnvParams,
    policy: EvaluatedPolicy,
    sessions: FixedSessions,
    list_length: int,
) -> _Batch:
    """Run B sessions until the longest ends, and for L steps at least."""
    if not env.visits:
        params = params.replace(departure_probability=jnp.float32(0.0))
    last = jnp.maximum(sessions.durations.max(), list_length)

    def goes_on(batch: _Batch) -> jax.Array:
        if batch.alive is None:
            return batch.time < last
        anyone = (batch.alive & (batch.time < sessions.durations)).any()
        return anyone | (batch.time < list_length)

    return jax.lax.while_loop(
        goes_on,
        lambda batch: _step_batch(env, params, policy, sessions, batch),
        _start_batch(env, params, policy, sessions, list_length),
    )


def _start_batch(
    env: Simulator,
    params: EnvParams,
    policy: EvaluatedPolicy,
    sessions: FixedSessions,
    list_length: int,
) -> _Batch:
    num_sessions = len(sessions.users)
    reacts = env.end_depends_on_items
    obs, state = jax.vmap(env.reset_user, (0, None, 0))(sessions.users, params, sessions.keys)
    return _Batch(
        time=jnp.int32(0),
        memory=jax.vmap(policy.begin, (None, 0, None))(env, obs, params),
        obs=obs,
        state=state,
        returns=jnp.zeros(num_sessions, jnp.float32),
        repeated=jnp.zeros(num_sessions, jnp.float32),
        counts=jnp.zeros(env.num_items, jnp.int32),
        items=jnp.zeros((num_sessions, list_length, *_action_shape(env)), jnp.int32),
        likes=jnp.zeros((num_sessions, list_length), jnp.int8),
        alive=jnp.ones(num_sessions, bool) if reacts else None,
        steps=jnp.zeros(num_sessions, jnp.int32) if reacts else None,
        visits=no_visits(num_sessions) if env.visits else None,
        liked=None if env.reward == "like" else jnp.zeros(num_sessions, jnp.float32),
    )


def _action_shape(env: Simulator) -> tuple[int, ...]:
    """() for one item, (K,) for a slate."""
    size = slate_size_of(env)
    return () if size is None else (size,)


def _step_batch(
    env: Simulator,
    params: EnvParams,
    policy: EvaluatedPolicy,
    sessions: FixedSessions,
    batch: _Batch,
) -> _Batch:
    """One time step of all sessions. Only sessions that have not ended count."""

    def step(
        key: jax.Array, memory: Any, obs: Observation, state: Any
    ) -> tuple[jax.Array, jax.Array, jax.Array, dict[str, Any], jax.Array, Any, Observation, Any]:
        key_env, key_policy = jax.random.split(jax.random.fold_in(key, batch.time))
        item = policy.act(key_policy, memory, env, obs, state, params)
        before = obs.items
        obs, state, reward, left, info = env.step_env(key_env, state, item, params)
        liked = item[info["place"]] if item.ndim else item  # read only if something is liked
        in_window = (before == liked).any()
        memory = policy.remember(memory, item, info["response"].like, params)
        return item, in_window, reward, info, left, memory, obs, state

    item, in_window, reward, info, left, memory, obs, state = jax.vmap(step)(
        sessions.keys, batch.memory, batch.obs, batch.state
    )
    like = info["response"].like
    alive = batch.time < sessions.durations
    if batch.alive is not None:
        alive &= batch.alive
    shown = jnp.where(alive[:, None] if item.ndim > 1 else alive, item, env.num_items)
    return _Batch(
        time=batch.time + 1,
        memory=memory,
        obs=obs,
        state=state,
        # Under "soft" the reward "like" is a probability, but likes are counted.
        returns=batch.returns + jnp.where(alive, like if env.reward == "like" else reward, 0),
        repeated=batch.repeated + jnp.where(alive & in_window, like, 0),
        counts=batch.counts.at[shown].add(1, mode="drop"),
        # After L steps the column is out of range, and the write is dropped.
        items=batch.items.at[:, batch.time].set(item, mode="drop"),
        likes=batch.likes.at[:, batch.time].set(like, mode="drop"),
        alive=None if batch.alive is None else alive & ~left,
        steps=None if batch.steps is None else batch.steps + alive,
        visits=count_visits(batch.visits, info, alive, single_of(env).horizon_days),
        liked=None if batch.liked is None else batch.liked + jnp.where(alive, like, 0),
    )


def _diversity(params: EnvParams, items: jax.Array) -> np.ndarray:
    """The diversity of lists int32[B, L], or the mean one of lists of slates int32[B, L, K]; float32[B]."""
    if items.ndim == 2:
        return np.asarray(_list_diversity(params, items))
    of_slates = _list_diversity(params, items.reshape(-1, items.shape[-1]))
    by_list = np.asarray(of_slates).reshape(items.shape[:2])
    known = ~np.isnan(by_list)
    total, count = np.where(known, by_list, 0.0).sum(axis=1), known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


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
    env: Simulator, params: EnvParams, policy: EvaluatedPolicy, sessions: FixedSessions
) -> Outcome:
    """Let a policy recommend in the fixed sessions.

    Liking% and diversity are about distinct items: if the environment allows repeats, the lists of items come from
    a second run that masks repeats.
    """
    outcome = _run_all(env, params, policy, sessions)
    if env.repeats == "mask":
        return outcome
    masked = _without_repeats(env)
    lists = sessions._replace(durations=jnp.ones_like(sessions.durations))
    distinct = _run_all(masked, params, policy, lists)
    return outcome._replace(liking=distinct.liking, diversity=distinct.diversity)


def _without_repeats(env: Simulator) -> Simulator:
    """The same environment with `repeats="mask"`."""
    if isinstance(env, SlateSimulator):
        return dataclasses.replace(env, single=dataclasses.replace(env.single, repeats="mask"))
    return dataclasses.replace(env, repeats="mask")


def batch_size(num_items: int) -> int:
    """How many sessions run at once, so that time and memory stay bounded with any catalogue."""
    on_cpu = jax.default_backend() == "cpu"
    numbers = _CPU_NUMBERS if on_cpu else _OTHER_NUMBERS
    smallest, largest = _CPU_BATCH if on_cpu else _OTHER_BATCH
    fitting = 1 << max(numbers // num_items, 1).bit_length() - 1
    return min(max(fitting, smallest), largest)


def in_batches(
    sessions: FixedSessions, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, FixedSessions]]:
    """Batches of `size` sessions of similar durations.

    Yields:
        The sessions of a batch int32[B], bool[B], which of them count, and the sessions themselves.
    """
    num_sessions = len(sessions.users)
    order = np.argsort(np.asarray(sessions.durations), kind="stable")
    # The last batch is filled up with repeated sessions: all batches of all groups of users have one shape, and so
    # need one compilation.
    padded = np.resize(order, -(-num_sessions // size) * size)
    for start in range(0, len(padded), size):
        rows = padded[start : start + size]
        is_first = np.arange(start, start + size) < num_sessions
        # A repeated session has duration 0, so that nothing of it counts.
        batch = FixedSessions(
            sessions.users[rows],
            sessions.keys[rows],
            jnp.where(is_first, sessions.durations[rows], 0),
        )
        yield rows, is_first, batch


def _run_all(
    env: Simulator, params: EnvParams, policy: EvaluatedPolicy, sessions: FixedSessions
) -> Outcome:
    """Run in batches, each until its longest session ends."""
    num_sessions = len(sessions.users)
    list_length = min(LIST_LENGTH, env.session_capacity)
    returns = np.zeros(num_sessions, np.float32)
    repeated = np.zeros(num_sessions, np.float32)
    liking = np.zeros(num_sessions, np.float32)
    diversity = np.zeros(num_sessions, np.float32)
    steps = np.zeros(num_sessions, np.int32) if env.end_depends_on_items else None
    visits = []
    liked = None if env.reward == "like" else np.zeros(num_sessions, np.float32)
    recommended = np.zeros(env.num_items, np.int64)
    for rows, is_first, batch in in_batches(sessions, batch_size(env.num_items)):
        end = _run_batch(env, params, policy, batch, list_length)
        first = rows[is_first]
        returns[first] = np.asarray(end.returns)[is_first]
        repeated[first] = np.asarray(end.repeated)[is_first]
        liking[first] = np.asarray(end.likes)[is_first].mean(axis=1)
        diversity[first] = _diversity(params, end.items)[is_first]
        recommended += np.asarray(end.counts)
        if steps is not None:
            steps[first] = np.asarray(end.steps)[is_first]
        if end.visits is not None:
            visits.append((rows, is_first, end.visits))
        if liked is not None:
            liked[first] = np.asarray(end.liked)[is_first]
    lives = joined(visits, num_sessions)
    return Outcome(returns, repeated, recommended, liking, diversity, steps, lives, liked)
