"""`jaxsim.explain`: one decision of the simulated user in words, numbers and keywords.

The numbers are those of `UserSimulator.respond`; the words are looked up on the host. An explanation also holds
the smallest changes that would flip the decision. Those of the history (an interaction left out, a response
reversed) are asked of `respond` again, so that all three votes follow them. Those of the candidate's keywords
change f_mat alone: a packed dataset holds the mean vector of an item's keywords but not the vector of each, so
f_sim, like f_sta, is held as it is.
"""

import dataclasses
import functools
import html
import itertools
import operator
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
import pandas as pd

from jaxsim.cli import InputError
from jaxsim.dataset import Dataset
from jaxsim.ensemble import Decision, majority_probability
from jaxsim.environment import EnvParams, UserSimulator

MAX_REMOVALS = 5  # interactions left out together, at most, when no single change flips a decision
COLUMNS = 100  # of a terminal
HISTORY_ROWS, KEYWORD_ROWS, FLIP_ROWS, CELL_LINES = 12, 12, 3, 3  # shown; the fields hold all
GAP, ELLIPSIS = "  ", "..."
MODELS = ("f_mat", "f_sim", "f_sta")
POLARITIES = ("con", "pro")  # 0 negative, 1 positive
_BATCH = 64  # histories that one compiled call judges

ChangeKind = Literal["leave_out", "reverse", "remove_keyword", "add_keyword"]


# ---- what an explanation holds ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """The item that was recommended.

    Attributes:
        item: its index.
        name: its name, or its id where it has none.
        categories, pros, cons: D_cate, D_pos and D_neg in words.
    """

    item: int
    name: str
    categories: tuple[str, ...]
    pros: tuple[str, ...]
    cons: tuple[str, ...]


@dataclass(frozen=True)
class Interaction:
    """One interaction of h_C, that f_mat and f_sim judged by.

    Attributes:
        position: its position in the history that was passed.
        item, name, categories: as of a `Candidate`.
        in_category: whether it shares a category with the candidate; if not, the history had nothing that does.
        liked: the response; liked ones are I_pos, the others I_neg.
        keywords: pros of a liked item, cons of a disliked one.
        matched: those of them that the candidate has too, in the same polarity.
        cosine: to the candidate in that polarity; None where either has no such keyword.
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
        polarity: "pro" (shared with liked items) or "con" (shared with disliked ones).
        positions, names: of the interactions that it came from.
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
        vote: 1 like, 0 dislike; None where a coin has to decide and no key was given.
        tied: whether the coin decides.
        coin: how it fell; None without a tie or without a key.
    """

    model: str
    vote: int | None
    tied: bool
    coin: int | None


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
        like: as of an `Explanation`.
        like_probability: as of an `Explanation`.
    """

    changes: tuple[Change, ...]
    votes: tuple[int | None, ...]
    sta_probability: float
    like: bool | None
    like_probability: float


@dataclass(frozen=True)
class Explanation:
    """Why a simulated user likes a candidate or not. Prints as a table; notebooks show it as one.

    Attributes:
        dataset, semantics: what was asked.
        user: index of the user; -1 for the mean user effect.
        candidate: the item in question.
        history_length: interactions of the history, padding not counted.
        history: h_C, the interactions that f_mat and f_sim judged by, in the history's order.
        matched: the keywords that f_mat counted, those from the most interactions first.
        alpha_pos, alpha_neg: matched pros of liked and cons of disliked items (Eq. 1, 2).
        beta_pos, beta_neg: largest cosines (Eq. 6, 7); None for the maximum over nothing.
        most_similar_liked, most_similar_disliked: the interactions with these cosines, the latest of equals.
        sta_probability: f_sta's probability of a like.
        votes: of f_mat, f_sim and f_sta, with ties and coins.
        coins_open: no key was given, so no coin was tossed.
        like: the decision (Eq. 9); None where open coins have to make it.
        like_probability: probability of a like over the coins of this decision, whether they have been tossed
            or not: 0, 1/4, 1/2, 3/4 or 1.
        flips: every single change that flips the decision: interactions to leave out, then responses to reverse,
            then keywords; of each, those first that leave least to the coins, the latest interaction of equals.
            If there is none, one set of up to MAX_REMOVALS interactions to leave out together, if the greedy
            search found one. With a key, a flip is the other decision with the same coins. Without one, it takes
            `like_probability` from one side of 1/2 to the other, or from 1/2 to either side.
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

    def to_dict(self) -> dict[str, Any]:
        """All of it as dicts, tuples, strings, numbers, booleans and None: ready for `json.dumps`."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        headline = "\n".join(_wrap(_headline(self), COLUMNS))
        return "\n\n".join([headline, *map(_as_text, _tables(self))])

    def _repr_html_(self) -> str:
        headline = f"<p><b>{html.escape(_headline(self))}</b></p>"
        return "\n".join([headline, *map(_as_html, _tables(self))])


