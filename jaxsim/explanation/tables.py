"""An explanation as tables of text, for terminals and notebooks."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable
from rich.text import Text

from jaxsim.explanation.counterfactuals import MAX_REMOVALS
from jaxsim.explanation.types import (
    Candidate,
    ExplanationFields,
    Flip,
    Interaction,
    MatchedKeyword,
    Vote,
)
from jaxsim.tables import render

COLUMNS = 100  # width of the printed tables
CELL_COLUMNS = 2 * COLUMNS  # longest text of a cell, which is then wrapped; the rest is cut off
HISTORY_ROWS, KEYWORD_ROWS, FLIP_ROWS = 12, 12, 3  # rows shown; an explanation's fields hold all

_Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Title, header and rows of text."""

    title: str
    header: _Row
    rows: list[_Row]


def to_text(explanation: ExplanationFields) -> str:
    """Lines of at most COLUMNS terminal columns, without colours or control characters."""
    parts: list[Text | RichTable] = [_plain(headline(explanation))]
    for table in tables(explanation):
        parts += [Text(), _plain(table.title)]
        if table.rows:
            parts.append(_grid(table))
    return render(*parts, width=COLUMNS)


def _grid(table: Table) -> RichTable:
    grid = RichTable(box=None, padding=(0, 0, 0, 2))
    for name in table.header:
        grid.add_column(_plain(name))
    for row in table.rows:
        grid.add_row(*map(_plain, row))
    return grid


def _plain(text: str) -> Text:
    """A text of at most CELL_COLUMNS, without line breaks, control characters or markup."""
    words = "".join(c if c.isprintable() else " " for c in text).split()
    plain = Text(" ".join(words))
    plain.truncate(CELL_COLUMNS, overflow="ellipsis")
    return plain


def to_html(explanation: ExplanationFields) -> str:
    """The same tables as HTML, with all text escaped."""
    parts = [f"<p><b>{_escaped(headline(explanation))}</b></p>"]
    body = "\n".join([*parts, *map(_html_table, tables(explanation))])
    # Notebooks must not read a name between dollar signs as a formula.
    return f'<div class="tex2jax_ignore mathjax_ignore">\n{body}\n</div>'


def _escaped(text: str) -> str:
    return html.escape(_plain(text).plain)


def _html_table(table: Table) -> str:
    def line(tag: str, cells: _Row) -> str:
        return "<tr>" + "".join(f"<{tag}>{_escaped(c)}</{tag}>" for c in cells) + "</tr>"

    rows = [line("th", table.header), *(line("td", row) for row in table.rows)]
    body = f"<table>{''.join(rows)}</table>" if table.rows else ""
    return f"<p>{_escaped(table.title)}</p>{body}"


# ---- content of the tables -------------------------------------------------------------------------------


def headline(explanation: ExplanationFields) -> str:
    """The decision in one sentence."""
    user = "A user" if explanation.user < 0 else f"User {explanation.user}"
    name, probability = explanation.candidate.name, explanation.like_probability
    if explanation.like is None:
        return f"{user} likes {name} with probability {probability:g}: the coins are open"
    verb = "likes" if explanation.like else "dislikes"
    if _is_certain(explanation):
        return f"{user} {verb} {name}"
    return f"{user} {verb} {name}; before the coins fell, the probability of a like was {probability:g}"


def _is_certain(decision: ExplanationFields | Flip) -> bool:
    return decision.like_probability in (0.0, 1.0)


def tables(explanation: ExplanationFields) -> list[Table]:
    """Candidate, votes, shared keywords, history and flips; long lists are cut."""
    return [
        _candidate_table(explanation.candidate),
        _vote_table(explanation),
        _keyword_table(explanation.matched),
        _history_table(explanation),
        _flip_table(explanation.flips),
    ]


def _candidate_table(candidate: Candidate) -> Table:
    fields = ("categories", "pros", "cons")
    rows: list[_Row] = [(name, ", ".join(getattr(candidate, name)) or "-") for name in fields]
    return Table("Candidate", (f"item {candidate.item}", candidate.name), rows)


def _vote_table(explanation: ExplanationFields) -> Table:
    evidence = [
        (f"shared pros: {explanation.alpha_pos}", f"shared cons: {explanation.alpha_neg}"),
        (_nearest(explanation.most_similar_liked), _nearest(explanation.most_similar_disliked)),
        (f"probability of a like: {explanation.sta_probability:.3f}", ""),
    ]
    rows: list[_Row] = [
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
    rows: list[_Row] = [(k.keyword, k.polarity, ", ".join(k.names)) for k in matched]
    title = "Shared keywords" if rows else "Shared keywords: none"
    return Table(title, ("keyword", "side", "from"), _first(rows, KEYWORD_ROWS))


def _history_table(explanation: ExplanationFields) -> Table:
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
    return Table(title, header, _first(rows, HISTORY_ROWS))


def _flip_table(flips: Sequence[Flip]) -> Table:
    if not flips:
        return Table(
            "What flips it: the search found nothing, neither a single change nor a set of up to "
            f"{MAX_REMOVALS} interactions left out",
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
    return Table(f"What flips it: {what}", ("change", "votes", "then"), shown)


def _group(flip: Flip) -> str:
    kind = flip.changes[0].kind
    return kind if kind in ("leave_out", "reverse") else "keyword"


def _flip_text(flip: Flip) -> str:
    if flip.like is None:
        return f"like with probability {flip.like_probability:g}"
    return ("like" if flip.like else "dislike") + ("" if _is_certain(flip) else ", by a coin")


def _first(rows: list[_Row], count: int) -> list[_Row]:
    """The first `count` rows, then a row that says how many more there are."""
    if len(rows) <= count:
        return rows
    return [*rows[:count], (f"... {len(rows) - count} more", *[""] * (len(rows[0]) - 1))]
