import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Sampling
from prep.annotation.store import FORMAT_VERSION, AskedOf, Claim, ReplyStore, StoredReply, Task
from prep.replies.files import read_replies

ASKED_OF = AskedOf("1", "model", "main", Sampling())
FILM = Task("T_obj", "1", None, "What of film 1?", ("pos", "neg"))
SAME = Task("T_obj", "2", None, FILM.prompt, ("pos", "neg"))
REVIEW = Task("T_sub", "1", "u", "Why does u like film 1?", ("pos",))


def key(task, asked_of=ASKED_OF):
    return asked_of.key(task.prompt)


def claim(store, *tasks, settled=()):
    sharing = {}
    for task in tasks:
        sharing.setdefault(key(task), []).append(task)
    return store.claim(ASKED_OF, sharing, settled)


def reply(text, **more):
    return Completion("", text, **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "replies.sqlite"


@pytest.fixture
def store(path):
    with ReplyStore(path) as opened:
        yield opened


def test_a_key_depends_on_all_that_a_reply_depends_on():
    others = [
        ASKED_OF,
        replace(ASKED_OF, prompt_version="2"),
        replace(ASKED_OF, model="main", revision="model"),
        replace(ASKED_OF, revision=""),
        *(replace(ASKED_OF, sampling=replace(Sampling(), **change)) for change in (
            {"temperature": 0.5}, {"top_p": 0.5}, {"max_tokens": 5}, {"seed": 5}))
    ]  # fmt: skip
    keys = {each.key("prompt") for each in others} | {
        ASKED_OF.key("prompt "),
        ASKED_OF.key("\ud800"),
    }
    assert len(keys) == len(others) + 2
    assert all(len(bytes.fromhex(one)) == 32 for one in keys)
    assert ASKED_OF.key("prompt") == replace(ASKED_OF).key("prompt")


def test_a_reply_is_there_with_all_that_is_known_of_it_when_the_file_is_opened_again(path):
    with ReplyStore(path) as store:
        assert claim(store, REVIEW, FILM, SAME) == {
            key(FILM): Claim(True, True, []),
            key(REVIEW): Claim(True, True, []),
        }
        assert store.add_reply(key(FILM), reply("no"), release=False) == 1
        more = reply("Pros ...", tokens_in=3, tokens_out=5, cut=True)
        assert store.add_reply(key(FILM), more, release=True) == 2
    with ReplyStore(path) as store:
        found = store.replies([key(FILM), key(REVIEW)])
        first, second = store.records()
    assert found == {
        key(FILM): [StoredReply(1, "no", False), StoredReply(2, "Pros ...", True)],
        key(REVIEW): [],
    }
    assert (first.attempt, first.reply, first.cut) == (1, "no", False)
    assert second._asdict() == {
        "key": key(FILM),
        "attempt": 2,
        "prompt_name": "T_obj",
        "prompt_version": "1",
        "model": "model",
        "revision": "main",
        "sampling": '{"max_tokens": 512, "seed": 0, "temperature": 0.0, "top_p": 1.0}',
        "prompt": FILM.prompt,
        "reply": "Pros ...",
        "cut": True,
        "tokens_in": 3,
        "tokens_out": 5,
        "subjects": (("1", None), ("2", None)),
    }


@settings(max_examples=25)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=8, unique_by=lambda p: p[0]))
def test_any_prompts_and_replies_come_back(tmp_path_factory, pairs):
    with ReplyStore(tmp_path_factory.mktemp("any") / "replies.sqlite") as store:
        for prompt, text in pairs:
            task = Task("T_obj", "1", None, prompt, ("pos", "neg"))
            claim(store, task)
            store.add_reply(key(task), reply(text), release=True)
        found = {record.prompt: record.reply for record in store.records()}
    assert found == dict(pairs)


