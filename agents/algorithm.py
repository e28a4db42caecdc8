"""What all algorithms share: a training run is a pure function of a key and the params."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import jax
from flax import linen as nn

from agents.policy import GreedyPolicy
from agents.rollout import SessionTotals
from jaxsim import EnvParams, InputError, UserSimulator

LOG_POINTS = 40  # a run is logged, and its progress shown, this many times


@dataclass(frozen=True)
class AlgorithmConfig:
    """Settings that every algorithm has."""

    total_steps: int = 200_000
    """Environment steps of one seed, rounded up to whole log intervals."""
    num_envs: int = 128
    """Sessions that run at once."""
    rollout_length: int = 4
    """Steps of each session between two rounds of learning."""
    discount: float = 0.975
    """gamma."""
    width: int = 32
    """Width of embeddings and layers."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        for name in ("total_steps", "num_envs", "rollout_length", "width"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if not 0 <= self.discount < 1:
            raise InputError(f"discount is {self.discount}, but must be at least 0 and less than 1")

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


ConfigT = TypeVar("ConfigT", bound=AlgorithmConfig)


@dataclass(frozen=True)
class Algorithm(ABC, Generic[ConfigT]):
    """An algorithm on one environment; its methods are pure and vmap over keys.

    Attributes:
        env: of `jaxsim.make`.
        config: its settings.
    """

    env: UserSimulator
    config: ConfigT

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """Scores items after an observation, float32[..., N]: what the greedy policy ranks by."""

    @abstractmethod
    def init(self, key: jax.Array, params: EnvParams) -> Any:
        """The state before training."""

    @abstractmethod
    def iterate(
        self, state: Any, params: EnvParams
    ) -> tuple[Any, tuple[SessionTotals, dict[str, jax.Array]]]:
        """Collect one rollout and learn from it: the account of the rollout, and diagnostics float32[] by name."""

    @abstractmethod
    def variables(self, state: Any) -> Any:
        """The network's variables in a training state."""

    def iterations(
        self, state: Any, params: EnvParams, count: int
    ) -> tuple[Any, tuple[SessionTotals, dict[str, jax.Array]]]:
        """`count` iterations in one scan: the sum of their accounts, and the means of their diagnostics."""
        state, (totals, diagnostics) = jax.lax.scan(
            lambda s, _: self.iterate(s, params), state, None, length=count
        )
        summed = jax.tree.map(lambda x: x.sum(axis=0), totals)
        return state, (summed, jax.tree.map(lambda x: x.mean(axis=0), diagnostics))

    def train(self, key: jax.Array, params: EnvParams) -> Any:
        """A whole training run; the state after it."""
        state, _ = self.iterations(self.init(key, params), params, self.config.num_iterations)
        return state

    def policy_of(self, variables: Any) -> GreedyPolicy:
        """The greedy policy of a network's variables."""
        return GreedyPolicy(variables, self.network, self.env)
