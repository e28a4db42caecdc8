"""How well simulated values of policies agree with real ones, and how well real ones agree with themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.fidelity.bootstrap import Estimate, estimate
from benchmarks.validity.policies import Policy
from benchmarks.validity.ranking import against_truth, for_all_users, kendall, spearman
from benchmarks.validity.replay import Replay

REFERENCE = "item_rate"  # the simplest simulator, which knows nobody's taste


def judge(
    name: str, policies: Sequence[Policy], simulated: np.ndarray, real: np.ndarray
) -> dict[str, Any]:
    """How one simulator's values of P policies agree with the real ones.

    Args:
        name: of the simulator, or of anything else that gives values; only a simulator has a policy of its own.
        policies: P.
        simulated, real: replicates float64[1 + R, P].

    Returns:
        Estimates by name, and the names of policies; docs/validity.md defines each of them.
    """
    others = np.array([name not in policy.built_on for policy in policies])
    own = next((i for i, policy in enumerate(policies) if name in policy.greedy_on), None)
    rows = np.arange(len(real))
    best = simulated.argmax(axis=1)
    chosen = real[rows, best]
    return {
        "tau": estimate(kendall(simulated, real)),
        "tau_of_others": estimate(kendall(simulated[:, others], real[:, others])),
        "spearman": estimate(spearman(simulated, real)),
        "value_error": estimate(np.abs(simulated - real).mean(axis=1), centred=True),
        **({} if own is None else _own(policies[own], simulated[:, own], real[:, own])),
        "best": policies[int(best[0])].name,
        "best_simulated": estimate(simulated[rows, best]),
        "best_real": estimate(chosen),
        "optimism_of_best": estimate(simulated[rows, best] - chosen),
        "regret": estimate(real.max(axis=1) - chosen, centred=True),
    }


def _own(policy: Policy, simulated: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    """What a simulator believes of the policy that is greedy on it, and what it is worth, float64[1 + R] each."""
    return {
        "own": policy.name,
        "own_simulated": estimate(simulated),
        "own_real": estimate(real),
        "optimism": estimate(simulated - real),
    }


def judge_all(
    policies: Sequence[Policy], simulated: Mapping[str, np.ndarray], real: np.ndarray
) -> dict[str, dict[str, Any]]:
    """`judge` of each simulator, by its name; with `tau_difference`, its tau minus that of REFERENCE."""
    judged = {name: judge(name, policies, values, real) for name, values in simulated.items()}
    if REFERENCE in simulated:
        base = kendall(simulated[REFERENCE], real)
        for name, values in simulated.items():
            if name != REFERENCE:
                judged[name]["tau_difference"] = estimate(kendall(values, real) - base)
    return judged


def split_half(replay: Replay, picked: np.ndarray) -> dict[str, Estimate]:
    """Kendall's tau between the real values of policies for two random halves of the users.

    Args:
        replay: the users and what they said.
        picked: bool[P, E].

    Returns:
        `split_half`: the tau, mean and middle 95 % over the divisions; `split_half_of_all`: what it would be if
        each half had as many users as there are; `ceiling`: what a simulator that knew each true value would
        reach against all users. The last two follow from the first by `ranking`.
    """
    count = replay.bootstrap.num_users
    likes = np.stack([np.bincount(replay.code, one * replay.label, count) for one in picked])
    # Each user has as many picks, so sums rank the policies as means do.
    tau = kendall(*(half @ likes.T for half in (replay.halves, 1 - replay.halves)))
    return {
        "split_half": _over_divisions(tau),
        "split_half_of_all": _over_divisions(for_all_users(tau)),
        "ceiling": _over_divisions(against_truth(for_all_users(tau))),
    }


def _over_divisions(values: np.ndarray) -> Estimate:
    """Mean and middle 95 % of float64[B]; no value if none is defined."""
    defined = values[np.isfinite(values)]
    mean = defined.mean() if len(defined) else np.nan
    return estimate(np.concatenate([[mean], defined]))
