"""When a user leaves, as fitted to the ends of real sessions: `jaxsim.make(dataset, departure="fitted")`.

After the recommendation at position t of a session the user leaves with the probability

    sigmoid(b(t) + sum over terms k of w_k clip((x_k - mean_k) / scale_k))

b is a table. The features x_k are of the last five items of the window: how obscure they are (minus the
logarithm of 1 + training interactions), whether the latest is like those before it, and whether the user liked
them more than other people do. `prep/departure_model.py` fits all numbers, and keeps only the terms whose
interval excludes zero.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsim.catalogue import Catalogue
from jaxsim.dataset import Dataset
from jaxsim.errors import InputError
from jaxsim.similarity import COSINE_UNIT, NO_COSINE

DepartureKind = Literal["constant", "fitted"]
RECENT = 5  # items at the end of the window that the features are about
OBSCURITY, SAME_CATEGORY, SIMILARITY, SATISFACTION = TERMS = (
    "obscurity",
    "same_category",
    "keyword_similarity",
    "satisfaction",
)
POSITION = "position"


@struct.dataclass
class Term:
    """One fitted term; all are float32[]: the weight in log-odds, and how its feature is standardised."""

    weight: jax.Array
    mean: jax.Array
    scale: jax.Array


@struct.dataclass
class DepartureModel:
    """The fitted hazard of leaving.

    Attributes:
        position_log_odds: float32[P], b(t) for t from 1; the last one holds for every later position.
        item_obscurity: float32[N], minus the logarithm of 1 + training interactions.
        item_rate: float32[N], smoothed like rate in training.
        terms: the terms that were kept, by their names in `TERMS`.
        clip: float32[], standardised features stay between -clip and clip, the range that was seen.
    """

    position_log_odds: jax.Array
    item_obscurity: jax.Array
    item_rate: jax.Array
    terms: dict[str, Term]
    clip: jax.Array


class Departure(NamedTuple):
    """The chance that the user leaves, and why.

    Attributes:
        probability: float32[], the sigmoid of the sum of `log_odds`.
        log_odds: "position" and the kept terms to what they add, float32[].
    """

    probability: jax.Array
    log_odds: dict[str, jax.Array]


class Recent(NamedTuple):
    """The last five interactions of a window, the latest last.

    Attributes:
        items: int32[5], 0 where there is none.
        likes: float32[5].
        present: bool[5].
    """

    items: jax.Array
    likes: jax.Array
    present: jax.Array


def build_departure(dataset: Dataset) -> DepartureModel:
    """The fitted hazard of a packed dataset, on the device.

    Raises:
        InputError: the dataset has none.
    """
    entry: Any = dataset.manifest.get("departure")
    if dataset.departure is None or entry is None:
        reason = (entry or {}).get("constant_because")
        advice = why_not_fitted(dataset, "when users leave", reason)
        raise InputError(f'departure="fitted": {dataset.name} has no fitted departure: {advice}')
    _check_arrays(dataset, dataset.departure)
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in dataset.departure.items()}
    terms = terms_of(entry["terms"])
    return DepartureModel(terms=terms, clip=jnp.float32(entry["clip"]), **arrays)


def terms_of(entries: Mapping[str, Mapping[str, float]]) -> dict[str, Term]:
    """Terms from the numbers of a manifest."""
    return {
        name: Term(*(jnp.float32(fit[field]) for field in ("weight", "mean", "scale")))
        for name, fit in entries.items()
    }


def why_not_fitted(dataset: Dataset, what: str, reason: str | None) -> str:
    """Why a dataset lacks a fitted model of `what`: the build's own reason, or that it was built without one."""
    if reason:
        return f"its logs do not show {what} ({reason})"
    return f"it was built without it; run `python -m prep build {dataset.name}` again"


def recent_of(items: jax.Array, responses: jax.Array, length: jax.Array) -> Recent:
    """The last five interactions of a window: items int32[W], responses int8[W], length int32[]."""
    chex.assert_rank([items, responses, length], [1, 1, 0])
    place = length - RECENT + jnp.arange(RECENT, dtype=jnp.int32)
    present = place >= 0
    index = jnp.maximum(place, 0)
    likes = (responses[index] > 0).astype(jnp.float32)
    return Recent(jnp.where(present, items[index], 0), likes, present)


