"""Batches processed a chunk at a time, or only where it is needed, where that is faster."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def broadcast_unbatched(axis_size: int, tree: Any, is_batched: Any) -> Any:
    """A pytree with a leading axis of `axis_size` on every leaf; leaves that are not batched are repeated."""
    return jax.tree.map(
        lambda x, batched: x if batched else jnp.broadcast_to(x, (axis_size, *jnp.shape(x))),
        tree,
        is_batched,
    )


def in_chunks(
    function: Callable[..., Any], size: int, elsewhere: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """A version of `function` that under `jax.vmap` on a CPU processes `size` rows of a batch at a time.

    The values that a whole batch gathers go to memory and back; those of a chunk stay in the CPU's cache. Other
    devices have enough bandwidth to process the whole batch at once.

    Args:
        function: takes one pytree that all rows share, then any number of pytrees that differ between rows.
        size: number of rows in a chunk.
        elsewhere: the same function in a form that is faster on other devices, for their batches.

    Returns:
        A function with the same arguments and results, for one row and under any number of `jax.vmap`.
    """
    chunked = jax.custom_batching.custom_vmap(function)

    @chunked.def_vmap
    def batched(axis_size: int, in_batched: Any, shared: Any, *rows: Any) -> tuple[Any, Any]:
        rows = broadcast_unbatched(axis_size, rows, tuple(in_batched[1:]))
        flags = jax.tree.leaves(in_batched[0])
        axes = jax.tree.unflatten(jax.tree.structure(shared), [0 if f else None for f in flags])

        def at_once(shared: Any, rows: Any, function: Callable[..., Any] = function) -> Any:
            return jax.vmap(function, (axes, *[0] * len(rows)))(shared, *rows)

        def by_chunk(shared: Any, rows: Any) -> Any:
            return jax.lax.map(lambda row: function(shared, *row), rows, batch_size=size)

        if axis_size <= size or any(flags):
            result = at_once(shared, rows)
        else:
            other = partial(at_once, function=elsewhere or function)
            result = jax.lax.platform_dependent(shared, rows, cpu=by_chunk, default=other)
        return result, jax.tree.map(lambda _: True, result)

    return chunked


def map_where(
    function: Callable[[Any], jax.Array],
    needed: jax.Array,
    rows: Any,
    size: int,
    other: jax.typing.ArrayLike,
) -> jax.Array:
    """The function of the rows that are needed, `size` of them at a time until all are done.

    It pays where few rows are needed: the time is that of the chunks that they fill.

    Args:
        function: of rows with leading axis `size`, to values of one number a row.
        needed: bool[B].
        rows: pytree, leading axis B.
        size: number of rows in a chunk.
        other: the value of the other rows, of the function's dtype.

    Returns:
        Values [B].
    """
    count = needed.shape[0]
    others = jnp.full(count, jnp.asarray(other))
    if count == 0:
        return others
    place = jnp.cumsum(needed, dtype=jnp.int32) - 1
    # Positions of the needed rows, then `count`, with room for a last chunk that is not full.
    order = jnp.full(count + size, count, jnp.int32)
    order = order.at[jnp.where(needed, place, count + size)].set(
        jnp.arange(count, dtype=jnp.int32), mode="drop"
    )
    total = needed.sum(dtype=jnp.int32)

    def chunk(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first, values = carry
        positions = jax.lax.dynamic_slice(order, (first,), (size,))
        inside = jnp.minimum(positions, count - 1)
        found = function(jax.tree.map(lambda x: x[inside], rows))
        return first + size, values.at[positions].set(found, mode="drop")

    return jax.lax.while_loop(lambda carry: carry[0] < total, chunk, (jnp.int32(0), others))[1]
