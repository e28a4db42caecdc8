"""Learning on a few rows of the tables of items, so that its cost does not grow with the catalogue.

A network has tables with a row for each item: those by which items are scored, and those that the encoder reads
for the window. An iteration over candidates needs few of these rows: the candidates, and the items of its windows.
`take` makes a network with these rows alone. It is trained as any other, and `put` writes the rows back. All other
rows keep their values and their optimiser's moments: as in TensorFlow's LazyAdam and PyTorch's SparseAdam, moments
decay only when an item has a gradient.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from agents.algorithms.candidates import distinct, places_of
from agents.algorithms.networks import CHOICE_TABLES, WINDOW_TABLES
from jaxsim import Observation


class TableSizes(NamedTuple):
    """Number of rows of a network's tables.

    Attributes:
        choices: of the tables by which items are scored.
        windows: of the tables that the encoder reads.
    """

    choices: int
    windows: int


@struct.dataclass
class Rows:
    """Rows of the tables, as numbers of items; N pads.

    Attributes:
        choices: int32[C], rows of the tables by which items are scored.
        windows: int32[K], rows of those that the encoder reads; None for all N.
    """

    choices: jax.Array
    windows: jax.Array | None = None

    def of(self, path: Any) -> jax.Array | None:
        """The rows of the leaf of a network or its optimiser at a path; None for all."""
        if is_choice_table(path):
            return self.choices
        return self.windows if _name(path) in WINDOW_TABLES else None


def is_choice_table(path: Any) -> bool:
    """Whether a leaf of a network or its optimiser is a table by which items are scored."""
    return _name(path) in CHOICE_TABLES


def _name(path: Any) -> str | None:
    return getattr(path[-1], "key", None)


def take(tree: Any, rows: Rows) -> Any:
    """A tree of variables, or of an optimiser's state, with these rows of the tables alone."""

    def part(path: Any, leaf: jax.Array) -> jax.Array:
        chosen = rows.of(path)
        return leaf if chosen is None else jnp.take(leaf, chosen, axis=0, mode="clip")

    return jax.tree_util.tree_map_with_path(part, tree)


def put(tree: Any, local: Any, rows: Rows) -> Any:
    """The inverse of `take`: a tree with these rows, and everything that is no table, from `local`."""

    def whole(path: Any, leaf: jax.Array, part: jax.Array) -> jax.Array:
        chosen = rows.of(path)
        if chosen is None:
            return part
        return leaf.at[chosen].set(part, mode="drop")

    return jax.tree_util.tree_map_with_path(whole, tree, local)


def room_of_windows(count: int, obs: Observation) -> int:
    """Number of rows for the items of `count` windows, such as those of `obs`.

    Windows are half full on average, and share items. If there is no row for an item, it leaves the windows.
    """
    return count * obs.items.shape[-1] // 2


def window_rows(obs: Observation, num_items: int, count: int, axis_name: str | None) -> jax.Array:
    """The items of all windows, the same on all devices, int32[K].

    Args:
        obs: observations with any leading dimensions, of this device's sessions.
        num_items: N.
        count: K; N if that is less.
        axis_name: mesh axis of the sessions, if any.
    """
    items = obs.items.ravel()
    if axis_name is not None:
        items = jax.lax.all_gather(items, axis_name, tiled=True)
    return distinct(items, num_items, min(num_items, count))


def in_rows(obs: Observation, rows: jax.Array, num_items: int) -> Observation:
    """Observations whose items are places in `rows` int32[K]. Items that have no row leave the window."""
    place = places_of(rows, num_items)[jnp.maximum(obs.items, 0)]
    present = (obs.items >= 0) & (place < rows.shape[0])
    return replace(
        obs,
        items=jnp.where(present, place, -1),
        responses=jnp.where(present, obs.responses, 0),
    )
