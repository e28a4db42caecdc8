"""Two runs compared on the same fixed sessions, from the returns that their evaluations left.

The difference is that of the mean return. Which interval it gets depends on what there is to generalise over:

- Both runs have several seeds: their trainings are independent, so seeds are not paired. Each seed's mean over the
  sessions is one observation, and the interval is Welch's for two samples of unequal variance.
- One of them has a single seed: the interval is Student's t over sessions of the paired difference, each run's
  return averaged over its seeds. It holds for these trained policies; another training may differ by more.
"""

import json as json_format
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from safetensors import SafetensorError, safe_open
from scipy import stats

from agents.evaluation.evaluate import (
    BASELINE,
    CONFIDENCE,
    GREEDY,
    RETURNS_VERSION,
    SAMPLED,
    interval,
)
from jaxsim import InputError
from jaxsim.files import check_writable, write_text

RETURNS_FILE = "returns.safetensors"
GROUPS = ("train", "held_out")


@dataclass(frozen=True)
class Returns:
    """What an evaluation left of one run.

    Attributes:
        run: its folder.
        policy: name of the learned policy.
        identity: what must agree between runs that are compared, in words, to its value.
        environment: static settings of the environment.
        returns: (mode, users) to float32[seeds, M].
        sessions: "users/GROUP" and "durations/GROUP" to int32[M].
    """

    run: Path
    policy: str
    identity: dict[str, str]
    environment: dict[str, Any]
    returns: dict[tuple[str, str], np.ndarray]
    sessions: dict[str, np.ndarray]

    @property
    def seeds(self) -> int:
        """Training seeds of the run."""
        return len(next(iter(self.returns.values())))


