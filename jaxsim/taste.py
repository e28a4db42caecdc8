"""The taste model: a Gaussian process over what a user likes more, or less, than other people do.

The mean like rate m, the item's effect b_c and the user's taste g(c) explain a user's label y of an item c. The
taste has a Gaussian-process prior. Its kernel says which items a user tends to like together: items in the same
categories, from the same years, whose pros or cons mean similar things (the language model's keywords), and items
that people rated alike. A part of the kernel decays with the number of interactions between two items: the mood.
With the history h of items and labels y_h,

    g(c) = k(c, h)' (K_hh + I)^-1 (y_h - m - b_h)
    p(c) = sigmoid(w_0 + w_1 (m + b_c) + w_2 g(c))

With the Cholesky factor L of K_hh + I, the scores z = L^-1 (y_h - m - b_h) and l = L^-1 k(c, h), the taste is
g(c) = l'z. `jaxsim.taste_session` updates L and z one interaction at a time.
"""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
from flax import struct

from jaxsim.signals import Signals, residuals

# Items whose kernel with a whole history is held at once.
_ITEMS_AT_ONCE = 4096


def product(left: jax.Array, right: jax.Array) -> jax.Array:
    """A matrix product at full precision, which a GPU would otherwise round."""
    return jnp.matmul(left, right, precision=jax.lax.Precision.HIGHEST)


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
        return product(weights, self.values[items])

    def squared_lengths(
        self, transform: jax.Array, items: jax.Array, offset: jax.Array
    ) -> jax.Array:
        """|A k(h, c) + o|^2 for each of N items c, float32[N].

        Args:
            transform: float32[H, H], A.
            items: int32[H], h.
            offset: float32[H], o.
        """
        return jnp.sum((product(transform, self.values[items]) + offset[:, None]) ** 2, axis=0)


@struct.dataclass
class KernelFeatures:
    """Features whose inner products are the items' kernel, for catalogues too large for a table.

    Attributes:
        values: float32[N, F].
    """

    values: jax.Array

    def between(self, item: jax.Array, others: jax.Array) -> jax.Array:
        """As `KernelTable.between`."""
        return product(self.values[others], self.values[item])

    def among(self, items: jax.Array) -> jax.Array:
        """As `KernelTable.among`."""
        rows = self.values[items]
        return product(rows, rows.T)

    def weighted_sums(self, items: jax.Array, weights: jax.Array) -> jax.Array:
        """As `KernelTable.weighted_sums`."""
        direction = product(weights, self.values[items])
        return product(self.values[:], direction)

    def squared_lengths(
        self, transform: jax.Array, items: jax.Array, offset: jax.Array
    ) -> jax.Array:
        """As `KernelTable.squared_lengths`."""
        rows = product(transform, self.values[items])
        # In batches, because H values for every item of a large catalogue would not fit the memory.
        return jax.lax.map(
            lambda features: jnp.sum((product(rows, features) + offset) ** 2),
            self.values[:],
            batch_size=_ITEMS_AT_ONCE,
        )


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
        features: float32[N, F], whose inner products are the items' part of the kernel; None if no taste is drawn.
            Every device has all of them, even if the kernel's rows are split over devices: a session that begins
            reads them in a loop, where it must not wait for other devices.
        signals: what ratings and durations follow from; None if responses are likes alone.
    """

    kernel: ItemKernel
    mood_weight: jax.Array
    mood_decay: jax.Array
    item_mean: jax.Array
    calibration: jax.Array
    features: jax.Array | None = None
    signals: Signals | None = None

    @property
    def item_features(self) -> jax.Array:
        """Features of the items' part of the kernel, float32[N, F], in a model from which tastes are drawn."""
        assert self.features is not None  # `make` puts them there
        return self.features

    def log_odds(self, item_mean: jax.Array, taste: jax.Array) -> jax.Array:
        """Log-odds of a like from m + b and g, float32[...] each."""
        intercept, of_item, of_taste = self.calibration
        return intercept + of_item * item_mean + of_taste * taste


@struct.dataclass
class Posterior:
    """What a history of n interactions says about a user's taste, in arrays for H of them.

    Attributes:
        inverse_factor: float32[H, H], L^-1 with L L' = K_hh + I; zero from n on.
        scores: float32[H], z = L^-1 (y_h - m - b_h); zero from n on.
        signal_scores: float32[H, C], the same for the residuals of C signals (`jaxsim.signals`); None without any.
    """

    inverse_factor: jax.Array
    scores: jax.Array
    signal_scores: jax.Array | None = None

    @property
    def weights(self) -> jax.Array:
        """The weights alpha = (K_hh + I)^-1 (y_h - m - b_h), so that g(c) = k(c, h)' alpha; float32[H]."""
        return product(self.scores, self.inverse_factor)


