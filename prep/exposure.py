"""Fitting of the exposure model of `jaxsim.exposure`: which items users rate, and what that says about a like.

1. Of each user's training ratings the last eighth, as many as the validation split has, are to be predicted from
   those before. Popularity, activity and co-occurrence are estimated without that eighth.
2. These pairs of a user and an item, and pairs that the user has not rated in training, drawn at random, are told
   apart by a logistic regression. The log-odds are those of all pairs, not only of the drawn ones.
3. Popularity, activity and co-occurrence are estimated again, from all of training. On validation the model's AUC
   and calibration are measured.
4. The coefficient beta, by which the log-odds of being chosen move the log-odds of a like, is fitted to validation
   labels, given the taste model's log-odds. It is kept out if its interval contains zero.

Standard errors are clustered by user. The test split is never read.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import scipy.sparse
from annotated_types import Ge
from scipy.sparse.linalg import svds
from scipy.special import expit
from scipy.stats import rankdata

from jaxsim.dataset import TRAIN, VALIDATION
from jaxsim.exposure import HostModel, history_means, part_features
from jaxsim.settings import check_settings
from prep.bounds import Count, Seed
from prep.regression import Coefficient, logistic_regression
from prep.taste_model import (
    CALIBRATION_LABELS,
    MIN_LABELS,
    validation_examples,
    validation_log_odds,
    validation_rows,
)

KNOWN_PARTS = 7  # of eight parts of a user's training ratings; the last one is predicted
SMOOTHING = 10.0  # as if every user and every item had this many more ratings
CALIBRATION_BINS = 10
_FIT_STREAM, _VALIDATION_STREAM = 1, 2  # streams of random numbers beside the seed


@dataclass(frozen=True)
class ExposureTraining:
    """How the exposure model is fitted."""

    context: Count = 50
    """Preceding interactions whose likeness to an item counts."""
    rank: Annotated[int, Ge(0)] = 16
    """Factors of the co-occurrence of items; 0 leaves this part out."""
    negatives: Count = 100
    """Items drawn for each user, of which those that they have rated are dropped."""
    max_users: Count = 2_000
    """Users to whose ratings the model is fitted, at most; drawn with the seed."""
    max_labels: Count = CALIBRATION_LABELS
    """Validation labels to which beta is fitted, at most; drawn with the seed."""
    seed: Seed = 0
    """Seed of all draws."""

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: the first setting that is out of its bounds.
        """
        check_settings(self, option_prefix="--exposure.")


class Pairs(NamedTuple):
    """Pairs of a user and an item, rated or not, with the history before.

    Attributes:
        user, item: int64[E].
        rated: bool[E].
        place: int64[E], which history.
        history: int32[T, H], 0 for padding.
        present: bool[T, H], False for padding.
    """

    user: np.ndarray
    item: np.ndarray
    rated: np.ndarray
    place: np.ndarray
    history: np.ndarray
    present: np.ndarray


Fit = tuple[dict[str, np.ndarray] | None, dict[str, Any]]


def train_exposure(
    arrays: Mapping[str, np.ndarray],
    taste: Mapping[str, np.ndarray],
    taste_entry: Mapping[str, Any],
    config: ExposureTraining,
) -> Fit:
    """Fit the exposure model of a packed dataset.

    Args:
        arrays: of the pack (see `jaxsim.Dataset`); the test split is not read.
        taste, taste_entry: what `prep.taste_model.train_taste` returned.
        config: settings.

    Returns:
        The arrays for `exposure.safetensors`, and the manifest's `exposure` entry. With fewer than 200 training
        ratings to be predicted there are no arrays, and the entry says so.
    """
    train = arrays["interaction_split"] == TRAIN
    known = known_part(arrays)
    pairs = draw_pairs(arrays, known, train & ~known, config, _FIT_STREAM)
    count = int(pairs.rated.sum())
    if count < MIN_LABELS:
        reason = f"{count:,} training ratings to fit it to are fewer than {MIN_LABELS}"
        return None, {"reason": reason, "training": asdict(config)}
    before = estimate(arrays, known, KNOWN_PARTS, config.rank)
    coefficients = logistic_regression(
        _columns(arrays, taste["item_year"], before, pairs),
        pairs.rated,
        pairs.user,
        np.log(_pairs_per_drawn(arrays, config)),
    )
    packed = estimate(arrays, train, KNOWN_PARTS + 1, config.rank)
    model = HostModel(arrays, taste["item_year"], packed, coefficients)
    entry = {
        "coefficients": coefficients,
        "rated": count,
        "drawn": len(pairs.rated) - count,
        "validation": _validate(arrays, model, config),
        **_fit_label(arrays, taste, taste_entry, model, config),
        "training": asdict(config),
    }
    return packed, entry


