"""Fitting of the taste model of `jaxsim.taste` to a dataset's training and validation interactions.

1. Item effects b are the mean of a Gaussian process over items, given each item's mean residual. The means of
   users are removed alternately, so that items that generous users rate do not look better than they are.
2. The covariance part of the kernel holds the leading factors of the training residuals that remain.
3. The weights of both kernels and the calibration w maximise the likelihood of validation labels, each predicted
   from the interactions before it, with a Gaussian prior around the defaults. A part that does not help gets a
   small weight. A dataset with fewer than 200 validation labels keeps the defaults.

Labels of the test split are never read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from annotated_types import Ge, Gt
from flax import struct
from jax.flatten_util import ravel_pytree
from sklearn.linear_model import LogisticRegression

from jaxsim.dataset import VALIDATION
from jaxsim.settings import check_settings
from jaxsim.taste_kernel import part_features, weighted_features
from prep.bounds import Count, Seed
from prep.taste_effects import (
    ITEM_WEIGHTS,
    LABEL_NOISE,
    Residuals,
    alternating_effects,
    covariance_factors,
    item_effects,
    item_residual_means,
    regress_on_features,
    training_residuals,
)

# Where the search starts, and the centre of the prior: found on MovieLens 100K's validation split.
TASTE_WEIGHTS = {
    "constant": 0.06, "mood": 0.10, "category": 0.05, "year": 0.05, "pros": 0.10, "cons": 0.05,
    "covariance": 0.02,
}  # fmt: skip
MOOD_DECAY = 0.85
CALIBRATION = (-2.7, 5.3, 6.1)
MIN_LABELS = 200  # with fewer validation labels the defaults stay
CALIBRATION_LABELS = 20_000
CALIBRATION_STRENGTH = 100.0  # scikit-learn's C
_AT_ONCE = 512
_PRECISION = jax.lax.Precision.HIGHEST


@dataclass(frozen=True)
class TasteTraining:
    """How the taste model is fitted."""

    context: Count = 64
    """Preceding interactions from which a validation label is predicted while the kernels' weights are fitted."""
    max_labels: Count = 4_000
    """Validation labels that the weights are fitted to, at most; drawn with the seed."""
    iterations: Annotated[int, Ge(0)] = 40
    """Steps of the search for the weights, at most; 0 keeps the defaults."""
    prior_deviation: Annotated[float, Gt(0)] = 1.0
    """Standard deviation of the prior on the logarithm of each weight."""
    covariance_rank: Annotated[int, Ge(0)] = 16
    """Factors of the covariance of residuals; 0 leaves this part of the kernel out."""
    calibration_context: Count = 120
    """Preceding interactions from which a validation label is predicted while the calibration is fitted."""
    seed: Seed = 0
    """Seed of the choice of labels."""

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: the first setting that is out of its bounds.
        """
        check_settings(self, option_prefix="--taste.")


class Examples(NamedTuple):
    """E validation labels with the C interactions before each; the latest stand last.

    Attributes:
        item: int32[E].
        label: float32[E].
        history_items: int32[E, C], 0 for padding.
        history_labels: float32[E, C].
        present: bool[E, C], False for padding.
    """

    item: np.ndarray
    label: np.ndarray
    history_items: np.ndarray
    history_labels: np.ndarray
    present: np.ndarray


@struct.dataclass
class Weights:
    """What is fitted.

    Attributes:
        item: weights of the kernel of item effects, float32[] by part.
        taste: weights of the kernel of tastes, float32[] by part.
        mood_decay: float32[].
        calibration: float32[3], w of `jaxsim.taste`.
    """

    item: dict[str, jax.Array]
    taste: dict[str, jax.Array]
    mood_decay: jax.Array
    calibration: jax.Array


def train_taste(
    arrays: Mapping[str, np.ndarray],
    years: np.ndarray,
    config: TasteTraining,
    without: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Fit the taste model of a packed dataset.

    Args:
        arrays: of the pack (see `jaxsim.Dataset`); labels of the test split are not read.
        years: float32[N], NaN where an item has none.
        config: settings.
        without: parts of both kernels to leave out, of `jaxsim.taste_kernel.PARTS`, "constant" and "mood".

    Returns:
        The arrays for `taste.safetensors`, and the manifest's `taste` entry.
    """
    data = _prepare(arrays, years, config.covariance_rank, without)
    residuals, parts, item_mean = data.residuals, data.parts, data.item_mean
    has_times = bool(np.ptp(arrays["interaction_time"]) > 0)
    start = default_weights(parts, has_times, without)
    fitted, effort = _search(arrays, residuals, parts, item_mean, start, config)
    effect = item_effects(residuals, parts, item_mean, _floats(fitted.item))
    fitted = _calibrated(arrays, residuals, parts, effect, fitted, config)
    entry = {
        "mean": residuals.mean,
        "item_weights": {**_floats(fitted.item), "label_noise": LABEL_NOISE},
        "taste_weights": _floats(fitted.taste),
        "mood_decay": float(fitted.mood_decay),
        "calibration": [float(w) for w in fitted.calibration],
        "training": asdict(config),
        **effort,
    }
    return _packed(effect, years, data.factors), entry


