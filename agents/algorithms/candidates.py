"""Candidates: the C items among which a policy chooses in an iteration, so that its cost does not grow with N.

The agent draws them itself, once an iteration, from what every recommender knows:

- a third by popularity: an interaction of a random training user's history;
- a third are neighbours of what users like now: from a liked item of a session's window to a random user who liked
  it as well, and on to an item that this user liked (a random walk of two steps on the graph of users and items);
- the rest evenly over the catalogue, so that every item is a candidate now and then.

All sessions of an iteration have the same candidates, so that their scores are one matrix product. Given the
candidates, the policy is a softmax over those that are allowed, and its log-probabilities are exact. This is the
candidate generation of industrial recommenders, with the candidates as a part of the state.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from agents.algorithms.choice import draw_weighted
from agents.algorithms.parallel import own_keys
from jaxsim import EnvParams, Observation

# The random walks pass through these users, so that their index stays small.
_LARGEST_INDEX = 1 << 15


@struct.dataclass
class LikedBy:
    """Who liked each item, among M users: an index of their likes.

    Attributes:
        users: int32[L], the users of the likes, ordered by item.
        starts: int32[N + 1], where the likes of each item begin.
    """

    users: jax.Array
    starts: jax.Array


def liked_by(params: EnvParams, num_items: int) -> LikedBy:
    """The index of the likes in the histories of the session users, or of an even sample of them."""
    users = params.session_users
    users = users[:: -(-len(users) // _LARGEST_INDEX)]
    histories = params.histories
    liked = histories.likes[users] > 0
    items = jnp.where(liked, histories.items[users], num_items).ravel()
    owners = jnp.broadcast_to(users[:, None], liked.shape).ravel()
    order = jnp.argsort(items)
    starts = jnp.searchsorted(items[order], jnp.arange(num_items + 1, dtype=items.dtype))
    return LikedBy(owners[order].astype(jnp.int32), starts.astype(jnp.int32))


def draw_candidates(
    key: jax.Array,
    index: LikedBy,
    obs: Observation,
    params: EnvParams,
    count: int,
    num_envs: int,
    axis_name: str | None = None,
) -> jax.Array:
    """C different items, int32[C]; the same on all devices.

    Args:
        key: PRNG key.
        index: of `liked_by`.
        obs: of this device's sessions, leading dimension B.
        params: of `jaxsim.make`.
        count: C, at most N.
        num_envs: number of sessions on all devices.
        axis_name: mesh axis of the sessions, if any.
    """
    num_items = index.starts.shape[0] - 1
    key_popular, key_walk, key_spread = jax.random.split(key, 3)
    share = count // 3
    popular = jax.vmap(_popular, (0, None))(jax.random.split(key_popular, share), params)
    walks = -(-share // num_envs)  # of each session
    keys = jax.vmap(lambda k: jax.random.split(k, walks))(own_keys(key_walk, num_envs, axis_name))
    neighbours = jax.vmap(jax.vmap(_neighbour, (0, None, None, None)), (0, 0, None, None))(
        keys, obs, index, params
    )
    if axis_name is not None:
        neighbours = jax.lax.all_gather(neighbours, axis_name, tiled=True)
    # An even sample, as there may be more sessions than places.
    chosen = jnp.arange(share, dtype=jnp.int32) * (num_envs * walks) // max(share, 1)
    start = jax.random.randint(key_spread, (), 0, num_items, jnp.int32)
    spread = (start + _evenly(num_items, count)) % num_items
    drawn = jnp.concatenate([popular, neighbours.ravel()[chosen], spread])
    return first_distinct(drawn, num_items, count)


def _evenly(num_items: int, count: int) -> jax.Array:
    """C different numbers below N at even distances, int32[C]."""
    # The rest of the division is spread as well; no product exceeds int32.
    index = jnp.arange(count, dtype=jnp.int32)
    return index * (num_items // count) + jnp.minimum(index, num_items % count)


def _popular(key: jax.Array, params: EnvParams) -> jax.Array:
    """The item of a random interaction of a random session user, int32[]; -1 if they have none."""
    key_user, key_position = jax.random.split(key)
    histories = params.histories
    users = params.session_users
    user = users[jax.random.randint(key_user, (), 0, len(users), jnp.int32)]
    length = histories.length[user]
    position = jax.random.randint(key_position, (), 0, jnp.maximum(length, 1), jnp.int32)
    return jnp.where(length > 0, histories.items[user, position], -1)


def _neighbour(key: jax.Array, obs: Observation, index: LikedBy, params: EnvParams) -> jax.Array:
    """An item two steps away from a liked one of a window, int32[]; -1 if the walk ends earlier."""
    key_item, key_user, key_next = jax.random.split(key, 3)
    likes = obs.responses > 0
    item = jnp.maximum(obs.items[draw_weighted(key_item, likes.astype(jnp.float32))], 0)
    first, end = index.starts[item], index.starts[item + 1]
    like = jax.random.randint(key_user, (), first, jnp.maximum(end, first + 1), jnp.int32)
    user = index.users[jnp.minimum(like, len(index.users) - 1)]
    liked = params.histories.likes[user] > 0
    following = params.histories.items[user, draw_weighted(key_next, liked.astype(jnp.float32))]
    return jnp.where(likes.any() & (end > first), following, -1)


def first_distinct(items: jax.Array, num_items: int, count: int) -> jax.Array:
    """The first `count` different items of a list int32[L] in its order, int32[count]; N fills up.

    Numbers outside [0, N) are left out.
    """
    chex.assert_rank(items, 1)
    order = jnp.arange(items.shape[0], dtype=jnp.int32)
    slot = jnp.where((items >= 0) & (items < num_items), items, num_items)
    earliest = jnp.full(num_items + 1, items.shape[0], jnp.int32).at[slot].min(order)
    is_first = (earliest[slot] == order) & (slot < num_items)
    chosen = jnp.nonzero(is_first, size=count, fill_value=items.shape[0])[0]
    return jnp.append(items, jnp.int32(num_items))[chosen].astype(jnp.int32)


def distinct(items: Any, num_items: int, count: int) -> jax.Array:
    """The different items of arrays of items, ascending, at most `count` of them, int32[count]; N fills up.

    Args:
        items: a pytree of int32 arrays; numbers outside [0, N) are left out.
        num_items: N.
        count: of the result. If there are more, the ones with the highest numbers are left out.
    """
    present = jnp.zeros(num_items, bool)
    for part in jax.tree.leaves(items):
        present = present.at[jnp.where(part >= 0, part, num_items).ravel()].set(True, mode="drop")
    return jnp.nonzero(present, size=count, fill_value=num_items)[0].astype(jnp.int32)


def places_of(rows: jax.Array, num_items: int) -> jax.Array:
    """Where each item is in distinct `rows` int32[R], int32[N]; R if it is not there."""
    size = rows.shape[0]
    order = jnp.arange(size, dtype=jnp.int32)
    return jnp.full(num_items, size, jnp.int32).at[rows].set(order, mode="drop")
