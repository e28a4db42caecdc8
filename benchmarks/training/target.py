"""How long a training takes to earn what recommending by training like rate earns."""

from dataclasses import dataclass, field

import jax
import numpy as np

from agents.evaluation.baselines import EvaluatedPolicy, baselines
from agents.evaluation.sessions import FixedSessions, fixed_sessions, run_sessions
from jaxsim import Dataset, EnvParams, UserSimulator

BASELINE = "like_rate"
SESSIONS_SEED = 4_000_000  # apart from those of trainings


@dataclass(frozen=True)
class Target:
    """Fixed sessions of training users, and what the baseline earns in them.

    Attributes:
        env, params: of `jaxsim.make`.
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
    """A training that was watched.

    Attributes:
        reached_seconds: training time when the target was first seen to be reached; None if it was not.
        trained_seconds: training time in all, up to the latest evaluation; evaluation is not counted.
        curve: (seconds, steps of the environment, mean return) of each evaluation.
    """

    reached_seconds: float | None = None
    trained_seconds: float = 0.0
    curve: list[tuple[float, int, float]] = field(default_factory=list)

    def add(self, seconds: float, steps: int, reward: float, reached: bool) -> None:
        """Note an evaluation."""
        self.trained_seconds = seconds
        self.curve.append((seconds, steps, reward))
        if reached and self.reached_seconds is None:
            self.reached_seconds = seconds


def like_rate_target(
    dataset: Dataset, env: UserSimulator, params: EnvParams, num_sessions: int, seed: int
) -> Target:
    """What the baseline earns in `num_sessions` sessions, spread evenly over the users; all of them, if fewer."""
    every = fixed_sessions(jax.random.key(SESSIONS_SEED + seed), env, params, repeats=1)
    count = min(num_sessions, len(every.users))
    rows = np.linspace(0, len(every.users) - 1, count).astype(np.int32)
    target = Target(env, params, FixedSessions(*(x[rows] for x in every)), 0.0)
    baseline = baselines(dataset, env, params)[BASELINE]
    return Target(env, params, target.sessions, target.mean_reward(baseline))
