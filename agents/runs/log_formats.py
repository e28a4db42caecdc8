"""The files that a log can be written to: Parquet, a Minari dataset, or the fields of the Open Bandit Pipeline.

Each is written whole or not at all.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.sparse

from agents.algorithms.policy import Simulator
from agents.evaluation.logs import Arrays, LoggedEpisodes, log_sessions_of, logged_episodes
from agents.runs.item_start import log_start
from jaxsim import Dataset, EnvParams, GymnasiumEnv
from jaxsim.files import staged_file, staged_folder

ITEM_WIDTH = 16  # numbers that describe an item, beside its like rate
_CERTAIN = 1 - 1e-6
# Columns of a log that a Minari dataset holds elsewhere.
_NO_INFO = (
    "episode", "step", "user", "item", "slate", "reward", "terminated", "truncated",
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """The sessions that a log is made of.

    Attributes:
        dataset: of the environment.
        env, params: of `jaxsim.make`.
        policy: whose recommendations are logged, see `agents.evaluation.logs.log_sessions`.
        users: int32[M].
        keys: PRNG keys [M].
        labels: columns that are the same in every row.
        about: where the log comes from, as plain values.
    """

    dataset: Dataset
    env: Simulator
    params: EnvParams
    policy: Any
    users: jax.Array
    keys: jax.Array
    labels: dict[str, str]
    about: dict[str, Any]

    def episodes(self) -> Iterator[LoggedEpisodes]:
        """Batches of episodes, with observations."""
        return logged_episodes(
            self.env, self.params, self.policy, self.users, self.keys, observations=True
        )


@dataclass
class LogTotals:
    """Steps of a log, likes among them, and steps at which the policy could recommend nothing else."""

    steps: int = 0
    likes: int = 0
    certain: int = 0

    def add(self, columns: Any) -> None:
        """Count the rows of a log, or of a batch of it."""
        self.steps += len(columns["like"])
        self.likes += int(np.asarray(columns["like"], np.int64).sum())
        self.certain += int((np.asarray(columns["propensity"]) >= _CERTAIN).sum())


def write_parquet(path: Path, recording: Recording) -> LogTotals:
    """Write the rows of `log_sessions_of`; `pandas.read_parquet(path).attrs` is what is known about the log."""
    r = recording
    log = log_sessions_of(r.dataset, r.env, r.params, r.policy, r.users, r.keys)
    totals = LogTotals()
    totals.add(log)
    log = log.assign(**r.labels).astype(dict.fromkeys(r.labels, "category"))
    log.attrs.update(r.about)
    with staged_file(path) as temporary:
        log.to_parquet(temporary, index=False, engine="pyarrow")
    return totals


# ---- Minari ------------------------------------------------------------------------------------------------


def write_minari(path: Path, recording: Recording) -> LogTotals:
    """Write a Minari dataset; its id is the last part of the path, and the folder above is its root.

    Observations, actions and spaces are those of `jaxsim.GymnasiumEnv`. What else a log says of a step is in
    `infos`, where entry t + 1 is about step t, as Minari's collector has it. Entry 0 is NaN, or 0 for integers.
    """
    import minari  # an optional dependency

    adapter = GymnasiumEnv(recording.env, recording.params, seed=0)
    totals, dataset = LogTotals(), None
    with staged_folder(path) as folder, _minari_root(folder):
        for batch in recording.episodes():
            totals.add(batch.columns)
            buffers = _episode_buffers(batch, adapter)
            if dataset is not None:
                dataset.update_dataset_from_buffer(buffers)
                continue
            dataset = minari.create_dataset_from_buffers(
                path.name,
                buffers,
                observation_space=adapter.observation_space,
                action_space=adapter.action_space,
                algorithm_name=recording.labels["policy"],
                description=f"Sessions of simulated users: {recording.labels['simulator']}.",
                data_format="hdf5",
            )
        assert dataset is not None, "a recording has an episode"
        dataset.storage.update_metadata({"jaxsim": recording.about})
        # Minari makes a folder of the dataset's name in its root, which is the one that takes the dataset's name.
        for part in (folder / path.name).iterdir():
            part.rename(folder / part.name)
        (folder / path.name).rmdir()
    return totals


@contextmanager
def _minari_root(folder: Path) -> Iterator[None]:
    """Let Minari write to a folder in place of the user's home, without its advice on authors and links."""
    name = "MINARI_DATASETS_PATH"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _episode_buffers(batch: LoggedEpisodes, adapter: GymnasiumEnv) -> list[Any]:
    """A buffer of Minari's for each episode."""
    from minari.data_collector import EpisodeBuffer

    columns = batch.columns
    action = columns["slate"] if "slate" in columns else columns["item"]
    infos = {name: x for name, x in columns.items() if name not in _NO_INFO}
    starts = np.flatnonzero(np.diff(columns["episode"], prepend=-1))
    ends = np.append(starts[1:], len(action))
    return [
        EpisodeBuffer(
            observations=_observations(batch, adapter, rows, number),
            actions=action[rows].astype(np.int64),
            rewards=columns["reward"][rows],
            terminations=columns["terminated"][rows],
            truncations=columns["truncated"][rows],
            infos={name: _after_reset(x[rows]) for name, x in infos.items()},
        )
        for number, rows in enumerate(map(slice, starts, ends))
    ]


