"""Where the training of f_sta starts: the items' like rates, and how much the user liked more than others did.

    log-odds of a like = log-odds of the item's rate + offset + sum over decays of coefficient * residual mean

With few ratings an item there is hardly more to learn than this. A SASRec that starts from small random weights
reaches it only after it has learned rarely rated items by heart. So `prep.statistic_model` starts here, learns
deviations from it, and a prior pulls the deviations to zero. `jaxsim.sasrec` defines the residual means.

A training label is part of its own item's rate. Training therefore sees the rate without this label; otherwise the
item would seem to explain labels that it only repeats, most of all where ratings are few.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, expit

from jaxsim.sasrec import RESIDUAL_SMOOTHING

# Candidates for the strength of the prior on item rates, in interactions: powers of the square root of 2.
STRENGTHS = 2.0 ** np.arange(0, 10.5, 0.5)
_RIDGE = 1.0  # weight of the squared coefficients; it matters only where there is hardly any data


class ItemRates(NamedTuple):
    """Smoothed like rates of N items in the training interactions. Entry 0 is padding, entry i + 1 is item i.

    Attributes:
        rate: float32[N + 1], (likes + strength * mean) / (interactions + strength).
        log_odds: float32[N + 1], log(rate / (1 - rate)).
        without_one: float32[2, N + 1], what a dislike (0) or like (1) that is not counted adds to the log-odds; 0
            for an item without such a label.
        mean: float, the like rate of all interactions, smoothed so that it is never 0 or 1.
        strength: float, interactions at the mean rate that every item begins with.
    """

    rate: np.ndarray
    log_odds: np.ndarray
    without_one: np.ndarray
    mean: float
    strength: float


def item_rates(items: np.ndarray, labels: np.ndarray, num_items: int) -> ItemRates:
    """Like rates of items, smoothed as strongly as is most likely for these labels.

    Args:
        items: int32[R], the training interactions.
        labels: int8[R], 1 like, 0 dislike.
        num_items: N.
    """
    counts = np.bincount(items + 1, minlength=num_items + 1).astype(np.float64)
    likes = np.bincount(items + 1, weights=labels, minlength=num_items + 1)
    mean = (likes.sum() + 1) / (counts.sum() + 2)
    strength = prior_strength(likes, counts, mean)
    prior = strength * mean, strength * (1 - mean)

    def log_odds(likes: np.ndarray, dislikes: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(likes, 0) + prior[0]) - np.log(np.maximum(dislikes, 0) + prior[1])

    whole = log_odds(likes, counts - likes)
    without = np.stack(
        [log_odds(likes, counts - likes - 1), log_odds(likes - 1, counts - likes)], axis=0
    )
    return ItemRates(
        rate=((likes + prior[0]) / (counts + strength)).astype(np.float32),
        log_odds=whole.astype(np.float32),
        without_one=(without - whole).astype(np.float32),
        mean=float(mean),
        strength=strength,
    )


def prior_strength(likes: np.ndarray, counts: np.ndarray, mean: float) -> float:
    """The strength, of STRENGTHS, that makes the labels most likely if item rates have a Beta distribution.

    The likes of an item are beta-binomial with parameters strength * mean and strength * (1 - mean).

    Args:
        likes, counts: float64[N] of the items.
        mean: like rate of all interactions, in (0, 1).
    """
    pairs, times = np.unique(np.stack([likes, counts]), axis=1, return_counts=True)
    liked, counted = pairs

    def log_likelihood(strength: float) -> float:
        a, b = strength * mean, strength * (1 - mean)
        return float(times @ (betaln(liked + a, counted - liked + b) - betaln(a, b)))

    return float(max(STRENGTHS, key=log_likelihood))


def residual_means(
    rate: np.ndarray,
    items: np.ndarray,
    labels: np.ndarray,
    position: np.ndarray,
    decays: Sequence[float],
) -> np.ndarray:
    """Running means of the residuals before an interaction, as `SASRec.residual_means`, float64[V, D].

    Args:
        rate: float32[N + 1], of `ItemRates`.
        items, labels: int32[V, T], int8[V, T], left-aligned histories and what follows them.
        position: int32[V], the place of the interaction.
        decays: D decays.
    """
    age = position[:, None] - 1 - np.arange(items.shape[1])
    residual = np.where(age >= 0, labels - rate[np.maximum(items, -1) + 1], 0.0)
    means = np.empty((len(items), len(decays)))
    for column, decay in enumerate(decays):
        weight = np.where(age >= 0, decay ** np.maximum(age, 0.0), 0.0)
        total = weight.sum(axis=1) + RESIDUAL_SMOOTHING
        means[:, column] = (weight * residual).sum(axis=1) / total
    return means


def fit_coefficients(
    features: np.ndarray, labels: np.ndarray, log_odds: np.ndarray
) -> tuple[float, np.ndarray]:
    """A logistic regression on top of known log-odds: offset float, and coefficients float64[D].

    Args:
        features: float64[V, D].
        labels: int8[V], 1 like, 0 dislike.
        log_odds: float[V], what is added to the prediction with a coefficient of 1.
    """
    design = np.column_stack([np.ones(len(labels)), features])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = log_odds + design @ weights
        error = expit(logits) - labels
        value = np.logaddexp(0.0, logits).sum() - labels @ logits
        ridge = _RIDGE * weights
        return value + weights @ ridge / 2, design.T @ error + ridge

    fitted = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    return float(fitted[0]), fitted[1:]


def start_weights(weights: Any, offset: float, coefficients: np.ndarray) -> Any:
    """Weights of `SASRec` that predict the item rates and residual means alone, given random ones.

    The scale of the last layer norm is 0, so the attention adds nothing until it has learned to.

    Args:
        weights: of `SASRec.init`, without `item_rate`.
        offset, coefficients: of `fit_coefficients`.
    """
    scale = weights["hidden_norm"]["scale"]
    width = scale.shape[0]
    direction = jnp.full(width, width**-0.5, jnp.float32)
    start = {
        "hidden_norm": {**weights["hidden_norm"], "scale": jnp.zeros_like(scale)},
        "candidate_embedding": jax.tree.map(jnp.zeros_like, weights["candidate_embedding"]),
        "common_candidate": direction,
        "offset": jnp.float32(offset),
    }
    if len(coefficients):
        start["residual_projection"] = jnp.outer(jnp.asarray(coefficients, jnp.float32), direction)
    return {**weights, **start}


def complete(deviations: Any, rates: ItemRates) -> Any:
    """The weights of `SASRec`, from what training learns: there the item effects are deviations from the rates."""
    item_rate = {"item_rate": rates.rate} if "residual_projection" in deviations else {}
    return {
        **deviations,
        "item_effect": deviations["item_effect"] + rates.log_odds,
        **jax.tree.map(jnp.asarray, item_rate),
    }
