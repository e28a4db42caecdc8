"""The columns that a reader wants from a table, and where the table has them."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxsim import InputError

_NAMES_SHOWN = 12


@dataclass(frozen=True)
class Column:
    """A column that a reader wants.

    Attributes:
        name: the name used in messages.
        synonyms: other names that the header may use. Names are compared trimmed and without case.
        required: whether the file must have it.
        multiline: whether its values may contain line breaks. In other columns a line break means that a quote
            was not closed.
        instead: another wanted column that makes this one unnecessary.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    required: bool = True
    multiline: bool = False
    instead: str | None = None


@dataclass(frozen=True)
class RatingColumns:
    """The columns of a table of ratings; `time`, `text` and `duration` are None where the dataset has none.

    A table without ratings has durations in their place, if `rating.instead` says so.
    """

    user: Column
    item: Column
    rating: Column
    time: Column | None = None
    text: Column | None = None
    duration: Column | None = None

    def wanted(self) -> list[Column]:
        """All columns that are not None."""
        columns = (self.user, self.item, self.rating, self.time, self.text, self.duration)
        return [column for column in columns if column is not None]


def find_columns(place: str, names: Sequence[str], columns: Sequence[Column]) -> dict[str, int]:
    """Find the wanted columns among the columns of a table.

    Args:
        place: the file and line of the names, for messages.
        names: the names of all columns, as written.
        columns: the wanted columns.

    Returns:
        Name of a wanted column that the table has -> its position in `names`.

    Raises:
        InputError: a required column is missing, or two columns stand for the same wanted one.
    """
    positions = column_positions(names, columns)
    missing = [
        c.name
        for c in columns
        if c.required and c.name not in positions and c.instead not in positions
    ]
    if missing:
        shown = ", ".join(repr(name[:40]) for name in names[:_NAMES_SHOWN])
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        what = "is no column" if len(missing) == 1 else "are no columns"
        raise InputError(
            f"{place}: there {what} {', '.join(missing)}; found: {shown or 'none'}{more}"
        )
    for wanted, several in positions.items():
        if len(several) > 1:
            both = " and ".join(names[position] for position in several[:2])
            raise InputError(f"{place}: the columns {both} both stand for {wanted}; rename one")
    return {wanted: several[0] for wanted, several in positions.items()}


def column_positions(names: Sequence[str], columns: Sequence[Column]) -> dict[str, list[int]]:
    """All positions of each wanted column that is among `names`."""
    folded = [name.strip().casefold() for name in names]
    positions = {
        column.name: [
            position
            for position, name in enumerate(folded)
            if name in (column.name, *column.synonyms)
        ]
        for column in columns
    }
    return {wanted: several for wanted, several in positions.items() if several}
