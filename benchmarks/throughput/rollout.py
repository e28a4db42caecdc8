"""The program whose speed is measured: many sessions, stepped with random allowed actions."""

import functools
import time
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks.hardware import Timing
from benchmarks.throughput.random_actions import draw_allowed, draw_allowed_slate
from jaxsim import EnvParams, SlateSimulator, UserSimulator, over_sessions
from jaxsim.compilation_cache import compiled_anew

AnySimulator = UserSimulator | SlateSimulator


@functools.partial(jax.jit, static_argnames=("env", "num_sessions", "mesh"))
def start(
    env: AnySimulator,
    key: jax.Array,
    params: EnvParams,
    num_sessions: int,
    mesh: Mesh | None = None,
) -> Any:
    """Fresh sessions, leaves [num_sessions, ...], split over the devices of a mesh if there is one."""
    keys = jax.random.split(key, num_sessions)
    begin = jax.vmap(env.reset, (0, None))
    return (begin if mesh is None else over_sessions(begin, mesh))(keys, params)[1]


@functools.partial(
    jax.jit, static_argnames=("env", "num_steps", "resets", "mesh"), donate_argnames=("states",)
)
def rollout(
    env: AnySimulator,
    states: Any,
    key: jax.Array,
    params: EnvParams,
    num_steps: int,
    resets: bool = True,
    mesh: Mesh | None = None,
) -> tuple[Any, jax.Array]:
    """Step B sessions, each with a random allowed action drawn from its observation.

    Args:
        env, params: from `jaxsim.make`.
        states: of B sessions; their memory is reused for the result.
        key: PRNG key.
        num_steps: T.
        resets: use `env.step`, which resets automatically; otherwise `env.step_env`, the same without resets (the
            sessions must then stay within their capacity).
        mesh: of `jaxsim.make_mesh`; each of its devices steps a share of the sessions. Params lie on all of them.

    Returns:
        The states after, and the share of likes, float32[].
    """
    if mesh is None:
        return _rollout(env, states, key, params, num_steps, resets)

    def on_device(states: Any, key: jax.Array, params: EnvParams) -> tuple[Any, jax.Array]:
        # From the same key every device would draw the same numbers.
        own_key = jax.random.fold_in(key, jax.lax.axis_index(mesh.axis_names[0]))
        states, likes = _rollout(env, states, own_key, params, num_steps, resets)
        return states, likes[None]

    states, likes = over_sessions(on_device, mesh, (0, None, None))(states, key, params)
    return states, likes.mean()


def _rollout(
    env: AnySimulator,
    states: Any,
    key: jax.Array,
    params: EnvParams,
    num_steps: int,
    resets: bool,
) -> tuple[Any, jax.Array]:
    """`rollout` on one device."""
    num_sessions = states.time.shape[0]

    def act(key: jax.Array, state: Any) -> jax.Array:
        if isinstance(env, SlateSimulator):
            obs = env.get_obs(state)
            seen = jnp.concatenate([obs.items, obs.shown.ravel()])
            return draw_allowed_slate(key, seen, env.num_items, env.slate_size)
        if env.repeats == "allow":
            return jax.random.randint(key, (), 0, env.num_items, jnp.int32)
        return draw_allowed(key, env.get_obs(state).items, env.num_items)

    def one_step(states: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        key_act, key_step = jax.random.split(key)
        actions = jax.vmap(act)(jax.random.split(key_act, num_sessions), states)
        step = env.step if resets else env.step_env
        _, states, reward, *_ = jax.vmap(step, (0, 0, 0, None))(
            jax.random.split(key_step, num_sessions), states, actions, params
        )
        return states, reward.mean()

    states, likes = jax.lax.scan(one_step, states, jax.random.split(key, num_steps))
    return states, likes.mean()


class Runner:
    """Sessions that one compiled program steps again and again.

    Attributes:
        program: the compiled `rollout`; compile_seconds: wall time of tracing and compiling it.
        states: the current states of the sessions.
        likes: share of likes in the latest call, float32[].
    """

    def __init__(
        self,
        env: AnySimulator,
        params: EnvParams,
        num_sessions: int,
        num_steps: int,
        resets: bool = True,
        mesh: Mesh | None = None,
    ) -> None:
        self._env, self._params, self._num_sessions, self._mesh = env, params, num_sessions, mesh
        self._calls = 0
        self.restart()
        with compiled_anew():
            begin = time.perf_counter()
            lowered = rollout.lower(
                env, self.states, jax.random.key(0), params, num_steps, resets, mesh
            )
            self.program = lowered.compile()
            self.compile_seconds = time.perf_counter() - begin
        self.likes = jnp.float32(0)

    def restart(self) -> None:
        """Start all sessions again."""
        key = jax.random.key(self._calls)
        states = start(self._env, key, self._params, self._num_sessions, self._mesh)
        self.states = jax.block_until_ready(states)

    def seconds(self, calls: int) -> float:
        """Wall time of `calls` calls of the program, until the last result is ready."""
        begin = time.perf_counter()
        for _ in range(calls):
            self._calls += 1
            key = jax.random.key(self._calls)
            self.states, self.likes = self.program(self.states, key, self._params)
        jax.block_until_ready(self.likes)
        return time.perf_counter() - begin


class Timed(Protocol):
    """A compiled program that can be called and timed."""

    compile_seconds: float

    def seconds(self, calls: int) -> float:
        """Wall time of `calls` calls of the program."""


def compare_in_turn(
    runners: Mapping[str, Timed], calls: dict[str, int], steps: int, base: str, repeats: int
) -> dict[str, dict[str, float]]:
    """Run several programs one after the other, again and again.

    Args:
        runners: by name.
        calls: of each program in a timed run.
        steps: of all sessions in one call.
        base: the name of the runner that the others are compared with.
        repeats: timed runs of each.

    Returns:
        For each name `steps_per_second` (median), `compile_seconds`, and `ratio`: the median ratio to the speed of
        the base in neighbouring runs, with its `low_quartile` and `high_quartile`.
    """
    speeds: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, runner in runners.items():
            speeds[name].append(calls[name] * steps / runner.seconds(calls[name]))
    results = {}
    for name, runner in runners.items():
        ratio = Timing.of([a / b for a, b in zip(speeds[name], speeds[base], strict=True)])
        results[name] = {
            "steps_per_second": Timing.of(speeds[name]).median,
            "ratio": ratio.median,
            "low_quartile": ratio.low,
            "high_quartile": ratio.high,
            "compile_seconds": runner.compile_seconds,
        }
    return results
