"""Small datasets and results that several tests share."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.fidelity import cold_items, histories, simulator, votes
from benchmarks.fidelity.measure import fidelity
from benchmarks.fidelity.predictor import TrainingData
from benchmarks.fidelity.simulator import Simulator
from benchmarks.fidelity.study import Settings
from jaxsim import Dataset
from tests.factory import make_dataset, random_dataset


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that read a whole report are slow: each process makes it once."""
    for item in items:
        if "result" in getattr(item, "fixturenames", ()) and "fidelity" in item.nodeid:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _small() -> Iterator[None]:
    """Few events in a batch, and few lengths of histories: each length is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulator, "BATCH", 32)
        patch.setattr(histories, "CONTEXTS", (3, 50))
        patch.setattr(cold_items, "RATINGS", (0, 1, 5))
        yield


@pytest.fixture
def two_users() -> Dataset:
    """Ten interactions of user 0 (validation: position 8, test: 9); user 1 has four, all training."""
    items = [[0], [0], [1], [1], [0], [1], [0], [1], [0], [1]]
    return make_dataset(
        items,
        [[0]] * 10,
        [[1]] * 10,
        [(list(range(10)), [1, 0, 1, 1, 0, 0, 1, 1, 0, 1]), ([0, 1, 2, 3], [1, 1, 0, 0])],
    )


@pytest.fixture(scope="session")
def people() -> Dataset:
    """Forty users with up to thirty random interactions."""
    return random_dataset(1, num_users=40)


@pytest.fixture(scope="session")
def result(people: Dataset) -> dict[str, Any]:
    """The whole measurement of `people`, with few resamples and without a real training of f_sta."""
    with pytest.MonkeyPatch.context() as patch:
        entry = people.manifest["sasrec"]
        patch.setattr(votes, "train_sasrec", lambda arrays, config: (people.sasrec, entry))
        return fidelity(people, Settings(resamples=30, repeats=2))


def training_data(dataset: Dataset, **settings: Any) -> TrainingData:
    """What predictors are fitted on; its simulator is that of the dataset."""
    return TrainingData(dataset, Simulator.of(dataset), **settings)