def test_half_a_surrogate_pair_is_stored_as_a_replacement_character(store):
    claim(store, FILM)
    store.add_reply(key(FILM), reply("a\ud800b"), release=True)
    ((_, text, _),) = store.replies([key(FILM)])[key(FILM)]
    assert text.replace("\ufffd", "") == "ab"


def test_prompts_take_less_room_than_their_text(path):
    with ReplyStore(path) as store:
        for number in range(300):
            claim(
                store, Task("T_sub", str(number), "u", "Judge this. " * 150 + str(number), ("pos",))
            )
    assert path.stat().st_size < 300 * 12 * 150 / 4


def test_a_claim_is_granted_to_one_store_at_a_time(path, store):
    with ReplyStore(path) as other:
        assert claim(store, FILM)[key(FILM)].granted
        assert claim(store, FILM)[key(FILM)] == Claim(False, True, [])
        assert claim(other, FILM, REVIEW) == {
            key(FILM): Claim(False, False, []),
            key(REVIEW): Claim(True, True, []),
        }
        store.add_reply(key(FILM), reply("no"), release=False)
        assert claim(other, FILM)[key(FILM)] == Claim(False, False, [StoredReply(1, "no", False)])
        store.release(key(FILM))
        assert claim(other, FILM)[key(FILM)].granted
    assert claim(store, REVIEW)[key(REVIEW)].granted  # closing gives back


def test_settled_prompts_are_entered_and_not_claimed(path, store):
    assert claim(store, FILM, settled={key(FILM)}) == {}
    with ReplyStore(path) as other:
        assert claim(other, FILM)[key(FILM)].granted


def test_a_claim_is_void_when_its_owner_is_gone(path, store):
    with ReplyStore(path) as other:
        claim(other, FILM, REVIEW)
        assert not claim(store, FILM)[key(FILM)].granted
        (lock,) = set(path.parent.glob("*.lock")) - {store._owner.path}
        lock.unlink()
        assert claim(store, FILM)[key(FILM)].granted
        assert claim(store, REVIEW)[key(REVIEW)].granted


def test_the_claims_of_a_killed_process_are_void_at_once(path, store):
    hold = (
        "import sys, time, filelock\n"
        "with filelock.FileLock(sys.argv[1]):\n    print(flush=True)\n    time.sleep(999)"
    )
    lock = path.with_name(f"{path.name}-other.lock")
    other = subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline()
        claim(store, FILM)
        with store._writing() as db:
            db.execute("UPDATE claims SET owner = 'other'")
        assert claim(store, FILM)[key(FILM)] == Claim(False, False, [])
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert claim(store, FILM)[key(FILM)].granted
    assert not lock.exists()


def test_many_threads_on_many_stores_lose_nothing(path):
    """As many processes would, for each has a connection of its own."""
    tasks = [Task("T_obj", str(n), None, f"prompt {n}", ("pos", "neg")) for n in range(60)]
    asked, errors = [], []

    def work():
        try:
            with ReplyStore(path) as own:
                for task in tasks:
                    if claim(own, task, settled=())[key(task)].granted:
                        if not own.replies([key(task)])[key(task)]:
                            asked.append(task)
                            own.add_reply(key(task), reply("yes"), release=True)
                        else:
                            own.release(key(task))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(asked) == sorted(tasks)
    with ReplyStore(path) as store:
        assert len(list(store.records())) == len(tasks)


def test_the_tasks_of_a_run_in_their_order(store):
    claim(store, FILM, SAME, REVIEW)
    store.add_reply(key(FILM), reply("one"), release=True)
    store.add_reply(key(REVIEW), reply("two", cut=True), release=True)
    first, second = store.new_run(), store.new_run()
    store.add_to_run(first, 0, [(key(REVIEW), REVIEW), (key(SAME), SAME)])
    store.add_to_run(first, 2, [(key(FILM), FILM)])
    store.add_to_run(second, 0, [(key(FILM), FILM)])
    store.set_outcome(first, key(REVIEW), "usable", 1)
    store.set_outcome(first, key(FILM), "failed")
    assert store.count_outcomes(first) == {"usable": 1, "failed": 2}
    assert list(store.usable_replies(first)) == [("1", "u", "two", True)]
    store.set_outcome(first, key(FILM), "usable", 1)
    assert [tuple(each)[:3] for each in store.usable_replies(first)] == [
        ("1", "u", "two"),
        ("2", None, "one"),
        ("1", None, "one"),
    ]
    assert store.count_outcomes(second) == {}


