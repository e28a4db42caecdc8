"""A user's taste that is drawn when a session begins and then stays: `jaxsim.make(dataset, taste="latent")`.

The posterior of `jaxsim.taste` learns from every answer of a session, and these answers are the simulator's own.
Here the taste is drawn once, from the posterior after the initial history, and answers teach nothing. Only the
mood changes, by its own prior.

The draw follows Matheron's rule. The kernel of items i and j is phi(i)' phi(j), so xi ~ N(0, I) gives a draw
phi(c)' xi from the prior, and an autoregressive process u gives one of the mood. With noise e ~ N(0, I), the
history h of n interactions would have had the residuals Phi_h xi + u_h + e. What the posterior knows of them is
taken away again:

    a = (K_hh + I)^-1 (Phi_h xi + u_h + e)
    d = xi - Phi_h' a,   mood = u_n - mood_weight * sum_j decay^(n - j) a_j
    f(c) = phi(c)' d + mood

f is a draw of how far the taste is from the posterior's mean g. Its variance is v(c) = k(c, c) - l'l. With each
interaction, the mood is multiplied by the decay and gets an innovation.

k is written for labels with noise 1. In units of labels the noise is s, and the taste is g + s f. A label with
probability p has the variance p (1 - p), and a unit of g changes p by w_2 p (1 - p), which should be 1: so the
variance of the noise is 1 / w_2. Half of it predicts people's labels best (docs/taste.md), so s^2 = 1 / (2 w_2).

If a probability were computed from g + s f as from g, it would be closer to 1/2 on average. So let Phi be the
normal distribution function, q the quantile of the posterior's probability, so that
Phi(q) = sigmoid(w_0 + w_1 (m + b_c) + w_2 g(c)), and r = sqrt(pi / 8) w_2 s, where sqrt(pi / 8) is the usual
factor from log-odds to the argument of Phi. Then

    p(c) = Phi(sqrt(1 + r^2 v(c)) q + r f(c))

is a probability whose mean over draws is the posterior's, exactly.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.special import log_ndtr, ndtr, ndtri

from jaxsim.taste import (
    Posterior,
    TasteModel,
    expected_tastes,
    kernel_with,
    mood_decays,
    own_kernel,
    product,
)

_FROM_LOG_ODDS = math.sqrt(math.pi / 8)
_NOISE_SHARE = 0.5  # of the variance 1 / w_2


@struct.dataclass
class LatentTaste:
    """The taste of a session's user, after H positions of initial history.

    Attributes:
        history: the posterior of the initial history.
        direction: float32[F], d.
        mood: float32[], that of f, at the next interaction.
    """

    history: Posterior
    direction: jax.Array
    mood: jax.Array


class Place(NamedTuple):
    """Where a candidate comes: after an initial history and a part of a session.

    Attributes:
        items: int32[H], left-aligned; only the first `history_length` count.
        history_length: int32[], interactions of the initial history.
        length: int32[], interactions in the window, and so the candidate's position.
    """

    items: jax.Array
    history_length: jax.Array
    length: jax.Array

    @property
    def position(self) -> jax.Array:
        """Positions of the items, int32[H]."""
        return jnp.arange(self.items.shape[0], dtype=jnp.int32)


class Drawn(NamedTuple):
    """The taste for one item or for all: g, v and f, float32[...] each, and g of C signals, float32[..., C]."""

    mean: jax.Array
    variance: jax.Array
    deviation: jax.Array
    signal_tastes: jax.Array | None = None


def draw(
    key: jax.Array, model: TasteModel, posterior: Posterior, items: jax.Array, length: jax.Array
) -> LatentTaste:
    """Draw the taste of a user.

    Args:
        key: PRNG key.
        model: the fitted model, with features.
        posterior: of the initial history.
        items: int32[H], of the initial history, left-aligned.
        length: int32[], how many of them there are.
    """
    chex.assert_equal_shape([items, posterior.scores])
    key_direction, key_mood, key_noise = jax.random.split(key, 3)
    size, rows = items.shape[0], model.item_features[jnp.maximum(items, 0)]
    direction = jax.random.normal(key_direction, rows.shape[1:], jnp.float32)
    moods = _draw_moods(key_mood, model, size + 1)
    errors = jax.random.normal(key_noise, (size,), jnp.float32)
    residuals = product(rows, direction) + moods[:size] + errors
    # The inverse factor is zero from `length` on, so padding gets no weight.
    inverse = posterior.inverse_factor
    weights = product(product(inverse, residuals), inverse)
    position = jnp.arange(size, dtype=jnp.int32)
    known = model.mood_weight * jnp.sum(mood_decays(model, position, length) * weights)
    return LatentTaste(
        history=posterior,
        direction=direction - product(weights, rows),
        mood=moods[length] - known,
    )


def _draw_moods(key: jax.Array, model: TasteModel, count: int) -> jax.Array:
    """The prior's mood at positions 0 to count - 1, float32[count]."""
    innovations = jax.random.normal(key, (count,), jnp.float32)
    # The first one is that of a process which has gone on for ever.
    scale = jnp.full(count, _innovation(model), jnp.float32).at[0].set(jnp.sqrt(model.mood_weight))
    place = jnp.arange(count, dtype=jnp.int32)
    lag = place[:, None] - place[None]
    decays = jnp.where(lag >= 0, model.mood_decay ** jnp.abs(lag).astype(jnp.float32), 0.0)
    return product(decays, scale * innovations)


