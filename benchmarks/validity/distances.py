"""Distances between the distributions of simulated and real answers."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Sample:
    """Numbers that belong to users.

    Attributes:
        values: float64[n].
        code: int64[n], the user of each.
    """

    values: np.ndarray
    code: np.ndarray


def like_rates(labels: np.ndarray, code: np.ndarray) -> Sample:
    """The like rate of each user of labels int8[E]."""
    users = np.arange(code.max() + 1)
    return Sample(np.bincount(code, weights=labels) / np.bincount(code), users)


def run_lengths(labels: np.ndarray, code: np.ndarray) -> Sample:
    """Lengths of the runs of equal labels int8[E] within the sequence of each user, whose code ascends."""
    starts = np.ones(len(labels), bool)
    starts[1:] = (labels[1:] != labels[:-1]) | (code[1:] != code[:-1])
    place = np.flatnonzero(starts)
    return Sample(np.diff(np.append(place, len(labels))).astype(np.float64), code[place])


def kolmogorov_smirnov(first: Sample, second: Sample, weights: np.ndarray) -> np.ndarray:
    """The largest distance of two empirical distribution functions, float64[B].

    Args:
        first, second: the samples.
        weights: float64[B, U], how often each user counts.
    """
    levels = np.unique(np.concatenate([first.values, second.values]))
    functions = []
    for sample in (first, second):
        place = np.searchsorted(levels, sample.values), sample.code
        shape = (len(levels), weights.shape[1])
        counts = sparse.csr_array((np.ones(len(sample.values)), place), shape=shape)
        total = np.cumsum(counts @ weights.T, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            functions.append(total / total[-1])
    return np.abs(functions[0] - functions[1]).max(axis=0)