def _observations(batch: LoggedEpisodes, adapter: GymnasiumEnv, rows: slice, number: int) -> Arrays:
    """The T + 1 observations of an episode of T steps, as the adapter's space has them."""
    joined = {
        name: np.concatenate([x[rows], batch.last[name][number : number + 1]])
        for name, x in batch.before.items()
    }
    shapes = {name: space.shape for name, space in adapter.observation_space.items()}  # type: ignore[attr-defined]
    return {name: joined[name].reshape(-1, *shape) for name, shape in shapes.items()}


def _after_reset(values: np.ndarray) -> np.ndarray:
    """Values of T steps with one before them, [T + 1, ...]."""
    unknown = np.nan if np.issubdtype(values.dtype, np.floating) else 0
    return np.concatenate([np.full_like(values[:1], unknown), values])


# ---- Open Bandit Pipeline ----------------------------------------------------------------------------------


def write_obp(path: Path, recording: Recording) -> LogTotals:
    """Write `bandit_feedback` of the Open Bandit Pipeline as .npz, a round for each step.

    `context` float32[n, 34] and `action_context` float32[N, 17] are those of `window_context` and `item_context`.
    """
    items = item_context(recording.dataset)
    totals, contexts, batches = LogTotals(), [], []
    for batch in recording.episodes():
        totals.add(batch.columns)
        contexts.append(window_context(items, batch.before["items"], batch.before["responses"]))
        batches.append(batch.columns)
    joined = {
        name: np.concatenate([x[name] for x in batches])
        for name in ("item", "reward", "propensity", "user", "episode", "step")
    }
    rounds = len(joined["item"])
    feedback: dict[str, Any] = {
        "n_rounds": np.int64(rounds),
        "n_actions": np.int64(recording.env.num_items),
        "context": np.concatenate(contexts),
        "action_context": items,
        "action": joined["item"].astype(np.int64),
        "position": np.zeros(rounds, np.int64),
        "reward": joined["reward"].astype(np.float64),
        "pscore": joined["propensity"].astype(np.float64),
        **{name: joined[name].astype(np.int64) for name in ("user", "episode", "step")},
        **{name: np.str_(text) for name, text in recording.labels.items()},
        "about": np.str_(json.dumps(recording.about)),
    }
    with staged_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **feedback)
    return totals


def item_context(dataset: Dataset) -> np.ndarray:
    """What a recommender knows of the items, float32[N, D + 1].

    D = ITEM_WIDTH numbers from keywords, categories, years and training ratings, then the log-odds of a like
    in the training ratings (`agents.item_start`).
    """
    start = log_start(dataset, ITEM_WIDTH)
    assert start.log_odds is not None, "logs have like rates"
    return np.column_stack([np.asarray(start.vectors), np.asarray(start.log_odds)])


def window_context(
    item_context: np.ndarray, items: np.ndarray, responses: np.ndarray
) -> np.ndarray:
    """What a recommender knows of a user from their window, float32[n, 2 D + 2].

    The means of the liked and of the disliked items' first D numbers, the log-odds of the smoothed share of likes,
    and the logarithm of 1 + the number of items.

    Args:
        item_context: float32[N, D + 1].
        items: int32[n, W], -1 pads.
        responses: int8[n, W], 1 like, -1 dislike, 0 padding.
    """
    vectors = item_context[:, :-1].astype(np.float64)
    liked, likes = _mean_of(items, responses > 0, vectors)
    disliked, dislikes = _mean_of(items, responses < 0, vectors)
    share = np.log((likes + 1) / (dislikes + 1))
    length = np.log1p(likes + dislikes)
    return np.column_stack([liked, disliked, share, length]).astype(np.float32)


def _mean_of(
    items: np.ndarray, chosen: np.ndarray, vectors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean vector float64[n, D] of the chosen items bool[n, W] of each row, 0 for none, and their number."""
    row, column = np.nonzero(chosen)
    shape = (len(items), len(vectors))
    counts = scipy.sparse.csr_matrix((np.ones(len(row)), (row, items[row, column])), shape)
    number = chosen.sum(axis=1)
    return counts @ vectors / np.maximum(number, 1)[:, None], number


WRITERS: dict[str, Callable[[Path, Recording], LogTotals]] = {
    "parquet": write_parquet,
    "minari": write_minari,
    "obp": write_obp,
}
