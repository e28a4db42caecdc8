"""The taste model: a Gaussian process over what a user likes more, or less, than other people do.

The mean like rate m, the item's effect b_c and the user's taste g(c) explain a user's label y of an item c. The
taste has a Gaussian-process prior. Its kernel says which items a user tends to like together: items in the same
categories, from the same years, whose pros or cons mean similar things (the language model's keywords), and items
that people rated alike. A part of the kernel decays with the number of interactions between two items: the mood.
With the history h of items and labels y_h,

    g(c) = k(c, h)' (K_hh + I)^-1 (y_h - m - b_h)
    p(c) = sigmoid(w_0 + w_1 (m + b_c) + w_2 g(c))

The posterior is updated one interaction at a time. The state holds the inverse L^-1 of the Cholesky factor of
K_hh + I, to which each interaction appends a row, and the weights alpha = (K_hh + I)^-1 (y_h - m - b_h) of the
history. So a step costs two products of a vector with L^-1. docs/taste.md derives it.
"""

import chex
import jax
import jax.numpy as jnp
from flax import struct

_PRECISION = jax.lax.Precision.HIGHEST


@struct.dataclass
class KernelTable:
    """The items' kernel for every pair of N items.

    Attributes:
        values: float32[N, N], without the mood.
    """

    values: jax.Array

    def between(self, item: jax.Array, others: jax.Array) -> jax.Array:
        """The kernel of an item int32[] with others int32[...], float32[...]."""
        return self.values[item, others]

    def among(self, items: jax.Array) -> jax.Array:
        """The kernel of all pairs of items int32[H], float32[H, H]."""
        return self.values[items[:, None], items[None]]

    def weighted_sums(self, items: jax.Array, weights: jax.Array) -> jax.Array:
        """For each of N items, the sum of the kernel with items int32[H] times weights float32[H]; float32[N]."""
        return jnp.matmul(weights, self.values[items], precision=_PRECISION)


@struct.dataclass
class KernelFeatures:
    """Features whose inner products are the items' kernel, for catalogues too large for a table.

    Attributes:
        values: float32[N, F].
    """

    values: jax.Array

    def between(self, item: jax.Array, others: jax.Array) -> jax.Array:
        """As `KernelTable.between`."""
        return jnp.matmul(self.values[others], self.values[item], precision=_PRECISION)

    def among(self, items: jax.Array) -> jax.Array:
        """As `KernelTable.among`."""
        rows = self.values[items]
        return jnp.matmul(rows, rows.T, precision=_PRECISION)

    def weighted_sums(self, items: jax.Array, weights: jax.Array) -> jax.Array:
        """As `KernelTable.weighted_sums`."""
        direction = jnp.matmul(weights, self.values[items], precision=_PRECISION)
        return jnp.matmul(self.values[:], direction, precision=_PRECISION)


ItemKernel = KernelTable | KernelFeatures


@struct.dataclass
class TasteModel:
    """The fitted model on the device.

    Attributes:
        kernel: the items' part of the kernel.
        mood_weight: float32[], the kernel of the mood at distance 0.
        mood_decay: float32[], its factor for each interaction in between.
        item_mean: float32[N], m + b of each item.
        calibration: float32[3], w_0, w_1 and w_2.
    """

    kernel: ItemKernel
    mood_weight: jax.Array
    mood_decay: jax.Array
    item_mean: jax.Array
    calibration: jax.Array

    def log_odds(self, item_mean: jax.Array, taste: jax.Array) -> jax.Array:
        """Log-odds of a like from m + b and g, float32[...] each."""
        intercept, of_item, of_taste = self.calibration
        return intercept + of_item * item_mean + of_taste * taste


@struct.dataclass
class Posterior:
    """What a history of n interactions says about a user's taste, in arrays for H of them.

    Attributes:
        inverse_factor: float32[H, H], L^-1 with L L' = K_hh + I; rows from n on are meaningless.
        weights: float32[H], alpha = (K_hh + I)^-1 (y_h - m - b_h); zero from n on.
    """

    inverse_factor: jax.Array
    weights: jax.Array


