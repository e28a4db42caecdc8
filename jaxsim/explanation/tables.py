"""An explanation as tables of text, for terminals and notebooks."""

import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rich.table import Table as RichTable
from rich.text import Text

from jaxsim.explanation.counterfactuals import MAX_REMOVALS
from jaxsim.explanation.types import Candidate, Change
from jaxsim.tables import render

COLUMNS = 100  # width of the printed tables
CELL_COLUMNS = 2 * COLUMNS  # longest text of a cell, which is then wrapped; the rest is cut off
FLIP_ROWS = 3  # rows of each group shown; an explanation's fields hold all

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Title, header and rows of text."""

    title: str
    header: Row
    rows: list[Row]


@dataclass(frozen=True)
class Page:
    """A headline and the tables below it."""

    headline: str
    tables: list[Table]


class Printed(ABC):
    """Something that prints as tables of text, and that notebooks show as the same tables."""

    @abstractmethod
    def _page(self) -> Page: ...

    def __str__(self) -> str:
        return to_text(self._page())

    def _repr_html_(self) -> str:
        return to_html(self._page())


def to_text(page: Page) -> str:
    """Lines of at most COLUMNS terminal columns, without colours or control characters."""
    parts: list[Text | RichTable] = [_plain(page.headline)]
    for table in page.tables:
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


def to_html(page: Page) -> str:
    """The same tables as HTML, with all text escaped."""
    parts = [f"<p><b>{_escaped(page.headline)}</b></p>"]
    body = "\n".join([*parts, *map(_html_table, page.tables)])
    # Notebooks must not read a name between dollar signs as a formula.
    return f'<div class="tex2jax_ignore mathjax_ignore">\n{body}\n</div>'


def _escaped(text: str) -> str:
    return html.escape(_plain(text).plain)


def _html_table(table: Table) -> str:
    def line(tag: str, cells: Row) -> str:
        return "<tr>" + "".join(f"<{tag}>{_escaped(c)}</{tag}>" for c in cells) + "</tr>"

    rows = [line("th", table.header), *(line("td", row) for row in table.rows)]
    body = f"<table>{''.join(rows)}</table>" if table.rows else ""
    return f"<p>{_escaped(table.title)}</p>{body}"


# ---- tables of both models of the user -------------------------------------------------------------------


def user_name(user: int) -> str:
    """A user at the start of a sentence."""
    return "A user" if user < 0 else f"User {user}"


def candidate_table(candidate: Candidate, *more: Row) -> Table:
    """The candidate in words, and more rows."""
    fields = ("categories", "pros", "cons")
    rows: list[Row] = [(name, ", ".join(getattr(candidate, name)) or "-") for name in fields]
    return Table("Candidate", (f"item {candidate.item}", candidate.name), [*rows, *more])


class AnyFlip(Protocol):
    """Changes that together flip a decision."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """One change, or several interactions to leave out together."""


FlipT = TypeVar("FlipT", bound=AnyFlip)


def flip_table(
    title: str, flips: Sequence[FlipT], header: Row, cells: Callable[[FlipT], Row]
) -> Table:
    """The first FLIP_ROWS flips of each group.

    Args:
        title: what the flips do.
        flips: of the explanation.
        header: names of the columns beside the changes.
        cells: a flip's text in these columns.
    """
    if not flips:
        return Table(
            f"{title}: the search found nothing, neither a single change nor a set of up to "
            f"{MAX_REMOVALS} interactions left out",
            (),
            [],
        )
    rows: dict[str, list[Row]] = {}
    for flip in flips:
        change = "; ".join(map(str, flip.changes))
        rows.setdefault(_group(flip), []).append((change, *cells(flip)))
    shown = [row for group in rows.values() for row in first_rows(group, FLIP_ROWS)]
    what = "any one of" if len(flips[0].changes) == 1 else "all together"
    return Table(f"{title}: {what}", ("change", *header), shown)


def _group(flip: AnyFlip) -> str:
    kind = flip.changes[0].kind
    return kind if kind in ("leave_out", "reverse") else "keyword"


def first_rows(rows: list[Row], count: int) -> list[Row]:
    """The first `count` rows, then a row that says how many more there are."""
    if len(rows) <= count:
        return rows
    return [*rows[:count], (f"... {len(rows) - count} more", *[""] * (len(rows[0]) - 1))]
