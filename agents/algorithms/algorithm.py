"""What all algorithms share. A training run is a pure function of a key and the params."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt, Lt
from flax import linen as nn
from flax import struct

from agents.algorithms.candidates import LikedBy, draw_candidates, liked_by, places_of
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
from agents.algorithms.rows import TableSizes
from jaxsim import EnvParams, InputError, Observation
from jaxsim.settings import check_settings

LOG_POINTS = 40  # number of log lines of a run, and of updates of its progress bar
_COUNTER_LIMIT = 2**31
_FINAL_LEARNING_RATE = 0.1  # as a share of the peak
# Without `candidates`, catalogues with more items than this have AUTOMATIC_CANDIDATES.
LARGEST_SOFTMAX = 4096
AUTOMATIC_CANDIDATES = 1024

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
    candidates: Annotated[int, Ge(0)] | None = None
    """Number of items that are drawn in each iteration, among which the policy chooses while it learns; 0 for all
    items. Without it, 1,024 if the catalogue has more than 4,096 items, and all items otherwise."""

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
        index: who liked what, to draw candidates; None if all items are candidates.
    """

    variables: Any
    optimiser: Any
    sessions: Sessions
    iteration: jax.Array
    key: jax.Array
    index: LikedBy | None = None


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
        tables: sizes of the network's tables if it has only some rows of them (`agents.algorithms.rows`).
    """

    env: RecommenderEnv
    config: ConfigT
    axis_name: str | None = None
    tables: TableSizes | None = None

    def __post_init__(self) -> None:
        self.config.check()
        check_candidates(self.config.candidates, self.env)

    @property
    def slate_size(self) -> int | None:
        """K, if the environment shows slates; otherwise None."""
        return slate_size_of(self.env)

    @property
    def candidates(self) -> int | None:
        """C, the number of items among which the policy chooses while it learns; None for all items."""
        count, num_items = self.config.candidates, self.env.num_items
        if count is None:
            automatic = max(AUTOMATIC_CANDIDATES, least_candidates(self.env))
            count = automatic if num_items > LARGEST_SOFTMAX else 0
        return count if 0 < count < num_items else None

    @property
    def num_choices(self) -> int:
        """Number of items whose scores are computed for each state in learning: C, or N."""
        return self.candidates or self.env.num_items

    def with_tables(self, choices: int, windows: int) -> Self:
        """The same algorithm for a network with so many rows in its tables."""
        return replace(self, tables=TableSizes(choices, windows))

    @property
    def table_sizes(self) -> TableSizes:
        """Number of rows of the network's tables."""
        return self.tables or TableSizes(self.env.num_items, self.env.num_items)

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
            variables=shared,
            optimiser=shared,
            sessions=axis,
            iteration=shared,
            key=shared,
            index=shared,
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
            index=liked_by(params, self.env.num_items) if self.candidates else None,
        )

    def masks(
        self, obs: Observation, params: EnvParams, items: jax.Array | None = None
    ) -> jax.Array:
        """Which items may be recommended after observations [n], bool[n, N]; or which of `items` int32[C].

        No item is twice among `items`, except N, which pads and may never be recommended.
        """
        if items is None:
            return jax.vmap(self.env.action_mask, (0, None))(obs, params)
        count = items.shape[0]
        places = places_of(items, self.env.num_items)

        def mask(obs: Observation) -> jax.Array:
            masked = self.env.masked_items(obs)
            place = jnp.where(masked >= 0, places[masked], count)
            return (items < self.env.num_items).at[place].set(False, mode="drop")

        return jax.vmap(mask)(obs)

    def _draw_candidates(self, key: jax.Array, state: TrainState, params: EnvParams) -> jax.Array:
        """The candidates of an iteration, int32[C]."""
        assert self.candidates is not None
        assert state.index is not None
        return draw_candidates(
            key,
            state.index,
            state.sessions.obs,
            params,
            self.candidates,
            self.config.num_envs,
            self.axis_name,
        )

    def _apply_gradients(self, variables: Any, optimiser: Any, gradients: Any) -> tuple[Any, Any]:
        """One step of the optimiser, with gradients averaged over devices."""
        gradients = mean_over_devices(gradients, self.axis_name)
        updates, optimiser = self.optimiser.update(gradients, optimiser, variables)
        return optax.apply_updates(variables, updates), optimiser


def least_candidates(env: RecommenderEnv) -> int:
    """The fewest candidates of which one, or a whole slate, is always allowed."""
    masked = getattr(env, "window", 0) if getattr(env, "repeats", "mask") == "mask" else 0
    slate_size = slate_size_of(env)
    if slate_size is None:
        return masked + 1
    shown = env.session_capacity * slate_size if masked else 0
    return masked + shown + slate_size


def check_candidates(candidates: int | None, env: RecommenderEnv) -> None:
    """Check the number of candidates against the catalogue and against what a session may forbid.

    Raises:
        InputError: it is above the catalogue, or so low that none may be allowed.
    """
    if not candidates:
        return
    least = min(least_candidates(env), env.num_items)
    if candidates > env.num_items:
        raise InputError(
            f"candidates is {candidates}, but the catalogue has {env.num_items:,} items: lower it, or use 0 for "
            "all items"
        )
    if candidates < least:
        raise InputError(
            f"candidates is {candidates}: use at least {least:,}, so that a session's items always leave "
            f"{slate_size_of(env) or 1} to recommend, or 0 for all items"
        )
