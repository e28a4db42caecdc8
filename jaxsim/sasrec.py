"""f_sta, the statistic model: SASRec (Kang and McAuley, 2018) over a user's items and responses.

The encoder reads tokens (item, response) under a causal mask, so its output after a token depends only on that
token and earlier ones. The candidate, the item effect and the user effect enter after the encoder:

    logit(like) = <hidden, candidate embedding> + item effect + user effect + offset

A session only appends, so the keys and values of earlier tokens are cached and each step encodes one token
(`encode_token`). `encode` over the whole window gives the same numbers.

With `decays`, hidden also has the user's running residuals, which need no attention to be learned. The residual of
a token is response - item rate: how much more than others the user liked the item. For each decay d,

    mean_d = sum_k d^k residual_k / (sum_k d^k + 5),   k = 0 for the latest token,

is projected and added to the encoder's output. The 5 is a prior: a user without a history is like other people.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from flax.traverse_util import unflatten_dict

from jaxsim.errors import InputError

LAYER_NORM_EPSILON = 1e-6
# Interactions with residual 0 that every history begins with, in the means of `SASRec.decays`.
RESIDUAL_SMOOTHING = 5.0
# By default a GPU multiplies float32 matrices with 10 bits of mantissa. Where the probability is close to 1/2 its
# votes would then differ from a CPU's. On CPUs this setting changes nothing.
_PRECISION = jax.lax.Precision.HIGHEST


CacheDtype = Literal["float32", "bfloat16"]


@struct.dataclass
class KeyValues:
    """What is cached of T tokens: attention keys and values, one array for each block, and sums of residuals.

    The arrays are separate because a step reads and writes the blocks one after another; slices of one array would
    be copied first.

    Attributes:
        keys, values: for each block, float32[..., T, width]; or uint16, the bits of bfloat16. (To write one
            position of bfloat16 itself, XLA makes float32 of the whole cache on a CPU, and back.)
        residuals: float32[..., T, D], the sum of the residuals up to each token for each of D decays; None if the
            model has no decays.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    residuals: jax.Array | None = None

    def stored_as(self, dtype: CacheDtype) -> "KeyValues":
        """The same with keys and values of another type; sums of residuals stay float32."""
        bits = jnp.uint16 if dtype == "bfloat16" else jnp.float32
        keys, values = (tuple(_narrow(x, bits) for x in part) for part in (self.keys, self.values))
        return KeyValues(keys, values, self.residuals)


