"""Simulators that many tests share; small, so that they compile in seconds."""

from typing import NamedTuple

import pytest

import jaxsim
from jaxsim import Dataset, EnvParams, UserSimulator
from tests.factory import random_dataset

HISTORY, CAPACITY = 8, 12


class Simulator(NamedTuple):
    """What `jaxsim.make` returns, with the dataset that it was made of."""

    dataset: Dataset
    env: UserSimulator
    params: EnvParams


def simulator_of(dataset: Dataset, **settings) -> Simulator:
    defaults = {"history_length": HISTORY, "session_capacity": CAPACITY, "users": "all"}
    return Simulator(dataset, *jaxsim.make(dataset, **{**defaults, **settings}))


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
