"""The parts of the taste model's kernel of items, each as features whose inner products are that part.

| part | kernel of two items |
|---|---|
| category | names shared, divided by the square root of the product of their numbers of names |
| year | exp(-(years apart) / 10) |
| pros, cons | cosine of E_pos, E_neg (Eq. 4, 5) after their mean over items is subtracted |
| covariance | low-rank covariance of the training residuals of the items' ratings |

An item without categories, without a year or without keywords has zero features in that part.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxsim.catalogue import CatalogueKind
from jaxsim.dataset import Dataset
from jaxsim.errors import InputError
from jaxsim.taste import ItemKernel, KernelFeatures, KernelTable, TasteModel

PARTS = ("category", "year", "pros", "cons", "covariance")
YEARS = 10.0  # the distance at which the year's part falls to 1/e
_JITTER = 1e-9


def part_features(
    arrays: Mapping[str, np.ndarray],
    years: np.ndarray,
    factors: np.ndarray | None,
    items: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """The features of every part that the data has, float64[N, F_part] each.

    Args:
        arrays: of a packed dataset.
        years: float32[N], the items' years; NaN where one has none.
        factors: float32[N, R] of the covariance; None leaves this part out.
        items: int[n], only the features of these items, [n, F_part]; None for all.
    """
    rows = slice(None) if items is None else items
    features = {
        "category": category_features(arrays["item_categories"][rows]),
        "year": year_features(years[rows]),
        "pros": centred(arrays["item_pos_embedding"], rows),
        "cons": centred(arrays["item_neg_embedding"], rows),
    }
    if factors is not None:
        features["covariance"] = factors[rows].astype(np.float64)
    return {name: values for name, values in features.items() if values.any()}


def category_features(item_categories: np.ndarray) -> np.ndarray:
    """Unit vectors of the items' category names, float64[N, number of categories].

    Args:
        item_categories: int32[N, C], -1 pads.
    """
    num_items = len(item_categories)
    members = np.zeros((num_items, int(item_categories.max(initial=-1)) + 1), np.float64)
    rows, columns = np.nonzero(item_categories >= 0)
    members[rows, item_categories[rows, columns]] = 1.0
    return _unit(members)


def year_features(years: np.ndarray) -> np.ndarray:
    """Features of exp(-|years apart| / 10), float64[N, number of distinct years]; zero without a year."""
    has_year = np.isfinite(years)
    distinct = np.unique(years[has_year]).astype(np.float64)
    distance = np.abs(distinct[:, None] - distinct[None])
    kernel = np.exp(-distance / YEARS) + _JITTER * np.eye(len(distinct))
    features = np.zeros((len(years), len(distinct)), np.float64)
    if len(distinct):
        features[has_year] = np.linalg.cholesky(kernel)[np.searchsorted(distinct, years[has_year])]
    return features


def centred(embedding: np.ndarray, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Unit vectors after the mean over the items with keywords is subtracted, float64[N, D].

    Args:
        embedding: float32[N, D]; zero rows, of items without keywords, stay zero.
        rows: the items to return, all by default. The mean is over all N.
    """
    has_keyword = np.asarray(embedding.any(axis=1))
    vectors = embedding[rows].astype(np.float64)
    if has_keyword.any():
        mean = embedding.mean(axis=0, dtype=np.float64, where=has_keyword[:, None])
        vectors[has_keyword[rows]] -= mean
    return _unit(vectors)


def weighted_features(
    parts: Mapping[str, np.ndarray], weights: Mapping[str, float], num_items: int
) -> np.ndarray:
    """Features of the weighted sum of the parts and of a constant, float64[N, F].

    Args:
        parts: of `part_features`.
        weights: the weight of each part, and of "constant".
        num_items: N.
    """
    columns = [np.full((num_items, 1), np.sqrt(weights.get("constant", 0.0)), np.float64)]
    columns += [np.sqrt(weights[name]) * x for name, x in parts.items() if weights.get(name)]
    return np.concatenate(columns, axis=1)


def sequence_kernels(dataset: Dataset, items: np.ndarray) -> dict[str, np.ndarray]:
    """Each part's share of the kernel among n items that follow one another, float64[n, n] each.

    The parts are those that have a weight: "constant", "mood", then those of `PARTS`. Their sum is the kernel of
    `jaxsim.taste`.

    Args:
        dataset: with a taste model.
        items: int[n], in the order of time; an item may be there more than once.
    """
    assert dataset.taste is not None
    fit, arrays = dataset.manifest["taste"], dataset.taste
    weights, size = fit["taste_weights"], len(items)
    features = part_features(
        dataset.arrays, arrays["item_year"], arrays["covariance_factors"], items
    )
    place = np.arange(size, dtype=np.float64)
    kernels = {
        "constant": np.ones((size, size), np.float64),
        "mood": fit["mood_decay"] ** np.abs(place[:, None] - place[None]),
        **{name: np.zeros((size, size), np.float64) for name in PARTS},
        **{name: x @ x.T for name, x in features.items()},
    }
    return {name: weights[name] * x for name, x in kernels.items() if weights.get(name)}


def build_taste_model(
    dataset: Dataset, budget: int, kind: CatalogueKind, drawn: bool = False
) -> TasteModel:
    """Put a packed dataset's taste model on the device.

    Args:
        dataset: with a taste model.
        budget: bytes that a table of the kernel may take.
        kind: "tables", "features", or "auto" for a table if it fits the budget.
        drawn: whether tastes are drawn from it (`jaxsim.latent_taste`), for which it needs features in any case.

    Raises:
        InputError: the dataset has no taste model, or kind is "tables" and it does not fit.
    """
    if dataset.taste is None:
        raise InputError(
            f"{dataset.path}: this dataset was built without a taste model, which the semantics asks: "
            "build it again with this version"
        )
    fit, arrays = dataset.manifest["taste"], dataset.taste
    weights = fit["taste_weights"]
    parts = part_features(dataset.arrays, arrays["item_year"], arrays["covariance_factors"])
    features = weighted_features(parts, weights, dataset.num_items)
    kernel = _item_kernel(features, budget, kind)
    of_items = None
    if drawn:  # the kernel's own array if it has one, so that none is stored twice
        in_kernel = isinstance(kernel, KernelFeatures)
        of_items = kernel.values if in_kernel else jnp.asarray(features, jnp.float32)
    return TasteModel(
        kernel=kernel,
        mood_weight=jnp.float32(weights.get("mood", 0.0)),  # none in data without times
        mood_decay=jnp.float32(fit["mood_decay"]),
        item_mean=jnp.asarray(fit["mean"] + arrays["item_effect"], jnp.float32),
        calibration=jnp.asarray(fit["calibration"], jnp.float32),
        features=of_items,
    )


def _item_kernel(features: np.ndarray, budget: int, kind: CatalogueKind) -> ItemKernel:
    needed = 4 * len(features) ** 2
    if kind == "tables" and needed > budget:
        raise InputError(
            f"a table of the taste model's kernel takes {needed:,} bytes, more than the table_budget of "
            f'{budget:,}: raise it, or use catalogue="features"'
        )
    if kind == "features" or needed > budget:
        return KernelFeatures(jnp.asarray(features, jnp.float32))
    return KernelTable(jnp.asarray(features @ features.T, jnp.float32))


def table_bytes(model: TasteModel | None) -> int:
    """Bytes of the kernel's table; 0 if there is none."""
    if model is None or not isinstance(model.kernel, KernelTable):
        return 0
    return model.kernel.values.nbytes


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1.0)
