"""Automatic resets that write only to the sessions that end.

A `where` between the stepped and the fresh states would read and write all of both. f_sta's cache alone takes 77
KB for each session, and only one session in 37 ends at a step. Under `jax.vmap`, `reset_where` therefore finds the
sessions that ended and overwrites their rows with fresh ones, a chunk of sessions at a time. It does not touch the
other sessions, and it computes a fresh state only for a session that begins.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsim.chunking import broadcast_unbatched

# A chunk holds one in so many sessions. Usually fewer end at a step, so that one chunk is enough.
_CHUNKS = 32

State = Any
Start = Callable[[Any, Any], State]


def reset_where(done: jax.Array, state: State, arrival: Any, params: Any, start: Start) -> State:
    """A fresh state if the session is done, otherwise the state as it is.

    Args:
        done: bool[], whether the session ended.
        state: pytree of one session.
        arrival: pytree of what begins the next session, such as its user int32[].
        params: the params that `start` reads.
        start: (arrival, params) -> fresh state. A leaf may be shorter than the state's on its first axis; then
            only the beginning of the state's leaf is overwritten.

    Returns:
        The state, equal to `jnp.where` leaf by leaf, for one session and under any number of `jax.vmap`. Gradients
        through it are zero.
    """
    # JAX cannot differentiate a function with a batching rule of its own, so no tangent may reach it.
    state, params = jax.lax.stop_gradient((state, params))

    def reset_one(done: jax.Array, state: State, arrival: Any, params: Any) -> State:
        def fresh() -> State:
            return jax.tree.map(_write_beginning, state, start(arrival, params))

        return jax.lax.cond(done, fresh, lambda: state)

    reset = jax.custom_batching.custom_vmap(reset_one)

    @reset.def_vmap
    def reset_batch(
        axis_size: int, in_batched: Any, done: jax.Array, state: State, arrival: Any, params: Any
    ) -> tuple[State, Any]:
        done, state, arrival = broadcast_unbatched(
            axis_size, (done, state, arrival), tuple(in_batched[:3])
        )
        state = _reset_rows(done, state, arrival, params, jax.tree.leaves(in_batched[3]), start)
        return state, jax.tree.map(lambda _: True, state)

    return reset(done, state, arrival, params)


def _write_beginning(old: jax.Array, new: jax.Array) -> jax.Array:
    if old.ndim == 0:
        return new
    return old.at[: new.shape[0]].set(new)


def _reset_rows(
    done: jax.Array,
    state: State,
    arrival: Any,
    params: Any,
    params_batched: list[bool],
    start: Start,
) -> State:
    """`reset_where` for B sessions: bool[B], leaves [B, ...]; some leaves of params may be batched, too."""
    leaves, treedef = jax.tree.flatten(params)
    axes = jax.tree.unflatten(treedef, [0 if batched else None for batched in params_batched])
    num_sessions = done.shape[0]
    size = -(-num_sessions // _CHUNKS)
    # The indices of the sessions that ended come first. The rest are out of range, so that JAX drops their writes.
    order = jnp.nonzero(done, size=num_sessions, fill_value=num_sessions)[0]
    order = jnp.pad(order, (0, size), constant_values=num_sessions).astype(jnp.int32)
    count = done.sum(dtype=jnp.int32)

    def write_chunk(carry: tuple[jax.Array, State]) -> tuple[jax.Array, State]:
        first, state = carry
        rows = jax.lax.dynamic_slice(order, (first,), (size,))
        in_range = jnp.minimum(rows, num_sessions - 1)
        own = [
            x[in_range] if batched else x for x, batched in zip(leaves, params_batched, strict=True)
        ]
        begins = jax.tree.map(lambda x: x[in_range], arrival)
        fresh = jax.vmap(start, (0, axes))(begins, jax.tree.unflatten(treedef, own))
        return first + size, jax.tree.map(
            lambda old, new: _write_rows(old, rows, new), state, fresh
        )

    return jax.lax.while_loop(lambda carry: carry[0] < count, write_chunk, (jnp.int32(0), state))[1]


def _write_rows(old: jax.Array, rows: jax.Array, new: jax.Array) -> jax.Array:
    if old.ndim == 1:
        return old.at[rows].set(new, mode="drop")
    return old.at[rows, : new.shape[1]].set(new, mode="drop")
