"""Many sessions of one compiled program as a vector environment of Stable-Baselines3.

Needs `pip install "jaxsim-recsys[sb3]"`; nothing else of this package imports it.
"""

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from jaxsim.errors import InputError
from jaxsim.gymnasium_adapter import GymnasiumVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError:
    raise InputError(
        'jaxsim.sb3_vec_env needs Stable-Baselines3: pip install "jaxsim-recsys[sb3]"'
    ) from None


class SB3VecEnv(VecEnv):
    """A `gymnasium.vector.VectorEnv` with SAME_STEP resets as a `VecEnv` of Stable-Baselines3.

    sb3-contrib's MaskablePPO finds the masks of a `jaxsim.GymnasiumVectorEnv` in it.

    Attributes:
        envs: the vector environment.
        flat: whether an observation is one vector, int8[N]: 1 for an item of the window that was liked, -1 for one
            that was not, 0 for all others. Otherwise it is the dict of `jaxsim.GymnasiumVectorEnv`.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any], flat: bool = False) -> None:
        """Wrap `envs`.

        Args:
            envs: such as `jaxsim.GymnasiumVectorEnv(env, params, num_envs=64, seed=0)`.
            flat: see the class; for policies such as "MlpPolicy".

        Raises:
            InputError: `envs` resets at another time, or `flat` is wanted of slates or other observations.
        """
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise InputError(f"envs: autoreset_mode is {mode}, and must be AutoresetMode.SAME_STEP")
        self.envs, self.flat = envs, flat  # set first, because the base class reads attributes
        space, action = envs.single_observation_space, envs.single_action_space
        if flat:
            if not isinstance(action, spaces.Discrete):
                raise InputError("flat: an observation of slates is no single vector; leave it out")
            self._num_items = int(action.n)
            space = spaces.Box(-1, 1, (self._num_items,), np.int8)
        super().__init__(envs.num_envs, space, action)
        self.actions = np.zeros(envs.num_envs, np.int64)

    def reset(self) -> Any:
        """Start a new session in every environment; those of `seed` if it was called."""
        seeds = None if self._seeds[0] is None else self._seeds
        obs, _ = self.envs.reset(seed=seeds)  # type: ignore[arg-type]
        self._reset_seeds()
        self._reset_options()
        return self._shown(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> Any:
        """Observations, rewards float32[B], dones bool[B] and infos.

        The last observation of a session that ends is "terminal_observation" in its info.
        """
        obs, rewards, terminated, truncated, infos = self.envs.step(self.actions)
        done = terminated | truncated
        described: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            described[i]["terminal_observation"] = self._shown_one(infos["final_obs"][i])
            described[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return self._shown(obs), rewards.astype(np.float32), done, described

    def _shown(self, obs: dict[str, np.ndarray]) -> Any:
        if not self.flat:
            return obs
        vectors = np.zeros((self.num_envs, self._num_items), np.int8)
        row, place = np.nonzero(obs["responses"])
        vectors[row, obs["items"][row, place]] = obs["responses"][row, place]
        return vectors

    def _shown_one(self, obs: dict[str, np.ndarray]) -> Any:
        if not self.flat:
            return obs
        vector = np.zeros(self._num_items, np.int8)
        given = obs["responses"] != 0
        vector[obs["items"][given]] = obs["responses"][given]
        return vector

    def close(self) -> None:
        """Close the vector environment."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the vector environment, the same for each session.

        Raises:
            AttributeError: there is none.
        """
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not supported."""
        raise NotImplementedError("sessions of one program share their attributes")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Only "action_masks": a mask bool[N] for each session.

        Raises:
            NotImplementedError: another method.
        """
        if method_name != "action_masks":
            raise NotImplementedError("sessions of one program share their methods")
        masks = np.asarray(self.envs.action_masks(), np.bool_)  # type: ignore[attr-defined]
        return [masks[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No session is wrapped."""
        return [False] * len(list(self._get_indices(indices)))


def make_sb3_vec_env(
    env: Any, params: Any, num_envs: int, seed: int = 0, flat: bool = False
) -> SB3VecEnv:
    """Sessions of a simulator for Stable-Baselines3.

    Args:
        env, params: as of `jaxsim.make`.
        num_envs: number of sessions, at least 1.
        seed: all sessions are a function of it and the actions.
        flat: see `SB3VecEnv`.
    """
    return SB3VecEnv(GymnasiumVectorEnv(env, params, num_envs, seed), flat)
