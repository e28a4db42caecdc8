"""Baselines that show slates, and what they earn in fixed sessions.

The sessions are those of `agents.evaluation.sessions`: users, departures and random draws are the same for every
policy, so differences between policies are paired.
"""

from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from agents.algorithms.policy import NetworkPolicy
from agents.evaluation.baselines import FixedRanking, baselines
from agents.evaluation.sessions import FixedSessions, in_batches
from jaxsim import Dataset, EnvParams, Observation, SlateSimulator


class SlatePolicy(Protocol):
    """What evaluation asks of a policy. Policies are pytrees with a static name, as other baselines are."""

    def act(
        self, key: jax.Array, env: SlateSimulator, obs: Any, state: Any, params: EnvParams
    ) -> jax.Array:
        """The slate to show in one session, int32[K]."""


@struct.dataclass
class RandomSlate:
    """K allowed items, uniformly, in random order."""

    name: str = struct.field(pytree_node=False, default="random")

    def act(
        self, key: jax.Array, env: SlateSimulator, obs: Any, state: Any, params: EnvParams
    ) -> jax.Array:
        """See `SlatePolicy`."""
        return env.best_slate(jax.random.uniform(key, (env.num_items,), jnp.float32), obs)

    def propensity(
        self, env: SlateSimulator, obs: Any, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """The probability of this slate in this order, float32[]."""
        left = env.action_mask(obs, params).sum(dtype=jnp.int32) - jnp.arange(env.slate_size)
        return jnp.prod(1.0 / left.astype(jnp.float32))


@struct.dataclass
class RankedSlate:
    """The allowed items with the highest scores; the scores are the same for every user.

    Attributes:
        scores: float32[N].
    """

    scores: jax.Array
    name: str = struct.field(pytree_node=False, default="ranked")

    def act(
        self, key: jax.Array, env: SlateSimulator, obs: Any, state: Any, params: EnvParams
    ) -> jax.Array:
        """See `SlatePolicy`."""
        return env.best_slate(self.scores, obs)


@struct.dataclass
class OracleSlate:
    """The slate with the highest probability that an item is chosen, which no real recommender can know."""

    name: str = struct.field(pytree_node=False, default="oracle")

    def act(
        self, key: jax.Array, env: SlateSimulator, obs: Any, state: Any, params: EnvParams
    ) -> jax.Array:
        """See `SlatePolicy`."""
        return env.best_slate(env.scores(state, params), obs)


@struct.dataclass
class LearnedSlate:
    """The allowed items with the highest scores of a network: the likeliest slate of the policy that was trained.

    Attributes:
        policy: of `Algorithm.policy_of`.
    """

    policy: NetworkPolicy
    name: str = struct.field(pytree_node=False, default="learned")

    def act(
        self, key: jax.Array, env: SlateSimulator, obs: Any, state: Any, params: EnvParams
    ) -> jax.Array:
        """See `SlatePolicy`."""
        return env.best_slate(self.policy.scores(obs), obs)


def slate_baselines(
    dataset: Dataset, env: SlateSimulator, params: EnvParams
) -> dict[str, SlatePolicy]:
    """random, popular, like_rate, static_best and oracle; the scores of the rankings are those of single items."""
    policies: dict[str, SlatePolicy] = {
        name: RankedSlate(policy.scores)
        for name, policy in baselines(dataset, env.single, params).items()
        if isinstance(policy, FixedRanking)
    }
    return {"random": RandomSlate(), **policies, "oracle": OracleSlate()}


class SlateOutcome(NamedTuple):
    """The results of a policy in M fixed sessions.

    Attributes:
        returns: float32[M], number of slates of which an item was chosen.
        places: int64[K + 1], how often each place was chosen, then none.
        shown: int64[N], how often each item was shown.
    """

    returns: np.ndarray
    places: np.ndarray
    shown: np.ndarray


def run_slates(
    env: SlateSimulator, params: EnvParams, policy: SlatePolicy, sessions: FixedSessions
) -> SlateOutcome:
    """Let a policy show slates in the fixed sessions (`fixed_sessions`)."""
    returns = np.zeros(len(sessions.users), np.float32)
    places, shown = np.zeros(env.slate_size + 1, np.int64), np.zeros(env.num_items, np.int64)
    for rows, is_first, batch in in_batches(sessions):
        end = _run_batch(env, params, policy, batch)
        returns[rows[is_first]] = np.asarray(end.returns)[is_first]
        places += np.asarray(end.places)
        shown += np.asarray(end.shown)
    return SlateOutcome(returns, places, shown)


@struct.dataclass
class _Batch:
    """B sessions in progress, all at the same time step; `alive` says which users have not left."""

    time: jax.Array
    alive: jax.Array
    obs: Observation
    state: Any
    returns: jax.Array
    places: jax.Array
    shown: jax.Array


@partial(jax.jit, static_argnames="env")
def _run_batch(
    env: SlateSimulator, params: EnvParams, policy: SlatePolicy, sessions: FixedSessions
) -> _Batch:
    """Run B sessions until the longest ends."""
    if not env.visits:
        params = params.replace(departure_probability=jnp.float32(0.0))
    obs, state = jax.vmap(env.reset_user, (0, None, 0))(sessions.users, params, sessions.keys)
    start = _Batch(
        time=jnp.int32(0),
        alive=jnp.ones(len(sessions.users), bool),
        obs=obs,
        state=state,
        returns=jnp.zeros(len(sessions.users), jnp.float32),
        places=jnp.zeros(env.slate_size + 1, jnp.int32),
        shown=jnp.zeros(env.num_items, jnp.int32),
    )

    def step(
        key: jax.Array, time: jax.Array, obs: Observation, state: Any
    ) -> tuple[Observation, Any, jax.Array, jax.Array, jax.Array]:
        key_env, key_policy = jax.random.split(jax.random.fold_in(key, time))
        slate = policy.act(key_policy, env, obs, state, params)
        obs, state, _, left, info = env.step_env(key_env, state, slate, params)
        return obs, state, slate, info["place"], left

    def step_all(batch: _Batch) -> _Batch:
        obs, state, slate, place, left = jax.vmap(step, (0, None, 0, 0))(
            sessions.keys, batch.time, batch.obs, batch.state
        )
        alive = batch.alive & (batch.time < sessions.durations)
        column = jnp.where(place < 0, env.slate_size, place)
        counted = jnp.where(alive, column, env.slate_size + 1)  # out of range, and so dropped
        items = jnp.where(alive[:, None], slate, env.num_items)
        return _Batch(
            time=batch.time + 1,
            alive=alive & ~left,
            obs=obs,
            state=state,
            returns=batch.returns + (alive & (place >= 0)),
            places=batch.places.at[counted].add(1, mode="drop"),
            shown=batch.shown.at[items].add(1, mode="drop"),
        )

    return jax.lax.while_loop(
        lambda batch: (batch.alive & (batch.time < sessions.durations)).any(), step_all, start
    )
