"""One simulator for all tests of evaluation: what takes time here is the compilation of its sessions."""

import pytest

from tests.agents.conftest import learnable_dataset
from tests.conftest import Simulator, simulator_of

SETTINGS = {"history_length": 4, "session_capacity": 10, "users": "train"}


@pytest.fixture(scope="session")
def even() -> Simulator:
    """Everyone likes the even items and dislikes the odd ones; users 9 and 19 are held out."""
    return simulator_of(learnable_dataset(20), **SETTINGS)


@pytest.fixture(scope="session")
def even_with_repeats(even: Simulator) -> Simulator:
    """The same, where an item may be recommended again."""
    return simulator_of(even.dataset, repeats="allow", **SETTINGS)
