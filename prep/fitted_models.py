"""The models of users that every build fits: f_sta, the taste model, and what builds on it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from prep.config import BuildConfig
from prep.departure_model import train_departure
from prep.exposure import train_exposure
from prep.return_model import train_visits
from prep.satiation_model import train_satiation
from prep.signal_model import Durations, train_signals
from prep.statistic_model import train_sasrec
from prep.taste_model import train_taste


class FittedModels(NamedTuple):
    """What was fitted.

    Attributes:
        tensors: the arrays of each model, by the field of `PackedContents`.
        manifest: the manifest's entry of each model, by name.
    """

    tensors: dict[str, Any]
    manifest: dict[str, Any]


def fit_models(
    arrays: Mapping[str, np.ndarray],
    years: np.ndarray,
    config: BuildConfig,
    like_threshold: float,
    durations: Durations | None = None,
    seconds: dict[str, float] | None = None,
) -> FittedModels:
    """Fit every model; each prints a line first, because it may take minutes.

    Args:
        arrays: of the pack. Labels of the test split are not read.
        years: float32[N], NaN where an item has none.
        config: settings.
        like_threshold: the lowest rating that is a like.
        durations: of the interactions; None without any.
        seconds: receives the duration of each stage by its name.
    """
    seconds = {} if seconds is None else seconds
    with timed(seconds, "SASRec", "Training the statistic model, SASRec"):
        weights, sasrec = train_sasrec(arrays, config.sasrec)
    with timed(seconds, "taste", "Fitting the taste model"):
        taste_arrays, taste = train_taste(arrays, years, config.taste)
    with timed(seconds, "exposure", "Fitting the exposure model"):
        of_exposure, exposure = train_exposure(arrays, taste_arrays, taste, config.exposure)
    with timed(seconds, "signals", "Fitting the models of ratings and durations"):
        of_signals, signals = train_signals(arrays, taste_arrays, taste, like_threshold, durations)
    with timed(seconds, "departure"):
        of_departure, departure = train_departure(arrays, config.departure)
    with timed(seconds, "visits"):
        of_visits, visits = train_visits(arrays, config.departure.session_gap)
    with timed(seconds, "satiation"):
        satiation = train_satiation(arrays, taste_arrays, taste)
    return FittedModels(
        {
            "sasrec": weights,
            "taste": taste_arrays,
            "exposure": of_exposure,
            "signals": of_signals,
            "departure": of_departure,
            "visits": of_visits,
        },
        {
            "sasrec": sasrec,
            "taste": taste,
            "exposure": exposure,
            "signals": signals,
            "departure": departure,
            "visits": visits,
            "satiation": satiation,
        },
    )


@contextmanager
def timed(seconds: dict[str, float], stage: str, message: str = "") -> Iterator[None]:
    """Measure a stage, after printing what it does."""
    if message:
        print(f"{message} ...", flush=True)
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
