"""Experience: what every agent collects from many sessions at once, and the account of their returns."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from agents.algorithms.parallel import own_keys, own_share
from jaxsim import EnvParams, Observation

# Final values are worked out for so many sessions at a time; few are truncated at one step.
_FINAL_CHUNKS = 8


class RecommenderEnv(Protocol):
    """What agents ask of an environment; `jaxsim.UserSimulator` has it. All methods are of one session."""

    @property
    def num_items(self) -> int:
        """N, one action an item."""

    @property
    def session_capacity(self) -> int:
        """Most interactions that a session can append."""

    def reset(self, key: jax.Array, params: Any) -> tuple[Observation, Any]:
        """Start a session."""

    def step(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any
    ) -> tuple[Observation, Any, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """One step with automatic reset; `info` has `response` and `final_observation`."""

    def action_mask(self, obs: Observation, params: Any) -> jax.Array:
        """Items that may be recommended, bool[N]."""

    def window_of(
        self,
        user: jax.Array,
        session_items: jax.Array,
        session_likes: jax.Array,
        session_length: jax.Array,
        params: Any,
    ) -> Observation:
        """The observation of a recorded session."""


@struct.dataclass
class Transition:
    """One step of one session, compact: with the earlier steps it rebuilds both observations.

    Attributes:
        user: int32[].
        item: int32[], the action.
        like: int8[], the response.
        reward: float32[].
        session_length: int32[], interactions that the session held before this step.
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
    """B sessions under way.

    Attributes:
        obs, state: of the environment, leading dimension B.
        running_return: float32[B], reward earned so far.
    """

    obs: Observation
    state: Any
    running_return: jax.Array


@struct.dataclass
class SessionTotals:
    """Account of a rollout; adding two accounts joins them.

    Attributes:
        steps: int32[], environment steps.
        reward: float32[], sum of rewards.
        finished: int32[], sessions that ended.
        finished_return: float32[], sum of their undiscounted returns.
    """

    steps: jax.Array
    reward: jax.Array
    finished: jax.Array
    finished_return: jax.Array

    def means(self) -> dict[str, jax.Array]:
        """Like rate of a step, and mean return of a finished session (NaN if none finished)."""
        return {
            "like_rate": self.reward / self.steps,
            "session_return": self.finished_return
            / jnp.where(self.finished > 0, self.finished, jnp.nan),
        }


Act = Callable[[jax.Array, Observation], tuple[jax.Array, Any]]
Value = Callable[[Observation], jax.Array]


@struct.dataclass
class Rollout:
    """T steps of B sessions; leading dimensions [T, B].

    Attributes:
        transitions: what happened.
        obs: what the agent saw before each step; None unless kept.
        extras: what `act` returned beside the actions.
        final_value: float32, value of the final observation where a session was truncated, 0 elsewhere; None
            without a value function. The final observations themselves are not kept.
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
        env, params: of `jaxsim.make`.
        sessions: where to go on.
        act: (keys [B], observations [B]) -> (int32[B] actions, any extras [B]). Actions must be allowed by
            `env.action_mask`, or transitions could not rebuild observations.
        num_steps: T.
        num_envs: sessions on all devices, B unless told.
        value: observations [B'] -> float32[B'], for the final observations of truncated sessions.
        keep_obs: whether the rollout keeps what the agent saw.
        axis_name: mesh axis of the sessions, if any.

    Returns:
        The sessions after, the rollout, and its account (on this device).
    """
    own = sessions.running_return.shape[0]
    total = num_envs or own
    assert own_share(total, axis_name) == own

    def one_step(sessions: Sessions, key: jax.Array) -> tuple[Sessions, tuple[Rollout, jax.Array]]:
        key_act, key_env = jax.random.split(key)
        action, extras = act(own_keys(key_act, total, axis_name), sessions.obs)
        before = sessions.state
        obs, state, reward, terminated, truncated, info = jax.vmap(
            env.step, in_axes=(0, 0, 0, None)
        )(own_keys(key_env, total, axis_name), before, action, params)
        transition = Transition(
            user=before.user,
            item=action,
            like=info["response"].like,
            reward=reward,
            session_length=before.session_length,
            terminated=terminated,
            truncated=truncated,
        )
        final_value = None
        if value is not None:
            final_value = value_where(truncated, info["final_observation"], value)
        earned = sessions.running_return + reward
        after = Sessions(obs, state, jnp.where(terminated | truncated, 0.0, earned))
        kept = sessions.obs if keep_obs else None
        return after, (Rollout(transition, kept, extras, final_value), earned)

    sessions, (rollout, earned) = jax.lax.scan(one_step, sessions, jax.random.split(key, num_steps))
    transitions = rollout.transitions
    done = transitions.terminated | transitions.truncated
    totals = SessionTotals(
        steps=jnp.int32(num_steps * own),
        reward=transitions.reward.sum(),
        finished=done.sum(dtype=jnp.int32),
        finished_return=jnp.where(done, earned, 0.0).sum(),
    )
    return sessions, rollout, totals


def value_where(truncated: jax.Array, obs: Observation, value: Value) -> jax.Array:
    """Values of the observations [B] where sessions were truncated bool[B], float32[B]; 0 elsewhere.

    Worked out for those sessions alone, a chunk at a time: most steps truncate none.
    """
    num_envs = truncated.shape[0]
    size = -(-num_envs // _FINAL_CHUNKS)
    order = jnp.nonzero(truncated, size=num_envs, fill_value=num_envs)[0]
    order = jnp.pad(order, (0, size), constant_values=num_envs).astype(jnp.int32)
    count = truncated.sum(dtype=jnp.int32)

    def chunk(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        first, values = carry
        rows = jax.lax.dynamic_slice(order, (first,), (size,))
        inside = jnp.minimum(rows, num_envs - 1)
        found = value(jax.tree.map(lambda x: x[inside], obs))
        return first + size, values.at[rows].set(found, mode="drop")

    start = (jnp.int32(0), jnp.zeros(num_envs, jnp.float32))
    return jax.lax.while_loop(lambda carry: carry[0] < count, chunk, start)[1]
