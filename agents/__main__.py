"""The command line: `python -m agents train dqn --dataset ml-100k`, `python -m agents evaluate RUN`."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import jax
import tyro

from agents.algorithm import AlgorithmConfig
from agents.evaluation import evaluate, format_table
from agents.plots import learning_curve
from agents.run import (
    ALGORITHMS,
    RunConfig,
    check_output,
    dataset_digest,
    describe_machine,
    environment_settings,
    load_config,
    load_policies,
    save_rows,
    save_run,
)
from agents.training import train_seeds
from jaxsim import InputError, Repeats, Semantics, load_dataset, make
from jaxsim.cli import main


def train(
    algorithm: str,
    settings: AlgorithmConfig,
    dataset: str,
    out: Path | None,
    seeds: int,
    seed: int,
    evaluation_seed: int,
    semantics: Semantics,
    repeats: Repeats,
    overwrite: bool,
) -> None:
    """Train, evaluate beside the baselines, and write the run folder."""
    folder = out or Path("runs") / f"{algorithm}-{Path(dataset).name}"
    settings.check()
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: train at least one seed")
    check_output(folder, overwrite)
    packed = load_dataset(dataset)
    print(f"preparing the simulator of {packed.name} ...", flush=True)
    env, params = make(packed, semantics=semantics, repeats=repeats)
    machine = describe_machine()
    print(
        f"{algorithm} on {packed.name}: {env.num_items:,} items, {len(params.session_users):,} training users, "
        f"{seeds} seeds, on {machine['device']}"
    )
    trainer = ALGORITHMS[algorithm][1](env, settings)
    training = train_seeds(trainer, params, seed, seeds)
    print(
        f"trained {seeds} seeds of {training.steps:,} steps in {training.seconds:.1f} s "
        f"({training.steps * seeds / training.seconds:,.0f} steps/s with learning), "
        f"after {training.compile_seconds:.1f} s of compilation"
    )
    config = RunConfig(
        algorithm=algorithm,
        settings=asdict(settings),
        dataset=dataset,
        dataset_digest=dataset_digest(packed),
        environment=environment_settings(env),
        seed=seed,
        num_seeds=seeds,
        evaluation_seed=evaluation_seed,
        steps=training.steps,
        seconds=training.seconds,
        compile_seconds=training.compile_seconds,
        machine=machine,
    )
    variables = [jax.tree.map(lambda x, s=s: x[s], training.variables) for s in range(seeds)]
    policies = [trainer.policy_of(one) for one in variables]
    cost = {algorithm: (training.steps, training.seconds)}
    rows = evaluate(
        packed, env, params, {algorithm: policies}, jax.random.key(evaluation_seed), cost
    )
    title = f"{algorithm.upper()} on {packed.name}, {seeds} seeds"
    save_run(folder, config, training, rows, learning_curve(training.log, rows, title))
    print(
        f"\n{format_table(rows)}\n\nwritten to {folder}: config.json, metrics.csv, metrics.json, "
        "learning_curve.png, policy.safetensors"
    )


def _train_command(algorithm: str) -> Callable[..., None]:
    config_type = ALGORITHMS[algorithm][0]
    default = config_type()

    def command(
        settings: Annotated[config_type, tyro.conf.arg(name="")] = default,  # type: ignore[valid-type]
        dataset: str = "ml-100k",
        out: Path | None = None,
        seeds: int = 3,
        seed: int = 0,
        evaluation_seed: int = 1_000_000,
        semantics: Semantics = "paper",
        repeats: Repeats = "mask",
        overwrite: bool = False,
    ) -> None:
        """Train on the simulator of a dataset and evaluate beside the baselines.

        Args:
            settings: of the algorithm.
            dataset: name that `python -m prep build` has built, or path of a packed folder.
            out: run folder to write; without it runs/ALGORITHM-DATASET.
            seeds: seeds to train at once.
            seed: the first of them.
            evaluation_seed: seed of the fixed sessions that everything is evaluated on.
            semantics: the paper's decisions, or those of its authors' public code.
            repeats: whether an item of the window may be recommended again.
            overwrite: replace a run in the folder.
        """
        train(
            algorithm,
            settings,
            dataset,
            out,
            seeds,
            seed,
            evaluation_seed,
            semantics,
            repeats,
            overwrite,
        )

    return command


def evaluate_run(run: Annotated[Path, tyro.conf.Positional], dataset: str | None = None) -> None:
    """Evaluate the policies of a run again, beside the baselines, and rewrite its metrics.json.

    Args:
        run: the run folder.
        dataset: where the dataset is now, if not where it was.
    """
    config = load_config(run)
    policies = load_policies(run)
    packed = load_dataset(dataset or config.dataset)
    if dataset_digest(packed) != config.dataset_digest:
        raise InputError(
            f"{run}: was trained on another build of {config.dataset}; train again, or pass --dataset"
        )
    env, params = make(
        packed,
        **{
            name: config.environment[name]
            for name in ("semantics", "repeats", "history_length", "session_capacity")
        },
    )
    cost = {config.algorithm: (config.steps, config.seconds)}
    key = jax.random.key(config.evaluation_seed)
    rows = evaluate(packed, env, params, {config.algorithm: list(policies)}, key, cost)
    save_rows(run / "metrics.json", config, rows, describe_machine()["device"])
    print(format_table(rows))


if __name__ == "__main__":
    main(
        {"train": {name: _train_command(name) for name in ALGORITHMS}, "evaluate": evaluate_run},
        prog="python -m agents",
        description="Train recommenders on the simulator, and evaluate them beside honest baselines.",
    )
