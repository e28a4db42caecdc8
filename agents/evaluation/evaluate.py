"""What policies earn on fixed sessions, beside the baselines: the rows of the table, and warnings."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from agents.algorithms.policy import EvaluatedPolicy, Simulator
from agents.evaluation.baselines import baselines
from agents.evaluation.intervals import mean_interval
from agents.evaluation.returns import BASELINE, GREEDY, GROUPS, SAMPLED, save_returns
from agents.evaluation.sessions import FixedSessions, Outcome, fixed_sessions, run_sessions
from agents.evaluation.table import Row, format_rows
from agents.evaluation.visits import visit_statistics
from jaxsim import Dataset, EnvParams

# The paper reports T.Rwd without a definition; in its tables it is 10 to 14 times A.Rwd.
TOTAL_REWARD_FACTOR = 12.0
REPEAT_WARNING_SHARE = 0.5
DISTINCT_WARNING_ITEMS = 10
SATURATION_WARNING_SHARE = 0.9
_MOST_RUNS = 8  # policies that run at once on a CPU; each has sessions of its own in memory

PolicyKey = tuple[str, str]  # name and mode
Cost = tuple[
    int, float
]  # environment steps of one training seed, and seconds of training all seeds


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        rows: one per policy, mode and group of users.
        warnings: sentences that say why the rows may look better than they are; often none.
        returns: "policy/mode/users" to the undiscounted return of each session, float32[seeds, M]; baselines
            have mode "baseline" and one seed.
        sessions: "sessions/users/GROUP" and "sessions/durations/GROUP" to the user and the number of steps of each
            of the M sessions of a group, int32[M].
    """

    rows: list[Row]
    warnings: list[str]
    returns: dict[str, np.ndarray]
    sessions: dict[str, np.ndarray]

    def report(self) -> str:
        """The table, the paired differences and the warnings, as text for a terminal."""
        warnings = [f"warning: {line}" for line in self.warnings]
        return "\n".join([format_rows(self.rows), *([""] if warnings else []), *warnings])

    def save_returns(
        self,
        path: Path,
        dataset_digest: str,
        evaluation_seed: int,
        environment: Mapping[str, Any],
    ) -> None:
        """Write returns and sessions; the arguments are those of `agents.evaluation.returns.save_returns`."""
        tensors = {**self.returns, **self.sessions}
        save_returns(path, tensors, dataset_digest, evaluation_seed, environment)


def evaluate(
    dataset: Dataset,
    env: Simulator,
    params: EnvParams,
    learned: Mapping[str, Sequence[EvaluatedPolicy]],
    key: jax.Array,
    cost: Mapping[str, Cost] | None = None,
    sampled: Mapping[str, Sequence[EvaluatedPolicy]] | None = None,
) -> Evaluation:
    """Evaluate every baseline and learned policy on the sessions of train and of held-out users.

    Args:
        dataset: the dataset of the environment.
        env, params: from `jaxsim.make(dataset, users="train")`.
        learned: name to the greedy policies of its training seeds.
        key: PRNG key of the fixed sessions.
        cost: name of a learned policy to the environment steps of one seed, and the seconds of training.
        sampled: name to the stochastic policies of the same seeds.

    Returns:
        A row per policy, mode and group of users that is not empty; warnings; and the return of each session.
    """
    print("ranking items for the baselines ...", flush=True)
    policies: dict[PolicyKey, Sequence[EvaluatedPolicy]] = {
        **{(name, GREEDY): seeds for name, seeds in learned.items()},
        **{(name, SAMPLED): seeds for name, seeds in (sampled or {}).items()},
        **{(name, BASELINE): [policy] for name, policy in baselines(dataset, env, params).items()},
    }
    groups = {group: dataset.session_users(group) for group in GROUPS}
    sessions = {
        group: fixed_sessions(key, env, params.replace(session_users=jnp.asarray(users)))
        for group, users in groups.items()
        if len(users)
    }
    outcomes = _run_policies(env, params, policies, sessions)
    rows: list[Row] = []
    for group, by_policy in outcomes.items():
        rows += _rows(group, by_policy, sessions[group], cost or {})
    return Evaluation(
        rows=rows,
        warnings=find_warnings(outcomes),
        returns={
            f"{name}/{mode}/{group}": _returns(seeds)
            for group, by_policy in outcomes.items()
            for (name, mode), seeds in by_policy.items()
        },
        sessions={
            f"sessions/{field}/{group}": np.asarray(getattr(sessions[group], field))
            for group in sessions
            for field in ("users", "durations")
        },
    )


