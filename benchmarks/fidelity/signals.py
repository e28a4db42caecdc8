"""How well ratings and durations are predicted, beside what an item's mean and a user's bias say.

The model is that of `jaxsim.signals`, with the ratings and durations of the same histories as everywhere. An
expected rating is rounded at cut points at which each rating is predicted as often as it occurs among the
validation ratings; those of the baseline come from its own validation predictions.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from benchmarks.fidelity import simulator
from benchmarks.fidelity.bootstrap import UserBootstrap, estimate
from benchmarks.fidelity.events import Events, rows_of
from benchmarks.fidelity.study import Study, estimates
from jaxsim import Dataset
from jaxsim.catalogue import TABLE_BUDGET_BYTES
from jaxsim.dataset import TRAIN
from jaxsim.signal_params import build_signals, known_values
from jaxsim.signals import Context
from jaxsim.taste import TasteModel, condition, history_kernel, product
from jaxsim.taste_kernel import build_taste_model

MODEL, BIAS, ITEM = "model", "item_and_user_bias", "item_mean"
_BIAS_SMOOTHING, _ALTERNATIONS = 5.0, 10


class Predicted(NamedTuple):
    """What the heads say about E events; None where the dataset has no such head.

    Attributes:
        like: probability of a like, float64[E].
        levels: probability of each rating, float64[E, K].
        log_duration: mean of the log-duration before any cut, given a dislike and a like, float64[E, 2].
    """

    like: Any
    levels: Any
    log_duration: Any


def signal_accuracy(study: Study) -> dict[str, Any]:
    """The entry `signals` of the report; nothing for a dataset without models of ratings and durations.

    Returns:
        `rating`: `rmse`, `mae` and `kappa` (`Estimate` by predictor), `log_loss` of the model. `duration`:
        `r_squared` and `log_likelihood` (by predictor), of logarithms of durations.
    """
    dataset, split = study.dataset, study.settings.split
    signals = build_signals(dataset)
    if signals is None or dataset.taste is None:
        return {}
    if split != "test":
        study.note("ratings and durations: left out, because validation values are judged")
        return {}
    model = replace(build_taste_model(dataset, TABLE_BUDGET_BYTES, "auto"), signals=signals)
    predicted = predict(model, dataset, study.events, rows_of(dataset, split))
    result: dict[str, Any] = {}
    if predicted.levels is not None:
        result["rating"] = _ratings(study, predicted.levels)
    if predicted.log_duration is not None:
        result["duration"] = _durations(study, predicted)
    return {"signals": result}


def predict(model: TasteModel, dataset: Dataset, events: Events, rows: np.ndarray) -> Predicted:
    """What the heads say about events, from the histories with their ratings and durations.

    Args:
        model: with signals.
        dataset: of the events.
        events: E of them.
        rows: int64[E], their interactions.
    """
    assert model.signals is not None
    place = rows[:, None] + np.arange(-events.history_items.shape[1], 0)
    known = known_values(dataset, model.signals)
    values = np.where(events.present[..., None], known[np.maximum(place, 0)], np.float32(np.nan))
    parts = []
    for first in range(0, len(events), simulator.BATCH):
        some = slice(first, first + simulator.BATCH)
        columns = (events.item, events.history_items, events.history_labels, events.present, values)
        batch = [jnp.asarray(simulator.padded(x[some])) for x in columns]
        parts.append(jax.device_get(_predict(model, *batch)))
    joined = jax.tree.map(lambda *x: np.concatenate(x)[: len(events)].astype(np.float64), *parts)
    return Predicted(*joined)


@jax.jit
def _predict(model: TasteModel, *columns: jax.Array) -> Predicted:
    signals = model.signals
    assert signals is not None

    def of_event(
        item: jax.Array,
        items: jax.Array,
        labels: jax.Array,
        present: jax.Array,
        values: jax.Array,
    ) -> Predicted:
        order, length = jnp.argsort(~present, stable=True), jnp.sum(present, dtype=jnp.int32)
        posterior = condition(model, items[order], labels[order], length, values[order])
        kernel = history_kernel(model, item, items[order], length)
        taste = product(kernel, posterior.weights)
        assert posterior.signal_scores is not None
        tastes = product(product(posterior.inverse_factor, kernel), posterior.signal_scores)
        log_odds = model.log_odds(model.item_mean[item], taste)
        context, like = Context(item, log_odds, tastes), jax.nn.sigmoid(log_odds)
        levels = logarithm = None
        if signals.rating is not None:
            taste = signals.taste_of(signals.rating, tastes)
            levels = signals.rating.probabilities(context, taste, like)
        if signals.duration is not None:
            taste = signals.taste_of(signals.duration, tastes)
            means = [signals.duration.mean(context, taste, jnp.bool_(x)) for x in (False, True)]
            logarithm = jnp.stack(means)
        return Predicted(like, levels, logarithm)

    return jax.vmap(of_event)(*columns)


# ---- ratings -----------------------------------------------------------------------------------------------


def _ratings(study: Study, levels: np.ndarray) -> dict[str, Any]:
    dataset, bootstrap = study.dataset, study.bootstrap
    entry = dataset.manifest["signals"]["rating"]
    scale, cuts = np.asarray(entry["levels"]), np.asarray(entry["cuts"])
    rating = dataset.arrays["interaction_rating"]
    rows, validation = rows_of(dataset, "test"), rows_of(dataset, "validation")
    actual, users = rating[rows].astype(np.float64), dataset.interaction_user()
    bias = biases(dataset, rating)
    item = dataset.arrays["interaction_item"]
    by_bias = bias(users[rows], item[rows])
    bias_cuts = cuts_of(bias(users[validation], item[validation]), rating[validation], scale)
    expected = {MODEL: levels @ scale, BIAS: by_bias}
    rounded = {
        MODEL: np.searchsorted(cuts, expected[MODEL]),
        BIAS: np.searchsorted(bias_cuts, by_bias),
    }
    place = np.minimum(np.searchsorted(scale, actual), len(scale) - 1)
    chance = np.where(scale[place] == actual, levels[np.arange(len(rows)), place], 0.0)
    return {
        "labels": len(rows),
        "rmse": estimates(
            {n: np.sqrt(bootstrap.means((x - actual) ** 2)) for n, x in expected.items()}
        ),
        "mae": estimates({n: bootstrap.means(np.abs(x - actual)) for n, x in expected.items()}),
        "kappa": estimates(
            {n: quadratic_kappa(bootstrap, place, x, len(scale)) for n, x in rounded.items()}
        ),
        "log_loss": {MODEL: estimate(bootstrap.means(-np.log(np.maximum(chance, 1e-12))))},
    }


def biases(dataset: Dataset, values: np.ndarray) -> Any:
    """(users, items) -> mean + item's bias + user's bias of training values float[M], smoothed by five values."""
    rows = np.flatnonzero(dataset.arrays["interaction_split"] == TRAIN)
    user, item = dataset.interaction_user()[rows], dataset.arrays["interaction_item"][rows]
    mean = values[rows].mean(dtype=np.float64)
    of_user: np.ndarray = np.zeros(dataset.num_users)
    of_item: np.ndarray = np.zeros(dataset.num_items)
    for _ in range(_ALTERNATIONS):
        of_item = _smoothed(item, values[rows] - mean - of_user[user], dataset.num_items)
        of_user = _smoothed(user, values[rows] - mean - of_item[item], dataset.num_users)
    return lambda users, items: mean + of_item[items] + of_user[users]


def _smoothed(index: np.ndarray, rest: np.ndarray, size: int) -> np.ndarray:
    total, count = np.bincount(index, rest, size), np.bincount(index, minlength=size)
    return total / (count + _BIAS_SMOOTHING)


def cuts_of(predicted: np.ndarray, actual: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Where to round predictions so that each level is predicted as often as it occurs, float64[K - 1]."""
    shares = [(actual < level).mean() for level in scale[1:]]
    return np.quantile(predicted, shares)


