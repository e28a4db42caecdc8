"""What a user of the taste model answers beside the like: a rating on the dataset's own scale, and a duration.

The like is drawn with the taste model's probability p, as always. The rating follows from it, so that
P(rating >= threshold) = p. With the rating's item mean m + b_c, the taste g(c) of the same Gaussian process on
residuals of ratings, and the log-odds o of a like, the score is

    s = w_0 (m + b_c) + w_1 g(c) + w_2 o

An ordered logit with thresholds t_1 < ... < t_K-1 says how ratings are distributed among those that are likes, and
among those that are not:

    q_k = sigmoid(s - t_k-1) - sigmoid(s - t_k),   P(rating = r_k | like) = q_k / sum of q over the likes

A duration is log-normal: log d ~ N(v_0 + v_1 (m + b_c) + v_2 g(c) + v_3 o + v_4 like, sigma^2), with m, b and g of
log-durations. Where the like itself says whether the duration reached a threshold, v_4 is 0, and the distribution
is cut at the threshold instead.

All signals share the factor of the taste model's kernel (`jaxsim.taste`). So a session keeps one more number for
each interaction and signal, and a step takes one more inner product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.special import log_ndtr, ndtr, ndtri

from jaxsim.ensemble import Decision, Response
from jaxsim.errors import InputError

# Folded into the key of the like. Far from the small numbers with which `jax.random.split` counts.
_RATING_STREAM, _DURATION_STREAM = 0x2A7E, 0xD02A
_TO_QUANTILE = (
    0.6266571  # sqrt(pi / 8): from log-odds to the argument of the normal distribution function
)
_FARTHEST = -12.0  # standard deviations: beyond, float32 has no probabilities
_TINY = float(jnp.finfo(jnp.float32).tiny)
BINS = (
    16  # of durations, whose means stand for all of them in the expectation of a user's own reward
)


class Context(NamedTuple):
    """What answers about items depend on; arrays [...] of one item or of many.

    Attributes:
        item: int32[...].
        log_odds: float32[...], of a like, by the posterior.
        tastes: float32[..., C], g of each of C signals.
        shift: float32[...] or 0, what a drawn taste adds to the log-odds of a like.
    """

    item: jax.Array
    log_odds: jax.Array
    tastes: jax.Array
    shift: jax.Array | float = 0.0


@struct.dataclass
class RatingHead:
    """The ordered logit of ratings.

    Attributes:
        item_mean: float32[N], m + b of each item, in ratings.
        typical: float32[2], mean residual of a dislike and of a like: it stands for a rating that is not known.
        weights: float32[3], w.
        thresholds: float32[K - 1], t, ascending.
        levels: float32[K], the ratings, ascending.
        is_like: bool[K], which ratings are likes.
    """

    item_mean: jax.Array
    typical: jax.Array
    weights: jax.Array
    thresholds: jax.Array
    levels: jax.Array
    is_like: jax.Array

    def in_model(self, values: jax.Array) -> jax.Array:
        """Ratings float32[...] as the Gaussian process sees them: as they are."""
        return values

    def log_levels(self, context: Context, taste: jax.Array) -> jax.Array:
        """Log q of each rating, float32[..., K], from the taste g float32[...]."""
        of_item, of_taste, of_odds = self.weights
        score = of_item * self.item_mean[context.item] + of_taste * taste
        score = (score + of_odds * context.log_odds + context.shift)[..., None]
        infinite = jnp.full(1, jnp.inf, jnp.float32)
        low = jnp.concatenate([-infinite, self.thresholds])
        high = jnp.concatenate([self.thresholds, infinite])
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which is exact in the tails, too.
        gap = jnp.log1p(-jnp.exp(low - high))
        return jax.nn.log_sigmoid(score - low) + jax.nn.log_sigmoid(high - score) + gap

    def given_like(self, context: Context, taste: jax.Array, like: jax.Array) -> jax.Array:
        """Log P(rating | like) of each rating, float32[..., K]; like is bool[...]."""
        possible = self.is_like == like[..., None]
        return jax.nn.log_softmax(
            jnp.where(possible, self.log_levels(context, taste), -jnp.inf), axis=-1
        )

    def probabilities(
        self, context: Context, taste: jax.Array, probability: jax.Array
    ) -> jax.Array:
        """Probability of each rating, float32[..., K], from that of a like, float32[...]."""
        levels = self.log_levels(context, taste)
        sides = [
            jax.nn.softmax(jnp.where(side, levels, -jnp.inf), axis=-1)
            for side in (~self.is_like, self.is_like)
        ]
        return (1.0 - probability)[..., None] * sides[0] + probability[..., None] * sides[1]


@struct.dataclass
class DurationHead:
    """The log-normal distribution of durations.

    Attributes:
        item_mean: float32[N], m + b of each item, of log-durations.
        typical: float32[2], as in `RatingHead`.
        weights: float32[5], v.
        deviation: float32[], sigma.
        threshold: float32[], the logarithm of the duration from which on an interaction is a like; None where the
            like says nothing that certain.
    """

    item_mean: jax.Array
    typical: jax.Array
    weights: jax.Array
    deviation: jax.Array
    threshold: jax.Array | None = None

    def in_model(self, values: jax.Array) -> jax.Array:
        """Durations float32[...] as the Gaussian process sees them: their logarithms."""
        return jnp.log(values)

    def mean(self, context: Context, taste: jax.Array, like: jax.Array) -> jax.Array:
        """Mean of the log-duration before any cut, float32[...]; like is bool[...]."""
        constant, of_item, of_taste, of_odds, of_like = self.weights
        mean = constant + of_item * self.item_mean[context.item] + of_taste * taste
        mean = mean + of_odds * context.log_odds + of_like * like.astype(jnp.float32)
        if self.threshold is None:
            return mean + of_odds * context.shift
        return mean + self.deviation * _TO_QUANTILE * context.shift

    def quantile(self, mean: jax.Array, like: jax.Array, share: jax.Array) -> jax.Array:
        """The duration, float32[...], below which (with a like: above which) a share of durations lies.

        Args:
            mean: float32[...], of `mean`.
            like: bool[...].
            share: float32[...], above 0 and below 1.
        """
        side = jnp.where(like, 1.0, -1.0)
        if self.threshold is None:
            return jnp.exp(mean - side * self.deviation * ndtri(share))
        room = jnp.maximum(side * (mean - self.threshold) / self.deviation, _FARTHEST)
        logarithm = mean - side * self.deviation * ndtri(jnp.maximum(share * ndtr(room), _TINY))
        edge = jnp.exp(self.threshold)
        below = jnp.nextafter(edge, jnp.zeros_like(edge))
        duration = jnp.exp(logarithm)
        return jnp.where(like, jnp.maximum(duration, edge), jnp.minimum(duration, below))

    def bin_means(self, mean: jax.Array, like: jax.Array, count: int) -> jax.Array:
        """Mean durations of `count` equally probable bins, the shortest or the longest first, float32[count].

        Args:
            mean: float32[], of `mean`.
            like: bool[].
            count: how many.
        """
        side, room = jnp.where(like, 1.0, -1.0), jnp.float32(jnp.inf)
        if self.threshold is not None:
            room = jnp.maximum(side * (mean - self.threshold) / self.deviation, _FARTHEST)
        mass, shares = ndtr(room), jnp.arange(count + 1, dtype=jnp.float32) / count
        edges = ndtri(shares * mass).at[-1].set(room)
        moved = ndtr(edges + side * self.deviation)
        part = jnp.maximum(jnp.diff(moved), 0.0) * count / mass
        return jnp.exp(mean + self.deviation**2 / 2) * part

    def expected(self, context: Context, taste: jax.Array, probability: jax.Array) -> jax.Array:
        """Mean duration, float32[...], with the probability float32[...] of a like."""
        total = jnp.zeros_like(probability)
        for like, share in ((False, 1.0 - probability), (True, probability)):
            mean = self.mean(context, taste, jnp.broadcast_to(like, probability.shape))
            logarithm = mean + self.deviation**2 / 2
            if self.threshold is not None:
                room = (1.0 if like else -1.0) * (mean - self.threshold) / self.deviation
                more = self.deviation if like else -self.deviation
                logarithm = logarithm + log_ndtr(room + more) - log_ndtr(room)
            total = total + share * jnp.exp(logarithm)
        return total


@struct.dataclass
class Signals:
    """The fitted heads. Their order is that of the signals' axis [C]; a dataset without one has None."""

    rating: RatingHead | None = None
    duration: DurationHead | None = None

    @property
    def heads(self) -> Sequence[RatingHead | DurationHead]:
        """Those that are there, C of them."""
        return [head for head in (self.rating, self.duration) if head is not None]

    @property
    def names(self) -> list[str]:
        """Their names, as in `Response`."""
        return [name for name in ("rating", "duration") if getattr(self, name) is not None]

    def taste_of(self, head: RatingHead | DurationHead, tastes: jax.Array) -> jax.Array:
        """The taste float32[...] of one head among float32[..., C]."""
        return tastes[..., [one is head for one in self.heads].index(True)]