def test_more_rows_than_are_read_at_a_time(store):
    tasks = [Task("T_obj", str(n), None, f"prompt {n}", ("pos", "neg")) for n in range(1203)]
    claim(store, *tasks)
    run = store.new_run()
    store.add_to_run(run, 0, [(key(task), task) for task in tasks])
    for task in tasks:
        store.set_outcome(run, key(task), "usable", 1)
    with store._writing() as db:
        db.execute("INSERT INTO replies SELECT id, 1, 'r', 0, 0, 0 FROM prompts")
    assert [each.item_id for each in store.usable_replies(run)] == [task.item_id for task in tasks]
    assert [each.key for each in store.records()] == sorted(map(key, tasks))


def run_of(store, *tasks):
    run = store.new_run()
    store.add_to_run(run, 0, [(key(task), task) for task in tasks])
    return run


def test_an_export_reads_as_a_file_of_replies(store, tmp_path):
    claim(store, FILM, SAME, REVIEW)
    store.add_reply(key(FILM), reply("no"), release=False)
    store.add_reply(key(FILM), reply("Été"), release=True)
    store.add_reply(key(REVIEW), reply("two", cut=True), release=True)
    run = run_of(store, FILM, SAME, REVIEW)
    store.set_outcome(run, key(FILM), "usable", 1)  # the reply to use need not be the last
    store.set_outcome(run, key(REVIEW), "unparseable")
    out = tmp_path / "folder" / "replies.jsonl"
    assert store.export(out, run, {"model": "tiny"}) == 3
    assert [json.loads(line) for line in out.read_text("utf-8").splitlines()] == [
        {"item_id": "1", "reply": "no", "model": "tiny"},
        {"item_id": "2", "reply": "no", "model": "tiny"},
        {
            "user_id": "u",
            "item_id": "1",
            "reply": "two",
            "finish_reason": "length",
            "model": "tiny",
        },
    ]
    read = {(line.user_id, line.item_id, line.text, line.cut) for line in read_replies(out).lines}
    assert read == {(None, "1", "no", False), (None, "2", "no", False), ("u", "1", "two", True)}


def test_an_export_has_the_replies_of_its_run_alone(store, tmp_path):
    other = FILM._replace(prompt="another prompt about the same film")
    claim(store, FILM, other)
    store.add_reply(key(FILM), reply("old"), release=True)
    store.add_reply(key(other), reply("new"), release=True)
    run = run_of(store, other)
    store.set_outcome(run, key(other), "usable", 1)
    assert store.export(tmp_path / "out.jsonl", run, {}) == 1
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"item_id": "1", "reply": "new"}


def test_a_key_may_depend_on_the_subject():
    recorded = replace(ASKED_OF, by_subject=True)
    same = FILM._replace(item_id="2")
    assert ASKED_OF.key_of(FILM) == ASKED_OF.key_of(same)
    assert recorded.key_of(FILM) != recorded.key_of(same)
    assert recorded.key_of(FILM) != ASKED_OF.key_of(FILM)


def test_an_export_that_cannot_be_written_leaves_nothing(store, tmp_path):
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"folder: cannot be written"):
        store.export(tmp_path / "folder", store.new_run(), {})
    assert sorted(tmp_path.iterdir()) == before


