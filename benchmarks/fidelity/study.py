"""What all parts of the report share: settings, the events, the resamples of their users, and the notes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from benchmarks.fidelity.bootstrap import Estimate, UserBootstrap, estimate
from benchmarks.fidelity.events import CONTEXT, Events, Split, events_of, rows_of
from benchmarks.fidelity.metrics import auc
from benchmarks.fidelity.predictor import CannotFitError, Fitted, Predictor, Refit, TrainingData
from benchmarks.fidelity.registry import PREDICTORS
from benchmarks.fidelity.simulator import Simulator
from jaxsim import Dataset, InputError
from jaxsim.settings import check_settings

WITHOUT_KEYWORDS = "_without_keywords"
Scores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Settings:
    """Settings of the report.

    Attributes:
        split: which labels to predict.
        context: H, the longest history that they are predicted from.
        resamples: R, resamples of the users for the intervals.
        seed: of everything random: resamples, folds of items, exchanged histories, shuffled labels.
        cold_items: whether to measure items without ratings.
        refit_f_sta: whether to train f_sta again for items without any rating, once for each fold of them.
        repeats: repetitions of each control, which exchanges or permutes something at random.
    """

    split: Split = "test"
    context: Annotated[int, Ge(1)] = CONTEXT
    resamples: Annotated[int, Ge(1)] = 1000
    seed: Annotated[int, Ge(0)] = 0
    cold_items: bool = True
    refit_f_sta: bool = True
    repeats: Annotated[int, Ge(1)] = 10

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: the first one that is out of its bounds.
        """
        check_settings(self, option_prefix="--")


@dataclass(frozen=True, eq=False)
class Study:
    """A dataset to be judged on.

    Attributes:
        dataset, settings, simulator: as their types say.
        predictors: those that may be judged on this split.
        data: what they are fitted on.
        events: the E events of the split.
        bootstrap: resamples of the users of the events, the same for every measurement on them.
        notes: what could not be measured and why, one line each.
    """

    dataset: Dataset
    settings: Settings
    simulator: Simulator
    predictors: tuple[Predictor, ...]
    data: TrainingData
    events: Events
    bootstrap: UserBootstrap
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        settings: Settings,
        predictors: Iterable[Predictor] = PREDICTORS,
    ) -> "Study":
        """Prepare the judgement of a dataset.

        Raises:
            InputError: nobody has a label in the split, or a setting is out of its bounds.
        """
        settings.check()
        check_split(dataset, settings.split)
        events = events_of(dataset, settings.split, settings.context)
        simulator = Simulator.of(dataset)
        judged = tuple(p for p in predictors if settings.split == "test" or not p.uses_validation)
        study = cls(
            dataset=dataset,
            settings=settings,
            simulator=simulator,
            predictors=judged,
            data=TrainingData(dataset, simulator, settings.context),
            events=events,
            bootstrap=UserBootstrap(events.user, settings.resamples, settings.seed),
        )
        left_out = [p.name for p in predictors if p not in judged]
        if left_out:
            study.note(f"{', '.join(left_out)}: left out, because validation labels are judged")
        return study

    @property
    def repeated_seeds(self) -> range:
        """The seed of each repetition of a control."""
        return range(self.settings.seed, self.settings.seed + self.settings.repeats)

    def note(self, line: str) -> None:
        """Add a line to the notes, once."""
        if line not in self.notes:
            self.notes.append(line)

    def fit(
        self, data: TrainingData, predictors: Iterable[Predictor] | None = None
    ) -> dict[str, Fitted]:
        """Fit predictors (by default all), and note which of them cannot be fitted."""
        fitted = {}
        for predictor in self.predictors if predictors is None else predictors:
            try:
                fitted[predictor.name] = predictor.fit(data)
            except CannotFitError as reason:
                self.note(f"{predictor.name}: left out, because it {reason}")
        return fitted

    def refitted(self, *speeds: Refit) -> list[Predictor]:
        """The predictors that learn from changed data as fast as one of `speeds` says."""
        return [p for p in self.predictors if p.refit in speeds]

    def auc(self, scores: np.ndarray, blocks: np.ndarray | None = None) -> np.ndarray:
        """Replicates of the ROC-AUC of scores float64[E] of the study's events: see `metrics.auc`."""
        return auc(self.bootstrap, self.events.label, scores, blocks)

    def auc_value(self, scores: np.ndarray, blocks: np.ndarray | None = None) -> float:
        """`auc` without resamples."""
        return float(auc(self._once, self.events.label, scores, blocks)[0])

    @cached_property
    def _once(self) -> UserBootstrap:
        return UserBootstrap(self.events.user, 0, self.settings.seed)

    def compare(self, scores: Scores, reference: str | None) -> dict[str, Any]:
        """ROC-AUC of each predictor, and its paired difference to a reference.

        Args:
            scores: of the study's events, by predictor.
            reference: the predictor to compare with; None if there is none.

        Returns:
            `auc`, `difference` (AUC minus that of the reference, except for the reference) and `keyword_gain` (AUC
            with keywords minus without, for models that come in both forms): `Estimate` by predictor.
        """
        replicates = {name: self.auc(values) for name, values in scores.items()}
        base = replicates.get(reference or "")
        gains = {n: f"{n}{WITHOUT_KEYWORDS}" for n in scores if f"{n}{WITHOUT_KEYWORDS}" in scores}
        return {
            "auc": estimates(replicates),
            "difference": estimates(
                {n: r - base for n, r in replicates.items() if base is not None and n != reference}
            ),
            "keyword_gain": estimates(
                {n: replicates[n] - replicates[without] for n, without in gains.items()}
            ),
        }


def check_split(dataset: Dataset, split: str) -> None:
    """Make sure, before any long work, that a split can be judged.

    Raises:
        InputError: it is empty.
    """
    if not len(rows_of(dataset, split)):
        raise InputError(
            f"{dataset.name}: the {split} split is empty: build a dataset with users of five ratings"
        )


def estimates(replicates: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """`estimate` of several replicates by name."""
    return {name: estimate(values) for name, values in replicates.items()}


def predictions(fitted: Mapping[str, Fitted], events: Events) -> Scores:
    """The scores float64[E] of events by each predictor."""
    return {name: predictor.predict(events) for name, predictor in fitted.items()}
