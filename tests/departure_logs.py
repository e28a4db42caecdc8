"""Invented departures: a model of when users leave, and logs whose sessions end with a known hazard."""

from dataclasses import replace

import numpy as np

from jaxsim import Dataset
from jaxsim.departure import TERMS

PAUSE = 10_000  # seconds between sessions; within one they are 10
RECENT = 5


def with_departure(
    dataset: Dataset,
    weights: dict[str, float] | None = None,
    base: tuple[float, ...] = (-1.5, -2.0),
) -> Dataset:
    """The dataset with a departure that nobody fitted; by default every term counts."""
    if weights is None:
        weights = dict(zip(TERMS, (0.6, 0.3, -0.4, -0.5), strict=True))
    rng = np.random.default_rng(3)
    departure = {
        "position_log_odds": np.array(base, np.float32),
        "item_obscurity": -rng.exponential(2, dataset.num_items).astype(np.float32),
        "item_rate": rng.uniform(0.3, 0.7, dataset.num_items).astype(np.float32),
    }
    means = dict(zip(TERMS, (-2.0, 0.4, 0.3, 0.0), strict=True))
    scales = dict(zip(TERMS, (1.2, 0.4, 0.3, 0.25), strict=True))
    terms = {
        name: {"weight": w, "mean": means[name], "scale": scales[name]}
        for name, w in weights.items()
    }
    manifest = {**dataset.manifest, "departure": {"terms": terms, "clip": 2.0}}
    return replace(dataset, departure=departure, manifest=manifest)


def base_log_odds(position: int) -> float:
    """The base of the logs."""
    return -1.5 - 0.5 * np.log(min(position, 8))


def draw_logs(
    seed: int, weight: float, users: int = 120, length: int = 125, differences: float = 0.0
) -> dict[str, np.ndarray]:
    """Arrays of a pack whose users leave with log-odds base + weight * standardised obscurity.

    Args:
        seed: of all draws.
        weight: of the obscurity of the last five items.
        users, length: their number, and the interactions of each.
        differences: how much more often users leave who have more obscure items, whatever they have just had.
    """
    rng = np.random.default_rng(seed)
    num_items = 200
    mix = rng.random(users)  # how much of a user's log is drawn without regard to popularity
    popular = 1.0 / np.arange(1, num_items + 1)
    item = np.stack(
        [
            np.where(
                rng.random(length) < share,
                rng.integers(0, num_items, length),
                rng.choice(num_items, length, p=popular / popular.sum()),
            )
            for share in mix
        ]
    )
    train = length * 4 // 5
    obscurity = -np.log1p(np.bincount(item[:, :train].ravel(), minlength=num_items))
    recent = np.stack(
        [obscurity[item[:, max(0, i - RECENT + 1) : i + 1]].mean(axis=1) for i in range(length)], 1
    )
    standard = np.clip((recent - recent[:, :train].mean()) / recent[:, :train].std(), -2, 2)
    time = np.zeros((users, length), np.int64)
    for user in range(users):
        position, now = 0, 1_000_000
        for i in range(length):
            position += 1
            time[user, i] = now
            log_odds = base_log_odds(position) + weight * standard[user, i]
            leaves = rng.random() < 1 / (1 + np.exp(-log_odds - differences * (mix[user] - 0.5)))
            now += PAUSE if leaves else 10
            position = 0 if leaves else position
    split = np.where(
        np.arange(length) < train, 0, np.where(np.arange(length) < length * 9 // 10, 1, 2)
    )
    count = users * length
    return {
        "item_categories": rng.integers(0, 5, (num_items, 1)).astype(np.int32),
        "item_pos_keywords": np.zeros((num_items, 1), np.int32),
        "item_pos_embedding": _unit(rng.standard_normal((num_items, 4))),
        "user_offsets": np.arange(0, count + 1, length).astype(np.int64),
        "interaction_item": item.ravel().astype(np.int32),
        "interaction_label": rng.integers(0, 2, count).astype(np.int8),
        "interaction_time": time.ravel(),
        "interaction_split": np.tile(split, users).astype(np.int8),
    }


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
