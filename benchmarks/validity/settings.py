"""Settings of the measurement, and its streams of random numbers."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from benchmarks.fidelity.events import CONTEXT
from jaxsim import InputError
from jaxsim.settings import check_settings

# Streams of random numbers, one for each purpose, apart from those of `benchmarks.fidelity`.
TIES, RANDOM, EPSILON, HALVES, USERS, MIXTURES, ANSWERS = range(100, 107)


@dataclass(frozen=True)
class Settings:
    """Settings of the measurement.

    Attributes:
        picks: how many of a user's own test items each policy picks.
        min_interactions: users with fewer test interactions are left out, so that there is something to choose.
        max_users: at most so many users, drawn at random if there are more.
        context: H, the longest history.
        resamples: R, resamples of the users for the intervals.
        halves: how often the users are divided into two random halves.
        draws: simulated sequences of each user.
        seed: of everything random.
    """

    picks: Annotated[int, Ge(1)] = 5
    min_interactions: Annotated[int, Ge(2)] = 10
    max_users: Annotated[int, Ge(2)] = 2000
    context: Annotated[int, Ge(1)] = CONTEXT
    resamples: Annotated[int, Ge(1)] = 1000
    halves: Annotated[int, Ge(2)] = 200
    draws: Annotated[int, Ge(1)] = 3
    seed: Annotated[int, Ge(0)] = 0

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: the first one that is out of its bounds, or too many picks to leave a choice.
        """
        check_settings(self, option_prefix="--")
        if self.picks >= self.min_interactions:
            raise InputError(
                f"--picks is {self.picks}: give less than --min-interactions, {self.min_interactions}, "
                "so that there is something to choose"
            )

    def rng(self, stream: int, number: int = 0) -> np.random.Generator:
        """The random numbers of a stream; several of one purpose differ by their number."""
        return np.random.default_rng([stream, self.seed, number])
