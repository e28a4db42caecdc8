"""The oracle: greedy on the simulator itself, which no recommender can be."""

import jax
from flax import struct

from agents.algorithms.choice import best_allowed
from jaxsim import EnvParams, EnvState, Evidence, Observation, UserSimulator, add_evidence


@struct.dataclass
class Oracle:
    """The allowed item with the highest expected response: greedy on the simulator itself."""

    name: str = struct.field(pytree_node=False, default="oracle")

    def begin(self, env: UserSimulator, obs: Observation, params: EnvParams) -> Evidence | None:
        """The evidence of the initial history; None if the state itself holds what the simulator needs."""
        return env.user_model.begin_evidence(params, obs.items, obs.responses)

    def act(
        self,
        key: jax.Array,
        memory: Evidence | None,
        env: UserSimulator,
        obs: Observation,
        state: EnvState,
        params: EnvParams,
    ) -> jax.Array:
        """See `EvaluatedPolicy`."""
        expected = env.expected_likes(memory, state, params)
        return best_allowed(expected, env.action_mask(obs, params))

    def remember(
        self, memory: Evidence | None, item: jax.Array, like: jax.Array, params: EnvParams
    ) -> Evidence | None:
        """The evidence with the new interaction."""
        if memory is None:
            return None
        return add_evidence(params.catalogue, memory, item, like)
