"""Processes that annotate are killed at any moment, and work side by side on one store."""

import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("openai")

from prep.annotation.store import Record, ReplyStore
from tests.prep.annotation.annotating_process import CONCURRENCY, annotate, start
from tests.prep.annotation.openai_protocol_server import (
    Answer,
    ProtocolServer,
    chat_completion,
    misbehaving,
)

KILLS = 30
TASKS = 300  # more than are answered before the last kill
PATIENCE_S = 300.0


def undisturbed(folder: Path, count: int) -> tuple[list[Record], Counter[str]]:
    """What is stored, and how often each prompt was answered, when nothing goes wrong."""
    with ProtocolServer() as server:
        annotate(server.url, folder / "undisturbed.sqlite", count)
    return records(folder / "undisturbed.sqlite"), server.whole


def records(store: Path) -> list[Record]:
    with ReplyStore(store) as opened:
        return list(opened.records())


def finish(*processes) -> None:
    for process in processes:
        process.join(PATIENCE_S)
        assert process.exitcode == 0


def kill(process) -> None:
    process.kill()
    process.join(PATIENCE_S)
    assert process.exitcode == -signal.SIGKILL  # else it had finished before


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.002)


def assert_no_trace_of_processes(store: Path) -> None:
    assert list(store.parent.glob("*.lock")) == []
    with closing(sqlite3.connect(store)) as db:
        assert db.execute("SELECT count(*) FROM claims").fetchone() == (0,)


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
        finish(start(server.url, store, TASKS))
    stored, (expected, answers) = records(store), undisturbed(tmp_path, TASKS)
    assert answered_while_killed > TASKS / 20
    assert stored == expected
    assert len({(record.key, record.attempt) for record in stored}) == len(stored)
    assert server.whole.keys() == answers.keys()
    assert set(answers.values()) == {1}
    assert server.whole.total() - answers.total() <= KILLS * CONCURRENCY  # were in flight
    assert_no_trace_of_processes(store)


def test_two_processes_ask_each_prompt_once(tmp_path):
    store, count = tmp_path / "replies.sqlite", 300
    with ProtocolServer(misbehaving) as server:
        finish(*(start(server.url, store, count) for _ in range(2)))
    expected, answers = undisturbed(tmp_path, count)
    assert server.whole == answers
    assert set(answers.values()) == {1}
    assert records(store) == expected
    assert_no_trace_of_processes(store)


def test_what_a_killed_process_had_claimed_is_taken_over_at_once(tmp_path):
    store, count = tmp_path / "replies.sqlite", 40
    silent = Answer(chat_completion(""), stall=PATIENCE_S)
    with ProtocolServer(lambda *_: silent) as deaf, ProtocolServer() as server:
        first = start(deaf.url, store, count)
        wait_until(lambda: len(deaf.requests) == CONCURRENCY)
        second = start(server.url, store, count)
        # All prompts fit into the first process's claim: the second one can only wait.
        time.sleep(0.5)
        assert not server.requests
        assert second.is_alive()
        kill(first)
        finish(second)
    assert records(store) == undisturbed(tmp_path, count)[0]
