"""Runs and sessions that nobody trained or played, with known numbers, for pages that take no time to make."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents.evaluation.returns import BASELINE, GREEDY, SAMPLED, Returns
from agents.evaluation.table import Row
from agents.report.reasons import TASTE, VOTES
from agents.report.runs import ReportedRun
from agents.runs.config import RunConfig

LIKE_RATES = {"random": 0.5, "popular": 0.6, "like_rate": 0.65, "static_best": 0.7, "oracle": 0.9}
ENVIRONMENT = {"semantics": "paper", "repeats": "mask", "sasrec": {"width": 4}}


def row(policy: str, mode: str, users: str, like_rate: float, seeds: int = 1) -> Row:
    names = [name for name, kind in Row.__annotations__.items() if kind is float]
    values = dict.fromkeys(names, 0.25) | {
        "like_rate": like_rate, "a_rwd": 36 * like_rate, "a_rwd_low": 36 * like_rate - 1,
        "a_rwd_high": 36 * like_rate + 1, "share_of_oracle": (like_rate - 0.5) / 0.4,
    }  # fmt: skip
    return Row(policy=policy, mode=mode, users=users, seeds=seeds, steps=800, **values)


def reported_run(label: str = "dqn", like_rate: float = 0.8, **changes: Any) -> ReportedRun:
    """A run of two seeds, 40 lines each, that ends at `like_rate`."""
    learned = [
        row(label, mode, users, like_rate, 2)
        for users in ("train", "held_out")
        for mode in (GREEDY, SAMPLED)
    ]
    baselines = [
        row(name, BASELINE, users, rate)
        for users in ("train", "held_out")
        for name, rate in LIKE_RATES.items()
    ]
    steps = np.arange(1, 41) * 20
    log = pd.concat(
        pd.DataFrame({"seed": seed, "steps": steps, "like_rate": rate})
        for seed, rate in enumerate(
            (np.linspace(0.5, like_rate, 40), np.linspace(0.52, like_rate, 40))
        )
    )
    config = RunConfig(
        algorithm="dqn", settings={"gamma": 0.4}, dataset="films", dataset_digest="0123456789abcdef",
        environment=ENVIRONMENT, seed=0, num_seeds=2, evaluation_seed=7, devices=1,
        machine={"device": "cpu", "jax": "0.10.2"}, steps=800, seconds=1.5,
    )  # fmt: skip
    returns = Returns(Path(label), label, {}, ENVIRONMENT, {}, {})
    run = ReportedRun(Path(label), label, config, log, [*learned, *baselines], [], returns)
    return ReportedRun(**{**run.__dict__, **changes})


def words() -> dict[str, Any]:
    """Three films: the first two have a pro in common, the first and the third a con."""
    return {
        "words": ["Drama", "epic", "warm", "slow", "loud"],
        "items": [
            ["Recommended Film", [0], [1], [3]],
            ["Liked Film", [0], [1, 2], []],
            ["Disliked Film", [], [], [3, 4]],
        ],
    }


def vote_session(user: int = 5) -> dict[str, Any]:
    step = {
        "item": 0, "like": 1, "votes": [1, 0, 1], "coins": [True, False, False], "alpha": [1, 1],
        "beta": [None, 0.5], "similar": [None, 0], "sta": 0.625, "read": 2, "all": 2,
        "matched": [[1, 1, [0]], [3, 0, [1]]], "flips": [["without Liked Film (liked)", None]], "all_flips": 4,
    }  # fmt: skip
    second = {
        **step,
        "item": 1,
        "like": 0,
        "votes": [0, 0, 1],
        "matched": [],
        "flips": [],
        "all_flips": 0,
    }
    history = [[1, 1], [2, 0]]
    return {
        "user": user,
        "group": "train",
        "differs": False,
        "history": history,
        "steps": [step, second],
    }


def taste_session() -> dict[str, Any]:
    step = {
        "item": 0, "like": 0, "p": 0.375, "posterior": 0.375, "sums": [["item", 0.25], ["taste", -0.75]],
        "parts": [["pros", -0.5], ["mood", -0.25]], "rest": [1, 0.1],
        "shares": [[1, -0.625, [["pros", -0.5]], [], [3]], [0, 0.125, [["mood", 0.125]], [1], []]],
        "flips": [["with Disliked Film liked, not disliked", 0.625]], "all_flips": 1,
    }  # fmt: skip
    history = [[1, 1], [2, 0]]
    return {"user": 9, "group": "held_out", "differs": True, "history": history, "steps": [step]}


def explored(label: str = "dqn", kind: str = VOTES) -> dict[str, Any]:
    session = {VOTES: vote_session, TASTE: taste_session}[kind]()
    return {"label": label, "kind": kind, "sessions": [session]}


@pytest.fixture
def run() -> ReportedRun:
    return reported_run()
