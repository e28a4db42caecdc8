"""The file `returns.safetensors` of a run folder: the undiscounted return of every fixed session.

Tensors "POLICY/MODE/USERS" are float32[seeds, M]. MODE is "greedy", "sampled" or "baseline"; USERS is "train" or
"held_out". Tensors "sessions/users/USERS" and "sessions/durations/USERS" are int32[M]: the user and the number of
steps of each session.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from agents.runs.config import LATER_OPTIONS
from jaxsim import InputError
from jaxsim.files import write_bytes

RETURNS_FILE = "returns.safetensors"
RETURNS_VERSION = 1
GREEDY, SAMPLED, BASELINE = "greedy", "sampled", "baseline"
GROUPS = ("train", "held_out")


@dataclass(frozen=True)
class Returns:
    """The returns of the learned policy of one run.

    Attributes:
        run: the run folder.
        policy: name of the learned policy.
        identity: what must be equal in runs that are compared, name to value.
        environment: static settings of the environment.
        returns: (mode, users) to float32[seeds, M].
        sessions: "users/USERS" and "durations/USERS" to int32[M].
    """

    run: Path
    policy: str
    identity: dict[str, str]
    environment: dict[str, Any]
    returns: dict[tuple[str, str], np.ndarray]
    sessions: dict[str, np.ndarray]

    @property
    def seeds(self) -> int:
        """Number of training seeds."""
        return len(next(iter(self.returns.values())))


def save_returns(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    dataset_digest: str,
    evaluation_seed: int,
    environment: Mapping[str, Any],
) -> None:
    """Write returns and sessions, whole or not at all.

    Args:
        path: the file.
        tensors: returns and sessions by the names above.
        dataset_digest: identifies the build of the dataset.
        evaluation_seed: seed of the fixed sessions.
        environment: static settings of the environment, plain values.
    """
    metadata = {
        "returns_version": str(RETURNS_VERSION),
        "dataset_digest": dataset_digest,
        "evaluation_seed": str(evaluation_seed),
        "environment": json.dumps(dict(environment), sort_keys=True),
    }
    write_bytes(path, save(dict(tensors), metadata))


def load_returns(run: Path) -> Returns:
    """Read the returns of a run folder.

    Raises:
        InputError: the file is missing, damaged, of another version, or not of exactly one learned policy.
    """
    path = run / RETURNS_FILE
    if not path.is_file():
        raise InputError(
            f"{run}: has no {RETURNS_FILE}; give a run folder that `python -m agents evaluate {run}` has evaluated"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        version = metadata["returns_version"]
        identity = {name: metadata[name] for name in ("dataset_digest", "evaluation_seed")}
        environment = {**LATER_OPTIONS, **json.loads(metadata["environment"])}
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise _unreadable(run, f"{type(error).__name__}: {error}") from None
    if version != str(RETURNS_VERSION):
        raise _unreadable(run, f"version {version}, but this jaxsim reads {RETURNS_VERSION}")
    sessions = {
        name.removeprefix("sessions/"): value
        for name, value in tensors.items()
        if name.startswith("sessions/")
    }
    learned = dict(_learned(tensors))
    names = sorted({name for name, _, _ in learned})
    if len(names) != 1:
        raise _unreadable(run, f"it has the learned policies {names}, but needs exactly one")
    returns = {(mode, users): value for (_, mode, users), value in learned.items()}
    result = Returns(run, names[0], identity, environment, returns, sessions)
    _check_shapes(result)
    return result


def _learned(
    tensors: Mapping[str, np.ndarray],
) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
    """(policy, mode, users) and returns of each learned policy."""
    for key, value in tensors.items():
        parts = tuple(key.rsplit("/", 2))
        if len(parts) == 3 and parts[0] != "sessions" and parts[1] != BASELINE:
            yield (parts[0], parts[1], parts[2]), value


def _check_shapes(result: Returns) -> None:
    for (mode, users), value in result.returns.items():
        columns = [result.sessions.get(f"{name}/{users}") for name in ("users", "durations")]
        fits = value.ndim == 2 and len(value) == result.seeds > 0
        if not fits or any(x is None or x.shape != value.shape[1:] for x in columns):
            raise _unreadable(result.run, f"{mode}/{users} does not fit its sessions")


def _unreadable(run: Path, reason: str) -> InputError:
    return InputError(
        f"{run / RETURNS_FILE}: cannot be read ({reason}); write it again with `python -m agents evaluate {run}`"
    )
