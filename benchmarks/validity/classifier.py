"""The classifier two-sample test: whether a sequence of answers can be told from those of people."""

from collections.abc import Callable, Mapping

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.fidelity import metrics
from benchmarks.fidelity.bootstrap import UserBootstrap
from benchmarks.validity.distances import run_lengths
from benchmarks.validity.replay import Replay

FOLDS = 5
MIN_USERS = 2 * FOLDS
CLASSIFIERS: dict[str, Callable[[], ClassifierMixin]] = {
    "linear_auc": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "trees_auc": lambda: GradientBoostingClassifier(n_estimators=50, max_depth=2, random_state=0),
}
# What the features compare answers with: the item's like rate, and the user's own share of likes in its category.
_COMPARED = ("item_rate", "counts")


def features(replay: Replay, labels: np.ndarray, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Numbers that describe the answers of each user, float64[U, 8].

    The like rate; its difference to that of the history, and to the mean like rate of the items; the share of
    changes between neighbours; the longest run; the like rate of the second half minus that of the first; and the
    covariances of the answers with the item's like rate, and with the user's own like rate in its category.

    Args:
        replay: users and items.
        labels: int8[E], real or simulated answers.
        scores: float64[E] by simulator.
    """
    code, lengths = replay.code, replay.lengths
    place = np.arange(len(labels)) - replay.first[code]

    def mean(values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
        """Mean of float64[E] for each user, over all or the chosen candidates, float64[U]."""
        chosen = np.ones(len(values)) if where is None else where.astype(np.float64)
        total = np.bincount(code, weights=chosen * values, minlength=len(lengths))
        return total / np.maximum(np.bincount(code, weights=chosen, minlength=len(lengths)), 1)

    rate = mean(labels)
    events = replay.candidates
    present = events.present[replay.first]
    before = events.history_labels[replay.first].sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    changes = np.zeros(len(labels))
    changes[1:] = (labels[1:] != labels[:-1]) & (code[1:] == code[:-1])
    late = place >= lengths[code] // 2
    centred = labels - rate[code]
    runs, longest = run_lengths(labels, code), np.zeros(len(lengths))
    np.maximum.at(longest, runs.code, runs.values)
    columns = [
        rate,
        rate - before,
        mean(labels - scores["item_rate"]),
        mean(changes),
        longest / lengths,
        mean(labels, late) - mean(labels, ~late),
        *(mean(centred * scores[name]) for name in _COMPARED if name in scores),
    ]
    return np.stack(columns, axis=1)


def told_apart(
    name: str, bootstrap: UserBootstrap, real: np.ndarray, simulated: np.ndarray
) -> np.ndarray:
    """ROC-AUC with which a classifier finds the simulated sequences: replicates float64[1 + R].

    Each user's two sequences are scored by a classifier that has seen neither of them.

    Args:
        name: of CLASSIFIERS.
        bootstrap: of the users of the real and then the simulated sequences.
        real, simulated: float64[U, F].
    """
    rows = np.concatenate([real, simulated])
    is_simulated = np.repeat(np.array([0, 1], np.int8), len(real))
    scores = np.zeros(len(rows))
    for seen, unseen in GroupKFold(FOLDS).split(rows, is_simulated, bootstrap.code):
        model = CLASSIFIERS[name]().fit(rows[seen], is_simulated[seen])
        scores[unseen] = model.predict_proba(rows[unseen])[:, 1]
    return metrics.auc(bootstrap, is_simulated, scores)
