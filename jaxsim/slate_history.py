"""What a record keeps of the steps of a session with slates, and the observations that are rebuilt from it.

A step is recorded as its slate int32[K] and what of it entered the history, int8[K]: 5 K bytes. An observation of
the same session has (5 W + 4 S K) bytes, with a window of W and S steps.
"""

import jax
import jax.numpy as jnp

from jaxsim.environment import UserSimulator
from jaxsim.slate_types import SlateObservation
from jaxsim.types import EnvParams


class RecordedSlates:
    """The methods of `jaxsim.SlateSimulator` for a replay buffer that stores no observations."""

    single: UserSimulator
    session_capacity: int

    def entries_of(
        self, before: SlateObservation, after: SlateObservation, slate: jax.Array
    ) -> jax.Array:
        """What of a slate entered the history at a step, int8[K]: 1 as a like, -1 as a dislike, 0 not at all.

        Args:
            before, after: the observations around the step, before an automatic reset.
            slate: int32[K].
        """
        position = jnp.arange(after.items.shape[0], dtype=jnp.int32)
        is_new = (position >= before.length) & (position < after.length)
        is_entry = is_new[:, None] & (after.items[:, None] == slate)
        return jnp.where(is_entry, after.responses[:, None], 0).sum(axis=0, dtype=jnp.int8)

    def window_of(
        self,
        user: jax.Array,
        session_items: jax.Array,
        session_likes: jax.Array,
        session_length: jax.Array,
        params: EnvParams,
    ) -> SlateObservation:
        """The observation at one point of a session, rebuilt from its steps, as `UserSimulator.window_of`.

        Args:
            user: int32[].
            session_items: int32[S, K], the slates of the session, all of them valid; S = session_capacity.
            session_likes: int8[S, K], what of them entered the history, of `entries_of`.
            session_length: int32[], how many steps precede the observation.
            params: of `jaxsim.make`.
        """
        precedes = jnp.arange(self.session_capacity, dtype=jnp.int32) < session_length
        entered = jnp.where(precedes[:, None], session_likes, 0)
        is_entry = entered != 0
        capacity = self.single.session_capacity
        # Entries move to the front; all others are out of range, and so dropped.
        slot = jnp.where(is_entry, _before(is_entry), capacity)
        items = jnp.zeros(capacity, jnp.int32).at[slot].set(session_items, mode="drop")
        likes = jnp.zeros(capacity, jnp.int8).at[slot].set(entered > 0, mode="drop")
        count = is_entry.sum(dtype=jnp.int32)
        obs = self.single.window_of(user, items, likes, count, params)
        shown = jnp.where(precedes[:, None], session_items, -1)
        return SlateObservation(obs.user, obs.items, obs.responses, obs.length, shown)


def _before(is_entry: jax.Array) -> jax.Array:
    """How many True precede each place of bool[S, K], in the order of steps, then of places; int32[S, K]."""
    # A product instead of a cumulative sum over S K places, which XLA computes in (S K)^2 steps on a CPU.
    steps, places = is_entry.shape
    counts = is_entry.astype(jnp.float32)
    earlier_steps = jnp.tri(steps, k=-1, dtype=jnp.float32) @ counts.sum(axis=1)
    earlier_places = counts @ jnp.tri(places, k=-1, dtype=jnp.float32).T
    return (earlier_steps[:, None] + earlier_places).astype(jnp.int32)
