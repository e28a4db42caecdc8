"""The parts of an explanation, as plain data."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

MODELS = ("f_mat", "f_sim", "f_sta")
POLARITIES = ("con", "pro")  # 0 negative, 1 positive

ChangeKind = Literal["leave_out", "reverse", "remove_keyword", "add_keyword", "add_any_keyword"]


@dataclass(frozen=True)
class Candidate:
    """The item that was recommended.

    Attributes:
        item: index of the item.
        name: its name, or its id if it has no name.
        categories, pros, cons: D_cate, D_pos and D_neg in words.
    """

    item: int
    name: str
    categories: tuple[str, ...]
    pros: tuple[str, ...]
    cons: tuple[str, ...]


@dataclass(frozen=True)
class Interaction:
    """One interaction of h_C, the part of the history that f_mat and f_sim read.

    Attributes:
        position: its position in the history that the caller passed.
        item, name, categories: as in `Candidate`.
        in_category: whether the item shares a category with the candidate. If not, no item of the history does.
        liked: the response; liked interactions form I_pos, the others I_neg.
        keywords: pros of a liked item, cons of a disliked one.
        matched: those keywords that the candidate has too, in the same polarity.
        cosine: to the candidate in that polarity; None if either item has no such keyword.
    """

    position: int
    item: int
    name: str
    categories: tuple[str, ...]
    in_category: bool
    liked: bool
    keywords: tuple[str, ...]
    matched: tuple[str, ...]
    cosine: float | None


@dataclass(frozen=True)
class MatchedKeyword:
    """A keyword that the candidate shares with the history.

    Attributes:
        keyword: the word.
        polarity: "pro" (shared with liked items) or "con" (shared with disliked items).
        positions, names: of the interactions that have it.
    """

    keyword: str
    polarity: str
    positions: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Vote:
    """The vote of one of the three models.

    Attributes:
        model: "f_mat", "f_sim" or "f_sta".
        vote: 1 like, 0 dislike; None if a coin has to decide and no key was given.
        tied: whether a coin decides.
        coin: 1 like, 0 dislike; None without a tie or without a key.
    """

    model: str
    vote: int | None
    tied: bool
    coin: int | None


@dataclass(frozen=True)
class Change:
    """One change that a flip needs.

    Attributes:
        kind: "leave_out" (an interaction) or "reverse" (a response); "remove_keyword" or "add_keyword" (of the
            candidate). "add_any_keyword" adds one that no other interaction has: it counts because the candidate
            is in the history too and is then similar to itself.
        name: name of the item, or the keyword; empty for "add_any_keyword".
        side: "liked" or "disliked", the response before the change; "pro" or "con" for a keyword.
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
            "add_any_keyword": f"with any other {self.side} added (the candidate is in the history too)",
        }[self.kind]


@dataclass(frozen=True)
class Flip:
    """Changes that together flip the decision, and the decision after them.

    Attributes:
        changes: one change, or several interactions to leave out together.
        votes: of f_mat, f_sim and f_sta; None where a coin is open.
        sta_probability: f_sta's probability of a like.
        like, like_probability: the decision, as in `ExplanationFields`.
    """

    changes: tuple[Change, ...]
    votes: tuple[int | None, ...]
    sta_probability: float
    like: bool | None
    like_probability: float


@dataclass(frozen=True)
class LeavingTerm:
    """What one term adds to the log-odds of leaving: "position", or a term of `jaxsim.departure`."""

    term: str
    log_odds: float


@dataclass(frozen=True)
class Leaving:
    """The chance that the user leaves after the recommendation (`jaxsim.departure`).

    Attributes:
        position: of the recommendation in the session, from 1.
        liked: the response that it follows.
        probability: of leaving.
        log_odds: its log-odds, the sum of the terms.
        terms: what each adds.
    """

    position: int
    liked: bool
    probability: float
    log_odds: float
    terms: tuple[LeavingTerm, ...]


@dataclass(frozen=True)
class ExplanationFields:
    """The fields of a `jaxsim.Explanation`.

    Attributes:
        dataset, semantics: of the simulator.
        user: index of the user; -1 for the mean user effect.
        candidate: the item to respond to.
        history_length: number of interactions in the history, without padding.
        history: h_C, the interactions that f_mat and f_sim read, in the history's order.
        matched: the keywords that f_mat counted, those of the most interactions first.
        alpha_pos, alpha_neg: matched pros of liked and cons of disliked items (Eq. 1, 2).
        beta_pos, beta_neg: largest cosines (Eq. 6, 7); None for the maximum over nothing.
        most_similar_liked, most_similar_disliked: the interactions with these cosines, the latest if several are
            equal.
        sta_probability: f_sta's probability of a like.
        votes: of f_mat, f_sim and f_sta, with ties and coins.
        coins_open: no key was given, so no coin was tossed.
        like: the decision (Eq. 9); None if open coins have to make it.
        like_probability: probability of a like over the coins of this decision, tossed or not: 0, 1/4, 1/2, 3/4
            or 1.
        flips: every single change that flips the decision: interactions to leave out, then responses to reverse,
            then keywords. Within each group, those that depend least on coins come first, then the latest
            interactions. If no single change flips it: one set of up to MAX_REMOVALS interactions to leave out
            together, if the greedy search finds one. With a key, a flip gives the opposite decision with the same
            coins. Without a key, it moves `like_probability` from one side of 1/2 to the other, or from 1/2 to
            either side.
        leaving: the chance of leaving after the response, or after a dislike and after a like while coins decide
            it and are open; empty unless `explain` got a position.
        flips_sought: False if `explain` was told not to look for flips; then `flips` is empty.
    """

    dataset: str
    semantics: str
    user: int
    candidate: Candidate
    history_length: int
    history: tuple[Interaction, ...]
    matched: tuple[MatchedKeyword, ...]
    alpha_pos: int
    alpha_neg: int
    beta_pos: float | None
    beta_neg: float | None
    most_similar_liked: Interaction | None
    most_similar_disliked: Interaction | None
    sta_probability: float
    votes: tuple[Vote, ...]
    coins_open: bool
    like: bool | None
    like_probability: float
    flips: tuple[Flip, ...]
    leaving: tuple[Leaving, ...] = ()
    flips_sought: bool = True

    def to_dict(self) -> dict[str, Any]:
        """All fields as dicts, tuples, strings, numbers, booleans and None, for `json.dumps`."""
        return dataclasses.asdict(self)
