"""A2C: one gradient step a rollout along the advantage actor-critic gradient (Mnih et al., 2016, synchronous)."""

from dataclasses import dataclass, replace
from typing import Any

import jax

from agents.algorithms.algorithm import Account, TrainState
from agents.algorithms.choice import entropy, score_of
from agents.algorithms.on_policy import JointLossConfig, OnPolicy, flatten
from jaxsim import EnvParams


@dataclass(frozen=True)
class A2CConfig(JointLossConfig):
    """Settings of A2C: those that it shares."""


@dataclass(frozen=True)
class A2C(OnPolicy[A2CConfig]):
    """A2C on one environment."""

    def iterate(self, state: TrainState, params: EnvParams) -> tuple[TrainState, Account]:
        """Collect one rollout, and take one gradient step on all of it."""
        state, experience, totals = self.collect_experience(state, params)
        batch = flatten(experience)
        mask = self.masks(batch.obs, params)
        advantage = self.advantages_of(batch)

        def loss(variables: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            found, value = self.log_probabilities(variables, batch.obs, mask)
            policy_loss = -(score_of(found, batch.item) * advantage).mean()
            value_loss = self.value_loss(value, batch.target)
            return self.config.joint_loss(policy_loss, value_loss, entropy(found).mean())

        gradients, diagnostics = jax.grad(loss, has_aux=True)(state.variables)
        variables, optimiser = self._apply_gradients(state.variables, state.optimiser, gradients)
        return replace(state, variables=variables, optimiser=optimiser), (totals, diagnostics)