def known_part(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The training interactions from which the others are predicted, bool[M].

    Of a user with n of them these are the first 7 n / 8, rounded down. If that is none, they are all.
    """
    train = arrays["interaction_split"] == TRAIN
    offsets = arrays["user_offsets"]
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    count = np.bincount(user[train], minlength=len(offsets) - 1)
    first = count * KNOWN_PARTS // (KNOWN_PARTS + 1)
    first = np.where(first > 0, first, count)
    # A user's training interactions come first.
    return train & (np.arange(len(train)) - offsets[user] < first[user])


def draw_pairs(
    arrays: Mapping[str, np.ndarray],
    known: np.ndarray,
    target: np.ndarray,
    config: ExposureTraining,
    stream: int,
) -> Pairs:
    """All interactions to be predicted of at most `max_users` users, and drawn items that they have not rated.

    Args:
        arrays: of the pack.
        known: bool[M], interactions that are no longer to be predicted.
        target: bool[M], those to be predicted. Others are not read.
        config: settings.
        stream: number of the stream of random numbers.
    """
    rng = np.random.default_rng([config.seed, stream])
    offsets, items = arrays["user_offsets"], arrays["interaction_item"].astype(np.int64)
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    chosen = np.unique(user[target])
    if len(chosen) > config.max_users:
        chosen = np.sort(rng.choice(chosen, config.max_users, replace=False))
    rows = np.flatnonzero(target & np.isin(user, chosen))
    first = np.searchsorted(user[rows], chosen)
    count = np.searchsorted(user[rows], chosen, side="right") - first
    other = np.repeat(np.arange(len(chosen)), config.negatives)
    place = first[other] + rng.integers(0, count[other])
    num_items = len(arrays["item_categories"])
    drawn = rng.integers(0, num_items, len(other))
    rated = (user * num_items + items)[known | target]
    new = ~np.isin(chosen[other] * num_items + drawn, rated)
    index = rows[:, None] + np.arange(-config.context, 0)
    present = index >= offsets[user[rows]][:, None]
    return Pairs(
        user=np.concatenate([user[rows], chosen[other][new]]),
        item=np.concatenate([items[rows], drawn[new]]),
        rated=np.arange(len(rows) + int(new.sum())) < len(rows),
        place=np.concatenate([np.arange(len(rows)), place[new]]),
        history=np.where(present, items[np.where(present, index, 0)], 0).astype(np.int32),
        present=present,
    )


def _pairs_per_drawn(arrays: Mapping[str, np.ndarray], config: ExposureTraining) -> float:
    """How many pairs that are not rated each drawn one stands for."""
    return len(arrays["item_categories"]) / config.negatives


def estimate(
    arrays: Mapping[str, np.ndarray], known: np.ndarray, parts: int, rank: int
) -> dict[str, np.ndarray]:
    """The arrays of `exposure.safetensors`, from interactions bool[M].

    Args:
        arrays: of the pack.
        known: bool[M], which interactions.
        parts: how many times more of them there are than of those to be predicted.
        rank: factors of the co-occurrence.

    Returns:
        item_popularity float32[N], the logarithm of the smoothed share of the interactions; user_activity
        float32[U], the logarithm of how many are to be predicted; cooccurrence_factors float32[N, R].
    """
    offsets = arrays["user_offsets"]
    user = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))[known]
    item = arrays["interaction_item"][known].astype(np.int64)
    num_users, num_items = len(offsets) - 1, len(arrays["item_categories"])
    of_item = np.bincount(item, minlength=num_items)
    of_user = np.bincount(user, minlength=num_users)
    return {
        "item_popularity": np.log((of_item + 1) / (len(item) + num_items)).astype(np.float32),
        "user_activity": np.log(np.maximum(of_user, 1) / parts).astype(np.float32),
        "cooccurrence_factors": cooccurrence_factors(user, item, of_user, of_item, rank),
    }


def cooccurrence_factors(
    user: np.ndarray, item: np.ndarray, of_user: np.ndarray, of_item: np.ndarray, rank: int
) -> np.ndarray:
    """Factors whose inner product is how much more often than by chance two items are rated together.

    It is the correspondence analysis of the ratings, with smoothed numbers of ratings: items that few people
    rated are close to nothing. The first factor, which says how many ratings an item has, is left out.

    Args:
        user, item: int64[R], the ratings.
        of_user, of_item: int64[U], int64[N], how many of them each has.
        rank: number of factors, at most.

    Returns:
        float32[N, R].
    """
    shape = (len(of_user), len(of_item))
    rank = min(rank, min(shape) - 2)
    if rank < 1 or len(item) == 0:
        return np.zeros((shape[1], 0), np.float32)
    scale_user, scale_item = (1 / np.sqrt(n + SMOOTHING) for n in (of_user, of_item))
    scaled = scale_user[user] * scale_item[item]
    matrix = scipy.sparse.csr_matrix((scaled, (user, item)), shape)
    # A fixed start, because the solver draws one otherwise.
    _, size, vectors = svds(matrix, k=rank + 1, v0=np.ones(min(shape), np.float64))
    order = np.argsort(-size)[1:]
    factors = (vectors[order] * size[order, None]).T
    return (factors * scale_item[:, None] * np.sqrt(len(item))).astype(np.float32)


def _columns(
    arrays: Mapping[str, np.ndarray],
    years: np.ndarray,
    estimated: Mapping[str, np.ndarray],
    pairs: Pairs,
) -> dict[str, np.ndarray]:
    """What the regression sees of each pair, float64[E] by name."""
    columns = {
        "popularity": estimated["item_popularity"][pairs.item].astype(np.float64),
        "activity": estimated["user_activity"][pairs.user].astype(np.float64),
    }
    for name, x in part_features(arrays, years, estimated["cooccurrence_factors"]).items():
        means = history_means(x, pairs.history, pairs.present)
        columns[name] = np.einsum("ef,ef->e", means[pairs.place], x[pairs.item]).astype(np.float64)
    return columns


def _validate(
    arrays: Mapping[str, np.ndarray], model: HostModel, config: ExposureTraining
) -> dict[str, Any] | None:
    """AUC and calibration on the validation split; None without one."""
    train, target = (arrays["interaction_split"] == code for code in (TRAIN, VALIDATION))
    if not target.any():
        return None
    pairs = draw_pairs(arrays, train, target, config, _VALIDATION_STREAM)
    log_odds = np.empty(len(pairs.item), np.float64)
    means = history_means(model.features, pairs.history, pairs.present) * model.weights
    for first in range(0, len(log_odds), 8192):
        rows = slice(first, first + 8192)
        affinity = (means[pairs.place[rows]] * model.features[pairs.item[rows]]).sum(axis=1)
        log_odds[rows] = model.base[pairs.item[rows]] + affinity
    within = [
        _auc(pairs.rated[rows], log_odds[rows])
        for rows in np.split(np.argsort(pairs.user, kind="stable"), _starts(pairs.user))
        if 0 < pairs.rated[rows].sum() < len(rows)
    ]
    log_odds = log_odds + model.of_activity[pairs.user]
    stands_for = np.where(pairs.rated, 1.0, _pairs_per_drawn(arrays, config))
    return {
        "rated": int(pairs.rated.sum()),
        "auc": _auc(pairs.rated, log_odds),
        "auc_within_user": float(np.mean(within)),
        "calibration": _calibration(expit(log_odds), pairs.rated, stands_for),
    }


def _auc(rated: np.ndarray, scores: np.ndarray) -> float:
    """ROC-AUC by ranks: scikit-learn's checks of its arguments take longer for the few pairs of a user."""
    count = int(rated.sum())
    above = rankdata(scores)[rated].sum() - count * (count + 1) / 2
    return float(above / (count * (len(rated) - count)))


def _starts(user: np.ndarray) -> np.ndarray:
    """Where the pairs of each user but the first start, if pairs are sorted by user."""
    return np.flatnonzero(np.diff(np.sort(user, kind="stable"))) + 1


def _calibration(
    propensity: np.ndarray, rated: np.ndarray, stands_for: np.ndarray
) -> list[dict[str, float]]:
    """Expected and observed numbers of ratings in bins with as many observed ratings each."""
    ends = np.quantile(propensity[rated], np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1])
    bins = np.searchsorted(ends, propensity, side="right")
    expected = np.bincount(bins, propensity * stands_for, CALIBRATION_BINS)
    observed = np.bincount(bins, rated, CALIBRATION_BINS)
    return [
        {"expected": round(float(a), 1), "observed": float(b)}
        for a, b in zip(expected, observed, strict=True)
    ]


