"""A dataset that can be learned, and the simulator on it."""

import pytest

from jaxsim import Dataset
from tests.conftest import Simulator, simulator_of
from tests.factory import make_dataset


def learnable_dataset(num_users: int = 12) -> Dataset:
    """Forty items; everyone likes the even ones (they share a pro) and dislikes the odd ones (a con)."""
    num_items = 40
    good = [item % 2 == 0 for item in range(num_items)]
    sequences = []
    for user in range(num_users):
        items = [(2 * user + step) % num_items for step in range(8)]
        sequences.append((items, [int(good[item]) for item in items]))
    return make_dataset(
        [[0]] * num_items,
        [[0] if g else [] for g in good],
        [[] if g else [1] for g in good],
        sequences,
        window=14,
        num_blocks=1,
    )


@pytest.fixture(scope="session")
def learnable() -> Simulator:
    return simulator_of(learnable_dataset(), history_length=4, session_capacity=10, users="train")
