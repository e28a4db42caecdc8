"""Rollouts: the experience that every agent collects from many sessions at once, and its totals."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from agents.algorithms.parallel import own_keys, own_share
from jaxsim import EnvParams, Observation, SlateSimulator
from jaxsim.chunking import map_where

# Final values are computed for an eighth of the sessions at a time, because few are truncated at one step.
_FINAL_CHUNKS = 8


class RecommenderEnv(Protocol):
    """The environment that agents need, such as `jaxsim.UserSimulator`. All methods are for one session."""

    @property
    def num_items(self) -> int:
        """N, the number of items and of actions."""

    @property
    def session_capacity(self) -> int:
        """The largest number of interactions that a session can append."""

    def reset(self, key: jax.Array, params: Any) -> tuple[Observation, Any]:
        """Start a session."""

    def step(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any
    ) -> tuple[Observation, Any, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step with automatic reset; `info` has `response` and `final_observation`."""

    def action_mask(self, obs: Observation, params: Any) -> jax.Array:
        """Items that may be recommended, bool[N]."""

    def masked_items(self, obs: Observation) -> jax.Array:
        """The other items, int32[M], -1 pads; needed only by agents that choose among candidates."""

    def window_of(
        self,
        user: jax.Array,
        session_items: jax.Array,
        session_likes: jax.Array,
        session_length: jax.Array,
        params: Any,
    ) -> Observation:
        """The observation of a recorded session."""


def slate_size_of(env: RecommenderEnv) -> int | None:
    """K, if the environment shows slates; otherwise None."""
    return env.slate_size if isinstance(env, SlateSimulator) else None


@struct.dataclass
class Transition:
    """One step of one session. Together with the earlier steps it is enough to rebuild both observations.

    Attributes:
        user: int32[].
        item: int32[], the action: the recommended item; with slates int32[K].
        like: int8[], the response; with slates int8[K], what of the slate entered the history: 1 the item that was
            chosen, -1 an item that entered as disliked, 0 others.
        reward: float32[].
        session_length: int32[], number of interactions of the session before this step; with slates number of
            steps.
        terminated, truncated: bool[].
    """

    user: jax.Array
    item: jax.Array
    like: jax.Array
    reward: jax.Array
    session_length: jax.Array
    terminated: jax.Array
    truncated: jax.Array


@struct.dataclass
class Sessions:
    """B sessions in progress.

    Attributes:
        obs, state: the environment's, leading dimension B.
        running_return: float32[B], sum of the rewards so far.
    """

    obs: Observation
    state: Any
    running_return: jax.Array


@struct.dataclass
class SessionTotals:
    """Totals of a rollout. The totals of two rollouts add up.

    Attributes:
        steps: int32[], number of environment steps.
        reward: float32[], sum of rewards.
        finished: int32[], number of sessions that ended.
        finished_return: float32[], sum of their undiscounted returns.
        likes: int32[], number of likes, if something else than the like is earned; otherwise None, because the
            rewards are likes, or under "soft" their probabilities.
    """

    steps: jax.Array
    reward: jax.Array
    finished: jax.Array
    finished_return: jax.Array
    likes: jax.Array | None = None

    def means(self) -> dict[str, jax.Array]:
        """Mean like and mean reward of a step, and mean return of a finished session (NaN if none finished).

        The mean reward is left out if it is that of likes.
        """
        rewards = {"like_rate": self.reward / self.steps}
        if self.likes is not None:
            rewards = {"like_rate": self.likes / self.steps, "reward": self.reward / self.steps}
        return {
            **rewards,
            "session_return": self.finished_return
            / jnp.where(self.finished > 0, self.finished, jnp.nan),
        }


Act = Callable[[jax.Array, Observation], tuple[jax.Array, Any]]
Value = Callable[[Observation], jax.Array]


@struct.dataclass
class Rollout:
    """T steps of B sessions; leading dimensions [T, B].

    Attributes:
        transitions: the steps.
        obs: the observation before each step; None unless `collect` keeps it.
        extras: what `act` returns besides the actions.
        final_value: float32, value of the final observation where a session was truncated, 0 elsewhere; None
            without a value function. Final observations themselves are not kept.
    """

    transitions: Transition
    obs: Observation | None
    extras: Any
    final_value: jax.Array | None


