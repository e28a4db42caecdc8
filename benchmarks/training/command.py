"""`python -m benchmarks training`: how fast our agents learn, beside Stable-Baselines3's.

Both learn on the same simulator, with the same network, on the same machine. Two figures are measured. The first
is environment steps per second with learning, where an agent learns from each step equally often: as often as
Stable-Baselines3 does by default. The second is the training time until the greedy policy earns as much in fixed
sessions as the baseline like_rate. Stable-Baselines3 runs with one environment and its defaults, and with many
environments and large batches. Its speed is also measured on an environment that does nothing: no environment
can be faster than that.
"""

from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from agents.algorithms.registry import ALGORITHMS
from benchmarks.checks import check_counts
from benchmarks.hardware import device_name
from benchmarks.output import check_json, write_json
from benchmarks.training.own_agents import Plan, own_row
from benchmarks.training.report import format_report
from benchmarks.training.sb3_agents import SB3_KEYS, sb3_row
from benchmarks.training.target import SESSIONS_SEED, like_rate_target
from jaxsim import Dataset, InputError, load_dataset, make


def run_training(
    dataset: str = "ml-100k",
    agents: tuple[str, ...] = (),
    sb3: bool = True,
    repeats: int = 5,
    limit_seconds: float = 240.0,
    seeds: int = 1,
    sessions: int = 512,
    seed: int = 0,
    torch_threads: int = 0,
    iterations: int = 0,
    json: Path | None = None,
) -> None:
    """Measure how fast agents learn, beside Stable-Baselines3's.

    Example:
        --agents ppo dqn --no-sb3

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        agents: which of ppo, trpo, a2c, dqn; without any, all.
        sb3: also run Stable-Baselines3's agents; takes most of the time.
        repeats: timed runs of each speed; the median counts.
        limit_seconds: longest training towards like_rate's reward, for each agent and setting; 0 skips this part.
        seeds: trainings towards like_rate's reward, for each agent and setting; the median counts.
        sessions: fixed sessions in which the reward is measured.
        seed: number of the set of fixed sessions, and seed of the first training.
        torch_threads: threads of Stable-Baselines3; 0 uses torch's own number. On a busy machine 1 is faster.
        iterations: of a timed call of our agents' program; 0 takes those between two log lines. Fewer suit large
            catalogues.
        json: also write the result here.
    """
    check_json(json)
    names = chosen_agents(agents)
    for name, value in (("repeats", repeats), ("seeds", seeds), ("sessions", sessions)):
        if value < 1:
            raise InputError(f"--{name} {value}: give a whole number from 1")
    if not 0 <= limit_seconds < float("inf"):
        raise InputError(f"--limit-seconds {limit_seconds}: give seconds, or 0 for no training")
    check_counts(least=0, iterations=iterations)
    if torch_threads < 0:
        raise InputError(
            f"--torch-threads {torch_threads}: give a whole number, or 0 for torch's own"
        )
    comparison = import_sb3(torch_threads) if sb3 else None
    packed = load_dataset(dataset)
    plan = Plan(repeats, limit_seconds, seeds, sessions, seed, iterations)
    result = measure(packed, names, plan, comparison)
    print(format_report(result))
    write_json(json, result)


def chosen_agents(names: tuple[str, ...]) -> list[str]:
    """The agents to measure, in the order of the table.

    Raises:
        InputError: one is unknown.
    """
    for name in names:
        if name not in ALGORITHMS:
            raise InputError(f"--agents {name}: unknown; choose from {', '.join(ALGORITHMS)}")
    return [name for name in ALGORITHMS if name in (names or ALGORITHMS)]


def import_sb3(threads: int = 0) -> ModuleType:
    """The module that runs Stable-Baselines3, on `threads` threads of torch; 0 keeps torch's own number.

    Raises:
        InputError: it is not installed.
    """
    try:
        version("stable-baselines3")
    except PackageNotFoundError:
        raise InputError(
            "Stable-Baselines3 is not installed: pip install -c constraints.txt -e '.[sb3]', or pass --no-sb3"
        ) from None
    # Imported here because torch takes seconds to import, and is an optional dependency.
    from benchmarks.training import sb3

    if threads:
        sb3.torch.set_num_threads(threads)
    return sb3


def measure(
    dataset: Dataset, names: Iterable[str], plan: Plan, comparison: ModuleType | None
) -> dict[str, Any]:
    """The content of `--json`."""
    print(f"preparing the simulator of {dataset.name} ...", flush=True)
    env, params = make(dataset)
    target = None
    if plan.limit_seconds:
        print("measuring what like_rate earns ...", flush=True)
        target = like_rate_target(dataset, env, params, plan.sessions, plan.seed)
    rows = []
    for name in names:
        row = own_row(name, env, params, plan, target)
        if comparison is not None and name in comparison.MODELS:
            row |= sb3_row(name, env, params, plan, target, comparison)
        rows.append({**dict.fromkeys(SB3_KEYS), **row})
    return {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": dataset.name,
        "like_rate_reward": None if target is None else target.reward,
        "sessions_seed": SESSIONS_SEED + plan.seed,
        **asdict(plan),
        "sb3": None if comparison is None else comparison.describe(),
        "rows": rows,
    }
