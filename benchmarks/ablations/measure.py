"""The measurement: every ablation, and its paired difference to the model or the ensemble that it is made of.

The taste model is fitted to each ablation in the same way, with all its weights. Items without ratings are judged
as in `benchmarks.fidelity.cold_items`, but with the weights of that fit.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablations.keywords import (
    all_keywords,
    filters,
    one_polarity,
    shipped_replies,
    with_keywords,
)
from benchmarks.fidelity.bootstrap import estimate
from benchmarks.fidelity.cold_items import FOLDS, cold_scores
from benchmarks.fidelity.events import events_of
from benchmarks.fidelity.predictor import Predictor, TrainingData
from benchmarks.fidelity.study import Settings, Study
from benchmarks.fidelity.taste import KEYWORD_PARTS, fit_taste
from benchmarks.fidelity.variants import has_keywords
from benchmarks.fidelity.votes import three_votes
from jaxsim import Dataset, InputError
from jaxsim.ensemble import majority_probability
from prep.features.embedding import HASHED

CONTEXTS = (3, 5, 10, 20, 50, 120)
FULL = "everything"
PARTS = ("keywords", "category", "year", "covariance", "mood", "constant")
VOTES = ("f_mat", "f_sim", "f_sta")

Say = Callable[[str], None]
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Ablation:
    """One thing changed.

    Attributes:
        group: what kind of thing: "kernel" or "keywords".
        name: what is changed.
        dataset: to fit and to play.
        without: parts that the kernel is left without.
    """

    group: str
    name: str
    dataset: Dataset
    without: tuple[str, ...] = ()


def ablate(
    dataset: Dataset,
    settings: Settings,
    replies: Sequence[Path] = (),
    encoders: Sequence[str] = (HASHED,),
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Measure every ablation.

    Args:
        dataset: with a taste model.
        settings: as of the report on fidelity; `refit_f_sta` and `repeats` have no part in this.
        replies: files of replies to T_obj that the dataset was built from; empty for those of the package.
        encoders: other text encoders.
        say: called with a line before each part.

    Returns:
        The content of `--json`: `kernel` and `keywords`, `votes`, `history`: rows with `name` and estimates.

    Raises:
        InputError: a dataset without a taste model, or replies that cannot be used.
    """
    if dataset.taste is None:
        raise InputError(
            f"{dataset.path}: this dataset was built without a taste model: build it again"
        )
    study = Study.of(dataset, settings, ())
    full = Ablation("", FULL, dataset)
    base = _scores(study, full, say)
    ablations = [*kernels(dataset), *keyword_variants(study, replies, encoders)]
    rows = [(full, base), *((one, _scores(study, one, say)) for one in ablations)]
    result: dict[str, Any] = {
        "dataset": dataset.name,
        "split": settings.split,
        "labels": len(study.events),
        "users": study.bootstrap.num_users,
        "full": _row(study, FULL, base, base),
    }
    for group in ("kernel", "keywords"):
        chosen = [(one, scores) for one, scores in rows if one.group == group]
        result[group] = [_row(study, one.name, scores, base) for one, scores in chosen]
    say("votes ...")
    result["votes"] = vote_rows(study)
    say("histories ...")
    result["history"] = list(history_rows(study, full))
    return {**result, "notes": study.notes}


def kernels(dataset: Dataset) -> list[Ablation]:
    """The kernel without each of its parts."""
    weights = dataset.manifest["taste"]["taste_weights"]
    parts = {name: KEYWORD_PARTS if name == "keywords" else (name,) for name in PARTS}
    return [
        Ablation("kernel", f"without {name}", dataset, without)
        for name, without in parts.items()
        if any(part in weights for part in without)
    ]


