"""A training run that tests stop and kill, of an algorithm that compiles fast."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from agents.algorithms.algorithm import LOG_POINTS, Algorithm, AlgorithmConfig, TrainState
from agents.algorithms.rollout import SessionTotals
from agents.runs.checkpoints import Checkpoints
from agents.runs.metrics import CSVWriter, MetricsWriter
from agents.runs.progress import Training
from agents.runs.training import train_seeds

STEPS_PER_CHUNK = 4


@dataclass(frozen=True)
class WalkConfig(AlgorithmConfig):
    """One iteration a chunk."""

    total_steps: int = STEPS_PER_CHUNK * LOG_POINTS
    num_envs: int = 2
    rollout_length: int = 2
    breaks_at: int = 10_000
    """Iteration after which a number is not finite."""
    breaks: str = "variables"
    """Where that number is: "loss", "variables" or "optimiser"."""


@dataclass(frozen=True)
class Walk(Algorithm[WalkConfig]):
    """Weights that walk at random: a training run with chunks, metrics and checkpoints, but without learning."""

    @property
    def network(self) -> Any:
        raise NotImplementedError

    def init(self, key, params, item_vectors=None):
        key, key_weights = jax.random.split(key)
        weights = {"w": jax.random.normal(key_weights, (3,))}
        sessions = jnp.zeros((self.config.num_envs, 50), jnp.int8)
        return TrainState(weights, {"m": jnp.zeros(3)}, sessions, jnp.int32(0), key)

    def iterate(self, state, params):
        key, key_step = jax.random.split(state.key)
        weights = state.variables["w"] + 0.1 * jax.random.normal(key_step, (3,))
        loss = (weights**2).mean()
        broken = {name: jnp.where(
            (state.iteration >= self.config.breaks_at) & (self.config.breaks == name), bad, 0.0)
            for name, bad in (("loss", jnp.nan), ("variables", jnp.nan), ("optimiser", jnp.inf))
        }  # fmt: skip
        state = replace(
            state,
            variables={"w": weights + broken["variables"]},
            optimiser={"m": state.optimiser["m"] + weights + broken["optimiser"]},
            sessions=state.sessions + 1,
            iteration=state.iteration + 1,
            key=key,
        )
        four = jnp.int32(STEPS_PER_CHUNK)
        totals = SessionTotals(four, jnp.float32(2) + weights[0], jnp.int32(0), jnp.float32(0))
        return state, (totals, {"loss": loss + broken["loss"]})


def walk(**settings) -> Walk:
    return Walk(SimpleNamespace(num_items=7), WalkConfig(**settings))


def train_walk(
    folder: Path,
    every: int,
    stopper: MetricsWriter | None = None,
    algorithm: Walk | None = None,
) -> Training:
    """Train seeds 5 and 6 in a folder, from its latest checkpoint if there is one."""
    checkpoints = Checkpoints(folder / "checkpoints", every)
    writers = [CSVWriter(folder / "metrics.csv"), *([stopper] if stopper else [])]
    try:
        return train_seeds(
            algorithm or walk(), None, 5, 2, checkpoints=checkpoints, writers=writers
        )
    finally:
        checkpoints.close()


if __name__ == "__main__":
    train_walk(Path(sys.argv[1]), every=1)
