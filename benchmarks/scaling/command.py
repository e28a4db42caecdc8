"""`python -m benchmarks scaling`: seconds and memory of a case, from constants measured on this device."""

import json as json_format
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from benchmarks.checks import candidates_of, check_agent, check_counts
from benchmarks.hardware import device_memory, device_name
from benchmarks.output import check_json, write_json
from benchmarks.scaling.formulas import (
    Case,
    fit,
    predict,
    training_constants,
    training_kind,
    training_terms,
    value_of,
)
from benchmarks.scaling.points import (
    Point,
    drawn_dataset,
    environment_point,
    evaluation_point,
    made,
    training_point,
)
from benchmarks.scaling.report import format_scaling
from jaxsim import InputError, load_dataset

SMALL, MIDDLE, LARGE = 1_500, 4_000, 10_000  # items of the measured points
_USERS = 500
_SESSIONS = (384, 128)  # of the evaluation of a small and of a large catalogue
_BATCHES = {"cpu": (64, 2048), "other": (1024, 65536)}
_MANY_SEEDS = 4
_FEWEST_CANDIDATES, _MOST_CANDIDATES = 200, 1_200  # more than a window, fewer than SMALL


def run_scaling(
    items: int = 1682,
    users: int = 943,
    seeds: int = 1,
    steps: int = 200_000,
    algorithm: str = "ppo",
    candidates: int | None = None,
    sessions: int = 1024,
    dimension: int = 384,
    constants: Path | None = None,
    check: tuple[str, ...] = (),
    json: Path | None = None,
) -> None:
    """Say how long a training will take on this device, and how much memory it needs.

    The constants of the formulas in docs/scaling.md are measured first, which takes a minute or two.

    Example:
        --items 65019 --users 20000 --seeds 5

    Args:
        items: items of the catalogue.
        users: users of the dataset.
        seeds: trainings at once.
        steps: environment steps of each training.
        algorithm: one of ppo, trpo, a2c, dqn, with its default settings.
        candidates: setting of the algorithm: choose among so many candidates, 0 for all items; without it, as
            the algorithm does for such a catalogue.
        sessions: sessions at once, for the speed of the environment alone.
        dimension: length of the keyword vectors.
        constants: file that an earlier call wrote with --json, whose constants are used in place of new ones.
        check: packed datasets on which the training is also measured, beside what the formula says.
        json: also write the constants, the measured points and the prediction here.
    """
    check_json(json)
    check_agent(algorithm, "algorithm")
    check_counts(
        items=items, users=users, seeds=seeds, steps=steps, sessions=sessions, dimension=dimension
    )
    if candidates is not None:
        check_counts(least=0, candidates=candidates)
    chosen = candidates_of(algorithm, candidates, items)
    case = Case(items, users, seeds, steps, algorithm, chosen, sessions, dimension)
    result = read_constants(constants) if constants else measure_constants(algorithm, chosen)
    prediction = predict(case, result["constants"])
    result |= {"case": case.__dict__, "prediction": prediction}
    result["checks"] = [checked(name, case, candidates, result["constants"]) for name in check]
    print(format_scaling(result))
    write_json(json, result)


def measure_constants(algorithm: str, candidates: int | None) -> dict[str, Any]:
    """Measure the points of an algorithm on this device and fit the constants.

    Args:
        algorithm: its name.
        candidates: C among which it chooses; None for all items.
    """
    kind = "cpu" if jax.default_backend() == "cpu" else "other"
    print("measuring the environment ...", flush=True)
    datasets = {items: drawn_dataset(items, _USERS) for items in (SMALL, MIDDLE, LARGE)}
    simulators = {SMALL: made(datasets[SMALL])}
    simulators |= {MIDDLE: made(datasets[MIDDLE], "features"), LARGE: made(datasets[LARGE])}
    few, many = _BATCHES[kind]
    environment = [environment_point(*simulators[SMALL], sessions) for sessions in (few, many)]
    environment.append(environment_point(*made(datasets[SMALL], "features"), many))
    training = []
    for items, seeds, chosen in training_sizes(candidates):
        print(f"measuring the training of {seeds} seeds with {items:,} items ...", flush=True)
        training.append(training_point(*simulators[items], algorithm, seeds, chosen))
    evaluation = []
    for items, count in zip((SMALL, LARGE), _SESSIONS, strict=True):
        print(f"measuring the evaluation with {items:,} items ...", flush=True)
        of_items = datasets[items], *simulators[items]
        evaluation.append(evaluation_point(*of_items, algorithm, count))
    points = {"environment": environment, "training": training, "evaluation": evaluation}
    return {
        "device": device_name(),
        "jax": jax.__version__,
        "device_memory": device_memory(),
        "points": points,
        "constants": {
            "environment": environment_fit(environment),
            "training": {training_kind(algorithm, candidates): training_fit(training)},
            "evaluation": evaluation_fit(evaluation),
        },
    }


