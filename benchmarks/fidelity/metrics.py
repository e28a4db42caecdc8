"""Metrics of predicted likes, for all resamples of the users at once.

Each function gives replicates, as `benchmarks.fidelity.bootstrap` describes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from benchmarks.fidelity.bootstrap import UserBootstrap

CALIBRATION_BINS = 10
_CELLS_AT_ONCE = 1 << 23  # of a matrix of score levels and resamples: 64 MiB
# The logarithm of 0 is infinite; scikit-learn's log_loss clips in the same way.
_LEAST_PROBABILITY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Levels:
    """Events sorted by block and score. Events with the same block and score are on one of G levels.

    Attributes:
        likes, dislikes: sparse float64[G, U], how many each user has on each level, or the sum of their weights.
        starts: int64[B], the first level of each block.
    """

    likes: sparse.csr_array
    dislikes: sparse.csr_array
    starts: np.ndarray

    @classmethod
    def of(
        cls,
        bootstrap: UserBootstrap,
        labels: np.ndarray,
        scores: np.ndarray,
        blocks: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> "Levels":
        """Sort events with labels int8[E], scores float64[E] and blocks int[E]; without blocks there is one.

        An event counts with its weight float64[E]; without weights all of them count 1.
        """
        _, level = np.unique(scores, return_inverse=True)
        block = np.zeros(len(scores), np.int64) if blocks is None else blocks.astype(np.int64)
        size = int(level.max(initial=0)) + 1
        sorted_levels, level = np.unique(block * size + level, return_inverse=True)
        _, starts = np.unique(sorted_levels // size, return_index=True)
        shape = (len(sorted_levels), bootstrap.num_users)
        each = np.ones(len(scores)) if weights is None else weights

        def count(chosen: np.ndarray) -> sparse.csr_array:
            place = level[chosen], bootstrap.code[chosen]
            return sparse.csr_array((each[chosen], place), shape=shape)

        return cls(count(labels > 0), count(labels <= 0), starts)

    def weighted(self, bootstrap: UserBootstrap) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Weighted numbers of likes and dislikes on each level, float64[G, C] each, for C resamples at a time."""
        step = max(1, _CELLS_AT_ONCE // max(1, self.likes.shape[0]))
        for first in range(0, len(bootstrap.weights), step):
            weights = bootstrap.weights[first : first + step].T
            yield self.likes @ weights, self.dislikes @ weights


def auc(
    bootstrap: UserBootstrap,
    labels: np.ndarray,
    scores: np.ndarray,
    blocks: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """ROC-AUC: the share of pairs of a like and a dislike in which the like has the higher score; ties count 1/2.

    Args:
        bootstrap: of the events' users. A pair counts with the product of its two users' weights.
        labels: int8[E].
        scores: float64[E].
        blocks: int[E]; if given, only pairs within a block count, such as those with the same item.
        weights: float64[E]; if given, a pair also counts with the product of its events' weights.

    Returns:
        float64[1 + R]; NaN where there is no pair.
    """
    levels = Levels.of(bootstrap, labels, scores, blocks, weights)
    return np.concatenate([_auc(*both, levels.starts) for both in levels.weighted(bootstrap)])


def _auc(likes: np.ndarray, dislikes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """ROC-AUC of each column of weighted numbers float64[G, C], whose blocks start at int64[B]."""
    if not len(likes):
        return np.full(likes.shape[1], np.nan)
    pairs = np.add.reduceat(likes, starts) * np.add.reduceat(dislikes, starts)
    lower = np.cumsum(dislikes, axis=0)
    before = np.concatenate([np.zeros((1, lower.shape[1])), lower])[starts]
    lower -= dislikes / 2
    lower -= np.repeat(before, np.diff(np.append(starts, len(likes))), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (likes * lower).sum(axis=0) / pairs.sum(axis=0)


def dislike_precision(
    bootstrap: UserBootstrap, labels: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """Average precision of finding the dislikes by a low score, float64[1 + R]; NaN where there is none.

    As in scikit-learn, the precision at each level of the score is averaged with the recall that the level adds.
    """
    levels = Levels.of(bootstrap, labels, scores)
    results = []
    for likes, dislikes in levels.weighted(bootstrap):
        hits = np.cumsum(dislikes, axis=0)
        flagged = hits + np.cumsum(likes, axis=0)
        precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            results.append((dislikes * precision).sum(axis=0) / dislikes.sum(axis=0))
    return np.concatenate(results)


def log_loss(bootstrap: UserBootstrap, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean negative log-likelihood of the labels, in nats, float64[1 + R]."""
    of_label = np.where(labels > 0, probabilities, 1 - probabilities)
    return bootstrap.means(-np.log(np.clip(of_label, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)))


def brier_score(
    bootstrap: UserBootstrap, labels: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """Mean squared difference of probability and label, float64[1 + R]."""
    return bootstrap.means((probabilities - labels) ** 2)


def bins_of(probabilities: np.ndarray) -> np.ndarray:
    """The bin of equal width of each probability, int64[E] below CALIBRATION_BINS."""
    bins = (probabilities * CALIBRATION_BINS).astype(np.int64)
    return np.clip(bins, 0, CALIBRATION_BINS - 1)


def calibration_error(
    bootstrap: UserBootstrap, labels: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """Expected calibration error over bins of equal width, float64[1 + R].

    It is the mean over the bins, each weighted with its share of events, of the distance between the mean
    probability and the like rate in the bin.
    """
    bins = bins_of(probabilities)
    gaps = [bootstrap.sums((bins == b) * (labels - probabilities)) for b in np.unique(bins)]
    return np.abs(gaps).sum(axis=0) / bootstrap.sums(np.ones(len(labels)))
