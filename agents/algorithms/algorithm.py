"""What all algorithms share. A training run is a pure function of a key and the params."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt, Lt
from flax import linen as nn
from flax import struct

from agents.algorithms.networks import Encoder, ItemStart, with_item_start
from agents.algorithms.parallel import mean_over_devices, sum_over_devices
from agents.algorithms.policy import GreedyPolicy, NetworkPolicy, SampledPolicy
from agents.algorithms.rollout import (
    RecommenderEnv,
    Sessions,
    SessionTotals,
    slate_size_of,
    start_sessions,
)
from jaxsim import EnvParams, InputError
from jaxsim.settings import check_settings

LOG_POINTS = 40  # number of log lines of a run, and of updates of its progress bar
_COUNTER_LIMIT = 2**31
_FINAL_LEARNING_RATE = 0.1  # as a share of the peak

ItemEmbedding = Literal["learned", "keywords", "logs"]


@dataclass(frozen=True)
class AlgorithmConfig:
    """Settings of every algorithm. Floats may be traced, and so vmapped; all others are static.

    Bounds stand in the types, see `jaxsim.settings`.
    """

    total_steps: Annotated[int, Ge(1)] = 200_000
    """Environment steps of one seed, rounded up to whole log intervals."""
    num_envs: Annotated[int, Ge(1)] = 128
    """Number of sessions that run at the same time."""
    rollout_length: Annotated[int, Ge(1)] = 4
    """Steps of each session in one rollout."""
    gamma: Annotated[float, Ge(0), Lt(1)] = 0.4
    """Discount factor of the agent. docs/decisions.md says why it is small."""
    learning_rate: Annotated[float, Gt(0)] = 2e-3
    """Peak learning rate of Adam, decayed linearly to a tenth."""
    max_grad_norm: Annotated[float, Gt(0)] = 10.0
    """Gradients with a larger global norm are scaled down to this norm."""
    width: Annotated[int, Ge(1)] = 32
    """Width of embeddings and layers."""
    encoder: Encoder = "mean"
    """How the window is encoded: mean of liked and disliked items, a GRU, attention, or a regression of the
    residuals (response minus the item's rate in the logs) on item features, which needs item_embedding logs."""
    item_embedding: ItemEmbedding = "learned"
    """Where item embeddings start: from random numbers; from the items' keyword vectors; or from keywords,
    categories, years and training logs, and item biases from like rates in the logs."""
    log_odds_scale: Annotated[float, Gt(0)] = 1.0
    """With item_embedding logs: the first scores are the log-odds of a like that the logs suggest, times this."""

    def check(self) -> None:
        """Check each setting, and settings that depend on one another.

        Raises:
            InputError: the first setting that is wrong.
        """
        check_settings(self)
        if self.encoder == "residual" and self.item_embedding != "logs":
            raise InputError(
                f"encoder residual needs item_embedding logs, but it is {self.item_embedding}: its features and "
                "rates of items come from the logs"
            )
        largest_count = max(
            self.num_iterations * self.rollout_length,  # steps in one session's stream
            self.iterations_per_log * self.steps_per_iteration,  # steps between two log lines
        )
        if largest_count >= _COUNTER_LIMIT:
            raise InputError(
                f"total_steps is {self.total_steps}, more than 32-bit counters hold: lower it, or raise num_envs"
            )

    def _check_multiple(self, name: str, divisor_name: str) -> None:
        """Refuse a setting that is not a multiple of another one."""
        number, divisor = getattr(self, name), getattr(self, divisor_name)
        if number % divisor:
            raise InputError(
                f"{name} is {number}, but must be a multiple of {divisor_name} ({divisor})"
            )

    @property
    def initial_value(self) -> float | jax.Array:
        """Value of every state before training: half the value of endless likes."""
        return 0.5 / (1 - self.gamma)

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration, over all sessions."""
        return self.num_envs * self.rollout_length

    @property
    def iterations_per_log(self) -> int:
        """Iterations between two log lines."""
        return -(-self.total_steps // (self.steps_per_iteration * LOG_POINTS))

    @property
    def num_iterations(self) -> int:
        """Iterations of a run. An iteration collects one rollout and learns."""
        return self.iterations_per_log * LOG_POINTS

    @property
    def gradient_steps_per_iteration(self) -> int:
        """Gradient steps of one iteration."""
        return 1

    @property
    def steps_per_gradient(self) -> int:
        """Environment steps in the batch of one gradient step."""
        return self.steps_per_iteration


@struct.dataclass
class TrainState:
    """The state of a training run; algorithms add their own fields.

    Attributes:
        variables: the network's variables.
        optimiser: the optimiser's state.
        sessions: the sessions in progress, leading dimension num_envs.
        iteration: int32[], iterations so far.
        key: PRNG key of all later random draws.
    """

    variables: Any
    optimiser: Any
    sessions: Sessions
    iteration: jax.Array
    key: jax.Array


ConfigT = TypeVar("ConfigT", bound=AlgorithmConfig)
Metrics = tuple[SessionTotals, dict[str, jax.Array]]
"""Totals of a rollout's sessions, and diagnostics float32[] by name."""


@dataclass(frozen=True)
class Algorithm(ABC, Generic[ConfigT]):
    """An algorithm for one environment. Its methods are pure; vmap them over keys and over floats of the config.

    Attributes:
        env: the environment that `jaxsim.make` returns, or any `RecommenderEnv`.
        config: the settings.
        axis_name: mesh axis over which sessions are split, inside `jaxsim.over_sessions`; None on one device.
    """

    env: RecommenderEnv
    config: ConfigT
    axis_name: str | None = None

    def __post_init__(self) -> None:
        self.config.check()

    @property
    def slate_size(self) -> int | None:
        """K, if the environment shows slates; otherwise None."""
        return slate_size_of(self.env)

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network. It scores all items after an observation, float32[..., N]."""

    @abstractmethod
    def init(self, key: jax.Array, params: EnvParams, items: ItemStart | None = None) -> Any:
        """The state before training.

        Args:
            key: PRNG key.
            params: the environment's.
            items: what is known of the items; None if embeddings start from random numbers.
        """

    @abstractmethod
    def iterate(self, state: Any, params: EnvParams) -> tuple[Any, Metrics]:
        """One iteration: collect one rollout, and learn."""

    @property
    def state_axes(self) -> Any:
        """The axis of sessions in each part of the state; None for parts that all devices share."""
        shared: Any = None
        axis: Any = 0
        return TrainState(
            variables=shared, optimiser=shared, sessions=axis, iteration=shared, key=shared
        )

    def variables(self, state: Any) -> Any:
        """The network's variables in a training state."""
        return state.variables

    def iterations(self, state: Any, params: EnvParams, count: int) -> tuple[Any, Metrics]:
        """`count` iterations in one scan: the state after them, the sum of totals, and the mean of diagnostics."""
        state, (totals, diagnostics) = jax.lax.scan(
            lambda s, _: self.iterate(s, params), state, None, length=count
        )
        summed = jax.tree.map(lambda x: x.sum(axis=0), totals)
        means = jax.tree.map(lambda x: x.mean(axis=0), diagnostics)
        return state, (
            sum_over_devices(summed, self.axis_name),
            mean_over_devices(means, self.axis_name),
        )

    def train(self, key: jax.Array, params: EnvParams, items: ItemStart | None = None) -> Any:
        """A whole training run: the state after it. See `init` for the arguments."""
        state = self.init(key, params, items)
        return self.iterations(state, params, self.config.num_iterations)[0]

    def policy_of(self, variables: Any, sampled: bool = False) -> NetworkPolicy:
        """The greedy policy of the network, or with `sampled` the policy that draws as at the end of training."""
        if sampled:
            return SampledPolicy(variables, self.network, self.env)
        return GreedyPolicy(variables, self.network, self.env)

    @property
    def optimiser(self) -> optax.GradientTransformation:
        """Adam with clipped gradients and a linearly decayed learning rate."""
        c = self.config
        steps = c.num_iterations * c.gradient_steps_per_iteration
        final_rate = _FINAL_LEARNING_RATE * c.learning_rate
        rate = optax.linear_schedule(c.learning_rate, final_rate, steps)
        return optax.chain(optax.clip_by_global_norm(c.max_grad_norm), optax.adam(rate))

    def _start(self, key: jax.Array, params: EnvParams, items: ItemStart | None) -> TrainState:
        """The part of the state before training that all algorithms have."""
        key, key_network, key_sessions = jax.random.split(key, 3)
        sessions = start_sessions(
            key_sessions, self.env, params, self.config.num_envs, self.axis_name
        )
        obs = jax.tree.map(lambda x: x[0], sessions.obs)
        variables = self.network.init(key_network, obs)
        if items is not None:
            variables = with_item_start(variables, items, self.config.log_odds_scale)
        return TrainState(
            variables=variables,
            optimiser=self.optimiser.init(variables),
            sessions=sessions,
            iteration=jnp.int32(0),
            key=key,
        )

    def _apply_gradients(self, variables: Any, optimiser: Any, gradients: Any) -> tuple[Any, Any]:
        """One step of the optimiser, with gradients averaged over devices."""
        gradients = mean_over_devices(gradients, self.axis_name)
        updates, optimiser = self.optimiser.update(gradients, optimiser, variables)
        return optax.apply_updates(variables, updates), optimiser
