"""The oracle: greedy on the simulator itself, which no recommender can be."""

import jax
from flax import struct

from agents.algorithms.choice import best_allowed
from agents.algorithms.policy import Simulator
from agents.algorithms.rollout import RecommenderEnv
from jaxsim import (
    EnvParams,
    EnvState,
    Evidence,
    Observation,
    SlateSimulator,
    add_evidence,
)


def best_action(
    env: RecommenderEnv, scores: jax.Array, obs: Observation, params: EnvParams
) -> jax.Array:
    """The allowed item with the highest score, int32[], or the best slate by these scores float32[N], int32[K]."""
    if isinstance(env, SlateSimulator):
        return env.best_slate(scores, obs)  # type: ignore[arg-type]
    return best_allowed(scores, env.action_mask(obs, params))


@struct.dataclass
class Oracle:
    """The allowed item, or the slate, with the highest expected response: greedy on the simulator itself."""

    name: str = struct.field(pytree_node=False, default="oracle")

    def begin(self, env: Simulator, obs: Observation, params: EnvParams) -> Evidence | None:
        """The evidence of the initial history; None if the state itself holds what the simulator needs."""
        if isinstance(env, SlateSimulator):
            return None
        return env.user_model.begin_evidence(params, obs.items, obs.responses)

    def act(
        self,
        key: jax.Array,
        memory: Evidence | None,
        env: Simulator,
        obs: Observation,
        state: EnvState,
        params: EnvParams,
    ) -> jax.Array:
        """See `EvaluatedPolicy`."""
        if isinstance(env, SlateSimulator):
            return best_action(env, env.scores(state, params), obs, params)
        return best_action(env, env.expected_likes(memory, state, params), obs, params)

    def remember(
        self, memory: Evidence | None, item: jax.Array, like: jax.Array, params: EnvParams
    ) -> Evidence | None:
        """The evidence with the new interaction."""
        if memory is None:
            return None
        return add_evidence(params.catalogue, memory, item, like)