def next_mood(key: jax.Array, model: TasteModel, mood: jax.Array) -> jax.Array:
    """The mood float32[] one interaction later."""
    innovation = _innovation(model) * jax.random.normal(key, (), jnp.float32)
    return model.mood_decay * mood + innovation


def _innovation(model: TasteModel) -> jax.Array:
    """The standard deviation that keeps the mood's variance what it is."""
    return jnp.sqrt(model.mood_weight * (1.0 - model.mood_decay**2))


def taste_for(model: TasteModel, user: LatentTaste, place: Place, candidate: jax.Array) -> Drawn:
    """The taste for a candidate int32[]."""
    valid = place.position < place.history_length
    kernel = kernel_with(model, candidate, place.items, place.position, valid, place.length)
    solved = product(user.history.inverse_factor, kernel)
    of_signals = user.history.signal_scores
    if of_signals is not None:
        of_signals = jnp.sum(solved[:, None] * of_signals, axis=0)
    return Drawn(
        mean=jnp.sum(solved * user.history.scores),
        variance=_not_negative(own_kernel(model, candidate) - jnp.sum(solved**2)),
        deviation=product(model.item_features[candidate], user.direction) + user.mood,
        signal_tastes=of_signals,
    )


def tastes(model: TasteModel, user: LatentTaste, place: Place) -> Drawn:
    """The taste for each of N items."""
    inverse, features = user.history.inverse_factor, model.item_features
    of_mood = model.mood_weight * mood_decays(model, place.position, place.length)
    explained = model.kernel.squared_lengths(
        inverse, jnp.maximum(place.items, 0), product(inverse, of_mood)
    )
    own = jnp.sum(features**2, axis=1) + model.mood_weight
    weights = user.history.weights
    return Drawn(
        mean=expected_tastes(model, weights, place.items, place.position, place.length),
        variance=_not_negative(own - explained),
        deviation=product(features, user.direction) + user.mood,
        signal_tastes=_signal_tastes(model, user.history, place),
    )


def _signal_tastes(model: TasteModel, history: Posterior, place: Place) -> jax.Array | None:
    """The taste g of each of C signals for every item, float32[N, C]; None without any."""
    if history.signal_scores is None:
        return None

    def of_one(scores: jax.Array) -> jax.Array:
        weights = replace(history, scores=scores).weights
        return expected_tastes(model, weights, place.items, place.position, place.length)

    return jax.vmap(of_one, 1, 1)(history.signal_scores)


def _not_negative(variance: jax.Array) -> jax.Array:
    return jnp.maximum(variance, 0.0)  # rounding can leave a little less than nothing


def taste_of(model: TasteModel, drawn: Drawn) -> jax.Array:
    """The user's taste g + s f, float32[...]."""
    return drawn.mean + noise(model) * drawn.deviation


def quantile(
    model: TasteModel, item_mean: jax.Array, drawn: Drawn, shift: jax.Array | None = None
) -> jax.Array:
    """The argument of Phi in p, float32[...].

    Args:
        model: the fitted model.
        item_mean: float32[...], m + b.
        drawn: the taste, float32[...] each.
        shift: float32[...], added to the log-odds of the posterior's probability (`jaxsim.exposure`).
    """
    log_odds = model.log_odds(item_mean, drawn.mean)
    if shift is not None:
        log_odds += shift
    # By the smaller one of both probabilities, because the other one rounds to 1.
    of_mean = -jnp.sign(log_odds) * ndtri(jax.nn.sigmoid(-jnp.abs(log_odds)))
    slope = _FROM_LOG_ODDS * model.calibration[2] * noise(model)
    return jnp.sqrt(1.0 + slope**2 * drawn.variance) * of_mean + slope * drawn.deviation


def probability(quantile: jax.Array) -> jax.Array:
    """The probability Phi of a like, float32[...], from its quantile."""
    return ndtr(quantile)


def log_odds(quantile: jax.Array) -> jax.Array:
    """The log-odds of a like, float32[...], from its quantile."""
    return log_ndtr(quantile) - log_ndtr(-quantile)


def noise(model: TasteModel) -> jax.Array:
    """s, float32[]; 0 if the probability does not grow with the taste, which then says nothing about labels."""
    of_taste = model.calibration[2]
    grows = of_taste > 0
    return jnp.where(grows, jnp.sqrt(_NOISE_SHARE / jnp.where(grows, of_taste, 1.0)), 0.0)
