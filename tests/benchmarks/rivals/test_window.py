"""The window of a session."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.rivals.window import Window


@pytest.mark.parametrize("length", [0, 2, 3, 5, 6])
def test_a_window_holds_the_latest_and_appending_is_the_same_as_starting_later(length):
    items = np.where(np.arange(6) < length, np.arange(10, 16), -1).astype(np.int32)
    likes = np.where(items >= 0, items % 2, 0).astype(np.int8)
    window = jax.jit(Window.of, static_argnums=0)(3, items, likes, jnp.int32(length))
    expected = items[:length][-3:]
    assert window.length == len(expected)
    np.testing.assert_array_equal(window.items[: len(expected)], expected)
    np.testing.assert_array_equal(window.items[len(expected) :], -1)
    np.testing.assert_array_equal(window.likes, np.where(window.items >= 0, window.items % 2, 0))
    steps = Window.of(3, jnp.full(1, -1, jnp.int32), jnp.zeros(1, jnp.int8), jnp.int32(0))
    for item in items[:length]:
        steps = steps.appended(jnp.int32(item), jnp.int8(item % 2))
    jax.tree.map(np.testing.assert_array_equal, steps, window)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.dtype, b.dtype), steps, window)
