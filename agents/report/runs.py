"""The finished runs of a page: what their folders hold, and whether they belong on one page."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from agents.evaluation.comparison import check_same_sessions
from agents.evaluation.returns import Returns, load_returns
from agents.evaluation.table import Row, from_json
from agents.runs.config import RunConfig, load_config
from agents.runs.experiment import PreparedRun, load_run
from agents.runs.folder import METRICS_FILE, TABLE_FILE, partial_folder
from jaxsim import InputError


@dataclass(frozen=True)
class ReportedRun:
    """A finished run, as far as its folder tells of it.

    Attributes:
        folder: the run folder, as the user gave it.
        label: its name on the page, which no other run has.
        config: its settings.
        log: its metrics.csv.
        rows: its table of results.
        warnings: of its evaluation.
        returns: of its policies in the fixed sessions.
    """

    folder: Path
    label: str
    config: RunConfig
    log: pd.DataFrame
    rows: list[Row]
    warnings: list[str]
    returns: Returns

    def load(self, dataset: str | None) -> tuple[PreparedRun, Any]:
        """The run with its simulator, and the variables of the network of its first seed.

        Args:
            dataset: name or path of the dataset, if it has moved.
        """
        prepared, variables = load_run(self.folder, dataset)
        return prepared, variables[0]


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Read the run folders of one page.

    Raises:
        InputError: no folder, or one twice; one cannot be read; or two runs were not evaluated on the same
            sessions of one simulator.
    """
    if not folders:
        raise InputError("give the folder of a finished run, or several")
    same = [str(f) for f, times in Counter(x.resolve() for x in folders).items() if times > 1]
    if same:
        raise InputError(f"{same[0]}: is given more than once")
    configs = [_finished(folder) for folder in folders]
    labels = _labels(folders, [config.algorithm for config in configs])
    runs = [_read(*of_run) for of_run in zip(folders, labels, configs, strict=True)]
    for other in runs[1:]:
        check_same_sessions(runs[0].returns, other.returns, "be on one page")
    return runs


def _finished(folder: Path) -> RunConfig:
    """The config of a run, if the run is finished."""
    if not folder.is_dir():
        partial = partial_folder(folder) if folder.name else folder
        hint = f"; {partial} is not finished: train it with --resume" if partial.is_dir() else ""
        raise InputError(f"{folder}: is not a run folder{hint}")
    config = load_config(folder)
    if not (folder / TABLE_FILE).is_file():
        raise InputError(f"{folder}: has no {TABLE_FILE}: its training is not finished")
    return config


def _labels(folders: Sequence[Path], algorithms: Sequence[str]) -> list[str]:
    """The shortest of algorithm, name of the folder and path that tells the runs apart."""
    for names in (list(algorithms), [folder.name for folder in folders]):
        if len({*names}) == len(names) and all(names):
            return names
    return [str(folder) for folder in folders]


def _read(folder: Path, label: str, config: RunConfig) -> ReportedRun:
    path = folder / TABLE_FILE
    try:
        table = json.loads(path.read_text("utf-8"))
        rows, warnings = from_json(table["rows"]), [str(line) for line in table["warnings"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: cannot be read ({reason}); write it again with `python -m agents evaluate {folder}`"
        ) from None
    log = _read_log(folder / METRICS_FILE)
    return ReportedRun(folder, label, config, log, rows, warnings, load_returns(folder))


def _read_log(path: Path) -> pd.DataFrame:
    try:
        log = pd.read_csv(path)
        log = log.astype({"seed": int, "steps": int, "like_rate": float})
    except (OSError, ValueError, KeyError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path}: cannot be read ({error}); train again") from None
    if log.empty:
        raise InputError(f"{path}: has no lines; train again")
    if np.isinf(log["like_rate"]).any():
        raise InputError(f"{path}: has a like_rate that is infinite; train again")
    return log
