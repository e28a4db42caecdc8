"""Slates for tests: users whose likes do not depend on what came before, so that programs compile in no time."""

from dataclasses import dataclass

import numpy as np

from jaxsim import Dataset, UserModel
from tests.conftest import Simulator, simulator_of

K, STEPS = 3, 6
# The probability of a like of each of the 40 items of `random_dataset`, float32[N].
RATES = np.random.default_rng(8).uniform(0.1, 0.9, 40).astype(np.float32)


@dataclass(frozen=True)
class FixedRates(UserModel):
    """Likes each item with its own rate, whatever came before. It compiles in no time."""

    def init(self, params, user, items, likes, length):
        return ()

    def probability(self, params, state, item):
        return params[item]

    def update(self, params, state, item, like):
        return state


def with_rates(dataset: Dataset, **settings) -> Simulator:
    settings = {"slate_size": K, "session_capacity": STEPS, **settings}
    return simulator_of(dataset, user_model=FixedRates(), user_params=RATES, **settings)
