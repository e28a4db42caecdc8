"""Table 2 of the paper: what four agents earn on the simulator, beside baselines.

Every agent is trained with several seeds. It is evaluated, greedy and sampled, on the fixed sessions of
`python -m agents evaluate`, for users it trained on and for held-out users. The paper's own table is printed, too;
its numbers are not comparable with ours (see `NOT_COMPARABLE`).
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import pandas as pd
import tyro
from matplotlib.figure import Figure

from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.networks import ItemStart
from agents.algorithms.policy import EvaluatedPolicy, Simulator
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.evaluate import Evaluation, evaluate
from agents.evaluation.plots import plot_curves
from agents.evaluation.returns import SAMPLED
from agents.evaluation.table import Row, to_json
from agents.runs.config import dataset_digest, environment_settings
from agents.runs.item_start import item_start
from agents.runs.progress import Training
from agents.runs.training import train_seeds
from benchmarks.hardware import device_name
from benchmarks.output import check_json, check_plot, write_json, write_plot
from jaxsim import Dataset, EnvParams, InputError, Semantics, load_dataset, make
from jaxsim.departure import DepartureKind
from jaxsim.rewards import SignalName
from jaxsim.tables import format_table

AGENTS = ("ppo", "trpo", "a2c", "dqn")  # in the paper's order

PAPER: dict[str, dict[str, tuple[float, float, float]]] = {
    "yelp": {
        "ppo": (9.97, 141.57, 34.59),
        "trpo": (13.45, 157.42, 40.07),
        "a2c": (24.15, 267.60, 48.35),
        "dqn": (27.56, 330.98, 49.43),
    },
    "amazon-music": {
        "ppo": (10.49, 129.03, 29.30),
        "trpo": (11.31, 140.15, 32.46),
        "a2c": (13.45, 141.03, 29.54),
        "dqn": (16.70, 181.42, 33.18),
    },
    "amazon-games": {
        "ppo": (18.72, 208.43, 33.15),
        "trpo": (21.35, 242.26, 37.64),
        "a2c": (27.56, 317.56, 43.52),
        "dqn": (26.43, 269.02, 40.73),
    },
    "amazon-movies": {
        "ppo": (29.42, 310.69, 38.59),
        "trpo": (27.47, 301.40, 36.70),
        "a2c": (31.72, 354.34, 42.37),
        "dqn": (38.60, 416.18, 44.50),
    },
    "anime": {
        "ppo": (14.12, 155.74, 25.46),
        "trpo": (14.58, 163.44, 24.27),
        "a2c": (21.50, 242.95, 31.52),
        "dqn": (18.03, 201.94, 30.67),
    },
}
"""The paper's Table 2: A.Rwd, T.Rwd and Liking% of each agent."""

NOT_COMPARABLE = (
    "The paper's numbers are not comparable with ours. It used other copies of the datasets and another language",
    "model, and a rating of 3 is a like there. Its authors' code allows a liked item to be recommended again and",
    "again. The paper does not say how long a session lasts, how T.Rwd is summed (ours is 12 A.Rwd), or how long",
    "the agents were trained. It has no baselines: without random and oracle, a reward alone does not say whether",
    "an agent is good. Compare the share of the way from random to the oracle, and the paired differences.",
)


Preset = Literal["default", "personal", "planning"]

