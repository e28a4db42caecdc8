"""Items that nobody has rated yet, or few people.

The items are divided into five folds at random. For each fold, the interactions with its items are removed: from
training, from validation and from every history. Predictors are fitted on what is left, and predict the labels of
the split for the items of the fold, from histories of other items. So each label of the split is predicted once,
by a fit that has not seen its item, and all of these predictions are judged together.

The curve repeats this with some training interactions of each item of the fold left in place: a random choice of
at most 1, 5, 10, 20 or 50, each choice containing the smaller ones. They also stay in the histories. An item with
fewer keeps all that it has. The labels to be predicted are the same throughout.
"""

from typing import Any

import numpy as np

from benchmarks.fidelity.events import events_at, rows_of
from benchmarks.fidelity.predictor import Predictor, TrainingData
from benchmarks.fidelity.study import Scores, Study, predictions
from benchmarks.fidelity.variants import without_interactions
from jaxsim import Dataset
from jaxsim.dataset import TRAIN

FOLDS = 5
RATINGS = (0, 1, 5, 10, 20, 50)
_FOLDS_STREAM, _PRIORITY_STREAM = (
    5,
    6,
)  # streams of random numbers, as in `benchmarks.fidelity.events`


def item_folds(num_items: int, seed: int) -> np.ndarray:
    """The fold of each item, int64[N]; the folds differ by at most one item in size."""
    rng = np.random.default_rng([_FOLDS_STREAM, seed])
    return rng.permutation(np.arange(num_items) % FOLDS)


def training_rank(dataset: Dataset, seed: int) -> np.ndarray:
    """The place of each training interaction in a random order of those with its item, from 0, int64[M].

    Interactions of other splits have a place after all of these.
    """
    item, split = (dataset.arrays[f"interaction_{name}"] for name in ("item", "split"))
    train = np.flatnonzero(split == TRAIN)
    priority = np.random.default_rng([_PRIORITY_STREAM, seed]).random(len(train))
    order = train[np.lexsort((priority, item[train]))]
    counts = np.bincount(item[train], minlength=dataset.num_items)
    rank = np.full(len(item), np.iinfo(np.int64).max)
    rank[order] = np.arange(len(order)) - (np.cumsum(counts) - counts)[item[order]]
    return rank


def unseen_folds(study: Study) -> list[TrainingData]:
    """For each fold, the data without any interaction with its items."""
    fold = item_folds(study.dataset.num_items, study.settings.seed)
    in_fold = fold[study.dataset.arrays["interaction_item"]]
    return [_without(study, in_fold == number) for number in range(FOLDS)]


def _without(
    study: Study, removed: np.ndarray, weights_from: TrainingData | None = None
) -> TrainingData:
    return TrainingData(
        without_interactions(study.dataset, removed),
        study.simulator,
        study.settings.context,
        changed=True,
        weights_from=weights_from,
    )


def cold_scores(
    study: Study, predictors: list[Predictor], ratings: int, unseen: list[TrainingData]
) -> Scores:
    """Scores of the study's events by fits for which each event's item has at most `ratings` training ratings.

    A predictor that cannot be fitted in one of the folds is left out.

    Args:
        study: its events are scored.
        predictors: those to fit.
        ratings: training ratings of an item that are left in place, at most.
        unseen: of `unseen_folds`.

    Returns:
        float64[E] by predictor.
    """
    dataset, settings = study.dataset, study.settings
    item, rows = dataset.arrays["interaction_item"], rows_of(dataset, settings.split)
    fold = item_folds(dataset.num_items, settings.seed)
    rank = training_rank(dataset, settings.seed)
    scores = {p.name: np.full(len(rows), np.nan) for p in predictors}
    for number in range(FOLDS):
        removed = (fold[item] == number) & (rank >= ratings)
        judged = fold[item[rows]] == number
        data = _without(study, removed, weights_from=unseen[number])
        events = events_at(dataset, rows[judged], settings.context, visible=~removed)
        fitted = study.fit(data, predictors)
        for name, values in predictions(fitted, events).items():
            scores[name][judged] = values
    return {name: values for name, values in scores.items() if np.isfinite(values).all()}


def cold_items(study: Study, reference: str | None) -> dict[str, Any]:
    """The study of cold items.

    Returns:
        `cold_curve`: the result of `Study.compare` with `ratings`, for each of RATINGS. `cold_items`: the ROC-AUC
        of its first row, that is without any rating. Both are empty, with a note, if there are fewer items than
        folds.
    """
    if study.dataset.num_items < FOLDS:
        study.note(f"cold items: skipped, because it takes {FOLDS} items")
        return {"cold_items": {}, "cold_curve": []}
    fast, slow = study.refitted("fast"), study.refitted("slow")
    unseen = unseen_folds(study)
    curve = []
    for ratings in RATINGS:
        with_slow = study.settings.refit_f_sta and ratings == 0
        scores = cold_scores(study, [*slow, *fast] if with_slow else fast, ratings, unseen)
        curve.append({"ratings": ratings, **study.compare(scores, reference)})
    return {"cold_items": curve[0]["auc"], "cold_curve": curve}
