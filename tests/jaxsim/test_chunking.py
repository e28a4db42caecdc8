"""A function of the rows where it is needed, against NumPy, for any number of rows and size of chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim.chunking import map_where


@settings(deadline=None, max_examples=10)
@given(
    needed=st.lists(st.booleans(), max_size=20),
    size=st.integers(1, 25),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_function_where_it_is_needed_and_the_other_value_elsewhere(needed, size, seed):
    a, b = np.random.default_rng(seed).integers(-9, 9, (2, len(needed))).astype(np.int32)
    needed = np.array(needed, bool)
    expected = np.where(needed, a * 3 + b, -7)
    rows = (jnp.asarray(a), jnp.asarray(b))
    triple = map_where(lambda r: r[0] * 3 + r[1], jnp.asarray(needed), rows, size, np.int32(-7))
    assert triple.dtype == np.int32
    np.testing.assert_array_equal(triple, expected)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_batch_needs_different_numbers_of_chunks(share):
    rng = np.random.default_rng(3)
    needed = rng.random((6, 40)) < share
    needed[0], needed[1] = False, True
    rows = rng.normal(size=(6, 40)).astype(np.float32)

    def one(needed, rows):
        return map_where(jnp.sin, needed, rows, 8, jnp.float32(2.0))

    expected = np.where(needed, np.sin(rows), 2.0)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(needed, rows), expected, rtol=1e-6)
    several = [one(*pair) for pair in zip(jnp.asarray(needed), jnp.asarray(rows), strict=True)]
    np.testing.assert_allclose(several, expected, rtol=1e-6)


def test_only_needed_rows_are_read():
    """The others may be anything, such as NaN."""
    rows = jnp.array([1.0, jnp.nan, 3.0, jnp.nan], jnp.float32)
    actual = map_where(jnp.square, ~jnp.isnan(rows), rows, 2, jnp.float32(0.0))
    np.testing.assert_array_equal(actual, [1, 0, 9, 0])