def training_sizes(candidates: int | None) -> list[tuple[int, int, int]]:
    """Items, seeds and setting of candidates of the measured trainings; 0 for all items."""
    if candidates is None:
        return [(SMALL, 1, 0), (SMALL, _MANY_SEEDS, 0), (MIDDLE, 1, 0), (LARGE, 1, 0)]
    many = min(max(candidates, 2 * _FEWEST_CANDIDATES), _MOST_CANDIDATES)
    few = many // 2
    return [(SMALL, 1, many), (SMALL, _MANY_SEEDS, many), (SMALL, 1, few), (LARGE, 1, many)]


def environment_fit(points: list[Point]) -> dict[str, Any]:
    """Constants of a step of B sessions: alone, of each session, and of each number of its features."""
    terms = [[1, p["sessions"], p["sessions"] * p["dimension"]] for p in points]
    return {"seconds": fit(terms, [p["seconds"] for p in points])}


def training_fit(points: list[Point]) -> dict[str, Any]:
    """Constants of an iteration of S seeds with N items and C candidates, and of its memory."""
    terms = [training_terms(p["seeds"], p["items"], p["candidates"]) for p in points]
    known = [p["bytes"] for p in points]
    return {
        "seconds": fit(terms, [p["seconds"] for p in points]),
        "bytes": [0.0] * 4 if None in known else fit(terms, known),
        "compile_seconds": max(p["compile_seconds"] for p in points),
        "steps_per_iteration": points[0]["steps_per_iteration"],
    }


def evaluation_fit(points: list[Point]) -> dict[str, Any]:
    """Constants of a step of one session by kind of policy, and of ranking N items for U users."""
    terms = [[1, p["items"]] for p in points]
    return {
        **{name: fit(terms, [p[name] for p in points]) for name in ("network", "fixed", "oracle")},
        "compile_seconds": max(p["compile_seconds"] for p in points),
        "ranking": fit(
            [[1, p["items"] * p["users"]] for p in points], [p["ranking"] for p in points]
        ),
    }


def checked(
    name: str, case: Case, candidates: int | None, constants: Mapping[str, Any]
) -> dict[str, Any]:
    """Seconds of an iteration on a packed dataset, measured beside what the formula says for its items."""
    dataset = load_dataset(name)
    items = dataset.num_items
    case = replace(case, items=items, candidates=candidates_of(case.algorithm, candidates, items))
    entry = training_constants(case, constants)
    expected = value_of(entry["seconds"], training_terms(case.seeds, case.items, case.candidates))
    print(f"checking the training on {dataset.name} with {items:,} items ...", flush=True)
    point = training_point(*made(dataset), case.algorithm, case.seeds, candidates)
    return {
        "dataset": dataset.name,
        **point,
        "predicted_seconds": expected,
        "ratio": expected / point["seconds"],
    }


def read_constants(path: Path) -> dict[str, Any]:
    """The device and the constants in a file of an earlier call.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        result = json_format.loads(path.read_text("utf-8"))
        names = ("device", "jax", "device_memory", "points", "constants")
        return {name: result[name] for name in names}
    except FileNotFoundError:
        raise InputError(f"--constants {path}: does not exist") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"--constants {path}: give a file that `python -m benchmarks scaling --json` wrote"
        ) from None
