"""Counterfactuals: the smallest changes of a history or a candidate after which the decision is another.

Changes of the history (an interaction left out, a response reversed) are asked of `respond` again, so that all
three votes follow them. Changes of the candidate's keywords change f_mat alone: a packed dataset holds the mean
vector of an item's keywords but not the vector of each, so f_sim, like f_sta, is held as it is.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from jaxsim.ensemble import Decision, logical_vote, majority_probability
from jaxsim.environment import EnvParams, UserSimulator
from jaxsim.explanation.words import ItemWords

MAX_REMOVALS = 5  # interactions left out together, at most, when no single change flips a decision
POLARITIES = ("con", "pro")  # 0 negative, 1 positive
BATCH = 64  # histories that one compiled call judges

ChangeKind = Literal["leave_out", "reverse", "remove_keyword", "add_keyword"]


@dataclass(frozen=True)
class Change:
    """One change that a flip needs.

    Attributes:
        kind: "leave_out" or "reverse" (an interaction, a response), "remove_keyword" or "add_keyword" (of the
            candidate).
        name: of the item, or the keyword.
        side: "liked" or "disliked", the response as it is; "pro" or "con" of a keyword.
        position, item: of the interaction; None for a keyword.
    """

    kind: ChangeKind
    name: str
    side: str
    position: int | None = None
    item: int | None = None

    def __str__(self) -> str:
        other = "disliked" if self.side == "liked" else "liked"
        return {
            "leave_out": f"without {self.name} ({self.side})",
            "reverse": f"with {self.name} {other}, not {self.side}",
            "remove_keyword": f'without the {self.side} "{self.name}"',
            "add_keyword": f'with the {self.side} "{self.name}" added',
        }[self.kind]


@dataclass(frozen=True)
class Flip:
    """Changes that together flip the decision, and the decision after them.

    Attributes:
        changes: one, or several interactions to leave out.
        votes: of f_mat, f_sim and f_sta; None where a coin is open.
        sta_probability: f_sta's probability of a like.
        like: as of a `jaxsim.Explanation`.
        like_probability: as of a `jaxsim.Explanation`.
    """

    changes: tuple[Change, ...]
    votes: tuple[int | None, ...]
    sta_probability: float
    like: bool | None
    like_probability: float


# ---- asking the simulator --------------------------------------------------------------------------------


@dataclass(frozen=True)
class History:
    """A history of n interactions without its padding.

    Attributes:
        positions: int[n], in the history that was passed.
        items: int32[n].
        likes: int8[n], 1 like, 0 dislike.
    """

    positions: np.ndarray
    items: np.ndarray
    likes: np.ndarray


@functools.partial(jax.jit, static_argnames="env")
def respond_to_each(
    env: UserSimulator,
    key: jax.Array,
    items: jax.Array,
    likes: jax.Array,
    candidate: jax.Array,
    params: EnvParams,
    user: jax.Array,
) -> Decision:
    """`env.respond`, with the same coins, to each of B histories: int32[B, H], int8[B, H]."""

    def respond(items: jax.Array, likes: jax.Array) -> Decision:
        return env.respond(key, items, likes, candidate, params, user, reasons=True)

    return jax.vmap(respond)(items, likes)


@dataclass(frozen=True)
class Outcomes:
    """Decisions on R histories, or on R versions of the candidate.

    Attributes:
        votes: int8[R, 3], coins tossed.
        tied: bool[R, 3].
        sta_probability: float32[R].
        keyed: the coins count as tossed.
        decision: what `respond` returned, of R histories.
    """

    votes: np.ndarray
    tied: np.ndarray
    sta_probability: np.ndarray
    keyed: bool
    decision: Decision

    @property
    def like_probability(self) -> np.ndarray:
        """Probability of a like over the coins, float64[R]."""
        return majority_probability(*np.where(self.tied, 0.5, self.votes).T)

    @property
    def leaning(self) -> np.ndarray:
        """1 towards a like, -1 towards a dislike, 0 undecided by open coins; float64[R]."""
        likes = self.votes.sum(axis=1) >= 2 if self.keyed else self.like_probability
        return np.sign(likes - 0.5)

    def flipped(self, base: "Outcomes") -> np.ndarray:
        """Which of them flip the one decision of `base`, bool[R]; see `jaxsim.Explanation.flips`."""
        before = base.leaning[0]
        return self.leaning != 0 if before == 0 else self.leaning == -before

    def margin(self, base: "Outcomes") -> np.ndarray:
        """How far from 1/2, away from the decision of `base`, the coins leave it; float64[R]."""
        away = self.like_probability - 0.5
        return np.abs(away) if base.leaning[0] == 0 else -base.leaning[0] * away

    def open_votes(self, row: int) -> tuple[int | None, ...]:
        """The votes of a row; None where an open coin has to decide."""
        undecided = self.tied[row] & (not self.keyed)
        return tuple(None if undecided[m] else int(vote) for m, vote in enumerate(self.votes[row]))

    def like(self, row: int) -> bool | None:
        """The decision of a row; None where open coins have to make it."""
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


@dataclass(frozen=True)
class Question:
    """What `respond` is asked; where `key` is None, coins stay open."""

    env: UserSimulator
    params: EnvParams
    key: jax.Array | None
    history: History
    candidate: int
    user: int

    def ask(self) -> Outcomes:
        """The one outcome on the history as it is."""
        return self.ask_of(self.history.items[None], self.history.likes[None])

    def ask_without(self, left_out: Sequence[Sequence[int]]) -> Outcomes:
        """Outcomes on the history without each of R lists of its interactions."""
        return self.ask_of(*_without(self.history, left_out))

    def ask_of(self, items: np.ndarray, likes: np.ndarray) -> Outcomes:
        """Outcomes on R other histories, int32[R, n] (-1 pads) and int8[R, n]."""
        rows, length = items.shape
        # respond wants a key; where coins are open, nothing reads how they fall.
        key = jax.random.key(0) if self.key is None else self.key
        parts = []
        for start in range(0, rows, BATCH):
            taken = slice(start, start + BATCH)
            missing = BATCH - len(items[taken]), _padded_length(self.env, length) - length
            pad = (0, missing[0]), (0, missing[1])
            part = respond_to_each(
                self.env,
                key,
                np.pad(items[taken], pad, constant_values=-1),
                np.pad(likes[taken], pad),
                np.int32(self.candidate),
                self.params,
                np.int32(self.user),
            )
            parts.append(jax.device_get(part))
        joined: Decision = jax.tree.map(lambda *xs: np.concatenate(xs)[:rows], *parts)
        assert joined.reasons is not None
        return Outcomes(
            votes=np.asarray(joined.votes),
            tied=np.pad(np.asarray(joined.reasons.tied), ((0, 0), (0, 1))),  # f_sta never ties
            sta_probability=np.asarray(joined.sta_probability),
            keyed=self.key is not None,
            decision=joined,
        )


def _padded_length(env: UserSimulator, length: int) -> int:
    return env.window if length <= env.window else 1 << (length - 1).bit_length()


def _without(history: History, left_out: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The history without each of R lists of interactions: int32[R, n] (-1 pads), int8[R, n]."""
    shape = len(left_out), len(history.items)
    items = np.broadcast_to(history.items, shape).copy()
    for row, taken in enumerate(left_out):
        items[row, list(taken)] = -1
    return items, np.broadcast_to(history.likes, shape)