def estimate_taste(
    arrays: Mapping[str, np.ndarray],
    years: np.ndarray,
    entry: Mapping[str, Any],
    without: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], float]:
    """Estimate item effects, covariance and mean again, under weights that have been fitted before.

    Args:
        arrays: of a pack whose training interactions or item features differ from those of the fit.
        years: float32[N], NaN where an item has none.
        entry: the manifest's `taste` entry of that fit.
        without: the parts that it left out.

    Returns:
        The arrays for `taste.safetensors`, and the mean training label.
    """
    data = _prepare(arrays, years, entry["training"]["covariance_rank"], without)
    effect = item_effects(data.residuals, data.parts, data.item_mean, entry["item_weights"])
    return _packed(effect, years, data.factors), data.residuals.mean


class _Prepared(NamedTuple):
    """What both take from the training interactions: residuals, all parts, factors, and means of the items."""

    residuals: Residuals
    parts: dict[str, np.ndarray]
    factors: np.ndarray
    item_mean: np.ndarray


def _prepare(
    arrays: Mapping[str, np.ndarray], years: np.ndarray, rank: int, without: Sequence[str]
) -> _Prepared:
    residuals = training_residuals(arrays)
    features = part_features(arrays, years, None)
    parts = {name: x for name, x in features.items() if name not in without}
    effect, user_mean = alternating_effects(residuals, parts, ITEM_WEIGHTS)
    factors = covariance_factors(residuals, effect, user_mean, rank)
    item_mean = item_residual_means(residuals, user_mean)
    if factors.any() and "covariance" not in without:
        parts["covariance"] = factors
    return _Prepared(residuals, parts, factors, item_mean)


