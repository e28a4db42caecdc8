"""How many steps of the environment a device makes in a second, and how far that is from what it could do.

A step is all of `env.step`: the three votes, the response, f_sta's next token, departure and automatic reset, and
before it a random allowed action, drawn from the observation by rejection. Beside the speed stands a bound: the
bytes and operations that a step needs at least (`benchmarks.throughput.step_cost`) against the copy bandwidth and
matrix rate that are measured on the same device in the same run.
"""

import math
import time
from pathlib import Path
from typing import Any

import jax
from matplotlib.backend_bases import FigureCanvasBase

from benchmarks import hardware
from benchmarks.hardware import Timing
from benchmarks.output import check_json, write_json
from benchmarks.throughput.plot import plot_throughput
from benchmarks.throughput.rollout import Runner
from benchmarks.throughput.step_cost import state_bytes, step_bytes, step_flops, tree_bytes
from benchmarks.throughput.vote_cost import CANDIDATES, measure_votes
from jaxsim import Dataset, EnvParams, InputError, UserSimulator, load_dataset, make
from jaxsim.catalogue import TABLE_BUDGET_BYTES, CatalogueKind
from jaxsim.factory import PrefixKind
from jaxsim.files import check_writable

CPU_BATCHES = (256, 1024, 4096, 16384)
OTHER_BATCHES = (256, 1024, 4096, 16384, 65536, 262144, 1048576)
STEPS = 20  # in one call of the compiled program
_RUN_SECONDS = 0.5  # a timed run repeats the call until it is at least this long
_MEMORY_SHARE = 0.9
_STEADY = 0.8  # copying before and after the measurement differs by less, or the report says so

Row = dict[str, Any]


