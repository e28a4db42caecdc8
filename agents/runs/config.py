"""The config.json of a run: everything that is needed to repeat the run or to load its policies."""

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from agents.algorithms.algorithm import Algorithm, AlgorithmConfig
from agents.algorithms.policy import Simulator, single_of
from agents.algorithms.registry import ALGORITHMS
from jaxsim import Dataset, InputError, SASRec, SlateSimulator, UserSimulator
from jaxsim import __version__ as jaxsim_version
from jaxsim.dataset import sha256_of
from jaxsim.files import write_text

CONFIG_FILE = "config.json"
RUN_VERSION = 3
# Options of the environment that earlier runs do not name, and what they had.
LATER_OPTIONS: dict[str, Any] = {
    "taste": "posterior", "exposure": False, "departure": "constant", "visits": False, "horizon_days": None,
    "satiation": None, "reward": "like", "slate_size": 1,
}  # fmt: skip
# Options that only an environment of slates has.
SLATE_OPTIONS = ("position_effect", "outside_option", "unchosen")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides the results of a run, and what its training cost.

    Attributes:
        algorithm: name in `ALGORITHMS`.
        settings: settings of the algorithm by name.
        dataset: name or path of the dataset, as the user gave it.
        dataset_digest: SHA-256 of the dataset's manifest.
        environment: static settings of the environment, including the architecture of its statistic model.
        seed: the first training seed.
        num_seeds: number of training seeds.
        evaluation_seed: seed of the fixed sessions.
        devices: number of devices that share the training.
        seeds_at_once: seeds that a device trains side by side; None, as in runs of earlier versions, for all.
        machine: device and library versions.
        steps, seconds, compile_seconds: cost of training, see `Training`; 0 until training has ended.
        run_version: version of this format.
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
    seeds_at_once: int | None = None
    run_version: int = RUN_VERSION

    def write(self, folder: Path) -> None:
        """Write config.json, whole or not at all."""
        write_text(folder / CONFIG_FILE, json.dumps(asdict(self), indent=2) + "\n")

    @property
    def at_once(self) -> int:
        """Number of seeds that a device trains side by side."""
        return self.seeds_at_once or self.num_seeds

    def make_options(self) -> dict[str, Any]:
        """The options of `jaxsim.make` that build this environment."""
        names = ("semantics", "repeats", "history_length", "session_capacity", *LATER_OPTIONS)
        return {name: self.environment[name] for name in names} | self._slate_options()

    def _slate_options(self) -> dict[str, Any]:
        names = SLATE_OPTIONS if self.environment["slate_size"] > 1 else ()
        return {name: self.environment[name] for name in names}

    def make_env(self) -> Simulator:
        """The environment, without its params."""
        slates = self._slate_options()
        settings = {name: x for name, x in self.environment.items() if name not in slates}
        size = settings.pop("slate_size")
        single = UserSimulator(**{**settings, "sasrec": SASRec(**settings["sasrec"])})
        return SlateSimulator.around(single, size, **slates) if size > 1 else single

    def make_settings(self) -> AlgorithmConfig:
        """The settings of the algorithm."""
        return ALGORITHMS[self.algorithm].config(**self.settings)

    def make_algorithm(self, env: Simulator) -> Algorithm:
        """The algorithm with its settings, on an environment."""
        return ALGORITHMS[self.algorithm].algorithm(env, self.make_settings())

    def differences(self, other: "RunConfig") -> list[str]:
        """What decides the results and differs in another config, each as "NAME is A, not B"."""
        mine, others = self._deciding_values(), other._deciding_values()
        return [
            f"{name} is {mine.get(name)}, not {others.get(name)}"
            for name in sorted({*mine, *others})
            if mine.get(name) != others.get(name)
        ]

    def _deciding_values(self) -> dict[str, Any]:
        names = ("algorithm", "seed", "evaluation_seed", "devices")
        values = {name: getattr(self, name) for name in names}
        values |= {"seeds": self.num_seeds, "build of the dataset": self.dataset_digest[:12]}
        values["seeds_at_once"] = self.at_once
        return {**values, **self.environment, **self.settings}


def environment_settings(env: Simulator) -> dict[str, Any]:
    """The static settings of an environment as plain values."""
    single, slates = single_of(env), {"slate_size": 1}
    if isinstance(env, SlateSimulator):
        slates = {name: getattr(env, name) for name in ("slate_size", *SLATE_OPTIONS)}
    names = {"num_users", "history_length", "semantics", "repeats", *LATER_OPTIONS} - {*slates}
    values = {name: getattr(single, name) for name in sorted(names)}
    values |= {"session_capacity": env.session_capacity, "sasrec": single.sasrec.architecture}
    return values | slates


def dataset_digest(dataset: Dataset) -> str:
    """SHA-256 of a packed dataset's manifest, which identifies the dataset: it has the hashes of all files."""
    return sha256_of(dataset.path / "manifest.json")


def describe_machine() -> dict[str, str]:
    """Device and library versions."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}, {os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        "jaxsim": jaxsim_version,
        **{name: version(name) for name in ("jax", "flax", "optax", "gymnax", "numpy")},
    }


def machine_changes(saved: dict[str, str]) -> list[str]:
    """What of a run's `machine` is another one here: "jax 0.10.2 (here 0.11.2)" and the like."""
    now = describe_machine()
    return [
        f"{name} {before} (here {now.get(name)})"
        for name, before in saved.items()
        if now.get(name) != before
    ]


def load_config(run: str | os.PathLike[str]) -> RunConfig:
    """Read the config.json of a run folder, finished or not.

    Args:
        run: the folder, or the file itself.

    Raises:
        InputError: the file is missing, damaged or of another version.
    """
    path = Path(run)
    if not path.is_file():
        path = path / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{run}: not a run folder (it has no {CONFIG_FILE})")
    try:
        content = json.loads(path.read_text("utf-8"))
        _check_version(path, content["run_version"])
        for name, value in LATER_OPTIONS.items():
            content["environment"].setdefault(name, value)
        config = RunConfig(**content)
        if config.algorithm not in ALGORITHMS:
            raise InputError(f"{path}: unknown algorithm {config.algorithm!r}")
        config.make_algorithm(
            config.make_env()
        )  # raises if a setting is missing, unknown or invalid
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a readable config ({error}){_written_by(path)}; train again"
        ) from None
    return config


def _check_version(path: Path, run_version: Any) -> None:
    if run_version != RUN_VERSION:
        raise InputError(
            f"{path}: has run_version {run_version}, but this version of agents reads {RUN_VERSION}"
            f"{_written_by(path)}; train again"
        )


def _written_by(path: Path) -> str:
    """Which other version of jaxsim wrote a config; "" if it was this one, or the file does not say."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        before = json.loads(path.read_text("utf-8"))["machine"]["jaxsim"]
        if before != jaxsim_version:
            return f"; it was written by jaxsim {before}, and this is {jaxsim_version}"
    return ""