def kernel_with(
    model: TasteModel,
    candidate: jax.Array,
    items: jax.Array,
    position: jax.Array,
    valid: jax.Array,
    length: jax.Array,
) -> jax.Array:
    """k(c, h): the kernel of a candidate that comes next with each interaction of a history, float32[H].

    Args:
        model: the fitted model.
        candidate: int32[].
        items: int32[H].
        position: int32[H], of each interaction, counted from 0.
        valid: bool[H], False for padding, where the kernel is 0.
        length: int32[], the candidate's position.
    """
    chex.assert_equal_shape([items, position, valid])
    of_items = model.kernel.between(candidate, jnp.maximum(items, 0))
    of_mood = model.mood_weight * mood_decays(model, position, length)
    return jnp.where(valid, of_items + of_mood, 0.0)


def mood_decays(model: TasteModel, position: jax.Array, length: jax.Array) -> jax.Array:
    """What is left at position `length` int32[] of the mood at positions int32[H], float32[H]."""
    return model.mood_decay ** jnp.maximum(length - position, 0).astype(jnp.float32)


def history_kernel(
    model: TasteModel, candidate: jax.Array, items: jax.Array, length: jax.Array
) -> jax.Array:
    """`kernel_with` for left-aligned items int32[H], of which `length` int32[] count; float32[H]."""
    position = jnp.arange(items.shape[0], dtype=jnp.int32)
    return kernel_with(model, candidate, items, position, position < length, length)


def own_kernel(model: TasteModel, item: jax.Array) -> jax.Array:
    """k(c, c) of an item int32[], float32[]."""
    return model.kernel.between(item, item) + model.mood_weight


def expected_tastes(
    model: TasteModel,
    weights: jax.Array,
    items: jax.Array,
    position: jax.Array,
    length: jax.Array,
) -> jax.Array:
    """The taste g for every item, which would come next; float32[N].

    Args:
        model: the fitted model.
        weights: float32[H], alpha; zero for padding.
        items, position: int32[H], of the history.
        length: int32[], the candidates' position.
    """
    mood = model.mood_weight * jnp.sum(mood_decays(model, position, length) * weights)
    return model.kernel.weighted_sums(jnp.maximum(items, 0), weights) + mood


def condition(
    model: TasteModel,
    items: jax.Array,
    likes: jax.Array,
    length: jax.Array,
    values: jax.Array | None = None,
) -> Posterior:
    """The posterior of a whole history.

    Args:
        model: the fitted model.
        items: int32[H], left-aligned; entries from `length` on are ignored.
        likes: int8[H], 1 like, any other number dislike.
        length: int32[].
        values: float32[H, C], ratings and durations, NaN where one is not known; None if none is.
    """
    chex.assert_equal_shape([items, likes])
    signals = model.signals
    if items.shape[0] == 0:
        none = None if signals is None else jnp.zeros((0, len(signals.heads)), jnp.float32)
        return Posterior(jnp.zeros((0, 0), jnp.float32), jnp.zeros(0, jnp.float32), none)
    position = jnp.arange(items.shape[0], dtype=jnp.int32)
    valid, safe = position < length, jnp.maximum(items, 0)
    distance = jnp.abs(position[:, None] - position[None]).astype(jnp.float32)
    kernel = model.kernel.among(safe) + model.mood_weight * model.mood_decay**distance
    residual = jnp.where(valid, residual_of(model, safe, likes), 0.0)

    # Row by row, without LAPACK: on a CPU its threads and XLA's get in each other's way where many small systems
    # are solved at once.
    def append(inverse: jax.Array, row: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        index, kernel_row = row
        before = jnp.where(position < index, kernel_row, 0.0)
        solved = product(inverse, before)
        pivot = jnp.sqrt(kernel_row[index] + 1.0 - jnp.sum(solved**2))
        new_row = (-product(solved, inverse) / pivot).at[index].set(1.0 / pivot)
        return inverse.at[index].set(jnp.where(valid[index], new_row, 0.0)), None

    empty = jnp.zeros_like(kernel)
    inverse, _ = jax.lax.scan(append, empty, (position, kernel))
    posterior = Posterior(inverse_factor=inverse, scores=product(inverse, residual))
    if signals is None:
        return posterior
    rest = jnp.where(valid[:, None], residuals(signals, safe, likes, values), 0.0)
    return replace(posterior, signal_scores=product(inverse, rest))


def residual_of(model: TasteModel, item: jax.Array, like: jax.Array) -> jax.Array:
    """The residuals y - m - b, float32[...].

    Args:
        model: the fitted model.
        item: int32[...].
        like: int8[...], 1 like, any other number dislike.
    """
    return (like > 0).astype(jnp.float32) - model.item_mean[item]
