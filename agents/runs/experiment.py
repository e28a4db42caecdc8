"""One run from start to end: prepare the simulator, train, evaluate beside the baselines, write the run folder."""

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
from annotated_types import Ge, Gt, Lt

from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.parallel import lay_out
from agents.algorithms.policy import Simulator
from agents.evaluation.evaluate import Evaluation, evaluate
from agents.evaluation.plots import learning_curve
from agents.evaluation.sessions import batch_size
from agents.runs.checkpoints import CHECKPOINT_EVERY, Checkpoints
from agents.runs.config import (
    SLATE_OPTIONS,
    RunConfig,
    dataset_digest,
    describe_machine,
    environment_settings,
    load_config,
    machine_changes,
)
from agents.runs.folder import (
    CHECKPOINTS,
    METRICS_FILE,
    RUN_FILES,
    TENSORBOARD,
    check_output,
    load_variables,
    named_folder,
    publish,
    save_evaluation,
    unfinished_run,
    write_results,
)
from agents.runs.item_start import item_start
from agents.runs.memory import check_memory
from agents.runs.metrics import (
    CSVWriter,
    MetricsWriter,
    ProgressBar,
    TensorBoardWriter,
    check_tensorboard,
)
from agents.runs.progress import Training, split_seeds
from agents.runs.seeds import choose_at_once
from agents.runs.training import NUM_KEYS, check_seeds, compile_seeds, train_seeds
from jaxsim import (
    Dataset,
    EnvParams,
    InputError,
    Repeats,
    Semantics,
    TasteKind,
    load_dataset,
    make,
)
from jaxsim.departure import DepartureKind
from jaxsim.out_of_memory import advice_if_out_of_memory
from jaxsim.rewards import SignalName
from jaxsim.settings import check_settings


