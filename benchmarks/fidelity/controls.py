"""Controls: what a measurement says when the thing that it should measure has been taken away.

- *Exchanged histories.* Each event keeps its item and its label, and gets the user and the history of another
  person. Whatever is personal is then wrong. The item's part is left, so the AUC stays above 1/2. But between
  events with the same item, this part is equal. The AUC within items, over pairs of a like and a dislike of one
  item, must therefore be 1/2, and its excess over 1/2 with people's own histories is what is personal.
- *Shuffled labels.* All labels that a predictor sees, in training, validation and histories, are permuted between
  all interactions. Fitted on these, it must have an AUC of 1/2 on the true labels. Margins that are not fitted are
  left out: an item with many pros and few cons has a high margin whatever the labels are.
- *Permuted keywords.* The keywords of the items, with their vectors, are permuted between the items. The fall of
  the AUC is what the assignment of keywords to items is worth.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from benchmarks.fidelity.bootstrap import Estimate, estimate, estimate_over_repeats
from benchmarks.fidelity.events import events_of, exchanged
from benchmarks.fidelity.predictor import Fitted, Predictor, TrainingData
from benchmarks.fidelity.registry import BEST_MODELS
from benchmarks.fidelity.study import Scores, Study, predictions
from benchmarks.fidelity.variants import (
    has_keywords,
    with_permuted_keywords,
    with_shuffled_labels,
)

OWN, EXCHANGED, SHUFFLED, PERMUTED = "within_item", "exchanged", "labels_shuffled", "permuted"


def controls(study: Study, scores: Scores, fitted: Mapping[str, Fitted]) -> dict[str, Estimate]:
    """Every control.

    Returns:
        ROC-AUCs: `NAME_within_item` (own history) and `NAME_exchanged` within items, for every predictor;
        `NAME_labels_shuffled` and `NAME_permuted` of those that can be fitted again; and `exchanged`, that of the
        best model. All but the first are means over repetitions, with intervals over these.
    """
    result = {
        **_exchanged(study, scores, fitted),
        **_shuffled(study, fitted),
        **_permuted(study),
    }
    best = next((name for name in BEST_MODELS if f"{name}_{EXCHANGED}" in result), None)
    if best is not None:
        result[EXCHANGED] = result[f"{best}_{EXCHANGED}"]
    _note_reviews(study)
    return result


def _exchanged(study: Study, scores: Scores, fitted: Mapping[str, Fitted]) -> dict[str, Estimate]:
    items = study.events.item
    result = {f"{n}_{OWN}": estimate(study.auc(s, blocks=items)) for n, s in scores.items()}
    if study.bootstrap.num_users < 2:
        study.note("exchanged histories: skipped, because only one user has labels in the split")
        return result
    aucs: dict[str, list[float]] = {name: [] for name in scores}
    for seed in study.repeated_seeds:
        for name, values in predictions(fitted, exchanged(study.events, seed)).items():
            aucs[name].append(study.auc_value(values, blocks=items))
    return result | _over_repeats(aucs, EXCHANGED)


def _shuffled(study: Study, fitted: Mapping[str, Fitted]) -> dict[str, Estimate]:
    def data(seed: int) -> TrainingData:
        dataset = with_shuffled_labels(study.dataset, seed)
        return replace(study.data, dataset=dataset, changed=True, weights_from=study.data)

    learned = {name for name, predictor in fitted.items() if predictor.parameters}
    chosen = [p for p in study.refitted("fast") if p.name in learned]
    return _repeated(study, SHUFFLED, chosen, data)


def _permuted(study: Study) -> dict[str, Estimate]:
    if not has_keywords(study.dataset):
        study.note("permuted keywords: skipped, because no item has keywords")
        return {}

    def data(seed: int) -> TrainingData:
        dataset = with_permuted_keywords(study.dataset, seed)
        simulator = study.simulator.with_keywords_of(dataset)
        return replace(
            study.data,
            dataset=dataset,
            simulator=simulator,
            changed=True,
            weights_from=study.data,
        )

    chosen = [p for p in study.refitted("fast") if p.uses_keywords]
    return _repeated(study, PERMUTED, chosen, data)


def _repeated(
    study: Study,
    control: str,
    predictors: Iterable[Predictor],
    data: Callable[[int], TrainingData],
) -> dict[str, Estimate]:
    """ROC-AUC on the true labels of predictors that are fitted on changed data, over several seeds."""
    aucs: dict[str, list[float]] = {}
    for seed in study.repeated_seeds:
        changed = data(seed)
        events = events_of(changed.dataset, study.settings.split, changed.context)
        for name, scores in predictions(study.fit(changed, predictors), events).items():
            aucs.setdefault(name, []).append(study.auc_value(scores))
    return _over_repeats(aucs, control)


def _over_repeats(aucs: Mapping[str, list[float]], control: str) -> dict[str, Estimate]:
    return {f"{name}_{control}": estimate_over_repeats(values) for name, values in aucs.items()}


def _note_reviews(study: Study) -> None:
    """Say whether keywords come from reviews of the labels to be predicted."""
    counts = study.dataset.manifest.get("counts", {})
    replies, left_out = (counts.get(f"review_replies{end}") for end in ("", "_not_training"))
    if replies is None:
        study.note("reviews: the manifest does not say whether keywords come from reviews")
    elif replies == 0:
        study.note(
            "reviews: no keyword comes from a review, so there are no test reviews to remove"
        )
    else:
        study.note(
            f"reviews: keywords come from {replies:,} training reviews; replies to {left_out:,} other reviews "
            "were removed when the dataset was built"
        )
