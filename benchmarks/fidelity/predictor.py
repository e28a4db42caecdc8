"""What a predictor is: a named way to score events, fitted on the data before them.

A predictor is fitted on a `TrainingData` and gives a `Fitted`, which scores any `Events`. It may estimate its
parameters from the labels of the training interactions and, if it says so, from the validation labels. Labels of
the test split reach it only in the histories of later events.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from sklearn.linear_model import LogisticRegression

from agents.evaluation.baselines import smoothed, training_counts
from benchmarks.fidelity.events import CONTEXT, Events, events_of
from benchmarks.fidelity.simulator import Simulator
from jaxsim import Dataset
from jaxsim.dataset import TRAIN

Kind = Literal["model", "margin", "vote", "baseline"]
Refit = Literal["fast", "slow", "never"]


class CannotFitError(Exception):
    """A predictor has no data to be fitted on; the message says why, in words that follow its name."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What predictors are fitted on.

    Attributes:
        dataset: its training interactions are those to learn from; its items have keywords, vectors, categories.
        simulator: the votes, with the keywords of `dataset`, and with the f_sta of the packed folder.
        context: H, the longest history of the events to be predicted.
        strictly_earlier: as in `events_of`.
        changed: whether `dataset` has other interactions or labels than the packed folder. If so, f_sta must be
            trained again, and so must everything else that was fitted when the folder was built.
        weights_from: similar data without any label that may not be seen, on which a predictor may fit parameters
            that take long and are much the same for both; None for this data itself.
    """

    dataset: Dataset
    simulator: Simulator
    context: int = CONTEXT
    strictly_earlier: bool = False
    changed: bool = False
    weights_from: "TrainingData | None" = None

    @cached_property
    def validation(self) -> Events:
        """The validation events, with histories of the same kind as those to be predicted."""
        return events_of(self.dataset, "validation", self.context, self.strictly_earlier)

    @cached_property
    def like_rate(self) -> float:
        """Mean like rate of the training interactions; 1/2 if there are none."""
        labels = self.dataset.arrays["interaction_label"][self.training]
        return float(labels.mean()) if len(labels) else 0.5

    @cached_property
    def training(self) -> np.ndarray:
        """Which interactions are for training, bool[M]."""
        return self.dataset.arrays["interaction_split"] == TRAIN

    @cached_property
    def item_rate(self) -> np.ndarray:
        """Smoothed training like rate of each item, float64[N]."""
        counts, likes = training_counts(self.dataset)
        return smoothed(likes, counts, self.like_rate)


@dataclass(frozen=True)
class Fitted:
    """A predictor that has been fitted.

    Attributes:
        predict: `Events` to scores float64[E]; a higher score means that a like is more probable.
        parameters: everything that was estimated from labels, by name; empty if there is nothing.
    """

    predict: Callable[[Events], np.ndarray]
    parameters: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictor:
    """A predictor of likes.

    Attributes:
        name: as in the report; lower case, with underscores.
        kind: where it stands in the report. Models are compared with the best baseline.
        about: what it is, for the report: a few words that follow "NAME:".
        fit: `TrainingData` to `Fitted`. It raises `CannotFitError` if the data does not suffice.
        is_probability: whether its scores are probabilities of a like, so that calibration can be measured.
        uses_validation: whether it is fitted on validation labels; it is then left out where these are predicted.
        refit: whether `fit` learns from changed data in a few seconds ("fast") or more ("slow"), or not at all
            ("never": it rests on results of the packed folder). This decides on the study of cold items.
        uses_keywords: whether it depends on keywords, so that permuting them is a control.
    """

    name: str
    kind: Kind
    about: str
    fit: Callable[[TrainingData], Fitted]
    is_probability: bool = False
    uses_validation: bool = False
    refit: Refit = "never"
    uses_keywords: bool = False


def fit_logistic(features: np.ndarray, labels: np.ndarray) -> LogisticRegression:
    """A logistic regression of labels int8[E] on features float64[E, F], with scikit-learn's default penalty.

    Raises:
        CannotFitError: the labels are not of two classes.
    """
    if len(np.unique(labels)) < 2:
        raise CannotFitError("needs likes and dislikes among the validation labels")
    return LogisticRegression().fit(features, labels)


def logistic_parameters(model: LogisticRegression) -> dict[str, np.ndarray]:
    """Coefficients float64[1, F] and intercept float64[1] of a logistic regression."""
    return {"coefficients": model.coef_, "intercept": model.intercept_}
