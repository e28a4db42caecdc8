"""What planning with the departure earns over the one-step oracle, on the same sessions."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agents.algorithms.policy import EvaluatedPolicy
from agents.evaluation.baselines import RandomPolicy
from agents.evaluation.intervals import mean_interval
from agents.evaluation.oracle import Oracle
from agents.evaluation.planning import plan
from agents.evaluation.returns import GROUPS
from agents.evaluation.sessions import fixed_sessions, run_sessions
from agents.evaluation.visits import visit_statistics
from jaxsim import Dataset, EnvParams, Semantics, UserSimulator, make


def measure_planning(
    dataset: Dataset, semantics: Sequence[Semantics], repeats: int, seed: int
) -> list[dict[str, Any]]:
    """A row for each semantics, group of users and policy.

    Args:
        dataset: with a fitted departure.
        semantics: of the users.
        repeats: sessions of each user.
        seed: of the sessions.
    """
    rows = []
    for kind in semantics:
        env, params = make(dataset, semantics=kind, departure="fitted")
        policies: dict[str, EvaluatedPolicy] = {
            "random": RandomPolicy(),
            "oracle": Oracle(),
            "oracle_planning": plan(env, params),
        }
        rows += paired_rows(dataset, env, params, policies, repeats, seed)
    return rows


def paired_rows(
    dataset: Dataset,
    env: UserSimulator,
    params: EnvParams,
    policies: Mapping[str, EvaluatedPolicy],
    repeats: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for each group of users and policy, on the same sessions; where users return, with their lives.

    Args:
        dataset: whose users they are.
        env, params: of `jaxsim.make`; the end of a session depends on what is recommended.
        policies: by name; the others are compared with the "oracle".
        repeats: sessions of each user.
        seed: of the sessions.
    """
    rows = []
    for group in GROUPS:
        users = jnp.asarray(dataset.session_users(group))
        here = params.replace(session_users=users)
        sessions = fixed_sessions(jax.random.key(seed), env, here, repeats)
        outcomes = {}
        for name, policy in policies.items():
            outcomes[name] = run_sessions(env, params, policy, sessions)
            print(f"{env.semantics}, {group} users: {name} done", flush=True)
        owners = np.asarray(jnp.repeat(users, repeats))
        oracle = outcomes["oracle"].returns
        for name, outcome in outcomes.items():
            paired = (outcome.returns - oracle)[None]
            low, high = mean_interval(outcome.returns[None], owners)
            paired_low, paired_high = mean_interval(paired, owners)
            rows.append(
                {
                    "semantics": env.semantics,
                    "users": group,
                    "policy": name,
                    "sessions": len(outcome.returns),
                    "a_rwd": float(outcome.returns.mean()),
                    "a_rwd_low": low,
                    "a_rwd_high": high,
                    "over_oracle": float(paired.mean()),
                    "over_oracle_low": paired_low,
                    "over_oracle_high": paired_high,
                    "over_oracle_share": float(paired.mean() / oracle.mean()),
                    "steps": float(np.asarray(outcome.steps).mean()),
                    "cut": float((np.asarray(outcome.steps) == env.session_capacity).mean()),
                    **(visit_statistics([outcome.visits]) or {}),
                }
            )
    return rows