def values_of(signals: Signals, response: Response) -> jax.Array:
    """The signals of a response, float32[C]."""
    return jnp.stack([getattr(response, name) for name in signals.names])


def history_values(
    signals: Signals | None, given: Mapping[str, jax.Array], size: int
) -> jax.Array | None:
    """What is known of the signals of a history, float32[H, C], NaN where it is not known; None if nothing is.

    Args:
        signals: the heads; None if responses are likes alone.
        given: name of a signal to float[H].
        size: H.

    Raises:
        InputError: a signal that responses do not have, or not one number for each interaction.
    """
    names = [] if signals is None else signals.names
    for name, values in given.items():
        if name not in names:
            raise InputError(
                f"history_signals has {name!r}: the responses of this environment have "
                f"{' and '.join(['like', *names])}"
            )
        if jnp.shape(values) != (size,):
            raise InputError(
                f"history_signals[{name!r}] has shape {list(jnp.shape(values))}: pass a number for each of the "
                f"{size} items of the history"
            )
    if not given:
        return None
    unknown = jnp.full(size, jnp.nan, jnp.float32)
    return jnp.stack([jnp.asarray(given.get(n, unknown), jnp.float32) for n in names], axis=1)


def residuals(
    signals: Signals, items: jax.Array, likes: jax.Array, values: jax.Array | None
) -> jax.Array:
    """The residuals of the signals of interactions, float32[..., C].

    Args:
        signals: the heads.
        items: int32[...].
        likes: int8[...], 1 like, any other number dislike.
        values: float32[..., C]; NaN where a value is not known, whose place the typical residual takes. None if
            none is known.
    """
    liked, parts = (likes > 0).astype(jnp.int32), []
    for index, head in enumerate(signals.heads):
        typical = head.typical[liked]
        if values is None:
            parts.append(typical)
            continue
        rest = head.in_model(values[..., index]) - head.item_mean[items]
        parts.append(jnp.where(jnp.isnan(values[..., index]), typical, rest))
    return jnp.stack(parts, axis=-1)


