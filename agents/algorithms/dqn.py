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
from agents.algorithms.candidates import distinct, places_of
from agents.algorithms.choice import best_allowed, epsilon_greedy, score_of
from agents.algorithms.lazy_target import TargetClock, start_clock, take_target, tick
from agents.algorithms.networks import DuelingItemScorer, ItemStart
from agents.algorithms.parallel import own_share
from agents.algorithms.policy import EpsilonGreedyPolicy, GreedyPolicy, NetworkPolicy
from agents.algorithms.rollout import Act, collect
from agents.algorithms.rows import Rows, in_rows, put, room_of_windows, take, window_rows
from agents.algorithms.slate_q import SlateActions, SlateScorer, SlateValuePolicy
from jaxsim import EnvParams, InputError, Observation


@dataclass(frozen=True)
class DQNConfig(AlgorithmConfig):
    """Settings of DQN."""

    gradient_steps: Annotated[int, Ge(1)] = 1
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
        scores = self.network.apply(ranking, obs)
        best = jax.vmap(best_allowed)(scores, masks)
        if ranking is values:
            return score_of(scores, best)
        return self.network.apply(values, obs, best, method="value_of")

    def loss(
        self, variables: Any, batch: replay_memory.Batch, targets: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The Huber loss of the values of a batch, and the same by name."""
        item = batch.transition.item
        # Only these items' values are computed, not those of the catalogue.
        taken = self.network.apply(variables, batch.obs, item, method="value_of")
        loss = optax.huber_loss(taken, targets).mean()
        return loss, {"loss": loss}


@struct.dataclass(kw_only=True)
class DQNState(TrainState):
    """The state of a training run; `variables` are the online network's.

    Attributes:
        target: the target network's variables.
        replay: the replay memory.
        clock: how old the rows of the target network are; None if all items are candidates.
    """

    target: Any
    replay: replay_memory.Replay
    clock: TargetClock | None


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
        c, sizes = self.config, self.table_sizes
        kind = DuelingItemScorer if self.slate_size is None else SlateScorer
        return kind(
            sizes.choices,
            c.width,
            c.encoder,
            c.initial_value,
            num_window_items=sizes.windows,
        )

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
        return DQNState(**vars(super().state_axes), target=None, replay=replay, clock=None)

    def init(self, key: jax.Array, params: EnvParams, items: ItemStart | None = None) -> DQNState:
        """See `Algorithm`."""
        start = self._start(key, params, items)
        streams = own_share(self.config.num_envs, self.axis_name)
        return DQNState(
            **vars(start),
            target=start.variables,
            replay=replay_memory.empty_replay(self._replay_capacity(), streams, self.slate_size),
            clock=start_clock(self.env.num_items) if self.candidates else None,
        )

    def _replay_capacity(self) -> int:
        """Steps of each stream that are kept: not more than the whole run has."""
        needed = self.config.num_iterations * self.config.rollout_length
        return min(self.config.replay_steps, needed)

    def iterate(self, state: DQNState, params: EnvParams) -> tuple[DQNState, Metrics]:
        """Collect one rollout, and learn from the replay."""
        key, key_collect, key_learn = jax.random.split(state.key, 3)
        epsilon = self.exploration(state.iteration)
        candidates = None
        if self.candidates is not None:
            key, key_candidates = jax.random.split(key)
            candidates = self._draw_candidates(key_candidates, state, params)
        act = self._acting(state.variables, params, epsilon, candidates)
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
            return self.update(key, state, params, candidates)

        state, parts = jax.lax.scan(
            learn, state, jax.random.split(key_learn, self.config.gradient_steps)
        )
        return state, (totals, {**jax.tree.map(jnp.mean, parts), "exploration": epsilon})

    def _acting(
        self, variables: Any, params: EnvParams, epsilon: jax.Array, candidates: jax.Array | None
    ) -> Act:
        """How sessions are continued: epsilon-greedy among all items, or among candidates int32[C]."""
        actions = self.actions
        if candidates is not None:
            variables = take(variables, Rows(candidates))
            actions = self.with_tables(len(candidates), self.env.num_items).actions

        def act(keys: jax.Array, obs: Observation) -> tuple[jax.Array, None]:
            masks = self.masks(obs, params, candidates)
            choice = actions.act(keys, variables, obs, masks, epsilon)
            return (choice if candidates is None else candidates[choice]), None

        return act

    def exploration(self, iteration: jax.Array) -> jax.Array:
        """Probability of a random action in an iteration, float32[]."""
        c = self.config
        progress = jnp.clip(iteration / (c.exploration_fraction * c.num_iterations), 0.0, 1.0)
        decrease = c.exploration_final_eps - c.exploration_initial_eps
        return (c.exploration_initial_eps + progress * decrease).astype(jnp.float32)

    def update(
        self,
        key: jax.Array,
        state: DQNState,
        params: EnvParams,
        candidates: jax.Array | None = None,
    ) -> tuple[DQNState, dict[str, jax.Array]]:
        """One gradient step with a sampled batch, one soft update of the target network, and losses by name.

        With candidates int32[C], the best item of a next state is that of the candidates and the batch's own
        items, and only the rows of these and of the batch's windows change.
        """
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
        if candidates is None:
            return self._gradient_step(state, batch, self.masks(batch.next_obs, params))
        assert state.clock is not None
        rows = self._rows_of(batch, candidates)
        masks = self.masks(batch.next_obs, params, rows.choices)
        variables = take(state.variables, rows)
        local = replace(
            state,
            variables=variables,
            target=take_target(state.target, variables, state.clock, rows, c.tau),
            optimiser=take(state.optimiser, rows),
        )
        assert rows.windows is not None
        learning = self.with_tables(len(rows.choices), len(rows.windows))
        local, parts = learning._gradient_step(local, self._in_rows(batch, rows), masks)
        state = replace(
            state,
            variables=put(state.variables, local.variables, rows),
            target=put(state.target, local.target, rows),
            optimiser=put(state.optimiser, local.optimiser, rows),
            clock=tick(state.clock, rows),
        )
        return state, parts

    def _rows_of(self, batch: replay_memory.Batch, candidates: jax.Array) -> Rows:
        """The rows of the candidates, of a batch's items, and of its windows; the same on all devices."""
        num_items, items = self.env.num_items, batch.transition.item.ravel()
        if self.axis_name is not None:
            items = jax.lax.all_gather(items, self.axis_name, tiled=True)
        # What was in a window is in the next one of its session.
        room = room_of_windows(self.config.batch_size, batch.next_obs)
        room_of_choices = len(candidates) + len(items)
        return Rows(
            distinct([candidates, items], num_items, min(num_items, room_of_choices)),
            window_rows(batch.next_obs, num_items, room, self.axis_name),
        )

    def _in_rows(self, batch: replay_memory.Batch, rows: Rows) -> replay_memory.Batch:
        """A batch whose items are places in the rows."""
        num_items = self.env.num_items
        assert rows.windows is not None
        item = places_of(rows.choices, num_items)[batch.transition.item]
        return replace(
            batch,
            obs=in_rows(batch.obs, rows.windows, num_items),
            next_obs=in_rows(batch.next_obs, rows.windows, num_items),
            transition=replace(batch.transition, item=item),
        )

    def _gradient_step(
        self, state: DQNState, batch: replay_memory.Batch, masks: jax.Array
    ) -> tuple[DQNState, dict[str, jax.Array]]:
        """The step with a batch; masks bool[batch, N] are those of the next observations."""
        targets = self.bellman_targets(state, batch, masks)

        def loss(online: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
            return self.actions.loss(online, batch, targets)

        gradients, parts = jax.grad(loss, has_aux=True)(state.variables)
        online, optimiser = self._apply_gradients(state.variables, state.optimiser, gradients)
        target = optax.incremental_update(online, state.target, self.config.tau)
        return replace(state, variables=online, target=target, optimiser=optimiser), parts

    def bellman_targets(
        self, state: DQNState, batch: replay_memory.Batch, masks: jax.Array
    ) -> jax.Array:
        """Reward + discount x Q_target(s', i), float32[batch], where i is the best allowed item or slate of s'.

        With `double` the online network ranks them, otherwise the target network. Masks bool[batch, N] say what is
        allowed after s'.
        """
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
