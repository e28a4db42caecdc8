"""Counterfactuals: the smallest changes of a history that flip the decision, for either model of the user.

For each change (an interaction left out, a response reversed) the simulator responds again, so that everything
follows the change.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic

import numpy as np

from jaxsim.explanation.question import History, OutcomesT, Question, without
from jaxsim.explanation.types import Change, ChangeKind
from jaxsim.explanation.words import ItemWords

MAX_REMOVALS = 5  # interactions left out together, at most, when no single change flips a decision


@dataclass(frozen=True)
class Counterfactual(Generic[OutcomesT]):
    """Changes that together flip the decision.

    Attributes:
        changes: one change, or several interactions to leave out together.
        outcomes, row: the decision after them is this row of these outcomes.
    """

    changes: tuple[Change, ...]
    outcomes: OutcomesT
    row: int


def single_interactions(
    question: Question[OutcomesT], words: ItemWords, base: OutcomesT
) -> list[Counterfactual[OutcomesT]]:
    """What flips `base` by leaving out an interaction, then what flips it by reversing a response."""
    history, count = question.history, len(question.history.items)
    if count == 0:
        return []
    items, likes = without(history, [[n] for n in range(count)])
    reversed_likes = np.where(np.eye(count, dtype=bool), 1 - history.likes, history.likes)
    outcomes = question.ask_of(
        np.concatenate([items, np.broadcast_to(history.items, items.shape)]),
        np.concatenate([likes, reversed_likes.astype(np.int8)]),
    )
    kinds: list[ChangeKind] = ["leave_out", "reverse"]
    return [
        Counterfactual((_change(words, history, row - first, kind),), outcomes, row)
        for kind, first in zip(kinds, (0, count), strict=True)
        for row in ranked(outcomes, base, range(first + count - 1, first - 1, -1))
    ]


def ranked(outcomes: OutcomesT, base: OutcomesT, rows: Iterable[int]) -> list[int]:
    """The rows that flip the decision of `base`; those with the largest margin come first."""
    flipped, margin = outcomes.flipped(base), outcomes.margin(base)
    return sorted((row for row in rows if flipped[row]), key=lambda row: -margin[row])


def _change(words: ItemWords, history: History, n: int, kind: ChangeKind) -> Change:
    item = int(history.items[n])
    side = "liked" if history.likes[n] else "disliked"
    return Change(kind, words.name(item), side, int(history.positions[n]), item)


def joint_removal(
    question: Question[OutcomesT], words: ItemWords, base: OutcomesT
) -> list[Counterfactual[OutcomesT]]:
    """One set of up to MAX_REMOVALS interactions that flips `base` when left out; [] if the search finds none."""
    removed = _greedy_removals(question, base)
    if not removed:
        return []
    changes = (_change(words, question.history, n, "leave_out") for n in sorted(removed))
    return [Counterfactual(tuple(changes), question.ask_without([removed]), 0)]


def _greedy_removals(question: Question[OutcomesT], base: OutcomesT) -> list[int]:
    """Up to MAX_REMOVALS interactions that together flip the decision when left out; [] if the search finds none.

    Each round leaves out the interaction that brings the decision nearest to turning.
    """
    count = len(question.history.items)
    removed: list[int] = []
    while len(removed) < min(MAX_REMOVALS, count):
        rest = [n for n in range(count) if n not in removed]
        outcomes = question.ask_without([[*removed, n] for n in rest])
        flips = ranked(outcomes, base, range(len(rest) - 1, -1, -1))
        if flips:
            return _needed(question, base, [*removed, rest[flips[0]]])
        removed.append(rest[int(np.argmin(outcomes.distance(base)))])
    return []


def _needed(question: Question[OutcomesT], base: OutcomesT, removed: list[int]) -> list[int]:
    """Put back, one at a time, the interactions that the flip does not need."""
    while len(removed) > 1:
        fewer = [[other for other in removed if other != n] for n in removed]
        flipped = question.ask_without(fewer).flipped(base)
        if not flipped.any():
            break
        removed = fewer[int(np.argmax(flipped))]
    return removed
