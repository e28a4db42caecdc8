"""Networks that score all items after an observation.

An encoder reads the window: items and the user's responses. Items are scored by the inner product of their
embeddings with the encoded state. The network does not read the user's id, so it serves users that it was not
trained on.

All parameters are float32, also with `jax_enable_x64`.
"""

from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxsim import Observation

Encoder = Literal["mean", "gru", "attention", "residual"]

# One integer counts the likes of an item in its low half and the dislikes in its high half.
_DISLIKE_BIT = 16
_DISLIKE = 1 << _DISLIKE_BIT
# With at most this many items, other devices than a CPU average by a product with the counts of all items. On a
# CPU adding up the window's rows is twice as fast with 1,682 items, and 20 times with 14,684.
_LARGEST_PRODUCT = 2048
_HISTORY_STD, ITEM_STD = 0.1, 0.01
HISTORY_EMBEDDING, ITEM_EMBEDDING = "history_embedding", "item_embedding"
CHOICE_EMBEDDING, CHOICE_BIAS = "choice_embedding", "choice_bias"
ITEM_BIAS = "item_bias"
ITEM_FEATURES, ITEM_RATE = "item_features", "item_rate"
# The tables with a row for each item: those by which items are scored, and those that the encoder reads.
CHOICE_TABLES = (ITEM_EMBEDDING, ITEM_BIAS, CHOICE_EMBEDDING, CHOICE_BIAS)
WINDOW_TABLES = (HISTORY_EMBEDDING, ITEM_FEATURES, ITEM_RATE)
# Steps of conjugate gradients: with MovieLens 100K, 3 rank items as well as 8.
_SOLVER_STEPS = 4
_TINY = 1e-12


@struct.dataclass
class ItemStart:
    """What a network knows of the items before training.

    Attributes:
        vectors: float32[N, width], item vectors.
        log_odds: float32[N], log-odds that an item is liked; None if nothing is known.
    """

    vectors: jax.Array
    log_odds: jax.Array | None = None


