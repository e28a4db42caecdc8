"""The window of a session: what its user has interacted with, and how they responded."""

import jax
import jax.numpy as jnp

from jaxsim.types import Histories, Observation


def signed(like: jax.Array) -> jax.Array:
    """1 for a like, -1 otherwise, int8[...]."""
    return jnp.where(like > 0, jnp.int8(1), jnp.int8(-1))


def rebuild_window(
    histories: Histories,
    user: jax.Array,
    session_items: jax.Array,
    session_likes: jax.Array,
    session_length: jax.Array,
    window: int,
) -> Observation:
    """The observation of a session from its own interactions; see `UserSimulator.window_of`.

    Args:
        histories: the users' initial histories.
        user: int32[], clipped to the users that there are.
        session_items, session_likes: int32[S], int8[S], 1 like, 0 dislike.
        session_length: int32[], how many of them count.
        window: W.
    """
    num_users, history_length = histories.items.shape
    capacity = window - history_length
    user = jnp.clip(user, 0, num_users - 1)
    start = histories.length[user]
    position = jnp.arange(window, dtype=jnp.int32)
    in_session = position >= start
    in_use = position < start + session_length
    index = jnp.clip(position - start, 0, capacity - 1)
    padding = (0, capacity)
    items = jnp.where(in_session, session_items[index], jnp.pad(histories.items[user], padding))
    likes = jnp.where(in_session, session_likes[index], jnp.pad(histories.likes[user], padding))
    return Observation(
        user=jnp.asarray(user, jnp.int32),
        items=jnp.where(in_use, items, -1),
        responses=jnp.where(in_use, signed(likes), jnp.int8(0)),
        length=start + session_length,
    )