def _packed(effect: np.ndarray, years: np.ndarray, factors: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of `taste.safetensors`."""
    return {
        "item_effect": effect.astype(np.float32),
        "item_year": years.astype(np.float32),
        "covariance_factors": factors.astype(np.float32),
    }


def default_weights(
    parts: Mapping[str, np.ndarray], has_times: bool, without: Sequence[str] = ()
) -> Weights:
    """Where the search starts: the defaults of the parts that the data has.

    Args:
        parts: of `jaxsim.taste_kernel.part_features`.
        has_times: without times there is no mood.
        without: parts to leave out, also of "constant" and "mood".
    """

    def chosen(weights: Mapping[str, float], always: Sequence[str]) -> dict[str, jax.Array]:
        return {n: jnp.float32(w) for n, w in weights.items() if n in parts or n in always}

    always = [name for name in ("constant", "mood") if name not in without]
    if not has_times and "mood" in always:
        always.remove("mood")
    return Weights(
        item=chosen(ITEM_WEIGHTS, ("own",)),
        taste=chosen(TASTE_WEIGHTS, always),
        mood_decay=jnp.float32(MOOD_DECAY),
        calibration=jnp.asarray(CALIBRATION, jnp.float32),
    )


def validation_examples(
    arrays: Mapping[str, np.ndarray], context: int, max_labels: int | None, seed: int
) -> Examples:
    """The validation labels, at most `max_labels` of them, with the interactions before each."""
    rows = validation_rows(arrays, max_labels, seed)
    user = np.searchsorted(arrays["user_offsets"], rows, side="right") - 1
    index = rows[:, None] + np.arange(-context, 0)
    present = index >= arrays["user_offsets"][user][:, None]
    index = np.where(present, index, 0)
    labels = arrays["interaction_label"]
    return Examples(
        item=arrays["interaction_item"][rows],
        label=labels[rows].astype(np.float32),
        history_items=np.where(present, arrays["interaction_item"][index], 0).astype(np.int32),
        history_labels=np.where(present, labels[index], 0).astype(np.float32),
        present=present,
    )


def validation_rows(
    arrays: Mapping[str, np.ndarray], max_labels: int | None, seed: int
) -> np.ndarray:
    """The validation interactions, at most `max_labels` of them, ascending int64[E]."""
    rows = np.flatnonzero(arrays["interaction_split"] == VALIDATION)
    if max_labels is not None and len(rows) > max_labels:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_labels, replace=False))
    return rows


def predicted_tastes(
    of_items: jax.Array,
    mood: jax.Array | float,
    decay: jax.Array | float,
    residual: jax.Array,
    present: jax.Array,
) -> jax.Array:
    """The tastes g of E examples, each from the C interactions before it, float32[E].

    Args:
        of_items: float32[E, C + 1, C + 1], the kernel of the history's items and, last, the example's item.
        mood, decay: weight and decay of the mood.
        residual: float32[E, C], labels less the mean and the items' effects.
        present: bool[E, C].
    """
    context = present.shape[1]
    place = jnp.arange(context + 1, dtype=jnp.float32)
    kernel = of_items + mood * decay ** jnp.abs(place[:, None] - place[None])
    both = present[:, :, None] & present[:, None]
    system = jnp.where(both, kernel[:, :-1, :-1], 0.0) + jnp.eye(context, dtype=jnp.float32)
    alpha = jax.vmap(_solve)(system, jnp.where(present, residual, 0.0))
    return jnp.sum(jnp.where(present, kernel[:, -1, :-1], 0.0) * alpha, axis=1)


def _solve(system: jax.Array, right: jax.Array) -> jax.Array:
    return jax.scipy.linalg.solve(system, right, assume_a="pos")


def gram_matrices(features: np.ndarray, examples: Examples) -> jax.Array:
    """Inner products of features float64[N, F] among an example's history and it, float32[E, C + 1, C + 1]."""
    items = np.concatenate([examples.history_items, examples.item[:, None]], axis=1)
    return _grams(jnp.asarray(features, jnp.float32), jnp.asarray(items))


@jax.jit
def _grams(features: jax.Array, items: jax.Array) -> jax.Array:
    """Inner products of features float32[N, F] among each row of items int32[E, C], float32[E, C, C]."""

    def gram(row: jax.Array) -> jax.Array:
        return jnp.matmul(features[row], features[row].T, precision=_PRECISION)

    return jax.lax.map(gram, items, batch_size=64)


class SearchData(NamedTuple):
    """What the search for weights reads; an argument of the compiled objective, which must not hold it.

    Attributes:
        start: where the search starts, unbounded.
        deviation: of the prior around it.
        examples: E validation labels.
        grams: float32[E, C + 1, C + 1] of each part of the kernel of tastes.
        features: float32[N, F] of each part of the kernel of item effects.
        item_count, item_mean: float32[N].
        mean: of the training labels.
    """

    start: Weights
    deviation: float
    examples: Examples
    grams: dict[str, jax.Array]
    features: dict[str, jax.Array]
    item_count: jax.Array
    item_mean: jax.Array
    mean: float


def _search(
    arrays: Mapping[str, np.ndarray],
    residuals: Residuals,
    parts: Mapping[str, np.ndarray],
    item_mean: np.ndarray,
    start: Weights,
    config: TasteTraining,
) -> tuple[Weights, dict[str, Any]]:
    """The weights with the highest posterior on the validation labels, and what the manifest says about it."""
    examples = validation_examples(arrays, config.context, config.max_labels, config.seed)
    count = len(examples.label)
    if count < MIN_LABELS or config.iterations == 0:
        return start, {"labels": count, "steps": 0}
    unbounded = _to_unbounded(start)
    data = SearchData(
        start=unbounded,
        deviation=config.prior_deviation,
        examples=jax.tree.map(jnp.asarray, examples),
        grams={n: gram_matrices(x, examples) for n, x in parts.items() if n in start.taste},
        features={n: jnp.asarray(x, jnp.float32) for n, x in parts.items() if n in start.item},
        item_count=jnp.asarray(residuals.item_count, jnp.float32),
        item_mean=jnp.asarray(item_mean, jnp.float32),
        mean=residuals.mean,
    )
    vector, unflatten = ravel_pytree(unbounded)

    def evaluate(vector: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _objective(unflatten(jnp.asarray(vector, jnp.float32)), data)
        return float(value), np.asarray(ravel_pytree(slope)[0], np.float64)

    result = scipy.optimize.minimize(
        evaluate,
        np.asarray(vector, np.float64),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": config.iterations, "ftol": 1e-6},
    )
    fitted = _from_unbounded(unflatten(jnp.asarray(result.x, jnp.float32)))
    return fitted, {"labels": count, "steps": int(result.nit)}


@jax.jit
@jax.value_and_grad
def _objective(unbounded: Weights, data: SearchData) -> jax.Array:
    """Negative log-posterior of the weights, float32[]."""
    weights, example = _from_unbounded(unbounded), data.examples
    own_only = jnp.zeros((len(data.item_count), 1), jnp.float32)
    scaled = [jnp.sqrt(weights.item[name]) * x for name, x in data.features.items()]
    effect = regress_on_features(
        jnp,
        jnp.concatenate([own_only, *scaled], axis=1),
        data.item_count,
        data.item_mean,
        weights.item["own"],
    )
    constant = weights.taste.get("constant", 0.0) * jnp.ones(
        (len(example.label), 1, 1), jnp.float32
    )
    of_items = sum((weights.taste[name] * gram for name, gram in data.grams.items()), constant)
    residual = jnp.asarray(example.history_labels) - data.mean - effect[example.history_items]
    mood = weights.taste.get("mood", 0.0)
    taste = predicted_tastes(
        of_items, mood, weights.mood_decay, residual, jnp.asarray(example.present)
    )
    intercept, of_item, of_taste = weights.calibration
    log_odds = intercept + of_item * (data.mean + effect[example.item]) + of_taste * taste
    losses = jnp.logaddexp(0.0, log_odds) - example.label * log_odds
    distance = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), unbounded, data.start)
    return losses.sum() + sum(jax.tree.leaves(distance)) / (2 * data.deviation**2)