class HistoryEncoder(nn.Module):
    """Encodes the window of a user.

    Attributes:
        num_items: N.
        width: width of the item embeddings, and of the result.
        kind: "mean" averages the embeddings of liked and of disliked items, in any order; "gru" reads the window
            in order (Cho et al., 2014); "attention" attends to it with a query from the latest item; "residual"
            regresses what the user liked more, or less, than other people on fixed item features. Its result has
            two parts: the encoding, and the coefficients of the regression.
    """

    num_items: int
    width: int
    kind: Encoder = "mean"

    @nn.compact
    def __call__(self, obs: Observation) -> jax.Array:
        """Encode observations with any leading dimensions: float32[..., width], "residual" [..., 2 width]."""
        lead = obs.length.shape
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(lead) :]), obs)
        used = jnp.maximum(flat.length, 1).astype(jnp.float32)
        liked = (flat.responses > 0).sum(-1) / used
        counts = jnp.stack([liked, flat.length / flat.items.shape[-1]], axis=-1)
        window = self._read(flat)
        x = jnp.concatenate([window, counts.astype(jnp.float32)], axis=-1)
        x = nn.relu(nn.Dense(2 * self.width)(x))
        x = nn.relu(nn.Dense(self.width)(x))
        if self.kind == "residual":
            x = jnp.concatenate([x, window], axis=-1)
        return x.reshape(*lead, x.shape[-1])

    def _read(self, obs: Observation) -> jax.Array:
        """The window as one vector, float32[n, ...]."""
        if self.kind == "residual":
            return self._residual(obs)
        # A row has two halves: the embedding of a like of the item, and of a dislike.
        table = self.param(
            HISTORY_EMBEDDING,
            nn.initializers.normal(_HISTORY_STD),
            (self.num_items, 2 * self.width),
            jnp.float32,
        )
        read = {"mean": self._mean, "gru": self._gru, "attention": self._attention}[self.kind]
        return read(table, obs)

    def _residual(self, obs: Observation) -> jax.Array:
        """Coefficients of a Bayesian linear regression of residuals on item features, float32[n, width].

        A residual is the response, 1 or 0, minus the item's rate. Features and rates are not trained, so no
        gradient is scattered into them; their scales are, which are the prior's standard deviations.
        """
        shape = (self.num_items, self.width)
        table = self.param(ITEM_FEATURES, nn.initializers.normal(_HISTORY_STD), shape, jnp.float32)
        rate = self.param(ITEM_RATE, nn.initializers.constant(0.5), (self.num_items,), jnp.float32)
        scale = self.param("feature_scale", nn.initializers.ones, (self.width,), jnp.float32)
        items, present = jnp.maximum(obs.items, 0), obs.responses != 0
        expected = jax.lax.stop_gradient(rate)[items]
        residuals = jnp.where(present, (obs.responses > 0) - expected, 0.0)
        features = jnp.where(present[..., None], jax.lax.stop_gradient(table)[items], 0.0) * scale
        return scale * _ridge(features, residuals)

    def _mean(self, table: jax.Array, obs: Observation) -> jax.Array:
        """Means over liked and over disliked items, float32[n, 2 width]; zero where there are none."""
        by_product = self.num_items <= _LARGEST_PRODUCT and jax.default_backend() != "cpu"
        sums = self._sums_by_product if by_product else self._sums_by_rows
        likes = (obs.responses > 0).sum(axis=-1, dtype=jnp.int32)
        dislikes = (obs.responses < 0).sum(axis=-1, dtype=jnp.int32)
        counts = jnp.maximum(jnp.stack([likes, dislikes], axis=-1), 1).astype(jnp.float32)
        # Dividing after the sum is cheaper: it has fewer numbers.
        return (sums(table, obs) / counts[..., None]).reshape(-1, 2 * self.width)

    def _sums_by_rows(self, table: jax.Array, obs: Observation) -> jax.Array:
        """Sums of the embeddings of liked and of disliked items, float32[n, 2, width], from the window's rows."""
        num_windows = obs.items.shape[0]
        disliked = obs.responses < 0
        rows = table.reshape(-1, self.width)[2 * jnp.maximum(obs.items, 0) + disliked]
        window = jnp.arange(num_windows, dtype=jnp.int32)[:, None]
        slot = jnp.where(obs.responses != 0, 2 * window + disliked, 2 * num_windows)
        sums = jnp.zeros((2 * num_windows, self.width), jnp.float32)
        # With flat indices, because a scatter with several axes of them is slower.
        sums = sums.at[slot.ravel()].add(rows.reshape(-1, self.width), mode="drop")
        return sums.reshape(num_windows, 2, self.width)

    def _sums_by_product(self, table: jax.Array, obs: Observation) -> jax.Array:
        """The same as products with the counts of each item.

        The gradient of a product is a product too. That of `_sums_by_rows` adds rows up in an order that a GPU
        does not fix, so its last bits may differ from run to run.
        """
        both = jax.vmap(self._count)(obs.items, obs.responses)
        likes, dislikes = both & (_DISLIKE - 1), both >> _DISLIKE_BIT
        halves = ((likes, table[:, : self.width]), (dislikes, table[:, self.width :]))
        return jnp.stack([count.astype(jnp.float32) @ half for count, half in halves], axis=1)

    def _count(self, items: jax.Array, responses: jax.Array) -> jax.Array:
        """Likes plus _DISLIKE times dislikes of every item in one window, int32[N]."""
        slot = jnp.where(responses != 0, items, self.num_items)
        value = jnp.where(responses > 0, 1, _DISLIKE).astype(jnp.int32)
        return jnp.zeros(self.num_items, jnp.int32).at[slot].add(value, mode="drop")

    def _tokens(self, table: jax.Array, obs: Observation) -> jax.Array:
        """Embeddings of the items and responses of the window, float32[n, W, width]; zero for padding."""
        rows = table.reshape(-1, self.width)
        row = 2 * jnp.maximum(obs.items, 0) + (obs.responses < 0)
        return jnp.where((obs.responses != 0)[..., None], rows[row], 0.0)

    def _gru(self, table: jax.Array, obs: Observation) -> jax.Array:
        """State of a GRU after the latest item, float32[n, width]."""
        carry, _ = nn.RNN(nn.GRUCell(self.width), return_carry=True)(
            self._tokens(table, obs), seq_lengths=obs.length
        )
        return jnp.where((obs.length > 0)[:, None], carry, 0.0)

    def _attention(self, table: jax.Array, obs: Observation) -> jax.Array:
        """The window weighted by attention from the latest item, with a bias by recency, float32[n, 2 width]."""
        tokens = self._tokens(table, obs)
        size = obs.items.shape[-1]
        ago = obs.length[..., None] - 1 - jnp.arange(size, dtype=jnp.int32)
        recency = self.param("recency", nn.initializers.zeros, (size,), jnp.float32)
        latest = jnp.maximum(obs.length - 1, 0)[..., None, None]
        last = jnp.take_along_axis(tokens, latest, axis=-2)[..., 0, :]
        query, keys = nn.Dense(self.width)(last), nn.Dense(self.width)(tokens)
        scores = (keys @ query[..., None])[..., 0] / jnp.sqrt(jnp.float32(self.width))
        scores = scores + recency[jnp.clip(ago, 0, size - 1)]
        weights = nn.softmax(jnp.where(obs.responses != 0, scores, -1e30), axis=-1)
        pooled = (weights[..., None] * nn.Dense(self.width)(tokens)).sum(axis=-2)
        return jnp.concatenate([pooled, last], axis=-1)


