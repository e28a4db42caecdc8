"""Training of f_sta, the SASRec of `jaxsim.sasrec`, on a dataset's training interactions.

Each training interaction is predicted from those before it in its user's sequence, by binary cross-entropy
with a Gaussian prior on the item embeddings (without it, rarely rated items are learned by heart). Long
sequences are cut into windows at a random offset each epoch, so that every position of the window is trained.
The weights of the epoch with the best validation AUC are kept.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from jaxsim import InputError
from jaxsim.dataset import TRAIN, VALIDATION
from jaxsim.sasrec import SASRec


@dataclass(frozen=True)
class SASRecTraining:
    """How the statistic model is built and trained."""

    window: int = 150
    """Longest history that the model reads: history_length + session_capacity of the environment."""
    width: int = 32
    """Width of embeddings and blocks."""
    num_blocks: int = 2
    """Transformer blocks."""
    num_heads: int = 1
    """Attention heads."""
    dropout: float = 0.2
    """Dropout rate while training."""
    epochs: int = 8
    """Passes over the training interactions, at most."""
    patience: int = 3
    """Stop after this many epochs without a better validation AUC."""
    batch_size: int = 16
    """Windows in a gradient step."""
    learning_rate: float = 4e-3
    """Peak learning rate of AdamW (linear warm-up, cosine decay)."""
    weight_decay: float = 0.1
    """Decoupled weight decay of AdamW."""
    embedding_penalty: float = 1e-3
    """Weight of the squared norm of the item and candidate embeddings, against the loss of one interaction."""
    context: int = 50
    """Preceding interactions that a validation label is judged on."""
    seed: int = 0
    """Seed of initialisation, dropout and order."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        counts = (
            "window",
            "width",
            "num_blocks",
            "num_heads",
            "epochs",
            "patience",
            "batch_size",
            "context",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise InputError(
                    f"--sasrec.{_flag(name)} {getattr(self, name)}: give a whole number from 1"
                )
        if self.width % self.num_heads:
            raise InputError(
                f"--sasrec.num-heads {self.num_heads}: must divide the width, {self.width}"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"--sasrec.dropout {self.dropout:g}: give a share from 0 and below 1")
        for name in ("learning_rate", "weight_decay", "embedding_penalty"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"--sasrec.{_flag(name)} {value:g}: give a finite number from 0")


def _flag(name: str) -> str:
    return name.replace("_", "-")


class Windows(NamedTuple):
    """Left-aligned pieces of sequences: items int32[B, T] (-1 pads), labels int8[B, T], users int32[B]."""

    items: np.ndarray
    labels: np.ndarray
    users: np.ndarray


