"""PPO with a clipped objective (Schulman et al., 2017)."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from agents.algorithms.algorithm import Account, TrainState
from agents.algorithms.on_policy import (
    Experience,
    JointLossConfig,
    OnPolicy,
    flatten,
    policy_terms,
)
from agents.algorithms.parallel import own_keys
from jaxsim import EnvParams


@dataclass(frozen=True)
class PPOConfig(JointLossConfig):
    """Settings of PPO."""

    rollout_length: int = 16
    """Steps of each session between two rounds of learning."""
    num_epochs: int = 4
    """Times that a rollout is learned from."""
    num_minibatches: int = 4
    """Gradient steps in an epoch; each is on as many steps of every session."""
    clip_range: float = 0.2
    """How far the probability of an item may move from when it was chosen, before its gradient is cut."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        # First, for what the other checks ask about a gradient step divides by it.
        self._check_whole("num_epochs", "num_minibatches")
        super().check()
        self._check_divides("num_minibatches", "rollout_length")
        self._check_positive("clip_range")

    @property
    def gradient_steps_per_iteration(self) -> int:
        """Gradient steps in a round of learning."""
        return self.num_epochs * self.num_minibatches

    @property
    def steps_per_gradient(self) -> int:
        """Environment steps that one gradient step learns from."""
        return self.steps_per_iteration // self.num_minibatches


@dataclass(frozen=True)
class PPO(OnPolicy[PPOConfig]):
    """PPO on one environment."""

    def iterate(self, state: TrainState, params: EnvParams) -> tuple[TrainState, Account]:
        """Collect one rollout, and learn from it for several epochs."""
        state, experience, totals = self.collect_experience(state, params)
        key, key_epochs = jax.random.split(state.key)

        def epoch(learner: tuple[Any, Any], key: jax.Array) -> tuple[Any, Any]:
            batches = self._minibatches(key, experience)
            return jax.lax.scan(
                lambda now, batch: self._update(now, batch, params), learner, batches
            )

        (variables, optimiser), diagnostics = jax.lax.scan(
            epoch,
            (state.variables, state.optimiser),
            jax.random.split(key_epochs, self.config.num_epochs),
        )
        state = replace(state, variables=variables, optimiser=optimiser, key=key)
        return state, (totals, jax.tree.map(jnp.mean, diagnostics))

    def _minibatches(self, key: jax.Array, experience: Experience) -> Experience:
        """The rollout [T, B] in random order as minibatches [M, T / M * B].

        Each session's steps are shuffled and dealt out evenly, so a minibatch has as many of every session, and
        is the same on any number of devices.
        """
        length, count = self.config.rollout_length, self.config.num_minibatches
        keys = own_keys(key, self.config.num_envs, self.axis_name)
        order = jax.vmap(lambda k: jax.random.permutation(k, length))(keys).T

        def deal(x: jax.Array) -> jax.Array:
            index = order.reshape(*order.shape, *[1] * (x.ndim - 2))
            shuffled = jnp.take_along_axis(x, index, axis=0)
            return shuffled.reshape(count, -1, *x.shape[1:])

        return jax.vmap(flatten)(jax.tree.map(deal, experience))

    def _update(
        self, learner: tuple[Any, Any], batch: Experience, params: EnvParams
    ) -> tuple[tuple[Any, Any], dict[str, jax.Array]]:
        """One gradient step on a minibatch."""
        variables, optimiser = learner
        mask = self.masks(batch.obs, params)
        advantage = self.advantages_of(batch)

        def loss(variables: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            found, value = self.log_probabilities(variables, batch.obs, mask)
            ratio, spread = policy_terms(found, batch)
            reach = self.config.clip_range
            clipped = jnp.clip(ratio, 1 - reach, 1 + reach)
            policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
            value_loss = self.value_loss(value, batch.target)
            total, parts = self.config.joint_loss(policy_loss, value_loss, spread)
            return total, {
                **parts,
                # An estimate without bias or negative values (Schulman, 2020).
                "kl": (ratio - 1 - jnp.log(ratio)).mean(),
                "clipped": (jnp.abs(ratio - 1) > reach).mean(dtype=jnp.float32),
            }

        gradients, diagnostics = jax.grad(loss, has_aux=True)(variables)
        return self._apply_gradients(variables, optimiser, gradients), diagnostics