class _Block(nn.Module):
    """One pre-norm transformer block: causal self-attention, then a feed-forward layer."""

    width: int
    num_heads: int
    dropout: float

    def setup(self) -> None:
        self.attention_norm = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON)
        self.query_key_value = nn.Dense(3 * self.width, precision=_PRECISION)
        self.output = nn.Dense(self.width, precision=_PRECISION)
        self.feed_forward_norm = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON)
        self.expand = nn.Dense(2 * self.width, precision=_PRECISION)
        self.contract = nn.Dense(self.width, precision=_PRECISION)
        self.drop = nn.Dropout(self.dropout)

    def project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Query, key and value, each float32[..., width], for tokens float32[..., width]."""
        query, key, value = jnp.split(self.query_key_value(self.attention_norm(x)), 3, axis=-1)
        return query * (self.width // self.num_heads) ** -0.5, key, value

    def finish(self, x: jax.Array, attended: jax.Array, deterministic: bool) -> jax.Array:
        """The output of the block float32[..., width]: both residual connections, after the attention."""
        x = x + self.drop(self.output(attended), deterministic=deterministic)
        expanded = nn.gelu(self.expand(self.feed_forward_norm(x)))
        return x + self.drop(self.contract(expanded), deterministic=deterministic)


class SASRec(nn.Module):
    """The statistic model of a dataset with N items and U users.

    Attributes:
        num_items, num_users: N and U.
        window: W, the longest history that it reads, in positions.
        width, num_blocks, num_heads: size of the encoder.
        dropout: dropout rate in training.
        decays: of the running means of residuals; without any, the model has none. Folders of earlier versions
            have none.
    """

    num_items: int
    num_users: int
    window: int
    width: int = 32
    num_blocks: int = 2
    num_heads: int = 1
    dropout: float = 0.2
    decays: Sequence[float] = ()

    def __post_init__(self) -> None:
        """Make `decays` a tuple: JSON has lists, which cannot be hashed."""
        self.decays = tuple(self.decays)
        super().__post_init__()

    @property
    def architecture(self) -> dict[str, Any]:
        """The constructor's arguments, for a manifest or a config."""
        names = ("num_items", "num_users", "window", "width", "num_blocks", "num_heads", "dropout")
        decays = {"decays": list(self.decays)} if self.decays else {}
        return {name: getattr(self, name) for name in names} | decays

    def setup(self) -> None:
        """Declare the weights."""
        small = nn.initializers.normal(0.02)
        self.item_embedding = nn.Embed(self.num_items + 1, self.width, embedding_init=small)
        self.response_embedding = nn.Embed(2, self.width, embedding_init=small)
        self.position_embedding = nn.Embed(self.window, self.width, embedding_init=small)
        self.blocks = [
            _Block(self.width, self.num_heads, self.dropout) for _ in range(self.num_blocks)
        ]
        self.hidden_norm = nn.LayerNorm(epsilon=LAYER_NORM_EPSILON)
        self.drop = nn.Dropout(self.dropout)
        self.candidate_embedding = nn.Embed(self.num_items + 1, self.width, embedding_init=small)
        # Explicit types: without them these would be float64 under jax_enable_x64, unlike flax's layers.
        zeros, dtype = nn.initializers.zeros, jnp.float32
        self.common_candidate = self.param("common_candidate", small, (self.width,), dtype)
        self.item_effect = self.param("item_effect", zeros, (self.num_items + 1,), dtype)
        self.user_effect = self.param("user_effect", zeros, (self.num_users,), dtype)
        self.offset = self.param("offset", zeros, (), dtype)
        if self.decays:
            self.item_rate = self.param("item_rate", zeros, (self.num_items + 1,), dtype)
            shape = (len(self.decays), self.width)
            self.residual_projection = self.param("residual_projection", small, shape, dtype)

    def embed(self, item: jax.Array, like: jax.Array, position: jax.Array) -> jax.Array:
        """Token embeddings float32[..., width]; an item below 0 is padding."""
        shifted = jnp.maximum(item, -1) + 1  # id 0 is padding, never an item
        token = self.item_embedding(shifted) + self.response_embedding((like > 0).astype(jnp.int32))
        return token + self.position_embedding(jnp.clip(position, 0, self.window - 1))

    def residual(self, item: jax.Array, like: jax.Array) -> jax.Array:
        """Response minus item rate, float32[...]; 0 for an item below 0, which is padding."""
        rate = self.item_rate[jnp.maximum(item, -1) + 1]
        return jnp.where(item >= 0, (like > 0).astype(jnp.float32) - rate, 0.0)

    def residual_means(self, sums: jax.Array, position: jax.Array) -> jax.Array:
        """Running means of the residuals after a token, float32[..., D].

        Args:
            sums: float32[..., D], of `KeyValues`.
            position: int32[...], the token's place in the history, from 0.
        """
        weights = np.cumsum(np.power(self.decays, np.arange(self.window)[:, None]), axis=0)
        totals = jnp.asarray(weights + RESIDUAL_SMOOTHING, jnp.float32)
        return sums / totals[jnp.minimum(position, self.window - 1)]

    def add_residuals(
        self, encoded: jax.Array, sums: jax.Array | None, position: jax.Array
    ) -> jax.Array:
        """Hidden float32[..., width]: the encoder's output plus the projected `residual_means`, if any."""
        if sums is None:
            return encoded
        means = self.residual_means(sums, position)
        return encoded + jnp.matmul(means, self.residual_projection, precision=_PRECISION)

    def encode(
        self, items: jax.Array, likes: jax.Array, deterministic: bool = True
    ) -> tuple[jax.Array, KeyValues]:
        """Encode a left-aligned history.

        Args:
            items: int32[T], T <= window, -1 pads on the right.
            likes: int8[T], 1 like, any other number dislike.
            deterministic: apply no dropout.

        Returns:
            Hidden float32[T, width], the output after each token; keys and values of the T tokens.
        """
        chex.assert_rank([items, likes], 1)
        chex.assert_equal_shape([items, likes])
        length = items.shape[0]
        causal = jnp.tril(jnp.ones((length, length), bool)) & (items >= 0)[None, :]
        # A padded row attends to itself: a softmax over nothing would give NaN.
        causal = causal | jnp.eye(length, dtype=bool)
        position = jnp.arange(length, dtype=jnp.int32)
        x = self.drop(self.embed(items, likes, position), deterministic=deterministic)
        keys, values = [], []
        for block in self.blocks:
            query, key, value = block.project(x)
            scores = _per_head("thd,shd->hts", query, key, self.num_heads)
            weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
            attended = jnp.einsum(
                "hts,shd->thd", weights, _split(value, self.num_heads), precision=_PRECISION
            )
            x = block.finish(x, attended.reshape(length, self.width), deterministic)
            keys.append(key)
            values.append(value)
        sums = self._residual_sums(items, likes) if self.decays else None
        hidden = self.hidden_norm(x)
        if self.decays:
            # The encoder's output is dropped at random, and the residual means are not.
            hidden = self.drop(hidden, deterministic=deterministic)
        hidden = self.add_residuals(hidden, sums, position)
        return hidden, KeyValues(tuple(keys), tuple(values), sums)

    def _residual_sums(self, items: jax.Array, likes: jax.Array) -> jax.Array:
        """Decayed sums of the residuals of a left-aligned history up to each token, float32[T, D]."""
        age = np.arange(items.shape[0])[:, None] - np.arange(items.shape[0])
        powers = [np.where(age >= 0, decay ** np.maximum(age, 0), 0.0) for decay in self.decays]
        decayed = jnp.asarray(np.stack(powers), jnp.float32)
        residual = self.residual(items, likes)
        return jnp.einsum("dts,s->td", decayed, residual, precision=_PRECISION)

    def encode_token(
        self, item: jax.Array, like: jax.Array, cache: KeyValues, length: jax.Array
    ) -> tuple[jax.Array, KeyValues]:
        """Append one token to a history whose keys and values are cached.

        Args:
            item, like: int32[], int8[], the token.
            cache: keys and values [T, width] for each block; the first `length` are valid, the others finite. The
                token's are rounded to their type.
            length: int32[], number of tokens before this one; if it is T or more, nothing is written.

        Returns:
            Hidden float32[width] after the token (meaningless if `length` is T or more); the cache with the token.
        """
        valid = jnp.arange(cache.keys[0].shape[0]) <= length
        x = self.embed(item, like, length)
        keys, values = [], []
        for block, old_keys, old_values in zip(self.blocks, cache.keys, cache.values, strict=True):
            query, key, value = block.project(x)
            keys.append(old_keys.at[length].set(_narrow(key, old_keys.dtype), mode="drop"))
            values.append(old_values.at[length].set(_narrow(value, old_values.dtype), mode="drop"))
            heads = zip(
                jnp.split(query, self.num_heads),
                jnp.split(keys[-1], self.num_heads, axis=1),
                jnp.split(values[-1], self.num_heads, axis=1),
                strict=True,
            )
            attended = jnp.concatenate([_attend(*head, valid) for head in heads])
            x = block.finish(x, attended, deterministic=True)
        sums, column = None, cache.residuals
        if column is not None:
            # What lies before the first token is not read, and neither is it finite times zero.
            before = jnp.where(length > 0, column[jnp.maximum(length - 1, 0)], 0.0)
            sums = jnp.asarray(self.decays, jnp.float32) * before + self.residual(item, like)
            column = column.at[length].set(sums, mode="drop")
        hidden = self.add_residuals(self.hidden_norm(x), sums, length)
        return hidden, KeyValues(tuple(keys), tuple(values), column)

    def logit(self, hidden: jax.Array, candidate: jax.Array, user: jax.Array) -> jax.Array:
        """Log-odds of a like, float32[...].

        Args:
            hidden: float32[..., width], of `encode`; zero for an empty history.
            candidate: int32[...], an item.
            user: int32[...]; -1 takes the mean user effect.
        """
        shifted = candidate + 1
        user_effect = jnp.where(
            user >= 0, self.user_effect[jnp.maximum(user, 0)], self.user_effect.mean()
        )
        own = self.candidate_embedding(shifted)
        common = jnp.broadcast_to(self.common_candidate, own.shape)
        affinity = jnp.sum(hidden * (common + own), axis=-1)
        return affinity + self.item_effect[shifted] + user_effect + self.offset

    def all_logits(self, hidden: jax.Array, user: jax.Array) -> jax.Array:
        """`logit` for every item, float32[N], given one hidden float32[width] and user int32[]."""
        return self.logit(hidden[None], jnp.arange(self.num_items, dtype=jnp.int32), user)

    def next_logits(
        self, items: jax.Array, likes: jax.Array, user: jax.Array, deterministic: bool = True
    ) -> jax.Array:
        """Log-odds that each item of a history is liked, given the tokens before it, float32[T].

        Training maximises the likelihood of the labels under these. The first item has an empty history.
        """
        hidden, _ = self.encode(items, likes, deterministic)
        before = jnp.concatenate([jnp.zeros((1, self.width), jnp.float32), hidden[:-1]])
        if not self.decays:
            before = self.drop(before, deterministic=deterministic)
        return self.logit(before, jnp.maximum(items, 0), user)


