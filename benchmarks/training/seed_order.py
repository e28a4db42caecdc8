"""`python -m benchmarks seed-order`: whether several seeds are faster side by side or one after the other.

For each agent and number of seeds both programs take turns, so a busy machine slows both of them. What is timed is
one chunk of a training with default settings, as `python -m agents train` runs it.
"""

from pathlib import Path
from typing import Any

import jax

from agents.algorithms.algorithm import Algorithm
from agents.algorithms.registry import ALGORITHMS
from agents.runs.seeds import choose_at_once
from benchmarks.checks import check_agent, check_counts
from benchmarks.hardware import device_name
from benchmarks.output import check_json, write_json
from benchmarks.throughput.rollout import compare_in_turn
from benchmarks.training.learner import Learner
from jaxsim import EnvParams, load_dataset, make
from jaxsim.tables import format_table

Row = dict[str, Any]


def run_seed_order(
    dataset: str = "ml-100k",
    agents: tuple[str, ...] = tuple(ALGORITHMS),
    seeds: tuple[int, ...] = (1, 3, 5),
    repeats: int = 3,
    json: Path | None = None,
) -> None:
    """Measure several training seeds side by side and one after the other.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        agents: names of agents.
        seeds: numbers of seeds.
        repeats: timed chunks of each program, in turn; the median counts.
        json: also write the result here.
    """
    check_json(json)
    for name in agents:
        check_agent(name, "agents")
    check_counts(repeats=repeats, seeds=min(seeds, default=0))
    packed = load_dataset(dataset)
    env, params = make(packed)
    rows = []
    for name in agents:
        print(f"{name} ...", flush=True)
        algorithm = ALGORITHMS[name].algorithm(env, ALGORITHMS[name].config())
        for count in seeds:
            measured = measure_order(algorithm, params, count, repeats)
            rows += [{"agent": name, **row} for row in measured]
    head = {"device": device_name(), "jax": jax.__version__, "dataset": packed.name}
    result = {**head, "repeats": repeats, "default_at_once": choose_at_once(5), "rows": rows}
    print(format_order(result))
    write_json(json, result)


def measure_order(algorithm: Algorithm, params: EnvParams, seeds: int, repeats: int) -> list[Row]:
    """Two rows for a number of seeds: one after the other, and side by side.

    Returns:
        `seeds`, `at_once`, `order`; `steps_per_second` of all seeds together and `seconds_a_seed` of a whole
        training, by the median chunk; and `ratio` to the speed one after the other in neighbouring chunks, with
        `low_quartile` and `high_quartile`.
    """
    runners = {
        str(at_once): Learner.compile_seeds(algorithm, params, 0, seeds, at_once)
        for at_once in (1, max(2, seeds))  # one seed side by side is a vmap of one
    }
    for runner in runners.values():
        runner.seconds(calls=1)  # the first one does not count
    config = algorithm.config
    calls = dict.fromkeys(runners, 1)
    results = compare_in_turn(runners, calls, runners["1"].steps_per_call, "1", repeats)
    training = config.num_iterations * config.steps_per_iteration
    return [
        {
            "seeds": seeds,
            "at_once": 1 if name == "1" else seeds,
            "order": "one after the other" if name == "1" else "side by side",
            "seconds_a_seed": training / of_program["steps_per_second"],
            **{key: value for key, value in of_program.items() if key != "compile_seconds"},
        }
        for name, of_program in results.items()
    ]


def format_order(result: Row) -> str:
    """The content of `--json` as text for a terminal."""
    header = ("agent", "seeds", "", "steps/s", "s a seed", "of one after the other", "(quartiles)")
    table = [
        (
            row["agent"],
            str(row["seeds"]),
            row["order"],
            f"{row['steps_per_second']:,.0f}",
            f"{row['seconds_a_seed']:.1f}",
            f"{row['ratio']:.2f}",
            f"({row['low_quartile']:.2f} to {row['high_quartile']:.2f})",
        )
        for row in result["rows"]
    ]
    title = f"training on {result['dataset']}, default settings, {result['device']}"
    return "\n".join([title, format_table(header, table, left=(0, 2))])
