"""`python -m benchmarks seeds`: what it costs to train several seeds at once.

The program is that of `python -m agents train --seeds S`. The counts of seeds are measured one after the other;
each is compiled alone.
"""

from pathlib import Path
from typing import Any

import jax

from agents.algorithms.algorithm import AlgorithmConfig
from agents.algorithms.registry import ALGORITHMS
from benchmarks.checks import check_agent, check_counts, with_candidates
from benchmarks.hardware import Timing, device_name, program_bytes
from benchmarks.output import check_json, write_json
from benchmarks.training.learner import Learner
from jaxsim import EnvParams, InputError, UserSimulator, load_dataset, make
from jaxsim.out_of_memory import is_out_of_memory
from jaxsim.tables import format_table

Row = dict[str, Any]


def run_seeds(
    dataset: str = "ml-100k",
    agent: str = "ppo",
    counts: tuple[int, ...] = (1, 4, 16),
    candidates: int | None = None,
    repeats: int = 3,
    json: Path | None = None,
) -> None:
    """Measure the speed of training several seeds at once.

    Example:
        --agent ppo --counts 1 4 16

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        agent: one of ppo, trpo, a2c, dqn, with its default settings.
        counts: numbers of seeds.
        candidates: setting of the agent: choose among so many candidates in place of all items.
        repeats: timed runs of each number; the median counts.
        json: also write the result here.
    """
    check_json(json)
    check_agent(agent)
    check_counts(repeats=repeats, **{"counts": min(counts, default=0)})
    config = with_candidates(ALGORITHMS[agent].config(), candidates)
    packed = load_dataset(dataset)
    print(f"preparing the simulator of {packed.name} ...", flush=True)
    env, params = make(packed)
    result = {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": packed.name,
        "items": env.num_items,
        "agent": agent,
        "candidates": candidates,
        "repeats": repeats,
        "rows": measure_seeds(agent, config, env, params, sorted(set(counts)), repeats),
    }
    print(format_seeds(result))
    write_json(json, result)


def measure_seeds(
    agent: str,
    config: AlgorithmConfig,
    env: UserSimulator,
    params: EnvParams,
    counts: list[int],
    repeats: int,
) -> list[Row]:
    """A row for each number of seeds, as far as memory goes.

    Args:
        agent: name of an algorithm.
        config: its settings.
        env, params: from `jaxsim.make`.
        counts: numbers of seeds, ascending, at least one.
        repeats: timed runs of each.

    Returns:
        `seeds`, `steps_per_second` of all seeds together (median), with `low_quartile` and `high_quartile`,
        `compile_seconds`, `program_bytes`, and `seconds`: what the settings' `total_steps` take for all seeds.

    Raises:
        InputError: not even the first number fits the memory.
    """
    algorithm = ALGORITHMS[agent].algorithm(env, config)
    total = config.num_iterations * config.steps_per_iteration
    rows: list[Row] = []
    for count in counts:
        print(f"{agent}: measuring {count} seeds ...", flush=True)
        jax.clear_caches()  # a trace of another number would shorten the compilation
        try:
            learner = Learner.compile_seeds(algorithm, params, 0, count)
            speed = Timing.of(learner.speeds(repeats))
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error):
                raise
            print(f"{count} seeds do not fit the device's memory", flush=True)
            break
        rows.append(
            {
                "seeds": count,
                "steps_per_second": speed.median,
                "low_quartile": speed.low,
                "high_quartile": speed.high,
                "compile_seconds": learner.compile_seconds,
                "program_bytes": program_bytes(learner.program),
                "seconds": count * total / speed.median,
            }
        )
    if not rows:
        raise InputError(f"{counts[0]} seeds do not fit the device's memory: lower --counts")
    return rows


def format_seeds(result: dict[str, Any]) -> str:
    """The content of `--json` as text for a terminal."""
    table = [
        (
            row["seeds"],
            f"{row['steps_per_second']:,.0f}",
            f"{row['steps_per_second'] / row['seeds']:,.0f}",
            f"{row['compile_seconds']:.1f}",
            f"{row['seconds']:.1f}",
            "-" if row["program_bytes"] is None else f"{row['program_bytes'] / 1e9:.2f}",
        )
        for row in result["rows"]
    ]
    header = ("seeds", "steps/s", "a seed", "compile s", "training s", "program GB")
    title = (
        f"{result['dataset']}: {result['agent']} on {result['items']:,} items, several seeds at once, "
        f"{result['device']}, jax {result['jax']}"
    )
    return "\n".join([title, format_table(header, table, left=())])
