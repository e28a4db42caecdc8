"""Bounds declared beside the field."""

from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import pytest
from annotated_types import Ge, Gt, Le, Lt

from jaxsim import InputError
from jaxsim.settings import check_settings


@dataclass(frozen=True)
class Settings:
    count: Annotated[int, Ge(1), Le(1000)] = 1
    share: Annotated[float, Gt(0), Le(1)] = 0.5
    discount: Annotated[float, Ge(0), Lt(1)] = 0.0
    limit: Annotated[int, Ge(1)] | None = None
    kind: Literal["mean", "gru"] = "mean"
    name: str = ""


def test_bounds_themselves_pass():
    check_settings(Settings(count=1000, share=1.0, discount=0, limit=1, kind="gru"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 0}, "count is 0: give a whole number from 1, up to 1,000"),
        ({"count": 1001}, "count is 1001: give a whole number from 1, up to 1,000"),
        ({"count": True}, "count is True: give a whole number from 1, up to 1,000"),
        ({"count": 1.0}, "count is 1.0: give a whole number from 1, up to 1,000"),
        ({"share": 0.0}, "share is 0.0: give a finite number above 0, up to 1"),
        ({"share": float("nan")}, "share is nan: give a finite number above 0, up to 1"),
        ({"share": "half"}, "share is 'half': give a finite number above 0, up to 1"),
        ({"discount": 1.0}, "discount is 1.0: give a finite number from 0, below 1"),
        ({"limit": 0}, "limit is 0: give a whole number from 1"),
        ({"kind": "lstm"}, "kind is 'lstm': give one of mean, gru"),
    ],
)
def test_one_line_says_what_to_give(changed, message):
    with pytest.raises(InputError) as error:
        check_settings(Settings(**changed))
    assert str(error.value) == message


def test_messages_can_name_the_option():
    with pytest.raises(InputError, match=r"^--sasrec.count is 0: give"):
        check_settings(Settings(count=0), option_prefix="--sasrec.")


def test_traced_numbers_pass_and_concrete_arrays_are_checked():
    def f(share):
        check_settings(Settings(share=share))
        return share

    jax.jit(f)(jnp.float32(7.0))
    with pytest.raises(InputError):
        f(jnp.float32(7.0))
