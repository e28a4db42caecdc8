"""The policy that a training leaves behind: greedy on a network's scores."""

from typing import Any

import jax
from flax import linen as nn
from flax import struct

from agents.baselines import Memoryless
from agents.rollout import best_allowed
from jaxsim import EnvParams, Observation, UserSimulator


@struct.dataclass
class GreedyPolicy(Memoryless):
    """The allowed item of the highest score. A pytree: pass it to a jitted function as an argument.

    Attributes:
        variables: of the network.
        network: scores an observation, float32[N].
        env: tells which items are allowed.
    """

    variables: Any
    network: nn.Module = struct.field(pytree_node=False)
    env: UserSimulator = struct.field(pytree_node=False)

    def __call__(self, key: jax.Array, obs: Observation, params: EnvParams) -> jax.Array:
        """The item to recommend, int32[]; the key is not used."""
        return self.choose(key, self.env, obs, params)

    def choose(
        self, key: jax.Array, env: UserSimulator, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`; `env` may mask more than the policy's own."""
        return best_allowed(self.network.apply(self.variables, obs), env.action_mask(obs, params))
