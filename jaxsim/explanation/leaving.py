"""Whether the user leaves after the recommendation, and why: under `departure="fitted"`, at a known position."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxsim.departure import (
    OBSCURITY,
    POSITION,
    SAME_CATEGORY,
    SATISFACTION,
    SIMILARITY,
    Recent,
    depart,
    recent_of,
)
from jaxsim.explanation.question import History, OutcomesT, Question
from jaxsim.explanation.tables import Row, Table
from jaxsim.explanation.types import Leaving, LeavingTerm

_MEANINGS = {
    POSITION: "how long the session has gone on",
    OBSCURITY: "how obscure the last five items are",
    SAME_CATEGORY: "categories that the item shares with those before it",
    SIMILARITY: "pros of similar meaning as theirs",
    SATISFACTION: "whether the user liked the five more than people do",
}


def recent_in(history: History) -> Recent:
    """The last five interactions of a history, which may have none."""
    items = np.append(history.items, -1).astype(
        np.int32
    )  # nothing can be taken from an empty array
    likes = np.append(history.likes, 0).astype(np.int8)
    return recent_of(jnp.asarray(items), jnp.asarray(likes), jnp.int32(len(history.items)))


def explain_leaving(question: Question[OutcomesT], like: bool | None) -> tuple[Leaving, ...]:
    """The chance of leaving after a response, or after either one while it is open; () without a position."""
    if question.position is None:
        return ()
    liked = (False, True) if like is None else (like,)
    return tuple(_after(question, question.position, x) for x in liked)


def _after(question: Question[OutcomesT], position: int, liked: bool) -> Leaving:
    before = question.history
    history = History(
        positions=before.positions,
        items=np.append(before.items, question.candidate),
        likes=np.append(before.likes, liked),
    )
    params = question.params
    departure = depart(params.departure, params.catalogue, recent_in(history), jnp.int32(position))
    terms = [LeavingTerm(name, float(x)) for name, x in departure.log_odds.items()]
    return Leaving(
        position=position,
        liked=liked,
        probability=float(departure.probability),
        log_odds=sum(term.log_odds for term in terms),
        terms=tuple(terms),
    )


def leaving_tables(leaving: Sequence[Leaving]) -> list[Table]:
    """One table with a column for each response; none without a position."""
    if not leaving:
        return []
    columns = tuple("if liked" if x.liked else "if disliked" for x in leaving)
    rows: list[Row] = [
        (term.term, _MEANINGS[term.term], *(f"{x.terms[n].log_odds:+.3f}" for x in leaving))
        for n, term in enumerate(leaving[0].terms)
    ]
    rows.append(("all", "log-odds of leaving", *(f"{x.log_odds:+.3f}" for x in leaving)))
    rows.append(("", "probability of leaving", *(f"{x.probability:.3f}" for x in leaving)))
    title = f"Leaving after step {leaving[0].position} of the session"
    return [Table(title, ("of", "what it says", *columns), rows)]
