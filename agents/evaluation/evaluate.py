"""What policies earn on fixed sessions, beside honest baselines: the table, its intervals and its warnings."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save
from scipy import stats
from tqdm import tqdm

from agents.evaluation.baselines import EvaluatedPolicy, baselines
from agents.evaluation.sessions import Outcome, fixed_sessions, run_sessions
from jaxsim import Dataset, EnvParams, UserSimulator
from jaxsim.files import write_bytes

TOTAL_REWARD_FACTOR = (
    12.0  # the paper reports T.Rwd without defining it; its tables have T / A of 10 to 14
)
CONFIDENCE = 0.95
GREEDY, SAMPLED, BASELINE = "greedy", "sampled", "baseline"
REPEAT_WARNING_SHARE = 0.5
DISTINCT_WARNING_ITEMS = 10
SATURATION_WARNING_SHARE = 0.9
RETURNS_VERSION = 1

PolicyKey = tuple[str, str]  # name and mode


@dataclass(frozen=True)
class Row:
    """One line of the table: one policy, in one mode, on one group of users."""

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
    share_of_oracle: float
    t_rwd: float
    liking: float
    coverage: float
    diversity: float
    repeat_share: float
    steps: int
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        rows: one a policy, mode and group of users.
        warnings: what must be known before the rows are believed, a line each; often none.
        returns: "policy/mode/users" to the undiscounted return of each session, float32[seeds, M]; baselines
            have mode "baseline" and one row.
        sessions: "sessions/users/GROUP" and "sessions/durations/GROUP" to the user and the steps of each of the
            M sessions of a group, int32[M].
    """

    rows: list[Row]
    warnings: list[str]
    returns: dict[str, np.ndarray]
    sessions: dict[str, np.ndarray]

    def report(self) -> str:
        """The table, the paired differences and the warnings, as text for a terminal."""
        warnings = [f"warning: {line}" for line in self.warnings]
        return "\n".join([format_table(self.rows), *([""] if warnings else []), *warnings])

    def save_returns(
        self,
        path: Path,
        dataset_digest: str,
        evaluation_seed: int,
        environment: Mapping[str, Any],
    ) -> None:
        """Write returns and sessions as safetensors, whole or not at all, for `agents.evaluation.comparison`.

        Args:
            path: the file.
            dataset_digest: identifies the build of the dataset.
            evaluation_seed: of the fixed sessions.
            environment: static settings of the environment, plain values.
        """
        metadata = {
            "returns_version": str(RETURNS_VERSION),
            "dataset_digest": dataset_digest,
            "evaluation_seed": str(evaluation_seed),
            "environment": json.dumps(dict(environment), sort_keys=True),
        }
        write_bytes(path, save({**self.returns, **self.sessions}, metadata))


def evaluate(
    dataset: Dataset,
    env: UserSimulator,
    params: EnvParams,
    learned: Mapping[str, Sequence[EvaluatedPolicy]],
    key: jax.Array,
    cost: Mapping[str, tuple[int, float]] | None = None,
    sampled: Mapping[str, Sequence[EvaluatedPolicy]] | None = None,
) -> Evaluation:
    """Every baseline and learned policy, on the sessions of train and of held-out users.

    Args:
        dataset: where the environment came from.
        env, params: of `jaxsim.make(dataset, users="train")`.
        learned: name to the greedy policies of its training seeds.
        key: PRNG key of the fixed sessions.
        cost: name of a learned policy to its environment steps of a seed, and seconds of training.
        sampled: name to the stochastic policies of the same seeds.

    Returns:
        One row a policy, mode and group of users that has any user; warnings; and the return of each session.
    """
    print("ranking items for the baselines ...", flush=True)
    policies: dict[PolicyKey, Sequence[EvaluatedPolicy]] = {
        **{(name, GREEDY): seeds for name, seeds in learned.items()},
        **{(name, SAMPLED): seeds for name, seeds in (sampled or {}).items()},
        **{(name, BASELINE): [one] for name, one in baselines(dataset, env, params).items()},
    }
    groups = {group: dataset.session_users(group) for group in ("train", "held_out")}
    groups = {group: users for group, users in groups.items() if len(users)}
    runs = len(groups) * sum(map(len, policies.values()))
    print(f"evaluating {len(policies)} policies, {runs} runs on fixed sessions ...", flush=True)
    rows: list[Row] = []
    returns: dict[str, np.ndarray] = {}
    met: dict[str, np.ndarray] = {}
    outcomes: dict[str, dict[PolicyKey, list[Outcome]]] = {}
    with tqdm(total=runs, desc="evaluate", unit="run", disable=None, delay=1) as progress:
        for group, users in groups.items():
            sessions = fixed_sessions(key, env, params.replace(session_users=jnp.asarray(users)))
            found: dict[PolicyKey, list[Outcome]] = {}
            for (name, mode), seeds in policies.items():
                progress.set_postfix_str(f"{name}, {mode}, {group} users")
                found[name, mode] = []
                for policy in seeds:
                    found[name, mode].append(run_sessions(env, params, policy, sessions))
                    progress.update()
            rows += _rows(group, found, float(sessions.durations.mean()), cost or {})
            returns |= {f"{name}/{mode}/{group}": _returns(o) for (name, mode), o in found.items()}
            met[f"sessions/users/{group}"] = np.asarray(sessions.users)
            met[f"sessions/durations/{group}"] = np.asarray(sessions.durations)
            outcomes[group] = found
    return Evaluation(rows, find_warnings(outcomes), returns, met)


