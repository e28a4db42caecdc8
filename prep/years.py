"""The year of an item, from its attributes."""

import re

import numpy as np
import pandas as pd

NAMES = ("year", "release year", "year of publication", "publication year", "released", "date")
_YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d)(?!\d)")


def item_years(items: pd.DataFrame) -> np.ndarray:
    """The year of each item, float32[N]; NaN where no attribute of these names holds one.

    Args:
        items: one row for each item, with a column `attributes` of mappings from names to texts.
    """
    return np.array([_year(attributes) for attributes in items["attributes"]], np.float32)


def _year(attributes: dict[str, str]) -> float:
    by_name = {
        name.lower().replace("_", " ").replace("-", " "): x for name, x in attributes.items()
    }
    for name in NAMES:
        match = _YEAR.search(str(by_name.get(name, "")))
        if match:
            return float(match[0])
    return float("nan")