# ---- what it says about a like -----------------------------------------------------------------------------


def _fit_label(
    arrays: Mapping[str, np.ndarray],
    taste: Mapping[str, np.ndarray],
    taste_entry: Mapping[str, Any],
    model: HostModel,
    config: ExposureTraining,
) -> dict[str, Any]:
    """The manifest's entries about beta.

    Returns:
        `label`, the coefficients; `offset` and `spread`, mean and standard deviation of e; `applies`, whether the
        interval of beta leaves zero out; and `reason` if it cannot be fitted.
    """
    rows = validation_rows(arrays, config.max_labels, config.seed)
    labels = arrays["interaction_label"][rows]
    if len(rows) < MIN_LABELS or len(np.unique(labels)) < 2:
        reason = (
            f"it takes {MIN_LABELS} validation labels, of likes and dislikes, and there are {len(rows):,}"
            if len(rows) < MIN_LABELS
            else "all validation labels are the same"
        )
        return {"label": None, "offset": 0.0, "spread": 0.0, "applies": False, "reason": reason}
    context = max(taste_entry["training"]["calibration_context"], config.context)
    examples = validation_examples(arrays, context, config.max_labels, config.seed)
    of_taste = validation_log_odds(arrays, taste, taste_entry, examples)
    latest = slice(context - config.context, None)
    chosen = model.log_odds(
        examples.item, examples.history_items[:, latest], examples.present[:, latest]
    )
    user = np.searchsorted(arrays["user_offsets"], rows, side="right") - 1
    table = label_coefficients(labels, of_taste, chosen, model.of_activity[user], user)
    ends = table["exposure"]["low"], table["exposure"]["high"]
    return {
        "label": table,
        "offset": float(chosen.mean()),
        "spread": float(chosen.std()),
        "applies": not ends[0] <= 0 <= ends[1],
    }