def _ridge(features: jax.Array, targets: jax.Array) -> jax.Array:
    """(X'X + I)^-1 X'y by a few steps of conjugate gradients, float32[n, F].

    Args:
        features: float32[n, W, F], X.
        targets: float32[n, W], y.
    """

    def product(x: jax.Array) -> jax.Array:
        return jnp.einsum("nwf,nw->nf", features, jnp.einsum("nwf,nf->nw", features, x)) + x

    def dot(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(x * y, axis=-1, keepdims=True)

    residual = jnp.einsum("nwf,nw->nf", features, targets)
    solution, direction = jnp.zeros_like(residual), residual
    for _ in range(_SOLVER_STEPS):
        image, size = product(direction), dot(residual, residual)
        # Where the system is solved already, or there is no history, both are zero.
        step = size / jnp.maximum(dot(direction, image), _TINY)
        solution, residual = solution + step * direction, residual - step * image
        direction = residual + dot(residual, residual) / jnp.maximum(size, _TINY) * direction
    return solution


class ActorCritic(nn.Module):
    """Logits <g(s), e_i> + b_i of every item, and the value V(s) of a state.

    Attributes:
        num_items: N.
        width: width of the item embeddings e, of the encoding and of g.
        encoder: see `HistoryEncoder`.
        initial_value: V before training, and the unit of V: the head learns V / initial_value.
        separate_critic: whether V reads an encoder of its own, so that no parameter serves both actor and critic;
            otherwise both read one encoder.
        num_window_items: rows of the tables that the encoder reads; by default N (`agents.algorithms.rows`).
    """

    num_items: int
    width: int = 32
    encoder: Encoder = "mean"
    initial_value: float | jax.Array = 1.0
    separate_critic: bool = False
    num_window_items: int | None = None

    def setup(self) -> None:
        """Declare the layers."""
        read = self.num_items if self.num_window_items is None else self.num_window_items
        self.history = HistoryEncoder(read, self.width, self.encoder)
        if self.separate_critic:
            self.critic_history = HistoryEncoder(read, self.width, self.encoder)
        self.direction = nn.Dense(self.width)
        self.item_embedding = self.param(
            ITEM_EMBEDDING,
            nn.initializers.normal(ITEM_STD),
            (self.num_items, self.width),
            jnp.float32,
        )
        self.item_bias = self.param(
            ITEM_BIAS, nn.initializers.zeros, (self.num_items,), jnp.float32
        )
        self.critic_hidden = nn.Dense(self.width)
        self.critic = nn.Dense(1, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.ones)

    def __call__(self, obs: Observation) -> jax.Array:
        """Logits, float32[..., N]. Calls every layer, so that `init` makes all parameters."""
        return self.logits_and_value(obs)[0]

    def logits(self, obs: Observation) -> jax.Array:
        """Logits, float32[..., N], from the actor's parameters only."""
        return self._logits(self.history(obs))

    def logits_and_value(self, obs: Observation) -> tuple[jax.Array, jax.Array]:
        """Logits float32[..., N] and values float32[...]."""
        state = self.history(obs)
        critic_state = self.critic_history(obs) if self.separate_critic else state
        return self._logits(state), self._value(critic_state)

    def value(self, obs: Observation) -> jax.Array:
        """Values, float32[...]."""
        history = self.critic_history if self.separate_critic else self.history
        return self._value(history(obs))

    def _logits(self, state: jax.Array) -> jax.Array:
        logits = self.direction(state) @ self.item_embedding.T + self.item_bias
        chex.assert_shape(logits, (*state.shape[:-1], self.num_items))
        return logits

    def _value(self, state: jax.Array) -> jax.Array:
        hidden = nn.relu(self.critic_hidden(state))
        return jnp.asarray(self.initial_value, jnp.float32) * self.critic(hidden)[..., 0]


class DuelingItemScorer(ActorCritic):
    """Action values Q(s, i) = V(s) + <g(s), e_i> + b_i of every item (dueling networks, Wang et al., 2016)."""

    def __call__(self, obs: Observation) -> jax.Array:
        """Action values, float32[..., N]."""
        logits, value = self.logits_and_value(obs)
        return value[..., None] + logits

    def value_of(self, obs: Observation, item: jax.Array) -> jax.Array:
        """Action values of one item int32[...] for each observation, float32[...]; no others are computed."""
        state = self.history(obs)
        scores = (self.direction(state) * self.item_embedding[item]).sum(axis=-1)
        return self._value(state) + scores + self.item_bias[item]


# Of a network with a separate critic: the parameters that the actor does not read.
CRITIC_LAYERS = ("critic_history", "critic_hidden", "critic")


_OF_CHOICE = {
    ITEM_EMBEDDING: CHOICE_EMBEDDING,
    ITEM_BIAS: CHOICE_BIAS,
    "direction/kernel": "choice_direction/kernel",
}


def with_item_start(variables: Any, start: ItemStart, scale: float | jax.Array) -> Any:
    """Variables that start from what is known of the items, in the actor and in a separate critic.

    With the encoder "residual" the first scores are the log-odds of a like times `scale`: those of the item and
    those of the user's taste, which is a regression on the item vectors. With any other encoder the embeddings
    start from the vectors, scaled to their usual size. Where a network has scores by which users choose
    (`agents.algorithms.slate_q`), they start from the log-odds, and values of items do not.

    Args:
        variables: the variables of an `ActorCritic`.
        start: item vectors, and log-odds if they are known. "residual" needs both.
        scale: of the log-odds.
    """
    unit = start.vectors / jnp.sqrt(jnp.mean(start.vectors**2) + _TINY)
    values = {
        ITEM_EMBEDDING: ITEM_STD * unit,
        HISTORY_EMBEDDING: _HISTORY_STD * jnp.tile(unit, (1, 2)),
    }
    if start.log_odds is not None:
        values[ITEM_BIAS] = scale * start.log_odds
    if _has_leaf(variables, ITEM_FEATURES):
        values |= _residual_start(start, scale)
    if _has_leaf(variables, CHOICE_EMBEDDING):
        values = {_OF_CHOICE.get(name, name): value for name, value in values.items()}
        values[ITEM_EMBEDDING] = ITEM_STD * unit

    def replace(path: Any, leaf: jax.Array) -> jax.Array:
        name = "/".join(key.key for key in path[-2:])
        value = values.get(name, values.get(path[-1].key, leaf))
        chex.assert_equal_shape([leaf, value])
        return value

    return jax.tree_util.tree_map_with_path(replace, variables)


def _residual_start(start: ItemStart, scale: float | jax.Array) -> dict[str, jax.Array]:
    """Values by name with which <g(s), e_i> is `scale` times the log-odds that the regression adds for item i."""
    assert start.log_odds is not None
    width = start.vectors.shape[1]
    rate = jax.nn.sigmoid(start.log_odds)
    # A small difference of a rate p is as many log-odds, divided by p (1 - p).
    gain = scale / jnp.mean(rate * (1 - rate))
    # Shared between both factors, so that the optimiser's steps mean as much in each.
    of_taste = jnp.sqrt(gain) * jnp.eye(width, dtype=jnp.float32)
    return {
        ITEM_FEATURES: start.vectors,
        ITEM_RATE: rate,
        ITEM_EMBEDDING: jnp.sqrt(gain) * start.vectors,
        "direction/kernel": jnp.concatenate([jnp.zeros_like(of_taste), of_taste]),
    }


def _has_leaf(tree: Any, name: str) -> bool:
    return any(path[-1].key == name for path, _ in jax.tree_util.tree_leaves_with_path(tree))
