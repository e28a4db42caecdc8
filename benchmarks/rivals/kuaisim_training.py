"""Training of the KuaiSim-style model on the training interactions, with early stopping on the validation labels.

KuaiSim serves a request with a slate of items, and its model states their probabilities from the history before
the request. So training cuts each user's sequence into slates of K items, at another random offset in each epoch,
and predicts each label of a slate from the latest L interactions before it. The result has the weights of the
epoch with the best ROC-AUC on the validation labels, each predicted alone from the L interactions before it.
Labels of the test split are not read.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import Ge, Gt, Lt
from sklearn.metrics import roc_auc_score

from benchmarks.fidelity import simulator
from benchmarks.fidelity.events import Events, events_of
from benchmarks.fidelity.predictor import CannotFitError, Fitted, Predictor, TrainingData
from benchmarks.rivals.kuaisim import KuaiSim, KuaiSimParams, KuaiSimUser
from jaxsim import Dataset, InputError, UserModel
from jaxsim.settings import check_settings
from prep.statistic_model import Sequences, training_sequences


@dataclass(frozen=True)
class KuaiSimTraining:
    """How the KuaiSim-style model is trained. The bounds are checked by `train_kuaisim`."""

    window: Annotated[int, Ge(1)] = 50
    """L, the latest interactions that it reads: as many as held-out labels are predicted from."""
    slate: Annotated[int, Ge(1)] = 5
    """K, items of a slate."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    """Dropout rate."""
    epochs: Annotated[int, Ge(1)] = 4
    """Passes over the training interactions, at most."""
    patience: Annotated[int, Ge(1)] = 2
    """Stop after this many epochs without a better validation AUC."""
    batch_size: Annotated[int, Ge(1)] = 64
    """Slates in a gradient step."""
    learning_rate: Annotated[float, Gt(0)] = 2e-3
    """Peak learning rate of AdamW (linear warm-up, cosine decay)."""
    weight_decay: Annotated[float, Ge(0)] = 0.1
    """Decoupled weight decay of AdamW."""
    seed: Annotated[int, Ge(0)] = 0
    """Seed of initialisation, dropout, offsets and order."""


class Slates(NamedTuple):
    """P slates with the histories before them.

    Attributes:
        items: int32[P, L], left-aligned histories, -1 pads. likes: int8[P, L].
        length: int32[P]. user: int32[P].
        slate: int32[P, K], the items to be predicted, -1 pads. labels: int8[P, K].
    """

    items: np.ndarray
    likes: np.ndarray
    length: np.ndarray
    user: np.ndarray
    slate: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class TrainedKuaiSim:
    """The result of a training: the model for `jaxsim.make`, its params, and how it came about."""

    model: KuaiSimUser
    params: KuaiSimParams
    about: dict[str, Any]


def train_kuaisim(dataset: Dataset, config: KuaiSimTraining) -> TrainedKuaiSim:
    """Train the model of a dataset.

    Raises:
        InputError: a setting is out of bounds, there are no training interactions or no likes and dislikes among
            the validation labels, or the training diverged.
    """
    check_settings(config, option_prefix="--kuaisim.")
    try:
        return _train(dataset, config)
    except CannotFitError as reason:
        raise InputError(f"{dataset.name}: the KuaiSim-style model {reason}") from None


def _fit_predictor(data: TrainingData) -> Fitted:
    trained = _train(data.dataset, KuaiSimTraining(window=data.context))
    return Fitted(lambda events: probabilities(trained.model, trained.params, events))


KUAISIM = Predictor(
    "kuaisim",
    "model",
    "in the manner of KuaiSim: a transformer over the history",
    _fit_predictor,
    is_probability=True,
    uses_validation=True,
    refit="slow",
)
"""The model with its default training, for the benchmark of policies."""


def _train(dataset: Dataset, config: KuaiSimTraining) -> TrainedKuaiSim:
    begin = time.perf_counter()
    validation = events_of(dataset, "validation", config.window)
    sequences = training_sequences(dataset.arrays)
    if not len(sequences.items) or len(np.unique(validation.label)) < 2:
        raise CannotFitError(
            "needs training interactions, and likes and dislikes among the validation labels"
        )
    network = KuaiSim(
        num_items=dataset.num_items,
        num_users=dataset.num_users,
        num_categories=max(1, len(dataset.categories)),
        window=config.window,
        dropout=config.dropout,
    )
    categories = jnp.asarray(dataset.arrays["item_categories"])
    params, aucs = _fit(network, categories, sequences, validation, config)
    about = {
        "training": asdict(config),
        "validation_auc": [round(auc, 6) for auc in aucs],
        "epoch": int(np.argmax(aucs)) + 1,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return TrainedKuaiSim(KuaiSimUser(network), params, about)


def _fit(
    network: KuaiSim,
    categories: jax.Array,
    sequences: Sequences,
    validation: Events,
    config: KuaiSimTraining,
) -> tuple[KuaiSimParams, list[float]]:
    """The params of the best epoch, and the validation AUC of each epoch."""
    rng = np.random.default_rng(config.seed)
    key, key_init = jax.random.split(jax.random.key(config.seed))
    first = jax.tree.map(lambda x: x[0], next(slates_of(sequences, config, rng)))
    weights = network.init(key_init, categories, *first[:5], method="slate_logits")["params"]
    per_epoch = sum(1 for _ in slates_of(sequences, config, rng))
    optimiser = _optimiser(config, config.epochs * per_epoch)
    step = jax.jit(partial(_gradient_step, network, optimiser), donate_argnums=0)
    state, aucs = (weights, optimiser.init(weights)), list[float]()
    best = _params(network, categories, weights)
    for epoch in range(config.epochs):
        for batch in slates_of(sequences, config, rng):
            key, key_step = jax.random.split(key)
            state = jax.block_until_ready(step(state, key_step, categories, batch))
        params = _params(network, categories, jax.tree.map(jnp.copy, state[0]))
        scores = probabilities(KuaiSimUser(network), params, validation)
        if not np.isfinite(scores).all():
            raise CannotFitError(
                f"diverged in epoch {epoch + 1}: lower its learning rate {config.learning_rate:g}"
            )
        aucs.append(float(roc_auc_score(validation.label, scores)))
        if aucs[-1] == max(aucs):
            best = params
        elif epoch - int(np.argmax(aucs)) >= config.patience:
            break
    return best, aucs


def _params(network: KuaiSim, categories: jax.Array, weights: Any) -> KuaiSimParams:
    variables = {"params": weights}
    vectors = network.apply(variables, categories, method="item_vectors")
    return KuaiSimParams(variables, vectors)


def _optimiser(config: KuaiSimTraining, steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, steps // 20), max(2, steps), 0.02 * config.learning_rate
    )
    return optax.adamw(schedule, weight_decay=config.weight_decay)


def _gradient_step(
    network: KuaiSim,
    optimiser: optax.GradientTransformation,
    state: tuple[Any, Any],
    key: jax.Array,
    categories: jax.Array,
    batch: Slates,
) -> tuple[Any, Any]:
    """One AdamW step on a batch of slates."""
    weights, optimiser_state = state

    def slate_loss(weights: Any, row: Slates, key: jax.Array) -> jax.Array:
        logits = network.apply(
            {"params": weights}, categories, *row[:5], False, method="slate_logits",
            rngs={"dropout": key},
        )  # fmt: skip
        losses = optax.sigmoid_binary_cross_entropy(logits, row.labels.astype(jnp.float32))
        return jnp.where(row.slate >= 0, losses, 0.0).sum()

    def loss(weights: Any) -> jax.Array:
        keys = jax.random.split(key, len(batch.user))
        total = jax.vmap(slate_loss, (None, 0, 0))(weights, batch, keys).sum()
        return total / jnp.sum(batch.slate >= 0)

    updates, optimiser_state = optimiser.update(jax.grad(loss)(weights), optimiser_state, weights)
    return optax.apply_updates(weights, updates), optimiser_state


def slates_of(
    sequences: Sequences, config: KuaiSimTraining, rng: np.random.Generator
) -> Iterator[Slates]:
    """Yield one epoch: batches of slates in random order, cut at a random offset for each user.

    A remainder smaller than a batch is left out, unless it is all there is.
    """
    size = config.slate
    users = np.repeat(np.arange(len(sequences.counts)), sequences.counts)
    place = np.arange(len(users)) - (np.cumsum(sequences.counts) - sequences.counts)[users]
    offset = rng.integers(0, size, len(sequences.counts))[users]
    starts = np.flatnonzero((place == 0) | ((place - offset) % size == 0))
    order = rng.permutation(starts)
    batch_size = min(config.batch_size, len(order))
    stops = np.append(starts[1:], len(users))
    for first in range(0, len(order) - batch_size + 1, batch_size):
        chosen = order[first : first + batch_size]
        stop = stops[np.searchsorted(starts, chosen)]
        yield _cut(sequences, config, users, place, chosen, stop)


def _cut(
    sequences: Sequences,
    config: KuaiSimTraining,
    users: np.ndarray,
    place: np.ndarray,
    start: np.ndarray,
    stop: np.ndarray,
) -> Slates:
    """The slates [start, stop) int64[P] of all training interactions, whose users and places are int[R]."""
    length = np.minimum(place[start], config.window)
    history = (start - length)[:, None] + np.arange(config.window)
    slate = start[:, None] + np.arange(config.slate)
    parts = []
    for rows, inside in (
        (history, np.arange(config.window) < length[:, None]),
        (slate, slate < stop[:, None]),
    ):
        rows = np.where(inside, rows, 0)
        parts.append(np.where(inside, sequences.items[rows], np.int32(-1)))
        parts.append(np.where(inside, sequences.labels[rows], np.int8(0)))
    items, likes, slate_items, labels = parts
    user = users[start].astype(np.int32)
    return Slates(items, likes, length.astype(np.int32), user, slate_items, labels)


def probabilities(model: UserModel, params: Any, events: Events) -> np.ndarray:
    """A model's probability of a like of each of E events, float64[E]."""
    parts = []
    # At least one batch, so that no events have results of the right number, too.
    for first in range(0, max(1, len(events)), simulator.BATCH):
        rows = slice(first, first + simulator.BATCH)
        event = (events.user, events.item)
        history = (events.history_items, events.history_labels, events.present)
        batch = [jnp.asarray(simulator.padded(x[rows])) for x in (*event, *history)]
        parts.append(jax.device_get(_probabilities(model, params, *batch)))
    return np.concatenate(parts).astype(np.float64)[: len(events)]


@partial(jax.jit, static_argnames="model")
def _probabilities(model: UserModel, params: Any, *columns: jax.Array) -> jax.Array:
    def of_event(
        user: jax.Array, item: jax.Array, items: jax.Array, labels: jax.Array, present: jax.Array
    ) -> jax.Array:
        order, length = jnp.argsort(~present, stable=True), jnp.sum(present, dtype=jnp.int32)
        state = model.init(params, user, items[order], labels[order], length)
        return model.probability(params, state, item)

    return jax.vmap(of_event)(*columns)
