"""The command line: `python -m agents train dqn`, `evaluate RUN`, `compare RUN RUN`, `log RUN`, `report RUN`."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.comparison import compare, format_comparison
from agents.evaluation.returns import load_returns
from agents.evaluation.table import finite_or_none
from agents.report.command import ReportOptions, report_runs
from agents.runs.experiment import Experiment, RunOptions, evaluate_again, repeat_run, train_run
from agents.runs.session_log import LogOptions, log_run
from jaxsim.cli import Commands, main
from jaxsim.files import check_file, write_json

_EXPERIMENT, _OPTIONS = Experiment(), RunOptions()


def _train_command(algorithm: str) -> Callable[..., None]:
    config_type = ALGORITHMS[algorithm].config

    def command(
        settings: Annotated[config_type, tyro.conf.arg(name="")] = config_type(),  # type: ignore[valid-type]  # noqa: B008
        experiment: Annotated[Experiment, tyro.conf.arg(name="")] = _EXPERIMENT,
        options: Annotated[RunOptions, tyro.conf.arg(name="")] = _OPTIONS,
    ) -> None:
        """Train on the simulator of a dataset and evaluate beside the baselines.

        Example:
            --dataset ml-100k --seeds 3
        """
        train_run(algorithm, settings, experiment, options)

    return command


def train_again(
    config: Annotated[Path, tyro.conf.Positional],
    options: Annotated[RunOptions, tyro.conf.arg(name="")] = _OPTIONS,
    dataset: str | None = None,
) -> None:
    """Train as the config.json of a run says. On the same device and versions the results have the same bits.

    Example:
        runs/ppo/config.json --out runs/again

    Args:
        config: the file, or its run folder.
        options: where and how to write the new run.
        dataset: name or path of the dataset, if it has moved.
    """
    repeat_run(config, options, dataset)


def evaluate_run(run: Annotated[Path, tyro.conf.Positional], dataset: str | None = None) -> None:
    """Evaluate the policies of a run again, beside the baselines, and write the results to its folder.

    Example:
        runs/ppo

    Args:
        run: the run folder.
        dataset: name or path of the dataset, if it has moved.
    """
    evaluate_again(run, dataset)


def compare_runs(
    a: Annotated[Path, tyro.conf.Positional],
    b: Annotated[Path, tyro.conf.Positional],
    json: Path | None = None,
) -> None:
    """Compare two runs on the same sessions: which one earns more, and whether the difference may be chance.

    Example:
        runs/ppo runs/dqn

    Args:
        a: a run folder.
        b: another, evaluated on the same dataset, environment and evaluation seed.
        json: also write the result to this file.
    """
    check_file("--json", json)
    first, second = load_returns(a), load_returns(b)
    differences = compare(first, second)
    print(format_comparison(first, second, differences))
    content = {
        **{
            name: {"run": str(run.run), "policy": run.policy, "seeds": run.seeds}
            for name, run in (("a", first), ("b", second))
        },
        **first.identity,
        "rows": [{**finite_or_none(asdict(x)), "verdict": x.verdict} for x in differences],
    }
    write_json(json, content)


def log_policy(
    run: Annotated[Path, tyro.conf.Positional],
    options: Annotated[LogOptions, tyro.conf.arg(name="")],
    dataset: str | None = None,
) -> None:
    """Let the policy of a run act, and write what it recommended and what users did: one row for each step.

    Example:
        runs/ppo --episodes 1000 --out logs.parquet

    Args:
        run: the run folder.
        options: whose policy acts, for whom, and where the log is written.
        dataset: name or path of the dataset, if it has moved.
    """
    log_run(run, options, dataset)


def report(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    options: Annotated[ReportOptions, tyro.conf.arg(name="")],
    dataset: str | None = None,
) -> None:
    """Write one page of HTML about finished runs: curves, results, and sample sessions with their reasons.

    Example:
        runs/ppo runs/dqn --out report.html

    Args:
        runs: run folders, evaluated on the same dataset, environment and evaluation seed.
        options: where the page is written, and how many sessions it shows.
        dataset: name or path of the dataset, if it has moved.
    """
    report_runs(runs, options, dataset)


COMMANDS: Commands = {
    "train": {**{name: _train_command(name) for name in ALGORITHMS}, "--config": train_again},
    "evaluate": evaluate_run,
    "compare": compare_runs,
    "log": log_policy,
    "report": report,
}


def run(args: list[str] | None = None) -> None:
    """Run the command line with `args`, by default those of the process."""
    main(
        COMMANDS,
        prog="python -m agents",
        description="Train recommenders on the simulator, and evaluate them beside simple baselines.",
        args=args,
    )
