"""Training of f_sta, the SASRec of `jaxsim.sasrec`, on a dataset's training interactions.

Each training interaction is predicted from those before it in its user's sequence, by binary cross-entropy with
a Gaussian prior. Without the prior, the model memorises rarely rated items. In each epoch, long sequences are cut
into windows at a random offset, so that every position of the window is trained. The result has the weights of the
epoch with the best validation AUC.

Where items have many ratings, training starts from random weights, and the prior is on the item embeddings.
Where they have few, it starts from the items' like rates and the running residuals of users
(`prep.statistic_start`), and the prior is also on how far item effects deviate from the rates. This start counts
as epoch 0, so the result is not worse on validation labels than what training starts from.

f_sta is trained on the training interactions of all users, held-out users included, and has a user effect for each
of them. "Held out" means that agents never learn from the sessions of these users. It does not mean that the
simulator has no data about them. Labels of the validation split choose the epoch; labels of the test split are
never read.

The size of the encoder was first chosen with the test AUC in view. `python -m benchmarks statistic-model` compares
settings by validation AUC alone; docs/decisions.md has its result.

Batches grow with the dataset, so that an epoch has a bounded number of steps: every step updates the tables of all
items, however few of them are in its batch.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from annotated_types import Ge, Lt
from flax.traverse_util import flatten_dict
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from jaxsim import InputError
from jaxsim.dataset import TRAIN, VALIDATION
from jaxsim.sasrec import SASRec
from jaxsim.settings import check_settings
from prep.bounds import Amount, Count, Seed
from prep.statistic_start import (
    ItemRates,
    complete,
    fit_coefficients,
    item_rates,
    residual_means,
    start_weights,
)

Start = Literal["auto", "random", "rates"]
# From so many training interactions of a rated item on average, a SASRec needs no start from rates.
DENSE = 20


@dataclass(frozen=True)
class SASRecTraining:
    """How the statistic model is built and trained."""

    window: Count = 150
    """Longest history that the model reads: history_length + session_capacity of the environment."""
    width: Count = 32
    """Width of embeddings and blocks."""
    num_blocks: Count = 2
    """Transformer blocks."""
    num_heads: Count = 1
    """Attention heads."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.2
    """Dropout rate while training."""
    epochs: Count = 8
    """Passes over the training interactions, at most."""
    patience: Count = 3
    """Stop after this many epochs without a better validation AUC."""
    batch_size: Count = 16
    """Windows in a gradient step, at least."""
    epoch_steps: Count = 500
    """Gradient steps in an epoch, at most: batches grow if there would be more."""
    max_steps: Count | None = None
    """Stop after this many gradient steps in all. Without it, epochs and patience decide."""
    learning_rate: Amount = 4e-3
    """Peak learning rate of AdamW (linear warm-up, cosine decay)."""
    weight_decay: Amount = 0.1
    """Decoupled weight decay of AdamW."""
    start: Start = "auto"
    """Where training starts: `random` weights, as usual for a SASRec, or the items' like `rates` and the
    running residuals of users. `auto` takes rates where rated items have fewer than 20 training interactions on
    average."""
    embedding_penalty: Amount = 1e-3
    """With random weights: weight of the squared norm of the item and candidate embeddings, against the loss of
    one interaction."""
    prior: Amount = 80.0
    """With rates: weight of the squared norm of what training learns about each item, against the loss of all
    training interactions: of its embeddings, and of how far its effect is from its like rate."""
    decays: tuple[float, ...] = (0.8, 0.97, 1.0)
    """With rates: decays of the running means of a user's residuals; none leaves the means out."""
    context: Count = 50
    """Preceding interactions from which a validation label is predicted."""
    max_validation: Count = 50_000
    """Validation labels that epochs are compared by, and training labels that the start is fitted on, at most; the
    same in every epoch, drawn with the seed."""
    seed: Seed = 0
    """Seed of initialisation, dropout and order."""

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: the first setting that is out of its bounds, heads that do not divide the width, or a decay
                that is no share.
        """
        check_settings(self, option_prefix="--sasrec.")
        if self.width % self.num_heads:
            raise InputError(
                f"--sasrec.num-heads is {self.num_heads}: give a divisor of --sasrec.width, {self.width}"
            )
        for decay in self.decays:
            if not 0 < decay <= 1:
                raise InputError(f"--sasrec.decays has {decay:g}: give numbers above 0, up to 1")


class Windows(NamedTuple):
    """Left-aligned pieces of sequences: items int32[B, T] (-1 pads), labels int8[B, T], users int32[B]."""

    items: np.ndarray
    labels: np.ndarray
    users: np.ndarray


class Sequences(NamedTuple):
    """All training interactions, user after user: items int32[R], labels int8[R]; counts int64[U] of the users."""

    items: np.ndarray
    labels: np.ndarray
    counts: np.ndarray


class Cuts(NamedTuple):
    """Where P windows lie in `Sequences`: start, length int64[P]; users int32[P]."""

    start: np.ndarray
    length: np.ndarray
    users: np.ndarray


class LabelSample(NamedTuple):
    """V labels to be predicted.

    Attributes:
        windows: B = V windows, each of which ends with the interaction to be predicted.
        position: int32[V], where in its window this interaction stands.
        labels: int8[V], its label.
    """

    windows: Windows
    position: np.ndarray
    labels: np.ndarray


class BestEpoch(NamedTuple):
    """Weights, validation AUC (NaN if it is not defined) and number of the best epoch so far; 0 is the start."""

    weights: Any
    auc: float
    epoch: int


def train_sasrec(
    arrays: Mapping[str, np.ndarray],
    config: SASRecTraining,
    architecture: type[SASRec] = SASRec,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train the statistic model of a packed dataset.

    Args:
        arrays: interaction arrays of the pack (see `jaxsim.Dataset`); labels of the test split are not read.
        config: settings.
        architecture: the model; a subclass compares another one.

    Returns:
        Flat name -> weight for `sasrec.safetensors`, and the manifest's `sasrec` entry.

    Raises:
        InputError: the training diverged.
    """
    sequences = training_sequences(arrays)
    config = replace(config, start=start_of(sequences, config))
    model = architecture(
        num_items=len(arrays["item_categories"]),
        num_users=len(arrays["user_offsets"]) - 1,
        window=config.window,
        width=config.width,
        num_blocks=config.num_blocks,
        num_heads=config.num_heads,
        dropout=config.dropout,
        decays=config.decays if config.start == "rates" else (),
    )
    best, effort = _fit(model, arrays, sequences, config)
    entry = {
        "architecture": model.architecture,
        "training": asdict(config),
        **effort,
        "epochs_trained": best.epoch,
        "validation_auc": round(best.auc, 6) if np.isfinite(best.auc) else None,
    }
    flat = flatten_dict(best.weights, sep="/")
    return {name: np.asarray(w) for name, w in flat.items()}, entry


