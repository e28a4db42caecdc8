"""The state of a training run: between two chunks, and at its end."""

from dataclasses import dataclass
from typing import Any

import jax
import pandas as pd


@dataclass(frozen=True)
class Progress:
    """A training run of S seeds between two chunks: what a checkpoint holds.

    Attributes:
        state: training states of all seeds (networks, optimisers, environments, replay buffers, keys); leading
            dimension S.
        chunks: number of chunks done.
        log: text of metrics.csv so far.
        seconds, compile_seconds: time spent so far, as in `Training`.
    """

    state: Any
    chunks: int
    log: str
    seconds: float
    compile_seconds: float


@dataclass(frozen=True)
class Training:
    """The result of a training run of S seeds.

    Attributes:
        variables: variables of the networks, leading dimension S; on the default device.
        log: one row per seed and chunk: seed, steps, like_rate, session_return, and the algorithm's diagnostics.
        steps: environment steps of one seed.
        compile_seconds: time of compilation, for all seeds together.
        seconds: time of training without compilation, for all seeds together. Both times of a resumed run add up
            its parts, each up to the checkpoint that the next one started from.
    """

    variables: Any
    log: pd.DataFrame
    steps: int
    compile_seconds: float
    seconds: float


def split_seeds(tree: Any) -> list[Any]:
    """The S trees that were stacked along the leading dimension S of every array of a tree."""
    num_seeds = len(jax.tree.leaves(tree)[0])
    return [jax.tree.map(lambda x, s=s: x[s], tree) for s in range(num_seeds)]