def answer(
    key: jax.Array, signals: Signals, semantics: str, context: Context, decision: Decision
) -> Decision:
    """A decision whose response has the signals, too.

    Args:
        key: PRNG key of the like.
        signals: the heads.
        semantics: "calibrated" draws the signals given the like; "soft" states their expectations.
        context: of one item.
        decision: with the like and its probability.
    """
    response, probability = decision.response, decision.probability
    like = response.like > 0
    if signals.rating is not None:
        head = signals.rating
        taste = signals.taste_of(head, context.tastes)
        chances = head.probabilities(context, taste, probability)
        if semantics == "calibrated":
            share = _open_uniform(jax.random.fold_in(key, _RATING_STREAM))
            rating = head.levels[_level_at(share, head.given_like(context, taste, like))]
        else:
            rating = jnp.sum(chances * head.levels, axis=-1)
        response = replace(response, rating=rating)
        decision = replace(decision, rating_probabilities=chances)
    if signals.duration is not None:
        of_durations = signals.duration
        taste = signals.taste_of(of_durations, context.tastes)
        duration = expected = of_durations.expected(context, taste, probability)
        if semantics == "calibrated":
            share = _open_uniform(jax.random.fold_in(key, _DURATION_STREAM))
            mean = of_durations.mean(context, taste, like)
            duration = of_durations.quantile(mean, like, share)
        response = replace(response, duration=duration)
        decision = replace(decision, expected_duration=expected)
    return replace(decision, response=response)


def _level_at(share: jax.Array, log_probabilities: jax.Array) -> jax.Array:
    """The level int32[] up to which a share float32[] of the probability float32[K] lies: one draw, not K."""
    total = jnp.cumsum(jnp.exp(log_probabilities))
    # The total may be a little more or less than 1, and a level without probability must never be reached.
    below = jnp.minimum(share * total[-1], jnp.nextafter(total[-1], jnp.float32(0)))
    return jnp.sum(total <= below, dtype=jnp.int32)


def _open_uniform(key: jax.Array) -> jax.Array:
    """A uniform number above 0 and below 1, float32[]."""
    return jax.random.uniform(key, (), jnp.float32, minval=_TINY)
