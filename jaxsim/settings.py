"""Bounds of settings, declared beside the field and checked in one place.

A setting is a field of a dataclass. Its type declares its bounds, with `annotated_types`:

    num_envs: Annotated[int, Ge(1)] = 128
    discount: Annotated[float, Ge(0), Lt(1)] = 0.4
    encoder: Literal["mean", "gru"] = "mean"
"""

import dataclasses
import math
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from jaxsim.checks import is_concrete
from jaxsim.errors import InputError


def check_settings(settings: Any, option_prefix: str | None = None) -> None:
    """Check every field of a dataclass against its declared type and bounds.

    Numbers that `jit` or `vmap` traces have no value yet and are not checked; None is accepted where the type
    allows it. Fields of types other than numbers and `Literal` are not checked.

    Args:
        settings: an instance of a dataclass.
        option_prefix: the beginning of the option on the command line, such as "--sasrec."; messages then name the
            option. Without it they name the field.

    Raises:
        InputError: the first field that is not a number of its type, is not finite, or is out of bounds.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        expected = _expected(value, hints[field.name])
        if expected is not None:
            raise InputError(f"{_label(field.name, option_prefix)} is {value!r}: give {expected}")


def _label(name: str, option_prefix: str | None) -> str:
    return name if option_prefix is None else option_prefix + name.replace("_", "-")


def _expected(value: Any, hint: Any) -> str | None:
    """A description of the values that a hint allows if this is not one of them, otherwise None."""
    kind, bounds, optional = _unpack(hint)
    if (value is None and optional) or not is_concrete(value):
        return None
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return None if value in choices else f"one of {', '.join(map(str, choices))}"
    if kind not in (int, float) or _is_number(value, kind, bounds):
        return None
    return _describe(kind, bounds)


def _unpack(hint: Any) -> tuple[Any, list[Any], bool]:
    """The plain type of a hint, its bounds, and whether it allows None."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        kind, bounds, optional = _unpack(inner)
        return kind, [*bounds, *(x for x in extras if isinstance(x, Ge | Gt | Le | Lt))], optional
    if get_origin(hint) in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        if len(members) == 1 and len(get_args(hint)) == 2:
            kind, bounds, _ = _unpack(members[0])
            return kind, bounds, True
    return hint, [], False


def _is_number(value: Any, kind: type, bounds: list[Any]) -> bool:
    if isinstance(value, bool) or (kind is int and not isinstance(value, int | np.integer)):
        return False
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return False
    return bool(np.isfinite(numbers).all()) and all(_is_within(numbers, x) for x in bounds)


def _is_within(numbers: np.ndarray, bound: Any) -> bool:
    if isinstance(bound, Ge):
        return bool((numbers >= bound.ge).all())
    if isinstance(bound, Gt):
        return bool((numbers > bound.gt).all())
    if isinstance(bound, Le):
        return bool((numbers <= bound.le).all())
    return bool((numbers < bound.lt).all())


def _describe(kind: type, bounds: list[Any]) -> str:
    """Such as "a whole number from 1, up to 100" or "a finite number above 0, up to 1"."""
    words = {
        Ge: lambda x: f"from {_spell(x.ge)}",
        Gt: lambda x: f"above {_spell(x.gt)}",
        Le: lambda x: f"up to {_spell(x.le)}",
        Lt: lambda x: f"below {_spell(x.lt)}",
    }
    noun = "a whole number" if kind is int else "a finite number"
    return " ".join([noun, ", ".join(words[type(x)](x) for x in bounds)]).rstrip()


def _spell(number: Any) -> str:
    if isinstance(number, int) or (math.isfinite(number) and number == int(number)):
        return f"{int(number):,}"
    return f"{number:g}"