# ---- explain ---------------------------------------------------------------------------------------------


def explain(
    dataset: Dataset,
    env: UserSimulator,
    params: EnvParams,
    history_items: Any,
    history_labels: Any,
    candidate: Any,
    user: Any = -1,
    key: jax.Array | None = None,
) -> Explanation:
    """Explain one decision of `env.respond`.

    A history of up to `env.window` interactions is padded to that length, a longer one to a power of two, so
    that histories of other lengths compile nothing anew. f_sta's probability is that of `env.respond` up to the
    rounding of float32, so its vote may differ where the probability is that close to 1/2; everything else is
    equal.

    Args:
        dataset: the dataset that `env` and `params` were made of.
        env, params: of `jaxsim.make`.
        history_items: int[H], any H, -1 pads anywhere.
        history_labels: int[H], 1 like, 0 dislike.
        candidate: int, the item.
        user: int, for f_sta's user effect; -1 takes the mean.
        key: PRNG key of the coins, as in `env.respond`; None leaves them open.

    Raises:
        InputError: an argument that is out of range, or a dataset that is not the simulator's.
    """
    _check_dataset(dataset, env)
    candidate = _index("candidate", candidate, 0, env.num_items)
    user = _index("user", user, -1, env.num_users)
    history = _read_history(history_items, history_labels, env.num_items)
    question = _Question(env, params, _checked(key), candidate, user)
    base = question.ask(history.items[None], history.likes[None])
    words = _Words(dataset)
    considered = _considered(words, history, base.decision, candidate)
    decision = jax.tree.map(operator.itemgetter(0), base.decision)
    return Explanation(
        dataset=dataset.name,
        semantics=env.semantics,
        user=user,
        candidate=words.candidate(candidate),
        history_length=len(history.items),
        history=considered,
        matched=_matched_keywords(considered),
        alpha_pos=int(decision.alpha_pos),
        alpha_neg=int(decision.alpha_neg),
        beta_pos=_finite(decision.beta_pos),
        beta_neg=_finite(decision.beta_neg),
        most_similar_liked=_most_similar(considered, liked=True),
        most_similar_disliked=_most_similar(considered, liked=False),
        sta_probability=float(decision.sta_probability),
        votes=_votes(decision, base.open_votes(0), keyed=key is not None),
        coins_open=key is None,
        like=base.like(0),
        like_probability=float(base.like_probability[0]),
        flips=tuple(_flips(question, words, history, base)),
    )


def _check_dataset(dataset: Dataset, env: UserSimulator) -> None:
    sizes = (dataset.num_items, dataset.num_users)
    if sizes != (env.num_items, env.num_users):
        raise InputError(
            f"dataset {dataset.name} has {sizes[0]} items and {sizes[1]} users, but env has {env.num_items} and "
            f"{env.num_users}: pass the dataset that jaxsim.make was given"
        )


def _index(name: str, value: Any, low: int, high: int) -> int:
    try:
        index = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be one integer, not {_kind(value)}") from None
    if not low <= index < high:
        raise InputError(f"{name}={index} is outside [{low}, {high})")
    return index


