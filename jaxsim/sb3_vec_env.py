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
except ModuleNotFoundError:
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
            if not isinstance(space, spaces.Dict) or not {"items", "responses"} <= set(space):
                raise InputError("flat: the observations of envs have no items and responses")
            self._num_items = int(action.n)
            space = spaces.Box(-1, 1, (self._num_items,), np.int8)
        super().__init__(envs.num_envs, space, action)
        self.actions = np.zeros(envs.num_envs, np.int64)

    def reset(self) -> Any:
        """Start a session in every environment, with the seeds of `seed` and the options of `set_options`, if any.

        Raises:
            InputError: an option of `set_options` is not given for every environment.
        """
        # Any, because Gymnasium's type leaves out the list of seeds that its vector environments take.
        seeds: Any = None if self._seeds[0] is None else self._seeds
        obs, _ = self.envs.reset(seed=seeds, options=self._options_of_all())
        self._reset_seeds()
        self._reset_options()
        return self._shown(obs)

    def _options_of_all(self) -> dict[str, list[Any]] | None:
        """The options as the vector environment takes them: each with a value for every environment."""
        names = {name for options in self._options for name in options}
        for name in names:
            if any(name not in options for options in self._options):
                raise InputError(f"set_options: {name} is not given for every environment")
        return {name: [options[name] for options in self._options] for name in names} or None

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self) -> Any:
        """Observations, rewards float32[B], dones bool[B] and infos.

        An info is empty but where a session ended: then it has "terminal_observation" and "TimeLimit.truncated".
        """
        obs, rewards, terminated, truncated, infos = self.envs.step(self.actions)
        done = terminated | truncated
        described: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(done):
            described[i]["terminal_observation"] = self._shown_one(infos["final_obs"][i])
            described[i]["TimeLimit.truncated"] = bool(truncated[i] and not terminated[i])
        return self._shown(obs), rewards.astype(np.float32), done, described

    def _shown(self, obs: dict[str, np.ndarray]) -> Any:
        """Observations of many sessions as a policy sees them."""
        if not self.flat:
            return obs
        total = np.zeros((len(obs["items"]), self._num_items), np.int64)
        row, place = np.nonzero(obs["responses"])
        np.add.at(total, (row, obs["items"][row, place]), obs["responses"][row, place])
        # With repeats="allow" an item may be there several times; as in `jaxsim.FlatObservation`.
        return np.clip(total, -1, 1).astype(np.int8)

    def _shown_one(self, obs: dict[str, np.ndarray]) -> Any:
        """The observation of one session as a policy sees it."""
        return self._shown({k: x[None] for k, x in obs.items()})[0] if self.flat else obs

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
        seed: all sessions are a function of it and the actions, until a model with a seed of its own sets that.
        flat: see `SB3VecEnv`.

    Raises:
        InputError: see `jaxsim.GymnasiumVectorEnv` and `SB3VecEnv`.
    """
    return SB3VecEnv(GymnasiumVectorEnv(env, params, num_envs, seed), flat)
