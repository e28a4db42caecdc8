"""The choice of f_sta's architecture and training settings, by validation AUC alone.

Each setting is trained on the training split and judged on the validation labels, with several seeds. The test
split is never read: `train_sasrec` does not look at its labels.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.output import check_json, write_json
from jaxsim import InputError, load_dataset
from jaxsim.tables import format_table
from prep.statistic_model import SASRecTraining, train_sasrec

# What differs from the default in each setting of the search.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "no running residuals": {"decays": ()},
    "width 16": {"width": 16},
    "width 64": {"width": 64},
    "1 block": {"num_blocks": 1},
    "3 blocks": {"num_blocks": 3},
    "dropout 0.4": {"dropout": 0.4},
    "learning rate 0.002": {"learning_rate": 2e-3},
    "prior 0": {"prior": 0.0},
}


def search_statistic_model(
    dataset: str = "ml-100k", seeds: int = 3, json: Path | None = None
) -> None:
    """Compare settings of the statistic model, SASRec, by their validation AUC.

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
        for name, changes in VARIANTS.items():
            _, entry = train_sasrec(packed.arrays, replace(SASRecTraining(), seed=seed, **changes))
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