# ---- what would flip the decision ------------------------------------------------------------------------


def find_flips(question: Question, words: ItemWords, base: Outcomes) -> list[Flip]:
    """The flips of `base`, the one outcome of the question as it is; see `jaxsim.Explanation.flips`."""
    single = [
        *_interaction_flips(question, words, base),
        *_keyword_flips(question, words, base),
    ]
    if single:
        return single
    removed = _greedy_removals(question, base)
    if not removed:
        return []
    changes = (_change(words, question.history, at, "leave_out") for at in sorted(removed))
    return [question.ask_without([removed]).flip(0, changes)]


def _interaction_flips(question: Question, words: ItemWords, base: Outcomes) -> list[Flip]:
    """The interactions that flip the decision when left out, then those whose response does when reversed."""
    history, count = question.history, len(question.history.items)
    if count == 0:
        return []
    items, likes = _without(history, [[at] for at in range(count)])
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
    """The rows that flip the decision of `base`, those first that leave least to the coins."""
    flipped, margin = outcomes.flipped(base), outcomes.margin(base)
    return sorted((row for row in rows if flipped[row]), key=lambda row: -margin[row])


def _change(words: ItemWords, history: History, at: int, kind: ChangeKind) -> Change:
    item = int(history.items[at])
    side = "liked" if history.likes[at] else "disliked"
    return Change(kind, words.name(item), side, int(history.positions[at]), item)


