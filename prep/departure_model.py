"""Fitting of `jaxsim.departure` to where the sessions of the training logs end.

A user's log is parted into sessions at gaps in time. Each interaction is one observation of a discrete-time
hazard: is it the last of its session? The split cuts each training log somewhere. Whether its last interaction
ended a session is not seen, so it is no evidence about the terms.

1. Two logistic regressions, with standard errors clustered by user. "raw" compares all interactions at equal
   position in the session. "within" compares a user with themselves: it also has each feature's mean over the
   user, and the logarithm of how many items the user has had, because obscure items come late in every log.
2. Terms whose 95 % interval contains zero are dropped, and the regression is repeated without them.
3. The base b(t), piecewise linear in the logarithm of the position, with the terms of the chosen specification
   held fixed. Here the end of the training log counts as the end of a session, so that sessions are as long as
   they are in the training logs.

Only training interactions are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import tyro
from annotated_types import Gt

from jaxsim.dataset import TRAIN
from jaxsim.departure import OBSCURITY, RECENT, SAME_CATEGORY, SATISFACTION, SIMILARITY, TERMS
from jaxsim.settings import check_settings
from prep.recent_items import compare_with_earlier, mean_where
from prep.regression import LogisticFit, fit_logistic, group_means, select_clear

CLIP = 2.0
KNOTS = (1, 2, 4, 8, 16, 32, 64, 128)
MIN_ENDS = 100  # with fewer the departure stays constant
MIN_ENDS_PER_KNOT = 30
RATE_SMOOTHING = 5.0
_MIN_MEAN_LENGTH = 2.0

Specification = Literal["within", "raw"]
SPECIFICATIONS: tuple[Specification, ...] = ("within", "raw")


@dataclass(frozen=True)
class DepartureTraining:
    """How the departure of users is fitted."""

    session_gap: Annotated[float, Gt(0), tyro.conf.arg(prefix_name=False)] = 30.0
    """Minutes without an interaction that part a user's log into sessions."""
    specification: Specification = "within"
    """Which regression the simulator uses. within: how a user's own chance of leaving changes with what they had
    lately, which is nearer to what a recommendation causes. raw: with the differences between users, too."""

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: the first setting that is out of its bounds.
        """
        check_settings(self, option_prefix="--")


class Log(NamedTuple):
    """Training interactions, user after user, in their order: M of them.

    Attributes:
        user, item: int[M].
        position: int64[M], in the session, from 1.
        so_far: int64[M], interactions of the user up to this one.
        ends: bool[M], whether it is the last of its session, as far as the log shows.
        cut: bool[M], the user's last training interaction; whether the session went on is not seen.
    """

    user: np.ndarray
    item: np.ndarray
    position: np.ndarray
    so_far: np.ndarray
    ends: np.ndarray
    cut: np.ndarray


def train_departure(
    arrays: Mapping[str, np.ndarray], config: DepartureTraining
) -> tuple[dict[str, np.ndarray] | None, dict[str, Any]]:
    """Fit the departure of a packed dataset.

    Args:
        arrays: of the pack (see `jaxsim.Dataset`); of validation and test nothing is read.
        config: settings.

    Returns:
        The arrays for `departure.safetensors`, or None where the logs do not show when users leave; and the
        manifest's `departure` entry.
    """
    entry: dict[str, Any] = {"training": asdict(config)}
    log, reason = read_log(arrays, config.session_gap)
    if log is None:
        return None, {**entry, "constant_because": reason}
    items = item_arrays(arrays)
    raw = window_features(log, arrays, items)
    scales = {name: (float(np.nanmean(x)), float(np.nanstd(x))) for name, x in raw.items()}
    features = {
        name: standardised(x, *scales[name]) for name, x in raw.items() if scales[name][1] > 1e-6
    }
    tables = {spec: _select(log, features, spec) for spec in SPECIFICATIONS}
    chosen = {
        row["term"]: row["coefficient"] for row in tables[config.specification] if row["kept"]
    }
    terms = {
        name: {"weight": w, "mean": scales[name][0], "scale": scales[name][1]}
        for name, w in chosen.items()
    }
    base = fit_base(log, log_odds_of_terms(raw, terms))
    sessions = int(log.ends.sum())
    return {**items, "position_log_odds": base}, {
        **entry,
        "sessions": sessions,
        "mean_length": len(log.user) / sessions,
        "ends_seen": int((log.ends & ~log.cut).sum()),
        "interactions": len(log.user),
        "clip": CLIP,
        "terms": terms,
        "tables": tables,
    }


def log_odds_of_terms(
    raw: Mapping[str, np.ndarray], terms: Mapping[str, Mapping[str, float]]
) -> np.ndarray:
    """What fitted terms add to the log-odds of leaving, float64[M].

    Args:
        raw: of `window_features`.
        terms: of the manifest's `departure` entry.
    """
    total = np.zeros(len(raw[OBSCURITY]))
    for name, term in terms.items():
        total += term["weight"] * standardised(raw[name], term["mean"], term["scale"])
    return total


def read_log(arrays: Mapping[str, np.ndarray], gap: float) -> tuple[Log | None, str]:
    """The training interactions as sessions parted by gaps of more than `gap` minutes.

    Returns:
        The log, or None and the reason why it shows no sessions.
    """
    counts = np.diff(arrays["user_offsets"])
    train = arrays["interaction_split"] == TRAIN
    user = np.repeat(np.arange(len(counts)), counts)[train]
    time = arrays["interaction_time"][train]
    first = np.concatenate([[True], user[1:] != user[:-1]])
    pause = np.where(first, 0, np.diff(time, prepend=time[:1]))
    if not pause.any():
        return None, "all times are equal"
    if (pause < 0).any():
        return None, "times run backwards"
    begins = np.where(first, True, pause > 60 * gap)
    ends, cut = np.append(begins[1:], True), np.append(first[1:], True)
    seen = int((ends & ~cut).sum())
    if seen < MIN_ENDS:
        return None, f"{seen} gaps of more than {gap:g} minutes, fewer than {MIN_ENDS}"
    if len(user) < _MIN_MEAN_LENGTH * ends.sum():
        return None, f"nearly all interactions are more than {gap:g} minutes apart"
    place = np.arange(len(user))
    position = place - np.maximum.accumulate(np.where(begins, place, 0)) + 1
    so_far = place - np.maximum.accumulate(np.where(first, place, 0)) + 1
    _, user = np.unique(user, return_inverse=True)
    item = arrays["interaction_item"][train]
    return Log(user, item, position, so_far, ends, cut), ""


def item_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the features need to know of each item: `item_obscurity` and `item_rate`, float32[N]."""
    train = arrays["interaction_split"] == TRAIN
    item, label = arrays["interaction_item"][train], arrays["interaction_label"][train]
    count = np.bincount(item, minlength=len(arrays["item_categories"]))
    likes = np.bincount(item, weights=label, minlength=len(count))
    rate = (likes + RATE_SMOOTHING * label.mean()) / (count + RATE_SMOOTHING)
    return {
        "item_obscurity": -np.log1p(count).astype(np.float32),
        "item_rate": rate.astype(np.float32),
    }


