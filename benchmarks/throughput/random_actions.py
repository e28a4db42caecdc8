"""Random allowed actions, cheap enough not to be what is measured."""

import jax
import jax.numpy as jnp

Carry = tuple[jax.Array, jax.Array, jax.Array]
TRIES = 4  # candidates drawn at once: of 1,682 items and a window of 150, one in 15,000 draws needs more


def draw_allowed(key: jax.Array, seen: jax.Array, num_items: int) -> jax.Array:
    """An item drawn uniformly from those not seen, int32[], by rejection: N does not matter.

    Args:
        key: PRNG key.
        seen: int32[W] items that may not be drawn, -1 pads; fewer than N distinct ones, or this never ends.
        num_items: N.
    """

    def draw(carry: Carry) -> Carry:
        key, key_draw = jax.random.split(carry[0])
        candidates = jax.random.randint(key_draw, (TRIES,), 0, num_items, jnp.int32)
        in_window = (candidates[:, None] == seen[None, :]).any(axis=1)
        first = jnp.argmin(in_window)  # the first that is allowed, if any is
        return key, candidates[first], in_window[first]

    start = (key, jnp.int32(0), jnp.bool_(True))
    return jax.lax.while_loop(lambda carry: carry[2], draw, start)[1]
