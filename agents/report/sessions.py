"""Sample sessions of a policy: some of the fixed sessions of its evaluation, played again step by step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from agents.evaluation.logs import log_sessions_of
from agents.evaluation.returns import GREEDY, GROUPS, Returns
from agents.evaluation.sessions import fixed_sessions
from agents.runs.experiment import PreparedRun


@dataclass(frozen=True)
class SampleSession:
    """One fixed session, as a policy and a user play it.

    Attributes:
        user: index of the user.
        group: "train" or "held_out".
        key: of its random draws.
        items, likes: int[H], the history that it starts with.
        steps: its rows of `agents.evaluation.logs.log_sessions_of`.
        recorded: what the evaluation of the run wrote down as its return; None if it did not.
    """

    user: int
    group: str
    key: jax.Array
    items: np.ndarray
    likes: np.ndarray
    steps: pd.DataFrame
    recorded: float | None

    @property
    def earned(self) -> float:
        """The return, as an evaluation counts it."""
        return float(self.steps["earned"].sum())

    @property
    def is_as_recorded(self) -> bool:
        """Whether the session earned what the evaluation wrote down."""
        return self.recorded is None or bool(np.isclose(self.earned, self.recorded, rtol=1e-3))


def choose_sessions(group_sizes: Sequence[int], count: int) -> list[np.ndarray]:
    """Which sessions of each group of users are shown.

    Args:
        group_sizes: number of fixed sessions of each group.
        count: of sessions to show, if there are as many.

    Returns:
        Rows int[n] of each group, spread evenly over its sessions. The groups share `count` equally, the first
        ones getting what is left over; a small group leaves its places to the others.
    """
    shares = [0] * len(group_sizes)
    while sum(shares) < min(count, sum(group_sizes)):
        open_groups = [n for n, size in enumerate(group_sizes) if shares[n] < size]
        shares[min(open_groups, key=lambda n: shares[n])] += 1
    return [np.arange(n) * size // max(n, 1) for n, size in zip(shares, group_sizes, strict=True)]


def sample_sessions(
    run: PreparedRun, policy: Any, returns: Returns, count: int
) -> list[SampleSession]:
    """Play some of the fixed sessions of the evaluation.

    Args:
        run: with its simulator.
        policy: an `EvaluatedPolicy`, the greedy one of the run's first seed.
        returns: what the evaluation of the run wrote down.
        count: number of sessions.
    """
    users = [run.dataset.session_users(group) for group in GROUPS]
    key = jax.random.key(run.config.evaluation_seed)
    fixed = {
        group: fixed_sessions(key, run.env, run.params.replace(session_users=jnp.asarray(of_group)))
        for group, of_group in zip(GROUPS, users, strict=True)
        if len(of_group)
    }
    rows = choose_sessions([len(sessions.users) for sessions in fixed.values()], count)
    samples = []
    for (group, sessions), of_group in zip(fixed.items(), rows, strict=True):
        if len(of_group) == 0:
            continue
        log = _play(run, policy, sessions.users[of_group], sessions.keys[of_group])
        for number, row in enumerate(of_group):
            steps = log[log["episode"] == number].head(int(sessions.durations[row]))
            user = int(sessions.users[row])
            items, likes = _history(run, user)
            recorded = _recorded(returns, group, int(row), user)
            samples.append(
                SampleSession(user, group, sessions.keys[row], items, likes, steps, recorded)
            )
    return samples


def _play(run: PreparedRun, policy: Any, users: jax.Array, keys: jax.Array) -> pd.DataFrame:
    """The log of sessions; those that have a fixed duration go on for as long as they may."""
    params = run.params
    if not run.env.visits:
        params = params.replace(departure_probability=jnp.float32(0.0))
    log = log_sessions_of(run.dataset, run.env, params, policy, users, keys)
    # Under "soft" the reward "like" is a probability, but an evaluation counts likes.
    return log.assign(earned=log["like"] if run.env.reward == "like" else log["reward"])


def _history(run: PreparedRun, user: int) -> tuple[np.ndarray, np.ndarray]:
    histories = run.params.histories
    items, likes = np.asarray(histories.items[user]), np.asarray(histories.likes[user])
    length = int(histories.length[user])
    return items[:length], likes[:length]


def _recorded(returns: Returns, group: str, row: int, user: int) -> float | None:
    """The return of the first seed in a session; None if the session was another one then."""
    of_seeds = returns.returns.get((GREEDY, group))
    users = returns.sessions.get(f"users/{group}")
    if of_seeds is None or users is None or row >= len(users) or users[row] != user:
        return None
    return float(of_seeds[0, row])