def _keyword_flips(question: Question, words: ItemWords, base: Outcomes) -> list[Flip]:
    """The candidate's keywords that flip the decision when removed, and those that do when added."""
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
    """Each keyword to remove from or to add to the candidate, its polarity, what it adds to that alpha."""
    reasons = decision.reasons
    assert reasons is not None
    considered, liked = reasons.considered[0], reasons.liked[0]
    for polarity, name in enumerate(POLARITIES):
        side = question.history.items[np.flatnonzero(considered & (liked == bool(polarity)))]
        counts = Counter(k for item in side for k in words.keywords(int(item), polarity))
        own = set(words.keywords(question.candidate, polarity))
        # Where the candidate is in the history itself, what is added to it is added there too.
        itself = int(np.count_nonzero(side == question.candidate))
        for keyword, count in counts.most_common():
            (word,) = words.spell([keyword])
            if keyword in own:
                yield Change("remove_keyword", word, name), polarity, -count
            else:
                yield Change("add_keyword", word, name), polarity, count + itself


def _with_alphas(question: Question, base: Outcomes, alphas: np.ndarray) -> Outcomes:
    """The decision of `base` with other alphas (negative, positive), int[R, 2]: f_mat alone changes."""
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
    """Up to MAX_REMOVALS interactions that flip the decision when left out together; [] if none was found.

    Each step leaves out the interaction after which the two votes nearest to turning are nearest to it.
    """
    count = len(question.history.items)
    removed: list[int] = []
    while len(removed) < min(MAX_REMOVALS, count):
        rest = [at for at in range(count) if at not in removed]
        outcomes = question.ask_without([[*removed, at] for at in rest])
        ranked = _ranked(outcomes, base, range(len(rest) - 1, -1, -1))
        if ranked:
            return _needed(question, base, [*removed, rest[ranked[0]]])
        removed.append(rest[int(np.argmin(_distance(outcomes, base)))])
    return []


def _needed(question: Question, base: Outcomes, removed: list[int]) -> list[int]:
    """Put back, one at a time, what the flip does not need."""
    while len(removed) > 1:
        fewer = [[other for other in removed if other != at] for at in removed]
        flipped = question.ask_without(fewer).flipped(base)
        if not flipped.any():
            break
        removed = fewer[int(np.argmax(flipped))]
    return removed


def _distance(outcomes: Outcomes, base: Outcomes) -> np.ndarray:
    """How far the majority is from turning, float64[R]; only its order means something.

    A vote's distance is 0 once it has turned for certain. Before, it is the chance that it has not, and its
    margin as a share of that of `base`. Two votes make a majority, so the two smallest distances add up.
    """
    towards = base.leaning[0]
    if towards == 0:  # open coins leave it at 1/2: every change counts
        towards = 1.0
    margins, before = (towards * _margins(x.decision) for x in (outcomes, base))
    share = np.maximum(margins, 0) / np.maximum(np.abs(before), 1e-6)
    chance = np.where(outcomes.tied, 0.5, outcomes.votes == (towards > 0))
    return np.sort(chance + share, axis=1)[:, :2].sum(axis=1)


def _margins(decision: Decision) -> np.ndarray:
    """Signed margin of each vote, float64[R, 3]; nothing counts as the smallest cosine, -1."""
    beta_pos, beta_neg = (np.maximum(x, -1.0) for x in (decision.beta_pos, decision.beta_neg))
    return np.stack(
        [
            np.asarray(decision.alpha_pos - decision.alpha_neg, np.float64),
            beta_pos - beta_neg,
            decision.sta_probability - 0.5,
        ],
        axis=1,
    )
