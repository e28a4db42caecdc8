"""Processes that annotate are killed at any moment: nothing stored is lost, and no prompt is asked twice."""

import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("openai")

from tests.prep.annotation.annotating_process import CONCURRENCY, annotate, start
from tests.prep.annotation.openai_protocol_server import ProtocolServer, misbehaving

pytestmark = pytest.mark.slow

KILLS = 30
TASKS = 300  # more than are answered before the last kill
PATIENCE_S = 300.0


def undisturbed(folder: Path) -> tuple[list[tuple], Counter[str]]:
    """What is stored, and how often each prompt was answered, when nothing goes wrong."""
    with ProtocolServer() as server:
        annotate(server.url, folder / "undisturbed.sqlite", TASKS)
    return records(folder / "undisturbed.sqlite"), server.whole


def records(store: Path) -> list[tuple]:
    """Every reply with its prompt's key, and every item and review that a prompt is about."""
    replies = "SELECT key, attempt, reply, cut, tokens_in, tokens_out FROM replies"
    subjects = "SELECT key, item_id, user_id, prompt_name, polarities, 0 FROM subjects"
    with closing(sqlite3.connect(store)) as db:
        return [
            row
            for query in (replies, subjects)
            for row in db.execute(f"{query} JOIN prompts ON id = prompt_id ORDER BY 1, 2, 3")
        ]


def kill(process) -> None:
    process.kill()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL  # else it had finished before


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def test_kills_at_any_moment_change_nothing(tmp_path):
    draw = random.Random(3)
    store = tmp_path / "replies.sqlite"
    with ProtocolServer(misbehaving) as server:
        for _ in range(KILLS):
            process = start(server.url, store, TASKS)
            if draw.random() < 0.8:  # else it may be killed before it asks, or opens the store
                goal = len(server.requests) + draw.randrange(1, 12)
                wait_until(lambda goal=goal: len(server.requests) >= goal)
            time.sleep(draw.uniform(0.0, 0.01))
            kill(process)
        answered_while_killed = len(server.whole)
        while annotate(server.url, store, TASKS).failed:  # answers that are no replies
            pass
    stored, (expected, answers) = records(store), undisturbed(tmp_path)
    assert answered_while_killed > TASKS / 20
    assert stored == expected
    assert server.whole.keys() == answers.keys()
    assert set(answers.values()) == {1}
    assert server.whole.total() - answers.total() <= KILLS * CONCURRENCY  # were in flight
