"""Simulators that the tests of explanations share."""

from functools import cache

import pytest

from tests.conftest import Simulator, simulator_of
from tests.factory import random_dataset


@cache
def random_simulator_of(semantics: str) -> Simulator:
    dataset = random_dataset(5, window=12, width=4, num_blocks=1)
    settings = {"history_length": 8, "session_capacity": 4, "prefixes": "encode"}
    return simulator_of(dataset, semantics=semantics, **settings)


@pytest.fixture(scope="module", params=["paper", "released"])
def random_simulator(request) -> Simulator:
    return random_simulator_of(request.param)


@pytest.fixture(scope="module")
def paper_simulator() -> Simulator:
    return random_simulator_of("paper")
