"""Checks of arguments: of types always, of values outside jit.

Inside jit values are not available. There, wrong values have a defined result (see `UserSimulator`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.errors import InputError


def is_concrete(*values: Any) -> bool:
    """Whether all values are available now; False if jit, vmap or scan traces any of them."""
    return not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(values))


def check_key(key: Any) -> None:
    """Check that `key` is one PRNG key: typed (`jax.random.key`) or raw uint32[2].

    Raises:
        InputError: it is something else, or several keys.
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
        name: name of the argument, for the message.
        value: an integer, list or array.
        rank: number of dimensions that it must have.
        booleans: also accept booleans, and convert them to int8.

    Raises:
        InputError: another type or another rank.
    """
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = value
    else:
        try:
            array = np.asarray(value) if is_concrete(value) else jnp.asarray(value)
        except ValueError:  # rows of different lengths
            raise InputError(f"{name} is {_described(value)}: pass integers") from None
    if array.ndim == 1 and array.size == 0 and rank == 1:
        return array.astype(np.int32)  # an empty list has no integer type
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
    """Integers as int32. A number that does not fit is clipped, so that it never wraps around to a valid item."""
    own, limits = jnp.iinfo(numbers.dtype), jnp.iinfo(jnp.int32)
    low, high = max(own.min, limits.min), min(own.max, limits.max)
    return jnp.asarray(numbers.clip(low, high).astype(np.int32))


def check_range(name: str, value: Any, low: int, high: int, meaning: str) -> None:
    """Check that every number of a concrete array lies in [low, high).

    Args:
        name: name of the argument, for the message.
        value: an array or a number.
        low, high: the range.
        meaning: what the range stands for, such as "the catalogue's items".

    Raises:
        InputError: a number lies outside.
    """
    numbers = np.asarray(value)
    wrong = (numbers < low) | (numbers >= high)
    if wrong.any():
        verb = "has" if numbers.ndim else "is"
        raise InputError(
            f"{name} {verb} {numbers[wrong].flat[0]}, outside [{low}, {high}): {meaning}"
        )


def check_action(state: Any, action: Any, num_items: int, repeats: str) -> None:
    """Check the arguments of a step.

    Args:
        state: `jaxsim.EnvState`.
        action: int[].
        num_items: N.
        repeats: "mask" or "allow".

    Raises:
        InputError: the states of several sessions; outside jit also an invalid action.
    """
    if jnp.ndim(state.time) != 0:
        raise InputError("state is of several sessions: use jax.vmap(env.step, (0, 0, 0, None))")
    if is_concrete(action):
        check_range("action", action, 0, num_items, "the catalogue's items")
    if repeats == "allow" or not is_concrete(action, state.items):
        return
    if (np.asarray(state.items) == int(action)).any():
        raise InputError(
            f"action {int(action)} was recommended or is in the history: choose an item that env.action_mask "
            'allows, or make the environment with repeats="allow"'
        )


def decision_arguments(
    history_items: Any,
    history_labels: Any,
    candidate: Any,
    user: Any,
    num_items: int,
    num_users: int,
) -> tuple[Any, Any, Any, Any]:
    """The arguments of one decision as integers of the right ranks.

    Args:
        history_items: -1 pads.
        history_labels: 1 like, 0 dislike, or booleans (or, as in an observation, -1 dislike and 0 padding).
        candidate: an item.
        user: -1 for an unknown user.
        num_items, num_users: sizes of the dataset.

    Returns:
        Items [H], labels [H], candidate [] and user [].

    Raises:
        InputError: wrong types or ranks; outside jit also wrong values.
    """
    items = integers("history_items", history_items, rank=1)
    labels = integers("history_labels", history_labels, rank=1, booleans=True)
    candidate, user = integers("candidate", candidate, rank=0), integers("user", user, rank=0)
    if items.shape != labels.shape:
        raise InputError(
            f"history_items has {len(items)} entries and history_labels {len(labels)}: pass a label for each item"
        )
    for name, value, low, high, meaning in (
        ("history_items", items, -1, num_items, "the catalogue's items, or -1 for padding"),
        ("history_labels", labels, -1, 2, "1 is a like, 0 a dislike"),
        ("candidate", candidate, 0, num_items, "the catalogue's items"),
        ("user", user, -1, num_users, "the dataset's users, or -1 for an unknown user"),
    ):
        if is_concrete(value):
            check_range(name, value, low, high, meaning)
    return items, labels, candidate, user


def try_function(
    name: str, function: Callable[[Any], Any], argument: Any, what: str, spelled: str
) -> None:
    """Try a user's function of arrays as it will be used: jitted.

    Args:
        name: of the option, for the message.
        function: returns float32[...] of the shape that the argument's leaves have.
        argument: a pytree of arrays of one shape.
        what: the argument in a few words.
        spelled: its values.

    Raises:
        InputError: the function is not hashable, cannot be run, or returns another shape or dtype, or NaN.
    """
    try:
        hash(function)
    except TypeError:
        raise InputError(
            f"{name} {type(function).__name__} is not hashable: give a function, or a frozen dataclass with "
            "__call__"
        ) from None
    try:
        value = jax.jit(function)(argument)
    except InputError:
        raise
    except Exception as error:  # anything that other people's code may raise
        line = " ".join(str(error).split())[:160]
        raise InputError(
            f"{name} cannot be run inside jit ({type(error).__name__}: {line})"
        ) from error
    expected = f"float32{list(jnp.shape(jax.tree.leaves(argument)[0]))}"
    got = f"{getattr(value, 'dtype', type(value).__name__)}{list(jnp.shape(value))}"
    if got != expected:
        raise InputError(f"{name} returns {got} for {what}: return {expected}")
    if np.isnan(np.asarray(value)).any():
        raise InputError(f"{name} is NaN for {spelled}: return a number")


def _described(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return repr(value)[:60]
    return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
