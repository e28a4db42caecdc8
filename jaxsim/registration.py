"""The simulators under the names of gymnax and of Gymnasium.

    env, params = gymnax.make("UserSimulator-ml-100k-v0")
    session = gymnasium.make("jaxsim/ml-100k-v0")
    sessions = gymnasium.make_vec("jaxsim/ml-100k-v0", num_envs=64)

The suffix is the version of the behaviour. It changes when equal keys and actions no longer give equal sessions.
"""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import gymnax
import numpy as np

from jaxsim.dataset import Dataset, find_dataset, load_dataset
from jaxsim.environment import ENVIRONMENT_ID, UserSimulator
from jaxsim.errors import InputError
from jaxsim.factory import make
from jaxsim.gymnasium_adapter import AnySimulator, GymnasiumEnv, GymnasiumVectorEnv
from jaxsim.types import EnvParams, HeldParams

NAMED_DATASETS = (
    "ml-100k",
    "yelp",
    "amazon-music",
    "amazon-games",
    "amazon-movies",
    "anime",
    "synthetic",
)


def environment_id(dataset: str) -> str:
    """The id of a named dataset's simulator, such as "UserSimulator-ml-100k-v0"."""
    return ENVIRONMENT_ID.replace("-", f"-{dataset}-", 1)


def gymnasium_id(dataset: str) -> str:
    """Gymnasium's id of a named dataset's simulator, such as "jaxsim/ml-100k-v0"."""
    return f"jaxsim/{dataset}-{ENVIRONMENT_ID.rpartition('-')[2]}"


def register_environments() -> None:
    """Register the simulators with gymnax and Gymnasium.

    There is one for each named dataset, and one for any: `ENVIRONMENT_ID` of gymnax, "jaxsim/UserSimulator-v0" of
    Gymnasium. `dataset=` chooses it, by default "ml-100k".
    """
    factories = {environment_id(name): name for name in NAMED_DATASETS}
    for env_id, name in {ENVIRONMENT_ID: "ml-100k", **factories}.items():
        if env_id not in gymnax.registered_envs:
            gymnax.register(env_id, functools.partial(_simulator, dataset=name))
    names = {gymnasium_id(name): name for name in NAMED_DATASETS}
    for env_id, name in {f"jaxsim/{ENVIRONMENT_ID}": "ml-100k", **names}.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                # As text, so that a specification can be pickled and printed.
                entry_point=f"{__name__}:make_session",
                vector_entry_point=f"{__name__}:make_sessions",
                kwargs={"dataset": name},
            )


def make_session(
    dataset: str | Dataset,
    seed: int | None = None,
    render_mode: str | None = None,
    **settings: Any,
) -> GymnasiumEnv:
    """What `gymnasium.make` calls.

    Args:
        dataset: name or path of a packed dataset, or the dataset.
        seed: of the sessions until `reset` gets one; None for a new one in each call, as in Gymnasium's own
            environments.
        render_mode: of `GymnasiumEnv`.
        settings: of `jaxsim.make`.

    Raises:
        InputError: see `jaxsim.load_dataset`, `jaxsim.make` and `GymnasiumEnv`.
    """
    packed, env, params = _made(dataset, settings)
    shown = None if render_mode is None else packed
    return GymnasiumEnv(env, params, _seed(seed), render_mode, shown)


def make_sessions(
    num_envs: int, dataset: str | Dataset, seed: int | None = None, **settings: Any
) -> GymnasiumVectorEnv:
    """What `gymnasium.make_vec` calls; see `make_session`."""
    if settings.pop("render_mode", None) is not None:
        raise InputError("many sessions cannot be rendered: leave out render_mode")
    _, env, params = _made(dataset, settings)
    return GymnasiumVectorEnv(env, params, num_envs, _seed(seed))


def _seed(seed: int | None) -> int:
    return int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed


def _made(
    dataset: str | Dataset, settings: dict[str, Any]
) -> tuple[Dataset, AnySimulator, EnvParams]:
    """A dataset with its environment and parameters.

    Libraries make many environments of one name, such as Stable-Baselines3's `make_vec_env`: they share theirs.
    """
    if isinstance(dataset, Dataset):
        return dataset, *make(dataset, **settings)
    folder = find_dataset(dataset)
    chosen = tuple(sorted(settings.items(), key=lambda setting: setting[0]))
    made = _made_of_name if _is_hashable(chosen) else _made_of_name.__wrapped__
    return made(folder, (folder / "manifest.json").stat().st_mtime_ns, chosen)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


@functools.lru_cache(maxsize=2)
def _made_of_name(
    folder: Path, built: int, settings: tuple[tuple[str, Any], ...]
) -> tuple[Dataset, AnySimulator, EnvParams]:
    """`built` is the time at which the dataset was: after a new build it is another one."""
    packed = load_dataset(folder)
    return packed, *make(packed, **dict(settings))


def _simulator(dataset: str | Dataset, **settings: Any) -> UserSimulator:
    """The function that `gymnax.make` calls: the environment, with its params as the defaults."""
    packed = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
    env, params = make(packed, **settings)
    return replace(env, defaults=HeldParams(params))
