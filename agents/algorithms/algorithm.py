"""What all algorithms share: a training run is a pure function of a key and the params."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from agents.algorithms.networks import Encoder, with_item_vectors
from agents.algorithms.parallel import mean_over_devices, sum_over_devices
from agents.algorithms.policy import GreedyPolicy, NetworkPolicy, SampledPolicy
from agents.algorithms.rollout import RecommenderEnv, Sessions, SessionTotals, start_sessions
from jaxsim import EnvParams, InputError

LOG_POINTS = 40  # a run is logged, and its progress shown, this many times
_COUNTABLE = 2**31
_LAST_RATE = 0.1  # of the peak learning rate, at the end of training

ItemEmbedding = Literal["learned", "keywords"]


@dataclass(frozen=True)
class AlgorithmConfig:
    """Settings that every algorithm has. Whole numbers are static; the others may be traced, and so vmapped."""

    total_steps: int = 200_000
    """Environment steps of one seed, rounded up to whole log intervals."""
    num_envs: int = 128
    """Sessions that run at once."""
    rollout_length: int = 4
    """Steps of each session between two rounds of learning."""
    discount: float = 0.4
    """gamma of the agent, its horizon; why it is shorter than the session's: docs/decisions.md."""
    learning_rate: float = 2e-3
    """Peak learning rate of Adam, decayed linearly to a tenth."""
    max_gradient_norm: float = 10.0
    """Gradients are scaled down to this global norm."""
    width: int = 32
    """Width of embeddings and layers."""
    encoder: Encoder = "mean"
    """How the window is read: mean of liked and disliked items, a GRU, or attention."""
    item_embedding: ItemEmbedding = "learned"
    """Whether item embeddings start at random, or from the vectors of the items' keywords."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        self._check_whole("total_steps", "num_envs", "rollout_length", "width")
        self._check_positive("learning_rate", "max_gradient_norm")
        if _known(self.discount) and not 0 <= self.discount < 1:
            raise InputError(f"discount is {self.discount}, but must be at least 0 and less than 1")
        self._check_choice("encoder", get_args(Encoder))
        self._check_choice("item_embedding", get_args(ItemEmbedding))
        most = max(
            self.num_iterations * self.rollout_length,  # of one session's stream
            self.iterations_per_log * self.steps_per_iteration,  # between two lines of the log
        )
        if most >= _COUNTABLE:
            raise InputError(
                f"total_steps is {self.total_steps}, more than 32-bit counters hold: lower it, or raise num_envs"
            )

    def _check_whole(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{name} is {value!r}, but must be a whole number")
            if value < 1:
                raise InputError(f"{name} is {value}, but must be at least 1")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if _known(value) and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}, but must be finite and above 0")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if _known(value) and not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}, but must be finite and not negative")

    def _check_share(self, *names: str, above: float | None = None) -> None:
        for name in names:
            value = getattr(self, name)
            if not _known(value):
                continue
            if above is None and not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, but must be from 0 to 1")
            if above is not None and not above < value <= 1:
                raise InputError(f"{name} is {value}, but must be above {above:g} and at most 1")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise InputError(f"{name} is {getattr(self, name)!r}, not one of {', '.join(choices)}")

    def _check_divides(self, small: str, large: str) -> None:
        """Refuse a `large` that is not a multiple of `small`."""
        divisor, number = getattr(self, small), getattr(self, large)
        if number % divisor:
            raise InputError(f"{large} is {number}, but must be a multiple of {small} ({divisor})")

    @property
    def initial_value(self) -> float | jax.Array:
        """Value of every state before training: half of what likes for ever are worth."""
        return 0.5 / (1 - self.discount)

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps between two rounds of learning, over all sessions."""
        return self.num_envs * self.rollout_length

    @property
    def iterations_per_log(self) -> int:
        """Rounds of collecting and learning between two log lines."""
        return -(-self.total_steps // (self.steps_per_iteration * LOG_POINTS))

    @property
    def num_iterations(self) -> int:
        """Rounds of collecting and learning in all."""
        return self.iterations_per_log * LOG_POINTS

    @property
    def gradient_steps_per_iteration(self) -> int:
        """Gradient steps in a round of learning."""
        return 1

    @property
    def steps_per_gradient(self) -> int:
        """Environment steps that one gradient step learns from."""
        return self.steps_per_iteration


def _known(value: Any) -> bool:
    return not isinstance(value, jax.core.Tracer)


@struct.dataclass
class TrainState:
    """Everything that training carries; algorithms add their own fields.

    Attributes:
        variables: of the network.
        optimiser: its state.
        sessions: the sessions under way, leading dimension num_envs.
        iteration: int32[], rounds of collecting and learning so far.
        key: PRNG key of what follows.
    """

    variables: Any
    optimiser: Any
    sessions: Sessions
    iteration: jax.Array
    key: jax.Array


ConfigT = TypeVar("ConfigT", bound=AlgorithmConfig)
Account = tuple[SessionTotals, dict[str, jax.Array]]


@dataclass(frozen=True)
class Algorithm(ABC, Generic[ConfigT]):
    """An algorithm on one environment; its methods are pure and vmap over keys and over the config's floats.

    Attributes:
        env: of `jaxsim.make`, or another with its methods.
        config: its settings.
        axis_name: mesh axis over which sessions are split, inside `jaxsim.over_sessions`; None on one device.
    """

    env: RecommenderEnv
    config: ConfigT
    axis_name: str | None = None

    def __post_init__(self) -> None:
        self.config.check()

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """Scores items after an observation, float32[..., N]: what the greedy policy ranks by."""

    @abstractmethod
    def init(self, key: jax.Array, params: EnvParams, item_vectors: jax.Array | None = None) -> Any:
        """The state before training.

        Args:
            key: PRNG key.
            params: of the environment.
            item_vectors: float32[N, width] that item embeddings start from, if any.
        """

    @abstractmethod
    def iterate(self, state: Any, params: EnvParams) -> tuple[Any, Account]:
        """Collect one rollout and learn from it: the account of the rollout, and diagnostics float32[] by name."""

    @property
    def state_axes(self) -> Any:
        """Which axis of each part of the state is that of sessions, None where all devices share it."""
        shared: Any = None
        axis: Any = 0
        return TrainState(
            variables=shared, optimiser=shared, sessions=axis, iteration=shared, key=shared
        )

    def variables(self, state: Any) -> Any:
        """The network's variables in a training state."""
        return state.variables

    def iterations(self, state: Any, params: EnvParams, count: int) -> tuple[Any, Account]:
        """`count` iterations in one scan: the sum of their accounts, and the means of their diagnostics."""
        state, (totals, diagnostics) = jax.lax.scan(
            lambda s, _: self.iterate(s, params), state, None, length=count
        )
        summed = jax.tree.map(lambda x: x.sum(axis=0), totals)
        means = jax.tree.map(lambda x: x.mean(axis=0), diagnostics)
        return state, (
            sum_over_devices(summed, self.axis_name),
            mean_over_devices(means, self.axis_name),
        )

    def train(
        self, key: jax.Array, params: EnvParams, item_vectors: jax.Array | None = None
    ) -> Any:
        """A whole training run; the state after it. Arguments as of `init`."""
        state = self.init(key, params, item_vectors)
        return self.iterations(state, params, self.config.num_iterations)[0]

    def policy_of(self, variables: Any, sampled: bool = False) -> NetworkPolicy:
        """The policy of a network's variables: greedy, or as stochastic as the algorithm leaves it."""
        if sampled:
            return SampledPolicy(variables, self.network, self.env)
        return GreedyPolicy(variables, self.network, self.env)

    # ---- what the algorithms share -------------------------------------------------------------------------

    @property
    def optimiser(self) -> optax.GradientTransformation:
        """Adam on clipped gradients."""
        c = self.config
        steps = c.num_iterations * c.gradient_steps_per_iteration
        rate = optax.linear_schedule(c.learning_rate, _LAST_RATE * c.learning_rate, steps)
        return optax.chain(optax.clip_by_global_norm(c.max_gradient_norm), optax.adam(rate))

    def _start(
        self, key: jax.Array, params: EnvParams, item_vectors: jax.Array | None
    ) -> TrainState:
        """The shared part of the state before training."""
        key, key_network, key_sessions = jax.random.split(key, 3)
        sessions = start_sessions(
            key_sessions, self.env, params, self.config.num_envs, self.axis_name
        )
        one = jax.tree.map(lambda x: x[0], sessions.obs)
        variables = self.network.init(key_network, one)
        if item_vectors is not None:
            variables = with_item_vectors(variables, item_vectors)
        return TrainState(
            variables=variables,
            optimiser=self.optimiser.init(variables),
            sessions=sessions,
            iteration=jnp.int32(0),
            key=key,
        )

    def _apply_gradients(self, variables: Any, optimiser: Any, gradients: Any) -> tuple[Any, Any]:
        """One step of the optimiser along gradients that are averaged over devices."""
        gradients = mean_over_devices(gradients, self.axis_name)
        updates, optimiser = self.optimiser.update(gradients, optimiser, variables)
        return optax.apply_updates(variables, updates), optimiser
