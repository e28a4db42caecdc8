"""The simulators under gymnax's names: `env, params = gymnax.make("UserSimulator-ml-100k-v0")`.

The suffix is the version of the behaviour. It changes when equal keys and actions no longer give equal sessions.
"""

import functools
from dataclasses import replace
from typing import Any

import gymnax

from jaxsim.dataset import Dataset, load_dataset
from jaxsim.environment import ENVIRONMENT_ID, UserSimulator
from jaxsim.factory import make
from jaxsim.types import HeldParams

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


def register_environments() -> None:
    """Register the simulators with gymnax: one for each named dataset, and `ENVIRONMENT_ID` for any `dataset=`."""
    factories = {environment_id(name): name for name in NAMED_DATASETS}
    for env_id, name in {ENVIRONMENT_ID: "ml-100k", **factories}.items():
        if env_id not in gymnax.registered_envs:
            gymnax.register(env_id, functools.partial(_simulator, dataset=name))


def _simulator(dataset: str | Dataset, **settings: Any) -> UserSimulator:
    """The function that `gymnax.make` calls: the environment, with its params as the defaults."""
    packed = dataset if isinstance(dataset, Dataset) else load_dataset(dataset)
    env, params = make(packed, **settings)
    return replace(env, defaults=HeldParams(params))
