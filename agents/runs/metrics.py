"""Writers of the metrics of a training run, chunk by chunk: a CSV file, TensorBoard, a progress bar."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import pandas as pd
from tqdm import tqdm

from jaxsim import InputError
from jaxsim.files import write_text


@dataclass(frozen=True)
class Measurement:
    """The metrics of one chunk of a run of S seeds.

    Attributes:
        steps: environment steps of one seed so far.
        seeds: int[S].
        values: name to float32[S].
    """

    steps: int
    seeds: np.ndarray
    values: Mapping[str, np.ndarray]

    def csv_lines(self, header: bool) -> str:
        """One line per seed, after a line with the names if `header`."""
        rows = pd.DataFrame({"seed": self.seeds, "steps": self.steps, **self.values})
        return rows.to_csv(index=False, header=header, lineterminator="\n")


@dataclass
class MetricsLog:
    """All measurements of a run so far, as the text of metrics.csv; a resumed run continues the same text."""

    text: str = ""

    def add(self, measurement: Measurement) -> None:
        """Append the lines of a measurement."""
        self.text += measurement.csv_lines(header=not self.text)

    def frame(self) -> pd.DataFrame:
        """One row per seed and chunk: seed, steps and the values by name."""
        return pd.read_csv(StringIO(self.text))


class MetricsWriter(Protocol):
    """Receives each measurement of a run."""

    def start(self, log: MetricsLog, seeds: np.ndarray, steps: int, total_steps: int) -> None:
        """Start.

        Args:
            log: all measurements so far; empty for a new run.
            seeds: int[S].
            steps: environment steps of each seed so far.
            total_steps: environment steps of each seed at the end of the run.
        """

    def write(self, measurement: Measurement) -> None:
        """Take the measurement of the chunk that has just ended."""

    def close(self) -> None:
        """Close; the run has ended, or failed."""


class CSVWriter:
    """Keeps a CSV file up to date, so that a run that is killed leaves its measurements."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def start(self, log: MetricsLog, seeds: np.ndarray, steps: int, total_steps: int) -> None:
        """Write the log to the file; later lines of a killed run are removed, and will be written again."""
        write_text(self._path, log.text)
        self._file = self._path.open("a", encoding="utf-8", newline="")

    def write(self, measurement: Measurement) -> None:
        """Append the lines, and flush."""
        assert self._file is not None, "start first"
        self._file.write(measurement.csv_lines(header=self._file.tell() == 0))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def check_tensorboard() -> None:
    """Raise an InputError if the package that writes TensorBoard's files is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            'tensorboard: needs tensorboardX; install it with pip install "jaxsim-recsys[tensorboard]"'
        )


class TensorBoardWriter:
    """TensorBoard event files, one folder per seed, so that TensorBoard shows the seeds as curves of one chart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[int, Any] = {}

    def start(self, log: MetricsLog, seeds: np.ndarray, steps: int, total_steps: int) -> None:
        """Open the files; TensorBoard drops what a killed run measured after `steps`."""
        check_tensorboard()
        from tensorboardX import SummaryWriter  # an optional dependency

        for seed in seeds.tolist():
            self._writers[seed] = SummaryWriter(
                str(self._folder / f"seed_{seed}"), purge_step=steps + 1
            )

    def write(self, measurement: Measurement) -> None:
        """Write the finite values, and flush."""
        for index, seed in enumerate(measurement.seeds.tolist()):
            writer = self._writers[seed]
            for name, values in measurement.values.items():
                if np.isfinite(values[index]):
                    writer.add_scalar(name, float(values[index]), measurement.steps)
            writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()


class ProgressBar:
    """A progress bar, if the output is a terminal."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._steps = 0

    def start(self, log: MetricsLog, seeds: np.ndarray, steps: int, total_steps: int) -> None:
        """Show the bar, for the steps of all seeds together."""
        self._steps = steps
        self._bar = tqdm(
            total=total_steps * len(seeds), initial=steps * len(seeds), unit="step",
            unit_scale=True, disable=None, delay=1,
        )  # fmt: skip

    def write(self, measurement: Measurement) -> None:
        """Move the bar, and show the like rate."""
        assert self._bar is not None, "start first"
        self._bar.update((measurement.steps - self._steps) * len(measurement.seeds))
        self._bar.set_postfix(like_rate=f"{measurement.values['like_rate'].mean():.3f}")
        self._steps = measurement.steps

    def close(self) -> None:
        """Keep the bar as it is."""
        if self._bar is not None:
            self._bar.close()