def run_throughput(
    dataset: str = "ml-100k",
    batches: tuple[int, ...] = (),
    repeats: int = 5,
    votes: bool = True,
    catalogue: CatalogueKind = "auto",
    prefixes: PrefixKind = "auto",
    table_budget: int = TABLE_BUDGET_BYTES,
    json: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Measure steps per second against batch size, beside what the device could do at best.

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        batches: numbers of sessions stepped at once. Without any, powers of 4 from 256, to 16,384 on a CPU and
            otherwise as far as memory goes.
        repeats: timed runs of each figure; the median counts, quartiles stand beside it.
        votes: also measure each vote alone, by history length and catalogue size; takes minutes.
        catalogue: of `jaxsim.make`: how item pairs are compared.
        prefixes: of `jaxsim.make`: whether f_sta's reading of initial histories is kept.
        table_budget: of `jaxsim.make`: bytes for what is worked out beforehand.
        json: also write the result here.
        plot: also draw it here (PNG, or whatever the name ends in).
    """
    check_json(json)
    check_plot(plot)
    if repeats < 1:
        raise InputError(f"--repeats {repeats}: give a whole number from 1")
    if any(batch < 1 for batch in batches):
        raise InputError(f"--batches {min(batches)}: give whole numbers from 1")
    packed = load_dataset(dataset)
    print(f"preparing the simulator of {packed.name} ...", flush=True)
    settings = {"catalogue": catalogue, "prefixes": prefixes, "table_budget": table_budget}
    result = measure(packed, batches or default_batches(), repeats, settings)
    if votes:
        print(
            "measuring each vote alone; this takes minutes, --no-votes leaves it out ...",
            flush=True,
        )
        result["votes"] = measure_votes(repeats, table_budget)
    print(format_report(result))
    write_json(json, result)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        plot_throughput(result).savefig(plot, dpi=150)


def check_plot(path: Path | None) -> None:
    """Make sure, before any long work, that `--plot` can be drawn, if it is given.

    Raises:
        InputError: it is a folder, cannot be written, or names no picture format.
    """
    if path is None:
        return
    check_writable(path)
    if path.is_dir():
        raise InputError(f"--plot {path}: is a folder; give a file")
    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(f"--plot {path}: no picture format; end it in .png, .pdf or .svg")


def default_batches() -> tuple[int, ...]:
    """The batch sizes that are measured without `--batches`."""
    return CPU_BATCHES if jax.default_backend() == "cpu" else OTHER_BATCHES


def measure(
    dataset: Dataset, batches: tuple[int, ...], repeats: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Measure the environment of a dataset; the content of `--json`, less the votes.

    Args:
        dataset: of `jaxsim.load_dataset`.
        batches: numbers of sessions, at least one; measured in ascending order, as far as memory goes.
        repeats: timed runs of each figure.
        settings: further arguments of `jaxsim.make`.

    Raises:
        InputError: a setting that the dataset cannot serve, or a first batch that memory cannot hold.
    """
    begin = time.perf_counter()
    env, params = make(dataset, **settings)
    jax.block_until_ready(params)
    make_seconds = time.perf_counter() - begin
    print("measuring the device ...", flush=True)
    before = hardware.measure_device(repeats)
    rows = measure_batches(env, params, sorted(set(batches)), repeats)
    best = max(rows, key=lambda row: row["steps_per_second"])
    print("comparing with the same program without resets ...", flush=True)
    reset = reset_cost(env, params, best["batch"], repeats)
    print("measuring the device again ...", flush=True)
    after = hardware.measure_device(repeats)
    device = before.better(after)
    step = {"bytes": step_bytes(env, params), "flops": step_flops(env, params)}
    bounds = {"copy": device.copy / step["bytes"], "matmul": device.matmul / step["flops"]}
    bound = min(bounds.values())
    return {
        "device": hardware.device_name(),
        "jax": jax.__version__,
        "dataset": dataset.name,
        "items": env.num_items,
        "users": env.num_users,
        "catalogue": env.catalogue,
        "prefixes": env.prefixes,
        "best": {name: best[name] for name in ("batch", "steps_per_second", "compile_seconds")},
        "bound_steps_per_second": bound,
        "fraction_of_bound": best["steps_per_second"] / bound,
        "bounds": bounds,
        "step": step,
        "measured": {
            "copy_bytes_per_second": device.copy,
            "read_bytes_per_second": device.read,
            "matmul_flops_per_second": device.matmul,
            "copy_before_and_after": [before.copy, after.copy],
        },
        "memory": {
            "state_bytes_per_session": state_bytes(env, params),
            "params_bytes": tree_bytes(params),
            "peak_device_bytes": hardware.peak_device_bytes(),
            "peak_process_bytes": hardware.peak_process_bytes(),
        },
        "make_seconds": make_seconds,
        "reset": reset,
        "repeats": repeats,
        "rows": rows,
    }


def measure_batches(
    env: UserSimulator, params: EnvParams, batches: list[int], repeats: int
) -> list[Row]:
    """A row for each batch size, as far as memory goes."""
    rows: list[Row] = []
    for batch in batches:
        print(f"measuring {batch:,} sessions at once ...", flush=True)
        try:
            rows.append(measure_batch(env, params, batch, repeats))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not (isinstance(error, MemoryError) or hardware.is_out_of_memory(error)):
                raise
            print(f"{batch:,} sessions do not fit the device's memory", flush=True)
            break
    if not rows:
        raise InputError(f"{batches[0]:,} sessions do not fit the device's memory: lower --batches")
    return rows


def measure_batch(env: UserSimulator, params: EnvParams, batch: int, repeats: int) -> Row:
    """Speed, compile time and memory of B sessions at once.

    Raises:
        MemoryError: B sessions cannot fit, known before they are started.
    """
    needed = tree_bytes(params) + batch * state_bytes(env, params)
    if needed > _MEMORY_SHARE * hardware.device_memory():
        raise MemoryError
    jax.clear_caches()  # what was traced for another batch size would shorten the compilation
    runner = Runner(env, params, batch, STEPS)
    runner.seconds(calls=1)  # the first call warms up
    calls = math.ceil(_RUN_SECONDS / runner.seconds(calls=1))
    timing = Timing.of([runner.seconds(calls) for _ in range(repeats)])
    steps = calls * STEPS * batch
    return {
        "batch": batch,
        "steps_per_second": steps / timing.median,
        "low_quartile": steps / timing.high,
        "high_quartile": steps / timing.low,
        "compile_seconds": runner.compile_seconds,
        "program_bytes": hardware.program_bytes(runner.program),
        "states_bytes": batch * state_bytes(env, params),
        "like_rate": float(runner.likes),
        "timed_steps": steps,
    }


def reset_cost(env: UserSimulator, params: EnvParams, batch: int, repeats: int) -> dict[str, Any]:
    """Speed with automatic reset against the same program without any, run by turns from fresh sessions.

    Returns:
        with_reset, without_reset: steps a second, medians; ratio: median of the ratios of neighbouring runs,
        low_quartile and high_quartile of it; batch, steps: of one run.
    """
    steps = min(STEPS, env.session_capacity)
    calls = min(2, env.session_capacity // steps)  # without reset, sessions must stay in capacity
    runners = [Runner(env, params, batch, steps, resets) for resets in (True, False)]
    warm = [_fresh_run(runner, calls, rounds=2) for runner in runners]
    rounds = math.ceil(2 * _RUN_SECONDS / min(warm))
    pairs = [[_fresh_run(runner, calls, rounds) for runner in runners] for _ in range(repeats)]
    total = batch * steps * calls * rounds
    with_reset, without_reset = (total / Timing.of([*x]).median for x in zip(*pairs, strict=True))
    ratio = Timing.of([without / with_ for with_, without in pairs])
    return {
        "with_reset": with_reset,
        "without_reset": without_reset,
        "ratio": ratio.median,
        "low_quartile": ratio.low,
        "high_quartile": ratio.high,
        "batch": batch,
        "steps": total,
    }


def _fresh_run(runner: Runner, calls: int, rounds: int) -> float:
    """Seconds of `rounds` times `calls` calls, each time with sessions begun anew before the clock starts."""
    seconds = 0.0
    for _ in range(rounds):
        runner.restart()
        seconds += runner.seconds(calls)
    return seconds


def format_report(result: dict[str, Any]) -> str:
    """The measurement as text for a terminal."""
    lines = [
        f"{result['dataset']}: {result['items']:,} items, {result['users']:,} users, {result['device']}, "
        f"jax {result['jax']}",
        f"pairs of items from {result['catalogue']}, initial histories' reading: {result['prefixes']}; "
        f"made in {result['make_seconds']:.1f} s",
        "",
        *_speed_lines(result),
        "",
        *_bound_lines(result),
        "",
        *_memory_lines(result),
    ]
    if result.get("votes"):
        lines += ["", *vote_lines(result["votes"])]
    return "\n".join(lines)


def _speed_lines(result: dict[str, Any]) -> list[str]:
    lines = ["  sessions      steps/s   (quartiles)               of bound  compile s  program MB"]
    for row in result["rows"]:
        spread = f"({row['low_quartile']:,.0f} to {row['high_quartile']:,.0f})"
        share = row["steps_per_second"] / result["bound_steps_per_second"]
        memory = "-" if row["program_bytes"] is None else f"{row['program_bytes'] / 1e6:,.0f}"
        lines.append(
            f"{row['batch']:10,} {row['steps_per_second']:12,.0f}   {spread:24s} {share:9.1%} "
            f"{row['compile_seconds']:10.1f} {memory:>11s}"
        )
    reset = result["reset"]
    lines.append(
        f"with automatic reset {reset['with_reset']:,.0f} steps/s, the same program without any "
        f"{reset['without_reset']:,.0f}: ratio {reset['ratio']:.3f} "
        f"({reset['low_quartile']:.3f} to {reset['high_quartile']:.3f}), {reset['batch']:,} sessions"
    )
    return lines


def _bound_lines(result: dict[str, Any]) -> list[str]:
    step, measured, bounds = result["step"], result["measured"], result["bounds"]
    lines = [
        f"bound {result['bound_steps_per_second']:,.0f} steps/s, the lower of",
        f"  memory  {bounds['copy']:12,.0f}   {step['bytes']:,} bytes a step, copied at "
        f"{measured['copy_bytes_per_second'] / 1e9:.1f} GB/s (reading alone: "
        f"{measured['read_bytes_per_second'] / 1e9:.1f} GB/s)",
        f"  matmul  {bounds['matmul']:12,.0f}   {step['flops']:,} operations a step, at "
        f"{measured['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s",
        f"the best batch reaches {result['fraction_of_bound']:.1%} of the bound",
    ]
    low, high = sorted(measured["copy_before_and_after"])
    if low < _STEADY * high:
        lines.append(
            f"the machine was not steady: copying did {low / 1e9:.1f} and {high / 1e9:.1f} GB/s, before and "
            "after; the faster counts"
        )
    if any(row["steps_per_second"] > result["bound_steps_per_second"] for row in result["rows"]):
        lines.append(
            "a batch that stays in the processor's caches, or a step that reads more than it writes, can pass the "
            "bound of copying through memory"
        )
    return lines


def _memory_lines(result: dict[str, Any]) -> list[str]:
    memory = result["memory"]
    line = (
        f"memory: {memory['state_bytes_per_session']:,} bytes a session, "
        f"{memory['params_bytes'] / 1e6:,.1f} MB of params; peak of the process "
        f"{memory['peak_process_bytes'] / 1e6:,.0f} MB"
    )
    if memory["peak_device_bytes"] is not None:
        line += f", of the device {memory['peak_device_bytes'] / 1e6:,.0f} MB"
    return [line]


def vote_lines(rows: list[Row]) -> list[str]:
    """The table of votes: a line for each vote, path and catalogue, a column for each history length."""
    histories = sorted({row["history"] for row in rows})
    lines = [
        f"microseconds a decision of each vote alone ({CANDIDATES:,} at once), by history length",
        f"  {'vote':6s}{'catalogue':10s}{'items':>10s}" + "".join(f"{h:10d}" for h in histories),
    ]
    cells = {
        (row["vote"], row["catalogue"], row["items"], row["history"]): row["microseconds"]
        for row in rows
    }
    for vote, catalogue, items in sorted(
        {key[:3] for key in cells}, key=lambda key: (key[0], key[1] or "", key[2])
    ):
        values = (cells[vote, catalogue, items, history] for history in histories)
        line = f"  {vote:6s}{catalogue or '-':10s}{items:10,d}"
        lines.append(line + "".join(f"{value:10.2f}" for value in values))
    return lines