def _returns(seeds: list[Outcome]) -> np.ndarray:
    return np.stack([outcome.returns for outcome in seeds])


def find_warnings(outcomes: Mapping[str, Mapping[PolicyKey, list[Outcome]]]) -> list[str]:
    """What makes figures look better than they are, a line each.

    Warned of are a learned policy more than half of whose likes come from items that the window already held, one
    of whose seeds recommends fewer than 10 distinct items in all its sessions (or fewer than all of a smaller
    catalogue), and a group of users where random earns more than 90 % of what the oracle does.

    Args:
        outcomes: group of users to (policy, mode) to the outcomes of its seeds.
    """
    lines = []
    for name, mode in next(iter(outcomes.values()), {}):
        if mode == BASELINE:
            continue
        groups = [found[name, mode] for found in outcomes.values()]
        lines += _repeat_warning(f"{name} ({mode})", [run for seeds in groups for run in seeds])
        lines += _distinct_warning(f"{name} ({mode})", groups)
    for group, found in outcomes.items():
        lines += _saturation_warning(group, found)
    return lines


def _repeat_warning(policy: str, runs: Iterable[Outcome]) -> list[str]:
    runs = list(runs)
    likes = sum(float(run.returns.sum()) for run in runs)
    repeated = sum(float(run.repeated.sum()) for run in runs)
    if not repeated > REPEAT_WARNING_SHARE * likes:
        return []
    return [
        f"{policy} earns mostly from repeats: {repeated:,.0f} of its {likes:,.0f} likes ({repeated / likes:.1%}) "
        "are for items that the user's window already held"
    ]


def _distinct_warning(policy: str, groups: Sequence[Sequence[Outcome]]) -> list[str]:
    """Of a policy's outcomes by group and seed."""
    # Groups by seeds by items: an item counts for a seed if any group was recommended it.
    counts = np.array([[run.recommended for run in seeds] for seeds in groups]).sum(axis=0)
    distinct = (counts > 0).sum(axis=1)
    few = distinct < min(DISTINCT_WARNING_ITEMS, counts.shape[1])
    if not few.any():
        return []
    sessions = sum(len(seeds[0].returns) for seeds in groups)
    which = f" ({few.sum()} of {len(few)} seeds; the fewest)" if len(few) > 1 else ""
    return [
        f"{policy} recommends only {distinct.min()} distinct items of {counts.shape[1]:,} in all its "
        f"{sessions:,} sessions{which}"
    ]


def _saturation_warning(group: str, found: Mapping[PolicyKey, list[Outcome]]) -> list[str]:
    random, oracle = (_returns(found[name, BASELINE]).mean() for name in ("random", "oracle"))
    if not random > SATURATION_WARNING_SHARE * oracle:
        return []
    return [
        f"the task is saturated: on {group} users random earns {random:.2f}, {random / oracle:.1%} of the "
        f"oracle's {oracle:.2f}, so that policies can hardly differ"
    ]


