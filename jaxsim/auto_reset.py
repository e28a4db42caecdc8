"""Automatic resets that write to the sessions that end, and to no other.

A `where` between a stepped and a fresh state reads and writes all of both: f_sta's cache alone is 77 KB a
session, and only one session in 37 ends at a step. Under `jax.vmap`, `reset_where` therefore finds the sessions
that ended and writes fresh rows over theirs, a chunk of sessions at a time; what does not end is not touched, and
a fresh session is worked out only where one begins.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsim.chunking import broadcast_unbatched

# A chunk is this share of the sessions: the share that ends at a step is usually less, so one chunk does.
_CHUNKS = 32

State = Any
Start = Callable[[jax.Array, Any], State]


def reset_where(done: jax.Array, state: State, user: jax.Array, params: Any, start: Start) -> State:
    """The state, or where it is done a fresh one.

    Args:
        done: bool[].
        state: pytree of a session.
        user: int32[], whose session starts.
        params: what `start` reads.
        start: (user, params) -> fresh state; a leaf may be shorter than the state's on its first axis, and then
            only that beginning is written.

    Returns:
        The state; like `jnp.where` leaf by leaf, for one session and under any number of `jax.vmap`. Gradients do
        not pass.
    """

    def one(done: jax.Array, state: State, user: jax.Array, params: Any) -> State:
        def fresh() -> State:
            return jax.tree.map(_write_beginning, state, start(user, params))

        return jax.lax.cond(done, fresh, lambda: state)

    function = jax.custom_batching.custom_vmap(one)

    @function.def_vmap
    def batched(
        axis_size: int, in_batched: Any, done: jax.Array, state: State, user: jax.Array, params: Any
    ) -> tuple[State, Any]:
        done, state, user = broadcast_unbatched(
            axis_size, (done, state, user), tuple(in_batched[:3])
        )
        state = _reset_rows(done, state, user, params, jax.tree.leaves(in_batched[3]), start)
        return state, jax.tree.map(lambda _: True, state)

    return function(done, state, user, params)


def _write_beginning(old: jax.Array, new: jax.Array) -> jax.Array:
    if old.ndim == 0:
        return new
    return old.at[: new.shape[0]].set(new)


def _reset_rows(
    done: jax.Array,
    state: State,
    user: jax.Array,
    params: Any,
    params_batched: list[bool],
    start: Start,
) -> State:
    """`reset_where` of B sessions: bool[B], leaves [B, ...], int32[B]; some leaves of params may be batched."""
    leaves, treedef = jax.tree.flatten(params)
    axes = jax.tree.unflatten(treedef, [0 if batched else None for batched in params_batched])
    num_sessions = done.shape[0]
    size = -(-num_sessions // _CHUNKS)
    # Sessions that ended first; past them the index is out of range, and the write is dropped.
    order = jnp.nonzero(done, size=num_sessions, fill_value=num_sessions)[0]
    order = jnp.pad(order, (0, size), constant_values=num_sessions).astype(jnp.int32)
    count = done.sum(dtype=jnp.int32)

    def write_chunk(carry: tuple[jax.Array, State]) -> tuple[jax.Array, State]:
        first, state = carry
        rows = jax.lax.dynamic_slice(order, (first,), (size,))
        inside = jnp.minimum(rows, num_sessions - 1)
        own = [
            x[inside] if batched else x for x, batched in zip(leaves, params_batched, strict=True)
        ]
        fresh = jax.vmap(start, (0, axes))(user[inside], jax.tree.unflatten(treedef, own))
        return first + size, jax.tree.map(
            lambda old, new: _write_rows(old, rows, new), state, fresh
        )

    return jax.lax.while_loop(lambda carry: carry[0] < count, write_chunk, (jnp.int32(0), state))[1]


def _write_rows(old: jax.Array, rows: jax.Array, new: jax.Array) -> jax.Array:
    if old.ndim == 1:
        return old.at[rows].set(new, mode="drop")
    return old.at[rows, : new.shape[1]].set(new, mode="drop")
