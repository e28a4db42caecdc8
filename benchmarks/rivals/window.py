"""The latest L interactions of a session, as a model of users may keep them in its state."""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Window:
    """The latest L interactions, left-aligned.

    Attributes:
        items: int32[L], -1 pads.
        likes: int8[L], 1 like, 0 dislike or padding.
        length: int32[], how many.
    """

    items: jax.Array
    likes: jax.Array
    length: jax.Array

    @classmethod
    def of(cls, size: int, items: jax.Array, likes: jax.Array, length: jax.Array) -> "Window":
        """The latest L = `size` of `length` interactions, left-aligned in int32[H] and int8[H]."""
        place = jnp.maximum(length - size, 0) + jnp.arange(size, dtype=jnp.int32)
        inside, place = place < length, jnp.minimum(place, items.shape[0] - 1)
        return cls(
            jnp.where(inside, items[place], -1),
            jnp.where(inside, likes[place], jnp.int8(0)),
            jnp.minimum(length, size),
        )

    def appended(self, item: jax.Array, like: jax.Array) -> "Window":
        """The window with one more interaction; if it was full, without the oldest."""
        size = self.items.shape[0]
        is_full, slot = self.length >= size, jnp.minimum(self.length, size - 1)

        def append(row: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(is_full, jnp.roll(row, -1), row).at[slot].set(new.astype(row.dtype))

        return Window(append(self.items, item), append(self.likes, like), slot + 1)
