"""Environments that do nothing: how fast a learner on the host is if the environment costs no time.

They have the spaces of a given environment. Every observation is the same array, every reward is 0, and no session
ends, so there are no resets either.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from jaxsim.gymnasium_adapter import Arrays

Info = dict[str, Any]


class EmptyEnv(gymnasium.Env[Arrays, np.int64]):
    """One session that does nothing, with the spaces of `like`."""

    metadata = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(self, like: gymnasium.Env[Arrays, np.int64]) -> None:
        self.observation_space, self.action_space = like.observation_space, like.action_space
        self._obs = constant_observation(like.observation_space)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, Info]:
        """The constant observation."""
        super().reset(seed=seed)
        return self._obs, {}

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, Info]:
        """The constant observation, reward 0, not the end."""
        return self._obs, 0.0, False, False, {}


class EmptyVectorEnv(VectorEnv[Arrays, np.ndarray, np.ndarray]):
    """Many sessions that do nothing, with the spaces of `like`."""

    metadata = {  # noqa: RUF012 (Gymnasium's own declaration)
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, like: gymnasium.Env[Arrays, np.int64], num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space = like.observation_space
        self.single_action_space = like.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        single = constant_observation(like.observation_space)
        self._obs = {name: np.stack([value] * num_envs) for name, value in single.items()}
        self._rewards = np.zeros(num_envs, np.float64)
        self._ends = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, Info]:
        """The constant observations. Nothing is random, so seeds change nothing."""
        return self._obs, {}

    def step(self, actions: Any) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, Info]:
        """The constant observations, rewards 0, no session ends."""
        return self._obs, self._rewards, self._ends, self._ends, {}


def constant_observation(space: gymnasium.Space[Any]) -> Arrays:
    """An observation whose window is half full of liked items, and padded with the lowest values of its boxes.

    An empty window would be cheaper for a network than a real one, because it has no embeddings to look up.
    """
    assert isinstance(space, gymnasium.spaces.Dict)
    boxes = {name: box for name, box in space.items() if isinstance(box, gymnasium.spaces.Box)}
    obs = {name: np.array(box.low) for name, box in boxes.items()}
    half = len(obs["items"]) // 2
    obs["items"][:half] = np.arange(half) % (boxes["items"].high[0] + 1)
    obs["responses"][:half] = 1
    obs["responses"][half:] = 0
    obs["length"][:] = half
    return obs