def quadratic_kappa(
    bootstrap: UserBootstrap, actual: np.ndarray, predicted: np.ndarray, levels: int
) -> np.ndarray:
    """Cohen's kappa with quadratic weights of levels int[E] below K: replicates float64[1 + R]."""
    pairs = [
        bootstrap.sums(((actual == a) & (predicted == p)).astype(np.float64))
        for a in range(levels)
        for p in range(levels)
    ]
    observed = np.stack(pairs, axis=1).reshape(-1, levels, levels)
    rows, columns = observed.sum(axis=2), observed.sum(axis=1)
    chance = rows[:, :, None] * columns[:, None] / rows.sum(axis=1)[:, None, None]
    place = np.arange(levels)
    penalty = (place[:, None] - place) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (penalty * observed).sum(axis=(1, 2)) / (penalty * chance).sum(axis=(1, 2))


# ---- durations ---------------------------------------------------------------------------------------------


def _durations(study: Study, predicted: Predicted) -> dict[str, Any]:
    dataset, arrays = study.dataset, study.dataset.signals
    assert arrays is not None
    entry = dataset.manifest["signals"]["duration"]
    logarithm = np.log(arrays["interaction_duration"].astype(np.float64))
    of_item = arrays["item_log_duration"].astype(np.float64)
    item = dataset.arrays["interaction_item"]
    rows, validation = rows_of(dataset, "test"), rows_of(dataset, "validation")
    validation = validation[np.isfinite(logarithm[validation])]
    known = np.isfinite(logarithm[rows])
    actual, by_item = logarithm[rows], of_item[item[rows]]
    spread = float((logarithm[validation] - of_item[item[validation]]).std())
    mean, density = log_duration(predicted, entry, np.where(known, actual, 0.0))
    densities = {MODEL: density, ITEM: norm.logpdf(actual, by_item, spread)}
    bootstrap = study.bootstrap
    actual = np.where(known, actual, 0.0)
    centre = bootstrap.means(actual, known)
    total = bootstrap.means(actual**2, known) - centre**2
    return {
        "labels": int(known.sum()),
        "unit": entry["unit"],
        "r_squared": estimates(
            {
                name: 1 - bootstrap.means((x - actual) ** 2, known) / total
                for name, x in ((MODEL, mean), (ITEM, by_item))
            }
        ),
        "log_likelihood": estimates(
            {name: bootstrap.means(np.where(known, x, 0.0), known) for name, x in densities.items()}
        ),
    }


def log_duration(
    predicted: Predicted, entry: Mapping[str, Any], actual: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the log-duration, and the log-density at log-durations float64[E]; float64[E] each."""
    assert predicted.log_duration is not None
    spread, threshold = entry["deviation"], entry["like_threshold"]
    mean, density = np.zeros_like(actual), np.zeros_like(actual)
    for like, share in ((0, 1 - predicted.like), (1, predicted.like)):
        centre = predicted.log_duration[:, like]
        side = 1.0 if like else -1.0
        bonus, mass = 0.0, np.ones_like(actual)
        possible = np.ones(len(actual), bool)
        if threshold is not None:
            edge = np.log(threshold)
            room = side * (centre - edge) / spread
            mass = np.maximum(norm.cdf(room), 1e-300)
            bonus = side * spread * np.exp(norm.logpdf(room) - norm.logcdf(room))
            possible = (actual >= edge) == bool(like)
        mean += share * (centre + bonus)
        density += np.where(possible, share * norm.pdf(actual, centre, spread) / mass, 0.0)
    return mean, np.log(np.maximum(density, 1e-300))
