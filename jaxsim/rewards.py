"""What a recommendation earns: the like, the rating, the duration, or any function of the response.

`jaxsim.make(dataset, reward=)` chooses. The environment asks `earned` at each step, and `expected` for the reward
that every item would earn on average.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.checks import try_function
from jaxsim.dataset import Dataset
from jaxsim.ensemble import Decision, Response
from jaxsim.errors import InputError
from jaxsim.signals import BINS, Signals
from jaxsim.user_models import TASTE_SEMANTICS, Outlook

SignalName = Literal["like", "rating", "duration"]
Reward = SignalName | Callable[[Response], jax.Array]
_DURATIONS_TRIED = (1e-3, 1.0, 1e6)


def earned(reward: Reward, decision: Decision) -> Decision:
    """A decision whose reward is that of `jaxsim.make(reward=)`. The reward "like" is the user model's own."""
    if reward == "like":
        return decision
    return replace(decision, reward=_of_response(reward, decision.response))


def _of_response(reward: Reward, response: Response) -> jax.Array:
    value = getattr(response, reward) if isinstance(reward, str) else reward(response)
    return jnp.asarray(value, jnp.float32)


def expected(reward: Reward, outlook: Outlook, semantics: str) -> jax.Array:
    """The mean reward of each of N items, float32[N].

    For a function of the response, the mean is exact over likes and ratings. The means of `BINS` bins stand for
    all durations, so it is exact, too, for functions that are linear in the duration.

    Args:
        reward: not "like", whose mean every user model gives itself.
        outlook: what the user would answer.
        semantics: under "soft" a response states expectations, so the mean is the reward of that response.
    """
    if semantics == "soft" or reward in ("rating", "duration"):
        return jax.vmap(partial(_of_response, reward))(_expected_response(outlook))
    context, signals = outlook.context, outlook.signals
    if context is not None:
        shift = jnp.broadcast_to(jnp.asarray(context.shift, jnp.float32), context.log_odds.shape)
        context = context._replace(shift=shift)
    # The heads have arrays of all items, so they are not a part of each item's outlook.
    rows = outlook._replace(context=context, signals=None)
    return jax.vmap(lambda row: _mean_of(reward, row._replace(signals=signals)))(rows)


def _expected_response(outlook: Outlook) -> Response:
    """The response under "soft" to each of N items: likes where the user leans, and means of the signals."""
    response = Response(like=outlook.leans.astype(jnp.int8))
    signals, context, probability = outlook.signals, outlook.context, outlook.probability
    if signals is None or context is None:
        return response
    if signals.rating is not None:
        taste = signals.taste_of(signals.rating, context.tastes)
        chances = signals.rating.probabilities(context, taste, probability)
        response = replace(response, rating=jnp.sum(chances * signals.rating.levels, axis=-1))
    if signals.duration is not None:
        taste = signals.taste_of(signals.duration, context.tastes)
        duration = signals.duration.expected(context, taste, probability)
        response = replace(response, duration=duration)
    return response


def _mean_of(reward: Reward, outlook: Outlook) -> jax.Array:
    """The mean reward of one item, float32[]; the fields of the outlook have no axis of items."""
    probability = outlook.probability
    total = jnp.float32(0)
    for like, share in ((False, 1.0 - probability), (True, probability)):
        responses, shares = _possible(outlook, jnp.asarray(like))
        rewards = jax.vmap(partial(_of_response, reward))(responses)
        # What cannot happen does not count, whatever it would earn.
        total += share * jnp.sum(jnp.where(shares > 0, shares * rewards, 0.0))
    return total


def _possible(outlook: Outlook, like: jax.Array) -> tuple[Response, jax.Array]:
    """The responses to an item with a like or a dislike bool[], and their shares float32[R]."""
    signals, context = outlook.signals, outlook.context
    shares, ratings, durations = jnp.ones((1, 1), jnp.float32), None, None
    if signals is not None and context is not None:
        if signals.rating is not None:
            taste = signals.taste_of(signals.rating, context.tastes)
            shares = jnp.exp(signals.rating.given_like(context, taste, like))[:, None]
            ratings = signals.rating.levels[:, None]
        if signals.duration is not None:
            taste = signals.taste_of(signals.duration, context.tastes)
            mean = signals.duration.mean(context, taste, like)
            durations = signals.duration.bin_means(mean, like, BINS)[None]
            shares = shares / BINS * jnp.ones((1, BINS), jnp.float32)

    def flat(values: jax.Array | None) -> jax.Array | None:
        return None if values is None else jnp.broadcast_to(values, shares.shape).ravel()

    likes = jnp.broadcast_to(like.astype(jnp.int8), shares.shape).ravel()
    return Response(likes, flat(ratings), flat(durations)), shares.ravel()


# ---- checks ------------------------------------------------------------------------------------------------


def check_reward(
    reward: Any, dataset: Dataset, semantics: str, own_model: bool, signals: Signals | None
) -> None:
    """Check that the users can give the reward, and try a function on responses of every kind.

    Args:
        reward: of `jaxsim.make`.
        dataset: what responses it can have.
        semantics: of `jaxsim.make`.
        own_model: whether the users are of a `user_model`.
        signals: what their ratings and durations follow from; None if there are none.

    Raises:
        InputError: another word; a signal that this dataset, these users or this choice of `signals` do not have;
            or a function that cannot be run, or returns anything but a float32[] that is a number.
    """
    if isinstance(reward, str):
        if reward not in ("like", "rating", "duration"):
            raise InputError(
                f"reward={reward!r} is not like, rating or duration, and not a function of the response"
            )
        if reward != "like" and getattr(signals, reward, None) is None:
            raise InputError(_why_absent(reward, dataset, semantics, own_model))
        return
    if not callable(reward):
        raise InputError(
            f"reward is a {type(reward).__name__}: give like, rating, duration or a function of the response"
        )
    for response in _responses_tried(signals):
        try_function("reward", reward, response, "one response", _spelled(response))


def _why_absent(name: str, dataset: Dataset, semantics: str, own_model: bool) -> str:
    if own_model:
        return f'reward="{name}": a user_model gives likes only; use reward="like" or a function'
    if semantics not in TASTE_SEMANTICS:
        return (
            f'reward="{name}" follows from the taste model, which semantics={semantics!r} does not ask: '
            'use semantics="calibrated" or "soft"'
        )
    build = f"python -m prep build {dataset.name}"
    entry = dataset.manifest.get("signals")
    if entry is None:
        return f'reward="{name}": {dataset.path} was built without ratings and durations: run `{build}` again'
    if name in entry:
        return f'reward="{name}" needs signals="auto" or "all"'
    if name == "duration":
        return f'reward="duration": {dataset.name} has no durations: build it from a table with a column duration'
    return f'reward="rating": {dataset.name} has no model of ratings: {entry["no_rating"]}'


def _responses_tried(signals: Signals | None) -> list[Response]:
    rating, duration = (None, None) if signals is None else (signals.rating, signals.duration)
    ratings: list[Any] = [None] if rating is None else list(np.asarray(rating.levels))
    durations: list[Any] = [None] if duration is None else list(_DURATIONS_TRIED)
    return [
        Response(like=jnp.int8(like), rating=_scalar(r), duration=_scalar(d))
        for like in (0, 1)
        for r in ratings
        for d in durations
    ]


def _scalar(number: Any) -> jax.Array | None:
    return None if number is None else jnp.float32(number)


def _spelled(response: Response) -> str:
    parts = {"like": response.like, "rating": response.rating, "duration": response.duration}
    return ", ".join(f"{name} {float(x):g}" for name, x in parts.items() if x is not None)
