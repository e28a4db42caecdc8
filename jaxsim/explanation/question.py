"""`jaxsim.explain`: one decision of the simulated user in words, numbers and keywords.

The numbers are those of `UserSimulator.respond`; the words are looked up on the host. An explanation also holds
the smallest changes that would flip the decision (`jaxsim.explanation.counterfactuals`).
"""

import dataclasses
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxsim.checks import check_key, decision_arguments, known
from jaxsim.dataset import Dataset
from jaxsim.ensemble import Decision
from jaxsim.environment import EnvParams, UserSimulator
from jaxsim.errors import InputError
from jaxsim.explanation import tables as explanation_tables
from jaxsim.explanation.counterfactuals import (
    POLARITIES,
    Flip,
    History,
    Outcomes,
    Question,
    find_flips,
)
from jaxsim.explanation.words import ItemWords

MODELS = ("f_mat", "f_sim", "f_sta")


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
        return explanation_tables.to_text(self)

    def _repr_html_(self) -> str:
        return explanation_tables.to_html(self)


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
        history_labels: int[H] or bool[H], 1 like, 0 dislike (or, as in an observation, -1 dislike and 0 padding).
        candidate: int, the item.
        user: int, for f_sta's user effect; -1 takes the mean.
        key: PRNG key of the coins, as in `env.respond`; None leaves them open.

    Raises:
        InputError: an argument of a wrong type or out of range, a dataset that is not the simulator's, or a call
            inside jit or vmap.
    """
    _check_dataset(dataset, env, params)
    question = _read_question(env, params, key, history_items, history_labels, candidate, user)
    base = question.ask()
    words = ItemWords(dataset)
    considered = _considered(words, question, base.decision)
    decision = jax.tree.map(operator.itemgetter(0), base.decision)
    return Explanation(
        dataset=dataset.name,
        semantics=env.semantics,
        user=question.user,
        candidate=_candidate(words, question.candidate),
        history_length=len(question.history.items),
        history=considered,
        matched=_matched_keywords(considered),
        alpha_pos=int(decision.alpha_pos),
        alpha_neg=int(decision.alpha_neg),
        beta_pos=_finite(decision.beta_pos),
        beta_neg=_finite(decision.beta_neg),
        most_similar_liked=_most_similar(considered, liked=True),
        most_similar_disliked=_most_similar(considered, liked=False),
        sta_probability=float(decision.sta_probability),
        votes=_votes(decision, base),
        coins_open=key is None,
        like=base.like(0),
        like_probability=float(base.like_probability[0]),
        flips=tuple(find_flips(question, words, base)),
    )


def _check_dataset(dataset: Dataset, env: UserSimulator, params: EnvParams) -> None:
    for name, value, kind, source in (
        ("dataset", dataset, Dataset, "jaxsim.load_dataset returned"),
        ("env", env, UserSimulator, "jaxsim.make returned"),
        ("params", params, EnvParams, "jaxsim.make returned"),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{name} is a {type(value).__name__}: pass what {source}")
    sizes = (dataset.num_items, dataset.num_users)
    if sizes != (env.num_items, env.num_users):
        raise InputError(
            f"dataset {dataset.name} has {sizes[0]} items and {sizes[1]} users, but env has {env.num_items} and "
            f"{env.num_users}: pass the dataset that jaxsim.make was given"
        )


def _read_question(
    env: UserSimulator,
    params: EnvParams,
    key: Any,
    history_items: Any,
    history_labels: Any,
    candidate: Any,
    user: Any,
) -> Question:
    if not known(history_items, history_labels, candidate, user, key):
        raise InputError("explain looks up words on the host: call it outside jit and vmap")
    if key is not None:
        check_key(key)
    arguments = decision_arguments(
        history_items, history_labels, candidate, user, env.num_items, env.num_users
    )
    items, labels, candidate, user = map(np.asarray, arguments)
    positions = np.flatnonzero(items >= 0)
    likes = (labels[positions] > 0).astype(np.int8)
    history = History(positions, items[positions].astype(np.int32), likes)
    return Question(env, params, key, history, int(candidate), int(user))


# ---- words -----------------------------------------------------------------------------------------------


def _candidate(words: ItemWords, item: int) -> Candidate:
    cons, pros = (words.spell(words.keywords(item, polarity)) for polarity in (0, 1))
    return Candidate(item, words.name(item), words.spell_categories(item), pros, cons)


def _considered(
    words: ItemWords, question: Question, decision: Decision
) -> tuple[Interaction, ...]:
    """The interactions of h_C; `decision` has one row."""
    reasons, history, candidate = decision.reasons, question.history, question.candidate
    assert reasons is not None
    found = []
    for at in np.flatnonzero(reasons.considered[0]):
        item, liked = int(history.items[at]), bool(reasons.liked[0, at])
        keywords = words.keywords(item, int(liked))
        own = set(words.keywords(candidate, int(liked)))
        matched = [k for k in keywords if k in own]
        if set(matched) != set(reasons.keywords[0, at].tolist()) - {-1}:
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


def _votes(decision: Decision, base: Outcomes) -> tuple[Vote, ...]:
    reasons = decision.reasons
    assert reasons is not None
    tied = [*map(bool, reasons.tied), False]
    coins = [*map(int, reasons.coins), None]
    return tuple(
        Vote(model, vote, tie, coin if tie and base.keyed else None)
        for model, vote, tie, coin in zip(MODELS, base.open_votes(0), tied, coins, strict=True)
    )


def _finite(cosine: Any) -> float | None:
    return float(cosine) if np.isfinite(cosine) else None
