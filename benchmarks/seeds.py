"""`python -m benchmarks seeds`: whether several training seeds are faster side by side or one after the other.

For each agent and number of seeds both programs take turns, so a busy machine slows both of them. What is timed is
one chunk of a training with default settings, as `python -m agents train` runs it.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from agents.algorithms.algorithm import Algorithm
from agents.algorithms.registry import ALGORITHMS
from agents.runs.seeds import choose_at_once
from agents.runs.training import training_functions
from benchmarks.hardware import device_name
from benchmarks.output import check_json, write_json
from benchmarks.throughput.rollout import compare_in_turn
from jaxsim import EnvParams, InputError, load_dataset, make
from jaxsim.tables import format_table

Row = dict[str, Any]


@dataclass
class SeedsRunner:
    """A compiled training of several seeds, which is timed chunk by chunk.

    Attributes:
        program: (state, params) -> state and metrics; it reuses the state's memory.
        state: of all seeds.
        params: of the environment.
        compile_seconds: wall time until the program was there, compiled or from the cache.
    """

    program: jax.stages.Compiled
    state: Any
    params: EnvParams
    compile_seconds: float

    @classmethod
    def start(
        cls, algorithm: Algorithm, params: EnvParams, seeds: int, at_once: int
    ) -> "SeedsRunner":
        """Compile a training of seeds 0, 1, ..., and run its first chunk, which is not timed."""
        begin = time.perf_counter()
        functions = training_functions(algorithm, at_once=at_once)
        state = functions.init(jax.vmap(jax.random.key)(jnp.arange(seeds)), params, None)
        program = functions.chunk.lower(state, params).compile()
        runner = cls(program, state, params, time.perf_counter() - begin)
        runner.seconds(calls=1)
        return runner

    def seconds(self, calls: int) -> float:
        """Wall time of some chunks."""
        begin = time.perf_counter()
        for _ in range(calls):
            self.state, metrics = self.program(self.state, self.params)
        jax.block_until_ready((self.state, metrics))
        return time.perf_counter() - begin


def run_seeds(
    dataset: str = "ml-100k",
    agents: tuple[str, ...] = tuple(ALGORITHMS),
    seeds: tuple[int, ...] = (1, 3, 5),
    repeats: int = 3,
    json: Path | None = None,
) -> None:
    """Measure several training seeds side by side and one after the other.

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        agents: names of agents.
        seeds: numbers of seeds.
        repeats: timed chunks of each program, in turn; the median counts.
        json: also write the result here.
    """
    check_json(json)
    for name in agents:
        if name not in ALGORITHMS:
            raise InputError(f"unknown agent {name!r}; known: {', '.join(ALGORITHMS)}")
    for option, value in (("repeats", repeats), *(("seeds", count) for count in seeds)):
        if value < 1:
            raise InputError(f"--{option} {value}: give a whole number from 1")
    packed = load_dataset(dataset)
    env, params = make(packed)
    rows = []
    for name in agents:
        print(f"{name} ...", flush=True)
        algorithm = ALGORITHMS[name].algorithm(env, ALGORITHMS[name].config())
        for count in seeds:
            measured = measure_seeds(algorithm, params, count, repeats)
            rows += [{"agent": name, **row} for row in measured]
    head = {"device": device_name(), "jax": jax.__version__, "dataset": packed.name}
    result = {**head, "repeats": repeats, "default_at_once": choose_at_once(5), "rows": rows}
    print(format_seeds(result))
    write_json(json, result)


def measure_seeds(algorithm: Algorithm, params: EnvParams, seeds: int, repeats: int) -> list[Row]:
    """Two rows for a number of seeds: one after the other, and side by side.

    Returns:
        `seeds`, `at_once`, `order`; `steps_per_second` of all seeds together and `seconds_a_seed` of a whole
        training, by the median chunk; and `ratio` to the speed one after the other in neighbouring chunks, with
        `low_quartile` and `high_quartile`.
    """
    runners = {
        str(at_once): SeedsRunner.start(algorithm, params, seeds, at_once)
        for at_once in (1, max(2, seeds))  # one seed side by side is a vmap of one
    }
    config = algorithm.config
    steps = config.iterations_per_log * config.steps_per_iteration
    calls = dict.fromkeys(runners, 1)
    results = compare_in_turn(runners, calls, seeds * steps, "1", repeats)
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


def format_seeds(result: Row) -> str:
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
