"""DQN (Mnih et al., 2013) with double targets (van Hasselt et al., 2016), a dueling head and a soft target.

Items that may not be recommended are masked both when acting and in the Bellman target. A session that the time
limit cuts bootstraps from its final observation; a session that the user leaves does not.

With slates it is SlateQ (`agents.algorithms.slate_q`).
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
from annotated_types import Ge, Gt, Le
from flax import struct

from agents.algorithms import replay as replay_memory
from agents.algorithms.algorithm import Algorithm, AlgorithmConfig, Metrics, TrainState
from agents.algorithms.choice import best_allowed, epsilon_greedy, score_of
from agents.algorithms.networks import DuelingItemScorer, ItemStart
from agents.algorithms.parallel import own_share
from agents.algorithms.policy import EpsilonGreedyPolicy, GreedyPolicy, NetworkPolicy
from agents.algorithms.rollout import collect
from agents.algorithms.slate_q import SlateActions, SlateScorer, SlateValuePolicy
from jaxsim import EnvParams, InputError, Observation


@dataclass(frozen=True)
class DQNConfig(AlgorithmConfig):
    """Settings of DQN."""

    gradient_steps: Annotated[int, Ge(1)] = 2
    """Gradient steps after each rollout."""
    batch_size: Annotated[int, Ge(1)] = 256
    """Transitions in a gradient step; a multiple of num_envs, or a divisor of it."""
    replay_steps: Annotated[int, Ge(1)] = 4096
    """Latest steps of each of the num_envs sessions' streams that the replay keeps."""
    tau: Annotated[float, Gt(0), Le(1)] = 0.005
    """Soft update: the share of the way that the target network moves to the online one in each gradient step."""
    double: bool = True
    """Whether the online network chooses the item whose value the target network gives (Double DQN)."""
    n_steps: Annotated[int, Ge(1)] = 1
    """Number of rewards in a Bellman target (n-step returns)."""
    exploration_initial_eps: Annotated[float, Ge(0), Le(1)] = 1.0
    """Probability of a random action at the start."""
    exploration_final_eps: Annotated[float, Ge(0), Le(1)] = 0.02
    """Probability of a random action at the end of the decay."""
    exploration_fraction: Annotated[float, Gt(0), Le(1)] = 0.4
    """Share of training during which that probability decays linearly."""

    def check(self) -> None:
        """See `AlgorithmConfig`."""
        super().check()
        self._check_multiple("replay_steps", "rollout_length")
        if self.n_steps > self.rollout_length:
            raise InputError(
                f"n_steps is {self.n_steps}, but must be at most rollout_length ({self.rollout_length})"
            )
        if self.batch_size % self.num_envs and self.num_envs % self.batch_size:
            raise InputError(
                f"batch_size is {self.batch_size}, but must be a multiple of num_envs ({self.num_envs}) or a "
                "divisor of it"
            )

    @property
    def gradient_steps_per_iteration(self) -> int:
        """See `AlgorithmConfig`."""
        return self.gradient_steps

    @property
    def steps_per_gradient(self) -> int:
        """See `AlgorithmConfig`."""
        return self.batch_size


