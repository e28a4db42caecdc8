"""The choice of f_sta's architecture and training settings, by validation AUC alone.

Each setting is trained on the training split and judged on the validation labels, with several seeds. The test
split is never read: `train_sasrec` does not look at its labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.output import check_json, write_json
from jaxsim import InputError, load_dataset
from jaxsim.sasrec import SASRec
from jaxsim.tables import format_table
from prep.statistic_model import SASRecTraining, train_sasrec


class WithoutCommonCandidate(SASRec):
    """f_sta whose candidate vector is the item's own part alone, without the part common to all items."""

    def logit(self, hidden: jax.Array, candidate: jax.Array, user: jax.Array) -> jax.Array:
        """As `SASRec.logit`."""
        common = jnp.broadcast_to(self.common_candidate, hidden.shape)
        return super().logit(hidden, candidate, user) - jnp.sum(hidden * common, axis=-1)


@dataclass(frozen=True)
class Variant:
    """One setting of the search: what differs from the default."""

    changes: Mapping[str, Any]
    architecture: type[SASRec] = SASRec


VARIANTS = {
    "default": Variant({}),
    "start from rates": Variant({"start": "rates"}),
    "no common candidate": Variant({}, WithoutCommonCandidate),
    "width 16": Variant({"width": 16}),
    "width 64": Variant({"width": 64}),
    "1 block": Variant({"num_blocks": 1}),
    "3 blocks": Variant({"num_blocks": 3}),
    "dropout 0.4": Variant({"dropout": 0.4}),
    "learning rate 0.002": Variant({"learning_rate": 2e-3}),
    "embedding penalty 0": Variant({"embedding_penalty": 0.0}),
}


def search_statistic_model(
    dataset: str = "ml-100k", seeds: int = 3, json: Path | None = None
) -> None:
    """Compare settings of the statistic model, SASRec, by their validation AUC.

    Example:
        --seeds 2

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        seeds: trainings of each setting, with seeds 0, 1, ...
        json: also write the result here.
    """
    if seeds < 1:
        raise InputError(f"--seeds is {seeds}: give a whole number from 1")
    check_json(json)
    packed = load_dataset(dataset)
    aucs: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for seed in range(seeds):
        for name, variant in VARIANTS.items():
            config = replace(SASRecTraining(), seed=seed, **variant.changes)
            _, entry = train_sasrec(packed.arrays, config, variant.architecture)
            if entry["validation_auc"] is None:
                raise InputError(f"{dataset}: the validation labels are all the same: no AUC")
            aucs[name].append(entry["validation_auc"])
            print(f"seed {seed}  {name}: {entry['validation_auc']:.4f}", flush=True)
    print(format_search(aucs))
    write_json(json, {"dataset": packed.name, "split": "validation", "seeds": seeds, "auc": aucs})


def format_search(aucs: Mapping[str, list[float]]) -> str:
    """The settings as a table, the highest mean first: mean, lowest and highest validation AUC over seeds."""
    ranked = sorted(aucs.items(), key=lambda entry: -np.mean(entry[1]))
    rows = [
        [name, *(f"{value:.4f}" for value in (np.mean(values), min(values), max(values)))]
        for name, values in ranked
    ]
    return format_table(["setting", "mean", "lowest", "highest"], rows)
