"""The formulas of docs/scaling.md: seconds and bytes of items, users, seeds and steps.

Every formula is a sum of terms, constant times size, with constants from measured points. They are never negative,
and fitted by least squares of the logarithms, so that half of a value is as wrong as twice of it.

    steps of B sessions    environment[0] + environment[1] B                       seconds a step of all sessions
    iteration of training  training[0] + S (training[1] + training[2] N + training[3] C)     seconds, S seeds
    evaluation             evaluation[0] + evaluation[1] N                         seconds a step of one session

With candidates the network scores C of the N items, and little else still grows with N. Without them C is
0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from jaxsim import InputError
from jaxsim.catalogue import TABLE_BUDGET_BYTES

SESSION_LENGTH = 36.8  # mean number of steps, with the constant departure
SESSIONS_PER_USER = 4  # of an evaluation
EVALUATED = {"fixed": 4, "oracle": 1}  # baselines by kind; a seed has a greedy and a sampled policy
HISTORY, WINDOW, WIDTH, BLOCKS = 50, 150, 32, 2
_KEYWORDS = 7  # of a polarity, at most; a few bytes of an item
_CATEGORY_WORDS = 1  # of 32 categories each


@dataclass(frozen=True)
class Case:
    """What a user wants to run.

    Attributes:
        items, users: N and U.
        seeds, steps: S trainings of so many environment steps each.
        algorithm: ppo, a2c, trpo or dqn, with its default settings.
        candidates: C among which the policy chooses; None for all items.
        sessions: B sessions of the environment alone.
        dimension: D, length of the keyword vectors.
    """

    items: int
    users: int
    seeds: int
    steps: int
    algorithm: str
    candidates: int | None
    sessions: int
    dimension: int


def fit(terms: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Constants c >= 0 for which the sums of c times `terms` [P, K] are near the `values` [P], relatively.

    A column of zeros gets 0.
    """
    scaled = np.asarray(terms, np.float64) / np.asarray(values, np.float64)[:, None]
    size = scaled.max(axis=0)
    used = size > 0
    unit = scaled[:, used] / size[used]  # so that the solver sees numbers of one size
    start = np.maximum(nnls(unit, np.ones(len(unit)))[0], 1e-3)
    found = least_squares(lambda c: np.log(unit @ c), start, bounds=(0.0, np.inf))
    constants = np.zeros(len(size))
    constants[used] = found.x / size[used]
    return [float(c) for c in constants]


def training_terms(
    seeds: int, items: int, candidates: int | None, fixed: float = 1.0
) -> list[float]:
    """The sizes of an iteration, or of its memory without a `fixed` part."""
    return [fixed, seeds, seeds * items, seeds * (candidates or 0)]


def value_of(constants: Sequence[float], terms: Sequence[float]) -> float:
    """The sum of constants times terms."""
    return float(np.dot(constants, terms))


# ---- memory ------------------------------------------------------------------------------------------------


def params_bytes(items: int, users: int, dimension: int, budget: int = TABLE_BUDGET_BYTES) -> int:
    """Bytes of the params of `jaxsim.make` with the paper's votes, as docs/scaling.md lists them."""
    pairs = 8 * items * items
    tables = pairs <= budget
    catalogue = pairs if tables else 8 * dimension * items
    catalogue += items * (8 * _KEYWORDS + 4 * _CATEGORY_WORDS)
    prefix = 4 * (2 * BLOCKS * HISTORY * WIDTH + WIDTH)
    stored = users * prefix <= budget - (pairs if tables else 0)
    return (
        catalogue + items * (8 * WIDTH + 4) + users * (5 * HISTORY + 12 + (prefix if stored else 0))
    )


def session_bytes() -> int:
    """Bytes of one session's state with the paper's votes."""
    return 4 * (2 * BLOCKS * WINDOW * WIDTH + WIDTH) + 5 * WINDOW + 16


# ---- prediction --------------------------------------------------------------------------------------------


def predict(case: Case, constants: Mapping[str, Any]) -> dict[str, float]:
    """What a case takes on the device of the constants.

    Returns:
        `environment_steps_per_second`, `environment_bytes`; `training_seconds`, `training_compile_seconds`,
        `training_steps_per_second`, `training_bytes`; `evaluation_seconds` of all baselines and seeds on all
        users, with `evaluation_compile_seconds`.

    Raises:
        InputError: the constants have none for the algorithm, with or without candidates.
    """
    overhead, of_session = environment_constants(case, constants)
    stored = params_bytes(case.items, case.users, case.dimension)
    training = training_constants(case, constants)
    size = training_terms(case.seeds, case.items, case.candidates)
    iterations = case.steps / training["steps_per_iteration"]
    seconds = iterations * value_of(training["seconds"], size)
    scratch = value_of(training["bytes"], size)
    return {
        "environment_steps_per_second": case.sessions / (overhead + of_session * case.sessions),
        "environment_bytes": stored + case.sessions * session_bytes(),
        "training_seconds": seconds,
        "training_compile_seconds": training["compile_seconds"],
        "training_steps_per_second": case.seeds * case.steps / seconds,
        "training_bytes": stored + scratch,
        "evaluation_seconds": evaluation_seconds(case, constants["evaluation"]),
        "evaluation_compile_seconds": constants["evaluation"]["compile_seconds"],
    }


def environment_constants(case: Case, constants: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds of a step whatever the number of sessions, and of each session in it."""
    environment = constants["environment"]
    overhead, of_session, of_number = environment["seconds"]
    tables = 8 * case.items * case.items <= TABLE_BUDGET_BYTES
    return overhead, of_session + (0.0 if tables else of_number * case.dimension)


def training_constants(case: Case, constants: Mapping[str, Any]) -> Mapping[str, Any]:
    """The constants of an algorithm, for a policy over all items or over candidates.

    Raises:
        InputError: they were not measured.
    """
    kind = training_kind(case.algorithm, case.candidates)
    known = constants["training"]
    if kind not in known:
        raise InputError(
            f"--constants: has {', '.join(known)}, not {kind}; measure without --constants"
        )
    entry: Mapping[str, Any] = known[kind]
    return entry


def training_kind(algorithm: str, candidates: int | None) -> str:
    """The name of an algorithm's constants."""
    return algorithm if candidates is None else f"{algorithm} with candidates"


def evaluation_seconds(case: Case, evaluation: Mapping[str, Any]) -> float:
    """Seconds of the evaluation of all baselines and seeds, in four sessions of every user."""
    steps = case.users * SESSIONS_PER_USER * SESSION_LENGTH
    counts = {"network": 2 * case.seeds, **EVALUATED}
    of_step = sum(
        count * value_of(evaluation[kind], [1, case.items]) for kind, count in counts.items()
    )
    ranking = value_of(evaluation["ranking"], [1, case.items * case.users])
    return steps * of_step + ranking
