"""The end of a step: whether the user leaves, and with `visits=True` whether they return.

It is the same for single items and for slates (`jaxsim.environment`, `jaxsim.slates`).
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxsim.departure import Departure, depart, recent_of
from jaxsim.types import EnvParams, EnvState
from jaxsim.visits import Return, chance_of_return, draw_return, next_visit


def departure_of(state: EnvState, params: EnvParams) -> Departure:
    """The chance that the user leaves after the step that led to a state, and why."""
    recent = recent_of(state.items, state.responses, state.length)
    return depart(params.departure, params.catalogue, recent, state.position)


def return_of(state: EnvState, params: EnvParams) -> Return:
    """The chance that the user returns if the session ends in a state, and why."""
    recent = recent_of(state.items, state.responses, state.length)
    session = jnp.int32(0) if state.visits is None else state.visits.session
    return chance_of_return(params.visits, recent, state.user, session)


def leave(
    key: jax.Array, state: EnvState, params: EnvParams, horizon_days: float | None
) -> tuple[EnvState, jax.Array, dict[str, Any]]:
    """Draw whether the user leaves after a step, and whether they return.

    Args:
        key: of the departure of this step.
        state: after the step.
        params: of `jaxsim.make`.
        horizon_days: days of a life; None if users do not return.

    Returns:
        The state, in which another session may have begun; terminated bool[]; and what `info` says about it.
    """
    info: dict[str, Any] = {}
    leaving = params.departure_probability
    if params.departure is not None:
        leaving = info["departure_probability"] = departure_of(state, params).probability
    left = jax.random.bernoulli(key, leaving)
    if horizon_days is None:
        return state, left, info
    chance, visit = return_of(state, params), state.visits
    assert visit is not None
    assert params.visits is not None
    returns, gap = draw_return(key, params.visits, chance)
    new, returned = next_visit(visit, state.time, left, returns, gap, horizon_days)
    info |= {
        "session": visit.session,
        "day": visit.day,
        "left": left,
        "returned": returned,
        "gap_days": jnp.where(returned, gap, 0.0),
        "return_probability": chance.probability,
    }
    return state.replace(visits=new), left & ~returned, info
