"""A model of users in the manner of KuaiSim (Zhao et al. 2023, NeurIPS Datasets and Benchmarks).

KuaiSim's immediate user response model encodes the user's history and profile with a transformer, combines the
result with the candidate item by a dot product, and ends in one sigmoid. Ours follows it:

    item vector   = norm(W [norm(embedding of the item) + norm(mean embedding of its categories)])
    token         = [norm(item vector + embedding of its age), embedding of the response]
    history       = attention pooling over the output of a transformer encoder, in which all tokens see each other
    user vector   = norm(MLP([history, norm(W norm(embedding of the user))]))
    logit(like)   = <user vector, item vector> / sqrt(width) + offset

It differs from its authors' code, which lets a token see the earlier ones only and takes the output of the last
one, uses batch normalisation, and applies a sigmoid before a loss that has one already. There, responses are of
several kinds. Items and users have no like rate of their own in it.

Tokens see each other, so no keys or values can be kept from step to step: each step encodes the window again. The
window is therefore the latest L interactions, and a session's state is this window and the user vector.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from benchmarks.rivals.window import Window
from jaxsim import UserModel

_PRECISION = jax.lax.Precision.HIGHEST


class _Layer(nn.Module):
    """One post-norm layer of a transformer encoder, as in KuaiSim."""

    width: int
    num_heads: int
    feed_forward: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, deterministic: bool) -> jax.Array:
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        attended = nn.MultiHeadDotProductAttention(self.num_heads, precision=_PRECISION)(
            x, mask=mask[None]
        )
        x = nn.LayerNorm()(x + drop(attended))
        hidden = drop(nn.relu(nn.Dense(self.feed_forward, precision=_PRECISION)(x)))
        return nn.LayerNorm()(x + drop(nn.Dense(x.shape[-1], precision=_PRECISION)(hidden)))


class KuaiSim(nn.Module):
    """The response model of a dataset with N items, U users and C categories.

    Attributes:
        num_items, num_users, num_categories: N, U and C.
        window: L, the latest interactions that it reads.
        latent: width of the embeddings of items, users and categories.
        width: width of item and user vectors; tokens are twice as wide.
        num_layers, num_heads, feed_forward: size of the encoder.
        hidden: width of the hidden layer behind it.
        dropout: dropout rate in training.
    """

    num_items: int
    num_users: int
    num_categories: int
    window: int = 50
    latent: int = 16
    width: int = 32
    num_layers: int = 2
    num_heads: int = 4
    feed_forward: int = 64
    hidden: int = 128
    dropout: float = 0.1

    def setup(self) -> None:
        """Declare the weights."""
        small = nn.initializers.normal(0.02)
        self.item_embedding = nn.Embed(self.num_items, self.latent, embedding_init=small)
        self.category_embedding = nn.Embed(self.num_categories, self.latent, embedding_init=small)
        self.user_embedding = nn.Embed(self.num_users, self.latent, embedding_init=small)
        self.item_norms = [nn.LayerNorm(), nn.LayerNorm(), nn.LayerNorm()]
        self.user_norms = [nn.LayerNorm(), nn.LayerNorm()]
        self.item_kernel = nn.Dense(self.width, precision=_PRECISION)
        self.user_kernel = nn.Dense(self.width, precision=_PRECISION)
        self.age_embedding = nn.Embed(self.window, self.width, embedding_init=small)
        self.response_embedding = nn.Embed(2, self.width)
        self.token_norm = nn.LayerNorm()
        self.layers = [
            _Layer(2 * self.width, self.num_heads, self.feed_forward, self.dropout)
            for _ in range(self.num_layers)
        ]
        self.pooling = nn.Dense(1, precision=_PRECISION)
        self.expand = nn.Dense(self.hidden, precision=_PRECISION)
        self.contract = nn.Dense(self.width, precision=_PRECISION)
        self.user_norm = nn.LayerNorm()
        self.drop = nn.Dropout(self.dropout)
        self.offset = self.param("offset", nn.initializers.zeros, (), jnp.float32)

    def item_vectors(self, categories: jax.Array) -> jax.Array:
        """The vectors of all items, float32[N, width], whose categories are int32[N, .] with -1 as padding."""
        own_norm, category_norm, norm = self.item_norms
        present = (categories >= 0)[..., None]
        shared = jnp.where(present, self.category_embedding(jnp.maximum(categories, 0)), 0.0)
        mean = shared.sum(axis=1) / jnp.maximum(present.sum(axis=1), 1)
        both = own_norm(self.item_embedding.embedding) + category_norm(mean)
        return norm(self.item_kernel(both))

    def user_vector(
        self,
        vectors: jax.Array,
        likes: jax.Array,
        length: jax.Array,
        user: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """What a user is like after a history, float32[width].

        Args:
            vectors: float32[L, width], item vectors of the history, left-aligned.
            likes: int8[L], 1 like, any other number dislike.
            length: int32[], number of interactions.
            user: int32[]; -1 takes the mean of all users.
            deterministic: apply no dropout.
        """
        position = jnp.arange(self.window, dtype=jnp.int32)
        present = position < length
        age = jnp.clip(length - 1 - position, 0, self.window - 1)
        item = self.token_norm(
            self.drop(vectors + self.age_embedding(age), deterministic=deterministic)
        )
        response = self.response_embedding((likes > 0).astype(jnp.int32))
        tokens = jnp.concatenate([item, response], axis=-1)
        mask = jnp.broadcast_to(present, (self.window, self.window))
        for layer in self.layers:
            tokens = layer(tokens, mask, deterministic)
        scores = jnp.where(present, self.pooling(tokens)[:, 0], -1e9)
        history = jnp.einsum("t,td->d", jax.nn.softmax(scores), tokens, precision=_PRECISION)
        history = jnp.where(length > 0, history, 0.0)
        table = self.user_embedding.embedding
        own = jnp.where(user >= 0, table[jnp.maximum(user, 0)], table.mean(axis=0))
        own = self.user_norms[1](self.user_kernel(self.user_norms[0](own)))
        profile = self.drop(own, deterministic=deterministic)
        hidden = nn.relu(self.expand(jnp.concatenate([history, profile])))
        return self.user_norm(self.contract(self.drop(hidden, deterministic=deterministic)))

    def logit(self, user_vector: jax.Array, item_vectors: jax.Array) -> jax.Array:
        """Log-odds of a like of items with vectors float32[..., width], float32[...]."""
        products = jnp.einsum("d,...d->...", user_vector, item_vectors, precision=_PRECISION)
        return products * self.width**-0.5 + self.offset

    def slate_logits(
        self,
        categories: jax.Array,
        items: jax.Array,
        likes: jax.Array,
        length: jax.Array,
        user: jax.Array,
        slate: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """Log-odds of a like of K items after a history, float32[K]: what training compares with their labels."""
        vectors = self.item_vectors(categories)
        state = self.user_vector(vectors[jnp.maximum(items, 0)], likes, length, user, deterministic)
        return self.logit(state, vectors[jnp.maximum(slate, 0)])


@struct.dataclass
class KuaiSimParams:
    """What `KuaiSimUser` reads.

    Attributes:
        variables: of `KuaiSim`.
        item_vectors: float32[N, width], of all items.
    """

    variables: Any
    item_vectors: jax.Array


@struct.dataclass
class KuaiSimState:
    """A session of `KuaiSimUser`.

    Attributes:
        user: int32[]; -1 if unknown.
        window: the latest interactions.
        vector: float32[width], the user vector after them.
    """

    user: jax.Array
    window: Window
    vector: jax.Array


@dataclass(frozen=True)
class KuaiSimUser(UserModel):
    """The user of `KuaiSim`, for `jaxsim.make(user_model=KuaiSimUser(network), user_params=params)`."""

    network: KuaiSim

    def init(
        self, params: Any, user: jax.Array, items: jax.Array, likes: jax.Array, length: jax.Array
    ) -> KuaiSimState:
        """See `UserModel`."""
        return self._encoded(params, user, Window.of(self.network.window, items, likes, length))

    def probability(self, params: Any, state: KuaiSimState, item: jax.Array) -> jax.Array:
        """See `UserModel`."""
        return self._probability(params, state, params.item_vectors[item])

    def probabilities(self, params: Any, state: KuaiSimState, num_items: int) -> jax.Array:
        """See `UserModel`."""
        return self._probability(params, state, params.item_vectors)

    def update(
        self, params: Any, state: KuaiSimState, item: jax.Array, like: jax.Array
    ) -> KuaiSimState:
        """See `UserModel`."""
        return self._encoded(params, state.user, state.window.appended(item, like))

    def _encoded(self, params: Any, user: jax.Array, window: Window) -> KuaiSimState:
        vectors = params.item_vectors[jnp.maximum(window.items, 0)]
        vector = self.network.apply(
            params.variables, vectors, window.likes, window.length, user, method="user_vector"
        )
        return KuaiSimState(user, window, vector)

    def _probability(self, params: Any, state: KuaiSimState, vectors: jax.Array) -> jax.Array:
        logit = self.network.apply(params.variables, state.vector, vectors, method="logit")
        return jax.nn.sigmoid(logit)
