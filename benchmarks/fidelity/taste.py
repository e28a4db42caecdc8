"""The taste model as a predictor, with the keywords in its kernel and without them.

The kernel's weights and the calibration are those of the packed folder where its interactions are as they were.
For cold items they are fitted again, once for each fold, without any label of its items. For a control, only item
effects and the covariance of residuals are estimated again.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.fidelity import simulator
from benchmarks.fidelity.events import Events
from benchmarks.fidelity.predictor import CannotFitError, Fitted, Predictor, TrainingData
from benchmarks.fidelity.variants import has_keywords
from jaxsim.catalogue import TABLE_BUDGET_BYTES
from jaxsim.taste import TasteModel, condition, history_kernel, product
from jaxsim.taste_kernel import build_taste_model
from prep.taste_model import TasteTraining, estimate_taste, train_taste

CHANGED_LABELS = (
    1_000  # validation labels that weights are fitted to for a fold of cold items, at most
)

KEYWORD_PARTS = ("pros", "cons")

# The manifest's entry of a fit, by the data that it was fitted on and by the parts that it leaves out.
_Entries = dict[tuple[str, ...], Mapping[str, Any]]
_ENTRIES: WeakKeyDictionary[TrainingData, _Entries] = WeakKeyDictionary()


def _fit_without_keywords(data: TrainingData) -> Fitted:
    if not has_keywords(data.dataset):
        raise CannotFitError("is the same as taste: no item has keywords")
    return fit_taste(data, KEYWORD_PARTS)


def fit_taste(data: TrainingData, without: tuple[str, ...] = ()) -> Fitted:
    """The taste model, without some parts of its kernel (see `prep.taste_model.train_taste`).

    Raises:
        CannotFitError: the dataset has no taste model, or no training interactions.
    """
    dataset = data.dataset
    if dataset.taste is None:
        raise CannotFitError("needs a dataset with a taste model: build it again")
    if not data.training.any():
        raise CannotFitError("needs training interactions")
    entry, arrays = _entry(data.weights_from or data, without), dataset.taste
    if data.changed or without:
        arrays, mean = estimate_taste(dataset.arrays, arrays["item_year"], entry, without)
        entry = {**entry, "mean": mean}
    manifest = {**dataset.manifest, "taste": entry}
    fitted = replace(dataset, taste=arrays, manifest=manifest)
    model = build_taste_model(fitted, TABLE_BUDGET_BYTES, "auto")
    return Fitted(lambda events: probabilities(model, events), _parameters(arrays, entry))


def _entry(data: TrainingData, without: tuple[str, ...]) -> Mapping[str, Any]:
    """The weights for this data: those of the packed folder, or fitted with the same settings."""
    dataset = data.dataset
    packed: Mapping[str, Any] = dataset.manifest["taste"]
    if not without and not data.changed:
        return packed
    entries = _ENTRIES.setdefault(data, {})
    if without not in entries:
        assert dataset.taste is not None
        settings = TasteTraining(**packed["training"])
        if data.changed:
            settings = replace(settings, max_labels=min(settings.max_labels, CHANGED_LABELS))
        years = dataset.taste["item_year"]
        _, entries[without] = train_taste(dataset.arrays, years, settings, without)
    return entries[without]


def _parameters(
    arrays: Mapping[str, np.ndarray], entry: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """What was estimated from labels."""
    numbers = {
        "mean": entry["mean"],
        "mood_decay": entry["mood_decay"],
        "calibration": entry["calibration"],
        **{f"item_{name}": weight for name, weight in entry["item_weights"].items()},
        **{f"taste_{name}": weight for name, weight in entry["taste_weights"].items()},
    }
    parameters = {name: np.asarray(value, np.float64) for name, value in numbers.items()}
    return {name: x for name, x in arrays.items() if name != "item_year"} | parameters


def probabilities(model: TasteModel, events: Events) -> np.ndarray:
    """The taste model's probability of a like of each of E events, float64[E]."""
    parts = []
    # At least one batch, so that no events have results of the right number, too.
    for first in range(0, max(1, len(events)), simulator.BATCH):
        rows = slice(first, first + simulator.BATCH)
        columns = (events.item, events.history_items, events.history_labels, events.present)
        batch = [jnp.asarray(simulator.padded(x[rows])) for x in columns]
        parts.append(jax.device_get(_probabilities(model, *batch)))
    return np.concatenate(parts).astype(np.float64)[: len(events)]


@jax.jit
def _probabilities(
    model: TasteModel, item: jax.Array, items: jax.Array, labels: jax.Array, present: jax.Array
) -> jax.Array:
    def of_event(
        item: jax.Array, items: jax.Array, labels: jax.Array, present: jax.Array
    ) -> jax.Array:
        order, length = jnp.argsort(~present, stable=True), jnp.sum(present, dtype=jnp.int32)
        weights = condition(model, items[order], labels[order], length).weights
        taste = product(history_kernel(model, item, items[order], length), weights)
        return jax.nn.sigmoid(model.log_odds(model.item_mean[item], taste))

    return jax.vmap(of_event)(item, items, labels, present)


TASTE = (
    Predictor(
        "taste",
        "model",
        "a Gaussian process over what the user likes more than others do, with the keywords in its kernel",
        fit_taste,
        is_probability=True,
        uses_validation=True,
        refit="fast",
        uses_keywords=True,
    ),
    Predictor(
        "taste_without_keywords",
        "model",
        "the same without the keywords",
        _fit_without_keywords,
        is_probability=True,
        uses_validation=True,
        refit="fast",
    ),
)
