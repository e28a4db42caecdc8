"""The command `python -m agents log RUN`: the log of a policy in the environment of a finished run."""

import importlib.util
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from annotated_types import Ge, Le, Lt

from agents.evaluation.baselines import baselines
from agents.evaluation.exploring import exploring
from agents.evaluation.logs import draw_sessions
from agents.runs.experiment import PreparedRun, load_run
from agents.runs.log_formats import WRITERS, LogTotals, Recording
from agents.runs.training import NUM_KEYS
from jaxsim import InputError, SlateSimulator, Users, __version__
from jaxsim.files import check_writable
from jaxsim.settings import check_settings

LoggedPolicy = Literal["learned", "random", "popular", "like_rate", "static_best", "oracle"]
LogFormat = Literal["parquet", "minari", "obp"]
_SUFFIX = {"parquet": ".parquet", "obp": ".npz"}
_MINARI_NAME = re.compile(r"[A-Za-z0-9_]+(?:-[A-Za-z0-9_]+)*-v\d+")


@dataclass(frozen=True)
class LogOptions:
    """Whose policy acts, for whom, and where the log is written."""

    out: Path
    """What to write, replacing one of the same name: a file ending in .parquet, or with --format obp in .npz; with
    --format minari a folder whose name ends in -v0, or another number."""
    format: LogFormat = "parquet"
    """Rows as Parquet, a Minari dataset, or the fields of the Open Bandit Pipeline; see docs/logs.md."""
    episodes: Annotated[int, Ge(1)] = 1_000
    """Number of episodes."""
    policy: LoggedPolicy = "learned"
    """The policy that the run has learned, or a baseline of the evaluation."""
    sampled: bool = False
    """The learned policy as stochastic as its algorithm leaves it; otherwise the greedy one."""
    epsilon: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability of a random allowed item, or slate, in place of what the policy recommends."""
    network: Annotated[int, Ge(0)] = 0
    """Which of the run's training seeds, counted from 0."""
    users: Users = "train"
    """Whose sessions: of users that agents train on, of held-out users, or of all."""
    seed: Annotated[int, Ge(0), Lt(NUM_KEYS)] = 0
    """Seed of users, policy and environment."""

    def check(self) -> None:
        """Raise an InputError for the first option that is not valid."""
        check_settings(self, option_prefix="--")
        if self.format == "minari":
            self._check_minari()
        else:
            self._check_file(_SUFFIX[self.format])
        if self.sampled and self.policy != "learned":
            raise InputError(f"--sampled is about the learned policy, not --policy {self.policy}")
        if self.epsilon and self.policy == "random":
            raise InputError(
                "--epsilon is about other policies: --policy random always draws at random"
            )
        check_writable(self.out)

    def _check_file(self, suffix: str) -> None:
        if self.out.suffix != suffix:
            wanted = "" if self.format == "parquet" else f" with --format {self.format}"
            raise InputError(f"--out {self.out}: end the name in {suffix}{wanted}")
        if self.out.is_dir():
            raise InputError(f"--out {self.out}: is a folder; give a file")

    def _check_minari(self) -> None:
        if importlib.util.find_spec("minari") is None or importlib.util.find_spec("h5py") is None:
            raise InputError(
                '--format minari: needs minari; install it with pip install "jaxsim-recsys[minari]"'
            )
        if not _MINARI_NAME.fullmatch(self.out.name):
            raise InputError(
                f"--out {self.out}: with --format minari give a folder with a name such as random-v0"
            )
        if self.out.exists() and not (self.out / "data" / "metadata.json").is_file():
            raise InputError(
                f"--out {self.out}: exists and is not a Minari dataset; choose another"
            )


def log_run(run: Path, options: LogOptions, dataset: str | None = None) -> None:
    """Write the log; arguments as in `agents.commands.log_policy`."""
    options.check()
    finished, variables = load_run(run, dataset)
    if options.network >= len(variables):
        raise InputError(
            f"--network is {options.network}: {run} has {len(variables)} training seeds, from 0"
        )
    if options.format == "obp" and isinstance(finished.env, SlateSimulator):
        raise InputError(
            f"--format obp is about single items, and {run} shows slates; use --format parquet or minari"
        )
    users = finished.dataset.session_users(options.users)
    if len(users) == 0:
        raise InputError(f"--users {options.users}: {finished.dataset.name} has no such user")
    params = finished.params.replace(session_users=jnp.asarray(users))
    recording = Recording(
        finished.dataset,
        finished.env,
        params,
        _policy_of(finished, variables, options),
        *draw_sessions(params, jax.random.key(options.seed), options.episodes),
        labels=_labels(finished, options),
        about=_about(run, finished, options),
    )
    totals = WRITERS[options.format](options.out, recording)
    print(_report(totals, options))


def _report(totals: LogTotals, options: LogOptions) -> str:
    """What was written, how to read it where that is not obvious, and what the log cannot tell."""
    lines = [
        f"{totals.steps:,} steps of {options.episodes:,} episodes, {totals.likes / totals.steps:.3f} likes a "
        f"step, written to {options.out}"
    ]
    if options.format == "minari":
        root = options.out.absolute().parent
        lines.append(
            f"to read it: MINARI_DATASETS_PATH={root}, minari.load_dataset({options.out.name!r})"
        )
    if totals.certain:
        lines.append(
            f"warning: at {totals.certain / totals.steps:.1%} of the steps the policy could recommend one thing "
            "only, so the log says nothing about other items there, and estimates of another policy from it can "
            "be wrong; --epsilon 0.1 makes every item possible"
        )
    return "\n".join(lines)


def _policy_of(run: PreparedRun, variables: list[Any], options: LogOptions) -> Any:
    policy: Any
    if options.policy == "learned":
        policy = run.algorithm.policy_of(variables[options.network], sampled=options.sampled)
    else:
        policy = baselines(run.dataset, run.env, run.params)[options.policy]
    return exploring(policy, options.epsilon) if options.epsilon else policy


def _labels(run: PreparedRun, options: LogOptions) -> dict[str, str]:
    """The policy and the simulator in words, with their versions; they are columns of the log."""
    policy: str = options.policy
    if policy == "learned":
        mode = "sampled" if options.sampled else "greedy"
        policy = f"{run.config.algorithm}, seed {run.config.seed + options.network}, {mode}"
    if options.epsilon:
        policy += f", epsilon {options.epsilon:g}"
    build = f"{run.dataset.name} {run.config.dataset_digest[:12]}"
    semantics = run.config.environment["semantics"]
    return {
        "policy": policy,
        "simulator": f"{run.env.name}, {semantics}, {build}, jaxsim {__version__}",
    }


def _about(run: Path, finished: PreparedRun, options: LogOptions) -> dict[str, Any]:
    """What is kept with the log: where it comes from, as plain values."""
    config = finished.config
    return {
        "run": str(run),
        "algorithm": config.algorithm,
        "training_seed": config.seed + options.network,
        "policy": options.policy,
        "sampled": options.sampled,
        "epsilon": options.epsilon,
        "users": options.users,
        "episodes": options.episodes,
        "seed": options.seed,
        "dataset": config.dataset,
        "dataset_digest": config.dataset_digest,
        "environment": config.environment,
        "versions": {"jaxsim": __version__, **{n: version(n) for n in ("jax", "pandas")}},
    }