@dataclass(frozen=True)
class Experiment:
    """The simulator that an algorithm is trained and evaluated on, and the seeds."""

    dataset: str = "ml-100k"
    """Name of a dataset that `python -m prep build` has built, or path of a packed folder."""
    seeds: Annotated[int, Ge(1)] = 3
    """Number of seeds to train."""
    seed: Annotated[int, Ge(0), Lt(NUM_KEYS)] = 0
    """The first seed; the others follow it."""
    evaluation_seed: Annotated[int, Ge(0), Lt(NUM_KEYS)] = 1_000_000
    """Seed of the fixed sessions of the evaluation."""
    semantics: Semantics = "paper"
    """How users decide: by the paper's votes, as in its authors' public code, or by the taste model; see
    `jaxsim.make`."""
    repeats: Repeats = "mask"
    """Whether an item of the window may be recommended again."""
    taste: TasteKind = "posterior"
    """Whether users of the taste model keep a taste that is drawn when the session begins; see `jaxsim.make`."""
    exposure: bool = False
    """Correct the taste model's probability for what its users would not have chosen; see `jaxsim.make`."""
    departure: DepartureKind = "constant"
    """Whether users leave with a constant probability, or as fitted to the sessions of the training logs; see
    `jaxsim.make`."""
    visits: bool = False
    """Whether an episode is a life of several sessions, in which users return as fitted to the training logs; see
    `jaxsim.make`."""
    horizon_days: Annotated[float, Gt(0)] | None = None
    """Days of a life with --visits; by default 30."""
    satiation: Literal["fitted"] | float | None = None
    """How users of the taste model tire of the same thing in a row: a number from 0, or "fitted"; see
    `jaxsim.satiation`."""
    reward: SignalName = "like"
    """What a response earns: the like, the rating or the duration. A.Rwd is the sum of it."""
    slate_size: Annotated[int, Ge(1)] = 1
    """Items that users see at a time, of which they choose one or none; docs/slates.md. 2 or more need users of
    the taste model."""
    position_effect: float | None = None
    """With slates: slope of a place's utility in the logarithm of its rank; -1 if it is not given."""
    outside_option: float | None = None
    """With slates: utility of choosing none; 0 if it is not given."""
    unchosen: Literal["examined", "top"] | None = None
    """With slates: what enters the history if none is chosen, "examined" if it is not given."""
    history_length: Annotated[int, Ge(1)] = 50
    """Number of latest training interactions that a session starts with."""
    session_capacity: Annotated[int, Ge(1)] = 100
    """Largest number of recommendations in a session."""
    devices: Annotated[int, Ge(1)] = 1
    """Devices that share the work: each gets whole seeds if possible, otherwise sessions of every seed."""
    seeds_at_once: Annotated[int, Ge(1)] | None = None
    """Seeds that a device trains side by side; the others follow. By default 1 on a CPU and all elsewhere."""

    def check(self) -> None:
        """Raise an InputError for the first value that is not valid."""
        check_settings(self)
        check_seeds(self.seed, self.seeds)

    @property
    def slates(self) -> dict[str, Any]:
        """The arguments of `jaxsim.make` for slates."""
        options = {name: getattr(self, name) for name in SLATE_OPTIONS}
        given = {name: value for name, value in options.items() if value is not None}
        return {"slate_size": self.slate_size, **given}


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run is written; its results do not depend on these options."""

    out: Path | None = None
    """Run folder to write; by default runs/ALGORITHM-DATASET."""
    overwrite: bool = False
    """Replace a run in the folder."""
    resume: bool = False
    """Continue a stopped run from its latest checkpoint."""
    checkpoint_every: Annotated[int, Ge(1)] = CHECKPOINT_EVERY
    """Chunks of training between two checkpoints; a run has 40 chunks."""
    keep_checkpoints: bool = False
    """Keep the latest checkpoints in the finished run folder."""
    tensorboard: bool = False
    """Also write the metrics for TensorBoard."""
    dry_run: bool = False
    """Prepare and compile, so that the same run starts at once, but train nothing and write no run folder."""

    def check(self) -> None:
        """Raise an InputError for the first option that is not valid."""
        check_settings(self)
        if self.resume and self.overwrite:
            raise InputError("--resume continues a run and --overwrite replaces it: choose one")
        if self.tensorboard:
            check_tensorboard()


@dataclass(frozen=True)
class PreparedRun:
    """The config of a run with everything that it names: its dataset, simulator and algorithm."""

    config: RunConfig
    dataset: Dataset
    env: Simulator
    params: EnvParams
    algorithm: Algorithm

    def evaluate(self, variables: list[Any]) -> Evaluation:
        """Evaluate the greedy and the stochastic policy of each seed, beside the baselines.

        Args:
            variables: the variables of the network of each seed.
        """
        name, policy_of = self.config.algorithm, self.algorithm.policy_of
        sessions = batch_size(self.env.num_items)
        with advice_if_out_of_memory(
            f"the evaluation runs {sessions:,} sessions at once; end other programs that use the device, or "
            "evaluate on one with more memory"
        ):
            return evaluate(
                self.dataset,
                self.env,
                self.params,
                {name: [policy_of(x) for x in variables]},
                jax.random.key(self.config.evaluation_seed),
                {name: (self.config.steps, self.config.seconds)},
                sampled={name: [policy_of(x, sampled=True) for x in variables]},
            )


def train_run(
    algorithm: str, settings: AlgorithmConfig, experiment: Experiment, options: RunOptions
) -> None:
    """Train, evaluate beside the baselines, and write the run folder.

    Args:
        algorithm: name in `ALGORITHMS`.
        settings: its settings.
        experiment: the simulator and the seeds.
        options: where and how to write the run.

    Raises:
        InputError: a setting is not valid, the dataset cannot be read, the run does not fit the memory or the
            devices, its folder may not be written, or training diverged.
    """
    out = named_folder(options.out or Path("runs") / f"{algorithm}-{Path(experiment.dataset).name}")
    settings.check()
    options.check()
    experiment.check()
    if not options.dry_run:
        check_output(out, options.overwrite, options.resume)
    run = _prepare(algorithm, settings, experiment)
    if options.dry_run:
        _compile(run)
        return
    with unfinished_run(out, run.config, options.resume) as partial:
        training = _train_in(partial, run, options)
        run = replace(run, config=_with_cost(run.config, training))
        evaluation = run.evaluate(split_seeds(training.variables))
        title = f"{algorithm.upper()} on {run.dataset.name}, {experiment.seeds} seeds"
        curve = learning_curve(training.log, evaluation.rows, title)
        write_results(partial, run.config, training, evaluation, curve)
        publish(out, options.keep_checkpoints)
    print(f"\n{evaluation.report()}\n\nwritten to {out}: {', '.join(RUN_FILES)}")


def _prepare(algorithm: str, settings: AlgorithmConfig, experiment: Experiment) -> PreparedRun:
    """Load the dataset, build simulator and algorithm, and check that the run fits devices and memory."""
    dataset = load_dataset(experiment.dataset)
    print(f"preparing the simulator of {dataset.name} ...", flush=True)
    env, params = make(
        dataset,
        semantics=experiment.semantics,
        repeats=experiment.repeats,
        taste=experiment.taste,
        exposure=experiment.exposure,
        departure=experiment.departure,
        visits=experiment.visits,
        horizon_days=experiment.horizon_days,
        satiation=experiment.satiation,
        reward=experiment.reward,
        history_length=experiment.history_length,
        session_capacity=experiment.session_capacity,
        **experiment.slates,
    )
    config = RunConfig(
        algorithm=algorithm,
        settings=asdict(settings),
        dataset=experiment.dataset,
        dataset_digest=dataset_digest(dataset),
        environment=environment_settings(env),
        seed=experiment.seed,
        num_seeds=experiment.seeds,
        evaluation_seed=experiment.evaluation_seed,
        devices=experiment.devices,
        seeds_at_once=choose_at_once(experiment.seeds, experiment.seeds_at_once),
        machine=describe_machine(),
    )
    run = PreparedRun(config, dataset, env, params, config.make_algorithm(env))
    lay_out(run.algorithm, config.num_seeds, config.devices)  # raises if it cannot be split
    check_memory(run.algorithm, params, config.num_seeds, config.devices, config.at_once)
    print(
        f"{algorithm} on {dataset.name}: {env.num_items:,} items, {len(params.session_users):,} training users, "
        f"{config.num_seeds} seeds, on {config.machine['device']}"
    )
    return run


def _compile(run: PreparedRun) -> None:
    """Compile the training of a run."""
    config = run.algorithm.config
    items = item_start(run.dataset, config.item_embedding, config.width)
    seeds, devices, at_once = run.config.num_seeds, run.config.devices, run.config.at_once
    compile_seeds(run.algorithm, run.params, seeds, items, devices, at_once)
    print("nothing is trained: this is a dry run")


def _train_in(partial: Path, run: PreparedRun, options: RunOptions) -> Training:
    """Train, with metrics and checkpoints in the folder of the unfinished run."""
    writers: list[MetricsWriter] = [CSVWriter(partial / METRICS_FILE), ProgressBar()]
    if options.tensorboard:
        writers.append(TensorBoardWriter(partial / TENSORBOARD))
    config = run.algorithm.config
    items = item_start(run.dataset, config.item_embedding, config.width)
    checkpoints = Checkpoints(partial / CHECKPOINTS, options.checkpoint_every)
    seeds = run.config.num_seeds
    try:
        training = train_seeds(
            run.algorithm,
            run.params,
            run.config.seed,
            seeds,
            items=items,
            checkpoints=checkpoints,
            writers=writers,
            devices=run.config.devices,
            at_once=run.config.at_once,
        )
    except KeyboardInterrupt:
        option = "--resume in place of --overwrite" if options.overwrite else "--resume"
        raise KeyboardInterrupt(
            f"{partial} has the checkpoints; to continue, run the same command with {option}"
        ) from None
    finally:
        checkpoints.close()
    print(
        f"trained {seeds} seeds of {training.steps:,} steps in {training.seconds:.1f} s "
        f"({training.steps * seeds / training.seconds:,.0f} steps/s with learning), "
        f"after {training.compile_seconds:.1f} s of compilation"
    )
    return training


def _with_cost(config: RunConfig, training: Training) -> RunConfig:
    return replace(
        config,
        steps=training.steps,
        seconds=training.seconds,
        compile_seconds=training.compile_seconds,
    )


def repeat_run(config: Path, options: RunOptions, dataset: str | None = None) -> None:
    """Train again as the config.json of a run says; arguments as in `agents.commands.train_again`."""
    saved = load_config(config)
    _note_changes(config, saved)
    path = dataset or saved.dataset
    _check_build(config, saved, load_dataset(path), dataset)
    experiment = Experiment(
        dataset=path,
        seeds=saved.num_seeds,
        seed=saved.seed,
        evaluation_seed=saved.evaluation_seed,
        devices=saved.devices,
        seeds_at_once=saved.at_once,
        **saved.make_options(),
    )
    train_run(saved.algorithm, saved.make_settings(), experiment, options)


def evaluate_again(run: Path, dataset: str | None = None) -> None:
    """Evaluate a finished run again; arguments as in `agents.commands.evaluate_run`."""
    finished, variables = load_run(run, dataset)
    evaluation = finished.evaluate(variables)
    save_evaluation(run, finished.config, evaluation, describe_machine()["device"])
    print(evaluation.report())


def load_run(run: Path, dataset: str | None = None) -> tuple[PreparedRun, list[Any]]:
    """A finished run, and the variables of the network of each of its seeds.

    Args:
        run: the run folder.
        dataset: name or path of the dataset, if it has moved.

    Raises:
        InputError: the folder cannot be read, or the dataset is another build than the run was trained on.
    """
    config = load_config(run)
    _note_changes(run, config)
    algorithm = config.make_algorithm(config.make_env())
    variables = split_seeds(load_variables(run, config, algorithm))
    packed = load_dataset(dataset or config.dataset)
    _check_build(run, config, packed, dataset)
    env, params = make(packed, **config.make_options())
    return PreparedRun(config, packed, env, params, algorithm), variables


def _note_changes(run: Path, config: RunConfig) -> None:
    """Say if the run was trained on another device, or with other versions; results may then differ a little."""
    if differing := machine_changes(config.machine):
        print(f"note: {run} was trained with {', '.join(differing)}", file=sys.stderr)


def _check_build(run: Path, config: RunConfig, packed: Dataset, dataset: str | None) -> None:
    """Check that a dataset is the build that a run was trained on; `dataset` is the user's --dataset."""
    if dataset_digest(packed) == config.dataset_digest:
        return
    option = "another --dataset" if dataset else "--dataset"
    raise InputError(
        f"{run}: was trained on a different build of the dataset than {dataset or config.dataset} is now; "
        f"pass {option} with the folder of that build, or train again"
    )
