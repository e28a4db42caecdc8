"""The policies that a training leaves behind. Pytrees: pass them to a jitted function as arguments."""

from typing import Any

import jax
from flax import linen as nn
from flax import struct

from agents.algorithms.choice import best_allowed, draw_softmax, epsilon_greedy, mask_logits
from agents.algorithms.rollout import RecommenderEnv
from agents.evaluation.baselines import Memoryless
from jaxsim import EnvParams, Observation


@struct.dataclass
class NetworkPolicy(Memoryless):
    """A policy that chooses by a network's scores.

    Attributes:
        variables: of the network.
        network: scores an observation, float32[N].
        env: tells which items are allowed.
    """

    variables: Any
    network: nn.Module = struct.field(pytree_node=False)
    env: RecommenderEnv = struct.field(pytree_node=False)

    def __call__(self, key: jax.Array, obs: Observation, params: EnvParams) -> jax.Array:
        """The item to recommend, int32[]."""
        return self.choose(key, self.env, obs, params)

    def scores(self, obs: Observation) -> jax.Array:
        """What the network thinks of every item, float32[N]."""
        return self.network.apply(self.variables, obs)


@struct.dataclass
class GreedyPolicy(NetworkPolicy):
    """The allowed item of the highest score; the key is not used."""

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`; `env` may mask more than the policy's own."""
        return best_allowed(self.scores(obs), env.action_mask(obs, params))


@struct.dataclass
class SampledPolicy(NetworkPolicy):
    """An item drawn from the softmax of the scores of those allowed: the policy that PPO, TRPO and A2C train."""

    name: str = struct.field(pytree_node=False, default="softmax")

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        return draw_softmax(key, mask_logits(self.scores(obs), env.action_mask(obs, params)))


@struct.dataclass
class EpsilonGreedyPolicy(NetworkPolicy):
    """The allowed item of the highest score, or any allowed one by chance: the policy that DQN collects with.

    Attributes:
        epsilon: float32[], chance of a random item.
    """

    epsilon: jax.Array = struct.field(kw_only=True)

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        return epsilon_greedy(key, self.scores(obs), env.action_mask(obs, params), self.epsilon)
