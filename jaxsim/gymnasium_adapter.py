"""The simulator behind Gymnasium's interface, for libraries that step an environment on the host.

    env, params = jaxsim.make(dataset)
    session = jaxsim.GymnasiumEnv(env, params, seed=0)       # one session
    sessions = jaxsim.GymnasiumVectorEnv(env, params, num_envs=1024, seed=0)   # many, in one compiled program

The sessions are those of `jaxsim.UserSimulator`. Each call goes to the device and back, so a library that runs in
JAX should step the `UserSimulator` itself.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from jaxsim.checks import integers
from jaxsim.dataset import Dataset
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.gymnasium_options import (
    check_options,
    check_rendering,
    chosen_sessions,
    chosen_user,
    key_of,
)
from jaxsim.session_words import Step, describe_reasons, describe_step
from jaxsim.slate_types import SlateObservation, SlateState
from jaxsim.slates import SlateSimulator
from jaxsim.types import EnvParams, EnvState, Observation

# What the infos of many sessions say about a step; the semantics decides between votes and probability.
_DESCRIBED = ("response", "votes", "probability", "departure_probability", "invalid_action")
_DESCRIBED_OF_VISITS = ("session", "day", "left", "returned", "gap_days", "return_probability")
_DESCRIBED_OF_SLATES = ("slate", "scores", "probabilities", "place")

AnySimulator = UserSimulator | SlateSimulator
Arrays = dict[str, np.ndarray]


class GymnasiumEnv(gymnasium.Env[Arrays, Any]):
    """One session at a time, `gymnasium.Env`.

    Action: an item, `Discrete(N)`. An item that is masked or outside the catalogue earns 0 and sets
    `info["invalid_action"]`. Observation: a dict of NumPy arrays, W = history_length + session_capacity:

        user         int32[1]
        items        int32[W], initial history, then the session; -1 pads
        responses    int8[W], 1 like, -1 dislike, 0 padding
        length       int32[1], number of positions in use

    Reward: 1.0 for a like, 0.0 for a dislike, or what `jaxsim.make(reward=)` says. Terminated: the user left.
    Truncated: the session reached its longest length. `info` of `reset` and of `step` holds `action_mask`,
    bool[N], the items that may be recommended next. `info` of `step` also holds `response`, a dict, `votes`,
    int8[3], and `invalid_action`, bool[]. `response` has "like", int8[], and "rating" and "duration", float32[],
    where there are any.

    With slates of K items an action is a slate, `MultiDiscrete([N] * K)`. Observations also have `shown`,
    int32[S, K], the slates of the session, -1 pads; `info` has `slate`, `scores`, `probabilities` and `place` in
    place of `votes`, as `jaxsim.SlateSimulator` says. A slate with an item twice is invalid, too.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 (Gymnasium's own declaration)

    def __init__(
        self,
        env: AnySimulator,
        params: EnvParams,
        seed: int,
        render_mode: str | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        """Prepare, without starting a session.

        Args:
            env, params: of `jaxsim.make`.
            seed: seed of the sessions until `reset` gets another one, from 0 to 2^32 - 1.
            render_mode: "ansi" makes `render` return the last step as lines of text.
            dataset: of the environment; then these lines have the titles of items, otherwise their indices.

        Raises:
            InputError: an unusable seed, another mode, or another dataset.
        """
        check_rendering(render_mode, dataset, env.num_items)
        self.render_mode, self._dataset, self._env = render_mode, dataset, env
        self._user, self._time = -1, 0
        self._window: Arrays = {}  # what the user has had before the next step, for `render`
        self._last: Step | None = None
        self.observation_space = observation_space(env)
        self.action_space = action_space(env)
        self._num_users = env.num_users
        self._params = params
        self._programs = _session_programs(replace(env, defaults=None))
        self._key = key_of(seed)
        self._state: EnvState | SlateState | None = None
        self._mask = np.ones(env.num_items, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Start a session.

        Args:
            seed: makes this session and those after it a function of the seed and the actions; without it the
                stream of randomness continues.
            options: {"user": int} chooses the user; otherwise they are drawn from `params.session_users`.

        Raises:
            InputError: an unusable seed, an unknown option, or a user that does not exist.
        """
        key = self._key if seed is None else key_of(seed)
        check_options(options, ("user",))
        user = chosen_user(options, self._num_users)
        super().reset(seed=seed)
        if user is None:
            started = self._programs.reset(key, self._params)
        else:
            started = self._programs.reset_user(key, np.int32(user), self._params)
        self._key, self._state, obs, mask = started
        self._mask = np.array(mask)
        arrays = _arrays(jax.device_get(obs))
        self._user, self._time, self._last = int(arrays["user"][0]), 0, None
        self._window = self._copied(arrays)
        return arrays, {"action_mask": self._mask.copy()}

    def step(self, action: Any) -> tuple[Arrays, float, bool, bool, dict[str, Any]]:
        """Recommend an item, int[], or a slate, int[K]; after the end of a session, call `reset` first.

        Raises:
            InputError: no session is running, or the action is not an integer, or not K of them.
        """
        if self._state is None:
            raise InputError("no session is running: call reset() first")
        rank = len(self.action_space.shape or ())
        item = _int32(integers("action", action, rank), len(self._mask))
        self._key, self._state, out = self._programs.step(
            self._key, self._state, item, self._params
        )
        obs, mask, reward, terminated, truncated, info = jax.device_get(out)
        self._mask = np.array(mask)
        if terminated or truncated:
            self._state = None
        described = {**_described(info), "action_mask": self._mask.copy()}
        self._time += 1
        ends = bool(terminated), bool(truncated)
        before = self._window
        self._last = Step(self._user, self._time, item, float(reward), *ends, described, before)
        arrays = _arrays(obs)
        self._window = self._copied(arrays)
        return arrays, float(reward), *ends, described

    def _copied(self, arrays: Arrays) -> Arrays:
        """A copy of an observation, which the caller may change; nothing if it is never rendered."""
        return {} if self.render_mode is None else {name: x.copy() for name, x in arrays.items()}

    def render(self) -> str:
        """The last step as lines of text: what was recommended, the response and its reasons, who left.

        With `dataset` the votes come with the keywords that the item shares with the user's history, and with the
        items that are most similar to it.

        Raises:
            InputError: the environment was made without `render_mode="ansi"`, or no session was started.
        """
        if self.render_mode is None:
            raise InputError('render() needs GymnasiumEnv(..., render_mode="ansi")')
        if self._user < 0:
            raise InputError("no session was started: call reset() first")
        if self._last is None:
            return f"user {self._user} has begun a session"
        return "\n".join([describe_step(self._last, self._dataset), *self._reasons(self._last)])

    def _reasons(self, step: Step) -> list[str]:
        """Why the user voted as they did in a step; nothing without votes, or without the words of a dataset."""
        if self._dataset is None or "votes" not in step.info or step.info["invalid_action"]:
            return []
        assert isinstance(self._env, UserSimulator)  # slates have no votes
        items, responses, item = map(
            jnp.asarray, (step.window["items"], step.window["responses"], step.action)
        )
        key, user = jax.random.key(0), step.user
        decision = self._env.respond(key, items, responses, item, self._params, user, reasons=True)
        return describe_reasons(jax.device_get(decision), step.window["items"], self._dataset)

    def action_masks(self) -> np.ndarray:
        """Which items may be recommended now, bool[N]; sb3-contrib calls this method."""
        return self._mask.copy()


class GymnasiumVectorEnv(VectorEnv[Arrays, np.ndarray, np.ndarray]):
    """Many sessions stepped by one compiled program, `gymnasium.vector.VectorEnv`.

    Spaces and values are those of `GymnasiumEnv` with a leading dimension of `num_envs`. A session that ends is
    replaced in the same step (`AutoresetMode.SAME_STEP`). `infos["final_obs"][i]` is then its last observation,
    and `infos["final_info"]` holds the info of its last step; `_final_obs` and `_final_info`, bool[num_envs], say
    which sessions ended. The other entries of `infos` describe the step of every session, whether it ended or not.
    `infos` holds no masks: call `action_masks`.
    """

    metadata = {  # noqa: RUF012 (Gymnasium's own declaration)
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, env: AnySimulator, params: EnvParams, num_envs: int, seed: int) -> None:
        """Prepare, without starting sessions.

        Args:
            env, params: of `jaxsim.make`.
            num_envs: number of sessions at once.
            seed: seed of the sessions until `reset` gets another one, from 0 to 2^32 - 1.

        Raises:
            InputError: no sessions, or an unusable seed.
        """
        if num_envs < 1:
            raise InputError(f"num_envs is {num_envs}, but must be at least 1")
        self.num_envs = num_envs
        self.single_observation_space = observation_space(env)
        self.single_action_space = action_space(env)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._num_items, self._num_users = env.num_items, env.num_users
        self._params = params
        self._programs = _vector_programs(replace(env, defaults=None), num_envs)
        self._key = key_of(seed)  # one for all sessions, or after reset(seed=[...]) one for each
        self._state: EnvState | SlateState | None = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Arrays, dict[str, Any]]:
        """Restart sessions, all of them or those of a mask.

        Args:
            seed: an int makes all sessions from here on a function of the seed and the actions. A list of num_envs
                ints makes session i a function of seed i and its own actions; None in the list continues a stream.
            options: {"user": int[] or int[num_envs]} chooses the users, as in `GymnasiumEnv.reset`;
                {"reset_mask": bool[num_envs]} says which sessions restart; the others continue.

        Returns:
            The observations of all sessions, and {}.

        Raises:
            InputError: an unusable seed, mask or user, an unknown option, or a mask before the first reset.
        """
        check_options(options, ("user", "reset_mask"))
        mask = chosen_sessions(options, self.num_envs)
        running = None if mask.all() else (self._key, self._running())
        key = self._seeded(seed, mask)
        user = chosen_user(options, self._num_users, self.num_envs)
        super().reset(seed=int(seed) if isinstance(seed, int | np.integer) else None)
        if user is None:
            key, state, obs = self._programs.reset(key, self._params)
        else:
            key, state, obs = self._programs.reset_user(key, user, self._params)
        if running is not None:
            key, state, obs = self._programs.merge(mask, (key, state), running)
        self._key, self._state = key, state
        return _arrays(jax.device_get(obs)), {}

    def step(
        self, actions: Any
    ) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Recommend an item in each session, int[num_envs], or a slate, int[num_envs, K].

        Returns:
            Observations, rewards float64[num_envs], terminations and truncations bool[num_envs], infos.

        Raises:
            InputError: no sessions are running, or not one integer for each session.
        """
        state = self._running()
        numbers = integers("actions", actions, 1 + len(self.single_action_space.shape or ()))
        if len(numbers) != self.num_envs:
            raise InputError(
                f"actions has {len(numbers)} items: pass {self.num_envs}, one for each session"
            )
        self._key, self._state, out, final = self._programs.step(
            self._key, state, _int32(numbers, self._num_items), self._params
        )
        obs, reward, terminated, truncated, info = jax.device_get(out)
        described, done = _described(info), terminated | truncated
        infos = _with_masks(described, np.ones(self.num_envs, bool))
        if done.any():
            infos["final_obs"], infos["_final_obs"] = _rows_where(done, final), done
            infos["final_info"], infos["_final_info"] = _with_masks(described, done), done.copy()
        rewards = np.asarray(reward, np.float64)
        return _arrays(obs), rewards, np.array(terminated), np.array(truncated), infos

    def action_masks(self) -> np.ndarray:
        """Which items may be recommended now, bool[num_envs, N].

        Raises:
            InputError: no sessions are running.
        """
        return np.array(self._programs.mask(self._running(), self._params))

    def _running(self) -> EnvState | SlateState:
        if self._state is None:
            raise InputError("no sessions are running: call reset() first")
        return self._state

    def _seeded(self, seed: Any, mask: np.ndarray) -> jax.Array:
        """The key of all sessions, [], or one key for each session, [num_envs], if they have their own seeds."""
        if seed is None:
            return self._key
        if np.ndim(seed) == 0:
            return key_of(seed)
        if len(seed) != self.num_envs:
            raise InputError(
                f"seed has {len(seed)} numbers: pass {self.num_envs}, one for each session"
            )
        keys = self._key if self._key.ndim else jax.random.split(self._key, self.num_envs)
        return jnp.stack(
            [
                keys[i] if number is None or not mask[i] else key_of(number, f"seed[{i}]")
                for i, number in enumerate(seed)
            ]
        )


def action_space(env: AnySimulator) -> spaces.Discrete | spaces.MultiDiscrete:
    """An item, or with slates an item for each place."""
    if isinstance(env, SlateSimulator):
        return spaces.MultiDiscrete(np.full(env.slate_size, env.num_items))
    return spaces.Discrete(env.num_items)


def observation_space(env: AnySimulator) -> spaces.Dict:
    """The space of one observation of `GymnasiumEnv`; scalars are arrays of one, which Stable-Baselines3 needs."""

    def box(low: int, high: int, *size: int, dtype: type = np.int32) -> spaces.Box:
        return spaces.Box(low, high, size, dtype)

    boxes: dict[str, spaces.Space[Any]] = {
        "user": box(0, env.num_users - 1, 1),
        "items": box(-1, env.num_items - 1, env.window),
        "responses": box(-1, 1, env.window, dtype=np.int8),
        "length": box(0, env.window, 1),
    }
    if isinstance(env, SlateSimulator):
        boxes["shown"] = box(-1, env.num_items - 1, env.session_capacity, env.slate_size)
    return spaces.Dict(boxes)


class _Programs(NamedTuple):
    """Compiled programs that reset and step one session."""

    reset: Callable[..., Any]
    reset_user: Callable[..., Any]
    step: Callable[..., Any]


class _VectorPrograms(NamedTuple):
    """Compiled programs for many sessions; `merge` joins the restarted ones of a mask with the others."""

    reset: Callable[..., Any]
    reset_user: Callable[..., Any]
    step: Callable[..., Any]
    merge: Callable[..., Any]
    mask: Callable[..., Any]


# Cached, so that all adapters of equal environments share one compilation.
@functools.lru_cache(maxsize=8)
def _session_programs(env: Any) -> _Programs:
    def started(key: jax.Array, obs: Observation, state: EnvState, params: EnvParams) -> Any:
        return key, state, _fields(obs), env.action_mask(obs, params)

    def reset(key: jax.Array, params: EnvParams) -> Any:
        key, key_reset = jax.random.split(key)
        obs, state = env.reset_env(key_reset, params)
        return started(key, obs, state, params)

    def reset_user(key: jax.Array, user: jax.Array, params: EnvParams) -> Any:
        key, key_reset = jax.random.split(key) if env.draws_taste else (key, None)
        obs, state = env.reset_user(user, params, key_reset)
        return started(key, obs, state, params)

    def step(key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams) -> Any:
        key, key_step = jax.random.split(key)
        obs, state, reward, terminated, info = env.step_env(key_step, state, action, params)
        mask = env.action_mask(obs, params)
        truncated = env.is_truncated(state, params)
        return key, state, (_fields(obs), mask, reward, terminated, truncated, info)

    return _Programs(jax.jit(reset), jax.jit(reset_user), _jit_step(step))


@functools.lru_cache(maxsize=8)
def _vector_programs(env: Any, num_envs: int) -> _VectorPrograms:
    def next_keys(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The next state of the stream(s), [] or [num_envs], and a key for each session."""
        if key.ndim == 0:
            key, key_all = jax.random.split(key)
            return key, jax.random.split(key_all, num_envs)
        key, keys = jax.vmap(jax.random.split, out_axes=1)(key)
        return key, keys

    def reset(key: jax.Array, params: EnvParams) -> Any:
        key, keys = next_keys(key)
        obs, state = jax.vmap(env.reset_env, (0, None))(keys, params)
        return key, state, _fields(obs)

    def reset_user(key: jax.Array, users: jax.Array, params: EnvParams) -> Any:
        key, keys = next_keys(key) if env.draws_taste else (key, None)
        obs, state = jax.vmap(env.reset_user, (0, None, 0))(users, params, keys)
        return key, state, _fields(obs)

    def step(key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams) -> Any:
        key, keys = next_keys(key)
        obs, state, reward, terminated, truncated, info = jax.vmap(env.step, (0, 0, 0, None))(
            keys, state, action, params
        )
        names = *_DESCRIBED, *_DESCRIBED_OF_VISITS, *_DESCRIBED_OF_SLATES
        described = {name: info[name] for name in names if name in info}
        out = _fields(obs), reward, terminated, truncated, described
        return key, state, out, _fields(info["final_observation"])

    def merge(mask: jax.Array, fresh: Any, running: Any) -> Any:
        choose = jax.vmap(jnp.where)
        (key, fresh_state), (old_key, old_state) = fresh, running
        if key.ndim and old_key.ndim:  # sessions that go on keep their own streams
            key = choose(mask, key, old_key)
        state = jax.tree.map(lambda x, y: choose(mask, x, y), fresh_state, old_state)
        return key, state, _fields(jax.vmap(env.get_obs)(state))

    def mask(state: EnvState, params: EnvParams) -> jax.Array:
        return jax.vmap(lambda session: env.action_mask(env.get_obs(session), params))(state)

    return _VectorPrograms(
        jax.jit(reset), jax.jit(reset_user), _jit_step(step), jax.jit(merge), jax.jit(mask)
    )


def _jit_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """A jitted step; the state is donated, so that f_sta's cache is written in place."""
    return jax.jit(step, donate_argnums=1)


def _fields(obs: Observation) -> dict[str, jax.Array]:
    """An observation as the dict of `observation_space`."""
    shown = {"shown": obs.shown} if isinstance(obs, SlateObservation) else {}
    return {
        **shown,
        "user": obs.user[..., None],
        "items": obs.items,
        "responses": obs.responses,
        "length": obs.length[..., None],
    }


def _arrays(obs: Arrays) -> Arrays:
    """Copies that the caller may change: arrays from the device are read-only."""
    return {name: np.array(value) for name, value in obs.items()}


def _described(info: dict[str, Any]) -> dict[str, Any]:
    """The info of a step as NumPy values in plain dicts."""
    response = {name: x for name, x in asdict(info["response"]).items() if x is not None}
    return {**info, "response": response}


def _with_masks(infos: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Infos in Gymnasium's form: zero outside the mask bool[num_envs]; `_entry` beside each entry is the mask."""
    masked: dict[str, Any] = {}
    for name, value in infos.items():
        if isinstance(value, dict):
            masked[name] = _with_masks(value, mask)
        else:
            masked[name] = np.zeros_like(value)
            masked[name][mask] = value[mask]
        masked[f"_{name}"] = mask.copy()
    return masked


def _rows_where(done: np.ndarray, final: dict[str, jax.Array]) -> np.ndarray:
    """The observations of the sessions that ended, object[num_envs]; None elsewhere."""
    fetched = jax.device_get(final)
    rows = np.full(len(done), None, dtype=object)
    for i in np.flatnonzero(done):
        rows[i] = {name: np.array(value[i]) for name, value in fetched.items()}
    return rows


def _int32(items: Any, num_items: int) -> np.ndarray:
    """Items as int32; numbers outside the catalogue stay outside, so that they never wrap around to an item."""
    return np.clip(np.asarray(items), -1, num_items).astype(np.int32)