@dataclass(frozen=True)
class Difference:
    """Runs A and B on one group of users, in one mode.

    Attributes:
        users, mode: which.
        a_rwd, b_rwd: mean undiscounted returns.
        difference, low, high: of A less B, and its 95 % interval.
        a_wins, ties, b_wins: shares of (session, seed of A, seed of B) in which either earns more.
        interval_over: "seeds" or "sessions".
        sessions: M.
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
        """What the interval shows, in plain words."""
        where = f"{self.mode}, {self.users} users"
        if self.low <= 0 <= self.high:
            reason = "they earn the same" if self.low == self.high else "the interval holds zero"
            return f"{where}: no difference is shown, {reason}"
        better, other = ("A", "B") if self.difference > 0 else ("B", "A")
        small, large = sorted((abs(self.low), abs(self.high)))
        return f"{where}: {better} earns more than {other}, by {small:.2f} to {large:.2f} likes a session"


def compare_runs(
    a: Annotated[Path, tyro.conf.Positional],
    b: Annotated[Path, tyro.conf.Positional],
    json: Path | None = None,
) -> None:
    """Compare two runs on the same sessions: which earns more, and whether that is more than chance.

    Args:
        a: a run folder.
        b: another, evaluated on the same dataset, environment and evaluation seed.
        json: also write the result here.
    """
    if json is not None:
        check_writable(json)
        if json.is_dir():
            raise InputError(f"--json {json}: is a folder; give a file")
    first, second = load_returns(a), load_returns(b)
    differences = compare(first, second)
    print(format_comparison(first, second, differences))
    if json is not None:
        content = {
            **{
                name: {"run": str(one.run), "policy": one.policy, "seeds": one.seeds}
                for name, one in (("a", first), ("b", second))
            },
            **first.identity,
            "rows": [{**asdict(one), "verdict": one.verdict} for one in differences],
        }
        write_text(json, json_format.dumps(content, indent=2) + "\n")


# ---- reading -----------------------------------------------------------------------------------------------


def load_returns(run: Path) -> Returns:
    """Read a run folder's returns.safetensors.

    Raises:
        InputError: it is missing, damaged, of another version, or not of one learned policy.
    """
    path = run / RETURNS_FILE
    if not path.is_file():
        raise InputError(
            f"{run}: has no {RETURNS_FILE}; give a run folder, evaluated by `python -m agents evaluate {run}`"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version = metadata["returns_version"]
        identity = {name: metadata[name] for name in ("dataset_digest", "evaluation_seed")}
        environment = dict(json_format.loads(metadata["environment"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _unreadable(path, run, f"{type(error).__name__}: {error}") from None
    if version != str(RETURNS_VERSION):
        raise _unreadable(path, run, f"version {version}, but this jaxsim reads {RETURNS_VERSION}")
    sessions = {
        name.removeprefix("sessions/"): value
        for name, value in tensors.items()
        if name.startswith("sessions/")
    }
    learned = dict(_learned(tensors))
    names = sorted({name for name, _, _ in learned})
    if len(names) != 1:
        raise _unreadable(path, run, f"learned policies {names}, but one is needed")
    returns = {(mode, users): value for (_, mode, users), value in learned.items()}
    result = Returns(run, names[0], identity, environment, returns, sessions)
    _check_shapes(path, result)
    return result


def _learned(
    tensors: Mapping[str, np.ndarray],
) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
    """(policy, mode, users) and returns of the learned policies."""
    for key, value in tensors.items():
        parts = tuple(key.rsplit("/", 2))
        if len(parts) == 3 and parts[0] != "sessions" and parts[1] != BASELINE:
            yield (parts[0], parts[1], parts[2]), value


def _check_shapes(path: Path, found: Returns) -> None:
    for (mode, users), value in found.returns.items():
        shapes = [found.sessions.get(f"{name}/{users}") for name in ("users", "durations")]
        fits = value.ndim == 2 and len(value) == found.seeds > 0
        if not fits or any(one is None or one.shape != value.shape[1:] for one in shapes):
            raise _unreadable(path, found.run, f"{mode}/{users} does not fit its sessions")


def _unreadable(path: Path, run: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: cannot be read ({reason}); write it anew with `python -m agents evaluate {run}`"
    )


# ---- comparing ---------------------------------------------------------------------------------------------


def compare(a: Returns, b: Returns) -> list[Difference]:
    """A row for each group of users and mode that both have.

    Raises:
        InputError: they did not meet the same sessions in the same environment.
    """
    _check_comparable(a, b)
    return [
        difference(users, mode, a.returns[mode, users], b.returns[mode, users])
        for users in GROUPS
        for mode in (GREEDY, SAMPLED)
        if (mode, users) in a.returns and (mode, users) in b.returns
    ]


def _check_comparable(a: Returns, b: Returns) -> None:
    both = f"{a.run} and {b.run} cannot be compared"
    advice = {
        "dataset_digest": "they are on different builds of a dataset; train both on one build",
        "evaluation_seed": "their evaluation seeds are {} and {}; use one --evaluation-seed",
    }
    for name, text in advice.items():
        ours, theirs = a.identity[name], b.identity[name]
        if ours != theirs:
            raise InputError(f"{both}: {text.format(ours, theirs)}")
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
        raise InputError(f"{both}: none of their policies has the mode of the other's")


def difference(users: str, mode: str, a: np.ndarray, b: np.ndarray) -> Difference:
    """Of returns float[seeds of A, M] and float[seeds of B, M] on the same sessions."""
    over_seeds = min(len(a), len(b)) > 1
    if over_seeds:
        low, high = welch_interval(a.mean(axis=1, dtype=float), b.mean(axis=1, dtype=float))
    else:
        low, high = interval(
            a.mean(axis=0, dtype=float, keepdims=True) - b.mean(axis=0, dtype=float)
        )
    pairs = [(one, other) for one in a for other in b]
    a_wins = float(np.mean([one > other for one, other in pairs]))
    b_wins = float(np.mean([one < other for one, other in pairs]))
    a_rwd, b_rwd = float(a.mean(dtype=float)), float(b.mean(dtype=float))
    return Difference(
        users=users,
        mode=mode,
        a_rwd=a_rwd,
        b_rwd=b_rwd,
        difference=a_rwd - b_rwd,
        low=low,
        high=high,
        a_wins=a_wins,
        ties=float(np.mean([one == other for one, other in pairs])),
        b_wins=b_wins,
        interval_over="seeds" if over_seeds else "sessions",
        sessions=a.shape[1],
    )


def welch_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Welch's interval of the difference of two means, of samples float[n] and float[m] with n, m > 1."""
    gap = float(a.mean() - b.mean())
    variances = [float(sample.var(ddof=1)) / len(sample) for sample in (a, b)]
    if sum(variances) == 0:  # all seeds alike: there is no spread to judge by
        return gap, gap
    freedom = sum(variances) ** 2 / sum(
        variance**2 / (len(sample) - 1) for variance, sample in zip(variances, (a, b), strict=True)
    )
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(sum(variances))
    return gap - half, gap + half


# ---- telling -----------------------------------------------------------------------------------------------


def format_comparison(a: Returns, b: Returns, differences: list[Difference]) -> str:
    """The comparison as text for a terminal."""
    lines = [
        *(
            f"{name}: {one.run} ({one.policy}, {one.seeds} seed{'s' * (one.seeds > 1)})"
            for name, one in (("A", a), ("B", b))
        ),
        "",
        f"{'users':10s}{'mode':9s}{'sessions':>9s}{'A':>8s}{'B':>8s}{'A - B':>8s}  {'95 % interval':18s}"
        f"{'A ahead':>9s}{'equal':>8s}{'B ahead':>9s}",
    ]
    for one in differences:
        lines.append(
            f"{one.users:10s}{one.mode:9s}{one.sessions:9,d}{one.a_rwd:8.2f}{one.b_rwd:8.2f}"
            f"{one.difference:+8.2f}  {f'{one.low:+.2f} to {one.high:+.2f}':18s}"
            f"{one.a_wins:9.1%}{one.ties:8.1%}{one.b_wins:9.1%}"
        )
    return "\n".join([*lines, "", *(one.verdict for one in differences), _basis(differences)])


def _basis(differences: list[Difference]) -> str:
    if all(one.interval_over == "seeds" for one in differences):
        return "intervals: Welch's, over the means of training seeds on the same sessions"
    return (
        "intervals: paired over sessions, for these trained policies alone; "
        "to learn whether training again would tell the same, give both runs several --seeds"
    )
