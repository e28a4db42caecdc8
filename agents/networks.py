"""Networks that score a catalogue of items after an observation."""

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxsim import Observation


class HistoryEncoder(nn.Module):
    """A user's state from his window: the mean embedding of what he liked and of what he disliked.

    The order of the window and the user's identity are not read, so the encoder serves users that it never met.

    Attributes:
        num_items: N.
        width: width of the item embeddings and of the result.
    """

    num_items: int
    width: int

    @nn.compact
    def __call__(self, obs: Observation) -> jax.Array:
        """Encode observations with any leading dimensions, float32[..., width]."""
        table = self.param(
            "history_embedding", nn.initializers.normal(0.1), (self.num_items, 2 * self.width)
        )
        liked, disliked = obs.responses > 0, obs.responses < 0
        means = [
            _mean_embedding(table[:, : self.width], obs.items, liked),
            _mean_embedding(table[:, self.width :], obs.items, disliked),
        ]
        used = jnp.maximum(obs.length, 1).astype(jnp.float32)
        counts = jnp.stack(
            [liked.sum(-1) / used, obs.length / obs.items.shape[-1]], axis=-1
        ).astype(jnp.float32)
        x = nn.relu(nn.Dense(2 * self.width)(jnp.concatenate([*means, counts], axis=-1)))
        return nn.relu(nn.Dense(self.width)(x))


def _mean_embedding(table: jax.Array, items: jax.Array, member: jax.Array) -> jax.Array:
    """Mean of table[items] where member, float32[..., width]; zero where nothing is a member.

    A product with a count of each item, not a gather: its gradient is a product too, whereas a gather's is a
    scatter, which is slow on a CPU.
    """
    num_items = table.shape[0]
    flat_items = jnp.where(member, items, num_items).reshape(-1, items.shape[-1])
    rows = jnp.arange(flat_items.shape[0])[:, None]
    counts = jnp.zeros((flat_items.shape[0], num_items), jnp.float32)
    counts = counts.at[rows, flat_items].add(1.0, mode="drop")
    total = jnp.maximum(counts.sum(-1, keepdims=True), 1.0)
    return ((counts / total) @ table).reshape(*items.shape[:-1], table.shape[1])


class DuelingItemScorer(nn.Module):
    """Action values Q(s, i) = V(s) + <g(s), e_i> + b_i of every item (dueling networks, Wang et al., 2016).

    Attributes:
        num_items: N.
        width: width of the item embeddings e and of the state encoding g.
        initial_value: V before any training, about the return of a session.
    """

    num_items: int
    width: int = 32
    initial_value: float = 0.0

    @nn.compact
    def __call__(self, obs: Observation) -> jax.Array:
        """Action values, float32[..., N]."""
        state = HistoryEncoder(self.num_items, self.width)(obs)
        embedding = self.param(
            "item_embedding", nn.initializers.normal(0.01), (self.num_items, self.width)
        )
        bias = self.param("item_bias", nn.initializers.zeros, (self.num_items,))
        start = nn.initializers.constant(self.initial_value)
        value = nn.Dense(1, bias_init=start, kernel_init=nn.initializers.zeros)(state)
        direction = nn.Dense(self.width)(state)
        scores = value + direction @ embedding.T + bias
        chex.assert_shape(scores, (*obs.length.shape, self.num_items))
        return scores
