"""TRPO (Schulman et al., 2015): the natural gradient by conjugate gradients, and a line search within a KL bound.

Actor and critic share no parameters. So the policy moves only by steps within the trust region, and the critic
learns everything that values depend on. Spinning Up and SB3-contrib do the same.

With slates the divergence of two policies is estimated from the slates that were drawn. For each it is the sum
over places of the divergence of what is drawn there, given the earlier places, which is exact over items
(`agents.algorithms.choice.slate_kl_divergence`). The Fisher matrix is the mean of the same sums.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt, Le
from flax import struct
from jax.scipy.sparse.linalg import cg

from agents.algorithms.algorithm import TrainState
from agents.algorithms.choice import (
    entropy,
    kl_divergence,
    mask_logits,
    slate_kl_divergence,
    slate_places,
)
from agents.algorithms.networks import CRITIC_LAYERS, ActorCritic, ItemStart
from agents.algorithms.on_policy import Experience, OnPolicy, OnPolicyConfig, flatten, policy_terms
from agents.algorithms.parallel import mean_over_devices
from jaxsim import EnvParams, Observation


@dataclass(frozen=True)
class TRPOConfig(OnPolicyConfig):
    """Settings of TRPO; its learning rate is that of the critic."""

    learning_rate: Annotated[float, Gt(0)] = 3e-3
    """Peak learning rate of Adam on the critic, decayed linearly to a tenth."""
    rollout_length: Annotated[int, Ge(1)] = 16
    """Steps of each session in one rollout."""
    target_kl: Annotated[float, Gt(0)] = 0.04
    """Largest mean KL divergence, in nats, of the new policy from the old one."""
    cg_iterations: Annotated[int, Ge(1)] = 10
    """Conjugate-gradient iterations."""
    cg_damping: Annotated[float, Gt(0)] = 0.002
    """Multiple of the identity that is added to the Fisher matrix."""
    fisher_stride: Annotated[int, Ge(1)] = 4
    """The Fisher matrix is averaged over every `fisher_stride`-th step of the rollout."""
    line_search_steps: Annotated[int, Ge(1)] = 10
    """Step sizes that are tried; if none is accepted, the policy does not change."""
    line_search_shrink: Annotated[float, Gt(0), Le(1)] = 0.7
    """Each step size as a share of the one before."""
    critic_epochs: Annotated[int, Ge(1)] = 4
    """Passes of the critic over each rollout."""
    critic_minibatches: Annotated[int, Ge(1)] = 4
    """Gradient steps in an epoch of the critic. Each has the same number of steps from every session."""

    def check(self) -> None:
        """See `AlgorithmConfig`."""
        super().check()
        self._check_multiple("rollout_length", "fisher_stride")
        self._check_multiple("rollout_length", "critic_minibatches")

    @property
    def gradient_steps_per_iteration(self) -> int:
        """Gradient steps of the critic in one iteration."""
        return self.critic_epochs * self.critic_minibatches


@struct.dataclass
class PolicyStep:
    """Diagnostics of a step of the policy, float32[] each.

    Attributes:
        kl: mean KL divergence of the new policy from the old one, in nats.
        improvement: of the surrogate objective.
        step_size: share of the full step; 0 if the line search accepted none.
    """

    kl: jax.Array
    improvement: jax.Array
    step_size: jax.Array


@dataclass(frozen=True)
class TRPO(OnPolicy[TRPOConfig]):
    """TRPO for one environment."""

    @property
    def network(self) -> ActorCritic:
        """Logits of a softmax policy, and values of a critic with an encoder of its own."""
        return super().network.clone(separate_critic=True)

    def init(self, key: jax.Array, params: EnvParams, items: ItemStart | None = None) -> TrainState:
        """See `Algorithm`; the optimiser has the critic's parameters only."""
        state = super().init(key, params, items)
        _, critic = split_critic(state.variables)
        return replace(state, optimiser=self.optimiser.init(critic))

    def learn(
        self, state: TrainState, experience: Experience, params: EnvParams
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Step the policy, then fit the critic."""
        variables, step = self.step_policy(state.variables, experience, params)
        key, key_critic = jax.random.split(state.key)
        variables, optimiser, value_loss = self.fit_critic(
            key_critic, variables, state.optimiser, experience
        )
        diagnostics = {
            "loss": value_loss - step.improvement,
            "value_loss": value_loss,
            "kl": step.kl,
            "improvement": step.improvement,
            "step_size": step.step_size,
            "entropy": self._entropy(variables, experience, params),
        }
        state = replace(state, variables=variables, optimiser=optimiser, key=key)
        return state, diagnostics

    # ---- the policy ----------------------------------------------------------------------------------------

    def step_policy(
        self, variables: Any, experience: Experience, params: EnvParams
    ) -> tuple[Any, PolicyStep]:
        """The variables after one step of the policy within the trust region; experience is [T, B]."""
        batch = flatten(experience)
        mask = self.masks_of(batch, params)
        advantage = self.advantages_of(batch)
        actor, critic = split_critic(variables)

        def evaluate(actor: Any) -> tuple[jax.Array, jax.Array]:
            """Surrogate objective, and mean KL divergence from the old policy, on this device."""
            new = self._log_policy(actor, batch.obs, mask)
            ratio, _ = policy_terms(new, batch)
            return (ratio * advantage).mean(), self._divergence(old, new, batch.item).mean()

        old = self._log_policy(actor, batch.obs, mask)
        gradient = jax.grad(lambda a: evaluate(a)[0])(actor)
        gradient = mean_over_devices(gradient, self.axis_name)
        part = flatten(jax.tree.map(lambda x: x[:: self.config.fisher_stride], experience))
        masks = self.masks_of(part, params)
        product = self.fisher_product(actor, part.obs, masks, part.item)
        direction, _ = cg(product, gradient, tol=1e-10, maxiter=self.config.cg_iterations)
        curvature = optax.tree.vdot(direction, product(direction))
        scale = jnp.sqrt(2 * self.config.target_kl / jnp.maximum(curvature, 1e-12))
        full = jax.tree.map(lambda x: scale * x, direction)
        actor, step = self.line_search(
            actor, full, lambda a: mean_over_devices(evaluate(a), self.axis_name)
        )
        return join_critic(actor, critic), step

    def _divergence(self, old: jax.Array, new: jax.Array, drawn: jax.Array) -> jax.Array:
        """KL divergence of log-probabilities float32[n, N], with slates estimated from those drawn; float32[n]."""
        if self.slate_size is None:
            return kl_divergence(old, new)
        return slate_kl_divergence(old, new, drawn)

    def fisher_product(
        self, actor: Any, obs: Observation, mask: jax.Array, drawn: jax.Array
    ) -> Callable[[Any], Any]:
        """The function v -> F v + damping v with the mean Fisher matrix F of the policy at observations [n].

        F = J' (diag(p) - p p') J, where J is the Jacobian of the logits: the Hessian of the KL divergence. With
        slates it is the sum over places, with the p of each place of those drawn, int32[n, K]. The network is
        linearised once for all products.
        """

        def logits(actor: Any) -> jax.Array:
            return mask_logits(self.network.apply({"params": actor}, obs, method="logits"), mask)

        masked, forwards = jax.linearize(logits, actor)
        backwards = jax.linear_transpose(forwards, actor)
        places = [masked] if self.slate_size is None else slate_places(masked, drawn)
        probabilities = [jax.nn.softmax(logits) for logits in places]

        def product(vector: Any) -> Any:
            change = forwards(vector)
            pushed = jnp.zeros_like(change)
            for probability in probabilities:
                centred = change - (probability * change).sum(axis=-1, keepdims=True)
                pushed += probability * centred / len(mask)
            (pulled,) = backwards(pushed)
            pulled = mean_over_devices(pulled, self.axis_name)
            return jax.tree.map(lambda x, v: x + self.config.cg_damping * v, pulled, vector)

        return product

    def line_search(
        self, actor: Any, full: Any, evaluate: Callable[[Any], tuple[jax.Array, jax.Array]]
    ) -> tuple[Any, PolicyStep]:
        """The first step size that improves the surrogate within the KL bound; none if all fail.

        Args:
            actor: parameters to start from.
            full: the full step.
            evaluate: actor -> surrogate objective, and KL divergence from the start.
        """
        c = self.config
        before, _ = evaluate(actor)

        def moved(step_size: jax.Array) -> Any:
            return jax.tree.map(
                lambda x, d: jnp.where(step_size > 0, x + step_size * d, x), actor, full
            )

        def refused(carry: tuple[jax.Array, PolicyStep]) -> jax.Array:
            tries, step = carry
            accepted = (step.improvement > 0) & (step.kl <= c.target_kl)
            return ~accepted & (tries < c.line_search_steps)

        def attempt(carry: tuple[jax.Array, PolicyStep]) -> tuple[jax.Array, PolicyStep]:
            tries, _ = carry
            step_size = jnp.float32(c.line_search_shrink) ** tries
            surrogate, kl = evaluate(moved(step_size))
            return tries + 1, PolicyStep(kl, surrogate - before, step_size)

        nothing = PolicyStep(jnp.float32(0), jnp.float32(0), jnp.float32(0))
        _, step = jax.lax.while_loop(refused, attempt, (jnp.int32(0), nothing))
        accepted = (step.improvement > 0) & (step.kl <= c.target_kl)
        step = jax.tree.map(lambda x: jnp.where(accepted, x, 0.0), step)
        return moved(step.step_size), step

    def _log_policy(self, actor: Any, obs: Observation, mask: jax.Array) -> jax.Array:
        """Log-probabilities of the items, float32[n, N]."""
        logits = self.network.apply({"params": actor}, obs, method="logits")
        return jax.nn.log_softmax(mask_logits(logits, mask))

    def _entropy(self, variables: Any, experience: Experience, params: EnvParams) -> jax.Array:
        """Mean entropy of the policy at the rollout's last observations."""
        last = jax.tree.map(lambda x: x[-1], experience)
        actor, _ = split_critic(variables)
        return entropy(self._log_policy(actor, last.obs, self.masks_of(last, params))).mean()

    # ---- the critic ----------------------------------------------------------------------------------------

    def fit_critic(
        self, key: jax.Array, variables: Any, optimiser: Any, experience: Experience
    ) -> tuple[Any, Any, jax.Array]:
        """Several epochs of the critic on a rollout [T, B].

        Returns:
            The variables, the optimiser's state, and the mean loss of the first epoch, float32[].
        """
        actor, critic = split_critic(variables)

        def step(learner: tuple[Any, Any], batch: Experience) -> tuple[tuple[Any, Any], jax.Array]:
            critic, optimiser = learner

            def loss(critic: Any) -> jax.Array:
                joined = join_critic(actor, critic)
                value = self.network.apply(joined, batch.obs, method="value")
                return self.value_loss(value, batch.target)

            value_loss, gradients = jax.value_and_grad(loss)(critic)
            return self._apply_gradients(critic, optimiser, gradients), value_loss

        def epoch(learner: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
            batches = self.minibatches(key, experience, self.config.critic_minibatches)
            return jax.lax.scan(step, learner, batches)

        keys = jax.random.split(key, self.config.critic_epochs)
        (critic, optimiser), losses = jax.lax.scan(epoch, (critic, optimiser), keys)
        return join_critic(actor, critic), optimiser, losses[0].mean()


def split_critic(variables: Any) -> tuple[Any, Any]:
    """Parameters of the actor, and of the critic."""
    layers = variables["params"]
    actor = {name: layer for name, layer in layers.items() if name not in CRITIC_LAYERS}
    return actor, {name: layers[name] for name in CRITIC_LAYERS}


def join_critic(actor: Any, critic: Any) -> Any:
    """The inverse of `split_critic`."""
    return {"params": {**actor, **critic}}
