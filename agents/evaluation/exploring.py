"""A policy that now and then recommends at random, so that its log says something about every item."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from agents.algorithms.policy import Simulator
from agents.algorithms.rollout import RecommenderEnv
from agents.evaluation.baselines import RandomPolicy
from jaxsim import EnvParams, EnvState, InputError, Observation


@struct.dataclass
class Exploring:
    """With probability epsilon any allowed item, or any slate, in place of what another policy recommends.

    Attributes:
        base: the other policy, with a method `propensity`.
        epsilon: float32[].
    """

    base: Any
    epsilon: jax.Array
    name: str = struct.field(pytree_node=False, default="exploring")

    def begin(self, env: Simulator, obs: Observation, params: EnvParams) -> Any:
        """The memory of the other policy."""
        return self.base.begin(env, obs, params)

    def act(
        self,
        key: jax.Array,
        memory: Any,
        env: Simulator,
        obs: Observation,
        state: EnvState,
        params: EnvParams,
    ) -> jax.Array:
        """See `EvaluatedPolicy`."""
        key_explore, key_random, key_base = jax.random.split(key, 3)
        chosen = self.base.act(key_base, memory, env, obs, state, params)
        drawn = RandomPolicy().choose(key_random, env, obs, params)
        return jnp.where(jax.random.bernoulli(key_explore, self.epsilon), drawn, chosen)

    def propensity(
        self, env: RecommenderEnv, obs: Observation, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """The probability of this item or ordered slate, float32[]."""
        drawn = RandomPolicy().propensity(env, obs, params, action)
        chosen = self.base.propensity(env, obs, params, action)
        return self.epsilon * drawn + (1 - self.epsilon) * chosen

    def remember(self, memory: Any, item: jax.Array, like: jax.Array, params: EnvParams) -> Any:
        """The memory of the other policy."""
        return self.base.remember(memory, item, like, params)


def exploring(base: Any, epsilon: float) -> Exploring:
    """`Exploring` around a policy.

    Raises:
        InputError: the policy has no propensities, because it reads more than the observation.
    """
    if not hasattr(base, "propensity"):
        raise InputError(
            "--epsilon needs a policy that reads the observation only, and the oracle reads the simulator's state"
        )
    return Exploring(base, jnp.float32(epsilon))
