"""How fast the environment steps under each semantics, with the same sessions and in the same run."""

from typing import Any

import jax

from benchmarks.hardware import device_memory
from benchmarks.throughput.measurement import (
    MEMORY_SHARE,
    STEPS,
    calls_of,
    runner_on,
    spread_over,
)
from benchmarks.throughput.rollout import Runner, compare_in_turn
from benchmarks.throughput.step_cost import state_bytes, step_bytes, tree_bytes
from jaxsim import Dataset, make
from jaxsim.factory import Semantics

BASE: Semantics = "paper"
SEMANTICS: tuple[Semantics, ...] = (BASE, "calibrated", "soft")

Row = dict[str, Any]


def measure_semantics(
    dataset: Dataset,
    batches: tuple[int, ...],
    repeats: int,
    settings: dict[str, Any],
    copy_bytes_per_second: float,
    devices: int = 1,
) -> list[Row]:
    """A row for each semantics and batch size; all semantics of a batch size run in turn.

    Args:
        dataset: with a taste model.
        batches: numbers of sessions; those are left out for which not all semantics fit the memory at once.
        repeats: timed runs of each figure.
        settings: further arguments of `jaxsim.make`.
        copy_bytes_per_second: what the device copies, for the bound.
        devices: as for `measure`.

    Returns:
        `semantics`, `batch`, `steps_per_second` (median), `compile_seconds`, `state_bytes` and `step_bytes` of one
        session, `bound_steps_per_second`, and `ratio`: the median ratio to the speed under "paper" in neighbouring
        runs, with its `low_quartile` and `high_quartile`.
    """
    made = {name: make(dataset, **settings, semantics=name) for name in SEMANTICS}
    spread = {name: spread_over(devices, params) for name, (_, params) in made.items()}
    fixed = devices * sum(tree_bytes(params) for _, params in made.values())
    of_session = sum(state_bytes(env, params) for env, params in made.values())
    rows = []
    for batch in batches:
        if fixed + batch * of_session > MEMORY_SHARE * device_memory():
            break
        jax.clear_caches()
        runners: dict[str, Runner] = {
            name: runner_on(*made[name], batch, STEPS, spread=spread[name]) for name in SEMANTICS
        }
        calls: dict[str, int] = {name: calls_of(runner) for name, runner in runners.items()}
        results = compare_in_turn(runners, calls, STEPS * batch, BASE, repeats)
        for name, (env, params) in made.items():
            needed = step_bytes(env, params)
            rows.append(
                {
                    "semantics": name,
                    "batch": batch,
                    **results[name],
                    "state_bytes": state_bytes(env, params),
                    "step_bytes": needed,
                    "bound_steps_per_second": copy_bytes_per_second / needed,
                }
            )
    return rows