@dataclass(frozen=True)
class ItemActions:
    """How DQN acts and learns with single items.

    Attributes:
        network: action values of every item.
    """

    network: DuelingItemScorer

    def act(
        self,
        keys: jax.Array,
        variables: Any,
        obs: Observation,
        masks: jax.Array,
        epsilon: jax.Array,
    ) -> jax.Array:
        """The best items int32[n], or with probability epsilon random ones; masks bool[n, N]."""
        scores = self.network.apply(variables, obs)
        return jax.vmap(epsilon_greedy, (0, 0, 0, None))(keys, scores, masks, epsilon)

    def best_value(
        self, ranking: Any, values: Any, obs: Observation, masks: jax.Array
    ) -> jax.Array:
        """The value by the variables `values` of the item that is best by the variables `ranking`, float32[n]."""
        by_values = self.network.apply(values, obs)
        by_ranking = by_values if ranking is values else self.network.apply(ranking, obs)
        return score_of(by_values, jax.vmap(best_allowed)(by_ranking, masks))

    def loss(
        self, variables: Any, batch: replay_memory.Batch, targets: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The Huber loss of the values of a batch, and the same by name."""
        values = self.network.apply(variables, batch.obs)
        taken = score_of(values, batch.transition.item)
        loss = optax.huber_loss(taken, targets).mean()
        return loss, {"loss": loss}


@struct.dataclass
class DQNState(TrainState):
    """The state of a training run; `variables` are the online network's.

    Attributes:
        target: the target network's variables.
        replay: the replay memory.
    """

    target: Any
    replay: replay_memory.Replay


@dataclass(frozen=True)
class DQN(Algorithm[DQNConfig]):
    """DQN for one environment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        minimum = self.env.session_capacity + self.config.n_steps
        if self.config.replay_steps < minimum:
            raise InputError(
                f"replay_steps is {self.config.replay_steps}, but must be at least the session capacity and "
                f"n_steps together ({minimum})"
            )

    @property
    def network(self) -> DuelingItemScorer:
        """Action values of every item, with slates of every item being chosen."""
        c = self.config
        kind = DuelingItemScorer if self.slate_size is None else SlateScorer
        return kind(self.env.num_items, c.width, c.encoder, c.initial_value)

    @property
    def actions(self) -> ItemActions | SlateActions:
        """How it acts and learns."""
        network = self.network
        if isinstance(network, SlateScorer):
            assert self.slate_size is not None
            return SlateActions(network, self.slate_size)
        return ItemActions(network)

    @property
    def state_axes(self) -> DQNState:
        """See `Algorithm`."""
        # A stream is a column of the replay.
        replay: Any = replay_memory.Replay(stream=1, written=None)  # type: ignore[arg-type]
        return DQNState(**vars(super().state_axes), target=None, replay=replay)

    def init(self, key: jax.Array, params: EnvParams, items: ItemStart | None = None) -> DQNState:
        """See `Algorithm`."""
        start = self._start(key, params, items)
        streams = own_share(self.config.num_envs, self.axis_name)
        return DQNState(
            **vars(start),
            target=start.variables,
            replay=replay_memory.empty_replay(self._replay_capacity(), streams, self.slate_size),
        )

    def _replay_capacity(self) -> int:
        """Steps of each stream that are kept: not more than the whole run has."""
        needed = self.config.num_iterations * self.config.rollout_length
        return min(self.config.replay_steps, needed)

    def iterate(self, state: DQNState, params: EnvParams) -> tuple[DQNState, Metrics]:
        """Collect one rollout, and learn from the replay."""
        key, key_collect, key_learn = jax.random.split(state.key, 3)
        epsilon = self.exploration(state.iteration)

        def act(keys: jax.Array, obs: Observation) -> tuple[jax.Array, None]:
            masks = jax.vmap(self.env.action_mask, (0, None))(obs, params)
            return self.actions.act(keys, state.variables, obs, masks, epsilon), None

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

        def learn(state: DQNState, key: jax.Array) -> tuple[DQNState, dict[str, jax.Array]]:
            return self.update(key, state, params)

        state, parts = jax.lax.scan(
            learn, state, jax.random.split(key_learn, self.config.gradient_steps)
        )
        return state, (totals, {**jax.tree.map(jnp.mean, parts), "exploration": epsilon})

    def exploration(self, iteration: jax.Array) -> jax.Array:
        """Probability of a random action in an iteration, float32[]."""
        c = self.config
        progress = jnp.clip(iteration / (c.exploration_fraction * c.num_iterations), 0.0, 1.0)
        decrease = c.exploration_final_eps - c.exploration_initial_eps
        return (c.exploration_initial_eps + progress * decrease).astype(jnp.float32)

    def update(
        self, key: jax.Array, state: DQNState, params: EnvParams
    ) -> tuple[DQNState, dict[str, jax.Array]]:
        """One gradient step with a sampled batch, one soft update of the target network, and losses by name."""
        c = self.config
        batch = replay_memory.sample(
            key,
            state.replay,
            self.env,
            params,
            c.batch_size,
            c.n_steps,
            c.gamma,
            self.axis_name,
        )
        targets = self.bellman_targets(state, batch, params)

        def loss(online: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            return self.actions.loss(online, batch, targets)

        gradients, parts = jax.grad(loss, has_aux=True)(state.variables)
        online, optimiser = self._apply_gradients(state.variables, state.optimiser, gradients)
        target = optax.incremental_update(online, state.target, c.tau)
        return replace(state, variables=online, target=target, optimiser=optimiser), parts

    def bellman_targets(
        self, state: DQNState, batch: replay_memory.Batch, params: EnvParams
    ) -> jax.Array:
        """Reward + discount x Q_target(s', i), float32[batch], where i is the best allowed item or slate of s'.

        With `double` the online network ranks them, otherwise the target network.
        """
        masks = jax.vmap(self.env.action_mask, (0, None))(batch.next_obs, params)
        ranking = state.variables if self.config.double else state.target
        following = self.actions.best_value(ranking, state.target, batch.next_obs, masks)
        return batch.reward + batch.discount * following

    def policy_of(self, variables: Any, sampled: bool = False) -> NetworkPolicy:
        """The greedy policy, or with `sampled` the policy that explores as at the end of training."""
        epsilon = jnp.float32(self.config.exploration_final_eps if sampled else 0.0)
        if self.slate_size is not None:
            return SlateValuePolicy(variables, self.network, self.env, epsilon=epsilon)
        if not sampled:
            return GreedyPolicy(variables, self.network, self.env)
        return EpsilonGreedyPolicy(variables, self.network, self.env, epsilon=epsilon)
