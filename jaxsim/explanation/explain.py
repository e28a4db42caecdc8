"""`jaxsim.explain`: one decision of the simulated user in words, numbers and keywords.

The numbers are those of `UserSimulator.respond`; the words are looked up on the host. An explanation also holds
the smallest changes that would flip the decision (`jaxsim.explanation.counterfactuals`).
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxsim.checks import check_key, decision_arguments, is_concrete
from jaxsim.dataset import Dataset
from jaxsim.ensemble import Decision
from jaxsim.environment import UserSimulator
from jaxsim.errors import InputError
from jaxsim.explanation import tables
from jaxsim.explanation.counterfactuals import find_flips
from jaxsim.explanation.question import History, Outcomes, Question
from jaxsim.explanation.types import (
    MODELS,
    POLARITIES,
    Candidate,
    ExplanationFields,
    Interaction,
    MatchedKeyword,
    Vote,
)
from jaxsim.explanation.words import ItemWords
from jaxsim.types import EnvParams


class Explanation(ExplanationFields):
    """Why a simulated user likes a candidate or not: the fields of `ExplanationFields`.

    It prints as tables of text, and notebooks show the same tables.
    """

    def __str__(self) -> str:
        return tables.to_text(self)

    def _repr_html_(self) -> str:
        return tables.to_html(self)


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

    A history of up to `env.window` interactions is padded to that length, a longer one to a power of two, so that
    histories of many lengths share one compiled program. f_sta's probability equals that of `env.respond` up to
    float32 rounding, so its vote can differ if the probability is that close to 1/2. Everything else is equal.

    Args:
        dataset: the dataset that `jaxsim.make` was given.
        env, params: of `jaxsim.make`.
        history_items: int[H], any H, -1 pads anywhere.
        history_labels: int[H] or bool[H], 1 like, 0 dislike (or, as in an observation, -1 dislike and 0 padding).
        candidate: int, the item.
        user: int, for f_sta's user effect; -1 takes the mean.
        key: PRNG key of the coins, as in `env.respond`; None leaves them open.

    Raises:
        InputError: an argument of a wrong type or out of range, a dataset other than the simulator's, or a call
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
    if not is_concrete(history_items, history_labels, candidate, user, key):
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
    interactions = []
    for n in np.flatnonzero(reasons.considered[0]):
        item, liked = int(history.items[n]), bool(reasons.liked[0, n])
        keywords = words.keywords(item, int(liked))
        own = set(words.keywords(candidate, int(liked)))
        matched = [k for k in keywords if k in own]
        if set(matched) != set(reasons.keywords[0, n].tolist()) - {-1}:
            raise InputError(
                f"dataset {words.dataset.name} has other keywords than params: pass the dataset that "
                "jaxsim.make was given"
            )
        interactions.append(
            Interaction(
                position=int(history.positions[n]),
                item=item,
                name=words.name(item),
                categories=words.spell_categories(item),
                in_category=bool(set(words.categories(item)) & set(words.categories(candidate))),
                liked=liked,
                keywords=words.spell(keywords),
                matched=words.spell(matched),
                cosine=_finite(reasons.cosine[0, n]),
            )
        )
    return tuple(interactions)


def _matched_keywords(considered: Sequence[Interaction]) -> tuple[MatchedKeyword, ...]:
    sources: dict[tuple[str, str], list[Interaction]] = {}
    for interaction in considered:
        for keyword in interaction.matched:
            sources.setdefault((POLARITIES[interaction.liked], keyword), []).append(interaction)
    matched = [
        MatchedKeyword(keyword, polarity, tuple(x.position for x in xs), tuple(x.name for x in xs))
        for (polarity, keyword), xs in sources.items()
    ]
    return tuple(sorted(matched, key=lambda k: -len(k.positions)))


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
