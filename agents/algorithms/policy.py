"""What evaluation asks of a policy, and the policies of trained networks.

Policies are pytrees: pass them to a jitted function as arguments.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from agents.algorithms.choice import (
    best_allowed,
    best_slate,
    draw_slate,
    draw_softmax,
    epsilon_greedy,
    mask_logits,
    slate_log_probability,
    uniform_over,
)
from agents.algorithms.rollout import RecommenderEnv, slate_size_of
from jaxsim import EnvParams, EnvState, Observation, SlateSimulator, UserSimulator

Simulator = UserSimulator | SlateSimulator


def single_of(env: Simulator) -> UserSimulator:
    """The environment of single items: that within an environment of slates, otherwise the environment itself."""
    return env.single if isinstance(env, SlateSimulator) else env


class EvaluatedPolicy(Protocol):
    """What evaluation asks of a policy. All methods are for one session; evaluation vmaps them.

    An action is an item int32[], or a slate int32[K] if the environment shows slates.
    """

    def begin(self, env: Simulator, obs: Observation, params: EnvParams) -> Any:
        """The policy's memory at the start of a session."""

    def act(
        self,
        key: jax.Array,
        memory: Any,
        env: Simulator,
        obs: Observation,
        state: EnvState,
        params: EnvParams,
    ) -> jax.Array:
        """The action."""

    def remember(self, memory: Any, item: jax.Array, like: jax.Array, params: EnvParams) -> Any:
        """The memory after a response: the action, like int8[]."""


class Memoryless:
    """A policy that reads only the observation. Subclasses define `choose`."""

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """The action."""
        raise NotImplementedError(f"{type(self).__name__}.choose")

    def propensity(
        self, env: RecommenderEnv, obs: Observation, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """The probability of this item or ordered slate, float32[]; policies that draw define their own."""
        chosen = self.choose(jax.random.key(0), env, obs, params)
        return (action == chosen).all().astype(jnp.float32)

    def begin(self, env: Simulator, obs: Observation, params: EnvParams) -> tuple[()]:
        """An empty memory."""
        return ()

    def act(
        self,
        key: jax.Array,
        memory: tuple[()],
        env: Simulator,
        obs: Observation,
        state: EnvState,
        params: EnvParams,
    ) -> jax.Array:
        """What `choose` returns; neither memory nor state is read."""
        return self.choose(key, env, obs, params)

    def remember(
        self, memory: tuple[()], item: jax.Array, like: jax.Array, params: EnvParams
    ) -> tuple[()]:
        """The empty memory."""
        return memory


@struct.dataclass
class NetworkPolicy(Memoryless):
    """A policy that chooses by a network's scores.

    Attributes:
        variables: the network's.
        network: scores all items after an observation, float32[N].
        env: says which items are allowed.
    """

    variables: Any
    network: nn.Module = struct.field(pytree_node=False)
    env: RecommenderEnv = struct.field(pytree_node=False)

    def __call__(self, key: jax.Array, obs: Observation, params: EnvParams) -> jax.Array:
        """The item to recommend, int32[], or the slate to show, int32[K]."""
        return self.choose(key, self.env, obs, params)

    def scores(self, obs: Observation) -> jax.Array:
        """Scores of all items, float32[N]."""
        return self.network.apply(self.variables, obs)


@struct.dataclass
class GreedyPolicy(NetworkPolicy):
    """The allowed item with the highest score, or the K highest in their order; the key is not used."""

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`; `env` may mask more than the policy's own."""
        scores, mask = self.scores(obs), env.action_mask(obs, params)
        size = slate_size_of(env)
        return best_allowed(scores, mask) if size is None else best_slate(scores, mask, size)


@struct.dataclass
class SampledPolicy(NetworkPolicy):
    """An item drawn from the softmax over allowed items: the policy that PPO, TRPO and A2C train.

    A slate is drawn item by item, without replacement.
    """

    name: str = struct.field(pytree_node=False, default="softmax")

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        logits = mask_logits(self.scores(obs), env.action_mask(obs, params))
        size = slate_size_of(env)
        return draw_softmax(key, logits) if size is None else draw_slate(key, logits, size)

    def propensity(
        self, env: RecommenderEnv, obs: Observation, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """See `Memoryless`."""
        logits = mask_logits(self.scores(obs), env.action_mask(obs, params))
        if slate_size_of(env) is not None:
            return jnp.exp(slate_log_probability(logits, action))
        return jax.nn.softmax(logits)[action]


@struct.dataclass
class EpsilonGreedyPolicy(NetworkPolicy):
    """The allowed item with the highest score, or a random allowed one: the policy that DQN collects with.

    Attributes:
        epsilon: float32[], probability of a random item.
    """

    epsilon: jax.Array = struct.field(kw_only=True)

    def choose(
        self, key: jax.Array, env: RecommenderEnv, obs: Observation, params: EnvParams
    ) -> jax.Array:
        """See `Memoryless`."""
        return epsilon_greedy(key, self.scores(obs), env.action_mask(obs, params), self.epsilon)

    def propensity(
        self, env: RecommenderEnv, obs: Observation, params: EnvParams, action: jax.Array
    ) -> jax.Array:
        """See `Memoryless`."""
        mask = env.action_mask(obs, params)
        best = action == best_allowed(self.scores(obs), mask)
        return self.epsilon * uniform_over(mask)[action] + (1 - self.epsilon) * best
