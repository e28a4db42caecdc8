"""The explanation of a decision by the taste model.

The taste g(c) is a sum over the history, and the kernel is a sum of parts. So the taste splits exactly into a
share of each interaction and each part. The shares are computed here on the host, in float64. The response and the
flips are those of `UserSimulator.respond`, with which the shares have to agree.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxsim.ensemble import Decision
from jaxsim.errors import InputError
from jaxsim.explanation.counterfactuals import joint_removal, single_interactions
from jaxsim.explanation.leaving import explain_leaving, recent_in
from jaxsim.explanation.question import Outcomes, Question
from jaxsim.explanation.tables import Page, Printed
from jaxsim.explanation.taste_tables import taste_page
from jaxsim.explanation.taste_types import (
    PartShare,
    Repetition,
    Signals,
    TasteExplanationFields,
    TasteFlip,
    TasteShare,
)
from jaxsim.explanation.words import ItemWords
from jaxsim.exposure import correction, host_model
from jaxsim.satiation import added, redundancy_of
from jaxsim.taste_kernel import sequence_kernels

# Between respond's probability in float32 and ours. Rounding stays far below it; another dataset does not.
AGREEMENT = 1e-3


class TasteExplanation(Printed, TasteExplanationFields):
    """Why a user of the taste model likes a candidate or not: the fields of `TasteExplanationFields`.

    It prints as tables of text, and notebooks show the same tables.
    """

    def _page(self) -> Page:
        return taste_page(self)


@dataclass(frozen=True)
class TasteOutcomes(Outcomes):
    """Decisions by the taste model on R histories.

    Attributes:
        probability: float32[R], of a like.
        likes: bool[R], the responses.
        keyed: whether the caller gave a key; without one the draw stays open.
        decision: all that `respond` returned.
    """

    probability: np.ndarray
    likes: np.ndarray
    keyed: bool
    decision: Decision

    @classmethod
    def read(cls, decision: Decision, keyed: bool) -> Self:
        """The outcomes of what `respond` returned for R histories."""
        likes = np.asarray(decision.response.like) == 1
        return cls(np.asarray(decision.probability), likes, keyed, decision)

    @property
    def like_probability(self) -> np.ndarray:
        """Probability of a like, float64[R]."""
        return self.probability.astype(np.float64)

    @property
    def leaning(self) -> np.ndarray:
        """1 where the probability is at least 1/2, -1 elsewhere; float64[R]. The draw does not matter."""
        return np.where(self.probability >= 0.5, 1.0, -1.0)


class Shares(NamedTuple):
    """The taste, split.

    Attributes:
        weights: float64[n], alpha of each interaction.
        kernels: float64[n] for each part of the kernel, its share of k(c, j).
        item_mean: m + b_c.
        calibration: w_0, w_1 and w_2.
    """

    weights: np.ndarray
    kernels: dict[str, np.ndarray]
    item_mean: float
    calibration: tuple[float, float, float]


def explain_taste(words: ItemWords, question: Question[TasteOutcomes]) -> TasteExplanation:
    """Explain a decision by the taste model.

    Raises:
        InputError: the dataset's taste model is not the simulator's.
    """
    shares, base = taste_shares(words, question), question.ask()
    w0, w1, w2 = shares.calibration
    history = _history(words, question, shares)
    taste = float(sum(kernel @ shares.weights for kernel in shares.kernels.values()))
    item_part, taste_part = w0 + w1 * shares.item_mean, w2 * taste
    chosen, exposure, exposure_part = _exposure(words, question)
    redundancy, satiation_part = _satiation(question)
    log_odds = item_part + taste_part + exposure_part + satiation_part
    probability = float(1 / (1 + np.exp(-log_odds)))
    if abs(probability - base.like_probability[0]) > AGREEMENT:
        raise _another_dataset(words)
    draw_open = question.env.semantics == "calibrated" and not base.keyed
    return TasteExplanation(
        dataset=words.dataset.name,
        semantics=question.env.semantics,
        user=question.user,
        candidate=words.describe(question.candidate),
        candidate_year=words.year(question.candidate),
        history_length=len(question.history.items),
        probability=probability,
        log_odds=log_odds,
        calibration=shares.calibration,
        item_mean=shares.item_mean,
        item_part=item_part,
        taste=taste,
        taste_part=taste_part,
        chosen=chosen,
        exposure=exposure,
        exposure_part=exposure_part,
        parts=_parts({name: k @ shares.weights for name, k in shares.kernels.items()}, w2),
        history=history,
        draw_open=draw_open,
        like=None if draw_open else bool(base.likes[0]),
        leaning=bool(base.leaning[0] > 0),
        flips=tuple(_flips(question, words, base)) if question.flips else (),
        signals=_signals(words, question, base.decision, draw_open),
        redundancy=redundancy,
        satiation_part=satiation_part,
        leaving=explain_leaving(question, None if draw_open else bool(base.likes[0])),
        flips_sought=question.flips,
    )


def _signals(
    words: ItemWords, question: Question[TasteOutcomes], decision: Decision, draw_open: bool
) -> Signals | None:
    """Rating and duration of the first row of a decision."""
    model = question.params.taste
    if model is None or model.signals is None:
        return None
    response, heads = decision.response, model.signals
    levels: Any = () if heads.rating is None else np.asarray(heads.rating.levels)
    chances: Any = decision.rating_probabilities
    pairs = [
        (float(x), float(p))
        for x, p in zip(levels, () if chances is None else chances[0], strict=True)
    ]
    return Signals(
        rating=None if draw_open else _first(response.rating),
        expected_rating=sum(x * p for x, p in pairs) if pairs else None,
        rating_probabilities=tuple(pairs),
        duration=None if draw_open else _first(response.duration),
        expected_duration=_first(decision.expected_duration),
        unit=None if heads.duration is None else words.dataset.duration_unit,
    )


def _first(values: jax.Array | None) -> float | None:
    return None if values is None else float(values[0])


def taste_shares(words: ItemWords, question: Question[TasteOutcomes]) -> Shares:
    """The weight and the kernel of each interaction, by the equations of `jaxsim.taste` in float64.

    Raises:
        InputError: the dataset has no taste model.
    """
    dataset, history = words.dataset, question.history
    if dataset.taste is None:
        raise _another_dataset(words)
    fit, effect = dataset.manifest["taste"], dataset.taste["item_effect"].astype(np.float64)
    count = len(history.items)
    kernels = sequence_kernels(dataset, np.append(history.items, question.candidate))
    among = sum((x[:-1, :-1] for x in kernels.values()), start=np.eye(count, dtype=np.float64))
    residual = history.likes - fit["mean"] - effect[history.items]
    w0, w1, w2 = map(float, fit["calibration"])
    return Shares(
        weights=np.linalg.solve(among, residual),
        kernels={name: x[-1, :-1] for name, x in kernels.items()},
        item_mean=float(fit["mean"] + effect[question.candidate]),
        calibration=(w0, w1, w2),
    )


def _exposure(
    words: ItemWords, question: Question[TasteOutcomes]
) -> tuple[float | None, tuple[float, float] | None, float]:
    """The log-odds of being chosen, beta and o, and what they add to the log-odds of a like."""
    if question.params.exposure is None:
        return None, None, 0.0
    if words.dataset.exposure is None:
        raise _another_dataset(words)
    items = question.history.items[None]
    candidate, present = np.array([question.candidate]), np.ones(items.shape, bool)
    chosen = float(host_model(words.dataset).log_odds(candidate, items, present)[0])
    slope, offset = correction(words.dataset)
    return chosen, (slope, offset), slope * (chosen - offset)


def _satiation(question: Question[TasteOutcomes]) -> tuple[Repetition | None, float]:
    """How alike the candidate is to the last five, and what that adds to the log-odds of a like."""
    setting, params = question.env.satiation, question.params
    if setting is None:
        return None, 0.0
    recent = recent_in(question.history)
    redundancy = redundancy_of(params.catalogue, recent, jnp.int32(question.candidate))
    known = {n: None if np.isnan(x) else float(x) for n, x in redundancy._asdict().items()}
    return Repetition(**known), float(added(setting, params.satiation, redundancy))


def _another_dataset(words: ItemWords) -> InputError:
    return InputError(
        f"dataset {words.dataset.name} has another taste model than params: pass the dataset that "
        "jaxsim.make was given"
    )


def _flips(
    question: Question[TasteOutcomes], words: ItemWords, base: TasteOutcomes
) -> Iterable[TasteFlip]:
    single = single_interactions(question, words, base)
    for c in single or joint_removal(question, words, base):
        yield TasteFlip(c.changes, float(c.outcomes.probability[c.row]))


# ---- words -----------------------------------------------------------------------------------------------


def _history(
    words: ItemWords, question: Question[TasteOutcomes], shares: Shares
) -> tuple[TasteShare, ...]:
    """The share of each interaction, the largest first."""
    history, w2 = question.history, shares.calibration[2]
    of_history = []
    for n in reversed(range(len(history.items))):
        item, weight = int(history.items[n]), float(shares.weights[n])
        kernel = float(sum(k[n] for k in shares.kernels.values()))
        shared = _shared(words, item, question.candidate)
        of_history.append(
            TasteShare(
                position=int(history.positions[n]),
                item=item,
                name=words.name(item),
                categories=words.spell_categories(item),
                year=words.year(item),
                liked=bool(history.likes[n]),
                weight=weight,
                kernel=kernel,
                taste=weight * kernel,
                log_odds=w2 * weight * kernel,
                parts=_parts({name: weight * k[n] for name, k in shares.kernels.items()}, w2),
                shared_categories=shared[0],
                shared_pros=shared[1],
                shared_cons=shared[2],
            )
        )
    return tuple(sorted(of_history, key=lambda share: -abs(share.taste)))


def _shared(words: ItemWords, item: int, candidate: int) -> tuple[tuple[str, ...], ...]:
    """The categories, pros and cons that two items both have."""
    mine, theirs = words.describe(item), words.describe(candidate)
    pairs = (
        (mine.categories, theirs.categories),
        (mine.pros, theirs.pros),
        (mine.cons, theirs.cons),
    )
    return tuple(tuple(word for word in ours if word in other) for ours, other in pairs)


def _parts(tastes: Mapping[str, float], w2: float) -> tuple[PartShare, ...]:
    """Shares of the parts of the kernel, the largest first."""
    parts = [PartShare(name, float(taste), float(w2 * taste)) for name, taste in tastes.items()]
    return tuple(sorted(parts, key=lambda part: -abs(part.taste)))
