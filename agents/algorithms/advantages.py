"""Advantage estimation that keeps termination and truncation apart."""

import chex
import jax
import jax.numpy as jnp


def next_values(
    values: jax.Array, last_value: jax.Array, final_value: jax.Array, truncated: jax.Array
) -> jax.Array:
    """Value of the true next observation of each step, float32[T, B].

    Args:
        values: float32[T, B], of the observations before each step.
        last_value: float32[B], of the observation after the last step.
        final_value: float32[T, B], of the final observation where a session was truncated.
        truncated: bool[T, B].
    """
    following = jnp.concatenate([values[1:], last_value[None]])
    # After a truncation the next row is another session's first observation.
    return jnp.where(truncated, final_value, following)


def generalised_advantages(
    rewards: jax.Array,
    values: jax.Array,
    following: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    discount: float | jax.Array,
    trace_decay: float | jax.Array,
) -> jax.Array:
    """Generalised advantage estimates (Schulman et al., 2016), float32[T, B].

    A termination ends the return; a truncation ends the trace alone, and its value bootstraps.

    Args:
        rewards, values: float32[T, B].
        following: float32[T, B] of `next_values`.
        terminated, truncated: bool[T, B].
        discount: gamma.
        trace_decay: lambda.
    """
    chex.assert_equal_shape([rewards, values, following, terminated, truncated])
    errors = rewards + discount * (1.0 - terminated) * following - values
    carried = discount * trace_decay * (1.0 - (terminated | truncated))

    def backwards(
        later: jax.Array, step: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        error, weight = step
        advantage = error + weight * later
        return advantage, advantage

    start = jnp.zeros_like(rewards[0])
    return jax.lax.scan(backwards, start, (errors, carried), reverse=True)[1]
