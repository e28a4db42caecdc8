"""DQN (Mnih et al., 2013) with double targets (van Hasselt et al., 2016), a dueling head and a soft target.

Environment, replay, learning and metrics are one pure function of a key, so seeds vmap. Items that may not be
recommended are masked in acting and in the Bellman target. A session cut by the time limit bootstraps from its
final observation; a session that the user left does not.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from agents.algorithms import replay as replay_memory
from agents.algorithms.algorithm import Account, Algorithm, AlgorithmConfig, TrainState
from agents.algorithms.choice import best_allowed, epsilon_greedy, score_of
from agents.algorithms.networks import DuelingItemScorer
from agents.algorithms.parallel import own_share
from agents.algorithms.policy import EpsilonGreedyPolicy, GreedyPolicy, NetworkPolicy
from agents.algorithms.rollout import collect
from jaxsim import EnvParams, InputError, Observation


@dataclass(frozen=True)
class DQNConfig(AlgorithmConfig):
    """Settings of DQN."""

    updates_per_rollout: int = 2
    """Gradient steps in a round of learning."""
    batch_size: int = 256
    """Transitions in a gradient step; a multiple of num_envs, or a divisor of it."""
    replay_steps: int = 4096
    """Latest steps of each session's stream that the replay keeps."""
    target_rate: float = 0.005
    """Share of the way that the target network moves towards the online one in each update."""
    double: bool = True
    """Whether the online network chooses the item whose value the target network gives (Double DQN)."""
    num_steps: int = 1
    """Rewards in a Bellman target before the value that follows them (n-step returns)."""
    exploration_start: float = 1.0
    """Chance of a random action at the start."""
    exploration_end: float = 0.02
    """Chance of a random action once exploration has annealed."""
    exploration_share: float = 0.4
    """Share of training over which exploration anneals linearly."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        super().check()
        self._check_whole("updates_per_rollout", "batch_size", "replay_steps", "num_steps")
        self._check_share("exploration_start", "exploration_end")
        self._check_share("target_rate", "exploration_share", above=0.0)
        self._check_divides("rollout_length", "replay_steps")
        if self.num_steps > self.rollout_length:
            raise InputError(
                f"num_steps is {self.num_steps}, but must be at most rollout_length ({self.rollout_length})"
            )
        if self.batch_size % self.num_envs and self.num_envs % self.batch_size:
            raise InputError(
                f"batch_size is {self.batch_size}, but must be a multiple of num_envs ({self.num_envs}) or a "
                "divisor of it"
            )

    @property
    def gradient_steps_per_iteration(self) -> int:
        """Gradient steps in a round of learning."""
        return self.updates_per_rollout

    @property
    def steps_per_gradient(self) -> int:
        """Environment steps that one gradient step learns from."""
        return self.batch_size


@struct.dataclass
class DQNState(TrainState):
    """Everything that training carries; `variables` are those of the online network.

    Attributes:
        target: variables of the target network.
        replay: the replay memory.
    """

    target: Any
    replay: replay_memory.Replay


@dataclass(frozen=True)
class DQN(Algorithm[DQNConfig]):
    """DQN on one environment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = self.env.session_capacity + self.config.num_steps
        if self.config.replay_steps < least:
            raise InputError(
                f"replay_steps is {self.config.replay_steps}, but must be at least the session capacity and "
                f"num_steps together ({least})"
            )

    @property
    def network(self) -> DuelingItemScorer:
        """Action values of every item."""
        c = self.config
        return DuelingItemScorer(self.env.num_items, c.width, c.encoder, c.initial_value)

    @property
    def state_axes(self) -> DQNState:
        """See `Algorithm`."""
        # A stream is a column of the replay.
        replay: Any = replay_memory.Replay(stream=1, written=None)  # type: ignore[arg-type]
        return DQNState(**vars(super().state_axes), target=None, replay=replay)

    def init(
        self, key: jax.Array, params: EnvParams, item_vectors: jax.Array | None = None
    ) -> DQNState:
        """See `Algorithm`."""
        start = self._start(key, params, item_vectors)
        streams = own_share(self.config.num_envs, self.axis_name)
        return DQNState(
            **vars(start),
            target=start.variables,
            replay=replay_memory.empty_replay(self._replay_capacity(), streams),
        )

    def _replay_capacity(self) -> int:
        """No larger than all of training, rounded up to whole rollouts."""
        needed = self.config.num_iterations * self.config.rollout_length
        return min(self.config.replay_steps, needed)

    def iterate(self, state: DQNState, params: EnvParams) -> tuple[DQNState, Account]:
        """Collect one rollout, then learn from the replay."""
        key, key_collect, key_learn = jax.random.split(state.key, 3)
        epsilon = self.exploration(state.iteration)

        def act(keys: jax.Array, obs: Observation) -> tuple[jax.Array, None]:
            scores = self.network.apply(state.variables, obs)
            masks = jax.vmap(lambda one: self.env.action_mask(one, params))(obs)
            return jax.vmap(epsilon_greedy, (0, 0, 0, None))(keys, scores, masks, epsilon), None

        sessions, rollout, totals = collect(
            key_collect,
            self.env,
            params,
            state.sessions,
            act,
            self.config.rollout_length,
            num_envs=self.config.num_envs,
            axis_name=self.axis_name,
        )
        state = replace(
            state,
            sessions=sessions,
            replay=replay_memory.add(state.replay, rollout.transitions),
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
        progress = jnp.clip(iteration / (c.exploration_share * c.num_iterations), 0.0, 1.0)
        return c.exploration_start + progress * (c.exploration_end - c.exploration_start)

    def update(
        self, key: jax.Array, state: DQNState, params: EnvParams
    ) -> tuple[DQNState, jax.Array]:
        """One gradient step on a sampled batch, and one soft step of the target network."""
        c = self.config
        batch = replay_memory.sample(
            key,
            state.replay,
            self.env,
            params,
            c.batch_size,
            c.num_steps,
            c.discount,
            self.axis_name,
        )
        targets = self.bellman_targets(state, batch, params)

        def loss(online: Any) -> jax.Array:
            values = self.network.apply(online, batch.obs)
            taken = score_of(values, batch.transition.item)
            return optax.huber_loss(taken, targets).mean()

        value, gradients = jax.value_and_grad(loss)(state.variables)
        online, optimiser = self._apply_gradients(state.variables, state.optimiser, gradients)
        target = optax.incremental_update(online, state.target, c.target_rate)
        return replace(state, variables=online, target=target, optimiser=optimiser), value

    def bellman_targets(
        self, state: DQNState, batch: replay_memory.Batch, params: EnvParams
    ) -> jax.Array:
        """Reward + discount x Q_target(s', i), i the best allowed item of s', float32[batch].

        The best by the online network with `double`, by the target network without.
        """
        masks = jax.vmap(lambda obs: self.env.action_mask(obs, params))(batch.next_obs)
        following = self.network.apply(state.target, batch.next_obs)
        ranking = following
        if self.config.double:
            ranking = self.network.apply(state.variables, batch.next_obs)
        best = jax.vmap(best_allowed)(ranking, masks)
        return batch.reward + batch.discount * score_of(following, best)

    def policy_of(self, variables: Any, sampled: bool = False) -> NetworkPolicy:
        """The greedy policy, or the one that explores as at the end of training."""
        if not sampled:
            return GreedyPolicy(variables, self.network, self.env)
        epsilon = jnp.float32(self.config.exploration_end)
        return EpsilonGreedyPolicy(variables, self.network, self.env, epsilon=epsilon)