def _rows(
    group: str,
    outcomes: Mapping[PolicyKey, list[Outcome]],
    mean_duration: float,
    cost: Mapping[str, tuple[int, float]],
) -> list[Row]:
    """The rows of one group of users, whose sessions last `mean_duration` steps."""
    rewards = {policy: _returns(seeds) for policy, seeds in outcomes.items()}
    random = float(rewards["random", BASELINE].mean())
    gap = float(rewards["oracle", BASELINE].mean()) - random
    others = [rewards[other, BASELINE] for other in ("like_rate", "random", "popular")]
    rows = []
    for (name, mode), seeds in outcomes.items():
        own = rewards[name, mode]
        mean = float(own.mean())
        low, high = interval(own)
        paired = [interval(own - other) for other in others]
        steps, seconds = cost.get(name, (0, 0.0)) if mode != BASELINE else (0, 0.0)
        counts = np.stack([o.recommended for o in seeds])
        rows.append(
            Row(
                policy=name,
                mode=mode,
                users=group,
                seeds=len(seeds),
                like_rate=mean / mean_duration,
                a_rwd=mean,
                a_rwd_low=low,
                a_rwd_high=high,
                paired_low=paired[0][0],
                paired_high=paired[0][1],
                paired_random_low=paired[1][0],
                paired_random_high=paired[1][1],
                paired_popular_low=paired[2][0],
                paired_popular_high=paired[2][1],
                share_of_oracle=(mean - random) / gap if gap > 0 else float("nan"),
                t_rwd=TOTAL_REWARD_FACTOR * mean,
                liking=100 * float(np.mean([o.liking for o in seeds])),
                coverage=float((counts > 0).mean()),
                diversity=_known_mean([o.diversity for o in seeds]),
                repeat_share=_share([o.repeated for o in seeds], own),
                steps=steps,
                seconds=seconds,
            )
        )
    return rows


def _known_mean(values: Sequence[np.ndarray]) -> float:
    """Mean of the values that are not NaN; NaN if all are."""
    known = np.concatenate(values)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def _share(part: Sequence[np.ndarray], whole: np.ndarray) -> float:
    """Sum of the part in that of the whole; 0 of nothing."""
    total = float(whole.sum())
    return float(np.sum(part)) / total if total > 0 else 0.0


def interval(values: np.ndarray) -> tuple[float, float]:
    """Student-t interval of the mean: over seeds where there are several, otherwise over sessions.

    Args:
        values: float[seeds, M].
    """
    sample = values.mean(axis=1) if len(values) > 1 else values[0]
    spread = stats.sem(sample)
    if not spread > 0:  # all equal, as a policy less itself is
        return float(sample.mean()), float(sample.mean())
    low, high = stats.t.interval(CONFIDENCE, len(sample) - 1, sample.mean(), spread)
    return float(low), float(high)


def format_table(rows: list[Row]) -> str:
    """The rows as a Markdown table that also reads well in a terminal, and the paired differences."""
    lines = [
        "| policy | mode | users | A.Rwd (95 % interval) | over like_rate | to oracle | like rate | T.Rwd | "
        "Liking% | coverage | diversity |",
        "|" + "---|" * 11,
    ]
    for row in sorted(rows, key=lambda r: (r.users != "train", -r.a_rwd)):
        name = f"{row.policy} ({row.seeds} seeds)" if row.seeds > 1 else row.policy
        mode = "" if row.mode == BASELINE else row.mode
        lines.append(
            f"| {name} | {mode} | {row.users} | {row.a_rwd:.2f} ({row.a_rwd_low:.2f} to {row.a_rwd_high:.2f}) | "
            f"{row.paired_low:+.2f} to {row.paired_high:+.2f} | {row.share_of_oracle:.1%} | "
            f"{row.like_rate:.3f} | {row.t_rwd:.1f} | "
            f"{row.liking:.1f} | {row.coverage:.1%} | {row.diversity:.2f} |"
        )
    return "\n".join([_aligned(lines), "", *_paired_lines(rows)])


def _paired_lines(rows: list[Row]) -> list[str]:
    """What each learned policy earns over the baselines on the same sessions, a line a mode and group of users."""
    return [
        f"{row.policy} ({row.mode}) on {row.users} users earns more than random by {row.paired_random_low:.2f} to "
        f"{row.paired_random_high:.2f}, than popular by {row.paired_popular_low:.2f} to "
        f"{row.paired_popular_high:.2f}, than like_rate by {row.paired_low:.2f} to {row.paired_high:.2f}"
        for row in rows
        if row.mode != BASELINE
    ]


def _aligned(lines: list[str]) -> str:
    cells = [line.strip("|").split("|") for line in lines]
    cells = [[cell.strip() for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    cells[1] = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    )


def to_json(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as plain dictionaries; a number that is not finite becomes None."""
    return [
        {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(row).items()
        }
        for row in rows
    ]
