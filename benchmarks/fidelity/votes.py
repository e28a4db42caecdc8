"""The predictors that the simulator itself gives: margins, votes and what is made of them."""

from collections.abc import Callable

import numpy as np
from scipy.special import logit

from benchmarks.fidelity.events import Events
from benchmarks.fidelity.predictor import (
    Fitted,
    Predictor,
    TrainingData,
    fit_logistic,
    logistic_parameters,
)
from benchmarks.fidelity.simulator import Simulator, vote
from jaxsim.ensemble import STA_THRESHOLD, majority_probability
from prep.statistic_model import SASRecTraining, train_sasrec

_CLIP = 1e-6  # log-odds of a probability of 0 or 1 are infinite


def three_votes(simulator: Simulator, events: Events) -> list[np.ndarray]:
    """The three votes, float64[E] each; 1/2 for a tie of f_mat or f_sim."""
    mat, sim = simulator.margins(events)
    sta = (simulator.probability(events) >= STA_THRESHOLD).astype(np.float64)
    return [vote(mat), vote(sim), sta]


def soft_features(simulator: Simulator, events: Events) -> np.ndarray:
    """Both margins and f_sta's log-odds, float64[E, 3]."""
    mat, sim = simulator.margins(events)
    probability = np.clip(simulator.probability(events), _CLIP, 1 - _CLIP)
    return np.stack([np.tanh(mat / 4), sim, logit(probability)], axis=1)


def _fit_soft(data: TrainingData) -> Fitted:
    """Probability from both margins and f_sta's log-odds, by a logistic regression on validation labels."""
    simulator, validation = data.simulator, data.validation
    model = fit_logistic(soft_features(simulator, validation), validation.label)

    def predict(events: Events) -> np.ndarray:
        return model.predict_proba(soft_features(simulator, events))[:, 1]

    return Fitted(predict, logistic_parameters(model))


def _fit_sta(data: TrainingData) -> Fitted:
    """f_sta of the packed folder, or trained again on changed data with the same settings."""
    if not data.changed:
        return Fitted(data.simulator.probability, dict(data.dataset.sasrec))
    model = data.simulator.env.sasrec
    settings = {"window": model.window, "width": model.width}
    settings = data.dataset.manifest["sasrec"].get("training", settings)
    weights, entry = train_sasrec(data.dataset.arrays, SASRecTraining(**settings))
    return Fitted(data.simulator.with_sta(weights, entry).probability, weights)


def _from_simulator(
    score: Callable[[Simulator, Events], np.ndarray],
) -> Callable[[TrainingData], Fitted]:
    """The `fit` of a predictor that learns nothing beside what the simulator has learned."""

    def fit(data: TrainingData) -> Fitted:
        return Fitted(lambda events: score(data.simulator, events))

    return fit


def _vote_of(index: int) -> Callable[[TrainingData], Fitted]:
    return _from_simulator(lambda simulator, events: three_votes(simulator, events)[index])


def _margin_of(index: int) -> Callable[[TrainingData], Fitted]:
    return _from_simulator(lambda simulator, events: simulator.margins(events)[index])


_paper = _from_simulator(lambda s, events: majority_probability(*three_votes(s, events)))
_mean_vote = _from_simulator(lambda s, events: np.mean(three_votes(s, events), axis=0))

SIMULATED = (
    Predictor(
        "paper",
        "model",
        "the default simulator: the probability that at least two of the three votes are for a like",
        _paper,
        is_probability=True,
    ),
    Predictor(
        "soft",
        "model",
        "both margins and f_sta's log-odds, weighted by a logistic regression on the validation labels",
        _fit_soft,
        is_probability=True,
        uses_validation=True,
    ),
    Predictor(
        "f_sta", "model", "probability of the statistic model, SASRec", _fit_sta, True, refit="slow"
    ),
    Predictor(
        "f_mat",
        "margin",
        "keywords shared with liked items minus keywords shared with disliked items",
        _margin_of(0),
        refit="fast",
        uses_keywords=True,
    ),
    Predictor(
        "f_sim",
        "margin",
        "largest cosine to a liked item minus largest cosine to a disliked item",
        _margin_of(1),
        refit="fast",
        uses_keywords=True,
    ),
    Predictor("votes", "vote", "mean of the three votes; a tie counts one half", _mean_vote),
    Predictor("f_mat_vote", "vote", "the vote of f_mat alone", _vote_of(0)),
    Predictor("f_sim_vote", "vote", "the vote of f_sim alone", _vote_of(1)),
    Predictor("f_sta_vote", "vote", "the vote of f_sta alone", _vote_of(2)),
)
