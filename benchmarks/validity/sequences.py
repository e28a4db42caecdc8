"""Simulated test sequences beside the real ones: distances of distributions, and classifiers to tell them apart.

The items are those that a user really rated in the test split, in their order. The answers are drawn one after the
other: each with the simulator's probability given the history before the test split and its own answers so far.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.fidelity.bootstrap import Estimate, UserBootstrap, estimate
from benchmarks.fidelity.events import Events
from benchmarks.validity.classifier import CLASSIFIERS, MIN_USERS, features, told_apart
from benchmarks.validity.distances import Sample, kolmogorov_smirnov, like_rates, run_lengths
from benchmarks.validity.replay import Replay
from benchmarks.validity.settings import ANSWERS
from benchmarks.validity.simulators import Probability

DISTANCES = ("like_rate_distance", "run_length_distance")
# The simulators that answer: those that give probabilities, and the best simple rule.
ANSWERING = (
    "taste",
    "taste_without_keywords",
    "paper",
    "soft",
    "f_sta",
    "bias_residual",
    "bias_running",
    "item_rate",
)


def simulate(replay: Replay, model: Probability) -> np.ndarray:
    """Answers for the candidates in their order, int8[D, E]; all simulators meet the same random numbers."""
    draws = replay.settings.draws
    chance = replay.settings.rng(ANSWERS).random((draws, len(replay.candidates)))
    events, first = replay.candidates, replay.first
    items = np.tile(events.history_items[first], (draws, 1, 1))
    labels = np.tile(events.history_labels[first], (draws, 1, 1))
    answers = np.zeros(chance.shape, np.int8)
    for step in range(replay.lengths.max()):
        user = np.flatnonzero(replay.lengths > step)  # those who have an item left
        rows = first[user] + step
        shape = (draws * len(user), events.history_items.shape[1])
        asked = Events(
            np.tile(events.user[rows], draws),
            np.tile(events.item[rows], draws),
            np.zeros(len(user) * draws, np.int8),
            items[:, user].reshape(shape),
            labels[:, user].reshape(shape),
        )
        probability = model(asked).reshape(draws, len(user))
        answers[:, rows] = chance[:, rows] < probability
        for window, latest in ((items, events.item[rows]), (labels, answers[:, rows])):
            window[:, user, :-1] = window[:, user, 1:]
            window[:, user, -1] = latest
    return answers


SAMPLES = dict(zip(DISTANCES, (like_rates, run_lengths), strict=True))


def sequences(
    replay: Replay, models: Mapping[str, Probability], scores: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """How the answers of each simulator differ from the real ones.

    Args:
        replay: items and real answers.
        models: the simulators; those of ANSWERING take part.
        scores: probabilities of the candidates, float64[E] by simulator, which the classifier's features rest on.

    Returns:
        `simulators`: for each, `like_rate` (simulated), the two distances, and the ROC-AUC of each classifier
        (without these where there are too few users); `people`: the real `like_rate`, and the distances between
        random halves of the people themselves.
    """
    names = [name for name in ANSWERING if name in models]
    return {
        "people": _people(replay),
        "simulators": {n: _compare(replay, simulate(replay, models[n]), scores) for n in names},
    }


def _people(replay: Replay) -> dict[str, Estimate]:
    result = {"like_rate": estimate(replay.bootstrap.means(replay.label))}
    both = np.concatenate([replay.halves, 1 - replay.halves], axis=1)
    for name, sample_of in SAMPLES.items():
        sample = sample_of(replay.label, replay.code)
        # Each user stands twice, and counts once: in the half that they are in.
        other = Sample(sample.values, sample.code + replay.bootstrap.num_users)
        distances = kolmogorov_smirnov(sample, other, both)
        result[name] = estimate(np.concatenate([[distances.mean()], distances]))
    return result


def _compare(
    replay: Replay, answers: np.ndarray, scores: Mapping[str, np.ndarray]
) -> dict[str, Estimate]:
    """Means over the drawn sequences int8[D, E]."""
    weights, settings = replay.bootstrap.weights, replay.settings
    result = {
        "like_rate": estimate(np.mean([replay.bootstrap.means(one) for one in answers], axis=0))
    }
    for name, sample_of in SAMPLES.items():
        real = sample_of(replay.label, replay.code)
        distances = [
            kolmogorov_smirnov(real, sample_of(one, replay.code), weights) for one in answers
        ]
        result[name] = estimate(np.mean(distances, axis=0), centred=True)
    users = replay.bootstrap.num_users
    if users < MIN_USERS:
        return result
    bootstrap = UserBootstrap(np.tile(np.arange(users), 2), settings.resamples, settings.seed)
    real_features = features(replay, replay.label, scores)
    simulated = [features(replay, one, scores) for one in answers]
    for name in CLASSIFIERS:
        aucs = [told_apart(name, bootstrap, real_features, one) for one in simulated]
        result[name] = estimate(np.mean(aucs, axis=0))
    return result
