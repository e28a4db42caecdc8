"""Whether and when users return after a session, as fitted to real logs: `jaxsim.make(dataset, visits=True)`.

An episode is then a life of several sessions. After a session a user returns with the probability

    sigmoid(a + sum over terms k of b_k clip((x_k - mean_k) / scale_k))

and the gap until the next session, in minutes, is the session gap plus a mixture of log-normals, whose logarithms
are all shifted by such a sum with other weights. The features are whether the user liked the last five items more
than other people do, and the logarithm of how many sessions they have had, those of the training log included.
`prep/return_model.py` fits all numbers, and keeps only the terms whose interval excludes zero.

Modelling assumptions. Time within a session is not counted. A user who does not return within the horizon of the
life is gone. Nothing else changes during a gap: history, taste and mood go on as within a session.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxsim.dataset import Dataset
from jaxsim.departure import (
    SATISFACTION,
    Recent,
    Term,
    check_vectors,
    satisfaction_of,
    terms_of,
    weighted,
    why_not_fitted,
)
from jaxsim.errors import InputError

HORIZON_DAYS = 30.0
RETURN, GAP = PARTS = "return", "gap"
SESSIONS = "sessions"
VISIT_TERMS = SATISFACTION, SESSIONS
INTERCEPT = "intercept"
_DAY_MINUTES = 1440.0
# Folded into the key of the departure, so that nothing else is drawn otherwise.
_RETURN_STREAM = 0x4E7


@struct.dataclass
class VisitModel:
    """Whether and when users return.

    Attributes:
        intercept: float32[], a.
        log_weights: float32[K], logarithms of the shares of the components of the gap.
        means: float32[K], of the logarithm of the minutes beyond the session gap.
        scales: float32[K], their standard deviations.
        session_gap: float32[], minutes.
        return_terms, gap_terms: the terms that were kept, by their names in `VISIT_TERMS`.
        clip: float32[], standardised features stay between -clip and clip.
        item_rate: float32[N], smoothed like rate in training.
        user_sessions: int32[U], sessions of each user's training log.
    """

    intercept: jax.Array
    log_weights: jax.Array
    means: jax.Array
    scales: jax.Array
    session_gap: jax.Array
    return_terms: dict[str, Term]
    gap_terms: dict[str, Term]
    clip: jax.Array
    item_rate: jax.Array
    user_sessions: jax.Array


@struct.dataclass
class Visit:
    """Where a user is in their life.

    Attributes:
        session: int32[], the session that the next step belongs to, from 0.
        began: int32[], the step of the episode at which it began.
        day: float32[], days from the beginning of the life to its beginning.
    """

    session: jax.Array
    began: jax.Array
    day: jax.Array


class Return(NamedTuple):
    """The chance that the user returns if the session ends now, and why.

    Attributes:
        probability: float32[], of returning at all, after whatever gap: the sigmoid of the sum of `log_odds`.
        log_odds: "intercept" and the kept terms to what they add, float32[].
        log_gap: the kept terms of the gap to what they add to its logarithm, float32[].
    """

    probability: jax.Array
    log_odds: dict[str, jax.Array]
    log_gap: dict[str, jax.Array]


def build_visits(dataset: Dataset) -> VisitModel:
    """The fitted returns of a packed dataset, on the device.

    Raises:
        InputError: the dataset has none.
    """
    entry: Any = dataset.manifest.get("visits")
    if dataset.visits is None or entry is None:
        reason = (entry or {}).get("none_because")
        advice = why_not_fitted(dataset, "when users return", reason)
        raise InputError(f"visits=True: {dataset.name} has no fitted returns: {advice}")
    sizes = {"item_rate": dataset.num_items, "user_sessions": dataset.num_users}
    check_vectors(dataset, "visits", dataset.visits, sizes)
    return VisitModel(
        intercept=jnp.float32(entry["intercept"]),
        log_weights=jnp.log(jnp.asarray(entry["weights"], jnp.float32)),
        means=jnp.asarray(entry["means"], jnp.float32),
        scales=jnp.asarray(entry["scales"], jnp.float32),
        session_gap=jnp.float32(entry["session_gap"]),
        return_terms=terms_of(entry["terms"][RETURN]),
        gap_terms=terms_of(entry["terms"][GAP]),
        clip=jnp.float32(entry["clip"]),
        item_rate=jnp.asarray(dataset.visits["item_rate"], jnp.float32),
        user_sessions=jnp.asarray(dataset.visits["user_sessions"], jnp.int32),
    )


def first_visit() -> Visit:
    """The beginning of a life."""
    return Visit(jnp.int32(0), jnp.int32(0), jnp.float32(0))


def chance_of_return(
    model: VisitModel | None, recent: Recent, user: jax.Array, session: jax.Array
) -> Return:
    """The chance of a return after a session.

    Args:
        model: of `build_visits`.
        recent: the last five interactions.
        user: int32[].
        session: int32[], the session in the life that ends, from 0.

    Raises:
        InputError: there is no model, because users do not return.
    """
    if model is None:
        raise InputError("users do not return: make the environment with visits=True")
    so_far = model.user_sessions[user] + session + 1
    features = {
        SATISFACTION: satisfaction_of(recent, model.item_rate),
        SESSIONS: jnp.log(so_far.astype(jnp.float32)),
    }
    log_odds, log_gap = (
        {name: weighted(term, features[name], model.clip) for name, term in terms.items()}
        for terms in (model.return_terms, model.gap_terms)
    )
    log_odds = {INTERCEPT: model.intercept, **log_odds}
    probability = jax.nn.sigmoid(sum(log_odds.values(), jnp.float32(0)))
    return Return(probability, log_odds, log_gap)


def draw_return(key: jax.Array, model: VisitModel, chance: Return) -> tuple[jax.Array, jax.Array]:
    """Whether the user returns at all, bool[], and after how many days, float32[] (drawn in any case).

    Args:
        key: of the departure of the step.
        model: of `build_visits`.
        chance: of `chance_of_return`.
    """
    keys = jax.random.split(jax.random.fold_in(key, _RETURN_STREAM), 3)
    returns = jax.random.bernoulli(keys[0], chance.probability)
    component = jax.random.categorical(keys[1], model.log_weights)
    normal = jax.random.normal(keys[2], (), jnp.float32)
    shift = sum(chance.log_gap.values(), jnp.float32(0))
    minutes = jnp.exp(model.means[component] + shift + model.scales[component] * normal)
    return returns, (model.session_gap + minutes) / _DAY_MINUTES


def next_visit(
    visit: Visit,
    time: jax.Array,
    left: jax.Array,
    returns: jax.Array,
    gap: jax.Array,
    horizon: float,
) -> tuple[Visit, jax.Array]:
    """Where the user is after a step, and whether they left and returned within the horizon, bool[].

    Args:
        visit: before the step.
        time: int32[], steps of the episode, this one included.
        left: bool[], whether the session ended after this step.
        returns, gap: of `draw_return`.
        horizon: days of a life.
    """
    day = visit.day + gap
    returned = left & returns & (day <= horizon)
    new = Visit(visit.session + 1, time, day)
    return jax.tree.map(lambda x, y: jnp.where(returned, x, y), new, visit), returned
