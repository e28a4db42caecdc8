"""A run folder: what was asked for, how training went, what it earned, and the policies.

While a run trains, its folder has `.partial` after its name, and holds config.json, metrics.csv and checkpoints.
"""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.policy import GreedyPolicy
from agents.algorithms.registry import ALGORITHMS
from agents.evaluation.evaluate import Evaluation, to_json
from agents.runs.training import Training
from jaxsim import Dataset, InputError, SASRec, UserSimulator, sha256_of
from jaxsim.files import check_writable, write_text

RUN_VERSION = 2
RUN_FILES = (
    "config.json",
    "metrics.csv",
    "metrics.json",
    "returns.safetensors",
    "learning_curve.png",
    "policy.safetensors",
)
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
_LOCK = "lock"


@dataclass(frozen=True)
class RunConfig:
    """What a run is: enough to do it again.

    Attributes:
        algorithm: name in ALGORITHMS.
        settings: of the algorithm.
        dataset: name or path that was asked for.
        dataset_digest: SHA-256 of the dataset's manifest.
        environment: static settings of the environment, its statistic model's architecture among them.
        seed, num_seeds: seeds trained.
        evaluation_seed: seed of the fixed sessions.
        devices: that shared the training.
        machine: device and versions.
        steps, seconds, compile_seconds: cost of training, see `Training`; 0 until it has ended.
    """

    algorithm: str
    settings: dict[str, Any]
    dataset: str
    dataset_digest: str
    environment: dict[str, Any]
    seed: int
    num_seeds: int
    evaluation_seed: int
    devices: int
    machine: dict[str, str]
    steps: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0
    run_version: int = RUN_VERSION

    def write(self, folder: Path) -> None:
        """Write config.json, whole or not at all."""
        write_text(folder / "config.json", json.dumps(asdict(self), indent=2) + "\n")

    def make_options(self) -> dict[str, Any]:
        """The options of `jaxsim.make` that give this environment."""
        names = ("semantics", "repeats", "history_length", "session_capacity")
        return {name: self.environment[name] for name in names}

    def make_settings(self) -> AlgorithmConfig:
        """The settings of the algorithm."""
        return ALGORITHMS[self.algorithm][0](**self.settings)

    def make_env(self) -> UserSimulator:
        """The environment, without its params."""
        return UserSimulator(**{**self.environment, "sasrec": SASRec(**self.environment["sasrec"])})

    def make_algorithm(self) -> Algorithm:
        """The algorithm on its environment, as it was."""
        return ALGORITHMS[self.algorithm][1](self.make_env(), self.make_settings())

    def differences(self, other: "RunConfig") -> list[str]:
        """What decides a run's results and differs in another one, "NAME is A, not B"."""
        mine, others = self._decisive(), other._decisive()
        return [
            f"{name} is {mine.get(name)}, not {others.get(name)}"
            for name in sorted({*mine, *others})
            if mine.get(name) != others.get(name)
        ]

    def _decisive(self) -> dict[str, Any]:
        parts = {
            name: getattr(self, name)
            for name in ("algorithm", "seed", "evaluation_seed", "devices")
        }
        parts |= {"seeds": self.num_seeds, "build of the dataset": self.dataset_digest[:12]}
        return {**parts, **self.environment, **self.settings}


def environment_settings(env: UserSimulator) -> dict[str, Any]:
    """The static settings of an environment as plain values."""
    names = ("num_users", "history_length", "session_capacity", "semantics", "repeats")
    return {**{name: getattr(env, name) for name in names}, "sasrec": env.sasrec.architecture}


def dataset_digest(dataset: Dataset) -> str:
    """What identifies a packed dataset: the SHA-256 of its manifest, which holds those of its files."""
    return sha256_of(dataset.path / "manifest.json")