def test_the_mean_length_of_the_replies_of_one_model(store):
    claim(store, FILM, REVIEW)
    store.add_reply(key(FILM), reply("a", tokens_out=10), release=False)
    store.add_reply(key(FILM), reply("b", tokens_out=30), release=True)
    store.add_reply(key(REVIEW), reply("not counted"), release=True)
    assert store.mean_tokens_out(ASKED_OF) == {"T_obj": 20.0}
    assert store.mean_tokens_out(replace(ASKED_OF, model="other")) == {}


def spoil_header(path):
    path.write_bytes(b"item_id,reply\n" * 100)


def spoil_middle(path):
    for beside in path.parent.glob("*-wal"):
        beside.unlink()
    content = bytearray(path.read_bytes())
    content[100:] = b"\x55" * (len(content) - 100)
    path.write_bytes(content)


def spoil_owner(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA application_id = 7")


def spoil_version(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_header, "not a store of replies"),
        (spoil_middle, "damaged"),
        (spoil_owner, "another program's SQLite file"),
        (spoil_version, rf"a store of format {FORMAT_VERSION + 1}.* upgrade"),
    ],
)
def test_a_file_that_is_no_sound_store_is_refused_and_left_alone(path, spoil, message):
    with ReplyStore(path) as store:
        claim(store, FILM)
        store.add_reply(key(FILM), reply("one"), release=True)
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"replies\.sqlite: .*{message}") as caught:
        ReplyStore(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.lock"))


def test_another_programs_empty_looking_file_is_refused(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs(x)")
    with pytest.raises(InputError, match="another program's"):
        ReplyStore(path)


def test_an_empty_file_becomes_a_store(path):
    path.touch()
    with ReplyStore(path) as store:
        assert claim(store, FILM)[key(FILM)].granted


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        ReplyStore(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="its folder cannot be created"):
        ReplyStore(tmp_path / "file" / "replies.sqlite")


def test_a_full_disk_is_one_line_and_keeps_what_was_stored(path):
    with ReplyStore(path) as store:
        claim(store, FILM, REVIEW)
        store.add_reply(key(FILM), reply("kept"), release=True)
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(
            InputError, match=r"replies\.sqlite: the disk is full; .* what was stored"
        ):
            store.add_reply(key(REVIEW), reply("x" * 100_000), release=True)
    with ReplyStore(path) as store:
        assert store.replies([key(FILM), key(REVIEW)]) == {
            key(FILM): [StoredReply(1, "kept", False)],
            key(REVIEW): [],
        }


def test_a_store_that_may_not_be_written_is_one_line(store):
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(InputError, match="may not be written"):
        claim(store, FILM)
    store._db.execute("PRAGMA query_only = OFF")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anything")
def test_a_file_without_permission_to_write_is_one_line(path):
    ReplyStore(path).close()
    path.chmod(0o444)
    with pytest.raises(InputError, match="may not be written"):
        ReplyStore(path)


def test_a_transaction_that_fails_leaves_no_half(store):
    def fail():
        with store._writing() as db:
            db.execute("DELETE FROM claims")
            raise KeyboardInterrupt

    claim(store, FILM)
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert claim(store, FILM)[key(FILM)] == Claim(False, True, [])


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "replies.sqlite"
    with ReplyStore(path) as store:
        for number in range(40):
            task = Task("T_obj", str(number), None, f"prompt {number} " * 9, ("pos", "neg"))
            claim(store, task)
            store.add_reply(key(task), reply(f"reply {number} " * 9), release=True)
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_never_a_traceback(sound, path, seed):
    draw = random.Random(seed)
    content = bytearray(sound)
    for _ in range(draw.choice([1, 10, 1000])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    path.write_bytes(content[: draw.randrange(len(content))] if draw.random() < 0.2 else content)
    message = f"{path}: "
    try:
        with ReplyStore(path) as store:
            claim(store, FILM)
            list(store.records())
            store.add_reply(key(FILM), reply("one"), release=True)
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
