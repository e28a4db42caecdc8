"""`python -m benchmarks options`: what the options of `jaxsim.make` cost, in turn in one run.

Every option is stepped with the same number of sessions, one after the other, again and again. A ratio is that of
neighbouring runs, so a busy machine slows both sides of it.
"""

from pathlib import Path
from typing import Any

import jax

from benchmarks.hardware import device_memory, device_name
from benchmarks.output import check_json, write_json
from benchmarks.throughput.measurement import MEMORY_SHARE, STEPS, calls_of
from benchmarks.throughput.rollout import Runner, compare_in_turn
from benchmarks.throughput.step_cost import state_bytes, tree_bytes
from jaxsim import Dataset, InputError, load_dataset, make
from jaxsim.tables import format_table

BASE = "single items"
SLATE_SIZE = 5
_SLATE: dict[str, Any] = {"slate_size": SLATE_SIZE}
_WORLD: dict[str, Any] = {
    "departure": "fitted", "visits": True, "exposure": True, "satiation": 0.5,
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    BASE: {},
    'taste="latent"': {"taste": "latent"},
    'departure="fitted"': {"departure": "fitted"},
    "visits=True": {"visits": True},
    "exposure=True": {"exposure": True},
    "satiation=0.5": {"satiation": 0.5},
    'signals="all"': {"signals": "all"},
    "slate_size=5": _SLATE,
    'slate_size=5, unchosen="top"': {**_SLATE, "unchosen": "top"},
    'slate_size=5, taste="latent"': {**_SLATE, "taste": "latent"},
    "slate_size=5, all else": {**_SLATE, **_WORLD},
    'slate_size=5, all else, unchosen="top"': {**_SLATE, **_WORLD, "unchosen": "top"},
    'slate_size=5, all else, taste="latent"': {**_SLATE, **_WORLD, "taste": "latent"},
}
"""Arguments of `jaxsim.make` by name. "all else" is all that goes with slates: a fitted departure,
visits, exposure and satiation."""

Row = dict[str, Any]


def run_options(
    dataset: str = "ml-100k", sessions: int = 1024, repeats: int = 7, json: Path | None = None
) -> None:
    """Measure steps per second under each option of the simulator, with semantics "calibrated".

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        sessions: number of sessions stepped at once.
        repeats: timed runs of each option, in turn; the median counts, quartiles of the ratio stand beside it.
        json: also write the result here.
    """
    check_json(json)
    for name, value in (("sessions", sessions), ("repeats", repeats)):
        if value < 1:
            raise InputError(f"--{name} {value}: give a whole number from 1")
    packed = load_dataset(dataset)
    rows = measure_options(packed, sessions, repeats)
    head = {"device": device_name(), "jax": jax.__version__, "dataset": packed.name}
    result = {**head, "sessions": sessions, "repeats": repeats, "rows": rows}
    print(format_options(result))
    write_json(json, result)


def measure_options(dataset: Dataset, sessions: int, repeats: int) -> list[Row]:
    """A row for each option.

    Args:
        dataset: with a taste model; options that it has no model for are left out, with a line that says so.
        sessions: number of sessions.
        repeats: timed runs of each option.

    Returns:
        `option`, `steps_per_second` (median), `compile_seconds`, `state_bytes` of one session, and `ratio`: the
        median ratio to the speed of single items in neighbouring runs, with `low_quartile` and `high_quartile`.

    Raises:
        InputError: the dataset has no taste model, or the sessions do not fit the memory.
    """
    made = {}
    for name, settings in OPTIONS.items():
        try:
            made[name] = make(dataset, semantics="calibrated", **settings)
        except InputError as error:
            if name == BASE:
                raise
            print(f"{name} is left out: {error}", flush=True)
    needed = sum(tree_bytes(p) + sessions * state_bytes(e, p) for e, p in made.values())
    if needed > MEMORY_SHARE * device_memory():
        raise InputError(f"--sessions {sessions}: all options need {needed:,} bytes; give fewer")
    print("compiling ...", flush=True)
    runners = {name: Runner(env, params, sessions, STEPS) for name, (env, params) in made.items()}
    calls = {name: calls_of(runner) for name, runner in runners.items()}
    results = compare_in_turn(runners, calls, STEPS * sessions, BASE, repeats)
    return [
        {"option": name, **results[name], "state_bytes": state_bytes(env, params)}
        for name, (env, params) in made.items()
    ]


def format_options(result: dict[str, Any]) -> str:
    """The content of `--json` as text for a terminal."""
    header = ("options", "steps/s", "of single items", "(quartiles)", "bytes a session")
    table = [
        (
            row["option"],
            f"{row['steps_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
            f"({row['low_quartile']:.2f} to {row['high_quartile']:.2f})",
            f"{row['state_bytes']:,}",
        )
        for row in result["rows"]
    ]
    title = (
        f"{result['dataset']}, semantics calibrated, {result['sessions']:,} sessions at once, random actions, "
        f"{result['device']}"
    )
    return "\n".join([title, format_table(header, table)])