def describe_machine() -> dict[str, str]:
    """Device and versions, for the record."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}, {os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "flax", "optax", "gymnax", "numpy")},
    }


def named_folder(out: Path) -> Path:
    """A path that ends with a name, as that of a run folder must, of the same folder.

    Raises:
        InputError: the folder has no name.
    """
    if out.name in ("", ".."):
        out = out.resolve()
    if not out.name:
        raise InputError(f"{out}: is not the name of a run folder; choose another --out")
    return out


def partial_folder(out: Path) -> Path:
    """Where a run is until it is finished."""
    return out.with_name(f"{out.name}.partial")


def check_output(folder: Path, overwrite: bool, resume: bool = False) -> None:
    """Refuse a folder that must not be written, before any work is done.

    Args:
        folder: of the finished run.
        overwrite: whether a run that is there, finished or not, may be replaced.
        resume: whether an unfinished one is to be finished.

    Raises:
        InputError: it is there and is not a run and nothing else, or is one that neither `overwrite` nor the
            unfinished run is to replace; there is an unfinished one that is neither to be replaced nor to be
            finished, or there is none to be finished; or the folder around it cannot be written to.
    """
    check_writable(folder)
    partial = partial_folder(folder)
    begun = (partial / "config.json").is_file()
    if resume and not begun:
        state = "is finished" if (folder / "config.json").is_file() else "was not begun"
        raise InputError(f"{folder}: no run to resume, it {state}; leave --resume out")
    # A run that is resumed may have been begun to replace another.
    _check_replaceable(folder, overwrite or resume, "pass --overwrite")
    if not resume:
        _check_replaceable(partial, overwrite, "go on with --resume, or pass --overwrite")


def _check_replaceable(folder: Path, overwrite: bool, remedy: str) -> None:
    if _is_foreign(folder):
        raise InputError(f"{folder}: exists and is not a run folder; choose another --out")
    if not overwrite and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds a run; choose another --out, or {remedy}")


def _is_foreign(folder: Path) -> bool:
    """Whether something is there that is not a run and nothing else."""
    if not folder.is_dir():
        return folder.exists() or folder.is_symlink()
    names = {path.name for path in folder.iterdir()}
    return not names <= {*RUN_FILES, CHECKPOINTS, TENSORBOARD, _LOCK}


@contextmanager
def unfinished_run(out: Path, config: RunConfig, resume: bool) -> Iterator[Path]:
    """The folder of a run that is not finished yet, for this process alone; of a new run, with config.json.

    Raises:
        InputError: another process has it, or it was begun with other settings than those to resume with.
    """
    partial = partial_folder(out)
    partial.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(partial / _LOCK, timeout=0)  # goes with its process, however that ends
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"{partial}: another process is training there") from None
    try:
        if resume:
            _check_same(partial, load_config(partial), config)
        else:
            for path in partial.iterdir():
                if path.name != _LOCK:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            config.write(partial)
        yield partial
    finally:
        lock.release()


def _check_same(partial: Path, begun: RunConfig, asked: RunConfig) -> None:
    different = begun.differences(asked)
    if different:
        raise InputError(
            f"{partial}: the run to resume is another one: its {'; its '.join(different)}"
        )
    for name, version_then in begun.machine.items():
        if asked.machine.get(name) != version_then:
            print(
                f"the run was begun with {name} {version_then}, now it is {asked.machine.get(name)}: "
                "it will not end with the same bits"
            )


def write_results(
    folder: Path, config: RunConfig, training: Training, evaluation: Evaluation, curve: Any
) -> None:
    """Write what a run ends with; `curve` is a matplotlib figure."""
    save_policies(folder / "policy.safetensors", training.variables)
    save_evaluation(folder, config, evaluation, config.machine["device"])
    curve.savefig(folder / "learning_curve.png", dpi=150)
    config.write(folder)


def publish(out: Path, keep_checkpoints: bool) -> None:
    """Give a run folder with its results its final name, in place of one that has it.

    Raises:
        InputError: something else has got that name since training began.
    """
    partial, replaced = partial_folder(out), out.with_name(f".{out.name}.replaced")
    if _is_foreign(out):
        raise InputError(
            f"{out}: exists by now and is not a run folder; the trained run is in {partial}: move {out.name} "
            "away, then --resume finishes"
        )
    (partial / _LOCK).unlink(missing_ok=True)
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        os.rename(out, replaced)
    os.rename(partial, out)
    shutil.rmtree(replaced, ignore_errors=True)
    # Last of all: until here, --resume could have gone on from them.
    if not keep_checkpoints:
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


def save_evaluation(folder: Path, config: RunConfig, evaluation: Evaluation, device: str) -> None:
    """Write the table of an evaluation on a device as JSON, and the returns of its sessions."""
    content = {
        "device": device,
        "dataset": config.dataset,
        "evaluation_seed": config.evaluation_seed,
        "warnings": evaluation.warnings,
        "rows": to_json(evaluation.rows),
    }
    write_text(folder / "metrics.json", json.dumps(content, indent=2) + "\n")
    evaluation.save_returns(
        folder / "returns.safetensors",
        config.dataset_digest,
        config.evaluation_seed,
        config.environment,
    )


def save_policies(path: Path, variables: Any) -> None:
    """Write the variables of S seeds, leading dimension S."""
    flat = flatten_dict(variables, sep="/")
    save_file({name: np.asarray(value, order="C") for name, value in flat.items()}, path)


def load_config(run: str | os.PathLike[str]) -> RunConfig:
    """Read the config.json of a run folder, finished or not, or a file of that kind.

    Raises:
        InputError: it is missing, damaged or of another version.
    """
    path = Path(run)
    if not path.is_file():
        path = path / "config.json"
    if not path.is_file():
        raise InputError(f"{run}: not a run folder (it has no config.json)")
    try:
        content = json.loads(path.read_text("utf-8"))
        found = content["run_version"]
        if found != RUN_VERSION:
            raise InputError(
                f"{path}: run_version {found}, but this version reads {RUN_VERSION}; train again"
            )
        config = RunConfig(**content)
        if config.algorithm not in ALGORITHMS:
            raise InputError(f"{path}: unknown algorithm {config.algorithm!r}")
        config.make_algorithm()  # raises if a setting is missing, unknown or senseless
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a readable config ({error}); train again") from None
    return config


def load_policies(run: str | os.PathLike[str]) -> list[GreedyPolicy]:
    """The policies of all seeds of a run.

    Raises:
        InputError: the folder is not a run, or its policy does not fit its config.
    """
    config = load_config(run)
    algorithm = config.make_algorithm()
    path = Path(run) / "policy.safetensors"
    try:
        flat = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train again") from None
    tree = unflatten_dict({name: jnp.asarray(w) for name, w in flat.items()}, sep="/")
    _check_shapes(path, algorithm, config, tree)
    return [
        GreedyPolicy(jax.tree.map(lambda x, s=s: x[s], tree), algorithm.network, algorithm.env)
        for s in range(config.num_seeds)
    ]


def _check_shapes(path: Path, algorithm: Algorithm, config: RunConfig, tree: Any) -> None:
    obs = config.make_env().observation_space().sample(jax.random.key(0))
    expected = jax.eval_shape(algorithm.network.init, jax.random.key(0), obs)
    shapes = jax.tree.map(lambda x: (config.num_seeds, *x.shape), expected)
    if jax.tree.map(jnp.shape, tree) != shapes:
        raise InputError(f"{path}: does not fit config.json beside it; train again")


def load(run: str | os.PathLike[str], seed: int = 0) -> GreedyPolicy:
    """The policy of a run: `action = policy(key, obs, params)`.

    Args:
        run: the run folder.
        seed: which of the run's seeds, counted from 0.

    Raises:
        InputError: the folder is not a run, or has no such seed.
    """
    policies = load_policies(run)
    if not 0 <= seed < len(policies):
        raise InputError(f"{run}: has seeds 0 to {len(policies) - 1}, not {seed}")
    return policies[seed]
