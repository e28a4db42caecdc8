"""The words of a dataset's items: names, categories and keywords."""

from collections.abc import Iterable

import numpy as np

from jaxsim.dataset import Dataset
from jaxsim.explanation.types import Candidate


class ItemWords:
    """Names, categories and keywords of a dataset's items."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def name(self, item: int) -> str:
        """The item's name, or its id if it has no name."""
        return self.dataset.item_name(item)

    def categories(self, item: int) -> list[int]:
        """D_cate, the indices of the item's categories."""
        return _members(self.dataset.arrays["item_categories"][item])

    def keywords(self, item: int, polarity: int) -> list[int]:
        """D_neg (polarity 0) or D_pos (polarity 1), the indices of the item's keywords."""
        side = ("neg", "pos")[polarity]
        return _members(self.dataset.arrays[f"item_{side}_keywords"][item])

    def spell(self, keywords: Iterable[int]) -> tuple[str, ...]:
        """The keywords with these indices."""
        return tuple(self.dataset.keywords[k] for k in keywords)

    def spell_categories(self, item: int) -> tuple[str, ...]:
        """The names of an item's categories."""
        return tuple(self.dataset.categories[c] for c in self.categories(item))

    def describe(self, item: int) -> Candidate:
        """The item in words."""
        cons, pros = (self.spell(self.keywords(item, polarity)) for polarity in (0, 1))
        return Candidate(item, self.name(item), self.spell_categories(item), pros, cons)

    def year(self, item: int) -> int | None:
        """The item's year in a dataset with a taste model; None if the item has none."""
        assert self.dataset.taste is not None
        year = self.dataset.taste["item_year"][item]
        return int(year) if np.isfinite(year) else None


def _members(row: np.ndarray) -> list[int]:
    return [int(x) for x in row if x >= 0]
