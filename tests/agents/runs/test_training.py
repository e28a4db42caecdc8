"""The chunks of a training run: metrics, writers, divergence; and estimates of its memory."""

from types import SimpleNamespace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from agents.algorithms.algorithm import LOG_POINTS
from agents.algorithms.networks import Encoder
from agents.algorithms.ppo import PPO, PPOConfig
from agents.algorithms.trpo import TRPO, TRPOConfig
from agents.runs import memory
from agents.runs.checkpoints import Checkpoints
from agents.runs.metrics import (
    CSVWriter,
    Measurement,
    MetricsLog,
    ProgressBar,
    TensorBoardWriter,
    check_tensorboard,
)
from agents.runs.progress import Training
from agents.runs.training import check_seeds, train_seeds
from jaxsim import InputError
from tests.agents.algorithms.probes import CAPACITY, HISTORY, NUM_ITEMS, PROBES, ProbeEnv
from tests.agents.runs.training_process import STEPS_PER_CHUNK, walk
from tests.slates import K, with_rates

SEEDS = np.array([4, 5])


class Watcher:
    """Calls a function after each chunk, and counts how often it was started and closed."""

    def __init__(self, look) -> None:
        self.look, self.started, self.closed = look, 0, 0

    def start(self, log, seeds, steps, total_steps) -> None:
        assert (log.text, steps, total_steps) == ("", 0, LOG_POINTS * STEPS_PER_CHUNK)
        self.started += 1

    def write(self, measurement) -> None:
        self.look(measurement)

    def close(self) -> None:
        self.closed += 1


# ---- metrics -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both() -> Training:
    """Seeds 4 and 5."""
    return train_seeds(walk(), None, seed=4, num_seeds=2)


def test_the_log_has_a_row_for_each_seed_and_chunk(both):
    training, log = both, both.log
    assert log["seed"].tolist() == [4, 5] * LOG_POINTS
    expected = np.repeat(np.arange(1, LOG_POINTS + 1) * STEPS_PER_CHUNK, 2)
    np.testing.assert_array_equal(log["steps"], expected)
    assert training.steps == expected[-1]
    # What a seed measures is its own: the walk's like rate is (2 + w[0]) / 4, its loss the mean of w squared.
    last = log[log["steps"] == training.steps]
    weights = np.asarray(training.variables["w"])
    np.testing.assert_allclose(last["like_rate"], (2 + weights[:, 0]) / 4, rtol=1e-6)
    np.testing.assert_allclose(last["loss"], (weights**2).mean(axis=1), rtol=1e-6)
    assert log["session_return"].isna().all()  # no session ever finishes there


def test_a_seed_does_not_depend_on_those_beside_it(both):
    alone = train_seeds(walk(), None, seed=5, num_seeds=1)
    np.testing.assert_allclose(alone.variables["w"][0], both.variables["w"][1], rtol=1e-6)


def test_metrics_csv_is_complete_after_every_chunk(tmp_path):
    path = tmp_path / "metrics.csv"
    lines = []

    def look(measurement) -> None:
        frame = pd.read_csv(path)
        assert frame["steps"].max() == measurement.steps
        lines.append(len(frame))

    training = train_seeds(walk(), None, 4, 2, writers=[CSVWriter(path), Watcher(look)])
    assert lines == [2 * chunk for chunk in range(1, LOG_POINTS + 1)]
    pd.testing.assert_frame_equal(pd.read_csv(path), training.log)


def test_a_csv_goes_back_to_the_text_of_the_log(tmp_path):
    log = MetricsLog()
    log.add(Measurement(8, SEEDS, {"loss": np.array([0.5, 1e-7], np.float32)}))
    assert log.text == "seed,steps,loss\n4,8,0.5\n5,8,1e-07\n"
    path = tmp_path / "metrics.csv"
    path.write_text(log.text + "4,16,0.25\n5,1")  # cut off by a kill
    writer = CSVWriter(path)
    writer.start(log, SEEDS, 8, 16)
    writer.write(Measurement(16, SEEDS, {"loss": np.array([2.0, 3.0], np.float32)}))
    writer.close()
    assert path.read_text() == log.text + "4,16,2.0\n5,16,3.0\n"