def history_kernel(
    model: TasteModel, candidate: jax.Array, items: jax.Array, length: jax.Array
) -> jax.Array:
    """k(c, h): the kernel of a candidate that comes next with each interaction of a history, float32[H].

    Args:
        model: the fitted model.
        candidate: int32[].
        items: int32[H], left-aligned.
        length: int32[], the number of interactions n; the kernel is 0 from there on.
    """
    chex.assert_rank([candidate, items, length], [0, 1, 0])
    position = jnp.arange(items.shape[0], dtype=jnp.int32)
    of_items = model.kernel.between(candidate, jnp.maximum(items, 0))
    of_mood = model.mood_weight * model.mood_decay ** (length - position).astype(jnp.float32)
    return jnp.where(position < length, of_items + of_mood, 0.0)


def expected_taste(posterior: Posterior, kernel: jax.Array) -> jax.Array:
    """The taste g(c) from `history_kernel`, float32[]."""
    return jnp.matmul(kernel, posterior.weights, precision=_PRECISION)


def expected_tastes(
    model: TasteModel, posterior: Posterior, items: jax.Array, length: jax.Array
) -> jax.Array:
    """The taste g for every item after the history items int32[H], of length int32[]; float32[N]."""
    position = jnp.arange(items.shape[0], dtype=jnp.int32)
    decay = model.mood_decay ** jnp.maximum(length - position, 0).astype(jnp.float32)
    mood = model.mood_weight * jnp.sum(decay * posterior.weights)  # weights are zero for padding
    return model.kernel.weighted_sums(jnp.maximum(items, 0), posterior.weights) + mood


def update(
    model: TasteModel,
    posterior: Posterior,
    kernel: jax.Array,
    item: jax.Array,
    like: jax.Array,
    length: jax.Array,
) -> Posterior:
    """The posterior after one more interaction.

    With k = k(c, h), the new row of the Cholesky factor is [l', d], l = L^-1 k and d^2 = k(c, c) + 1 - l'l. So the
    new row of its inverse is [-(l' L^-1) / d, 1 / d], and alpha grows by this row times (y - m - b - g(c)) / d.

    Args:
        model: the fitted model.
        posterior: of the history before, [H].
        kernel: float32[H], `history_kernel` of the item.
        item: int32[].
        like: int8[], 1 like, any other number dislike.
        length: int32[], interactions before this one; H or more appends nothing.
    """
    inverse = posterior.inverse_factor
    in_use = jnp.arange(inverse.shape[0], dtype=jnp.int32) < length
    residual = (like > 0).astype(jnp.float32) - model.item_mean[item]
    surprise = residual - expected_taste(posterior, kernel)
    explained = jnp.where(in_use, jnp.matmul(inverse, kernel, precision=_PRECISION), 0.0)
    own = model.kernel.between(item, item) + model.mood_weight + 1.0
    pivot = jnp.sqrt(own - jnp.sum(explained**2))  # at least 1, the noise
    row = -jnp.matmul(explained, inverse, precision=_PRECISION) / pivot
    row = row.at[length].set(1.0 / pivot, mode="drop")
    appended = length < inverse.shape[0]
    return Posterior(
        inverse_factor=inverse.at[length].set(row, mode="drop"),
        weights=posterior.weights + jnp.where(appended, row * (surprise / pivot), 0.0),
    )


def condition(
    model: TasteModel, items: jax.Array, likes: jax.Array, length: jax.Array
) -> Posterior:
    """The posterior of a whole history, by one Cholesky factorisation.

    Args:
        model: the fitted model.
        items: int32[H], left-aligned; entries from `length` on are ignored.
        likes: int8[H], 1 like, any other number dislike.
        length: int32[].
    """
    chex.assert_equal_shape([items, likes])
    position = jnp.arange(items.shape[0], dtype=jnp.int32)
    valid, safe = position < length, jnp.maximum(items, 0)
    distance = jnp.abs(position[:, None] - position[None]).astype(jnp.float32)
    kernel = model.kernel.among(safe) + model.mood_weight * model.mood_decay**distance
    kernel = jnp.where(valid[:, None] & valid[None], kernel, 0.0)
    identity = jnp.eye(items.shape[0], dtype=jnp.float32)
    factor = jnp.linalg.cholesky(kernel + identity)
    inverse = jax.scipy.linalg.solve_triangular(factor, identity, lower=True)
    inverse = jnp.where(valid[:, None], inverse, 0.0)
    residual = jnp.where(valid, (likes > 0).astype(jnp.float32) - model.item_mean[safe], 0.0)
    weights = jnp.matmul(
        jnp.matmul(inverse, residual, precision=_PRECISION), inverse, precision=_PRECISION
    )
    return Posterior(inverse_factor=inverse, weights=weights)
