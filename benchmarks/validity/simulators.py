"""The simulated people to be judged: for each predictor, the probability with which its users like an item."""

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.fidelity.events import Events
from benchmarks.fidelity.predictor import (
    CannotFitError,
    Fitted,
    Predictor,
    TrainingData,
    fit_logistic,
)
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.study import Study
from benchmarks.rivals.kuaisim_training import KUAISIM

Probability = Callable[[Events], np.ndarray]
"""`Events` to the probability of a like float64[E]."""


def _fit_item_rate(data: TrainingData) -> Fitted:
    rate = data.item_rate
    return Fitted(lambda events: rate[events.item], {"item_rate": rate})


ITEM_RATE = Predictor(
    "item_rate",
    "baseline",
    "the item's smoothed like rate, the same for everyone",
    _fit_item_rate,
    is_probability=True,
)
JUDGED: tuple[Predictor, ...] = (*PREDICTORS, KUAISIM, ITEM_RATE)


def simulators(study: Study) -> dict[str, Probability]:
    """The probability of a like by each predictor of a study.

    A vote is taken as it is: 1, 0, or 1/2 for a tie. Scores that are neither probabilities nor votes become
    probabilities by a logistic regression on the validation labels.
    """
    fitted = study.fit(study.data)
    return {
        p.name: probability
        for p in study.predictors
        if p.name in fitted and (probability := _probability(study, p, fitted[p.name])) is not None
    }


def _probability(study: Study, predictor: Predictor, fitted: Fitted) -> Probability | None:
    """None, with a note, if there is no data to make scores probabilities."""
    if predictor.is_probability or predictor.kind == "vote":
        return fitted.predict
    validation = study.data.validation
    try:
        model = fit_logistic(fitted.predict(validation)[:, None], validation.label)
    except CannotFitError as reason:
        study.note(f"{predictor.name}: left out, because it {reason}")
        return None
    return lambda events: model.predict_proba(fitted.predict(events)[:, None])[:, 1]


def probabilities(models: Mapping[str, Probability], events: Events) -> dict[str, np.ndarray]:
    """The probability of a like of events by each simulator, float64[E]."""
    return {name: model(events) for name, model in models.items()}
