"""How many steps of the environment a device makes per second, and how far that is from what it could do.

A step is all of `env.step`: the three votes, the response, the next token of f_sta, departure and automatic
reset. Before each step a random allowed action is drawn from the observation by rejection. Beside the speed
stands a bound: the bytes and operations that a step needs at least (`benchmarks.throughput.step_cost`), divided
by the copy bandwidth and the matrix rate that are measured on the same device in the same run.

On a CPU XLA runs nearly all of a step on one core. The sessions are therefore split over as many CPU devices of
JAX as there are cores (`hardware.use_cores`), each of which runs the program on its share. The same program on
one device is timed beside it, in turn.
"""

import math
import time
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from benchmarks import hardware
from benchmarks.hardware import Device, Timing
from benchmarks.throughput.rollout import Runner, compare_in_turn
from benchmarks.throughput.step_cost import state_bytes, step_bytes, step_flops, tree_bytes
from jaxsim import Dataset, EnvParams, InputError, UserSimulator, make, make_mesh, place_params
from jaxsim.out_of_memory import is_out_of_memory

CPU_BATCHES = (256, 1024, 4096, 16384)
OTHER_BATCHES = (256, 1024, 4096, 16384, 65536, 262144, 1048576)
STEPS = 20  # in one call of the compiled program
_RUN_SECONDS = 0.5  # a timed run repeats the call until it takes at least this long
MEMORY_SHARE = 0.9

Row = dict[str, Any]


class Spread(NamedTuple):
    """Several devices, and the params on each of them."""

    mesh: Mesh
    params: EnvParams


def spread_over(devices: int, params: EnvParams) -> Spread | None:
    """The first of JAX's devices with params on each; None for one device."""
    if devices == 1:
        return None
    mesh = make_mesh(jax.devices()[:devices])
    return Spread(mesh, place_params(params, mesh))


def default_batches() -> tuple[int, ...]:
    """The batch sizes that are measured without `--batches`."""
    return CPU_BATCHES if jax.default_backend() == "cpu" else OTHER_BATCHES


def measure(
    dataset: Dataset,
    batches: tuple[int, ...],
    repeats: int,
    settings: dict[str, Any],
    devices: int = 1,
) -> dict[str, Any]:
    """Measure the environment of a dataset; the content of `--json` without the votes.

    Args:
        dataset: from `jaxsim.load_dataset`.
        batches: numbers of sessions, at least one; measured in ascending order, as far as memory goes.
        repeats: timed runs of each figure.
        settings: further arguments of `jaxsim.make`.
        devices: how many devices the sessions are split over, where their number is a multiple of it.

    Raises:
        InputError: a setting that does not suit the dataset, or a first batch that does not fit the memory.
    """
    begin = time.perf_counter()
    env, params = make(dataset, **settings)
    jax.block_until_ready(params)
    make_seconds = time.perf_counter() - begin
    print("measuring the device ...", flush=True)
    before = hardware.measure_device(repeats)
    spread = spread_over(devices, params)
    rows = measure_batches(env, params, sorted(set(batches)), repeats, spread)
    best = max(rows, key=lambda row: row["steps_per_second"])
    print("comparing with the same program without resets ...", flush=True)
    reset = reset_cost(env, params, best["batch"], repeats, spread)
    print("measuring the device again ...", flush=True)
    after = hardware.measure_device(repeats)
    return {
        "device": hardware.device_name(),
        "jax": jax.__version__,
        "dataset": dataset.name,
        "items": env.num_items,
        "users": env.num_users,
        "catalogue": env.catalogue,
        "prefixes": env.prefixes,
        "devices": devices,
        "best": {name: best[name] for name in ("batch", "steps_per_second", "compile_seconds")},
        **_bound(env, params, before, after, best["steps_per_second"]),
        "memory": _memory(env, params),
        "make_seconds": make_seconds,
        "reset": reset,
        "repeats": repeats,
        "rows": rows,
    }


def _bound(
    env: UserSimulator, params: EnvParams, before: Device, after: Device, best_speed: float
) -> dict[str, Any]:
    """The fields of the result that say what the device could do at best."""
    device = before.better(after)
    step = {"bytes": step_bytes(env, params), "flops": step_flops(env, params)}
    bounds = {"copy": device.copy / step["bytes"], "matmul": device.matmul / step["flops"]}
    bound = min(bounds.values())
    return {
        "bound_steps_per_second": bound,
        "fraction_of_bound": best_speed / bound,
        "bounds": bounds,
        "step": step,
        "measured": {
            "copy_bytes_per_second": device.copy,
            "read_bytes_per_second": device.read,
            "matmul_flops_per_second": device.matmul,
            "copy_before_and_after": [before.copy, after.copy],
        },
    }


def _memory(env: UserSimulator, params: EnvParams) -> dict[str, int | None]:
    return {
        "state_bytes_per_session": state_bytes(env, params),
        "params_bytes": tree_bytes(params),
        "peak_device_bytes": hardware.peak_device_bytes(),
        "peak_process_bytes": hardware.peak_process_bytes(),
    }


