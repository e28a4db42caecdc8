"""Choosing one of N items: at random, the best, or from a masked softmax; cheap for large catalogues.

The functions are of one state's scores float32[N] and are vmapped. None draws N random numbers: one uniform and a
search among cumulative sums of blocks choose an item, which costs about one pass over the scores.
"""

import math

import jax
import jax.numpy as jnp

# Finite, so that 0 x log 0 is 0 in gradients too.
MASKED_LOGIT = -1e30


def draw_weighted(key: jax.Array, weights: jax.Array) -> jax.Array:
    """An item drawn with probability in proportion to its weight, int32[].

    Args:
        key: PRNG key.
        weights: float32[N], not negative, at least one above zero.
    """
    num_items = weights.shape[0]
    width = math.isqrt(num_items - 1) + 1
    count = -(-num_items // width)
    blocks = jnp.pad(weights, (0, count * width - num_items)).reshape(count, width)
    sums = blocks.sum(axis=1)
    total = sums.sum()
    aim = jax.random.uniform(key, (), jnp.float32) * total
    block, rest = _first_above(sums, aim)
    column, _ = _first_above(blocks[block], rest)
    return block * width + column


def _first_above(weights: jax.Array, aim: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first index with a weight whose cumulative weight is above `aim`, and how far into it `aim` lies.

    Rounding may put `aim` at or above the sum: then it is the last index that has any weight. It may also leave a
    cumulative weight a little above the one before where nothing was added, so only indices with a weight count.
    """
    cumulative = jnp.cumsum(weights)
    index = jnp.arange(weights.shape[0], dtype=jnp.int32)
    weighs = weights > 0
    last = jnp.max(jnp.where(weighs, index, 0))
    chosen = jnp.min(jnp.where(weighs & (cumulative > aim), index, last))
    return chosen, aim - (cumulative[chosen] - weights[chosen])


def random_allowed(key: jax.Array, mask: jax.Array) -> jax.Array:
    """An item drawn uniformly from those allowed, int32[].

    Args:
        key: PRNG key.
        mask: bool[N] of `env.action_mask`, at least one True.
    """
    return draw_weighted(key, mask.astype(jnp.float32))


def best_allowed(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The allowed item of the highest score, the first of equals, int32[]; scores float32[N], mask bool[N]."""
    allowed = jnp.where(mask, scores, -jnp.inf)
    index = jnp.arange(scores.shape[0], dtype=jnp.int32)
    # Two plain reductions: on a CPU, XLA's argmax takes ten times as long.
    best = jnp.where(mask & (allowed == allowed.max()), index, scores.shape[0])
    return jnp.minimum(best.min(), scores.shape[0] - 1)


def epsilon_greedy(
    key: jax.Array, scores: jax.Array, mask: jax.Array, epsilon: jax.Array
) -> jax.Array:
    """The best allowed item, or with chance epsilon any allowed one, int32[]."""
    key_explore, key_random = jax.random.split(key)
    explore = jax.random.bernoulli(key_explore, epsilon)
    return jnp.where(explore, random_allowed(key_random, mask), best_allowed(scores, mask))


def mask_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Logits with those of items that are not allowed so low that their probability is 0, float32[..., N]."""
    return jnp.where(mask, logits, MASKED_LOGIT)


def draw_softmax(key: jax.Array, logits: jax.Array) -> jax.Array:
    """An item drawn from the softmax of masked logits float32[N], int32[]."""
    return draw_weighted(key, jnp.exp(logits - logits.max()))


def entropy(log_probabilities: jax.Array) -> jax.Array:
    """Entropy in nats of log-probabilities float32[..., N] of masked logits, float32[...]."""
    return -(jnp.exp(log_probabilities) * log_probabilities).sum(axis=-1)


def kl_divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) in nats of log-probabilities float32[..., N] with the same mask, float32[...]."""
    return (jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def score_of(scores: jax.Array, item: jax.Array) -> jax.Array:
    """The score of items int32[...] among float32[..., N], float32[...]."""
    return jnp.take_along_axis(scores, item[..., None], axis=-1)[..., 0]