def _run_policies(
    env: Simulator,
    params: EnvParams,
    policies: Mapping[PolicyKey, Sequence[EvaluatedPolicy]],
    sessions: Mapping[str, FixedSessions],
) -> dict[str, dict[PolicyKey, list[Outcome]]]:
    """Group of users to (policy, mode) to the outcomes of its seeds."""
    runs = len(sessions) * sum(map(len, policies.values()))
    print(f"evaluating {len(policies)} policies, {runs} runs on fixed sessions ...", flush=True)
    outcomes: dict[str, dict[PolicyKey, list[Outcome]]] = {}
    with (
        tqdm(total=runs, desc="evaluate", unit="run", disable=None, delay=1) as progress,
        ThreadPoolExecutor(_runs_at_once()) as pool,
    ):

        def run(policy: EvaluatedPolicy, of_group: FixedSessions) -> Outcome:
            outcome = run_sessions(env, params, policy, of_group)
            progress.update()
            return outcome

        started = {
            group: {
                key: [pool.submit(run, policy, of_group) for policy in seeds]
                for key, seeds in policies.items()
            }
            for group, of_group in sessions.items()
        }
        try:
            for group, by_policy in started.items():
                outcomes[group] = {key: [x.result() for x in xs] for key, xs in by_policy.items()}
        except BaseException:  # also Ctrl-C: what has not begun is left out
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcomes


def _runs_at_once() -> int:
    """How many policies run at once: on a CPU a run uses little more than one core."""
    return min(os.cpu_count() or 1, _MOST_RUNS) if jax.default_backend() == "cpu" else 1


def _returns(seeds: Sequence[Outcome]) -> np.ndarray:
    """Returns of each seed and session, float32[seeds, M]."""
    return np.stack([outcome.returns for outcome in seeds])


def _likes(seeds: Sequence[Outcome]) -> np.ndarray:
    """Likes of each seed and session, float32[seeds, M]."""
    return np.stack([outcome.likes for outcome in seeds])


# ---- rows --------------------------------------------------------------------------------------------------


def _rows(
    group: str,
    outcomes: Mapping[PolicyKey, Sequence[Outcome]],
    sessions: FixedSessions,
    cost: Mapping[str, Cost],
) -> list[Row]:
    """The rows of one group of users, from the outcomes of its sessions."""
    users = np.asarray(sessions.users)
    returns = {policy: _returns(seeds) for policy, seeds in outcomes.items()}
    random = float(returns["random", BASELINE].mean())
    static, oracle = (float(returns[name, BASELINE].mean()) for name in ("static_best", "oracle"))
    rows = []
    for (name, mode), seeds in outcomes.items():
        own = returns[name, mode]
        mean = float(own.mean())
        low, high = mean_interval(own, users)
        paired = {
            other: mean_interval(own - returns[other, BASELINE], users)
            for other in ("like_rate", "random", "popular", "static_best", "oracle")
        }
        over_static = (own - returns["static_best", BASELINE]).mean(axis=0, keepdims=True)
        users_low, users_high = mean_interval(over_static, users)
        steps, seconds = cost.get(name, (0, 0.0)) if mode != BASELINE else (0, 0.0)
        rows.append(
            Row(
                policy=name,
                mode=mode,
                users=group,
                seeds=len(seeds),
                like_rate=float(_likes(seeds).mean()) / _mean_steps(sessions, seeds),
                a_rwd=mean,
                a_rwd_low=low,
                a_rwd_high=high,
                paired_low=paired["like_rate"][0],
                paired_high=paired["like_rate"][1],
                paired_random_low=paired["random"][0],
                paired_random_high=paired["random"][1],
                paired_popular_low=paired["popular"][0],
                paired_popular_high=paired["popular"][1],
                paired_static_best_low=paired["static_best"][0],
                paired_static_best_high=paired["static_best"][1],
                paired_oracle_low=paired["oracle"][0],
                paired_oracle_high=paired["oracle"][1],
                users_static_best_low=users_low,
                users_static_best_high=users_high,
                share_of_oracle=_share(mean, random, oracle),
                share_past_static_best=_share(mean, static, oracle),
                t_rwd=TOTAL_REWARD_FACTOR * mean,
                **_item_statistics(seeds),
                steps=steps,
                seconds=seconds,
                visits=visit_statistics([outcome.visits for outcome in seeds]),
            )
        )
    return rows