def train_sasrec(
    arrays: Mapping[str, np.ndarray], config: SASRecTraining
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train the statistic model of a packed dataset.

    Args:
        arrays: interaction arrays of the pack (see `jaxsim.Dataset`); labels of the test split are not read.
        config: settings.

    Returns:
        Flat name -> weight for `sasrec.safetensors`, and the manifest's `sasrec` entry.

    Raises:
        InputError: the training diverged.
    """
    model = SASRec(
        num_items=len(arrays["item_categories"]),
        num_users=len(arrays["user_offsets"]) - 1,
        window=config.window,
        width=config.width,
        num_blocks=config.num_blocks,
        num_heads=config.num_heads,
        dropout=config.dropout,
    )
    best, auc, epoch = _fit(model, arrays, config)
    entry = {
        "architecture": model.architecture,
        "training": asdict(config),
        "epochs_trained": epoch,
        "validation_auc": round(auc, 6) if np.isfinite(auc) else None,
    }
    return {name: np.asarray(w) for name, w in flatten_dict(best, sep="/").items()}, entry


def _fit(
    model: SASRec, arrays: Mapping[str, np.ndarray], config: SASRecTraining
) -> tuple[Any, float, int]:
    """The weights of the best epoch, its validation AUC (NaN if there is none) and its number."""
    rng = np.random.default_rng(config.seed)
    key, key_init = jax.random.split(jax.random.key(config.seed))
    windows = cut_windows(arrays, config.window, rng)
    one = jax.tree.map(lambda x: jnp.asarray(x[0]), windows)
    weights = model.init(key_init, *one, method="next_logits")["params"]
    optimiser = _optimiser(config, len(windows.users))
    tokens_per_window = float((windows.items >= 0).sum() / len(windows.users))
    step = jax.jit(partial(_gradient_step, model, optimiser, config, tokens_per_window))
    state = (weights, optimiser.init(weights))

    best, best_auc, best_epoch = weights, -np.inf, 0
    epochs = range(1, config.epochs + 1)
    progress = tqdm(epochs, desc="train SASRec", unit="epoch", disable=None, delay=1)
    for epoch in progress:
        for batch in _batches(cut_windows(arrays, config.window, rng), config, rng):
            key, key_step = jax.random.split(key)
            state = step(state, key_step, batch)
        if not all(np.isfinite(w).all() for w in jax.tree.leaves(jax.device_get(state[0]))):
            raise InputError(
                f"SASRec diverged in epoch {epoch}: lower --sasrec.learning-rate {config.learning_rate:g}"
            )
        auc = validation_auc(model, state[0], arrays, config.context)
        progress.set_postfix(validation_auc=f"{auc:.4f}")
        if auc > best_auc or not np.isfinite(auc):
            best, best_auc, best_epoch = state[0], auc, epoch
        if epoch - best_epoch >= config.patience:
            break
    progress.close()
    return best, float(best_auc), best_epoch


def _optimiser(config: SASRecTraining, num_windows: int) -> optax.GradientTransformation:
    steps = config.epochs * max(1, num_windows // config.batch_size)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, steps // 20), max(2, steps), 0.02 * config.learning_rate
    )
    return optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay)


def _gradient_step(
    model: SASRec,
    optimiser: optax.GradientTransformation,
    config: SASRecTraining,
    tokens_per_window: float,
    state: tuple[Any, Any],
    key: jax.Array,
    batch: Windows,
) -> tuple[Any, Any]:
    """One AdamW step on a batch of windows."""
    weights, optimiser_state = state

    def window_loss(weights: Any, items: Any, labels: Any, user: Any, key: jax.Array) -> jax.Array:
        logits = model.apply(
            {"params": weights},
            items,
            labels,
            user,
            False,
            method="next_logits",
            rngs={"dropout": key},
        )
        losses = optax.sigmoid_binary_cross_entropy(logits, (labels > 0).astype(jnp.float32))
        return jnp.where(items >= 0, losses, 0.0).sum()

    def loss(weights: Any) -> jax.Array:
        keys = jax.random.split(key, len(batch.users))
        total = jax.vmap(window_loss, (None, 0, 0, 0, 0))(weights, *batch, keys).sum()
        tables = (weights["item_embedding"], weights["candidate_embedding"])
        squared = sum(jnp.sum(table["embedding"] ** 2) for table in tables)
        # A fixed divisor: by the tokens of the batch, interactions in short windows would weigh more.
        return total / (tokens_per_window * config.batch_size) + config.embedding_penalty * squared

    updates, optimiser_state = optimiser.update(jax.grad(loss)(weights), optimiser_state, weights)
    return optax.apply_updates(weights, updates), optimiser_state


def cut_windows(arrays: Mapping[str, np.ndarray], window: int, rng: np.random.Generator) -> Windows:
    """The training interactions of every user, cut into windows at a random offset.

    Args:
        arrays: interaction arrays of the pack.
        window: longest piece, T.
        rng: draws the offsets.
    """
    pieces: list[tuple[int, np.ndarray]] = []
    offsets = arrays["user_offsets"]
    for user in range(len(offsets) - 1):
        rows = np.arange(offsets[user], offsets[user + 1])
        train = rows[arrays["interaction_split"][rows] == TRAIN]
        first = int(rng.integers(1, window + 1)) if len(train) > window else window
        cuts = np.split(train, np.arange(first, len(train), window))
        pieces += [(user, piece) for piece in cuts if len(piece)]
    items = np.full((len(pieces), window), -1, np.int32)
    labels = np.zeros((len(pieces), window), np.int8)
    for row, (_, piece) in enumerate(pieces):
        items[row, : len(piece)] = arrays["interaction_item"][piece]
        labels[row, : len(piece)] = arrays["interaction_label"][piece]
    return Windows(items, labels, np.array([user for user, _ in pieces], np.int32))


def _batches(
    windows: Windows, config: SASRecTraining, rng: np.random.Generator
) -> Iterator[Windows]:
    """Batches of similar lengths in random order, trimmed to a third of the window where they fit."""
    length = (windows.items >= 0).sum(axis=1)
    order = np.argsort(length + rng.uniform(0, config.window / 8, len(length)))
    # Sampling with replacement fills the only batch of a dataset smaller than one.
    if len(order) < config.batch_size:
        order = rng.choice(order, config.batch_size)
    num_batches = len(order) // config.batch_size
    spare = len(order) - num_batches * config.batch_size
    order = np.delete(order, rng.choice(len(order), spare, replace=False))
    short = max(1, config.window // 3)
    for index in rng.permutation(num_batches):
        rows = order[index * config.batch_size : (index + 1) * config.batch_size]
        stop = short if length[rows].max() <= short else config.window
        yield Windows(windows.items[rows, :stop], windows.labels[rows, :stop], windows.users[rows])


def validation_auc(
    model: SASRec, weights: Any, arrays: Mapping[str, np.ndarray], context: int
) -> float:
    """ROC-AUC on the validation split, each label judged on the `context` interactions before it.

    NaN where the split has not both labels.
    """
    rows = np.flatnonzero(arrays["interaction_split"] == VALIDATION)
    offsets = arrays["user_offsets"]
    users = (np.searchsorted(offsets, rows, side="right") - 1).astype(np.int32)
    context = min(context, model.window - 1)
    first = np.maximum(rows - context, offsets[users])
    index = first[:, None] + np.arange(context + 1)
    inside = index <= rows[:, None]
    index = np.minimum(index, len(arrays["interaction_item"]) - 1)
    items = np.where(inside, arrays["interaction_item"][index], -1).astype(np.int32)
    labels = np.where(inside, arrays["interaction_label"][index], 0).astype(np.int8)
    truth = arrays["interaction_label"][rows]
    if len(np.unique(truth)) < 2:
        return float("nan")
    position = jnp.asarray(rows - first, jnp.int32)
    logits = _predict(model, weights, Windows(items, labels, users), position)
    return float(roc_auc_score(truth, np.asarray(logits)))


@partial(jax.jit, static_argnames="model")
def _predict(model: SASRec, weights: Any, windows: Windows, position: jax.Array) -> jax.Array:
    """Log-odds of the interaction at `position` of each window, float32[B]."""

    def one(window: tuple[Windows, jax.Array]) -> jax.Array:
        (items, labels, user), at = window
        return model.apply({"params": weights}, items, labels, user, method="next_logits")[at]

    return jax.lax.map(one, (windows, position), batch_size=512)
