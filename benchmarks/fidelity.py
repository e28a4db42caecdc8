"""How well the simulator predicts labels that it was not trained on.

Every label of the split is predicted from the 50 interactions before it: by each vote and margin, by their
ensemble, and by simple predictors that see the same labels and that the simulator must beat. The labels are of all
users: f_sta and the user's part of `bias` know the training interactions of each of them.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from agents.evaluation.baselines import smoothed, training_counts
from benchmarks.output import check_json, write_json
from jaxsim import Dataset, EnvParams, UserSimulator, load_dataset, make
from jaxsim.catalogue import build_catalogue
from jaxsim.dataset import TEST, TRAIN, VALIDATION
from jaxsim.ensemble import majority_probability
from jaxsim.keyword_matching import pack_members
from jaxsim.tables import format_table

CONTEXT = 50
DECAY = 0.97
EMPTY_SIDE = -1.0  # the cosine in place of the maximum over no item
CALIBRATION_BINS = 10
SPLITS = {"test": (TEST,), "validation": (VALIDATION,), "validation+test": (VALIDATION, TEST)}


@dataclass(frozen=True)
class Events:
    """E interactions to be predicted, each with the interactions before it.

    Attributes:
        user, item: int32[E].
        label: int8[E].
        history_items: int32[E, CONTEXT], -1 pads on the left.
        history_labels: int8[E, CONTEXT], 0 for padding.
    """

    user: np.ndarray
    item: np.ndarray
    label: np.ndarray
    history_items: np.ndarray
    history_labels: np.ndarray


def events_of(dataset: Dataset, split: str) -> Events:
    """The interactions of a split, each with the CONTEXT interactions before it, which may be of any split."""
    arrays = dataset.arrays
    rows = np.flatnonzero(np.isin(arrays["interaction_split"], SPLITS[split]))
    user = dataset.interaction_user()[rows]
    index = rows[:, None] + np.arange(-CONTEXT, 0)
    inside = index >= arrays["user_offsets"][user][:, None]
    index = np.maximum(index, 0)
    return Events(
        user=user,
        item=arrays["interaction_item"][rows],
        label=arrays["interaction_label"][rows],
        history_items=np.where(inside, arrays["interaction_item"][index], -1).astype(np.int32),
        history_labels=np.where(inside, arrays["interaction_label"][index], 0).astype(np.int8),
    )


@partial(jax.jit, static_argnames=("env", "with_sta"))
def _respond(
    env: UserSimulator, params: EnvParams, arrays: Any, with_sta: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Margins of f_mat and f_sim, and f_sta's probability (NaN unless asked for), float32[E] each."""

    def respond(event: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
        user, item, items, labels = event
        # The key does not matter: margins and the probability do not depend on coins.
        decision = env.respond(jax.random.key(0), items, labels, item, params, user=user)
        pos, neg = (
            jnp.where(jnp.isneginf(beta), EMPTY_SIDE, beta)
            for beta in (decision.beta_pos, decision.beta_neg)
        )
        mat = (decision.alpha_pos - decision.alpha_neg).astype(jnp.float32)
        return mat, pos - neg, decision.sta_probability if with_sta else jnp.float32(jnp.nan)

    return jax.lax.map(respond, arrays, batch_size=512)


def margins(
    env: UserSimulator, params: EnvParams, events: Events, with_sta: bool = True
) -> dict[str, np.ndarray]:
    """Margins of f_mat and f_sim (the cosine over no item is -1), and f_sta's probability, float64[E] each."""
    arrays = (events.user, events.item, events.history_items, events.history_labels)
    result = _respond(env, params, jax.tree.map(jnp.asarray, arrays), with_sta)
    mat, sim, sta = (np.asarray(x, np.float64) for x in result)
    return {"f_mat": mat, "f_sim": sim, "f_sta": sta}


def vote(margin: np.ndarray) -> np.ndarray:
    """The vote that a margin gives: 1 above 0, 0 below 0, 1/2 for a tie."""
    return 0.5 + 0.5 * np.sign(margin)


def simple_predictors(dataset: Dataset, events: Events) -> dict[str, np.ndarray]:
    """bias, bias_running and counts, float64[E] each: the simple predictors of `fidelity`."""
    counts, likes = training_counts(dataset)
    mean = likes.sum() / counts.sum()
    item_rate = smoothed(likes, counts, mean)[events.item]
    train = dataset.arrays["interaction_split"] == TRAIN
    users = dataset.interaction_user()[train]
    labels = dataset.arrays["interaction_label"][train]
    user_counts = np.bincount(users, minlength=dataset.num_users).astype(np.float64)
    user_likes = np.bincount(users, weights=labels, minlength=dataset.num_users)
    present = events.history_items >= 0
    age = np.arange(CONTEXT)[::-1]  # the latest interaction has weight 1
    weight = np.where(present, DECAY**age, 0.0)
    running = smoothed((weight * events.history_labels).sum(1), weight.sum(1), mean)
    categories = pack_members(dataset.arrays["item_categories"], len(dataset.categories))
    own, others = categories[events.item][:, None], categories[events.history_items]
    in_category = present & (own & others).any(axis=-1)
    counted = np.where(in_category.any(1, keepdims=True), in_category, present)
    liked = (counted * events.history_labels).sum(1)
    return {
        "bias": item_rate + smoothed(user_likes, user_counts, mean)[events.user],
        "bias_running": item_rate + running,
        "counts": smoothed(liked, counted.sum(1), mean),
    }


def calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [
        (bins == b).mean() * abs(labels[bins == b].mean() - probabilities[bins == b].mean())
        for b in np.unique(bins)
    ]
    return float(sum(gaps))


def soft_score(
    scores: dict[str, np.ndarray], fitted: dict[str, np.ndarray], labels: np.ndarray
) -> np.ndarray:
    """Probability of a like from both margins and f_sta's log-odds, by a logistic regression.

    Args:
        scores: results of `margins` to be turned into probabilities.
        fitted, labels: results of `margins`, and the labels, on which the three weights are fitted.

    Returns:
        float64[E].
    """

    def features(s: dict[str, np.ndarray]) -> np.ndarray:
        return np.stack(
            [np.tanh(s["f_mat"] / 4), s["f_sim"], logit(np.clip(s["f_sta"], 1e-6, 1 - 1e-6))], 1
        )

    return LogisticRegression().fit(features(fitted), labels).predict_proba(features(scores))[:, 1]


def permuted(dataset: Dataset, seed: int) -> dict[str, np.ndarray]:
    """The dataset's arrays with the keywords and embeddings of items permuted between them."""
    order = np.random.default_rng(seed).permutation(dataset.num_items)
    names = [f"item_{side}_{kind}" for side in ("pos", "neg") for kind in ("keywords", "embedding")]
    return {**dataset.arrays, **{name: dataset.arrays[name][order] for name in names}}


@partial(jax.jit, static_argnames="env")
def _catalogue_like_rate(env: UserSimulator, params: EnvParams) -> jax.Array:
    def mean_response(user: jax.Array) -> jax.Array:
        _, state = env.reset_user(user, params)
        return env.expected_response(state, params).mean()

    return jax.lax.map(mean_response, params.session_users, batch_size=64).mean()


def fidelity(dataset: Dataset, split: str = "test", permutations: int = 3) -> dict[str, Any]:
    """Measure the simulator of a dataset on a split; the content of `--json`.

    Args:
        dataset: of `jaxsim.load_dataset`.
        split: "test", "validation" or "validation+test".
        permutations: how many random permutations of the keywords the control averages over.
    """
    env, params = make(dataset, users="all")
    events = events_of(dataset, split)
    labels = events.label
    scores = margins(env, params, events)
    votes = {"f_mat": vote(scores["f_mat"]), "f_sim": vote(scores["f_sim"])}
    votes["f_sta"] = (scores["f_sta"] >= 0.5).astype(np.float64)
    simple = simple_predictors(dataset, events)
    paper = majority_probability(votes["f_mat"], votes["f_sim"], votes["f_sta"])
    predictions = {
        **scores,
        **{f"{name}_vote": value for name, value in votes.items()},
        "votes": np.mean(list(votes.values()), axis=0),
        **simple,
    }
    probabilities = {"paper": paper, "f_sta": scores["f_sta"]}
    if split == "test":  # the weights of "soft" are fitted on the validation split
        earlier = events_of(dataset, "validation")
        soft = soft_score(scores, margins(env, params, earlier), earlier.label)
        predictions["soft"] = probabilities["soft"] = soft
    permuted_catalogues = (
        build_catalogue(permuted(dataset, seed), kind=env.catalogue) for seed in range(permutations)
    )
    controls = [
        margins(env, params.replace(catalogue=c), events, False) for c in permuted_catalogues
    ]
    return {
        "dataset": dataset.name,
        "split": split,
        "labels": len(labels),
        "auc": {name: float(roc_auc_score(labels, s)) for name, s in predictions.items()},
        "like_rate": {
            "real": float(labels.mean()),
            "paper": float(paper.mean()),
            "catalogue": float(_catalogue_like_rate(env, params)),
        },
        "ece": {name: calibration_error(labels, p) for name, p in probabilities.items()},
        "brier": {name: float(brier_score_loss(labels, p)) for name, p in probabilities.items()},
        "controls": {
            f"{name}_permuted": float(np.mean([roc_auc_score(labels, c[name]) for c in controls]))
            for name in ("f_mat", "f_sim")
        },
    }


def _auc_table(name: str, aucs: list[tuple[str, float]]) -> str:
    return format_table([name, "ROC-AUC"], [[key, f"{auc:.4f}"] for key, auc in aucs])


def format_report(result: dict[str, Any]) -> str:
    """The measurement as text for a terminal."""
    ranked = sorted(result["auc"].items(), key=lambda entry: -entry[1])
    lines = [
        f"{result['dataset']}, {result['split']} split, {result['labels']:,} labels",
        "",
        _auc_table("predictor", ranked),
        "",
        _auc_table("keywords permuted between items", list(result["controls"].items())),
    ]
    lines += ["", "like rate: " + ", ".join(f"{n} {v:.3f}" for n, v in result["like_rate"].items())]
    lines += ["calibration error: " + ", ".join(f"{n} {v:.3f}" for n, v in result["ece"].items())]
    lines += ["Brier score: " + ", ".join(f"{n} {v:.3f}" for n, v in result["brier"].items())]
    return "\n".join(lines)


def run_fidelity(
    dataset: str = "ml-100k",
    split: Literal["test", "validation", "validation+test"] = "test",
    json: Path | None = None,
) -> None:
    """Measure how well the simulator predicts what held-out people liked.

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        split: which labels to predict.
        json: also write the result here.
    """
    check_json(json)
    packed = load_dataset(dataset)
    print(f"judging the {split} split of {packed.name} ...", flush=True)
    result = fidelity(packed, split)
    print(format_report(result))
    write_json(json, result)
