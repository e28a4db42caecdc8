"""Fitting of `jaxsim.visits`: whether and when users return after a session, from the training logs.

Sessions are parted as for the departure (`prep.departure_model.read_log`). Each end of a session is one
observation. The user returned after a gap g, or was not seen to return: for each user's last training session, up
to the last time in all training logs. Their log goes on in validation and test, so the rates of return are lower
bounds: lives are as long as they are in the training logs, as sessions are for the departure.

It is a cure model. With x and y the standardised features of the terms,

    P(returns at all) = pi = sigmoid(a + b'x),   log(gap - session gap) = m_k + c'y + s_k e with probability w_k

and e a standard normal number. A gap g has the likelihood pi f(g), a user who was not seen to return within c
1 - pi F(c). The expectation-maximisation algorithm takes two things as missing: whether a user who was not seen to
return is going to, and the component of each gap. The number K of components, one to three, has the lowest BIC.
Standard errors are those of the likelihood's score, clustered by user. Terms whose 95 % interval contains zero are
dropped, and the fit is repeated without them.

Only training interactions are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_ndtr, logsumexp

from jaxsim.dataset import TRAIN
from jaxsim.departure import SATISFACTION
from jaxsim.visits import PARTS, SESSIONS, VISIT_TERMS
from prep.departure_model import CLIP, Log, item_arrays, read_log, satisfaction, standardised
from prep.regression import SMALL_RIDGE, clear_terms, fit_logistic, sandwich

MAX_COMPONENTS = 3
_MINUTE = 60
_LEAST_SCALE = 0.05  # of a component, in logarithms: one gap alone is no component
_STEPS, _TOLERANCE = 2_000, 1e-8
_DIFFERENCE = 1e-4  # of parameters, where the score is differentiated

Terms = Mapping[str, Sequence[str]]  # "return" and "gap" to the names of their terms


class Ends(NamedTuple):
    """The ends of sessions, E of them.

    Attributes:
        user: int[E].
        row: int[E], the interaction of the log after which it is.
        returned: bool[E], whether the log goes on.
        log_time: float64[E], logarithm of the minutes beyond the session gap until the user returned, or until
            which they were not seen to return.
        features: float64[E] by term, as they are.
    """

    user: np.ndarray
    row: np.ndarray
    returned: np.ndarray
    log_time: np.ndarray
    features: dict[str, np.ndarray]


@dataclass(frozen=True)
class ReturnFit:
    """The parameters of the cure model; D_r and D_g terms.

    Attributes:
        intercept: a.
        return_weights: float64[D_r], b.
        weights, means, scales: float64[K], w, m and s.
        gap_weights: float64[D_g], c.
        log_likelihood: of all ends.
    """

    intercept: float
    return_weights: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    scales: np.ndarray
    gap_weights: np.ndarray
    log_likelihood: float = -np.inf

    def vector(self) -> np.ndarray:
        """All free parameters: a, b, c, log-odds of the components after the first, m, log s."""
        odds = np.log(self.weights[1:] / self.weights[0])
        parts = [self.intercept], self.return_weights, self.gap_weights, odds, self.means
        return np.concatenate([*parts, np.log(self.scales)])

    def moved_to(self, vector: np.ndarray) -> "ReturnFit":
        """The parameters of such a vector."""
        sizes = 1, len(self.return_weights), len(self.gap_weights), len(self.means) - 1
        a, b, c, odds, rest = np.split(vector, np.cumsum(sizes))
        logits = np.append(0.0, odds)
        means, log_scales = np.split(rest, 2)
        weights = np.exp(logits - logsumexp(logits))
        return ReturnFit(float(a[0]), b, weights, means, np.exp(log_scales), c)


def train_visits(
    arrays: Mapping[str, np.ndarray], session_gap: float
) -> tuple[dict[str, np.ndarray] | None, dict[str, Any]]:
    """Fit whether and when users return.

    Args:
        arrays: of the pack (see `jaxsim.Dataset`); of validation and test nothing is read.
        session_gap: minutes without an interaction that part sessions.

    Returns:
        The arrays for `visits.safetensors`, or None where the logs show no or few returns; and the manifest's
        `visits` entry.
    """
    entry: dict[str, Any] = {"session_gap": session_gap}
    log, reason = read_log(arrays, session_gap)
    if log is None:
        return None, {**entry, "none_because": reason}
    items = item_arrays(arrays)
    ends = session_ends(log, arrays, items["item_rate"], session_gap)
    scales = {name: (float(x.mean()), float(x.std())) for name, x in ends.features.items()}
    known = {
        name: standardised(x, *scales[name])
        for name, x in ends.features.items()
        if scales[name][1] > 1e-6
    }
    both = {part: list(known) for part in PARTS}
    fits = [fit_returns(ends, known, both, k) for k in range(1, MAX_COMPONENTS + 1)]
    bic = [len(f.vector()) * np.log(len(ends.user)) - 2 * f.log_likelihood for f in fits]
    components = int(np.argmin(bic)) + 1
    table, fit, kept = _select(ends, known, fits[components - 1])
    used = np.concatenate([fit.return_weights, fit.gap_weights])
    names = [(part, name) for part in PARTS for name in kept[part]]
    terms: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for (part, name), weight in zip(names, used, strict=True):
        mean, scale = scales[name]
        terms[part][name] = {"weight": float(weight), "mean": mean, "scale": scale}
    return {"item_rate": items["item_rate"], "user_sessions": training_sessions(log, arrays)}, {
        **entry,
        "ends": len(ends.user),
        "returns": int(ends.returned.sum()),
        "clip": CLIP,
        "bic": [float(x) for x in bic],
        "intercept": fit.intercept,
        "weights": fit.weights.tolist(),
        "means": fit.means.tolist(),
        "scales": fit.scales.tolist(),
        "terms": terms,
        "table": table,
    }


def session_ends(
    log: Log, arrays: Mapping[str, np.ndarray], item_rate: np.ndarray, session_gap: float
) -> Ends:
    """The ends of the sessions of the training logs, with what the terms need to know.

    A session that ended less than the session gap before the last time of all says nothing, and is left out.
    """
    time = arrays["interaction_time"][arrays["interaction_split"] == TRAIN]
    until = np.append(time[1:], 0)
    until[log.cut] = time.max()
    beyond = (until - time) / _MINUTE - session_gap
    row = np.flatnonzero(log.ends & (beyond > 0))
    liked = satisfaction(log, arrays, item_rate)
    features = {SATISFACTION: liked[row], SESSIONS: np.log(sessions_so_far(log)[row])}
    return Ends(log.user[row], row, ~log.cut[row], np.log(beyond[row]), features)


def sessions_so_far(log: Log) -> np.ndarray:
    """The number of the user's sessions up to and with that of each interaction, int64[M]."""
    total = np.cumsum(log.position == 1)
    return total - total[np.searchsorted(log.user, log.user)] + 1


