"""Predictions judged as if items had been rated at random: labels weighted by how unlikely they were to be rated.

People rate what they chose, so items that suit many people fill the test split. The exposure model gives each
label the probability that this user would rate this item (`prep.exposure`, from training ratings alone). A label
weighs 1 / probability, at most CLIP times the median weight of the validation labels, and weights are divided by
their sum. Without the bound a few labels would decide everything; with it, items that hardly anybody chooses count
less than they should. So the result is also given for other bounds, with the effective sample size

    (sum of weights)^2 / (sum of squared weights)

This makes up for what the exposure model knows: popularity, activity, and likeness to the history. If people rate
what they like for reasons that it does not see, the weights do not help.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import expit, logit

from benchmarks.fidelity import metrics
from benchmarks.fidelity.bootstrap import UserBootstrap, estimate
from benchmarks.fidelity.events import Events, unrated_events
from benchmarks.fidelity.predictor import CannotFitError, Fitted, Predictor, TrainingData
from benchmarks.fidelity.study import Scores, Study, estimates, predictions
from benchmarks.fidelity.taste import fit_taste
from jaxsim import InputError
from jaxsim.exposure import HostModel, correction, host_model

CLIP = 10.0  # times the median weight of the validation labels
CLIPS: tuple[float | None, ...] = (3.0, CLIP, 30.0, 100.0, None)
JUDGED = ("taste_exposure", "taste", "f_sta", "soft", "paper", "bias_residual", "bias")
_LEAST = 1e-7  # log-odds of a probability of 0 or 1 are infinite


def fit_taste_exposure(data: TrainingData) -> Fitted:
    """The taste model, corrected for what its user would not have chosen by themselves.

    Raises:
        CannotFitError: the dataset has no taste model or no correction, or has changed since it was built.
    """
    if data.changed:
        raise CannotFitError("knows the packed folder only")
    try:
        model = host_model(data.dataset)
        slope, offset = correction(data.dataset)
    except InputError as error:
        raise CannotFitError(f"cannot be had ({error})") from None
    taste = fit_taste(data)

    def predict(events: Events) -> np.ndarray:
        probability = np.clip(taste.predict(events), _LEAST, 1 - _LEAST)
        return expit(logit(probability) + slope * (_log_odds(model, events) - offset))

    return Fitted(predict, {**taste.parameters, "exposure": np.array([slope, offset])})


TASTE_EXPOSURE = Predictor(
    "taste_exposure",
    "model",
    "the taste model, corrected for what its user would not have chosen by themselves",
    fit_taste_exposure,
    is_probability=True,
    uses_validation=True,
)


def _log_odds(model: HostModel, events: Events) -> np.ndarray:
    """The log-odds of being chosen by a user of mean activity, float64[E]."""
    return model.log_odds(events.item, events.history_items, events.present)


def unclipped_weights(model: HostModel, events: Events) -> np.ndarray:
    """1 / the probability that the event's user rates its item, float64[E]."""
    return 1.0 + np.exp(-_log_odds(model, events) - model.of_activity[events.user])


def effective_size(weights: np.ndarray) -> float:
    """How many labels of equal weight say as much on average, for weights float64[E]."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def propensity_weighted(study: Study, scores: Scores, fitted: Mapping[str, Fitted]) -> Any:
    """ROC-AUC and like rates with labels weighted by 1 / the probability of being rated.

    Args:
        study: its events are judged.
        scores: of the study's events, by predictor.
        fitted: the predictors that gave them.

    Returns:
        None, with a note, if the dataset has no exposure model. Otherwise for each bound of CLIPS the entries of
        `_weighted`, in `clips`, and those of CLIP beside; `plain`, the same without weights;
        `unrated_like_rate`, the mean probability of random items that the user has not rated, `Estimate` by
        predictor; and `about`, what each predictor is.
    """
    try:
        model = host_model(study.dataset)
    except InputError as error:
        study.note(f"propensity-weighted figures: skipped ({error})")
        return None
    if not len(study.data.validation):
        study.note("propensity-weighted figures: skipped, because there are no validation labels")
        return None
    corrected = [TASTE_EXPOSURE] if study.settings.split == "test" else []
    extra = study.fit(study.data, corrected)
    fitted = {**fitted, **extra}
    scores = {**scores, **predictions(extra, study.events)}
    scores = {name: scores[name] for name in JUDGED if name in scores}
    predictors = {p.name: p for p in (*study.predictors, *corrected)}
    probable = [name for name in scores if predictors[name].is_probability]
    raw = unclipped_weights(model, study.events)
    median = float(np.median(unclipped_weights(model, study.data.validation)))
    rows = []
    for clip in CLIPS:
        weights = raw if clip is None else np.minimum(raw, clip * median)
        row = {"clip": clip, "clipped": round(float((weights < raw).mean()), 6)}
        rows.append(row | _weighted(study, scores, probable, weights))
    return {
        "about": {name: predictors[name].about for name in scores},
        "labels": len(study.events),
        **next(row for row in rows if row["clip"] == CLIP),
        "plain": _weighted(study, scores, probable, np.ones_like(raw)),
        "clips": rows,
        "unrated_like_rate": _unrated(study, {name: fitted[name] for name in probable}),
    }


def _weighted(
    study: Study, scores: Scores, probable: list[str], weights: np.ndarray
) -> dict[str, Any]:
    """The figures with weights float64[E].

    Returns:
        `effective_labels`; `auc` by predictor, and `difference`, the AUC minus that of `taste`; `like_rate`, of
        people (`real`) and by probability; and `like_rate_error`, the mean probability minus the like rate.
    """
    labels, bootstrap = study.events.label, study.bootstrap
    aucs = {n: metrics.auc(bootstrap, labels, s, weights=weights) for n, s in scores.items()}
    total = bootstrap.sums(weights)
    means = {n: bootstrap.sums(weights * scores[n]) / total for n in probable}
    real = bootstrap.sums(weights * labels) / total
    others = {n: a - aucs["taste"] for n, a in aucs.items() if "taste" in aucs and n != "taste"}
    return {
        "effective_labels": round(effective_size(weights), 1),
        "auc": estimates(aucs),
        "difference": estimates(others),
        "like_rate": estimates({"real": real, **means}),
        "like_rate_error": estimates({n: mean - real for n, mean in means.items()}),
    }


def _unrated(study: Study, fitted: Mapping[str, Fitted]) -> dict[str, Any]:
    events = unrated_events(study.dataset, study.settings.context, study.settings.seed)
    if not len(events):
        return {}
    bootstrap = UserBootstrap(events.user, study.settings.resamples, study.settings.seed)
    return {n: estimate(bootstrap.means(f.predict(events))) for n, f in fitted.items()}