def _mean_steps(sessions: FixedSessions, seeds: Sequence[Outcome]) -> float:
    """The mean number of steps of a session; it may depend on the policy."""
    steps = [outcome.steps for outcome in seeds if outcome.steps is not None]
    return float(np.mean(steps)) if steps else float(sessions.durations.mean())


def _share(value: float, start: float, end: float) -> float:
    """The share of the way from start to end; NaN if the end is not above the start."""
    return (value - start) / (end - start) if end > start else float("nan")


def _item_statistics(seeds: Sequence[Outcome]) -> dict[str, float]:
    """The fields of a row that depend on which items were recommended."""
    diversity = np.concatenate([o.diversity for o in seeds])
    has_diversity = ~np.isnan(diversity)  # some of the items have keywords
    likes = float(_likes(seeds).sum())
    repeated = float(np.sum([o.repeated for o in seeds]))
    return {
        "liking": 100 * float(np.mean([o.liking for o in seeds])),
        "coverage": float((np.stack([o.recommended for o in seeds]) > 0).mean()),
        "diversity": float(diversity[has_diversity].mean()) if has_diversity.any() else np.nan,
        "repeat_share": repeated / likes if likes > 0 else 0.0,
    }


# ---- warnings ----------------------------------------------------------------------------------------------


def find_warnings(outcomes: Mapping[str, Mapping[PolicyKey, Sequence[Outcome]]]) -> list[str]:
    """Sentences about results that look better than they are.

    There is a warning for a learned policy if more than half of its likes are for items that the window already
    held, or if one of its seeds recommends fewer than 10 distinct items in all its sessions (or fewer than all
    items of a smaller catalogue); and for a group of users if random earns more than 90 % of what the oracle
    earns.

    Args:
        outcomes: group of users to (policy, mode) to the outcomes of its seeds.
    """
    lines = []
    for name, mode in next(iter(outcomes.values()), {}):
        if mode == BASELINE:
            continue
        groups = [by_policy[name, mode] for by_policy in outcomes.values()]
        lines += _repeat_warning(f"{name} ({mode})", [run for seeds in groups for run in seeds])
        lines += _distinct_warning(f"{name} ({mode})", groups)
    for group, by_policy in outcomes.items():
        lines += _saturation_warning(group, by_policy)
    return lines


def _repeat_warning(policy: str, runs: Iterable[Outcome]) -> list[str]:
    runs = list(runs)
    likes = sum(float(run.likes.sum()) for run in runs)
    repeated = sum(float(run.repeated.sum()) for run in runs)
    if not repeated > REPEAT_WARNING_SHARE * likes:
        return []
    return [
        f"{policy} earns mostly from repeats: {repeated:,.0f} of its {likes:,.0f} likes ({repeated / likes:.1%}) "
        "are for items that the user's window already held."
    ]


def _distinct_warning(policy: str, groups: Sequence[Sequence[Outcome]]) -> list[str]:
    """A warning from the outcomes of a policy by group and seed."""
    # int[groups, seeds, N]: an item counts for a seed if it was recommended in any group.
    counts = np.array([[run.recommended for run in seeds] for seeds in groups]).sum(axis=0)
    distinct = (counts > 0).sum(axis=1)
    num_seeds, num_items = counts.shape
    enough = min(DISTINCT_WARNING_ITEMS, num_items)
    num_poor = int((distinct < enough).sum())
    if not num_poor:
        return []
    sessions = sum(len(seeds[0].returns) for seeds in groups)
    others = (
        f" This is the worst seed; {num_poor} of {num_seeds} seeds recommend fewer than {enough} items."
        if num_seeds > 1
        else ""
    )
    return [
        f"{policy} recommends only {distinct.min()} distinct items of {num_items:,} in all its "
        f"{sessions:,} sessions.{others}"
    ]


def _saturation_warning(group: str, outcomes: Mapping[PolicyKey, Sequence[Outcome]]) -> list[str]:
    random, oracle = (_returns(outcomes[name, BASELINE]).mean() for name in ("random", "oracle"))
    if not random > SATURATION_WARNING_SHARE * oracle:
        return []
    return [
        f"the task is saturated for {group} users: random earns {random:.2f}, which is {random / oracle:.1%} of "
        f"the oracle's {oracle:.2f}. Policies can hardly differ."
    ]
