"""Values of slates from values of items: the decomposition of SlateQ (Ie et al., 2019).

The user chooses one item of a slate or none, and only that has consequences. So an agent learns the value Q(s, i)
of the item i being chosen and Q_none(s) of none being chosen, by temporal differences on what was chosen. A slate
is worth their mean over what the user may choose:

    sum over places k of P(k) Q(s, i_k) + P(none) Q_none(s)

P is unknown. It is learned as well, from the choices that the agent saw, as a conditional logit: the odds of place
k against none are exp(v(s, i_k) + b log k), with scores v of items and one slope of position b. The utility of
none is 0, because a constant of all v takes its place.

The best slate. With w_k = k^b exp(v(s, i_k)) a slate is worth (sum w_k Q(s, i_k) + Q_none) / (1 + sum w_k), a
ratio. A slate is worth more than x if and only if sum w_k (Q(s, i_k) - x) + Q_none - x > 0, and this sum is
largest for the K items with the highest exp(v) (Q - x). So the agent starts with x = Q_none, and takes the worth
of the best slate for x as the next x (Dinkelbach, 1967). That converges to the best of all slates faster than
linearly, in O(N + K log K) a round. The paper's top-K, which ranks by exp(v) Q, is one round with x = 0.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from agents.algorithms.choice import best_slate, draw_slate, mask_logits, score_of, uniform_slate
from agents.algorithms.networks import (
    CHOICE_BIAS,
    CHOICE_EMBEDDING,
    ITEM_STD,
    DuelingItemScorer,
)
from agents.algorithms.policy import NetworkPolicy
from agents.algorithms.replay import Batch
from agents.algorithms.rollout import RecommenderEnv
from jaxsim import EnvParams, Observation

# Adam moves every parameter equally fast, and the slope has further to go than weights have.
_SLOPE_UNIT = 10.0
# Before training, an item that is chosen is worth one like more than none.
_FIRST_NONE = -1.0
_LARGEST_SCORE = 40.0  # exp of it is finite, also times a value
_ROUNDS = 3  # of the search for the best slate


@struct.dataclass
class SlateScores:
    """What a network says of the slates of one state; or of several, with leading dimensions.

    Attributes:
        values: float32[..., N], Q of each item being chosen.
        none: float32[...], Q of none being chosen.
        scores: float32[..., N], v, the log-odds of each item alone against none.
        position_effect: float32[], b.
    """

    values: jax.Array
    none: jax.Array
    scores: jax.Array
    position_effect: jax.Array

    def ranking(self, worth: jax.Array) -> jax.Array:
        """exp(v) (Q - x) of all items, float32[..., N]; x float32[...]."""
        weight = jnp.exp(jnp.minimum(self.scores, _LARGEST_SCORE))
        return weight * (self.values - worth[..., None])

    def utilities(self, slate: jax.Array) -> jax.Array:
        """V + b log(k) of slates int32[..., K], then 0 of none, float32[..., K + 1]."""
        rank = jnp.arange(1, slate.shape[-1] + 1, dtype=jnp.float32)
        chosen = jnp.take_along_axis(self.scores, slate, axis=-1)
        utility = chosen + self.position_effect * jnp.log(rank)
        return jnp.concatenate([utility, jnp.zeros_like(utility[..., :1])], axis=-1)

    def value_of(self, slate: jax.Array) -> jax.Array:
        """The value of slates int32[..., K], float32[...]."""
        chosen = jnp.take_along_axis(self.values, slate, axis=-1)
        outcomes = jnp.concatenate([chosen, self.none[..., None]], axis=-1)
        return (jax.nn.softmax(self.utilities(slate)) * outcomes).sum(axis=-1)

    def best(self, mask: jax.Array, slate_size: int) -> jax.Array:
        """The best slate of one state, int32[K]; mask bool[N]."""
        worth = self.none
        for _ in range(_ROUNDS):
            slate = best_slate(self.ranking(worth), mask, slate_size)
            slate = jnp.where(self.position_effect > 0, slate[::-1], slate)
            worth = self.value_of(slate)
        return slate


class SlateScorer(DuelingItemScorer):
    """Values of items being chosen and of none, and the scores by which users choose; one encoder for all."""

    def setup(self) -> None:
        """Declare the layers."""
        super().setup()
        self.none = nn.Dense(1, bias_init=nn.initializers.constant(_FIRST_NONE))
        self.choice_direction = nn.Dense(self.width)
        shape = (self.num_items, self.width)
        self.choice_embedding = self.param(
            CHOICE_EMBEDDING, nn.initializers.normal(ITEM_STD), shape, jnp.float32
        )
        self.choice_bias = self.param(
            CHOICE_BIAS, nn.initializers.zeros, (self.num_items,), jnp.float32
        )
        self.slope = self.param("position_effect", nn.initializers.zeros, (), jnp.float32)

    def __call__(self, obs: Observation) -> jax.Array:
        """Values of items being chosen, float32[..., N]. Calls all layers, so that `init` makes all parameters."""
        return self.slate_scores(obs).values

    def slate_scores(self, obs: Observation) -> SlateScores:
        """Values and scores after observations."""
        state = self.history(obs)
        value = self._value(state)
        scores = self.choice_direction(state) @ self.choice_embedding.T + self.choice_bias
        return SlateScores(
            values=value[..., None] + self._logits(state),
            none=value + self.none(state)[..., 0],
            scores=scores,
            position_effect=_SLOPE_UNIT * self.slope,
        )


@dataclass(frozen=True)
class SlateActions:
    """How DQN acts and learns with slates; `agents.algorithms.dqn.ItemActions` is its counterpart for items.

    Attributes:
        network: values and scores.
        slate_size: K.
    """

    network: SlateScorer
    slate_size: int

    def scores(self, variables: Any, obs: Observation) -> SlateScores:
        """Values and scores after observations [n]."""
        return self.network.apply(variables, obs, method="slate_scores")

    def best(self, scores: SlateScores, masks: jax.Array) -> jax.Array:
        """The best allowed slates, int32[n, K]; masks bool[n, N]."""

        def of_one(values: jax.Array, none: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
            one = SlateScores(values, none, v, scores.position_effect)
            return one.best(mask, self.slate_size)

        return jax.vmap(of_one)(scores.values, scores.none, scores.scores, masks)

    def act(
        self,
        keys: jax.Array,
        variables: Any,
        obs: Observation,
        masks: jax.Array,
        epsilon: jax.Array,
    ) -> jax.Array:
        """The best slates int32[n, K], or with probability epsilon random ones."""
        best = self.best(self.scores(variables, obs), masks)

        def explored(key: jax.Array, best: jax.Array, mask: jax.Array) -> jax.Array:
            return explore(key, best, mask, epsilon)

        return jax.vmap(explored)(keys, best, masks)

    def best_value(
        self, ranking: Any, values: Any, obs: Observation, masks: jax.Array
    ) -> jax.Array:
        """The value by the variables `values` of the slate that is best by the variables `ranking`, float32[n]."""
        by_values = self.scores(values, obs)
        by_ranking = by_values if ranking is values else self.scores(ranking, obs)
        return by_values.value_of(self.best(by_ranking, masks))

    def loss(
        self, variables: Any, batch: Batch, targets: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of what was chosen, plus that of the choice; and both, with the learned slope, by name."""
        scores = self.scores(variables, batch.obs)
        slate, chosen = batch.transition.item, batch.transition.like > 0  # [n, K]
        place = jnp.where(chosen.any(axis=-1), jnp.argmax(chosen, axis=-1), self.slate_size)
        item = score_of(slate, jnp.minimum(place, self.slate_size - 1))
        taken = jnp.where(place < self.slate_size, score_of(scores.values, item), scores.none)
        value_loss = optax.huber_loss(taken, targets).mean()
        log_choice = jax.nn.log_softmax(scores.utilities(slate))
        choice_loss = -score_of(log_choice, place).mean()
        parts = {
            "value_loss": value_loss,
            "choice_loss": choice_loss,
            "position_effect": scores.position_effect,
        }
        total = value_loss + choice_loss
        return total, {"loss": total, **parts}


