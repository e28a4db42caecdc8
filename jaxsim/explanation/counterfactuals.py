"""Counterfactuals: the smallest changes of a history or a candidate that flip the decision.

For a change of the history (an interaction left out, a response reversed) the simulator responds again, so that
all three votes follow the change. A change of the candidate's keywords changes f_mat only. A packed dataset holds
the mean vector of an item's keywords but not the vector of each keyword, so f_sim keeps its vote; f_sta does not
read keywords.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from jaxsim.ensemble import Decision, logical_vote
from jaxsim.explanation.question import History, Outcomes, Question, without
from jaxsim.explanation.types import POLARITIES, Change, ChangeKind, Flip
from jaxsim.explanation.words import ItemWords

MAX_REMOVALS = 5  # interactions left out together, at most, when no single change flips a decision


def find_flips(question: Question, words: ItemWords, base: Outcomes) -> list[Flip]:
    """The flips of `base`, the outcome of the unchanged question; see `Explanation.flips`."""
    single = [
        *_interaction_flips(question, words, base),
        *_keyword_flips(question, words, base),
    ]
    if single:
        return single
    removed = _greedy_removals(question, base)
    if not removed:
        return []
    changes = (_change(words, question.history, n, "leave_out") for n in sorted(removed))
    return [question.ask_without([removed]).flip(0, changes)]


def _interaction_flips(question: Question, words: ItemWords, base: Outcomes) -> list[Flip]:
    """Flips by leaving out an interaction, then flips by reversing a response."""
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
        outcomes.flip(row, [_change(words, history, row - first, kind)])
        for kind, first in zip(kinds, (0, count), strict=True)
        for row in _ranked(outcomes, base, range(first + count - 1, first - 1, -1))
    ]


def _ranked(outcomes: Outcomes, base: Outcomes, rows: Iterable[int]) -> list[int]:
    """The rows that flip the decision of `base`; those that depend least on coins come first."""
    flipped, margin = outcomes.flipped(base), outcomes.margin(base)
    return sorted((row for row in rows if flipped[row]), key=lambda row: -margin[row])


def _change(words: ItemWords, history: History, n: int, kind: ChangeKind) -> Change:
    item = int(history.items[n])
    side = "liked" if history.likes[n] else "disliked"
    return Change(kind, words.name(item), side, int(history.positions[n]), item)


def _keyword_flips(question: Question, words: ItemWords, base: Outcomes) -> list[Flip]:
    """Flips by removing a keyword from the candidate or by adding one."""
    changes, alphas = [], []
    for change, polarity, difference in _keyword_changes(question, words, base.decision):
        alpha = [int(base.decision.alpha_neg[0]), int(base.decision.alpha_pos[0])]
        alpha[polarity] += difference
        changes.append(change)
        alphas.append(alpha)
    if not changes:
        return []
    outcomes = _with_alphas(question, base, np.array(alphas))
    return [
        outcomes.flip(row, [changes[row]]) for row in _ranked(outcomes, base, range(len(changes)))
    ]


def _keyword_changes(
    question: Question, words: ItemWords, decision: Decision
) -> Iterable[tuple[Change, int, int]]:
    """Each keyword to remove from or to add to the candidate, its polarity, and what it adds to that alpha."""
    reasons = decision.reasons
    assert reasons is not None
    considered, liked = reasons.considered[0], reasons.liked[0]
    for polarity, name in enumerate(POLARITIES):
        side = question.history.items[np.flatnonzero(considered & (liked == bool(polarity)))]
        counts = Counter(k for item in side for k in words.keywords(int(item), polarity))
        own = set(words.keywords(question.candidate, polarity))
        # Where the candidate is in the history too, a keyword that it gains is there as well.
        repeats = int(np.count_nonzero(side == question.candidate))
        for keyword, count in counts.most_common():
            (word,) = words.spell([keyword])
            if keyword in own:
                yield Change("remove_keyword", word, name), polarity, -count
            else:
                yield Change("add_keyword", word, name), polarity, count + repeats
        if repeats:
            yield Change("add_any_keyword", "", name), polarity, repeats


def _with_alphas(question: Question, base: Outcomes, alphas: np.ndarray) -> Outcomes:
    """The decision of `base` with other alphas (negative, positive), int[R, 2]: only f_mat changes."""
    assert base.decision.reasons is not None
    rows, (neg, pos) = len(alphas), alphas.T
    coin, liked = base.decision.reasons.coins[0, 0], question.history.likes == 1
    votes, tied = np.repeat(base.votes, rows, axis=0), np.repeat(base.tied, rows, axis=0)
    semantics = question.env.semantics
    votes[:, 0] = logical_vote(pos, neg, coin, liked.any(), (~liked).any(), semantics)
    tied[:, 0] = (pos == neg) & (semantics == "paper")
    sta_probability = np.repeat(base.sta_probability, rows)
    return Outcomes(votes, tied, sta_probability, base.keyed, base.decision)


def _greedy_removals(question: Question, base: Outcomes) -> list[int]:
    """Up to MAX_REMOVALS interactions that together flip the decision when left out; [] if the search finds none.

    Each round leaves out the interaction that brings the majority nearest to turning (see `_distance`).
    """
    count = len(question.history.items)
    removed: list[int] = []
    while len(removed) < min(MAX_REMOVALS, count):
        rest = [n for n in range(count) if n not in removed]
        outcomes = question.ask_without([[*removed, n] for n in rest])
        ranked = _ranked(outcomes, base, range(len(rest) - 1, -1, -1))
        if ranked:
            return _needed(question, base, [*removed, rest[ranked[0]]])
        removed.append(rest[int(np.argmin(_distance(outcomes, base)))])
    return []


def _needed(question: Question, base: Outcomes, removed: list[int]) -> list[int]:
    """Put back, one at a time, the interactions that the flip does not need."""
    while len(removed) > 1:
        fewer = [[other for other in removed if other != n] for n in removed]
        flipped = question.ask_without(fewer).flipped(base)
        if not flipped.any():
            break
        removed = fewer[int(np.argmax(flipped))]
    return removed


def _distance(outcomes: Outcomes, base: Outcomes) -> np.ndarray:
    """How far the majority is from turning, float64[R]; only the order of the numbers has a meaning.

    The distance of a vote is 0 once it has turned for certain. Otherwise it is the probability that it has not
    turned, plus its margin relative to that of `base`. Two votes make a majority, so the result is the sum of the
    two smallest distances.
    """
    towards = base.leaning[0]
    if towards == 0:  # the open coins leave the probability at 1/2: every change counts
        towards = 1.0
    margins, before = (towards * _margins(x.decision) for x in (outcomes, base))
    share = np.maximum(margins, 0) / np.maximum(np.abs(before), 1e-6)
    chance = np.where(outcomes.tied, 0.5, outcomes.votes == (towards > 0))
    return np.sort(chance + share, axis=1)[:, :2].sum(axis=1)


def _margins(decision: Decision) -> np.ndarray:
    """Signed margin of each vote, float64[R, 3]; the maximum over nothing counts as the smallest cosine, -1."""
    beta_pos, beta_neg = (np.maximum(x, -1.0) for x in (decision.beta_pos, decision.beta_neg))
    return np.stack(
        [
            np.asarray(decision.alpha_pos - decision.alpha_neg, np.float64),
            beta_pos - beta_neg,
            decision.sta_probability - 0.5,
        ],
        axis=1,
    )
