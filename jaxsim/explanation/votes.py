"""The explanation of a decision by the three votes.

The numbers are those of `UserSimulator.respond`; the words are looked up on the host. An explanation also holds
the smallest changes that would flip the decision (`jaxsim.explanation.vote_flips`).
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxsim.ensemble import Decision
from jaxsim.errors import InputError
from jaxsim.explanation.leaving import explain_leaving
from jaxsim.explanation.question import Question
from jaxsim.explanation.tables import Page, Printed
from jaxsim.explanation.types import (
    MODELS,
    POLARITIES,
    ExplanationFields,
    Interaction,
    MatchedKeyword,
    Vote,
)
from jaxsim.explanation.vote_flips import find_flips
from jaxsim.explanation.vote_outcomes import VoteOutcomes
from jaxsim.explanation.vote_tables import vote_page
from jaxsim.explanation.words import ItemWords


class Explanation(Printed, ExplanationFields):
    """Why a simulated user likes a candidate or not: the fields of `ExplanationFields`.

    It prints as tables of text, and notebooks show the same tables.
    """

    def _page(self) -> Page:
        return vote_page(self)


def explain_votes(words: ItemWords, question: Question[VoteOutcomes]) -> Explanation:
    """Explain a decision by the three votes.

    Raises:
        InputError: the dataset has other keywords than the simulator.
    """
    base = question.ask()
    considered = _considered(words, question, base.decision)
    decision = jax.tree.map(operator.itemgetter(0), base.decision)
    return Explanation(
        dataset=words.dataset.name,
        semantics=question.env.semantics,
        user=question.user,
        candidate=words.describe(question.candidate),
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
        coins_open=question.key is None,
        like=base.like(0),
        like_probability=float(base.like_probability[0]),
        flips=tuple(find_flips(question, words, base)) if question.flips else (),
        leaving=explain_leaving(question, base.like(0)),
        flips_sought=question.flips,
    )


def _considered(
    words: ItemWords, question: Question[VoteOutcomes], decision: Decision
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


def _votes(decision: Decision, base: VoteOutcomes) -> tuple[Vote, ...]:
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
