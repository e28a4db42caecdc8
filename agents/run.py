"""A run folder: config.json, metrics.csv, metrics.json, learning_curve.png and policy.safetensors."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from agents.algorithm import Algorithm, AlgorithmConfig
from agents.dqn import DQN, DQNConfig
from agents.evaluation import Row, to_json
from agents.policy import GreedyPolicy
from agents.training import Training
from jaxsim import Dataset, InputError, SASRec, UserSimulator, sha256_of
from jaxsim.files import check_writable, staged_folder, write_text

RUN_VERSION = 1
RUN_FILES = (
    "config.json",
    "metrics.csv",
    "metrics.json",
    "learning_curve.png",
    "policy.safetensors",
)
ALGORITHMS: dict[str, tuple[type[AlgorithmConfig], type[Algorithm]]] = {"dqn": (DQNConfig, DQN)}


@dataclass(frozen=True)
class RunConfig:
    """What a run was: enough to do it again.

    Attributes:
        algorithm: name in ALGORITHMS.
        settings: of the algorithm.
        dataset: name or path that was asked for.
        dataset_digest: SHA-256 of the dataset's manifest.
        environment: static settings of the environment, its statistic model's architecture among them.
        seed, num_seeds: seeds trained.
        evaluation_seed: seed of the fixed sessions.
        steps, seconds, compile_seconds: cost of training, see `Training`.
        machine: device and versions.
    """

    algorithm: str
    settings: dict[str, Any]
    dataset: str
    dataset_digest: str
    environment: dict[str, Any]
    seed: int
    num_seeds: int
    evaluation_seed: int
    steps: int
    seconds: float
    compile_seconds: float
    machine: dict[str, str]
    run_version: int = RUN_VERSION

    def make_algorithm(self) -> Algorithm:
        """The algorithm on its environment, as it was."""
        config_type, algorithm_type = ALGORITHMS[self.algorithm]
        static = {**self.environment, "sasrec": SASRec(**self.environment["sasrec"])}
        return algorithm_type(UserSimulator(**static), config_type(**self.settings))


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


def check_output(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that must not be written, before any work is done.

    Raises:
        InputError: it is there and is not a run and nothing else, or is one and `overwrite` is False; or the
            folder around it cannot be written to.
    """
    check_writable(folder)
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {"a file"}
    if not names:
        return
    if not names <= set(RUN_FILES):
        raise InputError(f"{folder}: exists and is not a run folder; choose another --out")
    if not overwrite:
        raise InputError(f"{folder}: holds a run; choose another --out or pass --overwrite")


def save_run(
    folder: Path, config: RunConfig, training: Training, rows: list[Row], curve: Any
) -> None:
    """Write a run folder whole or not at all; `curve` is a matplotlib figure."""
    with staged_folder(folder) as temporary:
        save_policies(temporary / "policy.safetensors", training.variables)
        training.log.to_csv(temporary / "metrics.csv", index=False)
        save_rows(temporary / "metrics.json", config, rows, config.machine["device"])
        curve.savefig(temporary / "learning_curve.png", dpi=150)
        (temporary / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n", "utf-8")


def save_rows(path: Path, config: RunConfig, rows: list[Row], device: str) -> None:
    """Write the table of an evaluation on a device as JSON, whole or not at all."""
    content = {
        "device": device,
        "dataset": config.dataset,
        "evaluation_seed": config.evaluation_seed,
        "rows": to_json(rows),
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def save_policies(path: Path, variables: Any) -> None:
    """Write the variables of S seeds, leading dimension S."""
    flat = flatten_dict(variables, sep="/")
    save_file({name: np.asarray(value, order="C") for name, value in flat.items()}, path)


def load_config(run: str | os.PathLike[str]) -> RunConfig:
    """Read a run folder's config.json.

    Raises:
        InputError: it is missing, damaged or of another version.
    """
    path = Path(run) / "config.json"
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
    obs = algorithm.env.observation_space().sample(jax.random.key(0))
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
