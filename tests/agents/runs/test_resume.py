"""A run that is stopped anywhere and resumed ends with the same bits as a run that was never stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import pytest

from agents.algorithms.algorithm import LOG_POINTS
from agents.runs.checkpoints import MAX_TO_KEEP
from agents.runs.progress import Training
from jaxsim import InputError
from tests.agents.runs.training_process import STEPS_PER_CHUNK, train_walk, walk
from tests.paths import ROOT

PATIENCE_S = 300.0


class Stop(Exception):
    pass


class Stopper:
    """Stops a run when a chunk has been measured, before its checkpoint."""

    def __init__(self, chunk: int) -> None:
        self.steps = chunk * STEPS_PER_CHUNK

    def start(self, log, seeds, steps, total_steps) -> None:
        assert steps <= self.steps

    def write(self, measurement) -> None:
        if measurement.steps == self.steps:
            raise Stop

    def close(self) -> None:
        pass


def train_with_stops(folder: Path, *stops: int) -> Training:
    """Stop at each of some chunks, then go on to the end."""
    for chunk in stops:
        with pytest.raises(Stop):
            train_walk(folder, 10, Stopper(chunk))
    return train_walk(folder, 10)


def checkpoint_names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, train_walk(folder, 10)


def assert_same_end(training: Training, folder: Path, undisturbed) -> None:
    expected_folder, expected = undisturbed
    chex.assert_trees_all_equal(training.variables, expected.variables)
    metrics = (folder / "metrics.csv").read_bytes()
    assert metrics == (expected_folder / "metrics.csv").read_bytes()
    assert metrics.count(b"\n") == 1 + 2 * LOG_POINTS


@pytest.mark.parametrize(
    "stops",
    [(1,), (10,), (3, 12, 12, 31), (LOG_POINTS,)],
    ids=lambda stops: "-".join(map(str, stops)),
)
def test_a_run_stopped_at_any_chunk_ends_the_same(stops, tmp_path, undisturbed):
    training = train_with_stops(tmp_path, *stops)
    assert_same_end(training, tmp_path, undisturbed)
    assert training.steps == LOG_POINTS * STEPS_PER_CHUNK
    assert sorted(set(training.log["seed"])) == [5, 6]


def test_only_the_latest_checkpoints_are_kept(undisturbed):
    folder, _ = undisturbed
    assert checkpoint_names(folder) == ["30", "40"]


def test_a_run_begins_where_its_latest_checkpoint_is(tmp_path, capsys):
    train_with_stops(tmp_path, 25)
    lines = [line for line in capsys.readouterr().out.splitlines() if "compiled" in line]
    assert "training for 160 steps" in lines[0]
    assert "continuing after 80 of 160 steps" in lines[1]


def damage(checkpoint: Path) -> None:
    """Cut every file of a checkpoint in half."""
    for path in checkpoint.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # orbax's, of its threads
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_is_written_again(
    tmp_path, undisturbed, capsys
):
    with pytest.raises(Stop):
        train_walk(tmp_path, 10, Stopper(25))
    assert checkpoint_names(tmp_path) == ["10", "20"]
    damage(tmp_path / "checkpoints" / "20")
    with pytest.raises(InputError, match=r"the last good checkpoint is .*/checkpoints/10; "):
        train_walk(tmp_path, 10, algorithm=walk(breaks_at=15))
    capsys.readouterr()
    with pytest.raises(Stop):
        train_walk(tmp_path, 10, Stopper(25))
    output = capsys.readouterr().out
    assert "20: cannot be read" in output
    assert "continuing after 40 of 160 steps" in output
    assert_same_end(train_walk(tmp_path, 10), tmp_path, undisturbed)
    output = capsys.readouterr().out
    assert "cannot be read" not in output
    assert "continuing after 80 of 160 steps" in output


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # orbax's, of its threads
def test_checkpoints_that_cannot_be_read_or_do_not_fit_are_one_line(tmp_path):
    with pytest.raises(Stop):
        train_walk(tmp_path, 10, Stopper(15))
    with pytest.raises(InputError, match=r"checkpoints: no checkpoint can be read") as caught:
        train_walk(tmp_path, 10, algorithm=walk(num_envs=4, rollout_length=1))
    assert "\n" not in str(caught.value)
    damage(tmp_path / "checkpoints" / "10")
    with pytest.raises(InputError, match="no checkpoint can be read"):
        train_walk(tmp_path, 10)


# ---- processes that are killed -----------------------------------------------------------------------------


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.agents.runs.training_process", str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )


def kill_when(process: subprocess.Popen, condition) -> None:
    """Kill -9 at a moment when a condition is true; the process stands still while it is looked at."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline, "nothing happened"
        if condition():
            process.send_signal(signal.SIGSTOP)
            if condition():
                break
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)
    process.kill()
    assert process.wait(PATIENCE_S) == -signal.SIGKILL


@pytest.mark.slow  # starts and kills two processes
def test_a_killed_process_continues_where_it_was(tmp_path, undisturbed):
    """Killed between two checkpoints, then in the middle of writing one."""
    checkpoints = tmp_path / "checkpoints"

    def finished() -> list[int]:
        return sorted(int(path.name) for path in checkpoints.glob("*") if path.name.isdecimal())

    def half_written() -> list[Path]:
        return list(checkpoints.glob("*.orbax-checkpoint-tmp*"))

    kill_when(start(tmp_path), lambda: len(finished()) == MAX_TO_KEEP)
    first = finished()[-1]
    kill_when(start(tmp_path), lambda: half_written() and finished()[-1] > first + 1)
    assert half_written()
    assert first < finished()[-1] < LOG_POINTS
    assert_same_end(train_walk(tmp_path, 10), tmp_path, undisturbed)
    assert half_written() == []