def _attend(query: jax.Array, keys: jax.Array, values: jax.Array, valid: jax.Array) -> jax.Array:
    """One head's attention of a query [d] on the valid bool[T] of T keys and values [T, d], float32[d]."""
    # On CPUs a matrix-vector product reads the cache 20 times faster than a sum of products, and one head at a
    # time needs no transposition. Values of 16 bits are widened first: products and sums are float32.
    keys, values = _widen(keys), _widen(values)
    scores = jnp.einsum("d,sd->s", query, keys, precision=_PRECISION)
    weights = jax.nn.softmax(jnp.where(valid, scores, -jnp.inf))
    return jnp.einsum("s,sd->d", weights, values, precision=_PRECISION)


def _narrow(x: jax.Array, dtype: Any) -> jax.Array:
    """Numbers float32[...] as they are cached: as they are, or uint16, the bits of the nearest bfloat16."""
    if x.dtype == dtype:
        return x
    return jax.lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)


def _widen(x: jax.Array) -> jax.Array:
    """Cached numbers as float32[...]: a bfloat16 is the upper half of a float32."""
    if x.dtype == jnp.float32:
        return x
    return jax.lax.bitcast_convert_type(x.astype(jnp.uint32) << 16, jnp.float32)


def _split(x: jax.Array, num_heads: int) -> jax.Array:
    return x.reshape(x.shape[0], num_heads, -1)


