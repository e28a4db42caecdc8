"""The main table, calibration and like rates."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.fidelity import metrics
from benchmarks.fidelity.bootstrap import Estimate, UserBootstrap, estimate
from benchmarks.fidelity.events import unrated_events
from benchmarks.fidelity.groups import groups_of
from benchmarks.fidelity.predictor import Fitted
from benchmarks.fidelity.registry import DEFAULT_SIMULATOR
from benchmarks.fidelity.study import Scores, Study, estimates, predictions


def best_baseline(study: Study, fitted: Mapping[str, Fitted]) -> str | None:
    """The baseline with the highest ROC-AUC on the validation labels; None if no AUC is defined there.

    The test labels have no part in the choice.
    """
    validation = study.data.validation
    names = [p.name for p in study.predictors if p.kind == "baseline" and p.name in fitted]
    if not len(validation):
        return None
    bootstrap = UserBootstrap(validation.user, 0, study.settings.seed)
    aucs = {
        name: metrics.auc(bootstrap, validation.label, fitted[name].predict(validation))[0]
        for name in names
    }
    defined = {name: value for name, value in aucs.items() if np.isfinite(value)}
    return max(defined, key=lambda name: defined[name]) if defined else None


def probabilities_of(study: Study, scores: Scores) -> Scores:
    """The scores that are probabilities."""
    return {
        p.name: scores[p.name] for p in study.predictors if p.is_probability and p.name in scores
    }


def accuracy(study: Study, scores: Scores, reference: str | None) -> dict[str, Any]:
    """ROC-AUC and average precision of every predictor; losses and calibration of those that give probabilities.

    Returns:
        The result of `Study.compare`, and `dislike_precision`, `log_loss`, `brier`, `ece` and `like_rate_error`
        (mean probability minus like rate): `Estimate` by predictor.
    """
    bootstrap, labels = study.bootstrap, study.events.label
    probabilities = probabilities_of(study, scores)
    return {
        **study.compare(scores, reference),
        "dislike_precision": estimates(
            {n: metrics.dislike_precision(bootstrap, labels, s) for n, s in scores.items()}
        ),
        "log_loss": estimates(
            {n: metrics.log_loss(bootstrap, labels, p) for n, p in probabilities.items()}
        ),
        "brier": estimates(
            {n: metrics.brier_score(bootstrap, labels, p) for n, p in probabilities.items()}
        ),
        "ece": {
            n: estimate(metrics.calibration_error(bootstrap, labels, p), centred=True)
            for n, p in probabilities.items()
        },
        "like_rate_error": estimates(
            {n: bootstrap.means(p - labels) for n, p in probabilities.items()}
        ),
    }


def reliability(study: Study, scores: Scores) -> dict[str, list[dict[str, Any]]]:
    """How often labels are likes, by predicted probability: for each predictor, the bins that are not empty.

    Returns:
        For each bin `labels` (how many), `predicted` (mean probability) and `observed` (like rate, an `Estimate`).
    """
    labels = study.events.label
    result = {}
    for name, probability in probabilities_of(study, scores).items():
        bins = metrics.bins_of(probability)
        result[name] = [
            {
                "labels": int((bins == b).sum()),
                "predicted": round(float(probability[bins == b].mean()), 6),
                "observed": estimate(study.bootstrap.means(labels, bins == b)),
            }
            for b in np.unique(bins)
        ]
    return result


def group_errors(study: Study, scores: Scores) -> list[dict[str, Any]]:
    """The like rate and the error of the predicted one in each group of `groups_of`.

    Returns:
        For each group `kind`, `group`, `labels` (how many), `real` (like rate, an `Estimate`) and
        `like_rate_error` (mean probability minus like rate, `Estimate` by predictor).
    """
    labels, probabilities = study.events.label, probabilities_of(study, scores)
    return [
        {
            "kind": group.kind,
            "group": group.name,
            "labels": int(group.members.sum()),
            "real": estimate(study.bootstrap.means(labels, group.members)),
            "like_rate_error": estimates(
                {
                    n: study.bootstrap.means(p - labels, group.members)
                    for n, p in probabilities.items()
                }
            ),
        }
        for group in groups_of(study.data, study.events)
    ]


def like_rates(
    study: Study, scores: Scores, fitted: Mapping[str, Fitted]
) -> dict[str, dict[str, Estimate]]:
    """Like rates on the items that people have rated, and on those that they have not.

    Returns:
        `like_rate`: `real`, the predicted one of each probability, and `catalogue`, which is what the default
        simulator says of items that its user has not rated. `unrated_like_rate`: the same by every probability.
        Nobody knows the real like rate of these items.
    """
    settings = study.settings
    probabilities = probabilities_of(study, scores)
    rated = {n: study.bootstrap.means(p) for n, p in probabilities.items()}
    unrated = unrated_events(study.dataset, settings.context, settings.seed)
    rates = {}
    if len(unrated):
        bootstrap = UserBootstrap(unrated.user, settings.resamples, settings.seed)
        answers = predictions({n: fitted[n] for n in probabilities}, unrated)
        rates = estimates({n: bootstrap.means(p) for n, p in answers.items()})
    else:
        study.note("like rate on unrated items: no user has left an item unrated")
    like_rate = {"real": study.bootstrap.means(study.events.label), **rated}
    catalogue = {"catalogue": rates[DEFAULT_SIMULATOR]} if DEFAULT_SIMULATOR in rates else {}
    return {"like_rate": {**estimates(like_rate), **catalogue}, "unrated_like_rate": rates}
