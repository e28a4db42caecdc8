"""The forms in which our environment can be stepped with random items: in JAX, and through Gymnasium."""

import functools
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

from benchmarks.rivals.foreign import Prepared
from benchmarks.rivals.kuaisim import KuaiSim, KuaiSimParams, KuaiSimUser
from benchmarks.throughput.rollout import Runner
from jaxsim import Dataset, GymnasiumEnv, GymnasiumVectorEnv, load_dataset, make

STEPS = 20  # in one call
STEP = "an item, the three votes, an observation"
KUAISIM_STEP = "an item, a transformer over the latest 50, an observation"


def in_jax(dataset: Dataset, path: str, sessions: int) -> Prepared:
    """The environment in one compiled program, as `python -m benchmarks throughput` times it."""
    return _jitted(dataset, sessions, "in JAX, one program", STEP, {})


def kuaisim_user(dataset: Dataset, path: str, sessions: int) -> Prepared:
    """Our JAX model of KuaiSim's user with fresh weights: training does not change how fast it is."""
    categories = dataset.arrays["item_categories"]
    network = KuaiSim(
        dataset.num_items, int(dataset.arrays["user_offsets"].size - 1), int(categories.max()) + 1
    )
    history = np.zeros(network.window, np.int32)
    variables = network.init(
        jax.random.key(0), categories, history, history, 0, 0, history[:1], method="slate_logits"
    )
    vectors = network.apply(variables, categories, method="item_vectors")
    settings = {
        "user_model": KuaiSimUser(network),
        "user_params": KuaiSimParams(variables, jax.block_until_ready(vectors)),
    }
    return _jitted(dataset, sessions, "KuaiSim's user model in JAX", KUAISIM_STEP, settings)


def _jitted(
    dataset: Dataset, sessions: int, setting: str, step: str, settings: dict[str, Any]
) -> Prepared:
    env, params = make(dataset, **settings)
    runner = Runner(env, params, sessions, STEPS)

    def steps() -> int:
        runner.seconds(calls=1)
        return sessions * STEPS

    return _about(dataset, setting, step, sessions), steps


def vector_env(dataset: Dataset, path: str, sessions: int) -> Prepared:
    """`jaxsim.GymnasiumVectorEnv`: one compiled program, called from the host at each step."""
    env = GymnasiumVectorEnv(*make(dataset), num_envs=sessions, seed=0)
    return _stepped(dataset, env, "GymnasiumVectorEnv")


def sync_vector_env(dataset: Dataset, path: str, sessions: int) -> Prepared:
    """Gymnasium's `SyncVectorEnv` over `jaxsim.GymnasiumEnv`: one session after the other."""
    env, params = make(dataset)
    made: list[Callable[[], gymnasium.Env[Any, Any]]] = [
        functools.partial(GymnasiumEnv, env, params, seed) for seed in range(sessions)
    ]
    return _stepped(dataset, SyncVectorEnv(made), "SyncVectorEnv of GymnasiumEnv")


def async_vector_env(dataset: Dataset, path: str, sessions: int) -> Prepared:
    """Gymnasium's `AsyncVectorEnv` over `jaxsim.GymnasiumEnv`: a process for each session.

    The processes are started afresh, because a process that has used JAX must not be forked.
    """
    # Each process has the device for itself otherwise; this one holds most of its memory already.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    made = [functools.partial(_one_session, path, seed) for seed in range(sessions)]
    env = AsyncVectorEnv(made, context="spawn")
    return _stepped(dataset, env, "AsyncVectorEnv of GymnasiumEnv")


def _one_session(path: str, seed: int) -> gymnasium.Env[Any, Any]:
    return GymnasiumEnv(*make(load_dataset(path)), seed=seed)


def _stepped(dataset: Dataset, env: VectorEnv[Any, Any, Any], setting: str) -> Prepared:
    """Steps with items drawn on the host; one in thirty is in the window already, earns 0 and is not appended."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)

    def steps() -> int:
        for _ in range(STEPS):
            env.step(rng.integers(dataset.num_items, size=env.num_envs))
        return env.num_envs * STEPS

    return _about(dataset, setting, STEP, env.num_envs), steps


def _about(dataset: Dataset, setting: str, step: str, sessions: int) -> dict[str, Any]:
    return {
        "version": version("gymnasium") if "VectorEnv of" in setting else None,
        "setting": setting,
        "policy": "random items",
        "step": step,
        "sessions": sessions,
        "items": dataset.num_items,
        "users": int(dataset.arrays["user_offsets"].size - 1),
    }


FORMS: dict[str, tuple[Callable[[Dataset, str, int], Prepared], int | None]] = {
    "jaxsim": (in_jax, None),
    "gymnasium-vector": (vector_env, None),
    "gymnasium-sync": (sync_vector_env, 8),
    "gymnasium-async": (async_vector_env, 2),
    "kuaisim-user": (kuaisim_user, None),
}
"""What prepares each form, and its number of sessions; None takes that of `--sessions`."""