def start_of(sequences: Sequences, config: SASRecTraining) -> Start:
    """Where training starts; `auto` depends on how often items are rated."""
    if config.start != "auto":
        return config.start
    rated = max(1, len(np.unique(sequences.items)))
    return "random" if len(sequences.items) >= DENSE * rated else "rates"


def _fit(
    model: SASRec, arrays: Mapping[str, np.ndarray], sequences: Sequences, config: SASRecTraining
) -> tuple[BestEpoch, dict[str, Any]]:
    """Train with early stopping; give the best epoch, and what the manifest says of the effort."""
    rng = np.random.default_rng(config.seed)
    key, key_init = jax.random.split(jax.random.key(config.seed))
    validation = label_sample(arrays, config, VALIDATION)
    rates = None
    if config.start == "rates":
        rates = item_rates(sequences.items, sequences.labels, model.num_items)
    cuts = cut_windows(sequences.counts, config.window, rng)
    batch_size = max(config.batch_size, math.ceil(len(cuts.users) / config.epoch_steps))
    planned = config.epochs * max(1, len(cuts.users) // batch_size)
    planned = min(planned, config.max_steps or planned)
    optimiser = _optimiser(config, planned)
    tokens = float(cuts.length.sum() / len(cuts.users)) * batch_size
    penalty = config.prior / len(sequences.items) if rates else config.embedding_penalty
    step = jax.jit(partial(_gradient_step, model, optimiser, tokens, penalty), donate_argnums=0)
    weights = _random_weights(model, key_init)
    best, steps = BestEpoch(None, -np.inf, 0), 0
    if rates:
        weights = _at_rates(model, weights, rates, label_sample(arrays, config, TRAIN))
        best = _better_epoch(model, weights, rates, validation, best, 0, config)
    state = (weights, optimiser.init(weights))
    strength = {"rate_strength": round(float(rates.strength), 6)} if rates else {}
    rates = jax.tree.map(jnp.asarray, rates)
    with tqdm(total=planned, desc="train SASRec", unit="step", disable=None, delay=1) as bar:
        for epoch in range(1, config.epochs + 1):
            cuts = cut_windows(sequences.counts, config.window, rng)
            batches = _batches(sequences, cuts, batch_size, config.window, rng)
            for batch in islice(batches, config.max_steps and config.max_steps - steps):
                key, key_step = jax.random.split(key)
                # Wait for the step: the progress bar stays true, and no later state takes up memory.
                state = jax.block_until_ready(step(state, key_step, batch, rates))
                steps += 1
                bar.update()
            best = _better_epoch(model, state[0], rates, validation, best, epoch, config)
            bar.set_postfix(best_auc=f"{best.auc:.4f}")
            if epoch - best.epoch >= config.patience or steps == config.max_steps:
                break
    return best, {"batch_size": batch_size, "steps_trained": steps, **strength}


def _better_epoch(
    model: SASRec,
    weights: Any,
    rates: ItemRates | None,
    validation: LabelSample,
    best: BestEpoch,
    epoch: int,
    config: SASRecTraining,
) -> BestEpoch:
    """The best epoch so far or this one, whichever has the higher validation AUC."""
    if not all(bool(jnp.isfinite(w).all()) for w in jax.tree.leaves(weights)):
        raise InputError(
            f"SASRec diverged in epoch {epoch}: lower --sasrec.learning-rate {config.learning_rate:g}"
        )
    weights = complete(weights, rates) if rates else weights
    auc = validation_auc(model, weights, validation)
    if auc > best.auc or not np.isfinite(auc):
        # Copy: the next step overwrites the weights in place.
        return BestEpoch(jax.tree.map(jnp.copy, weights), auc, epoch)
    return best


def _random_weights(model: SASRec, key: jax.Array) -> Any:
    tokens = jnp.zeros(2, jnp.int32), jnp.zeros(2, jnp.int8), jnp.int32(0)
    return model.init(key, *tokens, method="next_logits")["params"]


def _at_rates(model: SASRec, weights: Any, rates: ItemRates, sample: LabelSample) -> Any:
    """The weights that training starts from, fitted on a sample of training labels; see `prep.statistic_start`."""
    weights = {name: x for name, x in weights.items() if name != "item_rate"}
    items, labels, _ = sample.windows
    features = residual_means(rates.rate, items, labels, sample.position, model.decays)
    shifted = items[np.arange(len(items)), sample.position] + 1
    known = rates.log_odds[shifted] + rates.without_one[sample.labels, shifted]
    return start_weights(weights, *fit_coefficients(features, sample.labels, known))


def _optimiser(config: SASRecTraining, steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, steps // 20), max(2, steps), 0.02 * config.learning_rate
    )
    return optax.adamw(schedule, b2=0.98, weight_decay=config.weight_decay)


def _gradient_step(
    model: SASRec,
    optimiser: optax.GradientTransformation,
    tokens: float,
    penalty: float,
    state: tuple[Any, Any],
    key: jax.Array,
    batch: Windows,
    rates: ItemRates | None,
) -> tuple[Any, Any]:
    """One AdamW step on a batch of windows."""
    weights, optimiser_state = state

    def window_loss(weights: Any, items: Any, labels: Any, user: Any, key: jax.Array) -> jax.Array:
        logits = model.apply(
            {"params": complete(weights, rates) if rates else weights},
            items,
            labels,
            user,
            False,
            method="next_logits",
            rngs={"dropout": key},
        )
        if rates:
            logits += rates.without_one[labels, items + 1]
        losses = optax.sigmoid_binary_cross_entropy(logits, (labels > 0).astype(jnp.float32))
        return jnp.where(items >= 0, losses, 0.0).sum()

    def loss(weights: Any) -> jax.Array:
        keys = jax.random.split(key, len(batch.users))
        total = jax.vmap(window_loss, (None, 0, 0, 0, 0))(weights, *batch, keys).sum()
        about_items = [weights[f"{name}_embedding"]["embedding"] for name in ("item", "candidate")]
        if rates:
            about_items.append(weights["item_effect"])
        squared = sum(jnp.sum(x**2) for x in about_items)
        # Divide by a constant: with the batch's own tokens, interactions in short windows would weigh more.
        return total / tokens + penalty * squared

    updates, optimiser_state = optimiser.update(jax.grad(loss)(weights), optimiser_state, weights)
    return optax.apply_updates(weights, updates), optimiser_state


def training_sequences(arrays: Mapping[str, np.ndarray]) -> Sequences:
    """The training interactions of a pack's interaction arrays."""
    rows = np.flatnonzero(arrays["interaction_split"] == TRAIN)
    before = np.searchsorted(rows, arrays["user_offsets"])
    return Sequences(
        arrays["interaction_item"][rows], arrays["interaction_label"][rows], np.diff(before)
    )


def cut_windows(counts: np.ndarray, window: int, rng: np.random.Generator) -> Cuts:
    """Cut every user's training interactions into windows, at a random offset if they do not fit into one window.

    Args:
        counts: int64[U] of `Sequences`.
        window: longest piece.
        rng: draws the offsets.
    """
    first = np.full(len(counts), window)
    first[counts > window] = rng.integers(1, window + 1, np.count_nonzero(counts > window))
    pieces = np.where(counts > 0, 1 + np.maximum(0, -((first - counts) // window)), 0)
    users = np.repeat(np.arange(len(counts), dtype=np.int32), pieces)
    place = np.arange(len(users)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    stop = first[users] + place * window
    start = np.where(place > 0, stop - window, 0)
    sequence = (np.cumsum(counts) - counts)[users]
    return Cuts(sequence + start, np.minimum(stop, counts[users]) - start, users)


def batch_widths(counts: np.ndarray, window: int) -> list[int]:
    """The lengths that batches are trimmed to, ascending; only a few, because each one is compiled separately.

    They are the window, a third of it and, if at least half of the sequences fit, a ninth of it, but no more than
    the longest sequence.

    Args:
        counts: int64[U] of `Sequences`.
        window: longest piece.
    """
    ninth = max(1, window // 9)
    widths = [window, max(1, window // 3), *([ninth] if np.median(counts) <= ninth else [])]
    return sorted({min(width, int(counts.max())) for width in widths})


def _batches(
    sequences: Sequences, cuts: Cuts, batch_size: int, window: int, rng: np.random.Generator
) -> Iterator[Windows]:
    """Yield batches of windows of similar lengths, in random order, trimmed to the smallest width that fits."""
    order = np.argsort(cuts.length + rng.uniform(0, window / 8, len(cuts.length)))
    # A dataset smaller than one batch fills its only batch by sampling with replacement.
    if len(order) < batch_size:
        order = rng.choice(order, batch_size)
    num_batches = len(order) // batch_size
    spare = len(order) - num_batches * batch_size
    order = np.delete(order, rng.choice(len(order), spare, replace=False))
    widths = batch_widths(sequences.counts, window)
    for index in rng.permutation(num_batches):
        rows = order[index * batch_size : (index + 1) * batch_size]
        length = cuts.length[rows]
        place = np.arange(next(width for width in widths if length.max() <= width))
        inside = place < length[:, None]
        taken = np.where(inside, cuts.start[rows, None] + place, 0)
        yield Windows(
            items=np.where(inside, sequences.items[taken], np.int32(-1)),
            labels=np.where(inside, sequences.labels[taken], np.int8(0)),
            users=cuts.users[rows],
        )


def label_sample(
    arrays: Mapping[str, np.ndarray], config: SASRecTraining, split: int
) -> LabelSample:
    """Labels of a split, each after the `context` interactions before it.

    Epochs are compared by those of the validation split; the start is fitted on those of the training split.

    Args:
        arrays: interaction arrays of the pack.
        config: settings; `max_validation` labels are drawn with the seed if there are more.
        split: TRAIN, VALIDATION or TEST.
    """
    rows = np.flatnonzero(arrays["interaction_split"] == split)
    if len(rows) > config.max_validation:
        rng = np.random.default_rng([config.seed, 1])
        rows = np.sort(rng.choice(rows, config.max_validation, replace=False))
    offsets = arrays["user_offsets"]
    users = (np.searchsorted(offsets, rows, side="right") - 1).astype(np.int32)
    first = np.maximum(rows - min(config.context, config.window - 1), offsets[users])
    index = first[:, None] + np.arange((rows - first).max(initial=0) + 1)
    inside = index <= rows[:, None]
    index = np.where(inside, index, 0)
    return LabelSample(
        Windows(
            items=np.where(inside, arrays["interaction_item"][index], np.int32(-1)),
            labels=np.where(inside, arrays["interaction_label"][index], np.int8(0)),
            users=users,
        ),
        position=(rows - first).astype(np.int32),
        labels=arrays["interaction_label"][rows],
    )


def validation_auc(model: SASRec, weights: Any, validation: LabelSample) -> float:
    """ROC-AUC on the labels of a validation sample; NaN if all of its labels are equal."""
    if len(np.unique(validation.labels)) < 2:
        return float("nan")
    logits = _predict(model, weights, validation.windows, validation.position)
    return float(roc_auc_score(validation.labels, np.asarray(logits)))


@partial(jax.jit, static_argnames="model")
def _predict(model: SASRec, weights: Any, windows: Windows, position: jax.Array) -> jax.Array:
    """Log-odds of the interaction at `position` of each window, float32[B]."""

    def logit(window: tuple[Windows, jax.Array]) -> jax.Array:
        (items, labels, user), last = window
        return model.apply({"params": weights}, items, labels, user, method="next_logits")[last]

    return jax.lax.map(logit, (windows, position), batch_size=512)
