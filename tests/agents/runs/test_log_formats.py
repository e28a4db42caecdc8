"""Logs as Minari datasets and in the fields of the Open Bandit Pipeline: read back, and never half-written."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from agents.evaluation.baselines import RandomPolicy
from agents.evaluation.logs import draw_sessions, log_sessions_of, logged_episodes
from agents.runs import log_formats
from agents.runs.log_formats import (
    Recording,
    item_context,
    window_context,
    write_minari,
    write_obp,
    write_parquet,
)
from agents.runs.session_log import LogOptions
from jaxsim import GymnasiumEnv, InputError
from tests.conftest import simulator_of
from tests.factory import random_dataset

EPISODES = 150  # more than a batch
LABELS = {"policy": "random", "simulator": "UserSimulator-v0, calibrated"}


@pytest.fixture(scope="module")
def packed():
    return random_dataset(0, num_users=23, window=12, width=4, num_blocks=1)


def recording_of(simulator, episodes=EPISODES) -> Recording:
    dataset, env, params = simulator
    users, keys = draw_sessions(params, jax.random.key(5), episodes)
    about = {"run": "here", "seed": 5}
    return Recording(dataset, env, params, RandomPolicy(), users, keys, LABELS, about)


@pytest.fixture(scope="module")
def recording(packed) -> Recording:
    return recording_of(simulator_of(packed, semantics="calibrated", session_capacity=6))


@pytest.fixture(scope="module")
def slates(packed) -> Recording:
    options = {"semantics": "calibrated", "slate_size": 3, "session_capacity": 4}
    return recording_of(simulator_of(packed, **options, taste="latent"), episodes=20)


def frame_of(recording) -> pd.DataFrame:
    r = recording
    return log_sessions_of(r.dataset, r.env, r.params, r.policy, r.users, r.keys)


@pytest.mark.slow
def test_observations_are_those_of_the_window_before_each_step(recording):
    env, params = recording.env, recording.params
    batches = list(recording.episodes())
    assert len(batches) == 2
    for batch in batches:
        columns, before = batch.columns, batch.before
        for row in np.flatnonzero(columns["step"] <= 3)[::25]:
            rows = np.flatnonzero(columns["episode"] == columns["episode"][row])
            items, likes = (np.zeros(6, x.dtype) for x in (columns["item"], columns["like"]))
            items[: len(rows)], likes[: len(rows)] = columns["item"][rows], columns["like"][rows]
            steps = jnp.int32(columns["step"][row] - 1)
            user = jnp.int32(columns["user"][row])
            obs = env.window_of(user, jnp.asarray(items), jnp.asarray(likes), steps, params)
            for name, values in before.items():
                np.testing.assert_array_equal(values[row], getattr(obs, name))
        ends = np.flatnonzero(columns["terminated"] | columns["truncated"])
        np.testing.assert_array_equal(
            batch.last["length"], before["length"][ends] + 1, "the last step is in the window"
        )
    plain = logged_episodes(env, params, recording.policy, recording.users, recording.keys)
    for one, other in zip(batches, plain, strict=True):
        assert other.before == other.last == {}
        for name, values in one.columns.items():
            np.testing.assert_array_equal(other.columns[name], values)


@pytest.mark.slow
def test_parquet_has_the_policy_and_the_simulator_in_every_row(recording, tmp_path):
    totals = write_parquet(tmp_path / "log.parquet", recording)
    log = pd.read_parquet(tmp_path / "log.parquet")
    assert (totals.steps, totals.likes, totals.certain) == (len(log), log["like"].sum(), 0)
    assert log.attrs == recording.about
    for name, text in LABELS.items():
        assert (log[name] == text).all()
    pd.testing.assert_frame_equal(log[list(frame_of(recording))], frame_of(recording))


# ---- Minari ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recording", "slates"])
def test_minari_reads_back_what_was_logged(kind, request, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    recording = request.getfixturevalue(kind)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    root = tmp_path / "datasets"
    for _ in range(2):  # the second one replaces the first
        totals = write_minari(root / "random-v0", recording)
    assert "MINARI_DATASETS_PATH" not in os.environ
    assert list(home.iterdir()) == []
    assert [path.name for path in root.iterdir()] == ["random-v0"]

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    dataset = minari.load_dataset("random-v0")
    log = frame_of(recording)
    adapter = GymnasiumEnv(recording.env, recording.params, seed=0)
    assert dataset.spec.dataset_id == "random-v0"
    assert (dataset.total_steps, dataset.total_episodes) == (totals.steps, len(recording.users))
    assert dataset.observation_space == adapter.observation_space
    assert dataset.action_space == adapter.action_space
    assert dataset.storage.metadata["jaxsim"] == recording.about
    for episode in dataset.iterate_episodes():
        rows = log[log["episode"] == episode.id]
        actions = rows["slate"].tolist() if kind == "slates" else rows["item"]
        np.testing.assert_array_equal(episode.actions, np.array(actions))
        np.testing.assert_array_equal(episode.rewards, rows["reward"])
        np.testing.assert_array_equal(episode.terminations, rows["terminated"])
        np.testing.assert_array_equal(episode.truncations, rows["truncated"])
        np.testing.assert_array_equal(episode.infos["propensity"][1:], rows["propensity"])
        assert np.isnan(episode.infos["propensity"][0])
        count = len(rows) + 1
        assert {len(x) for x in episode.observations.values()} == {count}
        for step in range(count):
            obs = {name: x[step] for name, x in episode.observations.items()}
            assert adapter.observation_space.contains(obs)
        assert all(adapter.action_space.contains(action) for action in episode.actions)


@pytest.mark.parametrize("writer", [write_minari, write_obp])
def test_nothing_is_left_of_a_log_that_fails(writer, tmp_path, monkeypatch):
    """The first batch is there, and then something goes wrong."""
    if writer is write_minari:
        pytest.importorskip("minari")
        pytest.importorskip("h5py")
    names = ("items", "responses", "user", "length")
    window = {name: np.zeros((1, 2) if name in names[:2] else (1,), np.int32) for name in names}
    columns = {name: np.zeros(1, np.int32) for name in ("episode", "item", "user", "like", "step")}
    columns |= {"reward": np.zeros(1), "propensity": np.ones(1, np.float32)}
    columns |= {"terminated": np.ones(1, bool), "truncated": np.zeros(1, bool)}

    def episodes(*_, **__):
        yield log_formats.LoggedEpisodes(columns, window, window)
        raise OSError("disk full")

    monkeypatch.setattr(log_formats, "logged_episodes", episodes)
    monkeypatch.setattr(log_formats, "item_context", lambda dataset: np.zeros((3, 5)))
    simulator = simulator_of(random_dataset(0, num_users=6), history_length=1, session_capacity=1)
    dataset, env, params = simulator
    recording = Recording(dataset, env, params, None, None, None, LABELS, {})
    with pytest.raises(OSError, match="disk full"):
        writer(tmp_path / "out-v0", recording)
    assert list(tmp_path.iterdir()) == []


# ---- Open Bandit Pipeline ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_obp_gets_the_fields_of_its_bandit_feedback(recording, tmp_path):
    write_obp(tmp_path / "log.npz", recording)
    with np.load(tmp_path / "log.npz", allow_pickle=False) as file:
        feedback = {name: x if x.ndim else x.item() for name, x in file.items()}
    log = frame_of(recording)
    assert (feedback["n_rounds"], feedback["n_actions"]) == (len(log), recording.env.num_items)
    for name, column in (
        ("action", "item"), ("reward", "reward"), ("pscore", "propensity"), ("user", "user"),
        ("episode", "episode"), ("step", "step"),
    ):  # fmt: skip
        np.testing.assert_array_equal(feedback[name], log[column])
    assert not feedback["position"].any()
    assert feedback["context"].shape == (len(log), 34)
    assert feedback["action_context"].shape == (recording.env.num_items, 17)
    assert np.isfinite(feedback["context"]).all()
    assert feedback["policy"] == "random"
    assert json.loads(feedback["about"]) == recording.about
    np.testing.assert_array_equal(feedback["action_context"], item_context(recording.dataset))


def test_the_context_of_a_window_by_hand():
    """Items 0 and 2 are liked and 1 is disliked; a second user has nothing."""
    items = np.array([[1.0, 0.0, 9.0], [0.0, 4.0, 9.0], [3.0, 2.0, 9.0]])
    found = window_context(
        items, np.array([[0, 1, 2], [-1, -1, -1]]), np.array([[1, -1, 1], [0, 0, 0]])
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [2, 1, 0, 4, np.log(3 / 2), np.log(4)], rtol=1e-6)
    np.testing.assert_array_equal(found[1], 0)


# ---- options -----------------------------------------------------------------------------------------------


def test_options_that_do_not_fit_the_format_are_refused(tmp_path, monkeypatch):
    found = {"minari": True}
    monkeypatch.setattr(
        "agents.runs.session_log.importlib.util.find_spec",
        lambda name: True if found["minari"] or name != "minari" else None,
    )
    (tmp_path / "mine-v0").mkdir()
    for options, message in (
        ({"out": tmp_path / "log.npz"}, r"log.npz: end the name in .parquet$"),
        ({"out": tmp_path / "log.parquet", "format": "obp"}, "end the name in .npz with --format obp$"),
        ({"out": tmp_path / "log", "format": "minari"}, "give a folder with a name such as random-v0$"),
        ({"out": tmp_path / "mine-v0", "format": "minari"}, "is not a Minari dataset; choose another$"),
        ({"out": tmp_path / "log.parquet", "epsilon": 2.0}, "^--epsilon is 2.0: give a finite number from 0"),
        ({"out": tmp_path / "log.parquet", "epsilon": 0.1, "policy": "random"}, "always draws at random$"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            LogOptions(**options).check()
    LogOptions(tmp_path / "expert-v0", format="minari").check()
    found["minari"] = False
    with pytest.raises(
        InputError, match=r'minari; install it with pip install "jaxsim-recsys\[minari\]"$'
    ):
        LogOptions(tmp_path / "expert-v0", format="minari").check()
