"""An upper reference where the departure is fitted: greedy on the simulator, with the value of a user who stays.

An obscure item makes the user likelier to leave at the next steps, so the item with the highest expected response
is not always the best. `OraclePlanning` recommends the item with the largest

    p(i) + (1 - h(t, x_i)) V(t, x_i)

p(i) is the expected response, x_i the obscurity of the last five items with i among them, h the probability of
leaving, and V(t, x) what a user who stays after position t is still going to give. V comes from value iteration
over position and obscurity. There a recommendation is a choice among bins of obscurity; each bin gives the
response that its best items give to users of the environment's params at the start of a session.

With `visits=True` it still plans one session, from the position in it: that the user may return is not part of V.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from agents.algorithms.choice import best_allowed
from agents.algorithms.policy import Simulator
from agents.evaluation.oracle import Oracle
from agents.evaluation.sessions import batch_size
from jaxsim import EnvParams, EnvState, Evidence, Observation, UserSimulator
from jaxsim.departure import (
    OBSCURITY,
    RECENT,
    DepartureModel,
    base_log_odds,
    contribution,
    recent_of,
)

_BINS = 24  # of obscurity, from which a recommendation is chosen
_GRID = 49  # obscurities at which V is known
_USERS = 256  # whose responses the bins are made of, at most
# Items of a bin whose mean is the bin's response: a session uses up the best ones.
_ITEMS_PER_BIN = 8


class Menu(NamedTuple):
    """What a recommendation can be in the value iteration.

    Attributes:
        obscurity: float32[K], of the items of a bin.
        response: float32[K], the expected response to its best items.
    """

    obscurity: jax.Array
    response: jax.Array


@struct.dataclass
class OraclePlanning(Oracle):
    """See the module.

    Attributes:
        grid: float32[G], obscurities, ascending.
        value: float32[P, G], V(t, x) for t from 1; the last row is that of the longest session.
    """

    grid: jax.Array = struct.field(kw_only=True)
    value: jax.Array = struct.field(kw_only=True)
    name: str = struct.field(pytree_node=False, default="oracle_planning")

    def act(
        self,
        key: jax.Array,
        memory: Evidence | None,
        env: Simulator,
        obs: Observation,
        state: EnvState,
        params: EnvParams,
    ) -> jax.Array:
        """See `EvaluatedPolicy`."""
        model = params.departure
        assert model is not None
        assert isinstance(env, UserSimulator)
        recent = recent_of(state.items, state.responses, state.length)
        kept = jnp.where(recent.present[1:], model.item_obscurity[recent.items[1:]], 0.0).sum()
        size = recent.present[1:].sum() + 1
        obscurity = (kept + model.item_obscurity) / size  # float32[N], with each item
        position = state.position + 1
        stays = 1.0 - leaving(model, position, obscurity)
        row = self.value[jnp.minimum(position - 1, len(self.value) - 1)]
        later = stays * jnp.interp(obscurity, self.grid, row)
        expected = env.expected_likes(memory, state, params)
        return best_allowed(expected + later, env.action_mask(obs, params))


def leaving(model: DepartureModel, position: jax.Array, obscurity: jax.Array) -> jax.Array:
    """The probability of leaving at a position and obscurities float32[...]; other terms are at their means."""
    log_odds = base_log_odds(model, position)
    if OBSCURITY in model.terms:
        log_odds = log_odds + contribution(model, OBSCURITY, obscurity)
    return jax.nn.sigmoid(log_odds)


def plan(env: UserSimulator, params: EnvParams) -> OraclePlanning:
    """The planner for sessions of the users of the params.

    Args:
        env, params: from `jaxsim.make(dataset, users="train", departure="fitted")`.
    """
    assert params.departure is not None
    menu = best_by_obscurity(env, params)
    longest = int(min(int(params.max_steps_in_episode), env.session_capacity))
    low, high = float(menu.obscurity.min()), float(menu.obscurity.max())
    grid = jnp.linspace(low, high, _GRID, dtype=jnp.float32)
    return OraclePlanning(grid=grid, value=values(params.departure, menu, grid, longest))


def best_by_obscurity(env: UserSimulator, params: EnvParams) -> Menu:
    """Bins of items of equal numbers by their obscurity, and the response to the best allowed items of each."""
    assert params.departure is not None
    obscurity = np.asarray(params.departure.item_obscurity)
    bins = np.array_split(np.argsort(obscurity, kind="stable"), min(_BINS, len(obscurity)))
    rows = np.stack([np.resize(items, len(bins[0])) for items in bins])  # the last may repeat one
    users = params.session_users[:: max(1, len(params.session_users) // _USERS)]
    best = min(_ITEMS_PER_BIN, rows.shape[1])

    def responses(user: jax.Array, params: EnvParams) -> jax.Array:
        obs, state = env.reset_user(user, params, jax.random.key(user))
        allowed = env.action_mask(obs, params)
        expected = jnp.where(allowed, env.expected_response(state, params), 0.0)
        return jax.lax.top_k(expected[rows], best)[0].mean(axis=1)

    def average(params: EnvParams) -> jax.Array:
        by_user = jax.lax.map(
            lambda user: responses(user, params), users, batch_size=batch_size(env.num_items)
        )
        return by_user.mean(axis=0)

    centres = np.array([obscurity[items].mean() for items in bins], np.float32)
    return Menu(jnp.asarray(centres), jax.jit(average)(params))


def values(model: DepartureModel, menu: Menu, grid: jax.Array, longest: int) -> jax.Array:
    """V(t, x) of t from 1 to the longest session, for a user who has not left after t, float32[P, G].

    A recommendation of obscurity z moves the obscurity of the last five from x to x + (z - x) / 5.
    """

    def backward(value: jax.Array, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        after = grid[:, None] + (menu.obscurity[None] - grid[:, None]) / RECENT
        stays = 1.0 - leaving(model, position + 1, after)
        gain = menu.response[None] + stays * jnp.interp(after, grid, value)
        here = gain.max(axis=1)
        return here, here

    nothing = jnp.zeros_like(grid)  # the session is cut after its longest length
    before = jnp.arange(longest - 1, 0, -1, dtype=jnp.int32)
    _, rows = jax.lax.scan(backward, nothing, before)
    return jnp.concatenate([rows[::-1], nothing[None]])