def window_features(
    log: Log, arrays: Mapping[str, np.ndarray], items: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The features after each interaction, float64[M] by term; NaN where there is nothing to take them from."""
    alike = compare_with_earlier(log.item, log.so_far, arrays, range(1, RECENT))
    return {
        OBSCURITY: _mean_of_recent(items["item_obscurity"][log.item], log),
        SAME_CATEGORY: mean_where(alike.present, alike.same_category),
        SIMILARITY: mean_where(alike.described, alike.cosine),
        SATISFACTION: satisfaction(log, arrays, items["item_rate"]),
    }


def satisfaction(log: Log, arrays: Mapping[str, np.ndarray], item_rate: np.ndarray) -> np.ndarray:
    """How much more than others the user liked the last five items, after each interaction, float64[M]."""
    label = arrays["interaction_label"][arrays["interaction_split"] == TRAIN]
    return _mean_of_recent(label - item_rate[log.item], log)


def _mean_of_recent(values: np.ndarray, log: Log) -> np.ndarray:
    """The mean of each interaction and the four before it of the same user, float64[M]."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    size = np.minimum(log.so_far, RECENT)
    place = np.arange(len(values)) + 1
    return (total[place] - total[place - size]) / size


def standardised(values: np.ndarray, mean: float, scale: float) -> np.ndarray:
    """Values in standard deviations, clipped; 0 for NaN."""
    return np.nan_to_num(np.clip((values - mean) / scale, -CLIP, CLIP))


# ---- regressions -------------------------------------------------------------------------------------------


def _select(
    log: Log, features: Mapping[str, np.ndarray], specification: Specification
) -> list[dict[str, Any]]:
    """The table of a specification: its rows of kept terms come from the regression without the others."""
    seen = ~log.cut
    names = [name for name in TERMS if name in features]
    return select_clear(names, lambda kept: _fit_terms(log, features, kept, specification, seen))


def _fit_terms(
    log: Log,
    features: Mapping[str, np.ndarray],
    names: Sequence[str],
    specification: Specification,
    rows: np.ndarray,
) -> LogisticFit:
    """The regression on some terms, whose coefficients come first."""
    columns = [features[name] for name in names]
    if specification == "within":
        means = [group_means(log.user, x, rows) for x in columns]
        so_far = np.log(log.so_far)
        columns = [x - mean for x, mean in zip(columns, means, strict=True)]
        columns += [*means, so_far - so_far[rows].mean()]
    base = position_basis(log.position, knots_of(log.position[rows & log.ends]))
    design = np.column_stack([*columns, base])
    return fit_logistic(design[rows], log.ends[rows], log.user[rows])


def fit_base(log: Log, offset: np.ndarray) -> np.ndarray:
    """The base b at positions from 1 to the last knot, float32[P], with the log-odds of the terms as offset."""
    knots = knots_of(log.position[log.ends])
    fit = fit_logistic(position_basis(log.position, knots), log.ends, log.user, offset)
    table = position_basis(np.arange(1, KNOTS[-1] + 1), knots) @ fit.coefficients
    return table.astype(np.float32)


def knots_of(ends: np.ndarray) -> tuple[int, ...]:
    """The positions between which b is linear; there are enough ends (their positions are given) after each."""
    return (1, *(k for k in KNOTS[1:] if (ends >= k).sum() >= MIN_ENDS_PER_KNOT))


def position_basis(position: np.ndarray, knots: Sequence[int]) -> np.ndarray:
    """Functions of the position that are linear in its logarithm between knots, float64[M, number of knots].

    They add up to one, and are constant after the last knot.
    """
    place, at = np.log(position), np.log(knots)
    return np.stack([np.interp(place, at, row) for row in np.eye(len(at))], axis=1)