def explore(key: jax.Array, best: jax.Array, mask: jax.Array, epsilon: jax.Array) -> jax.Array:
    """A slate int32[K], or with probability epsilon a random one of allowed items bool[N]."""
    key_explore, key_random = jax.random.split(key)
    equal = mask_logits(jnp.zeros(mask.shape, jnp.float32), mask)
    random = draw_slate(key_random, equal, best.shape[0])
    return jnp.where(jax.random.bernoulli(key_explore, epsilon), random, best)


@struct.dataclass
class SlateValuePolicy(NetworkPolicy):
    """The best slate by a `SlateScorer`, or a random one.

    Attributes:
        epsilon: float32[], probability of a random slate.
    """

    epsilon: jax.Array = struct.field(kw_only=True)

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        mask = env.action_mask(obs, params)
        return explore(key, self._best(obs, mask), mask, self.epsilon)

    def propensity(
        self, env: RecommenderEnv, obs: Observation, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """See `Memoryless`."""
        mask = env.action_mask(obs, params)
        is_best = (action == self._best(obs, mask)).all()
        return self.epsilon * uniform_slate(mask, len(action)) + (1 - self.epsilon) * is_best

    def _best(self, obs: Observation, mask: jax.Array) -> jax.Array:
        scores = self.network.apply(self.variables, obs, method="slate_scores")
        size = self.env.slate_size  # type: ignore[attr-defined]
        return scores.best(mask, size)