def measure_batches(
    env: UserSimulator,
    params: EnvParams,
    batches: list[int],
    repeats: int,
    spread: Spread | None = None,
) -> list[Row]:
    """A row for each batch size, as far as memory goes."""
    rows: list[Row] = []
    for batch in batches:
        print(f"measuring {batch:,} sessions at once ...", flush=True)
        try:
            rows.append(measure_batch(env, params, batch, repeats, spread))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            print(f"{batch:,} sessions do not fit the device's memory", flush=True)
            break
    if not rows:
        raise InputError(f"{batches[0]:,} sessions do not fit the device's memory: lower --batches")
    return rows


def runner_on(
    env: UserSimulator,
    params: EnvParams,
    batch: int,
    steps: int,
    resets: bool = True,
    spread: Spread | None = None,
) -> Runner:
    """The runner of B sessions: on several devices if B is a multiple of their number, otherwise on one."""
    if spread is None or batch % spread.mesh.size:
        return Runner(env, params, batch, steps, resets)
    return Runner(env, spread.params, batch, steps, resets, spread.mesh)


def measure_batch(
    env: UserSimulator,
    params: EnvParams,
    batch: int,
    repeats: int,
    spread: Spread | None = None,
) -> Row:
    """Speed, compile time and memory of B sessions at once; on several devices also the speed on one.

    Raises:
        MemoryError: B sessions cannot fit; raised before any is started.
    """
    spread = None if spread is None or batch % spread.mesh.size else spread
    devices = 1 if spread is None else spread.mesh.size
    # The sessions that one device steps are there beside those that all devices step.
    states = batch * state_bytes(env, params) * min(devices, 2)
    if devices * tree_bytes(params) + states > MEMORY_SHARE * hardware.device_memory():
        raise MemoryError
    jax.clear_caches()  # a trace of another batch size would shorten the compilation
    runner = runner_on(env, params, batch, STEPS, spread=spread)
    calls = calls_of(runner)
    timing = Timing.of([runner.seconds(calls) for _ in range(repeats)])
    steps = calls * STEPS * batch
    row: Row = {
        "batch": batch,
        "devices": devices,
        "steps_per_second": steps / timing.median,
        "low_quartile": steps / timing.high,
        "high_quartile": steps / timing.low,
        "compile_seconds": runner.compile_seconds,
        "program_bytes": _program_bytes(runner, devices),
        "states_bytes": batch * state_bytes(env, params),
        "like_rate": float(runner.likes),
        "timed_steps": steps,
    }
    if devices > 1:
        row["one_device"] = _one_device(env, params, batch, runner, repeats)
    return row


def _program_bytes(runner: Runner, devices: int) -> int | None:
    """Bytes of the program on all devices."""
    of_device = hardware.program_bytes(runner.program)
    return None if of_device is None else devices * of_device


def _one_device(
    env: UserSimulator, params: EnvParams, batch: int, spread_runner: Runner, repeats: int
) -> dict[str, float]:
    """Speed of the same program on one device, in turn with the one on several.

    Returns:
        `steps_per_second` (median), and `ratio`: the median ratio of the speed on several devices to that on one,
        in neighbouring runs, with its `low_quartile` and `high_quartile`.
    """
    runners = {"one": Runner(env, params, batch, STEPS), "several": spread_runner}
    calls = {name: calls_of(runner) for name, runner in runners.items()}
    results = compare_in_turn(runners, calls, STEPS * batch, "one", repeats)
    several = results["several"]
    ratio = {name: several[name] for name in ("ratio", "low_quartile", "high_quartile")}
    return {"steps_per_second": results["one"]["steps_per_second"], **ratio}


def calls_of(runner: Runner) -> int:
    """How many calls of the program a timed run takes."""
    runner.seconds(calls=1)  # the first call warms up
    return math.ceil(_RUN_SECONDS / runner.seconds(calls=1))


def reset_cost(
    env: UserSimulator,
    params: EnvParams,
    batch: int,
    repeats: int,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """Speed with automatic reset against the same program without it; the two run in turn from fresh sessions.

    Returns:
        `with_reset` and `without_reset`: steps per second, medians; `ratio`: median of the ratios of neighbouring
        runs, with its `low_quartile` and `high_quartile`; `batch`: sessions at once; `steps`: steps of one run.
    """
    steps = min(STEPS, env.session_capacity)
    calls = min(2, env.session_capacity // steps)  # without reset, sessions must stay in capacity
    runners = [runner_on(env, params, batch, steps, resets, spread) for resets in (True, False)]
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
    """Seconds of `rounds` times `calls` calls; each round starts from fresh sessions, which are not timed."""
    seconds = 0.0
    for _ in range(rounds):
        runner.restart()
        seconds += runner.seconds(calls)
    return seconds
