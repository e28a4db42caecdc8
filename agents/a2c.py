"""A2C: one gradient step a rollout along the advantage actor-critic gradient (Mnih et al., 2016, synchronous)."""

from dataclasses import dataclass, replace
from typing import Any

import jax

from agents.algorithm import Account, TrainState
from agents.choice import entropy, score_of
from agents.on_policy import OnPolicy, OnPolicyConfig, flatten
from jaxsim import EnvParams


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Settings of A2C."""

    value_weight: float = 0.5
    """Weight of the value loss."""
    entropy_weight: float = 0.001
    """Weight of the policy's entropy, which keeps it exploring."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        super().check()
        self._check_not_negative("value_weight", "entropy_weight")


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
            found, value = self.log_probabilities(variables, batch.obs, mask, "logits_and_value")
            policy_loss = -(score_of(found, batch.item) * advantage).mean()
            value_loss, spread = self.value_loss(value, batch.target), entropy(found).mean()
            c = self.config
            total = policy_loss + c.value_weight * value_loss - c.entropy_weight * spread
            return total, {
                "loss": total,
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": spread,
            }

        gradients, diagnostics = jax.grad(loss, has_aux=True)(state.variables)
        variables, optimiser = self._apply_gradients(state.variables, state.optimiser, gradients)
        return replace(state, variables=variables, optimiser=optimiser), (totals, diagnostics)
