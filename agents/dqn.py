"""DQN (Mnih et al., 2013) with double targets (van Hasselt et al., 2016), a dueling head and a soft target.

Environment, replay, learning and metrics are one pure function of a key, so seeds vmap. Items that may not be
recommended are masked in acting and in the Bellman target. A session cut by the time limit bootstraps from its
final observation; a session that the user left does not.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from agents import replay as replay_memory
from agents.algorithm import Algorithm, AlgorithmConfig
from agents.networks import DuelingItemScorer
from agents.rollout import (
    Sessions,
    SessionTotals,
    best_allowed,
    collect,
    random_allowed,
    start_sessions,
)
from jaxsim import EnvParams, InputError, Observation


@dataclass(frozen=True)
class DQNConfig(AlgorithmConfig):
    """Settings of DQN."""

    updates_per_rollout: int = 2
    """Gradient steps in a round of learning."""
    batch_size: int = 256
    """Transitions in a gradient step."""
    replay_steps: int = 4096
    """Latest steps of each session's stream that the replay keeps."""
    learning_rate: float = 2e-3
    """Peak learning rate of Adam, decayed linearly to a tenth."""
    max_gradient_norm: float = 10.0
    """Gradients are scaled down to this global norm."""
    target_rate: float = 0.005
    """Share of the way that the target network moves towards the online one in each update."""
    exploration_start: float = 1.0
    """Chance of a random action at the start."""
    exploration_end: float = 0.02
    """Chance of a random action once exploration has annealed."""
    exploration_share: float = 0.4
    """Share of training over which exploration anneals linearly."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        super().check()
        for name in ("updates_per_rollout", "batch_size", "replay_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, but must be at least 1")
        for name in ("learning_rate", "max_gradient_norm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} is {getattr(self, name)}, but must be finite and above 0")
        for name in ("exploration_start", "exploration_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}, but must be from 0 to 1")
        for name in ("target_rate", "exploration_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}, but must be above 0 and at most 1"
                )
        if self.replay_steps % self.rollout_length:
            raise InputError(
                f"replay_steps is {self.replay_steps}, but must be a multiple of rollout_length "
                f"({self.rollout_length})"
            )


@struct.dataclass
class DQNState:
    """Everything that training carries.

    Attributes:
        online, target: variables of the two networks.
        optimiser: its state.
        sessions: the sessions under way.
        replay: the replay memory.
        iteration: int32[].
        key: PRNG key of what follows.
    """

    online: Any
    target: Any
    optimiser: Any
    sessions: Sessions
    replay: replay_memory.Replay
    iteration: jax.Array
    key: jax.Array


@dataclass(frozen=True)
class DQN(Algorithm[DQNConfig]):
    """DQN on one environment."""

    def __post_init__(self) -> None:
        self.config.check()
        if self.config.replay_steps <= self.env.session_capacity:
            raise InputError(
                f"replay_steps is {self.config.replay_steps}, but must be more than the session capacity "
                f"({self.env.session_capacity})"
            )

    @property
    def network(self) -> DuelingItemScorer:
        """Action values of every item; they start near the return of a session of coin tosses."""
        return DuelingItemScorer(self.env.num_items, self.config.width, initial_value=10.0)

    @property
    def optimiser(self) -> optax.GradientTransformation:
        """Adam on clipped gradients."""
        updates = self.config.num_iterations * self.config.updates_per_rollout
        rate = optax.linear_schedule(
            self.config.learning_rate, 0.1 * self.config.learning_rate, updates
        )
        return optax.chain(
            optax.clip_by_global_norm(self.config.max_gradient_norm), optax.adam(rate)
        )

    def init(self, key: jax.Array, params: EnvParams) -> DQNState:
        """The state before training."""
        key, key_network, key_sessions = jax.random.split(key, 3)
        sessions = start_sessions(key_sessions, self.env, params, self.config.num_envs)
        one = jax.tree.map(lambda x: x[0], sessions.obs)
        variables = self.network.init(key_network, one)
        return DQNState(
            online=variables,
            target=variables,
            optimiser=self.optimiser.init(variables),
            sessions=sessions,
            replay=replay_memory.empty_replay(self._replay_capacity(), self.config.num_envs),
            iteration=jnp.int32(0),
            key=key,
        )

    def _replay_capacity(self) -> int:
        """No larger than all of training, rounded up to whole rollouts."""
        needed = self.config.num_iterations * self.config.rollout_length
        return min(self.config.replay_steps, needed)

    def iterate(
        self, state: DQNState, params: EnvParams
    ) -> tuple[DQNState, tuple[SessionTotals, dict[str, jax.Array]]]:
        """Collect one rollout, then learn from the replay."""
        key, key_collect, key_learn = jax.random.split(state.key, 3)
        epsilon = self.exploration(state.iteration)

        def act(key: jax.Array, obs: Observation) -> jax.Array:
            key_explore, key_random = jax.random.split(key)
            mask = self.env.action_mask(obs, params)
            greedy = best_allowed(self.network.apply(state.online, obs), mask)
            explore = jax.random.bernoulli(key_explore, epsilon)
            return jnp.where(explore, random_allowed(key_random, mask), greedy)

        sessions, transitions, totals = collect(
            key_collect, self.env, params, state.sessions, act, self.config.rollout_length
        )
        state = replace(
            state,
            sessions=sessions,
            replay=replay_memory.add(state.replay, transitions),
            iteration=state.iteration + 1,
            key=key,
        )

        def learn(state: DQNState, key: jax.Array) -> tuple[DQNState, jax.Array]:
            return self.update(key, state, params)

        state, losses = jax.lax.scan(
            learn, state, jax.random.split(key_learn, self.config.updates_per_rollout)
        )
        return state, (totals, {"loss": losses.mean(), "exploration": epsilon})

    def exploration(self, iteration: jax.Array) -> jax.Array:
        """Chance of a random action in an iteration, float32[]."""
        c = self.config
        progress = iteration / (c.exploration_share * c.num_iterations)
        return jnp.interp(
            progress, jnp.array([0.0, 1.0]), jnp.array([c.exploration_start, c.exploration_end])
        )

    def update(
        self, key: jax.Array, state: DQNState, params: EnvParams
    ) -> tuple[DQNState, jax.Array]:
        """One gradient step on a sampled batch, and one soft step of the target network."""
        batch = replay_memory.sample(key, state.replay, self.env, params, self.config.batch_size)
        targets = self.bellman_targets(state, batch, params)

        def loss(online: Any) -> jax.Array:
            values = self.network.apply(online, batch.obs)
            taken = jnp.take_along_axis(values, batch.transition.item[:, None], axis=1)[:, 0]
            return optax.huber_loss(taken, targets).mean()

        value, gradients = jax.value_and_grad(loss)(state.online)
        updates, optimiser = self.optimiser.update(gradients, state.optimiser)
        online = optax.apply_updates(state.online, updates)
        target = optax.incremental_update(online, state.target, self.config.target_rate)
        return replace(state, online=online, target=target, optimiser=optimiser), value

    def bellman_targets(
        self, state: DQNState, batch: replay_memory.Batch, params: EnvParams
    ) -> jax.Array:
        """Reward + gamma (1 - terminated) Q_target(s', argmax of the allowed Q_online(s', .)), float32[batch]."""
        masks = jax.vmap(lambda obs: self.env.action_mask(obs, params))(batch.next_obs)
        best = jax.vmap(best_allowed)(self.network.apply(state.online, batch.next_obs), masks)
        following = self.network.apply(state.target, batch.next_obs)
        bootstrap = jnp.take_along_axis(following, best[:, None], axis=1)[:, 0]
        alive = 1.0 - batch.transition.terminated
        return batch.transition.reward + self.config.discount * alive * bootstrap

    def variables(self, state: DQNState) -> Any:
        """The online network's variables."""
        return state.online
