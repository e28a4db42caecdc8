"""Flips of the three votes: changes of the history, and changes of the candidate's keywords.

For a change of the history the simulator responds again, so that all three votes follow the change. A change of
the candidate's keywords changes f_mat only. A packed dataset holds the mean vector of an item's keywords but not
the vector of each keyword, so f_sim keeps its vote; f_sta does not read keywords.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from jaxsim.ensemble import Decision, logical_vote
from jaxsim.explanation.counterfactuals import joint_removal, ranked, single_interactions
from jaxsim.explanation.question import Question
from jaxsim.explanation.types import POLARITIES, Change, Flip
from jaxsim.explanation.vote_outcomes import VoteOutcomes
from jaxsim.explanation.words import ItemWords


def find_flips(
    question: Question[VoteOutcomes], words: ItemWords, base: VoteOutcomes
) -> list[Flip]:
    """The flips of `base`, the outcome of the unchanged question; see `Explanation.flips`."""
    single = [
        *(c.outcomes.flip(c.row, c.changes) for c in single_interactions(question, words, base)),
        *_keyword_flips(question, words, base),
    ]
    if single:
        return single
    return [c.outcomes.flip(c.row, c.changes) for c in joint_removal(question, words, base)]


def _keyword_flips(
    question: Question[VoteOutcomes], words: ItemWords, base: VoteOutcomes
) -> list[Flip]:
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
        outcomes.flip(row, [changes[row]]) for row in ranked(outcomes, base, range(len(changes)))
    ]


def _keyword_changes(
    question: Question[VoteOutcomes], words: ItemWords, decision: Decision
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


def _with_alphas(
    question: Question[VoteOutcomes], base: VoteOutcomes, alphas: np.ndarray
) -> VoteOutcomes:
    """The decision of `base` with other alphas (negative, positive), int[R, 2]: only f_mat changes."""
    assert base.decision.reasons is not None
    rows, (neg, pos) = len(alphas), alphas.T
    coin, liked = base.decision.reasons.coins[0, 0], question.history.likes == 1
    votes, tied = np.repeat(base.votes, rows, axis=0), np.repeat(base.tied, rows, axis=0)
    semantics = question.env.semantics
    votes[:, 0] = logical_vote(pos, neg, coin, liked.any(), (~liked).any(), semantics)
    tied[:, 0] = (pos == neg) & (semantics == "paper")
    sta_probability = np.repeat(base.sta_probability, rows)
    return VoteOutcomes(votes, tied, sta_probability, base.keyed, base.decision)