_FROM_LOGS: dict[str, Any] = {"encoder": "residual", "item_embedding": "logs"}
# More passes over fewer sessions than the defaults have, as these agents were tuned.
_PATIENT_PPO = {"num_envs": 64, "rollout_length": 16, "num_epochs": 4, "num_minibatches": 4}
PERSONAL: dict[str, dict[str, Any]] = {
    "ppo": {**_FROM_LOGS, **_PATIENT_PPO, "log_odds_scale": 5.0},
    "trpo": {**_FROM_LOGS, "log_odds_scale": 5.0},
    "a2c": {**_FROM_LOGS, "log_odds_scale": 5.0},
    "dqn": {
        **_FROM_LOGS,
        "gradient_steps": 2,
        "log_odds_scale": 0.2,
        "exploration_initial_eps": 0.1,
        "learning_rate": 5e-4,
    },
}
"""Settings by agent that differ from the defaults, for agents that adapt to each user."""
SLATES: dict[str, dict[str, Any]] = {
    # With slates DQN's log-odds are those by which a user chooses, not values.
    "dqn": {"log_odds_scale": 1.0},
}
"""What differs in these settings with slates."""
_FAR_SIGHTED = {"gamma": 0.95, "gae_lambda": 0.9}
PLANNING: dict[str, dict[str, Any]] = {
    **{name: {**PERSONAL[name], **_FAR_SIGHTED} for name in ("ppo", "trpo", "a2c")},
    "dqn": {**PERSONAL["dqn"], "gamma": 0.95},
}
"""The same, with a discount that makes it pay to keep a user who may leave."""
PRESETS: dict[Preset, dict[str, dict[str, Any]]] = {
    "default": {},
    "personal": PERSONAL,
    "planning": PLANNING,
}


@dataclass(frozen=True)
class Table2:
    """What was measured on one dataset.

    Attributes:
        result: the content of `--json`.
        evaluation: rows of all agents and baselines.
        logs: agent to the log of its `Training`.
    """

    result: dict[str, Any]
    evaluation: Evaluation
    logs: dict[str, pd.DataFrame]


