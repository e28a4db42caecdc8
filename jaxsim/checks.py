"""Checks of what callers pass: of types always, of values where they are known, outside jit.

Inside jit values are not known; there the result is defined instead (see `UserSimulator`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.errors import InputError


def known(*values: Any) -> bool:
    """Whether all of these are concrete, not traced by jit, vmap or scan."""
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(values))


def check_key(key: Any) -> None:
    """A PRNG key: typed (`jax.random.key`) or raw uint32[2].

    Raises:
        InputError: it is something else, or a batch of keys.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise InputError(f"key is {_described(key)}, not a PRNG key: pass jax.random.key(0)")
    if len(shape or ()) != (0 if typed else 1):
        raise InputError(f"key is {_described(key)}, not one key: use jax.vmap for several")
    if not typed and shape != jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape:
        raise InputError(f"key is {_described(key)}, not a PRNG key: pass jax.random.key(0)")


def integers(name: str, value: Any, rank: int, booleans: bool = False) -> Any:
    """`value` as an array of integers of a rank.

    Args:
        name: of the argument, for the message.
        value: an integer, list or array.
        rank: dimensions that it must have.
        booleans: also take these, as int8.

    Raises:
        InputError: other types or another rank.
    """
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = value
    else:
        try:
            array = np.asarray(value) if known(value) else jnp.asarray(value)
        except ValueError:  # rows of different lengths
            raise InputError(f"{name} is {_described(value)}: pass integers") from None
    if array.ndim == 1 and array.size == 0 and rank == 1:
        return array.astype(np.int32)  # an empty list has no type of its own
    if booleans and array.dtype == bool:
        array = array.astype(np.int8)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise InputError(f"{name} is {_described(array)}: pass integers")
    if array.ndim != rank:
        hint = "use jax.vmap for several" if rank < array.ndim else "pass a list or an array"
        raise InputError(
            f"{name} is {_described(array)}, but needs {rank} dimension{'s' * (rank != 1)}: {hint}"
        )
    return array


def to_int32(numbers: Any) -> jax.Array:
    """Integers as int32. One that does not fit becomes the nearest that does: it must never wrap to an item."""
    own, limits = jnp.iinfo(numbers.dtype), jnp.iinfo(jnp.int32)
    low, high = max(own.min, limits.min), min(own.max, limits.max)
    return jnp.asarray(numbers.clip(low, high).astype(np.int32))


def check_range(name: str, value: Any, low: int, high: int, meaning: str) -> None:
    """Every number of a concrete array lies in [low, high).

    Raises:
        InputError: one does not.
    """
    numbers = np.asarray(value)
    wrong = (numbers < low) | (numbers >= high)
    if wrong.any():
        verb = "has" if numbers.ndim else "is"
        raise InputError(
            f"{name} {verb} {numbers[wrong].flat[0]}, outside [{low}, {high}): {meaning}"
        )


def decision_arguments(
    history_items: Any,
    history_labels: Any,
    candidate: Any,
    user: Any,
    num_items: int,
    num_users: int,
) -> tuple[Any, Any, Any, Any]:
    """What one decision is asked of, as integers of the right ranks: items [H], labels [H], candidate [], user [].

    Args:
        history_items: -1 pads.
        history_labels: 1 like, 0 dislike, or booleans (or, as in an observation, -1 dislike and 0 padding).
        candidate: an item.
        user: -1 for an unknown one.
        num_items, num_users: of the dataset.

    Raises:
        InputError: wrong types or ranks; where values are known, also wrong values.
    """
    items = integers("history_items", history_items, rank=1)
    labels = integers("history_labels", history_labels, rank=1, booleans=True)
    candidate, user = integers("candidate", candidate, rank=0), integers("user", user, rank=0)
    if items.shape != labels.shape:
        raise InputError(
            f"history_items has {len(items)} entries and history_labels {len(labels)}: pass one label an item"
        )
    for name, value, low, high, meaning in (
        ("history_items", items, -1, num_items, "the catalogue's items, or -1 for padding"),
        ("history_labels", labels, -1, 2, "1 is a like, 0 a dislike"),
        ("candidate", candidate, 0, num_items, "the catalogue's items"),
        ("user", user, -1, num_users, "the dataset's users, or -1 for an unknown one"),
    ):
        if known(value):
            check_range(name, value, low, high, meaning)
    return items, labels, candidate, user


def _described(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return repr(value)[:60]
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
