"""Satiation: people tire of the same thing in a row. `jaxsim.make(dataset, satiation=...)`.

The log-odds that a user of the taste model likes an item change with how alike it is to the last five items of the
window (`Redundancy`):

    None                the default, they do not change
    "fitted"            by the coefficients that `prep.satiation_model` fitted to the training labels, times the
                        features less their means there. It is refused where the labels show no satiation: no
                        coefficient is below zero with a 95 % interval that leaves zero out
    a number LAMBDA     by minus LAMBDA times the share of the five that share a category with the item
    a function          by what it makes of `Redundancy`

Where the labels show none, a number or a function is an assumption, made to see how an agent would fare if people
did tire.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsim.catalogue import Catalogue, Pairs
from jaxsim.checks import try_function
from jaxsim.dataset import Dataset
from jaxsim.departure import RECENT, Recent
from jaxsim.errors import InputError
from jaxsim.similarity import COSINE_UNIT, NO_COSINE


class Redundancy(NamedTuple):
    """How alike an item is to the last five items of the window, or to fewer if it has fewer.

    Functions get 0 where there is nothing to compare.

    Attributes:
        same_category: float32[...], the share of them that share a category name with the item.
        keyword_similarity: float32[...], mean cosine of the item's pros (E_pos) with theirs, over those that have
            pros.
        latest_same_category: float32[...], 1 if the latest of them shares a category name with it, otherwise 0.
    """

    same_category: jax.Array
    keyword_similarity: jax.Array
    latest_same_category: jax.Array


SAME_CATEGORY, SIMILARITY, LATEST = TERMS = Redundancy._fields
SatiationFunction = Callable[[Redundancy], jax.Array]
Satiation = Literal["fitted"] | float | SatiationFunction | None


@struct.dataclass
class SatiationWeights:
    """A sum over the features, each less its mean; a feature that is not known counts as its mean.

    Attributes:
        weights, means: float32[] of each feature.
    """

    weights: Redundancy
    means: Redundancy

    def __call__(self, redundancy: Redundancy) -> jax.Array:
        """What is added to the log-odds of a like, float32[...]; NaN stands for a feature that is not known."""
        parts = jax.tree.map(
            lambda w, mean, x: w * jnp.where(jnp.isnan(x), 0.0, x - mean),
            self.weights,
            self.means,
            redundancy,
        )
        return sum(parts, jnp.float32(0))


def added(
    satiation: Satiation, weights: SatiationWeights | None, redundancy: Redundancy
) -> jax.Array:
    """What is added to the log-odds of a like, float32[...].

    Args:
        satiation: of `jaxsim.make`, not None.
        weights: of `build_satiation`.
        redundancy: of the items, NaN where there is nothing to compare.
    """
    if callable(satiation):
        return satiation(jax.tree.map(jnp.nan_to_num, redundancy))
    assert weights is not None
    return weights(redundancy)


def redundancy_of(catalogue: Catalogue, recent: Recent, item: jax.Array) -> Redundancy:
    """How alike an item int32[] is to the last five, float32[] each; NaN where there is nothing to compare."""
    return _redundancy(recent, catalogue.compare(item, recent.items, _pros()))


def redundancies(catalogue: Catalogue, recent: Recent) -> Redundancy:
    """`redundancy_of` each of N items, float32[N] each."""
    return _redundancy(recent, jax.vmap(catalogue.compare_all)(recent.items, _pros()))


def _pros() -> jax.Array:
    return jnp.ones(RECENT, jnp.int32)


def _redundancy(recent: Recent, pairs: Pairs) -> Redundancy:
    """The features from the pairs of the last five with items, `Pairs` [5, ...]."""
    present = recent.present.reshape(RECENT, *[1] * (pairs.cosine.ndim - 1))
    same = present & pairs.same_category
    described = present & (pairs.cosine != NO_COSINE)
    cosine = jnp.where(described, pairs.cosine, 0).astype(jnp.float32) / COSINE_UNIT
    return Redundancy(
        same_category=_mean(same.astype(jnp.float32), present),
        keyword_similarity=_mean(cosine, described),
        latest_same_category=jnp.where(present[-1], same[-1].astype(jnp.float32), jnp.nan),
    )


def _mean(values: jax.Array, where: jax.Array) -> jax.Array:
    """The sum of values over the first axis, divided by how many count; NaN over nothing."""
    count = where.sum(axis=0, dtype=jnp.int32)
    return values.sum(axis=0) / jnp.where(count > 0, count, jnp.nan)


# ---- settings ----------------------------------------------------------------------------------------------


def check_satiation(satiation: Any) -> Satiation:
    """The setting of `jaxsim.make`, with a number as a float; a function is tried on some values.

    Raises:
        InputError: anything else; a number below 0 or not finite; or a function that cannot be run, or returns
            anything but float32[...] of numbers.
    """
    if satiation is None:
        return None
    if isinstance(satiation, str) and satiation == "fitted":
        return "fitted"
    if isinstance(satiation, int | float | np.number) and not isinstance(satiation, bool):
        if not (np.isfinite(satiation) and satiation >= 0):
            raise InputError(f"satiation is {satiation!r}: give a finite number from 0")
        return float(satiation)
    if not callable(satiation):
        raise InputError(
            f'satiation is {satiation!r}: give "fitted", a number from 0, or a function of Redundancy'
        )
    values = np.linspace(0, 1, 4, dtype=np.float32)
    many = Redundancy(jnp.asarray(values), jnp.asarray(values[::-1]), jnp.asarray(values.round()))
    for one, what in ((jax.tree.map(lambda x: x[0], many), "one item"), (many, "4 items")):
        try_function("satiation", satiation, one, what, f"features in [0, 1] of {what}")
    return satiation


def build_satiation(dataset: Dataset, satiation: Satiation) -> SatiationWeights | None:
    """The weights of a checked setting on the device; None without any, and for a function.

    Raises:
        InputError: "fitted", and the dataset has no fit, or its labels show no satiation; in one line.
    """
    if satiation is None or callable(satiation):
        return None
    if isinstance(satiation, str):
        terms = _fitted_terms(dataset)
    else:
        terms = {SAME_CATEGORY: {"weight": -satiation, "mean": 0.0}}

    def of(field: str) -> Redundancy:
        return Redundancy(*(jnp.float32(terms.get(name, {}).get(field, 0.0)) for name in TERMS))

    return SatiationWeights(of("weight"), of("mean"))


def _fitted_terms(dataset: Dataset) -> dict[str, dict[str, float]]:
    entry: Any = dataset.manifest.get("satiation")
    if entry is None:
        raise InputError(
            f'satiation="fitted": {dataset.name} was built without it; run `python -m prep build {dataset.name}` '
            "again"
        )
    if "reason" in entry:
        raise InputError(f'satiation="fitted": {dataset.name} has no fit: {entry["reason"]}')
    if not entry["shows"]:
        rows = "; ".join(
            f"{row['term']} {row['coefficient']:+.3f}, {row['low']:+.3f} to {row['high']:+.3f}"
            for row in entry["tables"]["raw"]
        )
        raise InputError(
            f'satiation="fitted" is switched off for {dataset.name}: no coefficient is below zero with its 95 % '
            f"interval ({rows}); leave satiation out, or give a number as an assumption"
        )
    return entry["terms"]