def label_coefficients(
    labels: np.ndarray,
    of_taste: np.ndarray,
    chosen: np.ndarray,
    of_activity: np.ndarray,
    user: np.ndarray,
) -> dict[str, Coefficient]:
    """By how much the log-odds of being chosen move those of a like, given the taste model's.

    Args:
        labels: int8[E].
        of_taste: float64[E], log-odds of a like by the taste model, added with coefficient 1.
        chosen: float64[E], log-odds of being chosen by a user of mean activity.
        of_activity: float64[E], what the user's own activity adds to these.
        user: int64[E].

    Returns:
        `exposure`, which is beta, and `intercept`. For comparison, three other fits: `within_user`, where only
        deviations from the mean of the user's own labels count; `with_activity`, where the activity counts, too;
        and `taste`, the coefficient of the taste model's log-odds where it is not fixed at 1.
    """
    count = np.bincount(user)
    mean = (np.bincount(user, chosen) / np.maximum(count, 1))[user]

    def fit(column: np.ndarray) -> dict[str, Coefficient]:
        return logistic_regression({"exposure": column}, labels, user, of_taste)

    main = fit(chosen - chosen.mean())
    free = {"exposure": chosen - chosen.mean(), "taste": of_taste}
    others = {
        "within_user": fit(chosen - mean).get("exposure"),
        "with_activity": fit(chosen + of_activity).get("exposure"),
        "taste": logistic_regression(free, labels, user).get("taste"),
    }
    nothing = Coefficient(value=0.0, standard_error=0.0, low=0.0, high=0.0)
    table = {"intercept": main["intercept"], "exposure": main.get("exposure", nothing)}
    return table | {name: row for name, row in others.items() if row is not None}
