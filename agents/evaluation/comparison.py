"""Two runs compared on the same fixed sessions, from the returns that their evaluations saved.

The difference is that of the mean return. There are two kinds of intervals:

- Both runs have several seeds. Their trainings are independent, so seeds are not paired. The mean over the
  sessions of each seed is one observation, and the interval is Welch's for two samples of unequal variance.
- One of the runs has a single seed. The returns of each run are averaged over its seeds, and their differences
  over the sessions of each user. The interval is Student's t over users. It holds for these trained policies;
  another training may differ by more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.evaluation.intervals import mean_interval, welch_interval
from agents.evaluation.returns import GREEDY, GROUPS, SAMPLED, Returns
from agents.evaluation.table import format_interval
from jaxsim import InputError
from jaxsim.tables import format_table


@dataclass(frozen=True)
class Difference:
    """The difference of runs A and B on one group of users, in one mode.

    Attributes:
        users: group of users.
        mode: mode of the policies.
        a_rwd, b_rwd: mean undiscounted returns.
        difference: A less B.
        low, high: 95 % interval of the difference; NaN if there is only one user and a run with a single seed.
        a_wins, ties, b_wins: shares of (session, seed of A, seed of B) in which A earns more, both earn the same,
            or B earns more.
        interval_over: "seeds" or "users".
        sessions: number of sessions, M.
    """

    users: str
    mode: str
    a_rwd: float
    b_rwd: float
    difference: float
    low: float
    high: float
    a_wins: float
    ties: float
    b_wins: float
    interval_over: str
    sessions: int

    @property
    def verdict(self) -> str:
        """What the interval shows, as a sentence."""
        where = f"{self.mode}, {self.users} users"
        if np.isnan(self.low):
            return f"{where}: no difference is shown, because an interval needs at least two users."
        if self.low == self.high == 0:
            return f"{where}: both runs earn the same."
        if self.low <= 0 <= self.high:
            return f"{where}: no difference is shown, because the interval includes zero."
        better, other = ("A", "B") if self.difference > 0 else ("B", "A")
        small, large = sorted((abs(self.low), abs(self.high)))
        return f"{where}: {better} earns more than {other}, by {small:.2f} to {large:.2f} in A.Rwd."


def compare(a: Returns, b: Returns) -> list[Difference]:
    """The difference for each group of users and mode that both runs have.

    Raises:
        InputError: the runs did not meet the same sessions in the same environment.
    """
    check_same_sessions(a, b)
    return [
        difference(
            users,
            mode,
            a.returns[mode, users],
            b.returns[mode, users],
            a.sessions[f"users/{users}"],
        )
        for users in GROUPS
        for mode in (GREEDY, SAMPLED)
        if (mode, users) in a.returns and (mode, users) in b.returns
    ]


def check_same_sessions(a: Returns, b: Returns, purpose: str = "be compared") -> None:
    """Check that two runs were evaluated on the same sessions in the same environment.

    Args:
        a, b: their returns.
        purpose: what cannot be done otherwise, for the error line.

    Raises:
        InputError: they differ; the line says in what.
    """
    both = f"{a.run} and {b.run} cannot {purpose}"
    advice = {
        "dataset_digest": "they use different builds of a dataset; train both on one build",
        "evaluation_seed": "their evaluation seeds are {} and {}; use one --evaluation-seed",
    }
    for name, text in advice.items():
        if a.identity[name] != b.identity[name]:
            raise InputError(f"{both}: {text.format(a.identity[name], b.identity[name])}")
    differing = [
        f"{name} ({a.environment.get(name)} and {b.environment.get(name)})"
        for name in sorted(a.environment.keys() | b.environment.keys())
        if a.environment.get(name) != b.environment.get(name)
    ]
    if differing:
        raise InputError(f"{both}: their environments differ in {', '.join(differing)}")
    if a.sessions.keys() != b.sessions.keys() or any(
        not np.array_equal(value, b.sessions[name]) for name, value in a.sessions.items()
    ):
        raise InputError(f"{both}: their fixed sessions differ; evaluate both with one version")
    if not a.returns.keys() & b.returns.keys():
        raise InputError(f"{both}: they have no mode and group of users in common")


def difference(
    users: str, mode: str, a: np.ndarray, b: np.ndarray, session_users: np.ndarray
) -> Difference:
    """The difference of two runs on the same sessions.

    Args:
        users, mode: as in `Difference`.
        a: float[seeds of A, M], returns of A.
        b: float[seeds of B, M], returns of B.
        session_users: int[M], the user of each session.
    """
    over_seeds = min(len(a), len(b)) > 1
    if over_seeds:
        low, high = welch_interval(a.mean(axis=1, dtype=float), b.mean(axis=1, dtype=float))
    else:
        paired = a.mean(axis=0, dtype=float, keepdims=True) - b.mean(axis=0, dtype=float)
        low, high = mean_interval(paired, session_users)
    of_a, of_b = a[:, None], b[None]  # [seeds of A, seeds of B, M] together
    a_rwd, b_rwd = float(a.mean(dtype=float)), float(b.mean(dtype=float))
    return Difference(
        users=users,
        mode=mode,
        a_rwd=a_rwd,
        b_rwd=b_rwd,
        difference=a_rwd - b_rwd,
        low=low,
        high=high,
        a_wins=float(np.mean(of_a > of_b)),
        ties=float(np.mean(of_a == of_b)),
        b_wins=float(np.mean(of_a < of_b)),
        interval_over="seeds" if over_seeds else "users",
        sessions=a.shape[1],
    )


def format_comparison(a: Returns, b: Returns, differences: Sequence[Difference]) -> str:
    """The comparison as text for a terminal."""
    runs = [
        f"{name}: {run.run} ({run.policy}, {run.seeds} seed{'s' * (run.seeds > 1)})"
        for name, run in (("A", a), ("B", b))
    ]
    header = (
        "users", "mode", "sessions", "A", "B", "A - B", "95 % interval", "A ahead", "equal", "B ahead",
    )  # fmt: skip
    rows = [
        (
            row.users,
            row.mode,
            f"{row.sessions:,d}",
            f"{row.a_rwd:.2f}",
            f"{row.b_rwd:.2f}",
            f"{row.difference:+.2f}",
            format_interval(row.low, row.high, sign="+"),
            f"{row.a_wins:.1%}",
            f"{row.ties:.1%}",
            f"{row.b_wins:.1%}",
        )
        for row in differences
    ]
    table = format_table(header, rows, left=(0, 1))
    verdicts = [row.verdict for row in differences]
    return "\n".join([*runs, "", table, "", *verdicts, _explanation(differences)])


def _explanation(differences: Sequence[Difference]) -> str:
    """What the intervals of a comparison are about."""
    if all(row.interval_over == "seeds" for row in differences):
        return "The intervals are Welch's, over the mean returns of training seeds on the same sessions."
    return (
        "The intervals are paired, over users, for these trained policies only. To learn whether another training "
        "would give the same result, train both runs with several --seeds."
    )