def _checked(key: Any) -> jax.Array | None:
    if key is None:
        return None
    typed = isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or key.shape != ():
        raise InputError(f"key must be one key of jax.random.key(seed), or None, not {_kind(key)}")
    return key


def _integers(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a list of integers, not {_kind(values)}") from None
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
        raise InputError(
            f"{name} must be a list of integers, not {array.dtype} of shape {array.shape}"
        )
    return array


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


@dataclass(frozen=True)
class _History:
    """A history without its padding: positions in what was passed, int32 items, int8 likes, one length."""

    positions: np.ndarray
    items: np.ndarray
    likes: np.ndarray


def _read_history(history_items: Any, history_labels: Any, num_items: int) -> _History:
    items = _integers("history_items", history_items)
    labels = _integers("history_labels", history_labels)
    if len(items) != len(labels):
        raise InputError(f"{len(items)} history_items, but {len(labels)} history_labels")
    bad_items = items[(items < -1) | (items >= num_items)]
    if bad_items.size:
        raise InputError(
            f"history_items holds {bad_items[0]}, outside [0, {num_items}) and not the padding -1"
        )
    positions = np.flatnonzero(items >= 0)
    items, labels = items[positions], labels[positions]
    bad_labels = labels[(labels != 0) & (labels != 1)]
    if bad_labels.size:
        raise InputError(
            f"history_labels holds {bad_labels[0]}: 1 is a like and 0 a dislike; of an observation, pass "
            "responses > 0"
        )
    return _History(positions, items.astype(np.int32), labels.astype(np.int8))


# ---- asking the simulator --------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="env")
def _respond_to_each(
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
class _Outcomes:
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

    def flipped(self, base: "_Outcomes") -> np.ndarray:
        """Which of them flip the one decision of `base`, bool[R]; see `Explanation.flips`."""
        before = base.leaning[0]
        return self.leaning != 0 if before == 0 else self.leaning == -before

    def margin(self, base: "_Outcomes") -> np.ndarray:
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
class _Question:
    """What `respond` is asked, but for the history."""

    env: UserSimulator
    params: EnvParams
    key: jax.Array | None
    candidate: int
    user: int

    def ask(self, items: np.ndarray, likes: np.ndarray) -> _Outcomes:
        """Outcomes on R histories, int32[R, n] (-1 pads) and int8[R, n]."""
        rows, length = items.shape
        # respond wants a key; where coins are open, nothing reads how they fall.
        key = jax.random.key(0) if self.key is None else self.key
        parts = []
        for start in range(0, rows, _BATCH):
            taken = slice(start, start + _BATCH)
            missing = _BATCH - len(items[taken]), _padded_length(self.env, length) - length
            pad = (0, missing[0]), (0, missing[1])
            part = _respond_to_each(
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
        return _Outcomes(
            votes=np.asarray(joined.votes),
            tied=np.pad(np.asarray(joined.reasons.tied), ((0, 0), (0, 1))),  # f_sta never ties
            sta_probability=np.asarray(joined.sta_probability),
            keyed=self.key is not None,
            decision=joined,
        )


def _padded_length(env: UserSimulator, length: int) -> int:
    return env.window if length <= env.window else 1 << (length - 1).bit_length()


# ---- words -----------------------------------------------------------------------------------------------


class _Words:
    """Names, categories and keywords of a dataset's items."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def name(self, item: int) -> str:
        """The item's name, or its id where it has none."""
        row = self.dataset.items.iloc[item]
        name = row.get("name")
        return str(row["item_id"] if name is None or pd.isna(name) or name == "" else name)

    def categories(self, item: int) -> list[int]:
        """D_cate."""
        return _members(self.dataset.arrays["item_categories"][item])

    def keywords(self, item: int, polarity: int) -> list[int]:
        """D_neg (0) or D_pos (1)."""
        side = ("neg", "pos")[polarity]
        return _members(self.dataset.arrays[f"item_{side}_keywords"][item])

    def spell(self, keywords: Iterable[int]) -> tuple[str, ...]:
        """The words of keyword indices."""
        return tuple(self.dataset.keywords[k] for k in keywords)

    def spell_categories(self, item: int) -> tuple[str, ...]:
        """The names of an item's categories."""
        return tuple(self.dataset.categories[c] for c in self.categories(item))

    def candidate(self, item: int) -> Candidate:
        """The item as the one that was recommended."""
        cons, pros = (self.spell(self.keywords(item, polarity)) for polarity in (0, 1))
        return Candidate(item, self.name(item), self.spell_categories(item), pros, cons)


def _members(row: np.ndarray) -> list[int]:
    return [int(x) for x in row if x >= 0]


def _considered(
    words: _Words, history: _History, decision: Decision, candidate: int
) -> tuple[Interaction, ...]:
    """The interactions of h_C; `decision` has one row."""
    reasons = decision.reasons
    assert reasons is not None
    found = []
    for at in np.flatnonzero(reasons.considered[0]):
        item, liked = int(history.items[at]), bool(reasons.liked[0, at])
        keywords = words.keywords(item, int(liked))
        own = set(words.keywords(candidate, int(liked)))
        matched = [k for k in keywords if k in own]
        if len(matched) != reasons.matched[0, at]:
            raise InputError(
                f"dataset {words.dataset.name} has other keywords than params: pass the dataset that "
                "jaxsim.make was given"
            )
        found.append(
            Interaction(
                position=int(history.positions[at]),
                item=item,
                name=words.name(item),
                categories=words.spell_categories(item),
                in_category=bool(set(words.categories(item)) & set(words.categories(candidate))),
                liked=liked,
                keywords=words.spell(keywords),
                matched=words.spell(matched),
                cosine=_finite(reasons.cosine[0, at]),
            )
        )
    return tuple(found)


def _matched_keywords(considered: Sequence[Interaction]) -> tuple[MatchedKeyword, ...]:
    sources: dict[tuple[str, str], list[Interaction]] = {}
    for interaction in considered:
        for keyword in interaction.matched:
            sources.setdefault((POLARITIES[interaction.liked], keyword), []).append(interaction)
    found = [
        MatchedKeyword(keyword, polarity, tuple(x.position for x in of), tuple(x.name for x in of))
        for (polarity, keyword), of in sources.items()
    ]
    return tuple(sorted(found, key=lambda k: -len(k.positions)))


def _most_similar(considered: Sequence[Interaction], liked: bool) -> Interaction | None:
    similar = [x for x in considered if x.liked == liked and x.cosine is not None]
    return max(similar, key=lambda x: (x.cosine, x.position), default=None)


def _votes(decision: Decision, open_votes: Sequence[int | None], keyed: bool) -> tuple[Vote, ...]:
    reasons = decision.reasons
    assert reasons is not None
    tied = [*map(bool, reasons.tied), False]
    coins = [*map(int, reasons.coins), None]
    return tuple(
        Vote(model, vote, tie, coin if tie and keyed else None)
        for model, vote, tie, coin in zip(MODELS, open_votes, tied, coins, strict=True)
    )


def _finite(cosine: Any) -> float | None:
    return float(cosine) if np.isfinite(cosine) else None


# ---- what would flip the decision ------------------------------------------------------------------------


def _flips(question: _Question, words: _Words, history: _History, base: _Outcomes) -> list[Flip]:
    """See `Explanation.flips`."""
    single = [
        *_interaction_flips(question, words, history, base),
        *_keyword_flips(question, words, history, base),
    ]
    if single:
        return single
    removed = _greedy_removals(question, history, base)
    if not removed:
        return []
    outcomes = question.ask(*_without(history, [removed]))
    return [outcomes.flip(0, (_change(words, history, at, "leave_out") for at in sorted(removed)))]


def _interaction_flips(
    question: _Question, words: _Words, history: _History, base: _Outcomes
) -> list[Flip]:
    """The interactions that flip the decision when left out, then those whose response does when reversed."""
    count = len(history.items)
    items, likes = _without(history, [[at] for at in range(count)])
    reversed_likes = np.where(np.eye(count, dtype=bool), 1 - history.likes, history.likes)
    outcomes = (
        question.ask(
            np.concatenate([items, np.broadcast_to(history.items, items.shape)]),
            np.concatenate([likes, reversed_likes.astype(np.int8)]),
        )
        if count
        else base
    )
    kinds: list[ChangeKind] = ["leave_out", "reverse"]
    return [
        outcomes.flip(row, [_change(words, history, row - first, kind)])
        for kind, first in zip(kinds, (0, count), strict=True)
        for row in _ranked(outcomes, base, range(first + count - 1, first - 1, -1))
    ]


def _ranked(outcomes: _Outcomes, base: _Outcomes, rows: Iterable[int]) -> list[int]:
    """The rows that flip the decision of `base`, those first that leave least to the coins."""
    flipped, margin = outcomes.flipped(base), outcomes.margin(base)
    return sorted((row for row in rows if flipped[row]), key=lambda row: -margin[row])


def _change(words: _Words, history: _History, at: int, kind: ChangeKind) -> Change:
    item = int(history.items[at])
    side = "liked" if history.likes[at] else "disliked"
    return Change(kind, words.name(item), side, int(history.positions[at]), item)


def _without(history: _History, left_out: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """The history without each of R lists of interactions: int32[R, n] (-1 pads), int8[R, n]."""
    shape = len(left_out), len(history.items)
    items = np.broadcast_to(history.items, shape).copy()
    for row, taken in enumerate(left_out):
        items[row, list(taken)] = -1
    return items, np.broadcast_to(history.likes, shape)


def _keyword_flips(
    question: _Question, words: _Words, history: _History, base: _Outcomes
) -> list[Flip]:
    """The candidate's keywords that flip the decision when removed, and those that do when added."""
    changes, alphas = [], []
    for change, polarity, difference in _keyword_changes(question, words, history, base.decision):
        alpha = [int(base.decision.alpha_neg[0]), int(base.decision.alpha_pos[0])]
        alpha[polarity] += difference
        changes.append(change)
        alphas.append(alpha)
    if not changes:
        return []
    outcomes = _with_alphas(question, history, base, np.array(alphas))
    return [
        outcomes.flip(row, [changes[row]]) for row in _ranked(outcomes, base, range(len(changes)))
    ]


def _keyword_changes(
    question: _Question, words: _Words, history: _History, decision: Decision
) -> Iterable[tuple[Change, int, int]]:
    """Each keyword to remove from or to add to the candidate, its polarity, what it adds to that alpha."""
    reasons = decision.reasons
    assert reasons is not None
    considered, liked = reasons.considered[0], reasons.liked[0]
    for polarity, name in enumerate(POLARITIES):
        side = history.items[np.flatnonzero(considered & (liked == bool(polarity)))]
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


def _with_alphas(
    question: _Question, history: _History, base: _Outcomes, alphas: np.ndarray
) -> _Outcomes:
    """The decision of `base` with other alphas (negative, positive), int[R, 2]: f_mat alone changes."""
    rows = len(alphas)
    neg, pos = alphas.T
    votes, tied = np.repeat(base.votes, rows, axis=0), np.repeat(base.tied, rows, axis=0)
    if question.env.semantics == "paper":
        assert base.decision.reasons is not None
        tied[:, 0] = pos == neg
        votes[:, 0] = np.where(pos == neg, base.decision.reasons.coins[0, 0], pos > neg)
    elif len(set(history.likes.tolist())) == 2:  # otherwise no alpha is looked at
        votes[:, 0] = pos > neg
    sta_probability = np.repeat(base.sta_probability, rows)
    return _Outcomes(votes, tied, sta_probability, base.keyed, base.decision)


def _greedy_removals(question: _Question, history: _History, base: _Outcomes) -> list[int]:
    """Up to MAX_REMOVALS interactions that flip the decision when left out together; [] if none was found.

    Each step leaves out the interaction after which the two votes nearest to turning are nearest to it.
    """
    removed: list[int] = []
    while len(removed) < min(MAX_REMOVALS, len(history.items)):
        rest = [at for at in range(len(history.items)) if at not in removed]
        outcomes = question.ask(*_without(history, [[*removed, at] for at in rest]))
        ranked = _ranked(outcomes, base, range(len(rest) - 1, -1, -1))
        if ranked:
            return _needed(question, history, base, [*removed, rest[ranked[0]]])
        removed.append(rest[int(np.argmin(_distance(outcomes, base)))])
    return []


def _needed(
    question: _Question, history: _History, base: _Outcomes, removed: list[int]
) -> list[int]:
    """Put back, one at a time, what the flip does not need."""
    while len(removed) > 1:
        fewer = [[other for other in removed if other != at] for at in removed]
        flipped = question.ask(*_without(history, fewer)).flipped(base)
        if not flipped.any():
            break
        removed = fewer[int(np.argmax(flipped))]
    return removed


def _distance(outcomes: _Outcomes, base: _Outcomes) -> np.ndarray:
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


# ---- tables ----------------------------------------------------------------------------------------------

_Row = tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """Title, header and rows of text."""

    title: str
    header: _Row
    rows: list[_Row]


def _headline(explanation: Explanation) -> str:
    user = "A user" if explanation.user < 0 else f"User {explanation.user}"
    name, probability = explanation.candidate.name, explanation.like_probability
    if explanation.like is None:
        return f"{user} likes {name} with probability {probability:g}: the coins are open"
    verb = "likes" if explanation.like else "dislikes"
    if _is_certain(explanation):
        return f"{user} {verb} {name}"
    return f"{user} {verb} {name}; before the coins fell, the probability of a like was {probability:g}"


def _is_certain(of: Explanation | Flip) -> bool:
    return of.like_probability in (0.0, 1.0)


def _tables(explanation: Explanation) -> list[_Table]:
    return [
        _candidate_table(explanation.candidate),
        _vote_table(explanation),
        _keyword_table(explanation.matched),
        _history_table(explanation),
        _flip_table(explanation.flips),
    ]


def _candidate_table(candidate: Candidate) -> _Table:
    fields = ("categories", "pros", "cons")
    rows: list[_Row] = [(name, ", ".join(getattr(candidate, name)) or "-") for name in fields]
    return _Table("Candidate", (f"item {candidate.item}", candidate.name), rows)


def _vote_table(explanation: Explanation) -> _Table:
    evidence = [
        (f"shared pros: {explanation.alpha_pos}", f"shared cons: {explanation.alpha_neg}"),
        (_nearest(explanation.most_similar_liked), _nearest(explanation.most_similar_disliked)),
        (f"probability of a like: {explanation.sta_probability:.3f}", ""),
    ]
    rows: list[_Row] = [
        (vote.model, *sides, _vote_text(vote))
        for vote, sides in zip(explanation.votes, evidence, strict=True)
    ]
    return _Table("Votes", ("model", "liked items", "disliked items", "vote"), rows)


def _nearest(interaction: Interaction | None) -> str:
    return "nothing" if interaction is None else f"{interaction.cosine:.3f} {interaction.name}"


def _vote_text(vote: Vote) -> str:
    if not vote.tied:
        return str(vote.vote)
    return "tie, coin open" if vote.coin is None else f"tie, coin {vote.coin}"


def _keyword_table(matched: Sequence[MatchedKeyword]) -> _Table:
    rows: list[_Row] = [(k.keyword, k.polarity, ", ".join(k.names)) for k in matched]
    title = "Shared keywords" if rows else "Shared keywords: none"
    return _Table(title, ("keyword", "side", "from"), _first(rows, KEYWORD_ROWS))


def _history_table(explanation: Explanation) -> _Table:
    ranked = sorted(
        explanation.history,
        key=lambda x: (len(x.matched), -2 if x.cosine is None else x.cosine),
        reverse=True,
    )
    rows: list[_Row] = [
        (
            "liked" if x.liked else "disliked",
            x.name,
            ", ".join(word + "*" * (word in x.matched) for word in x.keywords) or "-",
            "-" if x.cosine is None else f"{x.cosine:.3f}",
        )
        for x in ranked
    ]
    outside = sum(not x.in_category for x in ranked)
    where = f", {outside} of them outside the category" if outside else " in the category"
    title = f"History: {len(rows)} of {explanation.history_length} interactions{where}"
    header = ("response", "item", "pros if liked, cons if disliked (* shared)", "cosine")
    return _Table(title, header, _first(rows, HISTORY_ROWS))


def _flip_table(flips: Sequence[Flip]) -> _Table:
    if not flips:
        return _Table(
            "What flips it: no single change, nor a set of interactions left out that the greedy search "
            f"for up to {MAX_REMOVALS} found",
            (),
            [],
        )
    rows: dict[str, list[_Row]] = {}
    for flip in flips:
        change = "; ".join(map(str, flip.changes))
        votes = " ".join("?" if vote is None else str(vote) for vote in flip.votes)
        rows.setdefault(_group(flip), []).append((change, votes, _flip_text(flip)))
    shown = [row for group in rows.values() for row in _first(group, FLIP_ROWS)]
    what = "any one of" if len(flips[0].changes) == 1 else "all together"
    return _Table(f"What flips it: {what}", ("change", "votes", "then"), shown)


def _group(flip: Flip) -> str:
    kind = flip.changes[0].kind
    return kind if kind in ("leave_out", "reverse") else "keyword"


def _flip_text(flip: Flip) -> str:
    if flip.like is None:
        return f"like with probability {flip.like_probability:g}"
    return ("like" if flip.like else "dislike") + ("" if _is_certain(flip) else ", by a coin")


def _first(rows: list[_Row], count: int) -> list[_Row]:
    """The first rows, and how many more there are."""
    if len(rows) <= count:
        return rows
    return [*rows[:count], (f"... {len(rows) - count} more", *[""] * (len(rows[0]) - 1))]


def _as_html(table: _Table) -> str:
    def line(tag: str, cells: _Row) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    rows = [line("th", table.header), *(line("td", row) for row in table.rows)]
    body = f"<table>{''.join(rows)}</table>" if table.rows else ""
    return f"<p>{html.escape(table.title)}</p>{body}"


def _as_text(table: _Table) -> str:
    """The table in at most COLUMNS terminal columns; long cells are wrapped."""
    title = _wrap(table.title, COLUMNS)
    if not table.rows:
        return "\n".join(title)
    grid = (table.header, *table.rows)
    widths = [max(_width(_plain(cell)) for cell in column) for column in zip(*grid, strict=True)]
    while sum(widths) + len(GAP) * len(widths) > COLUMNS:
        widths[int(np.argmax(widths))] -= 1
    return "\n".join([*title, *(line for row in grid for line in _lines(row, widths))])


def _lines(row: _Row, widths: Sequence[int]) -> Iterable[str]:
    """The terminal lines of one row."""
    wrapped = [_wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    for parts in itertools.zip_longest(*wrapped, fillvalue=""):
        cells = [p + " " * (w - _width(p)) for p, w in zip(parts, widths, strict=True)]
        yield (GAP + GAP.join(cells)).rstrip()


def _wrap(text: str, columns: int) -> list[str]:
    """The text in at most CELL_LINES lines of at most so many terminal columns, parted at spaces."""
    lines = [""]
    for word in _plain(text).split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if _width(longer) <= columns:
            lines[-1] = longer
        else:
            lines.append(word)
    lines = [line for line in lines if line]
    if len(lines) > CELL_LINES:
        lines = [*lines[: CELL_LINES - 1], " ".join(lines[CELL_LINES - 1 :])]
    return [_clip(line, columns) for line in lines]


def _plain(text: str) -> str:
    """The text without what would break a line or move the cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _clip(text: str, columns: int) -> str:
    if _width(text) <= columns:
        return text
    while _width(text) > columns - len(ELLIPSIS):
        text = text[:-1]
    return text + ELLIPSIS


def _width(text: str) -> int:
    """Terminal columns: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
