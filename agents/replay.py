"""Replay memory of compact transitions: observations are rebuilt when sampled, never stored."""

import jax
import jax.numpy as jnp
from flax import struct

from agents.rollout import Transition
from jaxsim import EnvParams, Observation, UserSimulator


@struct.dataclass
class Replay:
    """A ring of the latest `capacity` steps of each of B sessions' streams.

    Attributes:
        stream: `Transition` with leading dimensions [capacity, B].
        written: int32[], steps written so far.
    """

    stream: Transition
    written: jax.Array

    @property
    def capacity(self) -> int:
        """Steps of one stream that are kept."""
        return self.stream.item.shape[0]


@struct.dataclass
class Batch:
    """Transitions with the observations before and after them, leading dimension of the batch."""

    obs: Observation
    transition: Transition
    next_obs: Observation


def empty_replay(capacity: int, num_envs: int) -> Replay:
    """A replay without content."""
    shape = (capacity, num_envs)
    return Replay(
        Transition(
            user=jnp.zeros(shape, jnp.int32),
            item=jnp.zeros(shape, jnp.int32),
            like=jnp.zeros(shape, jnp.int8),
            reward=jnp.zeros(shape, jnp.float32),
            session_length=jnp.zeros(shape, jnp.int32),
            terminated=jnp.zeros(shape, bool),
            truncated=jnp.zeros(shape, bool),
        ),
        written=jnp.int32(0),
    )


def add(replay: Replay, transitions: Transition) -> Replay:
    """Append transitions [T, B]; T divides the capacity."""
    num_steps = transitions.item.shape[0]
    assert replay.capacity % num_steps == 0, "rollout length must divide the replay's capacity"
    start = replay.written % replay.capacity
    stream = jax.tree.map(
        lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, start, axis=0),
        replay.stream,
        transitions,
    )
    return Replay(stream, replay.written + num_steps)


def sample(
    key: jax.Array, replay: Replay, env: UserSimulator, params: EnvParams, batch_size: int
) -> Batch:
    """A batch drawn uniformly from the steps whose whole session is still in the ring."""
    key_step, key_env = jax.random.split(key)
    num_envs = replay.stream.item.shape[1]
    oldest = jnp.maximum(replay.written - replay.capacity, 0)
    # Once the ring has wrapped, the oldest steps may belong to sessions whose beginning is overwritten.
    first = jnp.where(oldest > 0, oldest + env.session_capacity, 0)
    step = jax.random.randint(key_step, (batch_size,), first, replay.written)
    column = jax.random.randint(key_env, (batch_size,), 0, num_envs)
    return jax.vmap(lambda s, c: _rebuild(replay, env, params, s, c))(step, column)


def _rebuild(
    replay: Replay, env: UserSimulator, params: EnvParams, step: jax.Array, column: jax.Array
) -> Batch:
    transition = jax.tree.map(lambda ring: ring[step % replay.capacity, column], replay.stream)
    start = step - transition.session_length
    session = (start + jnp.arange(env.session_capacity)) % replay.capacity
    items = replay.stream.item[session, column]
    likes = replay.stream.like[session, column]
    length = transition.session_length
    obs = env.window_of(transition.user, items, likes, length, params)
    next_obs = env.window_of(transition.user, items, likes, length + 1, params)
    return Batch(obs, transition, next_obs)
