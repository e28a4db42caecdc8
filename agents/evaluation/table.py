"""The table of an evaluation: one row per policy, mode and group of users, as text and as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from agents.evaluation.returns import BASELINE
from agents.evaluation.visits import STATISTICS, format_visits
from jaxsim.tables import format_table

HEADER = (
    "policy", "mode", "users", "A.Rwd (95 % interval)", "over like_rate", "over static_best", "to oracle",
    "like rate", "T.Rwd", "Liking%", "coverage", "diversity",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """The results of one policy, in one mode, on one group of users; docs/evaluation.md explains the fields."""

    policy: str
    mode: str
    users: str
    seeds: int
    like_rate: float
    a_rwd: float
    a_rwd_low: float
    a_rwd_high: float
    paired_low: float
    paired_high: float
    paired_random_low: float
    paired_random_high: float
    paired_popular_low: float
    paired_popular_high: float
    paired_static_best_low: float
    paired_static_best_high: float
    paired_oracle_low: float
    paired_oracle_high: float
    users_static_best_low: float
    users_static_best_high: float
    share_of_oracle: float
    share_past_static_best: float
    t_rwd: float
    liking: float
    coverage: float
    diversity: float
    repeat_share: float
    steps: int
    seconds: float
    visits: dict[str, float] | None = None  # only where users return


def format_rows(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table that also reads well in a terminal, and a sentence per learned policy."""
    ordered = ranked(rows)
    table = format_table(
        HEADER, [row_cells(row) for row in ordered], markdown=True, left=range(len(HEADER))
    )
    visits = [(row_names(row), row.visits) for row in ordered if row.visits is not None]
    lives = ["", format_visits(visits)] if visits else []
    sentences = [_sentence(row) for row in rows if row.mode != BASELINE]
    return "\n".join([table, *lives, "", *sentences])


def ranked(rows: Sequence[Row]) -> list[Row]:
    """The rows in the order of the table: those of train users first, and the highest A.Rwd first."""
    return sorted(rows, key=lambda row: (row.users != "train", -row.a_rwd))


def row_names(row: Row) -> tuple[str, str, str]:
    """Policy with its number of seeds, mode (none for a baseline), and users."""
    return (
        f"{row.policy} ({row.seeds} seeds)" if row.seeds > 1 else row.policy,
        "" if row.mode == BASELINE else row.mode,
        row.users,
    )


def row_cells(row: Row) -> tuple[str, ...]:
    """A row as texts, one for each column of `HEADER`."""
    return (
        *row_names(row),
        f"{row.a_rwd:.2f} ({format_interval(row.a_rwd_low, row.a_rwd_high)})",
        format_interval(row.paired_low, row.paired_high, sign="+"),
        format_interval(row.paired_static_best_low, row.paired_static_best_high, sign="+"),
        _or_dash(row.share_of_oracle, ".1%"),
        f"{row.like_rate:.3f}",
        f"{row.t_rwd:.1f}",
        f"{row.liking:.1f}",
        f"{row.coverage:.1%}",
        _or_dash(row.diversity, ".2f"),
    )


def _or_dash(value: float, form: str) -> str:
    """A number as text; a dash if it is not defined."""
    return format(value, form) if math.isfinite(value) else "-"


def format_interval(low: float, high: float, sign: str = "") -> str:
    """Such as "1.00 to 2.50"; "+" as `sign` puts a sign before positive numbers."""
    if math.isnan(low):
        return "no interval"  # from one user
    return f"{low:{sign}.2f} to {high:{sign}.2f}"


def _sentence(row: Row) -> str:
    """The differences of a learned policy to the baselines on the same sessions."""
    differences = (
        ("random", row.paired_random_low, row.paired_random_high),
        ("popular", row.paired_popular_low, row.paired_popular_high),
        ("like_rate", row.paired_low, row.paired_high),
        ("static_best", row.paired_static_best_low, row.paired_static_best_high),
    )
    parts = [f"than {name} by {format_interval(low, high)}" for name, low, high in differences]
    return (
        f"{row.policy} ({row.mode}) on {row.users} users earns more "
        f"{', '.join(parts[:-1])}, and {parts[-1]}."
    )


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as plain dictionaries; a number that is not finite becomes None."""
    return [_plain(row) for row in rows]


def from_json(content: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows that `to_json` wrote.

    Raises:
        TypeError, ValueError, AttributeError: it was not `to_json` of this version that wrote them.
    """
    names = {field.name for field in fields(Row)} - {"visits"}
    rows = []
    for values in content:
        for name, value in values.items():
            _check_value(name, value)
        numbers: dict[str, Any] = {
            name: math.nan if value is None else value for name, value in values.items()
        }
        visits = {name: numbers.pop(name) for name in [*numbers] if name not in names}
        if visits and set(visits) != set(STATISTICS):
            raise TypeError(f"unknown fields {', '.join(sorted(set(visits) - set(STATISTICS)))}")
        rows.append(Row(**numbers, visits=visits or None))
    return rows


def _check_value(name: str, value: Any) -> None:
    """Texts where a row has texts, and finite numbers or None where it has numbers."""
    if name in ("policy", "mode", "users"):
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}")
    elif isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"{name} is {value!r}")
    elif value is not None and not math.isfinite(value):
        raise ValueError(f"{name} is {value}")


def _plain(row: Row) -> dict[str, Any]:
    values = asdict(row)
    visits = values.pop("visits") or {}
    return finite_or_none({**values, **visits})


def finite_or_none(values: dict[str, Any]) -> dict[str, Any]:
    """The values with None in place of floats that are not finite, which JSON does not have."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
