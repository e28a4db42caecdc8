"""The folder of a run: its config, the training log, the results of its evaluation, and its policies.

While a run trains, its folder is named NAME.partial and holds config.json, metrics.csv and checkpoints. It takes
its final name when everything is written.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from agents.algorithms.algorithm import Algorithm
from agents.algorithms.policy import NetworkPolicy
from agents.evaluation.evaluate import Evaluation
from agents.evaluation.returns import RETURNS_FILE
from agents.evaluation.table import to_json
from agents.runs.config import CONFIG_FILE, RunConfig, load_config
from agents.runs.progress import Training, split_seeds
from jaxsim import InputError
from jaxsim.files import check_writable, write_bytes, write_text

METRICS_FILE, TABLE_FILE = "metrics.csv", "metrics.json"
CURVE_FILE, POLICY_FILE = "learning_curve.png", "policy.safetensors"
RUN_FILES = (CONFIG_FILE, METRICS_FILE, TABLE_FILE, RETURNS_FILE, CURVE_FILE, POLICY_FILE)
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
_LOCK = "lock"


# ---- the folder while a run trains -------------------------------------------------------------------------


def named_folder(out: Path) -> Path:
    """The same folder as a path whose last part is a name, as `partial_folder` needs it.

    Raises:
        InputError: the folder has no name.
    """
    if out.name in ("", ".."):
        out = out.resolve()
    if not out.name:
        raise InputError(f"{out}: is not the name of a run folder; choose another --out")
    return out


def partial_folder(out: Path) -> Path:
    """The folder of a run that is not finished."""
    return out.with_name(f"{out.name}.partial")


def check_output(folder: Path, overwrite: bool, resume: bool = False) -> None:
    """Before any work is done, check that a run folder may be written.

    Args:
        folder: the folder of the finished run.
        overwrite: whether an existing run, finished or not, may be replaced.
        resume: whether to continue an unfinished run.

    Raises:
        InputError: the folder has other contents than a run; it holds a run that may not be replaced; an
            unfinished run is there and is neither continued nor replaced; there is no run to continue; or the
            folder around it cannot be written to.
    """
    check_writable(folder)
    partial = partial_folder(folder)
    if resume and not (partial / CONFIG_FILE).is_file():
        state = "is finished" if (folder / CONFIG_FILE).is_file() else "was never started"
        raise InputError(f"{folder}: there is no run to resume, it {state}; leave out --resume")
    # A run that is resumed may have been started with --overwrite.
    _check_replaceable(folder, overwrite or resume, "pass --overwrite")
    if not resume:
        _check_replaceable(partial, overwrite, "continue with --resume, or pass --overwrite")


def _check_replaceable(folder: Path, overwrite: bool, remedy: str) -> None:
    if _has_other_contents(folder):
        raise InputError(f"{folder}: exists and is not a run folder; choose another --out")
    if not overwrite and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds a run; choose another --out, or {remedy}")


def _has_other_contents(folder: Path) -> bool:
    """Whether the path exists and is anything other than a folder with files of a run only."""
    if not folder.is_dir():
        return folder.exists() or folder.is_symlink()
    names = {path.name for path in folder.iterdir()}
    return not names <= {*RUN_FILES, CHECKPOINTS, TENSORBOARD, _LOCK}


@contextmanager
def unfinished_run(out: Path, config: RunConfig, resume: bool) -> Iterator[Path]:
    """The folder of an unfinished run, locked for this process. The folder of a new run gets its config.json.

    Raises:
        InputError: another process trains there, or the run to resume has other settings.
    """
    partial = partial_folder(out)
    partial.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(partial / _LOCK, timeout=0)  # released when the process ends
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"{partial}: another process is training there") from None
    try:
        if resume:
            _check_same_run(partial, load_config(partial), config)
        else:
            _empty(partial)
            config.write(partial)
        yield partial
    finally:
        lock.release()


def _empty(partial: Path) -> None:
    """Remove everything but the lock."""
    for path in partial.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_same_run(partial: Path, saved: RunConfig, requested: RunConfig) -> None:
    different = saved.differences(requested)
    if different:
        raise InputError(
            f"{partial}: the run to resume is a different one: its {'; its '.join(different)}"
        )
    for name, saved_version in saved.machine.items():
        if requested.machine.get(name) != saved_version:
            print(
                f"the run was started with {name} {saved_version}, now it is {requested.machine.get(name)}: "
                "the results will not have the same bits"
            )


def publish(out: Path, keep_checkpoints: bool) -> None:
    """Rename the folder of a complete run to its final name, replacing an earlier run.

    Raises:
        InputError: since training started, something that is not a run took the name.
    """
    partial, replaced = partial_folder(out), out.with_name(f".{out.name}.replaced")
    if _has_other_contents(out):
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
    # At the very end: until here, --resume needs the checkpoints.
    if not keep_checkpoints:
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


# ---- results -----------------------------------------------------------------------------------------------


def write_results(
    folder: Path, config: RunConfig, training: Training, evaluation: Evaluation, curve: Figure
) -> None:
    """Write the policies, the evaluation, the learning curve and the completed config of a run."""
    flat = flatten_dict(training.variables, sep="/")
    weights = {name: np.asarray(value, order="C") for name, value in flat.items()}
    write_bytes(folder / POLICY_FILE, save(weights))
    save_evaluation(folder, config, evaluation, config.machine["device"])
    curve.savefig(folder / CURVE_FILE, dpi=150)
    config.write(folder)


def save_evaluation(folder: Path, config: RunConfig, evaluation: Evaluation, device: str) -> None:
    """Write the table of an evaluation as JSON, and the returns of its sessions.

    Args:
        folder: the run folder.
        config: of the run.
        evaluation: of its policies.
        device: the device that evaluated.
    """
    content = {
        "device": device,
        "dataset": config.dataset,
        "evaluation_seed": config.evaluation_seed,
        "warnings": evaluation.warnings,
        "rows": to_json(evaluation.rows),
    }
    write_text(folder / TABLE_FILE, json.dumps(content, indent=2) + "\n")
    evaluation.save_returns(
        folder / RETURNS_FILE, config.dataset_digest, config.evaluation_seed, config.environment
    )


def load_variables(run: str | os.PathLike[str], config: RunConfig, algorithm: Algorithm) -> Any:
    """The variables of the networks of all seeds of a run, leading dimension `config.num_seeds`.

    Args:
        run: the run folder.
        config: its config.
        algorithm: `config.make_algorithm` on its environment.

    Raises:
        InputError: the file of policies is missing or damaged, or does not fit the config.
    """
    path = Path(run) / POLICY_FILE
    try:
        flat = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error}); train again") from None
    variables = unflatten_dict({name: jnp.asarray(w) for name, w in flat.items()}, sep="/")
    obs = config.make_env().observation_space().sample(jax.random.key(0))
    expected = jax.eval_shape(algorithm.network.init, jax.random.key(0), obs)
    shapes = jax.tree.map(lambda x: (config.num_seeds, *x.shape), expected)
    if jax.tree.map(jnp.shape, variables) != shapes:
        raise InputError(f"{path}: does not fit {CONFIG_FILE} beside it; train again")
    return variables


def load(run: str | os.PathLike[str], seed: int = 0) -> NetworkPolicy:
    """The greedy policy of a run: `action = policy(key, obs, params)`; with slates an action is a slate.

    Args:
        run: the run folder.
        seed: which of the run's seeds, counted from 0.

    Raises:
        InputError: the folder is not a run, its policies do not fit its config, or it has no such seed.
    """
    config = load_config(run)
    algorithm = config.make_algorithm(config.make_env())
    variables = split_seeds(load_variables(run, config, algorithm))
    if not 0 <= seed < len(variables):
        raise InputError(f"{run}: has seeds 0 to {len(variables) - 1}, not {seed}")
    return algorithm.policy_of(variables[seed])
