"""A target network of which only some rows are updated in a step, with the same values as if all were.

A soft update moves each number t of the target network by a share tau of the way to the online network's o. While
a row of a table has no gradient, o does not change, and k updates leave

    t = o + (1 - tau)^k (t - o)

So a row is brought up to date when it is needed, from the number of the update at which it was last. The cost of a
gradient step does not grow with the catalogue.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from agents.algorithms.rows import Rows, is_choice_table, take


@struct.dataclass
class TargetClock:
    """When the rows of the target network's tables were up to date.

    Attributes:
        now: int32[], number of soft updates so far.
        choices: int32[N], the update after which each row of the tables by which items are scored was up to date.
        windows: int32[N], the same of the tables that the encoder reads.
    """

    now: jax.Array
    choices: jax.Array
    windows: jax.Array


def start_clock(num_items: int) -> TargetClock:
    """The clock before the first update: all rows are up to date."""
    zeros = jnp.zeros(num_items, jnp.int32)
    return TargetClock(jnp.int32(0), zeros, zeros)


def take_target(
    target: Any, online: Any, clock: TargetClock, rows: Rows, tau: float | jax.Array
) -> Any:
    """The rows of the target network, up to date.

    Args:
        target: variables of the target network.
        online: the same rows of the online network.
        clock: when the target's rows were up to date.
        rows: which rows.
        tau: share of the way that an update moves.
    """

    def part(path: Any, old: jax.Array, new: jax.Array) -> jax.Array:
        chosen = rows.of(path)
        if chosen is None:
            return old
        stamps = clock.choices if is_choice_table(path) else clock.windows
        missed = clock.now - jnp.take(stamps, chosen, mode="clip")
        kept = (1.0 - tau) ** missed.astype(jnp.float32)
        return new + kept.reshape(-1, *[1] * (old.ndim - 1)) * (old - new)

    return jax.tree_util.tree_map_with_path(part, take(target, rows), online)


def tick(clock: TargetClock, rows: Rows) -> TargetClock:
    """The clock after an update of these rows."""
    now = clock.now + 1
    return TargetClock(
        now=now,
        choices=clock.choices.at[rows.choices].set(now, mode="drop"),
        windows=clock.windows.at[rows.windows].set(now, mode="drop"),
    )
