"""The parts of an explanation by the taste model, as plain data."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from jaxsim.explanation.types import Candidate, Change, Leaving


@dataclass(frozen=True)
class PartShare:
    """What one part of the kernel adds to the taste.

    Attributes:
        part: "constant", "mood", "category", "year", "pros", "cons" or "covariance" (`jaxsim.taste_kernel`).
        taste: its share of g(c).
        log_odds: the same in log-odds, w_2 times as much.
    """

    part: str
    taste: float
    log_odds: float


@dataclass(frozen=True)
class TasteShare:
    """What one interaction of the history adds to the taste: alpha_j k(c, j).

    Attributes:
        position: its position in the history that the caller passed.
        item, name, categories: as in `Candidate`.
        year: of the item; None if it has none.
        liked: the response.
        weight: alpha_j; positive if the user liked the item more than all other interactions let the model expect.
        kernel: k(c, j), how alike the candidate and the item are, with the mood.
        taste: alpha_j k(c, j), the share of g(c).
        log_odds: the same in log-odds, w_2 alpha_j k(c, j).
        parts: the share split by part of the kernel, the largest first; they add up to `taste`.
        shared_categories, shared_pros, shared_cons: what the item and the candidate both have.
    """

    position: int
    item: int
    name: str
    categories: tuple[str, ...]
    year: int | None
    liked: bool
    weight: float
    kernel: float
    taste: float
    log_odds: float
    parts: tuple[PartShare, ...]
    shared_categories: tuple[str, ...]
    shared_pros: tuple[str, ...]
    shared_cons: tuple[str, ...]


@dataclass(frozen=True)
class TasteFlip:
    """Changes that together move the probability across 1/2.

    Attributes:
        changes: one change, or several interactions to leave out together.
        probability: of a like after them.
    """

    changes: tuple[Change, ...]
    probability: float


@dataclass(frozen=True)
class Signals:
    """Rating and duration of the response (`jaxsim.signals`). What an environment does not have is None or empty.

    Attributes:
        rating: the rating; None, too, if it has still to be drawn.
        expected_rating: its mean before the draw.
        rating_probabilities: every rating with its probability, ascending.
        duration: the duration; None, too, if it has still to be drawn.
        expected_duration: its mean before the draw.
        unit: of durations, such as "hours".
    """

    rating: float | None = None
    expected_rating: float | None = None
    rating_probabilities: tuple[tuple[float, float], ...] = ()
    duration: float | None = None
    expected_duration: float | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Repetition:
    """The features of `jaxsim.satiation.Redundancy`; None where there is nothing to compare."""

    same_category: float | None
    keyword_similarity: float | None
    latest_same_category: float | None


@dataclass(frozen=True)
class TasteExplanationFields:
    """The fields of a `jaxsim.TasteExplanation`; the equations are those of `jaxsim.taste`.

    Attributes:
        dataset, semantics: of the simulator.
        user: index of the user; the taste model knows users by their history only.
        candidate: the item to respond to.
        candidate_year: its year; None if it has none.
        history_length: number of interactions in the history, without padding.
        probability: p(c), the probability of a like.
        log_odds: its log-odds, `item_part` + `taste_part` + `exposure_part` + `satiation_part`.
        calibration: w_0, w_1 and w_2.
        item_mean: m + b_c, the like rate of the item among all users.
        item_part: w_0 + w_1 (m + b_c), in log-odds.
        taste: g(c).
        taste_part: w_2 g(c), in log-odds.
        chosen: e(c), the log-odds that the user would have chosen the item (`jaxsim.exposure`); None without
            `exposure=True`.
        exposure: beta and o; None without `exposure=True`.
        exposure_part: beta (e(c) - o), in log-odds; 0 without `exposure=True`.
        parts: the taste split by part of the kernel, the largest first; they add up to `taste`.
        history: the share of every interaction, the largest first; they add up to `taste`. Among equal ones the
            latest comes first.
        draw_open: the like is drawn ("calibrated"), and no key was given.
        like: the response; None if it has still to be drawn. Under "soft" it is the leaning.
        leaning: whether p is at least 1/2.
        flips: every single change that moves p across 1/2: interactions to leave out, then responses to reverse.
            Within each group, those that move p furthest come first. If no single change does it: one set of up to
            MAX_REMOVALS interactions to leave out together, if the greedy search finds one.
        signals: rating and duration, given ratings and durations of the history that are typical of its labels;
            None if responses are likes alone.
        redundancy: how alike the candidate is to the last five items of the history; None without satiation.
        satiation_part: what satiation adds, in log-odds (`jaxsim.satiation`); 0 without it.
        leaving: the chance of leaving after the response, or after a dislike and after a like while the draw is
            open; empty unless `explain` got a position.
        flips_sought: False if `explain` was told not to look for flips; then `flips` is empty.
    """

    dataset: str
    semantics: str
    user: int
    candidate: Candidate
    candidate_year: int | None
    history_length: int
    probability: float
    log_odds: float
    calibration: tuple[float, float, float]
    item_mean: float
    item_part: float
    taste: float
    taste_part: float
    chosen: float | None
    exposure: tuple[float, float] | None
    exposure_part: float
    parts: tuple[PartShare, ...]
    history: tuple[TasteShare, ...]
    draw_open: bool
    like: bool | None
    leaning: bool
    flips: tuple[TasteFlip, ...]
    signals: Signals | None = None
    redundancy: Repetition | None = None
    satiation_part: float = 0.0
    leaving: tuple[Leaving, ...] = ()
    flips_sought: bool = True

    def to_dict(self) -> dict[str, Any]:
        """All fields as dicts, tuples, strings, numbers, booleans and None, for `json.dumps`."""
        return dataclasses.asdict(self)