def _calibrated(
    arrays: Mapping[str, np.ndarray],
    residuals: Residuals,
    parts: Mapping[str, np.ndarray],
    effect: np.ndarray,
    weights: Weights,
    config: TasteTraining,
) -> Weights:
    """The weights with a calibration for long histories: a logistic regression on validation labels."""
    examples = validation_examples(
        arrays, config.calibration_context, CALIBRATION_LABELS, config.seed
    )
    if len(examples.label) < MIN_LABELS or len(np.unique(examples.label)) < 2:
        return weights
    features = weighted_features(parts, _floats(weights.taste), len(effect))
    mood = weights.taste.get("mood", 0.0), weights.mood_decay
    item_mean = residuals.mean + effect
    tastes = tastes_of(examples, features, mood, residuals.mean, effect)
    predictors = np.stack([item_mean[examples.item], tastes], axis=1)
    # Weak regularisation keeps the weights finite where few labels can be parted.
    model = LogisticRegression(C=CALIBRATION_STRENGTH).fit(predictors, examples.label)
    fitted = [float(model.intercept_[0]), *(float(w) for w in model.coef_[0])]
    return replace(weights, calibration=jnp.asarray(fitted, jnp.float32))


def tastes_of(
    examples: Examples,
    features: np.ndarray,
    mood: tuple[jax.Array | float, jax.Array | float],
    mean: float,
    effect: np.ndarray,
) -> np.ndarray:
    """The tastes g of E examples, float32[E].

    Args:
        examples: the labels to be predicted.
        features: float64[N, F], of the kernel of items.
        mood: its weight and its decay.
        mean: m.
        effect: float[N], b.
    """
    tastes: list[jax.Array] = []
    for first in range(0, len(examples.label), _AT_ONCE):
        piece = Examples(*(x[first : first + _AT_ONCE] for x in examples))
        rest = piece.history_labels - mean - effect[piece.history_items]
        arguments = jnp.asarray(rest, jnp.float32), jnp.asarray(piece.present)
        tastes.append(_predicted_tastes(gram_matrices(features, piece), *mood, *arguments))
    return np.concatenate(tastes)


def validation_log_odds(
    arrays: Mapping[str, np.ndarray],
    packed: Mapping[str, np.ndarray],
    entry: Mapping[str, Any],
    examples: Examples,
) -> np.ndarray:
    """The log-odds of a like of E examples by a fitted taste model, float64[E].

    Args:
        arrays: of the pack.
        packed, entry: what `train_taste` returned.
        examples: the labels to be predicted.
    """
    weights, effect = entry["taste_weights"], packed["item_effect"].astype(np.float64)
    parts = part_features(arrays, packed["item_year"], packed["covariance_factors"])
    features = weighted_features(parts, weights, len(effect))
    mood = weights.get("mood", 0.0), entry["mood_decay"]
    taste = tastes_of(examples, features, mood, entry["mean"], effect)
    intercept, of_item, of_taste = entry["calibration"]
    item_mean = entry["mean"] + effect[examples.item]
    return intercept + of_item * item_mean + of_taste * taste.astype(np.float64)


_predicted_tastes = jax.jit(predicted_tastes)


def _to_unbounded(weights: Weights) -> Weights:
    """Logarithms of the weights, log-odds of the decay, and the calibration as it is."""
    decay = weights.mood_decay
    return Weights(
        item=jax.tree.map(jnp.log, weights.item),
        taste=jax.tree.map(jnp.log, weights.taste),
        mood_decay=jnp.log(decay) - jnp.log1p(-decay),
        calibration=weights.calibration,
    )


def _from_unbounded(values: Weights) -> Weights:
    return Weights(
        item=jax.tree.map(jnp.exp, values.item),
        taste=jax.tree.map(jnp.exp, values.taste),
        mood_decay=jax.nn.sigmoid(values.mood_decay),
        calibration=values.calibration,
    )


def _floats(weights: Mapping[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in weights.items()}
