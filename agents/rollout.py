"""Experience: what every agent collects from many sessions at once, and the account of their returns."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from jaxsim import EnvParams, EnvState, Observation, UserSimulator


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
    state: EnvState
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


Act = Callable[[jax.Array, Observation], jax.Array]


def start_sessions(
    key: jax.Array, env: UserSimulator, params: EnvParams, num_envs: int
) -> Sessions:
    """Reset `num_envs` sessions."""
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(key, num_envs), params)
    return Sessions(obs, state, jnp.zeros(num_envs, jnp.float32))


def collect(
    key: jax.Array,
    env: UserSimulator,
    params: EnvParams,
    sessions: Sessions,
    act: Act,
    num_steps: int,
) -> tuple[Sessions, Transition, SessionTotals]:
    """Step B sessions `num_steps` times, with automatic reset.

    Args:
        key: PRNG key.
        env, params: of `jaxsim.make`.
        sessions: where to go on.
        act: (key, one observation) -> int32[] action; it is vmapped over sessions. Its actions must be allowed
            by `env.action_mask`, or transitions could not rebuild observations.
        num_steps: T.

    Returns:
        The sessions after, transitions [T, B], and the account of the rollout.
    """
    num_envs = sessions.running_return.shape[0]

    def one_step(
        sessions: Sessions, key: jax.Array
    ) -> tuple[Sessions, tuple[Transition, jax.Array]]:
        key_act, key_env = jax.random.split(key)
        action = jax.vmap(act)(jax.random.split(key_act, num_envs), sessions.obs)
        before = sessions.state
        obs, state, reward, terminated, truncated, info = jax.vmap(
            env.step, in_axes=(0, 0, 0, None)
        )(jax.random.split(key_env, num_envs), before, action, params)
        transition = Transition(
            user=before.user,
            item=action,
            like=info["response"].like,
            reward=reward,
            session_length=before.session_length,
            terminated=terminated,
            truncated=truncated,
        )
        earned = sessions.running_return + reward
        done = terminated | truncated
        after = Sessions(obs, state, jnp.where(done, 0.0, earned))
        return after, (transition, earned)

    sessions, (transitions, earned) = jax.lax.scan(
        one_step, sessions, jax.random.split(key, num_steps)
    )
    done = transitions.terminated | transitions.truncated
    totals = SessionTotals(
        steps=jnp.int32(num_steps * num_envs),
        reward=transitions.reward.sum(),
        finished=done.sum(dtype=jnp.int32),
        finished_return=jnp.where(done, earned, 0.0).sum(),
    )
    return sessions, transitions, totals


def random_allowed(key: jax.Array, mask: jax.Array) -> jax.Array:
    """An item drawn uniformly from those allowed, int32[].

    Args:
        key: PRNG key.
        mask: bool[N] of `env.action_mask`, at least one True.
    """
    # One uniform and a cumulative sum: N random numbers a draw would cost far more.
    rank = jnp.cumsum(mask.astype(jnp.int32))
    chosen = jax.random.randint(key, (), 1, rank[-1] + 1)
    return jnp.searchsorted(rank, chosen).astype(jnp.int32)


def best_allowed(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The allowed item of the highest score, int32[]; scores float32[N], mask bool[N]."""
    return jnp.argmax(jnp.where(mask, scores, -jnp.inf)).astype(jnp.int32)
