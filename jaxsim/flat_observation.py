"""The simulator with one vector as its observation, for JAX libraries of agents such as rejax and purejaxrl.

    env, params = jaxsim.make(dataset)
    flat = jaxsim.FlatObservation(env)
    obs, state = flat.reset(key, params)
    obs, state, reward, done, info = flat.step(key, state, action, params)

Their networks read one array of floats, and they were written for the interface that gymnax had before 1.0, whose
`step` returns five values. Everything else is that of the simulator.
"""

from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.types import EnvParams, EnvState, Observation


@dataclass(frozen=True)
class FlatObservation:
    """A simulator of single items whose observation is what the user thought of each item of the window.

    Observation: float32[N], 1 for the items of the window that the user liked, -1 for those that they disliked, 0
    for all others. The order of the window is lost. Actions and rewards are the simulator's. An item that may not
    be recommended earns 0, and nothing else happens: these libraries have no masks. But the observation shows what
    is in the window. Sessions reset automatically.

    Attributes:
        env: of `jaxsim.make`.
    """

    env: UserSimulator

    def __post_init__(self) -> None:
        if not isinstance(self.env, UserSimulator):
            raise InputError(
                f"env is a {type(self.env).__name__}: pass what jaxsim.make returned, without slates"
            )

    @property
    def name(self) -> str:
        """The simulator's."""
        return self.env.name

    @property
    def num_actions(self) -> int:
        """N."""
        return self.env.num_items

    @property
    def default_params(self) -> EnvParams | None:
        """The simulator's, if it was made by `gymnax.make`; None otherwise, as rejax asks for them in any case."""
        return None if self.env.defaults is None else self.env.default_params

    def reset(self, key: jax.Array, params: EnvParams | None = None) -> tuple[jax.Array, EnvState]:
        """Start a session: the observation, and the state of the simulator."""
        obs, state = self.env.reset(key, params)
        return self.flatten(obs), state

    def step(
        self, key: jax.Array, state: EnvState, action: Any, params: EnvParams | None = None
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[str, jax.Array]]:
        """One step with automatic reset.

        Returns:
            The observation, the state, the reward float32[], whether the session ended bool[], and `info`:
            `like` int8[], `terminated`, `truncated` and `invalid_action` bool[], `discount` float32[], 0 where the
            user left.
        """
        obs, state, reward, terminated, truncated, info = self.env.step(key, state, action, params)
        described = {
            "like": info["response"].like,
            "terminated": terminated,
            "truncated": truncated,
            "invalid_action": info["invalid_action"],
            "discount": jnp.where(terminated, jnp.float32(0), jnp.float32(1)),
        }
        return self.flatten(obs), state, reward, terminated | truncated, described

    def flatten(self, obs: Observation) -> jax.Array:
        """An observation of the simulator as float32[N]."""
        chex.assert_rank([obs.items, obs.responses], 1)
        places = jnp.where(obs.items >= 0, obs.items, self.env.num_items)
        responses = obs.responses.astype(jnp.float32)
        total = jnp.zeros(self.env.num_items, jnp.float32).at[places].add(responses, mode="drop")
        return jnp.clip(total, -1.0, 1.0)  # with repeats="allow" an item may be there several times

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """An item."""
        return self.env.action_space(params)

    def observation_space(self, params: EnvParams | None = None) -> spaces.Box:
        """Numbers from -1 to 1, float32[N]."""
        return spaces.Box(-1.0, 1.0, (self.env.num_items,), jnp.float32)
