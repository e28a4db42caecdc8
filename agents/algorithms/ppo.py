"""PPO with a clipped objective (Schulman et al., 2017)."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt

from agents.algorithms.algorithm import TrainState
from agents.algorithms.on_policy import (
    Experience,
    JointLossConfig,
    OnPolicy,
    policy_terms,
)
from jaxsim import EnvParams


@dataclass(frozen=True)
class PPOConfig(JointLossConfig):
    """Settings of PPO."""

    num_envs: Annotated[int, Ge(1)] = 128
    """Number of sessions that run at the same time."""
    rollout_length: Annotated[int, Ge(1)] = 8
    """Steps of each session in one rollout."""
    num_epochs: Annotated[int, Ge(1)] = 1
    """Passes over each rollout."""
    num_minibatches: Annotated[int, Ge(1)] = 8
    """Gradient steps in an epoch. Each has the same number of steps from every session."""
    clip_range: Annotated[float, Gt(0)] = 0.2
    """Bound on the change of an item's probability ratio from 1; beyond it the gradient is cut."""

    def check(self) -> None:
        """See `AlgorithmConfig`."""
        super().check()
        self._check_multiple("rollout_length", "num_minibatches")

    @property
    def gradient_steps_per_iteration(self) -> int:
        """See `AlgorithmConfig`."""
        return self.num_epochs * self.num_minibatches

    @property
    def steps_per_gradient(self) -> int:
        """See `AlgorithmConfig`."""
        return self.steps_per_iteration // self.num_minibatches


@dataclass(frozen=True)
class PPO(OnPolicy[PPOConfig]):
    """PPO for one environment."""

    def learn(
        self, state: TrainState, experience: Experience, params: EnvParams
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Several epochs of gradient steps with minibatches of the rollout."""
        key, key_epochs = jax.random.split(state.key)

        def epoch(learner: tuple[Any, Any], key: jax.Array) -> tuple[Any, Any]:
            batches = self.minibatches(key, experience, self.config.num_minibatches)
            return jax.lax.scan(
                lambda learner, batch: self._update(learner, batch, params), learner, batches
            )

        (variables, optimiser), diagnostics = jax.lax.scan(
            epoch,
            (state.variables, state.optimiser),
            jax.random.split(key_epochs, self.config.num_epochs),
        )
        state = replace(state, variables=variables, optimiser=optimiser, key=key)
        return state, jax.tree.map(jnp.mean, diagnostics)

    def _update(
        self, learner: tuple[Any, Any], batch: Experience, params: EnvParams
    ) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        """One gradient step with a minibatch."""
        variables, optimiser = learner
        mask = self.masks_of(batch, params)
        advantage = self.advantages_of(batch)

        def loss(variables: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            log_policy, value = self.log_probabilities(variables, batch.obs, mask)
            ratio, entropy = policy_terms(log_policy, batch)
            clip_range = self.config.clip_range
            clipped = jnp.clip(ratio, 1 - clip_range, 1 + clip_range)
            policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
            value_loss = self.value_loss(value, batch.target)
            total, parts = self.config.joint_loss(policy_loss, value_loss, entropy)
            return total, {
                **parts,
                # Unbiased and never negative: http://joschu.net/blog/kl-approx.html
                "kl": (ratio - 1 - jnp.log(ratio)).mean(),
                "clipped": (jnp.abs(ratio - 1) > clip_range).mean(dtype=jnp.float32),
            }

        gradients, diagnostics = jax.grad(loss, has_aux=True)(variables)
        return self._apply_gradients(variables, optimiser, gradients), diagnostics