def run_table2(
    dataset: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    agents: tuple[str, ...] = (),
    seeds: int = 5,
    seed: int = 0,
    total_steps: int | None = None,
    semantics: Semantics = "paper",
    departure: DepartureKind = "constant",
    slate_size: int = 1,
    reward: SignalName = "like",
    preset: Preset = "default",
    evaluation_seed: int = 1_000_000,
    json: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Train every agent on a dataset's simulator and print what they earn, beside the baselines and the paper.

    Example:
        --dataset ml-100k --seeds 5

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder; give it several times for
            several datasets. Without any, ml-100k.
        agents: agents to train; all of them without this option.
        seeds: seeds of each agent, trained at once.
        seed: the first of them.
        total_steps: environment steps of a seed, for a quick look; by default each agent's own setting.
        semantics: how users decide, see `jaxsim.make`.
        departure: when users leave, see `jaxsim.make`.
        slate_size: items that users see at a time, see `jaxsim.make`.
        reward: what a response earns, see `jaxsim.make`; A.Rwd is the sum of it.
        preset: settings of the agents: their defaults; those for agents that start from keywords and training
            logs and adapt to each user; or the same with a discount of 0.95.
        evaluation_seed: seed of the fixed sessions.
        json: also write the result here: an object, or a list of objects if there are several datasets.
        plot: also draw the learning curves here (PNG, or the format that the name ends in).
    """
    check_json(json)
    check_plot(plot)
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: give a whole number from 1")
    configs = configs_of(agents or all_agents(), total_steps, preset, slates=slate_size > 1)
    datasets = [load_dataset(name) for name in dataset or ("ml-100k",)]
    tables = []
    for packed in datasets:
        users = {
            "semantics": semantics,
            "departure": departure,
            "slate_size": slate_size,
            "reward": reward,
        }
        tables.append(measure(packed, configs, seeds, seed, evaluation_seed, users))
        print(f"\n{format_report(tables[-1])}\n", flush=True)
    print(format_paper())
    results: Any = [table.result for table in tables]
    write_json(json, results[0] if len(tables) == 1 else results)
    if plot is not None:
        write_plot(plot, plot_tables(tables))


def all_agents() -> tuple[str, ...]:
    """The names of all algorithms: first those of the paper, in its order."""
    in_paper = [name for name in AGENTS if name in ALGORITHMS]
    return (*in_paper, *(name for name in ALGORITHMS if name not in in_paper))


def configs_of(
    agents: tuple[str, ...],
    total_steps: int | None,
    preset: Preset = "default",
    slates: bool = False,
) -> dict[str, AlgorithmConfig]:
    """Agent to the settings of a preset, of single items or of slates, with `total_steps` if it is given.

    Raises:
        InputError: an agent is unknown or given twice, or `total_steps` is out of bounds.
    """
    configs = {}
    for name in agents:
        if name not in ALGORITHMS:
            raise InputError(f"--agents {name}: unknown; choose from {', '.join(all_agents())}")
        if name in configs:
            raise InputError(f"--agents {name}: is given twice")
        changes = {**PRESETS[preset].get(name, {})}
        if slates and preset != "default":
            changes |= SLATES.get(name, {})
        config = ALGORITHMS[name].config(**changes)
        configs[name] = config if total_steps is None else replace(config, total_steps=total_steps)
        configs[name].check()
    return configs


def measure(
    dataset: Dataset,
    configs: Mapping[str, AlgorithmConfig],
    seeds: int,
    seed: int,
    evaluation_seed: int,
    users: Mapping[str, Any] | None = None,
) -> Table2:
    """Train each agent and evaluate all of them on one dataset.

    Args:
        dataset: from `jaxsim.load_dataset`.
        configs: agent to its settings.
        seeds: number of seeds of each agent, at least 1.
        seed: the first of them.
        evaluation_seed: seed of the fixed sessions.
        users: options of `jaxsim.make`.

    Raises:
        InputError: a training diverged, or the dataset lacks what users or agents need.
    """
    print(f"preparing the simulator of {dataset.name} ...", flush=True)
    env, params = make(dataset, **(users or {}))
    trainings: dict[str, Training] = {}
    greedy: dict[str, list[EvaluatedPolicy]] = {}
    sampled: dict[str, list[EvaluatedPolicy]] = {}
    for name, config in configs.items():
        print(f"{name}:", flush=True)
        trainer = ALGORITHMS[name].algorithm(env, config)
        items = item_start(dataset, config.item_embedding, config.width)
        trainings[name] = train_agent(trainer, params, seed, seeds, items)
        greedy[name] = policies_of(trainer, trainings[name], seeds, sampled=False)
        sampled[name] = policies_of(trainer, trainings[name], seeds, sampled=True)
    start = time.perf_counter()
    cost = {name: (training.steps, training.seconds) for name, training in trainings.items()}
    key = jax.random.key(evaluation_seed)
    evaluation = evaluate(dataset, env, params, greedy, key, cost, sampled)
    return Table2(
        {
            **_setting(dataset, env, params),
            "seeds": seeds,
            "seed": seed,
            "evaluation_seed": evaluation_seed,
            "evaluation_seconds": time.perf_counter() - start,
            "training": {name: _cost(t, configs[name], seeds) for name, t in trainings.items()},
            "warnings": evaluation.warnings,
            "rows": rows_of(evaluation.rows, trainings),
            "curves": {name: _curve(training.log) for name, training in trainings.items()},
        },
        evaluation,
        {name: training.log for name, training in trainings.items()},
    )


def train_agent(
    trainer: Algorithm,
    params: EnvParams,
    seed: int,
    seeds: int,
    items: ItemStart | None = None,
) -> Training:
    """Train several seeds at once, and print how fast that was."""
    training = train_seeds(trainer, params, seed, seeds, items)
    print(
        f"trained {seeds} seeds of {training.steps:,} steps in {training.seconds:.1f} s, "
        f"after {training.compile_seconds:.1f} s of compilation",
        flush=True,
    )
    return training


def policies_of(
    trainer: Algorithm, training: Training, seeds: int, sampled: bool
) -> list[EvaluatedPolicy]:
    """The policy of each seed."""
    return [
        trainer.policy_of(jax.tree.map(lambda x, s=s: x[s], training.variables), sampled=sampled)
        for s in range(seeds)
    ]


def rows_of(rows: list[Row], trainings: Mapping[str, Training]) -> list[dict[str, Any]]:
    """The rows as dictionaries. The policy NAME is the greedy one, the sampled one is called NAME_sampled."""
    named = [
        replace(row, policy=f"{row.policy}_{SAMPLED}") if row.mode == SAMPLED else row
        for row in rows
    ]
    return [
        {**plain, "compile_seconds": _compile_seconds(row, trainings)}
        for row, plain in zip(rows, to_json(named), strict=True)
    ]


def _compile_seconds(row: Row, trainings: Mapping[str, Training]) -> float:
    return trainings[row.policy].compile_seconds if row.policy in trainings else 0.0


def _setting(dataset: Dataset, env: Simulator, params: EnvParams) -> dict[str, Any]:
    return {
        "device": device_name(),
        "jax": jax.__version__,
        "dataset": dataset.name,
        "dataset_digest": dataset_digest(dataset),
        "items": env.num_items,
        "training_users": len(params.session_users),
        "environment": environment_settings(env),
    }


def _cost(training: Training, config: AlgorithmConfig, seeds: int) -> dict[str, Any]:
    return {
        "steps": training.steps,
        "seconds": training.seconds,
        "compile_seconds": training.compile_seconds,
        "steps_per_second": seeds * training.steps / training.seconds,
        "settings": asdict(config),
    }


def _curve(log: pd.DataFrame) -> dict[str, list[float]]:
    """Likes per recommendation during training: mean, lowest and highest of the seeds at each logged step."""
    seeds = log.pivot(index="steps", columns="seed", values="like_rate")
    return {
        "steps": seeds.index.tolist(),
        "mean": seeds.mean(axis=1).tolist(),
        "low": seeds.min(axis=1).tolist(),
        "high": seeds.max(axis=1).tolist(),
    }


def format_report(table: Table2) -> str:
    """The result of one dataset as text for a terminal."""
    result = table.result
    costs = [
        (
            name,
            f"{cost['steps']:,}",
            f"{cost['seconds']:.1f}",
            f"{cost['steps_per_second']:,.0f}",
            f"{cost['compile_seconds']:.1f}",
        )
        for name, cost in result["training"].items()
    ]
    lines = [
        f"{result['dataset']}: {result['items']:,} items, {result['training_users']:,} training users, "
        f"{result['seeds']} seeds, semantics {result['environment']['semantics']}, reward "
        f"{result['environment'].get('reward', 'like')}, {result['device']}, "
        f"jax {result['jax']}",
        "",
        table.evaluation.report(),
        "",
        format_table(("agent", "steps per seed", "seconds", "steps/s", "compile s"), costs),
        f"seconds: training all {result['seeds']} seeds together, without compilation; the evaluation took "
        f"{result['evaluation_seconds']:.0f} s",
    ]
    return "\n".join(lines)


def format_paper() -> str:
    """The paper's table, and why it is not comparable."""
    rows = [
        (dataset, *("{:.2f} {:.2f} {:.2f}".format(*agents[agent]) for agent in AGENTS))
        for dataset, agents in PAPER.items()
    ]
    title = "the paper's Table 2: A.Rwd, T.Rwd, Liking%"
    return "\n".join([title, format_table(("dataset", *AGENTS), rows), "", *NOT_COMPARABLE])


def plot_tables(tables: list[Table2]) -> Figure:
    """Learning curves, one panel per dataset."""
    figure = Figure(figsize=(11, 5 * len(tables)), layout="constrained")
    panels = figure.subplots(len(tables), 1, squeeze=False)[:, 0]
    for axes, table in zip(panels, tables, strict=True):
        result = table.result
        title = f"{result['dataset']}, {result['seeds']} seeds, {result['device']}"
        plot_curves(axes, table.logs, table.evaluation.rows, title)
    return figure
