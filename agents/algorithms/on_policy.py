"""What PPO, A2C and TRPO share: an actor with a critic, and rollouts with advantages."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
from annotated_types import Ge, Gt, Le
from flax import struct

from agents.algorithms.advantages import generalised_advantages, next_values
from agents.algorithms.algorithm import Algorithm, AlgorithmConfig, Metrics, TrainState
from agents.algorithms.choice import (
    draw_slate,
    draw_softmax,
    entropy,
    mask_logits,
    score_of,
    slate_log_probability,
)
from agents.algorithms.networks import ActorCritic, ItemStart
from agents.algorithms.parallel import mean_over_devices, own_keys
from agents.algorithms.rollout import SessionTotals, collect
from agents.algorithms.rows import Rows, in_rows, put, room_of_windows, take, window_rows
from jaxsim import EnvParams, InputError, Observation


@dataclass(frozen=True)
class OnPolicyConfig(AlgorithmConfig):
    """Settings of algorithms that learn from rollouts of the current policy."""

    num_envs: Annotated[int, Ge(1)] = 64
    """Number of sessions that run at the same time."""
    learning_rate: Annotated[float, Gt(0)] = 1e-3
    """Peak learning rate of Adam, decayed linearly to a tenth."""
    gae_lambda: Annotated[float, Ge(0), Le(1)] = 0.2
    """lambda of generalised advantage estimation."""
    normalise_advantages: bool = True
    """Whether advantages are shifted to mean 0 and scaled to variance 1 in each gradient step."""

    def check(self) -> None:
        """See `AlgorithmConfig`."""
        super().check()
        if self.normalise_advantages and self.steps_per_gradient < 2:
            raise InputError(
                f"num_envs is {self.num_envs} and rollout_length {self.rollout_length}: a gradient step has one "
                "advantage, which normalising makes 0; raise one of them, or turn normalise_advantages off"
            )


@dataclass(frozen=True)
class JointLossConfig(OnPolicyConfig):
    """Settings of algorithms that train actor and critic with one loss."""

    vf_coef: Annotated[float, Ge(0)] = 0.5
    """Weight of the value loss."""
    ent_coef: Annotated[float, Ge(0)] = 0.001
    """Weight of the policy's entropy, which keeps it exploring."""

    def joint_loss(
        self, policy_loss: jax.Array, value_loss: jax.Array, entropy: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted sum of the losses minus that of the entropy, and the parts by name. All float32[]."""
        total = policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy
        parts = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return total, {"loss": total, **parts}


@struct.dataclass
class Experience:
    """A rollout with advantages; leading dimensions [T, B], or [n] of a batch of its steps.

    Attributes:
        obs: the observation before the step.
        item: int32, the recommended item, or with slates int32[..., K].
        log_probability: float32, of the item under the policy that collected the rollout.
        value: float32, of the observation by the critic of that time.
        advantage: float32.
        target: float32, what the critic learns: advantage + value.
        mask: bool[..., C], which candidates were allowed; `item` is then the place among the candidates. None if
            all items are candidates.
    """

    obs: Observation
    item: jax.Array
    log_probability: jax.Array
    value: jax.Array
    advantage: jax.Array
    target: jax.Array
    mask: jax.Array | None = None


ConfigT = TypeVar("ConfigT", bound=OnPolicyConfig)


@dataclass(frozen=True)
class OnPolicy(Algorithm[ConfigT]):
    """An algorithm with an actor and a critic, for one environment."""

    @property
    def network(self) -> ActorCritic:
        """Logits of a softmax policy, and values."""
        c, sizes = self.config, self.table_sizes
        return ActorCritic(
            sizes.choices,
            c.width,
            c.encoder,
            c.initial_value,
            num_window_items=sizes.windows,
        )

    def init(self, key: jax.Array, params: EnvParams, items: ItemStart | None = None) -> TrainState:
        """See `Algorithm`."""
        return self._start(key, params, items)

    @abstractmethod
    def learn(
        self, state: TrainState, experience: Experience, params: EnvParams
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Learn from a rollout [T, B]: the state with new variables, and diagnostics."""

    def iterate(self, state: TrainState, params: EnvParams) -> tuple[TrainState, Metrics]:
        """Collect one rollout, and learn from it."""
        if self.candidates is not None:
            return self._iterate_among_candidates(state, params)
        state, experience, totals = self.collect_experience(state, params)
        state, diagnostics = self.learn(state, experience, params)
        return state, (totals, diagnostics)

    def _iterate_among_candidates(
        self, state: TrainState, params: EnvParams
    ) -> tuple[TrainState, Metrics]:
        """The same with the rows of the candidates and of the rollout's windows alone."""
        num_items, variables, optimiser = self.env.num_items, state.variables, state.optimiser
        key, key_candidates = jax.random.split(state.key)
        candidates = self._draw_candidates(key_candidates, state, params)
        rows = Rows(candidates)
        acting = self.with_tables(len(candidates), num_items)
        state, experience, totals = acting.collect_experience(
            replace(state, key=key, variables=take(variables, rows)), params, candidates
        )
        room = room_of_windows(self.config.num_envs, experience.obs)
        windows = window_rows(experience.obs, num_items, room, self.axis_name)
        rows = Rows(candidates, windows)
        learning = self.with_tables(len(candidates), len(windows))
        local, diagnostics = learning.learn(
            replace(state, variables=take(variables, rows), optimiser=take(optimiser, rows)),
            replace(experience, obs=in_rows(experience.obs, windows, num_items)),
            params,
        )
        state = replace(
            local,
            variables=put(variables, local.variables, rows),
            optimiser=put(optimiser, local.optimiser, rows),
        )
        return state, (totals, diagnostics)

    def collect_experience(
        self, state: TrainState, params: EnvParams, candidates: jax.Array | None = None
    ) -> tuple[TrainState, Experience, SessionTotals]:
        """Roll out the current policy over all items, or over candidates int32[C], and estimate advantages."""
        key, key_collect = jax.random.split(state.key)
        network = self.network

        def act(keys: jax.Array, obs: Observation) -> tuple[jax.Array, Any]:
            logits, value = network.apply(state.variables, obs, method="logits_and_value")
            mask = self.masks(obs, params, candidates)
            logits = mask_logits(logits, mask)
            choice = jax.vmap(self.draw)(keys, logits)
            log_probability = chosen_log_probability(jax.nn.log_softmax(logits), choice)
            if candidates is None:
                return choice, (log_probability, value, None)
            return candidates[choice], (log_probability, value, (choice, mask))

        def value_of(obs: Observation) -> jax.Array:
            return network.apply(state.variables, obs, method="value")

        sessions, rollout, totals = collect(
            key_collect,
            self.env,
            params,
            state.sessions,
            act,
            self.config.rollout_length,
            num_envs=self.config.num_envs,
            value=value_of,
            keep_obs=True,
            axis_name=self.axis_name,
        )
        steps = rollout.transitions
        log_probabilities, values, among = rollout.extras
        assert rollout.obs is not None
        assert rollout.final_value is not None
        following = next_values(
            values, value_of(sessions.obs), rollout.final_value, steps.truncated
        )
        advantages = generalised_advantages(
            steps.reward,
            values,
            following,
            steps.terminated,
            steps.truncated,
            self.config.gamma,
            self.config.gae_lambda,
        )
        experience = Experience(
            obs=rollout.obs,
            item=steps.item if among is None else among[0],
            log_probability=log_probabilities,
            value=values,
            advantage=advantages,
            target=advantages + values,
            mask=None if among is None else among[1],
        )
        state = replace(state, sessions=sessions, key=key, iteration=state.iteration + 1)
        return state, experience, totals

    def minibatches(self, key: jax.Array, experience: Experience, count: int) -> Experience:
        """The rollout [T, B] in random order as `count` minibatches [count, T / count * B].

        Each session's steps are shuffled separately and spread evenly over the minibatches. So the minibatches are
        the same on any number of devices.
        """
        length = self.config.rollout_length
        keys = own_keys(key, self.config.num_envs, self.axis_name)
        order = jax.vmap(lambda k: jax.random.permutation(k, length))(keys).T

        def split(x: jax.Array) -> jax.Array:
            index = order.reshape(*order.shape, *[1] * (x.ndim - 2))
            shuffled = jnp.take_along_axis(x, index, axis=0)
            return shuffled.reshape(count, -1, *x.shape[1:])

        return jax.vmap(flatten)(jax.tree.map(split, experience))

    def draw(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """An item int32[] or a slate int32[K] from masked logits float32[N]."""
        if self.slate_size is None:
            return draw_softmax(key, logits)
        return draw_slate(key, logits, self.slate_size)

    def masks_of(self, batch: Experience, params: EnvParams) -> jax.Array:
        """What was allowed in the steps [n] of a batch, bool[n, N] or bool[n, C]."""
        return self.masks(batch.obs, params) if batch.mask is None else batch.mask

    def log_probabilities(
        self, variables: Any, obs: Observation, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Log-probabilities of the policy float32[n, N], and values float32[n]."""
        logits, value = self.network.apply(variables, obs, method="logits_and_value")
        return jax.nn.log_softmax(mask_logits(logits, mask)), value

    def advantages_of(self, batch: Experience) -> jax.Array:
        """Advantages, float32[n], normalised over the batch on all devices if `normalise_advantages` is set."""
        advantage = batch.advantage
        if not self.config.normalise_advantages:
            return advantage
        mean = mean_over_devices(advantage.mean(), self.axis_name)
        variance = mean_over_devices(((advantage - mean) ** 2).mean(), self.axis_name)
        return (advantage - mean) / jnp.sqrt(variance + 1e-8)

    def value_loss(self, value: jax.Array, target: jax.Array) -> jax.Array:
        """Half the mean squared error in units of `initial_value`, float32[]."""
        return 0.5 * (((value - target) / self.config.initial_value) ** 2).mean()


def flatten(experience: Experience) -> Experience:
    """Join the leading dimensions [T, B] to one."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), experience)


def chosen_log_probability(log_probabilities: jax.Array, item: jax.Array) -> jax.Array:
    """Log-probability float32[n] of items int32[n] or slates int32[n, K]; that of all items is float32[n, N]."""
    if item.ndim == log_probabilities.ndim:
        return slate_log_probability(log_probabilities, item)
    return score_of(log_probabilities, item)


def policy_terms(log_probabilities: jax.Array, batch: Experience) -> tuple[jax.Array, jax.Array]:
    """Ratio of the probabilities of the batch's items, new to old, float32[n]; and the mean entropy, float32[].

    With slates the entropy is that of the first place: the one of whole slates has no short formula.
    """
    chosen = chosen_log_probability(log_probabilities, batch.item)
    return jnp.exp(chosen - batch.log_probability), entropy(log_probabilities).mean()
