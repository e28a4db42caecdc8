"""The exposure model in plain NumPy, one pair of items at a time, from the definitions of its parts."""

import numpy as np

from jaxsim import Dataset


def chosen_log_odds(dataset: Dataset, items: list[int], candidate: int) -> float:
    """e(c) after a history of items, in float64."""
    value = {n: row["value"] for n, row in dataset.manifest["exposure"]["coefficients"].items()}
    names = [set(row[row >= 0].tolist()) for row in dataset.arrays["item_categories"]]
    years = dataset.taste["item_year"].astype(np.float64)
    factors = dataset.exposure["cooccurrence_factors"].astype(np.float64)

    def likeness(a: int, b: int) -> dict[str, float]:
        sizes = len(names[a]) * len(names[b])
        apart = abs(years[a] - years[b])
        return {
            "category": len(names[a] & names[b]) / np.sqrt(sizes) if sizes else 0.0,
            "year": np.exp(-apart / 10) if np.isfinite(apart) else 0.0,
            "cooccurrence": factors[a] @ factors[b],
        }

    total = value["intercept"]
    total += value["popularity"] * dataset.exposure["item_popularity"][candidate]
    total += value["activity"] * dataset.exposure["user_activity"].astype(np.float64).mean()
    for item in items:
        for name, x in likeness(item, candidate).items():
            total += value[name] * x / len(items)
    return float(total)


def shift(dataset: Dataset, items: list[int], candidate: int) -> float:
    """beta (e(c) - o)."""
    entry = dataset.manifest["exposure"]
    slope = entry["label"]["exposure"]["value"]
    return slope * (chosen_log_odds(dataset, items, candidate) - entry["offset"])
