"""Replay memory of compact transitions: observations are rebuilt when sampled, never stored."""

import jax
import jax.numpy as jnp
from flax import struct

from agents.algorithms.parallel import num_devices, own_keys, own_share
from agents.algorithms.rollout import RecommenderEnv, Transition
from jaxsim import EnvParams, Observation


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
    """Steps with what followed them, leading dimension of the batch.

    Attributes:
        obs: before the step.
        transition: the step.
        next_obs: n steps later, or where the session ended if that is earlier.
        reward: float32, discounted sum of the rewards in between.
        discount: float32, what the value of `next_obs` counts: gamma ** steps in between, 0 if the user left.
    """

    obs: Observation
    transition: Transition
    next_obs: Observation
    reward: jax.Array
    discount: jax.Array


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
    key: jax.Array,
    replay: Replay,
    env: RecommenderEnv,
    params: EnvParams,
    batch_size: int,
    num_steps: int = 1,
    discount: float | jax.Array = 1.0,
    axis_name: str | None = None,
) -> Batch:
    """A batch drawn from the steps whose whole session is still in the ring, and what followed them.

    The batch is spread evenly over the sessions' streams, and within a stream drawn uniformly.

    Args:
        key: PRNG key.
        replay: with at least `num_steps` steps.
        env, params: of `jaxsim.make`.
        batch_size: on all devices; a multiple of the number of streams, or a divisor of it.
        num_steps: n of the n-step return.
        discount: gamma.
        axis_name: mesh axis of the sessions, if any; this device samples its share of the batch.
    """
    own_streams = replay.stream.item.shape[1]
    share = own_share(batch_size, axis_name)
    oldest = jnp.maximum(replay.written - replay.capacity, 0)
    # Once the ring has wrapped, the oldest steps may belong to sessions whose beginning is overwritten.
    first = jnp.where(oldest > 0, oldest + env.session_capacity, 0)
    # What followed the latest steps is not known yet.
    last = jnp.maximum(replay.written - (num_steps - 1), first + 1)

    def one(key: jax.Array, slot: jax.Array) -> Batch:
        key_step, key_column = jax.random.split(key)
        step = jax.random.randint(key_step, (), first, last)
        # Slots in order of streams, so that a device's slots are of its own; a batch smaller than the number of
        # streams has some of them for each slot.
        choices = max(1, own_streams // share)
        # One divides the other; a product of the two could pass int32.
        first_column = slot // max(1, share // own_streams) * choices
        column = first_column + jax.random.randint(key_column, (), 0, choices)
        return _rebuild(replay, env, params, step, column, num_steps, discount)

    keys = own_keys(key, share * num_devices(axis_name), axis_name)
    return jax.vmap(one)(keys, jnp.arange(share, dtype=jnp.int32))


def _rebuild(
    replay: Replay,
    env: RecommenderEnv,
    params: EnvParams,
    step: jax.Array,
    column: jax.Array,
    num_steps: int,
    discount: float | jax.Array,
) -> Batch:
    transition = jax.tree.map(lambda ring: ring[step % replay.capacity, column], replay.stream)
    length = transition.session_length
    # Positions of the session in the ring; those behind what was written are not used.
    session = (step - length + jnp.arange(env.session_capacity)) % replay.capacity
    items = replay.stream.item[session, column]
    likes = replay.stream.like[session, column]

    ahead = (step + jnp.arange(num_steps)) % replay.capacity
    terminated = replay.stream.terminated[ahead, column]
    done = terminated | replay.stream.truncated[ahead, column]
    # Steps that belong to this session: all up to and with the first that ended it.
    alive = jnp.cumsum(done) - done == 0
    powers = discount ** jnp.arange(num_steps, dtype=jnp.float32)
    count = alive.sum(dtype=jnp.int32)
    left = (alive & terminated).any()
    return Batch(
        obs=env.window_of(transition.user, items, likes, length, params),
        transition=transition,
        next_obs=env.window_of(transition.user, items, likes, length + count, params),
        reward=(jnp.where(alive, replay.stream.reward[ahead, column], 0.0) * powers).sum(),
        discount=jnp.where(left, 0.0, discount ** count.astype(jnp.float32)),
    )