def _per_head(equation: str, a: jax.Array, b: jax.Array, num_heads: int) -> jax.Array:
    return jnp.einsum(equation, _split(a, num_heads), _split(b, num_heads), precision=_PRECISION)


def restore(
    manifest_entry: Mapping[str, Any], weights: Mapping[str, Any]
) -> tuple[SASRec, dict[str, Any]]:
    """Rebuild the model and its variables.

    Args:
        manifest_entry: the manifest's entry `sasrec`.
        weights: name to array, the content of `sasrec.safetensors`.

    Raises:
        InputError: a weight is missing, not finite, or has another shape than the architecture says.
    """
    try:
        model = SASRec(**manifest_entry["architecture"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"manifest.json: the statistic model's architecture is not usable ({error}); build the dataset again"
        ) from None
    # Copies, put on the device at once: `jnp.asarray` would compile a program for every shape.
    copies = {tuple(name.split("/")): np.array(w) for name, w in weights.items()}
    tree = unflatten_dict(jax.device_put(copies))
    expected = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0),
            jnp.zeros(2, jnp.int32),
            jnp.zeros(2, jnp.int8),
            jnp.int32(0),
            method="next_logits",
        )
    )["params"]
    if jax.tree.map(jnp.shape, expected) != jax.tree.map(jnp.shape, tree):
        raise InputError(
            "sasrec.safetensors does not fit the manifest's architecture; build it again"
        )
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise InputError(f"sasrec.safetensors: {name} is not finite; build the dataset again")
    return model, {"params": tree}
