"""The command `python -m agents log RUN`: the log of a policy in the environment of a finished run, as Parquet."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import pandas as pd
from annotated_types import Ge, Lt

from agents.evaluation.baselines import baselines
from agents.evaluation.logs import log_sessions
from agents.runs.experiment import PreparedRun, load_run
from agents.runs.training import NUM_KEYS
from jaxsim import InputError, Users, __version__
from jaxsim.files import check_writable, staged_file
from jaxsim.settings import check_settings

LoggedPolicy = Literal["learned", "random", "popular", "like_rate", "static_best", "oracle"]


@dataclass(frozen=True)
class LogOptions:
    """Whose policy acts, for whom, and where the log is written."""

    out: Path
    """File to write, ending in .parquet; it replaces one of the same name."""
    episodes: Annotated[int, Ge(1)] = 1_000
    """Number of episodes."""
    policy: LoggedPolicy = "learned"
    """The policy that the run has learned, or a baseline of the evaluation."""
    sampled: bool = False
    """The learned policy as stochastic as its algorithm leaves it; otherwise the greedy one."""
    network: Annotated[int, Ge(0)] = 0
    """Which of the run's training seeds, counted from 0."""
    users: Users = "train"
    """Whose sessions: of users that agents train on, of held-out users, or of all."""
    seed: Annotated[int, Ge(0), Lt(NUM_KEYS)] = 0
    """Seed of users, policy and environment."""

    def check(self) -> None:
        """Raise an InputError for the first option that is not valid."""
        check_settings(self, option_prefix="--")
        if self.out.suffix != ".parquet":
            raise InputError(f"--out {self.out}: end the name in .parquet")
        if self.out.is_dir():
            raise InputError(f"--out {self.out}: is a folder; give a file")
        if self.sampled and self.policy != "learned":
            raise InputError(f"--sampled is about the learned policy, not --policy {self.policy}")
        check_writable(self.out)


def log_run(run: Path, options: LogOptions, dataset: str | None = None) -> None:
    """Write the log; arguments as in `agents.commands.log_policy`."""
    options.check()
    finished, variables = load_run(run, dataset)
    if options.network >= len(variables):
        raise InputError(
            f"--network is {options.network}: {run} has {len(variables)} training seeds, from 0"
        )
    users = finished.dataset.session_users(options.users)
    if len(users) == 0:
        raise InputError(f"--users {options.users}: {finished.dataset.name} has no such user")
    policy = _policy_of(finished, variables, options)
    log = log_sessions(
        finished.dataset,
        finished.env,
        finished.params.replace(session_users=jnp.asarray(users)),
        policy,
        jax.random.key(options.seed),
        options.episodes,
    )
    write_log(options.out, log, _about(run, finished, options))
    print(
        f"{len(log):,} steps of {options.episodes:,} episodes, {log['like'].mean():.3f} likes a step, written to "
        f"{options.out}"
    )


def _policy_of(run: PreparedRun, variables: list[Any], options: LogOptions) -> Any:
    if options.policy != "learned":
        return baselines(run.dataset, run.env, run.params)[options.policy]
    return run.algorithm.policy_of(variables[options.network], sampled=options.sampled)


def _about(run: Path, finished: PreparedRun, options: LogOptions) -> dict[str, Any]:
    """What is kept with the log: where it comes from, as plain values."""
    config = finished.config
    return {
        "run": str(run),
        "algorithm": config.algorithm,
        "training_seed": config.seed + options.network,
        "policy": options.policy,
        "sampled": options.sampled,
        "users": options.users,
        "episodes": options.episodes,
        "seed": options.seed,
        "dataset": config.dataset,
        "dataset_digest": config.dataset_digest,
        "environment": config.environment,
        "versions": {"jaxsim": __version__, **{n: version(n) for n in ("jax", "pandas")}},
    }


def write_log(path: Path, log: pd.DataFrame, about: dict[str, Any]) -> None:
    """Write a log as Parquet, whole or not at all; `pandas.read_parquet(path).attrs` is `about`."""
    log.attrs.update(about)
    with staged_file(path) as temporary:
        log.to_parquet(temporary, index=False, engine="pyarrow")
