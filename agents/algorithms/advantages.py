"""Advantage estimation that distinguishes termination from truncation."""

import chex
import jax
import jax.numpy as jnp


def next_values(
    values: jax.Array, last_value: jax.Array, final_value: jax.Array, truncated: jax.Array
) -> jax.Array:
    """Value of the true next observation of each step, float32[T, B].

    Args:
        values: float32[T, B], values of the observations before each step.
        last_value: float32[B], value of the observation after the last step.
        final_value: float32[T, B], value of the final observation where a session was truncated.
        truncated: bool[T, B].
    """
    following = jnp.concatenate([values[1:], last_value[None]])
    # After a truncation the next row is the first observation of another session.
    return jnp.where(truncated, final_value, following)


def generalised_advantages(
    rewards: jax.Array,
    values: jax.Array,
    following: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    gamma: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> jax.Array:
    """Generalised advantage estimates (Schulman et al., 2016), float32[T, B].

    A termination ends the return. A truncation ends only the trace; the return bootstraps from the next value.

    Args:
        rewards, values: float32[T, B].
        following: float32[T, B] from `next_values`.
        terminated, truncated: bool[T, B].
        gamma: discount factor.
        gae_lambda: lambda, the decay of the trace besides gamma.
    """
    chex.assert_equal_shape([rewards, values, following, terminated, truncated])
    errors = rewards + gamma * (1.0 - terminated) * following - values
    decay = gamma * gae_lambda * (1.0 - (terminated | truncated))

    def backwards(
        later: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        error, decay = step
        advantage = error + decay * later
        return advantage, advantage

    start = jnp.zeros_like(rewards[0])
    return jax.lax.scan(backwards, start, (errors, decay), reverse=True)[1]
