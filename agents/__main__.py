"""The command line: `python -m agents train dqn --dataset ml-100k`, `evaluate RUN`, `compare RUN RUN`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import tyro

from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.item_vectors import keyword_vectors
from agents.algorithms.parallel import lay_out
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.comparison import compare_runs
from agents.evaluation.evaluate import Evaluation, evaluate
from agents.evaluation.plots import learning_curve
from agents.runs.checkpoints import CHECKPOINT_EVERY, Checkpoints
from agents.runs.folder import (
    CHECKPOINTS,
    RUN_FILES,
    TENSORBOARD,
    RunConfig,
    check_output,
    dataset_digest,
    describe_machine,
    environment_settings,
    load_config,
    load_policies,
    named_folder,
    publish,
    save_evaluation,
    unfinished_run,
    write_results,
)
from agents.runs.memory import check_memory
from agents.runs.metrics import (
    CSVWriter,
    MetricsWriter,
    ProgressBar,
    TensorBoardWriter,
    check_tensorboard,
)
from agents.runs.training import Training, check_seeds, train_seeds
from jaxsim import (
    Dataset,
    EnvParams,
    InputError,
    Repeats,
    Semantics,
    UserSimulator,
    load_dataset,
    make,
)
from jaxsim.cli import Commands, main


@dataclass(frozen=True)
class Experiment:
    """What an algorithm is trained and evaluated on."""

    dataset: str = "ml-100k"
    """Name that `python -m prep build` has built, or path of a packed folder."""
    seeds: int = 3
    """Seeds to train at once."""
    seed: int = 0
    """The first of them."""
    evaluation_seed: int = 1_000_000
    """Seed of the fixed sessions that everything is evaluated on."""
    semantics: Semantics = "paper"
    """The paper's decisions, or those of its authors' public code."""
    repeats: Repeats = "mask"
    """Whether an item of the window may be recommended again."""
    history_length: int = 50
    """Latest training interactions that a session starts with."""
    session_capacity: int = 100
    """Recommendations after which a session is cut."""
    devices: int = 1
    """Devices that share the work: whole seeds each if they divide evenly, otherwise sessions of every seed."""


@dataclass(frozen=True)
class RunOptions:
    """Where a run is written, and how; its results do not depend on it."""

    out: Path | None = None
    """Run folder to write; without it runs/ALGORITHM-DATASET."""
    overwrite: bool = False
    """Replace a run in the folder."""
    resume: bool = False
    """Go on with a run that was stopped, from its latest checkpoint."""
    checkpoint_every: int = CHECKPOINT_EVERY
    """Fortieths of a run between two checkpoints."""
    keep_checkpoints: bool = False
    """Keep the latest checkpoints in the finished run folder."""
    tensorboard: bool = False
    """Write the metrics for TensorBoard, too."""

    def check(self) -> None:
        """Raise an InputError for the first option that makes no sense."""
        if self.checkpoint_every < 1:
            raise InputError(f"checkpoint_every is {self.checkpoint_every}, but must be at least 1")
        if self.resume and self.overwrite:
            raise InputError("--resume goes on with a run and --overwrite replaces it: choose one")
        if self.tensorboard:
            check_tensorboard()


def train(
    algorithm: str, settings: AlgorithmConfig, experiment: Experiment, options: RunOptions
) -> None:
    """Train, evaluate beside the baselines, and write the run folder."""
    out = named_folder(options.out or Path("runs") / f"{algorithm}-{Path(experiment.dataset).name}")
    settings.check()
    options.check()
    check_seeds(experiment.seed, experiment.seeds)
    check_seeds(experiment.evaluation_seed, name="evaluation_seed")
    check_output(out, options.overwrite, options.resume)
    packed = load_dataset(experiment.dataset)
    print(f"preparing the simulator of {packed.name} ...", flush=True)
    env, params = make(
        packed,
        semantics=experiment.semantics,
        repeats=experiment.repeats,
        history_length=experiment.history_length,
        session_capacity=experiment.session_capacity,
    )
    trainer = ALGORITHMS[algorithm][1](env, settings)
    config = RunConfig(
        algorithm=algorithm,
        settings=asdict(settings),
        dataset=experiment.dataset,
        dataset_digest=dataset_digest(packed),
        environment=environment_settings(env),
        seed=experiment.seed,
        num_seeds=experiment.seeds,
        evaluation_seed=experiment.evaluation_seed,
        devices=experiment.devices,
        machine=describe_machine(),
    )
    lay_out(trainer, experiment.seeds, experiment.devices)  # refuses what cannot be split
    check_memory(trainer, params, experiment.seeds, experiment.devices)
    item_vectors = _item_vectors(packed, settings)
    print(
        f"{algorithm} on {packed.name}: {env.num_items:,} items, {len(params.session_users):,} training users, "
        f"{experiment.seeds} seeds, on {config.machine['device']}"
    )
    with unfinished_run(out, config, options.resume) as partial:
        training = _train_in(partial, trainer, params, item_vectors, config, options)
        config = replace(
            config,
            steps=training.steps,
            seconds=training.seconds,
            compile_seconds=training.compile_seconds,
        )
        variables = [
            jax.tree.map(lambda x, s=s: x[s], training.variables) for s in range(experiment.seeds)
        ]
        evaluation = _evaluate(config, packed, env, params, variables)
        title = f"{algorithm.upper()} on {packed.name}, {experiment.seeds} seeds"
        curve = learning_curve(training.log, evaluation.rows, title)
        write_results(partial, config, training, evaluation, curve)
        publish(out, options.keep_checkpoints)
    print(f"\n{evaluation.report()}\n\nwritten to {out}: {', '.join(RUN_FILES)}")


def _train_in(
    partial: Path,
    trainer: Algorithm,
    params: EnvParams,
    item_vectors: jax.Array | None,
    config: RunConfig,
    options: RunOptions,
) -> Training:
    """Train, with metrics and checkpoints in the folder of an unfinished run."""
    writers: list[MetricsWriter] = [CSVWriter(partial / "metrics.csv"), ProgressBar()]
    if options.tensorboard:
        writers.append(TensorBoardWriter(partial / TENSORBOARD))
    checkpoints = Checkpoints(partial / CHECKPOINTS, options.checkpoint_every)
    try:
        training = train_seeds(
            trainer,
            params,
            config.seed,
            config.num_seeds,
            item_vectors=item_vectors,
            checkpoints=checkpoints,
            writers=writers,
            devices=config.devices,
        )
    except KeyboardInterrupt:
        how = "--resume in place of --overwrite" if options.overwrite else "--resume"
        print(f"\n{partial}: stopped; the same command with {how} goes on", flush=True)
        raise
    finally:
        checkpoints.close()
    steps, seeds = training.steps, config.num_seeds
    print(
        f"trained {seeds} seeds of {steps:,} steps in {training.seconds:.1f} s "
        f"({steps * seeds / training.seconds:,.0f} steps/s with learning), "
        f"after {training.compile_seconds:.1f} s of compilation"
    )
    return training


def _item_vectors(packed: Dataset, settings: AlgorithmConfig) -> jax.Array | None:
    if settings.item_embedding == "learned":
        return None
    return jnp.asarray(keyword_vectors(packed, settings.width))


def _evaluate(
    config: RunConfig,
    packed: Dataset,
    env: UserSimulator,
    params: EnvParams,
    variables: list[Any],
) -> Evaluation:
    """Evaluate the network of each seed, greedy and as it ends training, beside the baselines."""
    trainer = ALGORITHMS[config.algorithm][1](env, config.make_settings())
    return evaluate(
        packed,
        env,
        params,
        {config.algorithm: [trainer.policy_of(one) for one in variables]},
        jax.random.key(config.evaluation_seed),
        {config.algorithm: (config.steps, config.seconds)},
        sampled={config.algorithm: [trainer.policy_of(one, sampled=True) for one in variables]},
    )


def _train_command(algorithm: str) -> Callable[..., None]:
    config_type = ALGORITHMS[algorithm][0]

    def command(
        settings: Annotated[config_type, tyro.conf.arg(name="")] = config_type(),  # type: ignore[valid-type]  # noqa: B008
        experiment: Annotated[Experiment, tyro.conf.arg(name="")] = Experiment(),
        options: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions(),
    ) -> None:
        """Train on the simulator of a dataset and evaluate beside the baselines."""
        train(algorithm, settings, experiment, options)

    return command


def train_again(
    config: Annotated[Path, tyro.conf.Positional],
    options: Annotated[RunOptions, tyro.conf.arg(name="")] = RunOptions(),
    dataset: str | None = None,
) -> None:
    """Train as the config.json of a run says: on the same device and versions, to the same bits.

    Args:
        config: the file, or its run folder.
        options: where to write it, and how.
        dataset: where the dataset is now, if not where it was.
    """
    saved = load_config(config)
    where = dataset or saved.dataset
    _check_build(config, saved, load_dataset(where), dataset)
    experiment = Experiment(
        dataset=where,
        seeds=saved.num_seeds,
        seed=saved.seed,
        evaluation_seed=saved.evaluation_seed,
        devices=saved.devices,
        **saved.make_options(),
    )
    train(saved.algorithm, saved.make_settings(), experiment, options)


def _check_build(run: Path, config: RunConfig, packed: Dataset, dataset: str | None) -> None:
    """Refuse another build of the dataset than a run was trained on; `dataset` is where it was said to be now."""
    if dataset_digest(packed) == config.dataset_digest:
        return
    remedy = "pass --dataset with the folder of that build" if dataset is None else "pass that one"
    raise InputError(
        f"{run}: was trained on another build of the dataset than {dataset or config.dataset} is now; {remedy}, "
        "or train anew"
    )


def evaluate_run(run: Annotated[Path, tyro.conf.Positional], dataset: str | None = None) -> None:
    """Evaluate the policies of a run again, beside the baselines, and rewrite what was found.

    Args:
        run: the run folder.
        dataset: where the dataset is now, if not where it was.
    """
    config = load_config(run)
    policies = load_policies(run)
    packed = load_dataset(dataset or config.dataset)
    _check_build(run, config, packed, dataset)
    env, params = make(packed, **config.make_options())
    variables = [policy.variables for policy in policies]
    evaluation = _evaluate(config, packed, env, params, variables)
    save_evaluation(run, config, evaluation, describe_machine()["device"])
    print(evaluation.report())


COMMANDS: Commands = {
    "train": {**{name: _train_command(name) for name in ALGORITHMS}, "--config": train_again},
    "evaluate": evaluate_run,
    "compare": compare_runs,
}

if __name__ == "__main__":
    main(
        COMMANDS,
        prog="python -m agents",
        description="Train recommenders on the simulator, and evaluate them beside honest baselines.",
    )