def keyword_variants(
    study: Study, replies: Sequence[Path], encoders: Sequence[str]
) -> Iterator[Ablation]:
    """Other keywords: one polarity, other filters, other encoders."""
    dataset = study.dataset
    if not has_keywords(dataset):
        study.note("keywords: skipped, because no item has any")
        return
    yield Ablation("keywords", "pros alone", one_polarity(dataset, "pos"))
    yield Ablation("keywords", "cons alone", one_polarity(dataset, "neg"))
    files = tuple(replies) or shipped_replies(dataset)
    if not files:
        study.note("filters and encoders: skipped; give the replies with --replies")
        return
    if not dataset.manifest["counts"].get("review_replies"):
        study.note("T_sub: no keyword comes from a review, so T_obj alone is all there is")
    items = all_keywords(dataset, files)
    own, encoder = dataset.manifest["settings"], dataset.manifest["encoder"]["name"]
    for name, number, share in filters(own):
        yield Ablation("keywords", name, with_keywords(dataset, items, number, share, encoder))
    for other in encoders:
        changed = with_keywords(dataset, items, own["min_items"], own["max_share"], other)
        yield Ablation("keywords", f"--encoder {other}", changed)


@dataclass(frozen=True, eq=False)
class _Scores:
    """Of the study's events, float64[E] each: taste, taste for items without ratings, and the votes' majority."""

    taste: np.ndarray
    cold: np.ndarray | None
    majority: np.ndarray


def _scores(study: Study, ablation: Ablation, say: Say) -> _Scores:
    say(f"{ablation.name} ...")
    simulator = study.simulator
    if ablation.dataset is not study.dataset:
        simulator = simulator.with_keywords_of(ablation.dataset)
    # As if changed, so that weights are fitted for everything in the same way.
    data = replace(study.data, dataset=ablation.dataset, simulator=simulator, changed=True)

    def fit(data: TrainingData) -> Any:
        return fit_taste(data, ablation.without)

    cold = None
    if study.settings.cold_items and study.dataset.num_items >= FOLDS:
        changed = replace(study, dataset=ablation.dataset, simulator=simulator)
        predictor = Predictor("taste", "model", "", fit)
        cold = cold_scores(changed, [predictor], 0, [data] * FOLDS).get("taste")
    return _Scores(
        taste=fit(data).predict(study.events),
        cold=cold,
        majority=majority_probability(*three_votes(simulator, study.events)),
    )


def _row(study: Study, name: str, scores: _Scores, base: _Scores) -> Row:
    row = {
        "name": name,
        "taste": estimate(study.auc(scores.taste)),
        "taste_difference": estimate(study.auc(scores.taste) - study.auc(base.taste)),
        "paper": estimate(study.auc(scores.majority)),
        "paper_difference": estimate(study.auc(scores.majority) - study.auc(base.majority)),
    }
    if scores.cold is not None and base.cold is not None:
        difference = study.auc(scores.cold) - study.auc(base.cold)
        row |= {"cold": estimate(study.auc(scores.cold)), "cold_difference": estimate(difference)}
    return row


def vote_rows(study: Study) -> list[Row]:
    """The majority of all three votes, and that of two: a tie of two is a coin, and so is a single vote of 1/2."""
    votes = three_votes(study.simulator, study.events)
    base = majority_probability(*votes)
    labels = study.events.label
    rows = []
    for index in (None, *range(len(VOTES))):
        if index is None:
            name, scores = FULL, base
        else:
            name = f"without {VOTES[index]}"
            scores = np.mean([v for i, v in enumerate(votes) if i != index], axis=0)
        rows.append(
            {
                "name": name,
                "paper": estimate(study.auc(scores)),
                "paper_difference": estimate(study.auc(scores) - study.auc(base)),
                "like_rate_error": estimate(study.bootstrap.means(scores - labels)),
            }
        )
    return rows


def history_rows(study: Study, full: Ablation) -> Iterator[Row]:
    """Taste and the majority of votes, from histories of several lengths."""
    fitted = fit_taste(study.data, full.without)
    base = study.auc(fitted.predict(study.events))
    for context in CONTEXTS:
        events = events_of(study.dataset, study.settings.split, context)
        votes = three_votes(study.simulator, events)
        taste = study.auc(fitted.predict(events))
        yield {
            "name": f"{context} ratings",
            "taste": estimate(taste),
            "taste_difference": estimate(taste - base),
            "paper": estimate(study.auc(majority_probability(*votes))),
        }
