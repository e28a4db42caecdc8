"""Outcomes of the three votes: their decisions on several histories, with ties and coins."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from jaxsim.ensemble import Decision, majority_probability
from jaxsim.explanation.question import Outcomes
from jaxsim.explanation.types import Change, Flip


@dataclass(frozen=True)
class VoteOutcomes(Outcomes):
    """Decisions by the three votes on R histories, or on R versions of the candidate.

    Attributes:
        votes: int8[R, 3], after the coins fell.
        tied: bool[R, 3], whether a coin decided the vote.
        sta_probability: float32[R], f_sta's probability of a like.
        keyed: whether the caller gave a key; without one the coins stay open.
        decision: what `respond` returned for R histories.
    """

    votes: np.ndarray
    tied: np.ndarray
    sta_probability: np.ndarray
    keyed: bool
    decision: Decision

    @classmethod
    def read(cls, decision: Decision, keyed: bool) -> Self:
        """The outcomes of what `respond` returned for R histories, with its reasons."""
        assert decision.reasons is not None
        return cls(
            votes=np.asarray(decision.votes),
            tied=np.pad(np.asarray(decision.reasons.tied), ((0, 0), (0, 1))),  # f_sta never ties
            sta_probability=np.asarray(decision.sta_probability),
            keyed=keyed,
            decision=decision,
        )

    @property
    def like_probability(self) -> np.ndarray:
        """Probability of a like over the coins, float64[R]."""
        return majority_probability(*np.where(self.tied, 0.5, self.votes).T)

    @property
    def leaning(self) -> np.ndarray:
        """1 towards a like, -1 towards a dislike, 0 if open coins leave it undecided; float64[R]."""
        likes = self.votes.sum(axis=1) >= 2 if self.keyed else self.like_probability
        return np.sign(likes - 0.5)

    def distance(self, base: Self) -> np.ndarray:
        """How far the majority is from turning, float64[R]; only the order of the numbers has a meaning.

        The distance of a vote is 0 once it has turned for certain. Otherwise it is the probability that it has not
        turned, plus its margin relative to that of `base`. Two votes make a majority, so the result is the sum of
        the two smallest distances.
        """
        towards = base.leaning[0]
        if towards == 0:  # the open coins leave the probability at 1/2: every change counts
            towards = 1.0
        margins, before = (towards * _margins(x.decision) for x in (self, base))
        share = np.maximum(margins, 0) / np.maximum(np.abs(before), 1e-6)
        chance = np.where(self.tied, 0.5, self.votes == (towards > 0))
        return np.sort(chance + share, axis=1)[:, :2].sum(axis=1)

    def open_votes(self, row: int) -> tuple[int | None, ...]:
        """The votes of a row; None where an open coin has to decide."""
        is_open = self.tied[row] & (not self.keyed)
        return tuple(
            None if coin else int(vote) for coin, vote in zip(is_open, self.votes[row], strict=True)
        )

    def like(self, row: int) -> bool | None:
        """The decision of a row; None if open coins have to make it."""
        if self.keyed:
            return bool(self.votes[row].sum() >= 2)
        return {0.0: False, 1.0: True}.get(float(self.like_probability[row]))

    def flip(self, row: int, changes: Iterable[Change]) -> Flip:
        """The decision of a row as a `Flip`."""
        return Flip(
            changes=tuple(changes),
            votes=self.open_votes(row),
            sta_probability=float(self.sta_probability[row]),
            like=self.like(row),
            like_probability=float(self.like_probability[row]),
        )


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
