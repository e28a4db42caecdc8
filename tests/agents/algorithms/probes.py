"""Tiny environments with known answers, all in one program: which one it is lies in the params.

Eight items, of which none may be recommended twice in a session; a session has a fixed number of steps.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct

from jaxsim import Observation, Response

NUM_ITEMS, CAPACITY, HISTORY = 8, 5, 1


@struct.dataclass
class ProbeParams:
    """Which probe.

    Attributes:
        rewards: float32[2, N], of each item after a first response of dislike, and of like.
        cue: bool[], whether the first response is a coin and earns nothing; without it rewards[0] holds.
        steps: int32[], of a session.
        leaves: bool[], whether a session ends by termination; by truncation otherwise.
        half_start: bool[], whether every other session starts with item 0 in its history.
    """

    rewards: jax.Array
    cue: jax.Array
    steps: jax.Array
    leaves: jax.Array
    half_start: jax.Array


@struct.dataclass
class ProbeState:
    user: jax.Array
    items: jax.Array
    responses: jax.Array
    length: jax.Array
    session_length: jax.Array
    first: jax.Array


def probe(rewards, *, steps, cue=False, leaves=True, half_start=False) -> ProbeParams:
    return ProbeParams(
        rewards=jnp.asarray(rewards, jnp.float32),
        cue=jnp.bool_(cue),
        steps=jnp.int32(steps),
        leaves=jnp.bool_(leaves),
        half_start=jnp.bool_(half_start),
    )


def one_hot(*values: tuple[int, float]) -> jax.Array:
    rewards = jnp.zeros(NUM_ITEMS)
    for item, reward in values:
        rewards = rewards.at[item].set(reward)
    return rewards


def twice(rewards) -> jax.Array:
    return jnp.stack([rewards, rewards])


PROBES = {
    # Any item earns 1 until the cap, for ever: the value is 1 / (1 - gamma) everywhere.
    "constant": probe(jnp.ones((2, NUM_ITEMS)), steps=CAPACITY, leaves=False),
    # The same, but the user really leaves: the value is that of the steps that are left.
    "finite": probe(jnp.ones((2, NUM_ITEMS)), steps=CAPACITY),
    "bandit": probe(twice(one_hot((3, 1.0))), steps=1),
    # What the first response was decides which items earn.
    "memory": probe(
        [one_hot((1, 1.0), (2, 1.0), (3, 1.0)), one_hot((4, 1.0), (5, 1.0), (6, 1.0))],
        steps=2,
        cue=True,
    ),
    # The best item is not always allowed, and never twice.
    "masked": probe(twice(one_hot((0, 1.0), (1, 0.5))), steps=2, half_start=True),
}


@dataclass(frozen=True)
class ProbeEnv:
    num_items: int = NUM_ITEMS
    session_capacity: int = CAPACITY

    def reset(self, key, params):
        user = jax.random.randint(key, (), 0, 2, jnp.int32)
        held = (user == 1) & params.half_start
        window = HISTORY + CAPACITY
        state = ProbeState(
            user=user,
            items=jnp.full(window, -1, jnp.int32).at[0].set(jnp.where(held, 0, -1)),
            responses=jnp.zeros(window, jnp.int8).at[0].set(held.astype(jnp.int8)),
            length=held.astype(jnp.int32),
            session_length=jnp.int32(0),
            first=jnp.int32(0),
        )
        return self._observe(state), state

    def step(self, key, state, action, params):
        key_coin, key_reset = jax.random.split(key)
        is_cue = params.cue & (state.session_length == 0)
        reward = jnp.where(is_cue, 0.0, params.rewards[state.first, action])
        coin = jax.random.bernoulli(key_coin).astype(jnp.int8)
        like = jnp.where(is_cue, coin, (reward > 0).astype(jnp.int8))
        stepped = state.replace(
            items=state.items.at[state.length].set(action),
            responses=state.responses.at[state.length].set(2 * like - 1),
            length=state.length + 1,
            session_length=state.session_length + 1,
            first=jnp.where(is_cue, like.astype(jnp.int32), state.first),
        )
        final = self._observe(stepped)
        done = stepped.session_length >= params.steps
        _, fresh = self.reset(key_reset, params)
        state = jax.tree.map(lambda a, b: jnp.where(done, a, b), fresh, stepped)
        info = {"response": Response(like=like), "final_observation": final}
        terminated, truncated = done & params.leaves, done & ~params.leaves
        return self._observe(state), state, reward, terminated, truncated, info

    def action_mask(self, obs, params):
        seen = jnp.where(obs.items >= 0, obs.items, NUM_ITEMS)
        return jnp.ones(NUM_ITEMS, bool).at[seen].set(False, mode="drop")

    def window_of(self, user, session_items, session_likes, session_length, params):
        held = ((user == 1) & params.half_start).astype(jnp.int32)
        position = jnp.arange(HISTORY + CAPACITY)
        index = jnp.clip(position - held, 0, CAPACITY - 1)
        in_session = (position >= held) & (position < held + session_length)
        items = jnp.where(in_session, session_items[index], jnp.where(position < held, 0, -1))
        signs = 2 * session_likes[index] - 1
        responses = jnp.where(in_session, signs, jnp.where(position < held, 1, 0))
        return Observation(user, items, responses.astype(jnp.int8), held + session_length)

    def _observe(self, state):
        return Observation(state.user, state.items, state.responses, state.length)
