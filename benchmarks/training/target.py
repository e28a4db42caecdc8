"""The target of the trainings: what the baseline like_rate earns in fixed sessions."""

from dataclasses import dataclass, field, replace

import jax
import numpy as np

from agents.evaluation.baselines import EvaluatedPolicy, baselines
from agents.evaluation.sessions import FixedSessions, fixed_sessions, run_sessions
from jaxsim import Dataset, EnvParams, UserSimulator

BASELINE = "like_rate"
# Seed of set 0 of the fixed sessions; set 1 has the next one. Trainings have other seeds. The mean length of a
# session differs by several per cent between sets, and so does the target: a result names its `sessions_seed`.
SESSIONS_SEED = 4_000_000


@dataclass(frozen=True)
class Target:
    """Fixed sessions of training users, and what the baseline earns in them.

    Attributes:
        env, params: from `jaxsim.make`.
        sessions: M of them, the same for every policy.
        reward: mean undiscounted return of the baseline, likes a session.
    """

    env: UserSimulator
    params: EnvParams
    sessions: FixedSessions
    reward: float

    def mean_reward(self, policy: EvaluatedPolicy) -> float:
        """Mean undiscounted return of a policy in the same sessions."""
        return float(run_sessions(self.env, self.params, policy, self.sessions).returns.mean())


@dataclass
class Attempt:
    """The evaluations of one training.

    Attributes:
        reached_seconds: training time at the first evaluation that reached the target; None if none did.
        trained_seconds: training time until the latest evaluation; evaluations themselves are not counted.
        curve: (seconds, steps of the environment, mean return) of each evaluation.
    """

    reached_seconds: float | None = None
    trained_seconds: float = 0.0
    curve: list[tuple[float, int, float]] = field(default_factory=list)

    def add(self, seconds: float, steps: int, reward: float, reached: bool) -> None:
        """Add an evaluation."""
        self.trained_seconds = seconds
        self.curve.append((seconds, steps, reward))
        if reached and self.reached_seconds is None:
            self.reached_seconds = seconds


def like_rate_target(
    dataset: Dataset, env: UserSimulator, params: EnvParams, num_sessions: int, seed: int
) -> Target:
    """What the baseline earns in one session each of `num_sessions` users.

    Args:
        dataset: where the environment came from.
        env, params: from `jaxsim.make`.
        num_sessions: users, spread evenly over the session users of `params`; all of them if there are fewer.
        seed: number of the set of sessions; their PRNG key is made of SESSIONS_SEED + seed.
    """
    sessions = spread_sessions(env, params, num_sessions, seed)
    target = Target(env, params, sessions, reward=0.0)
    baseline = baselines(dataset, env, params)[BASELINE]
    return replace(target, reward=target.mean_reward(baseline))


def spread_sessions(
    env: UserSimulator, params: EnvParams, num_sessions: int, seed: int
) -> FixedSessions:
    """One fixed session each of `num_sessions` users, see `like_rate_target`."""
    all_users = fixed_sessions(jax.random.key(SESSIONS_SEED + seed), env, params, repeats=1)
    count = min(num_sessions, len(all_users.users))
    rows = np.linspace(0, len(all_users.users) - 1, count).astype(np.int32)
    return FixedSessions(*(x[rows] for x in all_users))
