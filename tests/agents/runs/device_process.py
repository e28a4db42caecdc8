"""Training on four devices beside training on one, for tests/agents/runs/test_devices.py: what differs, as JSON.

Compilation takes most of the time, so each algorithm is compiled only once for one device and once for four.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agents.algorithms.algorithm import Algorithm
from agents.algorithms.parallel import lay_out
from agents.algorithms.registry import ALGORITHMS
from agents.runs.checkpoints import Checkpoints
from agents.runs.training import train_seeds
from tests.agents.algorithms.probes import PROBES, ProbeEnv
from tests.agents.conftest import learnable_dataset
from tests.agents.runs.training_process import walk
from tests.conftest import simulator_of

COMMON = {"total_steps": 2000, "num_envs": 8, "rollout_length": 4, "width": 8}
ITERATIONS = 4
CHUNKS, RESUMED = 4, 2  # of a run, and after how many it goes on from its checkpoint


class Trained(NamedTuple):
    """The state of all seeds after some training, and the account of that."""

    state: Any
    account: Any


def make(name: str, **settings: Any) -> Algorithm:
    config_type, kind = ALGORITHMS[name]
    return kind(ProbeEnv(), config_type(**COMMON, **settings))


def train(algorithm: Algorithm, params: Any, start: Any, devices: int) -> Trained:
    """One seed, from its state before training."""
    algorithm, layout = lay_out(algorithm, 1, devices)

    def run(state, params):
        several = jax.vmap(algorithm.iterations, in_axes=(0, None, None))
        return several(state, params, ITERATIONS)

    axes = layout.state_axes
    placed = layout.place(run, (axes, None), (axes, layout.seeds_axis))
    return Trained(*jax.jit(placed)(start, params))


def compare_training(algorithm: Algorithm, params: Any) -> dict[str, float]:
    """Beside one device."""
    init = jax.jit(jax.vmap(algorithm.init, in_axes=(0, None)))
    start = init(jax.random.key(0)[None], params)
    return compare(*(train(algorithm, params, start, devices) for devices in (1, 4)))


def among_candidates(name: str, **settings: Any) -> dict[str, float]:
    """Training among candidates, beside one device: the devices draw the same ones."""
    simulator = simulator_of(
        learnable_dataset(), history_length=4, session_capacity=10, users="train"
    )
    config_type, kind = ALGORITHMS[name]
    config = config_type(**COMMON, candidates=21, **settings)
    return compare_training(kind(simulator.env, config), simulator.params)


class Stop(Exception):
    pass


class Spy(Checkpoints):
    """Stops a run at its last checkpoint, and copies an earlier one."""

    def __init__(self, folder: Path, copy: Path | None = None) -> None:
        super().__init__(folder, every=RESUMED)
        self.copy = copy

    def save(self, progress) -> None:
        super().save(progress)
        if progress.chunks == RESUMED and self.copy:
            shutil.copytree(self.folder, self.copy)
        if progress.chunks == CHUNKS:
            self.state, self.log = progress.state, progress.log
            raise Stop


def train_with_checkpoints(
    algorithm: Algorithm, num_seeds: int, devices: int, folder: Path, copy: Path | None = None
) -> Trained:
    """A training run of several seeds; it continues from the checkpoint in the folder if there is one."""
    checkpoints = Spy(folder, copy)
    try:
        train_seeds(
            algorithm, PROBES["masked"], 0, num_seeds, checkpoints=checkpoints, devices=devices
        )
    except Stop:
        pass
    finally:
        checkpoints.close()
    table = [line.split(",") for line in checkpoints.log.splitlines()[1:]]
    return Trained(checkpoints.state, np.array([[float(x or 0) for x in row] for row in table]))


def numbers(tree) -> list[np.ndarray]:
    leaves = jax.tree.leaves(tree)
    keys = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    return [
        np.asarray(jax.random.key_data(x) if k else x) for x, k in zip(leaves, keys, strict=True)
    ]


def largest_difference(one, other) -> float:
    pairs = zip(numbers(one), numbers(other), strict=True)
    return max(float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()) for a, b in pairs)


def compare(alone: Trained, split: Trained) -> dict[str, float]:
    first, *_, last = jax.tree.leaves(split.state.variables)[-1].addressable_shards
    whole = first.data.shape == jax.tree.leaves(alone.state.variables)[-1].shape
    return {
        "sessions": largest_difference(alone.state.sessions, split.state.sessions),
        "variables": largest_difference(alone.state.variables, split.state.variables),
        "account": largest_difference(alone.account, split.account),
        "state": largest_difference(alone.state, split.state),
        "moved": float(max(np.ptp(x) for x in numbers(alone.state.variables))),
        "devices": len(jax.tree.leaves(split.state.sessions)[-1].sharding.device_set),
        "copies": largest_difference(first.data, last.data) if whole else 0.0,
    }


def compare_resumed(algorithm: Algorithm, num_seeds: int, folder: Path) -> dict[str, float]:
    """Beside one device, and beside the same run on four that goes on from its checkpoint."""
    alone = train_with_checkpoints(algorithm, num_seeds, 1, folder / "alone")
    copy = folder / "copy"
    split = train_with_checkpoints(algorithm, num_seeds, 4, folder / "split", copy)
    resumed = train_with_checkpoints(algorithm, num_seeds, 4, copy)
    return {**compare(alone, split), "resumed": largest_difference(split, resumed)}


def main(out: Path) -> None:
    differences = {
        # With less damping, conjugate gradients magnify how a sum is rounded.
        "trpo": compare_training(make("trpo", cg_damping=0.1), PROBES["masked"]),
        "dqn": compare_training(make("dqn", batch_size=16, replay_steps=64), PROBES["masked"]),
        "candidates of a2c": among_candidates("a2c"),
        "candidates of dqn": among_candidates("dqn", batch_size=16, replay_steps=64),
    }
    with tempfile.TemporaryDirectory() as folder:
        # The program of a run that goes on is that of the run before.
        jax.config.update("jax_compilation_cache_dir", f"{folder}/compiled")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        differences["ppo"] = compare_resumed(
            make("ppo", num_minibatches=4), 1, Path(folder) / "ppo"
        )
        differences["whole seeds"] = compare_resumed(walk(), 4, Path(folder) / "walk")
    out.write_text(json.dumps(differences))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
