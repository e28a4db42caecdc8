"""A small dataset, its replay and its whole result, which several tests share."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.fidelity import simulator
from benchmarks.validity.measure import validity
from benchmarks.validity.replay import Replay
from benchmarks.validity.settings import Settings
from jaxsim import Dataset
from tests.factory import make_dataset, random_dataset

SMALL = Settings(picks=2, min_interactions=5, resamples=20, halves=10, draws=2, context=8)


@pytest.fixture(scope="session", autouse=True)
def _small() -> Iterator[None]:
    """Few events in a batch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulator, "BATCH", 64)
        yield


@pytest.fixture(scope="session")
def people() -> Dataset:
    """Forty users, some of them with more than ten test interactions."""
    return random_dataset(3, num_users=40, num_items=150, max_sequence=140)


@pytest.fixture(scope="session")
def replay(people: Dataset) -> Replay:
    return Replay.of(people, SMALL)


@pytest.fixture
def three_users() -> Dataset:
    """Users 0 and 1 have two test interactions each, user 2 has one."""
    first = list(range(20))
    return make_dataset(
        [[0]] * 20,
        [[0]] * 20,
        [[1]] * 20,
        [
            (first, [1, 0] * 9 + [1, 0]),
            (first[::-1], [1, 1, 0, 0] * 4 + [0, 0, 1, 1]),
            (first[:10], [1, 0] * 5),
        ],
    )


@pytest.fixture(scope="session")
def result(people: Dataset) -> dict[str, Any]:
    """The whole measurement of `people`."""
    return validity(people, SMALL)