def test_writers_are_closed_however_a_run_ends():
    watcher = Watcher(lambda measurement: None)
    train_seeds(walk(), None, 4, 1, writers=[watcher])
    assert (watcher.started, watcher.closed) == (1, 1)
    watcher = Watcher(lambda measurement: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_seeds(walk(), None, 4, 1, writers=[watcher])
    assert (watcher.started, watcher.closed) == (1, 1)


def test_the_progress_bar_counts_the_steps_of_all_seeds(monkeypatch):
    bars = []

    class Bar(SimpleNamespace):
        def __init__(self, **settings) -> None:
            super().__init__(n=settings["initial"], total=settings["total"], closed=False)
            bars.append(self)

        def update(self, steps) -> None:
            self.n += steps

        def set_postfix(self, **values) -> None:
            self.values = values

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr("agents.runs.metrics.tqdm", Bar)
    bar = ProgressBar()
    bar.start(MetricsLog(), SEEDS, 8, 24)
    bar.write(Measurement(16, SEEDS, {"like_rate": np.array([0.5, 0.7])}))
    assert (bars[0].n, bars[0].total, bars[0].values) == (32, 48, {"like_rate": "0.600"})
    bar.close()
    assert bars[0].closed


def test_tensorboard_without_its_package_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install .*\[tensorboard\]"):
        check_tensorboard()


def test_tensorboard_has_a_folder_per_seed_and_skips_numbers_that_are_not_finite(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    writer = TensorBoardWriter(tmp_path)
    writer.start(MetricsLog(), SEEDS, 8, 24)
    writer.write(Measurement(16, SEEDS, {"loss": np.array([0.5, np.nan], np.float32)}))
    writer.close()
    events = {}
    for seed in SEEDS:
        (path,) = (tmp_path / f"seed_{seed}").iterdir()
        events[seed] = [e for e in map(Event.FromString, records(path.read_bytes())) if e.step]
    scalars = [(e.step, v.tag, v.simple_value) for e in events[4] for v in e.summary.value]
    assert scalars == [(16, "loss", 0.5)]
    assert not any(v for e in events[5] for v in e.summary.value)


def records(content: bytes):
    """The records of a TensorBoard file: length (8 bytes), checksum (4), data, checksum (4)."""
    while content:
        length = int.from_bytes(content[:8], "little")
        yield content[12 : 12 + length]
        content = content[16 + length :]


# ---- what stops a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("breaks", ["loss", "variables", "optimiser"])
def test_a_run_that_diverges_names_the_step_the_loss_and_the_checkpoint(breaks, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    algorithm = walk(breaks_at=29, breaks=breaks)  # in the chunk before the third checkpoint
    with pytest.raises(InputError) as caught:
        train_seeds(algorithm, None, 4, 2, checkpoints=checkpoints)
    message = str(caught.value)
    assert "\n" not in message
    assert "training diverged: after 120 steps seed 4 has loss " in message
    assert ("loss nan" in message) == (breaks == "loss")
    assert ("not finite" in message) == (breaks != "loss")
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / '20'}" in message
    template = jax.eval_shape(
        jax.vmap(algorithm.init, (0, None, None)),
        jax.random.split(jax.random.key(0), 2),
        None,
        None,
    )
    progress = checkpoints.restore(template)
    assert progress.chunks == 20
    for leaf in jax.tree.leaves((progress.state.variables, progress.state.optimiser)):
        assert jnp.isfinite(leaf).all()
    checkpoints.close()


def test_a_run_that_diverges_without_checkpoint_says_so():
    with pytest.raises(InputError, match=r"after 4 steps .*there is no checkpoint"):
        train_seeds(walk(breaks_at=0, breaks="loss"), None, 4, 2)


@pytest.mark.parametrize(
    ("seed", "num_seeds", "message"),
    [
        (0, 0, "seeds is 0: give a whole number from 1"),
        (-1, 1, "seed is -1: give a whole number from 0, up to 4,294,967,295"),
        (2**32 - 1, 2, "seed is 4294967295: give a whole number from 0, up to 4,294,967,294"),
        (2**63, 1, "seed is 9223372036854775808: "),
    ],
)
def test_seeds_that_give_no_key_of_their_own_are_refused(seed, num_seeds, message):
    with pytest.raises(InputError, match=message):
        train_seeds(walk(), None, seed, num_seeds)


def test_the_largest_seeds_are_allowed():
    check_seeds(2**32 - 2, 2)


# ---- memory ------------------------------------------------------------------------------------------------


def test_the_estimate_is_of_states_and_scores():
    algorithm = walk(num_envs=10, rollout_length=3)
    # A state: 6 weights, iteration and a key of two words, 4 bytes each, and 50 bytes a session.
    state = 4 * (6 + 1 + 2) + 10 * 50
    scores = 4 * 10 * 3 * 7
    expected = 3 * (memory.STATE_COPIES * state + memory.SCORE_COPIES * scores)
    assert memory.training_bytes(algorithm, None, 3, at_once=3) == expected
    # One after the other: states of all seeds, one in progress, and its scores.
    expected = (3 * memory.STATE_COPIES + 1) * state + memory.SCORE_COPIES * scores
    assert memory.training_bytes(algorithm, None, 3, at_once=1) == expected
    alone = memory.STATE_COPIES * state + memory.SCORE_COPIES * scores
    assert memory.training_bytes(algorithm, None, 1, at_once=1) == alone


def test_each_device_has_its_share():
    algorithm = walk(num_envs=12, rollout_length=1)
    params = jnp.zeros(1000)
    # Three seeds on each of two devices, beside a copy of the params.
    for at_once in (1, 2, 3):
        alone = memory.training_bytes(algorithm, params, 3, at_once=at_once)
        assert memory.training_bytes(algorithm, params, 6, 2, at_once) == alone + 4000
    # Four devices cannot share six seeds: sessions are split, networks are not.
    state = 4 * (6 + 1 + 2) + 12 * 50 // 4
    scores = 4 * 12 * 7 // 4
    expected = 6 * (memory.STATE_COPIES * state + memory.SCORE_COPIES * scores) + 4000
    assert memory.training_bytes(algorithm, params, 6, devices=4, at_once=6) == expected


@pytest.mark.parametrize(
    ("encoder", "copies"), [("mean", 0), ("residual", 6), ("attention", 7), ("gru", 13)]
)
def test_encoders_hold_the_window_of_every_step(encoder, copies):
    assert memory.ENCODER_COPIES.keys() == set(get_args(Encoder))

    def estimate(rollout_length: int) -> int:
        config = PPOConfig(
            num_envs=8, rollout_length=rollout_length, num_minibatches=1, width=8, encoder=encoder,
            item_embedding="logs" if encoder == "residual" else "learned",
        )  # fmt: skip
        return memory.training_bytes(PPO(ProbeEnv(), config), PROBES["masked"], 2, at_once=2)

    per_step = 4 * (memory.SCORE_COPIES * NUM_ITEMS + copies * 8 * (HISTORY + CAPACITY))
    assert estimate(5) - estimate(3) == 2 * 8 * 2 * per_step


def test_slates_of_trpo_hold_scores_of_every_place(dataset):
    _, env, params = with_rates(dataset)

    def estimate(rollout_length: int) -> int:
        config = TRPOConfig(num_envs=8, rollout_length=rollout_length, width=8)
        return memory.training_bytes(TRPO(env, config), params, 2, at_once=2)

    copies = memory.TRPO_SCORE_COPIES + K * memory.TRPO_PLACE_COPIES
    assert estimate(8) - estimate(4) == 4 * 8 * 2 * 4 * copies * env.num_items


def test_more_environments_than_memory_are_refused_with_how_many_fit(monkeypatch):
    wanted = walk(num_envs=10**6)
    free = memory.training_bytes(walk(num_envs=1234), None, 2)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    with pytest.raises(InputError, match=r"num_envs is 1000000: .*num_envs of 1234 would fit"):
        memory.check_memory(wanted, None, 2)
    memory.check_memory(walk(num_envs=1234), None, 2)
    with pytest.raises(InputError, match="of 1234 would fit"):
        memory.check_memory(walk(num_envs=1235), None, 2)
    free = 4 * memory.training_bytes(walk(num_envs=1234), None, 2, devices=4)
    monkeypatch.setattr(memory, "free_bytes", lambda device: free)
    with pytest.raises(InputError, match=r"on each of 4 devices.* num_envs of 1232 would fit"):
        memory.check_memory(wanted, None, 2, devices=4)  # a multiple of 4
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    with pytest.raises(InputError, match=r"0\.0 GB are free on cpu; no num_envs would fit"):
        memory.check_memory(wanted, None, 2)


def test_free_memory_is_the_device_s_or_the_machine_s(monkeypatch, tmp_path):
    gpu = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 1000, "bytes_in_use": 300})
    assert memory.free_bytes(gpu) == 700
    cpu = SimpleNamespace(memory_stats=lambda: None)
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", limit)
    free = memory.free_bytes(cpu)
    assert 10**6 < free < 10**14
    limit.write_text("max\n")
    assert memory.free_bytes(cpu) > free / 2
    limit.write_text("1000\n")  # a container's, which this process is above
    assert memory.free_bytes(cpu) < 0
