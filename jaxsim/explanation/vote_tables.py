"""The tables of an explanation by the three votes."""

from collections.abc import Sequence

from jaxsim.explanation.leaving import leaving_tables
from jaxsim.explanation.tables import (
    Page,
    Row,
    Table,
    candidate_table,
    first_rows,
    flip_table,
    user_name,
)
from jaxsim.explanation.types import ExplanationFields, Flip, Interaction, MatchedKeyword, Vote

HISTORY_ROWS, KEYWORD_ROWS = 12, 12  # rows shown; an explanation's fields hold all


def vote_page(explanation: ExplanationFields) -> Page:
    """Candidate, votes, shared keywords, history and flips; long lists are cut."""
    flips = flip_table("What flips it", explanation.flips, ("votes", "then"), _flip_cells)
    tables = [
        candidate_table(explanation.candidate),
        _vote_table(explanation),
        _keyword_table(explanation.matched),
        _history_table(explanation),
        *leaving_tables(explanation.leaving),
        *([flips] if explanation.flips_sought else []),
    ]
    return Page(_headline(explanation), tables)


def _headline(explanation: ExplanationFields) -> str:
    """The decision in one sentence."""
    user = user_name(explanation.user)
    name, probability = explanation.candidate.name, explanation.like_probability
    if explanation.like is None:
        return f"{user} likes {name} with probability {probability:g}: the coins are open"
    verb = "likes" if explanation.like else "dislikes"
    if _is_certain(explanation):
        return f"{user} {verb} {name}"
    return f"{user} {verb} {name}; before the coins fell, the probability of a like was {probability:g}"


def _is_certain(decision: ExplanationFields | Flip) -> bool:
    return decision.like_probability in (0.0, 1.0)


def _vote_table(explanation: ExplanationFields) -> Table:
    evidence = [
        (f"shared pros: {explanation.alpha_pos}", f"shared cons: {explanation.alpha_neg}"),
        (_nearest(explanation.most_similar_liked), _nearest(explanation.most_similar_disliked)),
        (f"probability of a like: {explanation.sta_probability:.3f}", ""),
    ]
    rows: list[Row] = [
        (vote.model, *sides, _vote_text(vote))
        for vote, sides in zip(explanation.votes, evidence, strict=True)
    ]
    return Table("Votes", ("model", "liked items", "disliked items", "vote"), rows)


def _nearest(interaction: Interaction | None) -> str:
    return "nothing" if interaction is None else f"{interaction.cosine:.3f} {interaction.name}"


def _vote_text(vote: Vote) -> str:
    if not vote.tied:
        return str(vote.vote)
    return "tie, coin open" if vote.coin is None else f"tie, coin {vote.coin}"


def _keyword_table(matched: Sequence[MatchedKeyword]) -> Table:
    rows: list[Row] = [(k.keyword, k.polarity, ", ".join(k.names)) for k in matched]
    title = "Shared keywords" if rows else "Shared keywords: none"
    return Table(title, ("keyword", "side", "from"), first_rows(rows, KEYWORD_ROWS))


def _history_table(explanation: ExplanationFields) -> Table:
    ranked = sorted(
        explanation.history,
        key=lambda x: (len(x.matched), -2 if x.cosine is None else x.cosine),
        reverse=True,
    )
    rows: list[Row] = [
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
    return Table(title, header, first_rows(rows, HISTORY_ROWS))


def _flip_cells(flip: Flip) -> Row:
    votes = " ".join("?" if vote is None else str(vote) for vote in flip.votes)
    return votes, _flip_text(flip)


def _flip_text(flip: Flip) -> str:
    if flip.like is None:
        return f"like with probability {flip.like_probability:g}"
    return ("like" if flip.like else "dislike") + ("" if _is_certain(flip) else ", by a coin")
