"""What an evaluation says about lives of several sessions: how many, on how many days, and who returns when.

Retention within w days is a share of ends of sessions: of those whose next w days lie within the horizon of the
life, the share after which the user returned within w days. With a horizon of 30 days, the next 30 lie within it
only after the first session of a life.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxsim.tables import format_table

WINDOWS = (1, 7, 30)  # days
STATISTICS = (
    "sessions_per_life", *(f"retention_{days}" for days in WINDOWS), "days_active", "days_first_to_last",
)  # fmt: skip
"""The names of what `visit_statistics` returns."""
_HEADER = (
    "policy", "mode", "users", "sessions", *(f"back in {days} d" for days in WINDOWS), "active days",
    "first to last",
)  # fmt: skip


@struct.dataclass
class VisitCounts:
    """Counts of the lives of B users.

    Attributes:
        sessions: int32[B], sessions with a step.
        ends: int32[B, 3], ends of sessions whose next 1, 7 and 30 days lie within the horizon.
        returns: int32[B, 3], those of them after which the user returned within these days.
        active_days: int32[B], days with the beginning of a session; day 0 are the first 24 hours of the life.
        last_day: float32[B], days from the beginning of the first session to that of the last.
    """

    sessions: Any
    ends: Any
    returns: Any
    active_days: Any
    last_day: Any


def no_visits(num_lives: int) -> VisitCounts:
    """The counts before the first step."""
    zeros = jnp.zeros(num_lives, jnp.int32)
    of_windows = jnp.zeros((num_lives, len(WINDOWS)), jnp.int32)
    return VisitCounts(zeros, of_windows, of_windows, zeros, jnp.zeros(num_lives, jnp.float32))


def count_visits(
    counts: VisitCounts | None,
    info: Mapping[str, jax.Array],
    alive: jax.Array,
    horizon_days: float | None,
) -> VisitCounts | None:
    """The counts after one more step.

    Args:
        counts: before it; None if users do not return.
        info: of the step of every life, `session`, `day`, `left`, `returned` and `gap_days`, [B].
        alive: bool[B], whose step counts.
        horizon_days: days of a life.
    """
    if counts is None or horizon_days is None:
        return None
    windows, day = jnp.asarray(WINDOWS, jnp.float32), info["day"]
    fits = (alive & info["left"])[:, None] & (day[:, None] + windows <= horizon_days)
    back = fits & (info["returned"][:, None] & (info["gap_days"][:, None] <= windows))
    new_day = (counts.sessions == 0) | (jnp.floor(day) > jnp.floor(counts.last_day))
    return VisitCounts(
        sessions=jnp.where(alive, info["session"] + 1, counts.sessions),
        ends=counts.ends + fits,
        returns=counts.returns + back,
        active_days=counts.active_days + (alive & new_day),
        last_day=jnp.where(alive, day, counts.last_day),
    )


def joined(
    parts: Sequence[tuple[np.ndarray, np.ndarray, VisitCounts]], num_lives: int
) -> VisitCounts | None:
    """The counts of M lives in NumPy; None without parts, because users do not return.

    Args:
        parts: the lives of a batch int[B], bool[B], which of them count, and their counts.
        num_lives: M.
    """
    if not parts:
        return None

    def join(start: jax.Array, *columns: np.ndarray) -> np.ndarray:
        whole = np.array(start)
        for (lives, counted, _), column in zip(parts, columns, strict=True):
            whole[lives[counted]] = np.asarray(column)[counted]
        return whole

    counts = [part[-1] for part in parts]
    result: VisitCounts = jax.tree.map(join, no_visits(num_lives), *counts)
    return result


def visit_statistics(lives: Sequence[VisitCounts | None]) -> dict[str, float] | None:
    """The numbers of a row from the counts of each training seed; None if users do not return."""
    known = [x for x in lives if x is not None]
    if not known:
        return None
    ends, returns = (
        np.sum([getattr(x, name).sum(axis=0) for x in known], axis=0)
        for name in ("ends", "returns")
    )
    shares = np.where(ends > 0, returns / np.maximum(ends, 1), np.nan)
    return {
        "sessions_per_life": float(np.mean([x.sessions for x in known])),
        **{f"retention_{days}": float(x) for days, x in zip(WINDOWS, shares, strict=True)},
        "days_active": float(np.mean([x.active_days for x in known])),
        "days_first_to_last": float(np.mean([x.last_day for x in known])),
    }


def format_visits(rows: Sequence[tuple[Sequence[str], Mapping[str, float]]]) -> str:
    """A Markdown table of statistics, each with the policy, the mode and the users that they are of."""
    cells = [
        (
            *names,
            f"{x['sessions_per_life']:.2f}",
            *(_share(x[f"retention_{days}"]) for days in WINDOWS),
            f"{x['days_active']:.2f}",
            f"{x['days_first_to_last']:.1f}",
        )
        for names, x in rows
    ]
    return format_table(_HEADER, cells, markdown=True, left=range(3))


def _share(value: float) -> str:
    """A share as text; a dash if no session end has its window within the horizon."""
    return "-" if np.isnan(value) else f"{value:.1%}"
