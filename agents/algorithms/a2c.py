"""A2C (Mnih et al., 2016, synchronous): one gradient step a rollout."""

from dataclasses import dataclass, replace
from typing import Any

import jax

from agents.algorithms.algorithm import TrainState
from agents.algorithms.choice import entropy
from agents.algorithms.on_policy import (
    Experience,
    JointLossConfig,
    OnPolicy,
    chosen_log_probability,
    flatten,
)
from jaxsim import EnvParams


@dataclass(frozen=True)
class A2CConfig(JointLossConfig):
    """Settings of A2C. It has none of its own."""


@dataclass(frozen=True)
class A2C(OnPolicy[A2CConfig]):
    """A2C for one environment."""

    def learn(
        self, state: TrainState, experience: Experience, params: EnvParams
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One gradient step with all steps of the rollout."""
        batch = flatten(experience)
        mask = self.masks_of(batch, params)
        advantage = self.advantages_of(batch)

        def loss(variables: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            log_policy, value = self.log_probabilities(variables, batch.obs, mask)
            policy_loss = -(chosen_log_probability(log_policy, batch.item) * advantage).mean()
            value_loss = self.value_loss(value, batch.target)
            return self.config.joint_loss(policy_loss, value_loss, entropy(log_policy).mean())

        gradients, diagnostics = jax.grad(loss, has_aux=True)(state.variables)
        variables, optimiser = self._apply_gradients(state.variables, state.optimiser, gradients)
        return replace(state, variables=variables, optimiser=optimiser), diagnostics
