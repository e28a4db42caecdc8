"""How a user chooses one item of a slate, or none: a conditional logit with a position effect.

Let s_k be the log-odds with which the user would like the item at place k = 1 ... K if it were recommended alone.
It competes with the other items and with the outside option, "none":

    u_k = s_k + b log(k)
    P(k) = exp(u_k) / (exp(o) + sum_j exp(u_j)),   P(none) = exp(o) / (exp(o) + sum_j exp(u_j))

b is the slope of position in the logarithm of the rank, o the utility of none. With o = 0 a slate of one item is
chosen with probability sigmoid(s_1), the probability of a like. b multiplies the odds of place k by k^b. Hence the
default b = -1 is the usual power law of examination, 1 / rank (Joachims, Swaminathan and Schnabel 2017, "Unbiased
learning-to-rank with biased feedback"). Both are assumptions: no dataset here says what was shown and not chosen.

The best slate. The probability that anything is chosen is S / (exp(o) + S) with S = sum_k k^b exp(s_k). It grows
with S, and S is a sum of products of two positive sequences. By the rearrangement inequality it is largest if both
are in the same order; and exchanging an item of the slate for one with a higher score increases S. So the K items
with the highest scores are best, the highest one at the place with the largest effect, and so on. No search over
slates is needed.
"""

import math
from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

Unchosen = Literal["top", "examined"]
POSITION_EFFECT = -1.0
OUTSIDE_OPTION = 0.0
NONE = -1  # the place of "none"
# Probabilities that round to 0 or 1 would have infinite log-odds.
_SMALLEST = 2.0**-25
_ROUNDING = 1e-4
_FURTHER_ENTRIES = 0.5  # room for entries beyond one a step, as a share of the steps


def log_odds(probability: jax.Array) -> jax.Array:
    """The log-odds of probabilities float32[...], within -17.4 and 17.4."""
    rest = jnp.maximum(1.0 - probability, _SMALLEST)
    return jnp.log(jnp.maximum(probability, _SMALLEST)) - jnp.log(rest)


def position_effects(slate_size: int, position_effect: float) -> jax.Array:
    """The effect b log(k) of each place, float32[K]."""
    return position_effect * jnp.log(jnp.arange(1, slate_size + 1, dtype=jnp.float32))


def utilities(scores: jax.Array, position_effect: float) -> jax.Array:
    """u_k of items with log-odds float32[K] in the order of the slate, float32[K]."""
    chex.assert_rank(scores, 1)
    return scores + position_effects(len(scores), position_effect)


def choice_probabilities(utility: jax.Array, outside_option: float) -> jax.Array:
    """P(1) ... P(K), then P(none), float32[K + 1], of utilities float32[K]."""
    return jax.nn.softmax(jnp.append(utility, jnp.float32(outside_option)))


def draw_place(key: jax.Array, probabilities: jax.Array) -> jax.Array:
    """The place that is chosen, int32[], from 0; -1 for none.

    Args:
        key: PRNG key. With K = 1 the draw is that of `jax.random.bernoulli` with P(1), so that a slate of one item
            gets the response of an item alone.
        probabilities: float32[K + 1], of `choice_probabilities`.
    """
    uniform = jax.random.uniform(key, (), jnp.float32)
    place = jnp.sum(uniform >= jnp.cumsum(probabilities[:-1]), dtype=jnp.int32)
    return jnp.where(place < len(probabilities) - 1, place, NONE)


def likeliest_place(utility: jax.Array, outside_option: float) -> jax.Array:
    """The place with the highest utility, int32[]; -1 if none is higher. On a tie the first place, none last."""
    place = jnp.argmax(utility).astype(jnp.int32)
    return jnp.where(utility[place] >= outside_option, place, NONE)


def examination(slate_size: int, position_effect: float, outside_option: float) -> jax.Array:
    """How likely the item at each place was examined if none was chosen: exp(b log(k) - o), at most 1; float32[K].

    If an item enters the history as a like when it is chosen, and with this probability as a dislike when none is,
    then an entry is a like with probability sigmoid(s_k), as if the item had been recommended alone: the odds are
    P(k) / (P(none) exp(b log(k) - o)) = exp(s_k). So what the history says about the user is not biased.
    """
    return jnp.exp(jnp.minimum(position_effects(slate_size, position_effect) - outside_option, 0.0))


def draw_examined(uniform: jax.Array, share: jax.Array) -> jax.Array:
    """Places that were examined, bool[K], each with its own probability, and as equal in number as can be.

    This is systematic sampling: the shares are laid one after the other, and a place is taken if one of the points
    u, u + 1, u + 2, ... falls into its share. So the number of places is the sum of shares, rounded up or down.

    Args:
        uniform: float32[], u in [0, 1).
        share: float32[K], of `examination`.
    """
    taken = jnp.ceil(jnp.cumsum(share) - uniform)
    return jnp.diff(taken, prepend=0.0) > 0


def most_entries(
    unchosen: Unchosen, slate_size: int, position_effect: float, outside_option: float
) -> int:
    """The most interactions that enter the history at a step; arguments as those of `SlateSimulator`."""
    if unchosen == "top":
        return 1
    effects = position_effect * np.log(np.arange(1, slate_size + 1))
    shares = np.exp(np.minimum(effects - outside_option, 0.0))
    return max(1, min(slate_size, math.ceil(shares.sum() + _ROUNDING)))


def entry_capacity(
    steps: int, unchosen: Unchosen, slate_size: int, position_effect: float, outside_option: float
) -> int:
    """The most interactions that enter in a session of at most `steps` steps.

    That is one a step, and half as many again if several may enter at a step. If a user chooses none of two slates
    in seven, as with random slates of five, this is 1.3 times what a session of this length needs on average.
    """
    most = most_entries(unchosen, slate_size, position_effect, outside_option)
    return steps if most == 1 else steps + math.ceil(_FURTHER_ENTRIES * steps)


def best_slate(
    scores: jax.Array, mask: jax.Array, slate_size: int, position_effect: float
) -> jax.Array:
    """The slate of allowed items that most probably has something to choose, int32[K]; ties go to lower items.

    Args:
        scores: float32[N], log-odds of a like, or any scores in the same order.
        mask: bool[N], allowed items, at least K.
        slate_size: K.
        position_effect: b.
    """
    chex.assert_equal_shape([scores, mask])
    _, items = jax.lax.top_k(jnp.where(mask, scores, -jnp.inf), slate_size)
    items = items.astype(jnp.int32)
    return items[::-1] if position_effect > 0 else items