def depart(
    model: DepartureModel | None, catalogue: Catalogue, recent: Recent, position: jax.Array
) -> Departure:
    """The chance of leaving after a recommendation.

    Args:
        model: of `build_departure`.
        catalogue: tells which items are alike.
        recent: the last five interactions, that recommendation included.
        position: int32[], its position in the session, from 1.

    Raises:
        InputError: there is no model, because the departure is constant.
    """
    if model is None:
        raise InputError('the departure is constant: make the environment with departure="fitted"')
    log_odds = {POSITION: base_log_odds(model, position)}
    log_odds |= {
        name: contribution(model, name, _feature(name, model, catalogue, recent))
        for name in model.terms
    }
    return Departure(jax.nn.sigmoid(sum(log_odds.values(), jnp.float32(0))), log_odds)


def base_log_odds(model: DepartureModel, position: jax.Array) -> jax.Array:
    """The base b at positions int32[...] from 1, float32[...]."""
    last = model.position_log_odds.shape[0] - 1
    return model.position_log_odds[jnp.clip(position - 1, 0, last)]


def contribution(model: DepartureModel, name: str, value: jax.Array) -> jax.Array:
    """What a term adds to the log-odds at values of its feature, float32[...]; NaN, which is no value, adds 0."""
    return weighted(model.terms[name], value, model.clip)


def weighted(term: Term, value: jax.Array, clip: jax.Array) -> jax.Array:
    """The weight of a term times the standardised and clipped values of its feature, float32[...]; 0 for NaN."""
    standard = jnp.clip((value - term.mean) / term.scale, -clip, clip)
    return term.weight * jnp.where(jnp.isnan(value), 0.0, standard)


def _feature(name: str, model: DepartureModel, catalogue: Catalogue, recent: Recent) -> jax.Array:
    """The value of a feature, float32[]; NaN if there is nothing to take it from."""
    if name == OBSCURITY:
        return _mean_where(recent.present, model.item_obscurity[recent.items])
    if name == SATISFACTION:
        return satisfaction_of(recent, model.item_rate)
    earlier, present = recent.items[:-1], recent.present[:-1]
    liked = jnp.ones(RECENT - 1, jnp.int32)  # pros are compared
    pairs = catalogue.compare(recent.items[-1], earlier, liked)
    if name == SAME_CATEGORY:
        return _mean_where(present, pairs.same_category.astype(jnp.float32))
    cosine = pairs.cosine.astype(jnp.float32) / COSINE_UNIT
    return _mean_where(present & (pairs.cosine != NO_COSINE), cosine)


def satisfaction_of(recent: Recent, item_rate: jax.Array) -> jax.Array:
    """The mean of the response less the item's like rate float32[N]; NaN without items. float32[]."""
    return _mean_where(recent.present, recent.likes - item_rate[recent.items])


def _mean_where(where: jax.Array, values: jax.Array) -> jax.Array:
    count = where.sum(dtype=jnp.int32)
    return jnp.where(where, values, 0.0).sum() / jnp.where(count > 0, count, jnp.nan)


def _check_arrays(dataset: Dataset, arrays: dict[str, np.ndarray]) -> None:
    items = dataset.num_items
    sizes = {"position_log_odds": None, "item_obscurity": items, "item_rate": items}
    check_vectors(dataset, "departure", arrays, sizes)


def check_vectors(
    dataset: Dataset, what: str, arrays: dict[str, np.ndarray], sizes: Mapping[str, int | None]
) -> None:
    """Check arrays of one dimension: their sizes, where one is given, and that their numbers are finite.

    Raises:
        InputError: an array is missing or damaged.
    """
    for name, size in sizes.items():
        x = arrays.get(name)
        if (
            x is None
            or x.ndim != 1
            or len(x) != (size or max(1, len(x)))
            or not np.isfinite(x).all()
        ):
            raise InputError(
                f"{dataset.path}: {name} of the {what} is missing or damaged; build the dataset again"
            )
