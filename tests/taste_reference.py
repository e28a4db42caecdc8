"""The taste model in plain NumPy, from the definitions of its parts and by the dense formula."""

import numpy as np

from jaxsim import Dataset


def part_kernels(dataset: Dataset) -> dict[str, np.ndarray]:
    """Each part's share of the kernel of every pair of items, one pair at a time; float64[N, N] each."""
    arrays, years = dataset.arrays, dataset.taste["item_year"].astype(np.float64)
    names = [set(row[row >= 0].tolist()) for row in arrays["item_categories"]]
    factors = dataset.taste["covariance_factors"].astype(np.float64)
    vectors = {}
    for part, side in (("pros", "pos"), ("cons", "neg")):
        rows = arrays[f"item_{side}_embedding"].astype(np.float64)
        present = [i for i in range(len(rows)) if rows[i].any()]
        mean = sum(rows[i] for i in present) / max(len(present), 1)
        vectors[part] = {i: rows[i] - mean for i in present}

    def category(a: int, b: int) -> float:
        sizes = len(names[a]) * len(names[b])
        return len(names[a] & names[b]) / np.sqrt(sizes) if sizes else 0.0

    def year(a: int, b: int) -> float:
        has_years = np.isfinite(years[a]) and np.isfinite(years[b])
        return np.exp(-abs(years[a] - years[b]) / 10) if has_years else 0.0

    def cosine(part: str, a: int, b: int) -> float:
        if a not in vectors[part] or b not in vectors[part]:
            return 0.0
        x, y = vectors[part][a], vectors[part][b]
        return x @ y / (np.linalg.norm(x) * np.linalg.norm(y))

    parts = {
        "constant": lambda a, b: 1.0,
        "category": category,
        "year": year,
        "pros": lambda a, b: cosine("pros", a, b),
        "cons": lambda a, b: cosine("cons", a, b),
        "covariance": lambda a, b: factors[a] @ factors[b],
    }
    weights, items = dataset.manifest["taste"]["taste_weights"], range(len(names))
    return {
        name: weights.get(name, 0.0) * np.array([[part(a, b) for b in items] for a in items])
        for name, part in parts.items()
    }


def moods(dataset: Dataset, size: int) -> np.ndarray:
    """The kernel of the mood among positions, the next one included; float64[size + 1, size + 1]."""
    fit, place = dataset.manifest["taste"], np.arange(size + 1)
    distance = np.abs(place[:, None] - place[None])
    return fit["taste_weights"].get("mood", 0.0) * fit["mood_decay"] ** distance


def weights_of(dataset: Dataset, kernel: np.ndarray, items: np.ndarray, likes: list) -> np.ndarray:
    """alpha of each interaction of a history, float64[H]; `kernel` is that of all pairs of items."""
    among = kernel[np.ix_(items, items)] + moods(dataset, len(items))[:-1, :-1]
    mean = dataset.manifest["taste"]["mean"]
    residual = np.asarray(likes) - mean - dataset.taste["item_effect"][items]
    return np.linalg.solve(among + np.eye(len(items)), residual)


def expected_tastes(dataset: Dataset, items, likes, kernel=None) -> np.ndarray:
    """g of every item after a history, float64[N]; `kernel` of all pairs of items is computed if not given."""
    kernel = sum(part_kernels(dataset).values()) if kernel is None else kernel
    items = np.asarray(items, int)
    alpha = weights_of(dataset, kernel, items, likes)
    return (kernel[:, items] + moods(dataset, len(items))[-1, :-1]) @ alpha


def probabilities(dataset: Dataset, items, likes, kernel=None) -> np.ndarray:
    """p of every item after a history, float64[N]; `kernel` as in `expected_tastes`."""
    fit = dataset.manifest["taste"]
    w0, w1, w2 = fit["calibration"]
    log_odds = w0 + w1 * (fit["mean"] + dataset.taste["item_effect"])
    return 1 / (1 + np.exp(-log_odds - w2 * expected_tastes(dataset, items, likes, kernel)))


def variances_to_come(dataset: Dataset, items, later: int = 0, kernel=None) -> np.ndarray:
    """Covariance of what is not known of the tastes for all items, float64[N, N].

    Args:
        dataset: with a taste model.
        items: int[n], the history.
        later: interactions with unknown answers since then.
        kernel: as in `expected_tastes`.
    """
    kernel = sum(part_kernels(dataset).values()) if kernel is None else kernel
    items, size = np.asarray(items, int), len(items)
    mood = moods(dataset, size + later)
    known = kernel[:, items] + mood[-1, :size]
    among = kernel[np.ix_(items, items)] + mood[:size, :size] + np.eye(size)
    return kernel + mood[-1, -1] - known @ np.linalg.solve(among, known.T)


def tastes_later(dataset: Dataset, items, likes, later: int, kernel=None) -> np.ndarray:
    """g of every item after a history and `later` interactions with unknown answers, float64[N]."""
    kernel = sum(part_kernels(dataset).values()) if kernel is None else kernel
    items = np.asarray(items, int)
    alpha = weights_of(dataset, kernel, items, likes)
    mood = moods(dataset, len(items) + later)[-1, : len(items)]
    return (kernel[:, items] + mood) @ alpha
