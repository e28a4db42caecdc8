"""Random allowed actions, cheap enough not to change what is measured."""

import jax
import jax.numpy as jnp

Carry = tuple[jax.Array, jax.Array, jax.Array]
TRIES = (
    4  # candidates per draw: with 1,682 items and a window of 150, one draw in 15,000 needs more
)


def draw_allowed(key: jax.Array, seen: jax.Array, num_items: int) -> jax.Array:
    """An item drawn uniformly from those not seen, int32[], by rejection: the cost does not depend on N.

    Args:
        key: PRNG key.
        seen: int32[W] items that may not be drawn, -1 pads. Fewer than N distinct items, or this never ends.
        num_items: N.
    """

    def draw(carry: Carry) -> Carry:
        key, key_draw = jax.random.split(carry[0])
        candidates = jax.random.randint(key_draw, (TRIES,), 0, num_items, jnp.int32)
        in_window = (candidates[:, None] == seen[None, :]).any(axis=1)
        first = jnp.argmin(in_window)  # the first allowed one, if there is any
        return key, candidates[first], in_window[first]

    start = (key, jnp.int32(0), jnp.bool_(True))
    return jax.lax.while_loop(lambda carry: carry[2], draw, start)[1]


def draw_allowed_slate(
    key: jax.Array, seen: jax.Array, num_items: int, slate_size: int
) -> jax.Array:
    """K distinct items drawn uniformly from those not seen, int32[K], by rejection.

    Args:
        key: PRNG key.
        seen: int32[W] items that may not be drawn, -1 pads.
        num_items: N.
        slate_size: K; at least so many items are not seen, or this never ends.
    """
    count = slate_size + TRIES

    def draw(carry: Carry) -> Carry:
        key, key_draw = jax.random.split(carry[0])
        candidates = jax.random.randint(key_draw, (count,), 0, num_items, jnp.int32)
        before = jnp.tril(candidates[:, None] == candidates, -1).any(axis=1)
        refused = before | (candidates[:, None] == seen[None, :]).any(axis=1)
        first = jnp.argsort(refused, stable=True)[:slate_size]
        return key, candidates[first], refused[first].any()

    start = (key, jnp.zeros(slate_size, jnp.int32), jnp.bool_(True))
    return jax.lax.while_loop(lambda carry: carry[2], draw, start)[1]
