"""The settings of a synthetic dataset, and the random streams that it is drawn from."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt, Le, Lt

from jaxsim import InputError
from jaxsim.settings import check_settings
from prep.bounds import Amount

# Filters of keywords and categories, as in every dataset.
MIN_ITEMS, MAX_SHARE = 2, 0.10
MIN_CATEGORY_ITEMS, MAX_CATEGORY_SHARE = 5, 0.5

# Random streams.
TOPICS, POPULARITY, ITEMS, VECTORS, COUNTS, TASTES, HISTORIES = range(7)


@dataclass(frozen=True)
class SyntheticConfig:
    """The size of a synthetic dataset and the strength of its preferences.

    The upper bounds are those of memory and of 32-bit indices.
    """

    users: Annotated[int, Ge(1), Le(10**8)] = 1000
    """Number of users."""
    items: Annotated[int, Ge(1), Le(10**8)] = 500
    """Number of items."""
    interactions_per_user: Annotated[int, Ge(1), Le(10**6)] = 20
    """Mean number of interactions of a user; each user has between 0.5 and 1.5 times as many."""
    topics: Annotated[int, Ge(8)] = 20
    """Number of topics, which are the categories. With fewer, one could be on too many items for the filter."""
    keywords: Annotated[int, Ge(1), Le(10**7)] | None = None
    """Number of words that keywords are drawn from. Without it, 25 times the square root of the items, as
    vocabularies grow (Heaps' law)."""
    dimension: Annotated[int, Ge(1), Le(2**16)] = 384
    """Length of the keyword vectors."""
    like_rate: Annotated[float, Gt(0), Lt(1)] = 0.6
    """Share of likes among the interactions."""
    taste: Amount = 1.5
    """Log-odds that each keyword which the user likes adds, and each one which annoys them subtracts."""
    user_spread: Amount = 0.5
    """Standard deviation of the users' biases, in log-odds."""
    quality_spread: Amount = 0.5
    """Standard deviation of the items' qualities, in log-odds."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of everything that is drawn."""

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: the first setting that is out of its bounds, or too small or large for another one.
        """
        check_settings(self, option_prefix="--synthetic.")
        fewest = MIN_CATEGORY_ITEMS * self.topics
        if self.items < fewest:
            raise InputError(
                f"--synthetic.items is {self.items}: give {fewest:,} or more, or fewer --synthetic.topics"
            )
        if self.keywords is not None and self.keywords < 2 * self.topics:
            raise InputError(
                f"--synthetic.keywords is {self.keywords}: give {2 * self.topics:,} or more, two for each topic"
            )
        if 3 * self.interactions_per_user > self.items:
            raise InputError(
                f"--synthetic.interactions-per-user is {self.interactions_per_user}: give at most a third of "
                f"--synthetic.items, {self.items:,}"
            )

    @property
    def words_per_list(self) -> int:
        """Words of one topic and polarity, before the filter."""
        keywords = self.keywords or round(25 * math.sqrt(self.items))
        return max(1, keywords // (2 * self.topics))

    def rng(self, stream: int, chunk: int = 0) -> np.random.Generator:
        """The random numbers of one chunk of one stream."""
        return np.random.default_rng([self.seed, stream, chunk])