def start_sessions(
    key: jax.Array,
    env: RecommenderEnv,
    params: EnvParams,
    num_envs: int,
    axis_name: str | None = None,
) -> Sessions:
    """Reset `num_envs` sessions; on several devices, this device's share of them."""
    keys = own_keys(key, num_envs, axis_name)
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
    return Sessions(obs, state, jnp.zeros(len(keys), jnp.float32))


def collect(
    key: jax.Array,
    env: RecommenderEnv,
    params: EnvParams,
    sessions: Sessions,
    act: Act,
    num_steps: int,
    *,
    num_envs: int | None = None,
    value: Value | None = None,
    keep_obs: bool = False,
    axis_name: str | None = None,
) -> tuple[Sessions, Rollout, SessionTotals]:
    """Step B sessions `num_steps` times, with automatic reset.

    Args:
        key: PRNG key.
        env, params: from `jaxsim.make`.
        sessions: the sessions to continue.
        act: (keys [B], observations [B]) -> (int32[B] actions, any extras [B]). Actions must be allowed by
            `env.action_mask`, or observations could not be rebuilt from transitions.
        num_steps: T.
        num_envs: number of sessions on all devices; B by default.
        value: observations [B'] -> float32[B'], for the final observations of truncated sessions.
        keep_obs: whether the rollout keeps the observations.
        axis_name: mesh axis of the sessions, if any.

    Returns:
        The sessions after the steps, the rollout, and its totals on this device.
    """
    own = sessions.running_return.shape[0]
    total = num_envs or own
    assert own_share(total, axis_name) == own

    def one_step(sessions: Sessions, key: jax.Array) -> tuple[Sessions, tuple[Rollout, jax.Array]]:
        key_act, key_env = jax.random.split(key)
        action, extras = act(own_keys(key_act, total, axis_name), sessions.obs)
        keys = own_keys(key_env, total, axis_name)
        after, transition, final_obs, returns = _step_sessions(keys, env, params, sessions, action)
        final_value = None
        if value is not None:
            final_value = value_where(transition.truncated, final_obs, value)
        obs = sessions.obs if keep_obs else None
        return after, (Rollout(transition, obs, extras, final_value), returns)

    sessions, (rollout, returns) = jax.lax.scan(
        one_step, sessions, jax.random.split(key, num_steps)
    )
    counts_likes = getattr(env, "reward", "like") != "like"
    return sessions, rollout, _totals(rollout.transitions, returns, counts_likes)


def _step_sessions(
    keys: jax.Array, env: RecommenderEnv, params: EnvParams, sessions: Sessions, action: jax.Array
) -> tuple[Sessions, Transition, Observation, jax.Array]:
    """One step of B sessions: the sessions after it, transitions, final observations, and returns float32[B]."""
    before = sessions.state
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))
    obs, state, reward, terminated, truncated, info = step(keys, before, action, params)
    like, length = info["response"].like, before.session_length
    if isinstance(env, SlateSimulator):
        like = jax.vmap(env.entries_of)(sessions.obs, info["final_observation"], action)  # type: ignore[arg-type]
        length = before.time
    transition = Transition(
        user=before.user,
        item=action,
        like=like,
        reward=reward,
        session_length=length,
        terminated=terminated,
        truncated=truncated,
    )
    returns = sessions.running_return + reward
    after = Sessions(obs, state, jnp.where(terminated | truncated, 0.0, returns))
    return after, transition, info["final_observation"], returns


def _totals(transitions: Transition, returns: jax.Array, counts_likes: bool) -> SessionTotals:
    """Totals of a rollout [T, B]; returns are those of the sessions up to each step, float32[T, B]."""
    done = transitions.terminated | transitions.truncated
    return SessionTotals(
        steps=jnp.int32(done.size),
        reward=transitions.reward.sum(),
        finished=done.sum(dtype=jnp.int32),
        finished_return=jnp.where(done, returns, 0.0).sum(),
        likes=transitions.like.sum(dtype=jnp.int32) if counts_likes else None,
    )


def value_where(truncated: jax.Array, obs: Observation, value: Value) -> jax.Array:
    """Values of the observations [B] where sessions were truncated, float32[B]; 0 elsewhere.

    They are computed only for truncated sessions, a chunk at a time, because most steps truncate none.

    Args:
        truncated: bool[B].
        obs: observations, leading dimension B.
        value: observations [B'] -> float32[B'].
    """
    size = -(-truncated.shape[0] // _FINAL_CHUNKS)
    return map_where(value, truncated, obs, size, jnp.float32(0))
