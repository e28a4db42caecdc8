"""Windows: the initial history, then the session so far, and the items that are not in them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsim.types import Histories, Observation


class SessionSoFar(NamedTuple):
    """The interactions of a session: items int32[S], likes int8[S] (1 like, 0 dislike), how many count int32[]."""

    items: jax.Array
    likes: jax.Array
    length: jax.Array


def signed(like: jax.Array) -> jax.Array:
    """1 for a like, -1 otherwise, int8[...]."""
    return jnp.where(like > 0, jnp.int8(1), jnp.int8(-1))


def rebuilt(
    histories: Histories, user: jax.Array, session: SessionSoFar, capacity: int
) -> Observation:
    """The observation of a user int32[] after a session of at most `capacity` interactions."""
    start = histories.length[user]
    window = histories.items.shape[1] + capacity
    position = jnp.arange(window, dtype=jnp.int32)
    in_session = position >= start
    in_use = position < start + session.length
    index = jnp.clip(position - start, 0, capacity - 1)
    padding = (0, capacity)
    items = jnp.where(in_session, session.items[index], jnp.pad(histories.items[user], padding))
    likes = jnp.where(in_session, session.likes[index], jnp.pad(histories.likes[user], padding))
    return Observation(
        user=jnp.asarray(user, jnp.int32),
        items=jnp.where(in_use, items, -1),
        responses=jnp.where(in_use, signed(likes), jnp.int8(0)),
        length=start + session.length,
    )


def all_items_but(items: jax.Array, num_items: int) -> jax.Array:
    """bool[N], False for these items int32[M]; -1 pads."""
    places = jnp.where(items >= 0, items, num_items)
    return jnp.ones(num_items, bool).at[places].set(False, mode="drop")