def training_sessions(log: Log, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The number of sessions of each user's training log, int32[U]."""
    counts = np.diff(arrays["user_offsets"])
    user = np.repeat(np.arange(len(counts)), counts)[arrays["interaction_split"] == TRAIN]
    return np.bincount(user[log.position == 1], minlength=len(counts)).astype(np.int32)


# ---- the fit -----------------------------------------------------------------------------------------------


def _select(
    ends: Ends, known: Mapping[str, np.ndarray], whole: ReturnFit
) -> tuple[list[dict[str, Any]], ReturnFit, Terms]:
    """The table of all terms, and the fit with those that were kept.

    Args:
        ends: of the logs.
        known: the standardised features, float64[E] by term.
        whole: the fit with all terms.
    """
    last: dict[str, Any] = {}

    def estimate(names: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
        terms = {part: [name for p, name in names if p == part] for part in PARTS}
        size, drops = len(names), len(names) < 2 * len(known)
        fit = fit_returns(ends, known, terms, len(whole.means)) if drops else whole
        last.update(fit=fit, terms=terms)
        errors = standard_errors(ends, known, terms, fit)[1 : 1 + size]
        return list(zip(fit.vector()[1 : 1 + size].tolist(), errors.tolist(), strict=True))

    rows = clear_terms(
        [(p, name) for p in PARTS for name in VISIT_TERMS if name in known], estimate
    )
    table = [{"part": part, "term": name, **row} for (part, name), row in rows.items()]
    return table, last["fit"], last["terms"]


def fit_returns(
    ends: Ends, known: Mapping[str, np.ndarray], terms: Terms, components: int
) -> ReturnFit:
    """The cure model by expectation-maximisation.

    Args:
        ends: of the logs.
        known: the standardised features, float64[E] by term.
        terms: "return" and "gap" to the names of their terms.
        components: K.
    """
    designs = _designs(ends, known, terms)
    fit = _start(ends, designs, components)
    for _ in range(_STEPS):
        belief = _expect(ends, designs, fit)
        gain = belief.log_likelihood - fit.log_likelihood
        fit = _maximise(ends, designs, belief, fit)
        if gain < _TOLERANCE * len(ends.user):
            break
    return fit


class _Designs(NamedTuple):
    """Columns of the terms: float64[E, 1 + D_r] with a first column of ones, and float64[E, D_g]."""

    of_return: np.ndarray
    of_gap: np.ndarray


class _Belief(NamedTuple):
    """What the missing data are expected to be, given the parameters.

    Attributes:
        share: float64[E, K], the probability that the user returns and the gap is of component k.
        first, second: float64[E, K], mean of the standardised deviation e and of its square, given that.
        log_likelihood: of all ends.
    """

    share: np.ndarray
    first: np.ndarray
    second: np.ndarray
    log_likelihood: float


def _designs(ends: Ends, known: Mapping[str, np.ndarray], terms: Terms) -> _Designs:
    ones = np.ones(len(ends.user), np.float64)
    columns = [np.stack([ones, *(known[name] for name in terms[part])], 1) for part in PARTS]
    return _Designs(columns[0], columns[1][:, 1:])


def _start(ends: Ends, designs: _Designs, components: int) -> ReturnFit:
    """Components of equal parts of the gaps that were seen; no term has an effect."""
    parts = np.array_split(np.sort(ends.log_time[ends.returned]), components)
    share = ends.returned.mean()
    return ReturnFit(
        intercept=float(np.log(share / (1 - share))) if share < 1 else 5.0,
        return_weights=np.zeros(designs.of_return.shape[1] - 1),
        weights=np.full(components, 1 / components),
        means=np.array([x.mean() for x in parts]),
        scales=np.array([max(x.std(), _LEAST_SCALE) for x in parts]),
        gap_weights=np.zeros(designs.of_gap.shape[1]),
    )


def _log_odds(designs: _Designs, fit: ReturnFit) -> np.ndarray:
    return designs.of_return @ np.append(fit.intercept, fit.return_weights)


def _expect(ends: Ends, designs: _Designs, fit: ReturnFit) -> _Belief:
    log_odds = _log_odds(designs, fit)
    shift = designs.of_gap @ fit.gap_weights
    e = (ends.log_time[:, None] - shift[:, None] - fit.means) / fit.scales
    seen = ends.returned[:, None]
    density = _log_normal(e) - np.log(fit.scales)
    beyond = log_ndtr(-e)
    log_joint = np.log(fit.weights) + np.where(seen, density, beyond)
    log_joint -= np.logaddexp(0.0, -log_odds)[:, None]  # log pi
    log_never = np.where(ends.returned, -np.inf, -np.logaddexp(0.0, log_odds))
    total = np.logaddexp(logsumexp(log_joint, axis=1), log_never)
    rest = np.exp(_log_normal(e) - beyond)  # mean of a normal number that is above e
    first = np.where(seen, e, rest)
    second = np.where(seen, e**2, 1.0 + e * rest)
    return _Belief(np.exp(log_joint - total[:, None]), first, second, float(total.sum()))


def _log_normal(e: np.ndarray) -> np.ndarray:
    return -0.5 * (e**2 + np.log(2 * np.pi))


def _maximise(ends: Ends, designs: _Designs, belief: _Belief, fit: ReturnFit) -> ReturnFit:
    returns = np.minimum(belief.share.sum(axis=1), 1.0)
    # What is added to the weights so far, because that is found in fewer steps.
    so_far = np.append(fit.intercept, fit.return_weights)
    added = fit_logistic(designs.of_return, returns, ends.user, designs.of_return @ so_far)
    of_return = so_far + added.coefficients
    count = belief.share.sum(axis=0)
    # The expected logarithm of each gap and of its square, from the deviations under the parameters so far.
    centre = (designs.of_gap @ fit.gap_weights)[:, None] + fit.means
    mean = centre + fit.scales * belief.first
    square = centre**2 + 2 * centre * fit.scales * belief.first + fit.scales**2 * belief.second
    precision = belief.share / fit.scales**2
    means, gap_weights = _weighted_least_squares(mean, precision, designs.of_gap)
    centre = (designs.of_gap @ gap_weights)[:, None] + means
    variance = (belief.share * (square - 2 * centre * mean + centre**2)).sum(axis=0) / count
    return ReturnFit(
        intercept=float(of_return[0]),
        return_weights=of_return[1:],
        weights=count / count.sum(),
        means=means,
        scales=np.maximum(np.sqrt(np.maximum(variance, 0.0)), _LEAST_SCALE),
        gap_weights=gap_weights,
        log_likelihood=belief.log_likelihood,
    )


def _weighted_least_squares(
    mean: np.ndarray, precision: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A mean of each component, float64[K], and the weights of the columns that all share, float64[D].

    Args:
        mean: float64[E, K], what is expected of each gap in each component.
        precision: float64[E, K], how much it counts.
        columns: float64[E, D].
    """
    components = mean.shape[1]
    cross = precision.T @ columns
    by_row = precision.sum(axis=1)[:, None] * columns
    system = np.block([[np.diag(precision.sum(axis=0)), cross], [cross.T, columns.T @ by_row]])
    right = np.concatenate(
        [(precision * mean).sum(axis=0), columns.T @ (precision * mean).sum(axis=1)]
    )
    solution = np.linalg.solve(system, right)
    return solution[:components], solution[components:]


# ---- standard errors ---------------------------------------------------------------------------------------


def standard_errors(
    ends: Ends, known: Mapping[str, np.ndarray], terms: Terms, fit: ReturnFit
) -> np.ndarray:
    """Standard errors of `ReturnFit.vector`, clustered by user."""
    designs = _designs(ends, known, terms)
    at = fit.vector()
    slopes = []
    for i in range(len(at)):
        step = _DIFFERENCE * np.eye(len(at))[i]
        after, before = (_scores(ends, designs, fit.moved_to(at + x)) for x in (step, -step))
        slopes.append((after - before).sum(axis=0) / (2 * _DIFFERENCE))
    # The small ridge is for parameters that the data says nothing about, such as a scale at its lower bound.
    curvature = SMALL_RIDGE * np.eye(len(at)) - np.array(slopes)
    scores = _scores(ends, designs, fit)
    return np.sqrt(np.diag(sandwich((curvature + curvature.T) / 2, scores, ends.user)))


def _scores(ends: Ends, designs: _Designs, fit: ReturnFit) -> np.ndarray:
    """The slope of each end's log-likelihood in each parameter, float64[E, P].

    It is the expected slope of the likelihood of the complete data (Fisher's identity).
    """
    belief = _expect(ends, designs, fit)
    returns = belief.share.sum(axis=1)
    of_return = designs.of_return * (returns - expit(_log_odds(designs, fit)))[:, None]
    of_mean = belief.share * belief.first / fit.scales
    of_gap = designs.of_gap * of_mean.sum(axis=1)[:, None]
    of_odds = belief.share - returns[:, None] * fit.weights
    of_scale = belief.share * (belief.second - 1.0)
    return np.concatenate([of_return, of_gap, of_odds[:, 1:], of_mean, of_scale], axis=1)
