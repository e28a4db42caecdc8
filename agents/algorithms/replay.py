"""Replay memory of compact transitions: observations are not stored, but rebuilt when sampled."""

import jax
import jax.numpy as jnp
from flax import struct

from agents.algorithms.parallel import num_devices, own_keys, own_share
from agents.algorithms.rollout import RecommenderEnv, Transition
from jaxsim import EnvParams, Observation


@struct.dataclass
class Replay:
    """A ring buffer with the latest `capacity` steps of the streams of B sessions.

    Attributes:
        stream: `Transition` with leading dimensions [capacity, B].
        written: int32[], number of steps written so far.
    """

    stream: Transition
    written: jax.Array

    @property
    def capacity(self) -> int:
        """Number of steps of one stream that the buffer holds."""
        return self.stream.item.shape[0]


@struct.dataclass
class Batch:
    """Sampled n-step transitions; the leading dimension is the batch.

    Attributes:
        obs: the observation before the step.
        transition: the step.
        next_obs: the observation n steps later, or at the end of the session if that comes first.
        reward: float32, discounted sum of the rewards in between.
        discount: float32, factor of the value of `next_obs`: gamma ** (steps in between), 0 if the user left.
    """

    obs: Observation
    transition: Transition
    next_obs: Observation
    reward: jax.Array
    discount: jax.Array


def empty_replay(capacity: int, num_envs: int, slate_size: int | None = None) -> Replay:
    """A replay memory without transitions, of items or of slates of K."""
    shape = (capacity, num_envs)
    of_action = shape if slate_size is None else (*shape, slate_size)
    return Replay(
        Transition(
            user=jnp.zeros(shape, jnp.int32),
            item=jnp.zeros(of_action, jnp.int32),
            like=jnp.zeros(of_action, jnp.int8),
            reward=jnp.zeros(shape, jnp.float32),
            session_length=jnp.zeros(shape, jnp.int32),
            terminated=jnp.zeros(shape, bool),
            truncated=jnp.zeros(shape, bool),
        ),
        written=jnp.int32(0),
    )


def add(replay: Replay, transitions: Transition) -> Replay:
    """Append transitions [T, B]; T must divide the capacity."""
    length = transitions.item.shape[0]
    assert replay.capacity % length == 0, "rollout length must divide the replay's capacity"
    start = replay.written % replay.capacity
    stream = jax.tree.map(
        lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, start, axis=0),
        replay.stream,
        transitions,
    )
    return Replay(stream, replay.written + length)


def sample(
    key: jax.Array,
    replay: Replay,
    env: RecommenderEnv,
    params: EnvParams,
    batch_size: int,
    n_steps: int = 1,
    gamma: float | jax.Array = 1.0,
    axis_name: str | None = None,
) -> Batch:
    """A batch of n-step transitions, from steps whose sessions are still in the buffer from their beginning.

    Each stream has the same share of the batch; within a stream, steps are drawn uniformly.

    Args:
        key: PRNG key.
        replay: a replay memory with at least `n_steps` steps.
        env, params: from `jaxsim.make`.
        batch_size: on all devices together; a multiple of the number of streams, or a divisor of it.
        n_steps: n of the n-step return.
        gamma: discount factor.
        axis_name: mesh axis of the sessions, if any; this device samples its share of the batch.
    """
    own_streams = replay.stream.item.shape[1]
    share = own_share(batch_size, axis_name)
    oldest = jnp.maximum(replay.written - replay.capacity, 0)
    # Once the buffer is full, the oldest steps may belong to sessions whose beginning is overwritten.
    first = jnp.where(oldest > 0, oldest + env.session_capacity, 0)
    # The latest steps have no n following steps yet.
    last = jnp.maximum(replay.written - (n_steps - 1), first + 1)

    def sample_slot(key: jax.Array, slot: jax.Array) -> Batch:
        key_step, key_column = jax.random.split(key)
        step = jax.random.randint(key_step, (), first, last)
        # Slots are in order of streams, so that a device's slots use only its own streams. If the batch is smaller
        # than the number of streams, a slot draws one of several streams.
        choices = max(1, own_streams // share)
        # One divides the other. Their product could exceed int32.
        first_column = slot // max(1, share // own_streams) * choices
        column = first_column + jax.random.randint(key_column, (), 0, choices)
        return _rebuild(replay, env, params, step, column, n_steps, gamma)

    keys = own_keys(key, share * num_devices(axis_name), axis_name)
    return jax.vmap(sample_slot)(keys, jnp.arange(share, dtype=jnp.int32))


def _rebuild(
    replay: Replay,
    env: RecommenderEnv,
    params: EnvParams,
    step: jax.Array,
    column: jax.Array,
    n_steps: int,
    gamma: float | jax.Array,
) -> Batch:
    """The transition of one step [] of one column, with both observations."""
    transition = jax.tree.map(lambda ring: ring[step % replay.capacity, column], replay.stream)
    length = transition.session_length
    # Positions of the session in the buffer; those after the latest step are not used.
    session = (step - length + jnp.arange(env.session_capacity, dtype=jnp.int32)) % replay.capacity
    items = replay.stream.item[session, column]
    likes = replay.stream.like[session, column]

    ahead = (step + jnp.arange(n_steps, dtype=jnp.int32)) % replay.capacity
    terminated = replay.stream.terminated[ahead, column]
    done = terminated | replay.stream.truncated[ahead, column]
    # The steps of this session: up to and including the one that ended it.
    alive = jnp.cumsum(done) - done == 0
    powers = gamma ** jnp.arange(n_steps, dtype=jnp.float32)
    count = alive.sum(dtype=jnp.int32)
    left = (alive & terminated).any()
    return Batch(
        obs=env.window_of(transition.user, items, likes, length, params),
        transition=transition,
        next_obs=env.window_of(transition.user, items, likes, length + count, params),
        reward=(jnp.where(alive, replay.stream.reward[ahead, column], 0.0) * powers).sum(),
        discount=jnp.where(left, 0.0, gamma ** count.astype(jnp.float32)),
    )
