"""The store of replies: nothing that was stored is lost, and one process at a time works on it."""

import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Sampling
from prep.annotation.store import FORMAT_VERSION, ModelSettings, ReplyStore
from prep.annotation.tasks import Task

SETTINGS = ModelSettings("1", "model", "main", Sampling())
FILM = Task("T_obj", "1", None, "What of film 1?", ("pos", "neg"))
SAME = Task("T_obj", "2", None, FILM.prompt, ("pos", "neg"))
REVIEW = Task("T_sub", "1", "u", "Why does u like film 1?", ("pos",))


def key(task, settings=SETTINGS):
    return settings.key(task)


def enter(store, *tasks, settings=SETTINGS):
    sharing = {}
    for task in tasks:
        sharing.setdefault(key(task, settings), []).append(task)
    store.add_prompts(settings, sharing)


def add(store, task, text, **more):
    store.add_reply(key(task), Completion("", text, **more))


def texts(store, *tasks):
    return [[reply.text for reply in store.replies([key(task)])[key(task)]] for task in tasks]


def test_a_key_depends_on_all_that_a_reply_depends_on():
    others = [
        SETTINGS,
        replace(SETTINGS, prompt_version="2"),
        replace(SETTINGS, model="main", revision="model"),
        replace(SETTINGS, revision=""),
        *(replace(SETTINGS, sampling=replace(Sampling(), **change)) for change in (
            {"temperature": 0.5}, {"top_p": 0.5}, {"max_tokens": 5}, {"seed": 5}))
    ]  # fmt: skip
    prompts = [FILM._replace(prompt=text) for text in ("prompt ", "\ud800")]
    keys = {each.key(FILM) for each in others} | {SETTINGS.key(task) for task in prompts}
    assert len(keys) == len(others) + 2
    assert SETTINGS.key(FILM) == replace(SETTINGS).key(SAME)
    recorded = replace(SETTINGS, by_subject=True)
    assert len({recorded.key(FILM), recorded.key(SAME), SETTINGS.key(FILM)}) == 3


def test_a_reply_is_there_with_everything_about_it_when_the_file_is_opened_again(path):
    with ReplyStore(path) as store:
        enter(store, REVIEW, FILM, SAME)
        add(store, FILM, "no")
        add(store, FILM, "Pros ...", tokens_in=3, tokens_out=5, cut=True)
    with ReplyStore(path) as store:
        expected = [
            Completion(f"{key(FILM)}-1", "no"),
            Completion(f"{key(FILM)}-2", "Pros ...", None, 3, 5, True),
        ]
        assert store.replies([key(FILM), key(REVIEW)]) == {key(FILM): expected, key(REVIEW): []}
        (prompt,) = store.prompts_about("2", None)
        assert prompt[1:] == ("T_obj", ("pos", "neg"), "2", None, FILM.prompt, expected)
        (row,) = [row for row in store.summary() if row[5] == "T_obj"]
        sampling = '{"max_tokens": 512, "seed": 0, "temperature": 0.0, "top_p": 1.0}'
        assert row[1:] == ("1", "model", "main", sampling, "T_obj", 1, 1, 2, 3, 5)


# What version 1 of the format wrote before it was killed: one more table, with the claims of processes.
FORMAT_1 = """
CREATE TABLE claims(prompt_id INTEGER PRIMARY KEY REFERENCES prompts(id), owner TEXT NOT NULL);
INSERT INTO claims VALUES(1, 'de99dd1f3fef40238a136e1dcd4292cf');
CREATE TABLE prompts(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, settings_id INTEGER NOT NULL REFERENCES settings(id),
    prompt_name TEXT NOT NULL, polarities TEXT NOT NULL, prompt BLOB NOT NULL);
INSERT INTO prompts VALUES(1, '5e359ab1d6db706ecdf8c86c86bb3b4bff78e33b89fbae93ba1476ec3e8e0496', 1, 'T_obj',
    'pos,neg', X'78BB299204E20B47E50200299204E2');
INSERT INTO prompts VALUES(2, '97b51ba108eb4cd111efb9b925249ef61888167c0aaee3004e9e3644e2e95342', 1, 'T_sub',
    'pos', X'78BB299204E20BCFA85448C94F2D562855C8C9CC4E8509030060A907B6');
CREATE TABLE replies(
    prompt_id INTEGER NOT NULL REFERENCES prompts(id), attempt INTEGER NOT NULL, reply TEXT NOT NULL,
    cut INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    PRIMARY KEY(prompt_id, attempt));
INSERT INTO replies VALUES(1, 1, 'no', 0, 3, 5);
INSERT INTO replies VALUES(1, 2, 'Pros', 1, 3, 9);
CREATE TABLE settings(
    id INTEGER PRIMARY KEY, prompt_version TEXT NOT NULL, model TEXT NOT NULL, revision TEXT NOT NULL,
    sampling TEXT NOT NULL, dictionary BLOB NOT NULL, UNIQUE(prompt_version, model, revision, sampling));
INSERT INTO settings VALUES(1, '1', 'model', 'main',
    '{"max_tokens": 512, "seed": 0, "temperature": 0.0, "top_p": 1.0}', X'57686174206F662066696C6D20313F');
CREATE TABLE subjects(
    prompt_id INTEGER NOT NULL REFERENCES prompts(id), item_id TEXT NOT NULL, user_id TEXT NOT NULL,
    PRIMARY KEY(prompt_id, item_id, user_id)) WITHOUT ROWID;
INSERT INTO subjects VALUES(1, '1', '');
INSERT INTO subjects VALUES(2, '1', 'u');
PRAGMA application_id = 1786278512;
PRAGMA user_version = 1;
"""


def test_a_store_of_the_first_format_keeps_its_replies_under_the_same_keys(path):
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FORMAT_1)
    for _ in range(2):
        with ReplyStore(path) as store:
            assert texts(store, FILM, REVIEW) == [["no", "Pros"], []]
            assert [each.prompt for each in store.prompts_about("1", "u")] == [REVIEW.prompt]
            assert store.replies([key(FILM)])[key(FILM)][1].cut
    with ReplyStore(path) as store:
        enter(store, FILM, SAME, REVIEW)
        add(store, REVIEW, "Pros 1")
        assert texts(store, FILM, REVIEW) == [["no", "Pros"], ["Pros 1"]]
        assert sum(row[6] for row in store.summary()) == 2
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (FORMAT_VERSION,)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=8, unique_by=lambda p: p[0]))
def test_any_prompts_and_replies_come_back(tmp_path_factory, pairs):
    path = tmp_path_factory.mktemp("any") / "replies.sqlite"
    with ReplyStore(path) as store:
        for prompt, text in pairs:
            task = FILM._replace(prompt=prompt)
            enter(store, task)
            add(store, task, text)
    with ReplyStore(path) as store:
        stored = store.prompts_about("1", None)
    assert {each.prompt: each.replies[0].text for each in stored} == dict(pairs)


def test_half_a_surrogate_pair_is_stored_as_a_replacement_character(store):
    enter(store, FILM)
    stored = store.add_reply(key(FILM), Completion("", "a\ud800b"))
    assert stored.text.replace("\ufffd", "") == "ab"
    assert texts(store, FILM) == [[stored.text]]


def test_prompts_take_less_room_than_their_text(path):
    with ReplyStore(path) as store:
        text = "Judge this. " * 150
        enter(store, *(FILM._replace(prompt=f"{text}{number}") for number in range(300)))
    assert path.stat().st_size < 300 * len(text) / 4


def test_the_latest_prompts_that_have_a_reply(store):
    newer, unanswered = FILM._replace(prompt="in new words"), FILM._replace(prompt="not answered")
    others = [Task("T_obj", f"x{n}", None, f"prompt {n}", ("pos", "neg")) for n in range(1203)]
    enter(store, FILM, SAME, REVIEW, newer, unanswered, *others)
    for task in (FILM, newer, REVIEW, *others):
        store._db.execute(
            "INSERT INTO replies SELECT id, 1, 'r', 0, 0, 0 FROM prompts WHERE key = ?",
            (key(task),),
        )
    enter(store, FILM, settings=replace(SETTINGS, model="other"))
    prompts = {(each.item_id, each.user_id): each.prompt for each in store.latest_prompts(1)}
    assert prompts == {
        ("1", None): newer.prompt,
        ("2", None): FILM.prompt,
        ("1", "u"): REVIEW.prompt,
        **{(task.item_id, None): task.prompt for task in others},
    }


def test_the_mean_length_of_the_replies_of_one_model(store):
    enter(store, FILM, REVIEW)
    add(store, FILM, "a", tokens_out=10)
    add(store, FILM, "b", tokens_out=30)
    add(store, REVIEW, "not counted")
    assert store.mean_tokens_out(SETTINGS) == {"T_obj": 20.0}
    assert store.mean_tokens_out(replace(SETTINGS, model="other")) == {}


HOLD = """
import sys, time
from pathlib import Path
from prep.annotation.store import ReplyStore
with ReplyStore(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(999)
"""


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_ends_even_by_a_kill(path):
    first = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline()
        with pytest.raises(
            InputError, match=rf"replies\.sqlite: process {first.pid} on \S+ is working"
        ) as caught:
            ReplyStore(path)
        assert "\n" not in str(caught.value)
    finally:
        first.kill()
        first.wait()
        first.stdout.close()
    ReplyStore(path).close()
    assert not list(path.parent.glob("*.process"))


def test_a_second_store_in_the_same_process_is_refused(path):
    with ReplyStore(path), pytest.raises(InputError, match=f"process {os.getpid()} on "):
        ReplyStore(path)
    ReplyStore(path).close()


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
        enter(store, FILM)
        add(store, FILM, "one")
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=rf"replies\.sqlite: .*{message}") as caught:
        ReplyStore(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.process"))


def test_another_programs_empty_looking_file_is_refused(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs(x)")
    with pytest.raises(InputError, match="another program's"):
        ReplyStore(path)


def test_an_empty_file_becomes_a_store(path):
    path.touch()
    with ReplyStore(path) as store:
        enter(store, FILM)


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(InputError, match="cannot be opened"):
        ReplyStore(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="its folder cannot be created"):
        ReplyStore(tmp_path / "file" / "replies.sqlite")


def test_a_full_disk_is_one_line_and_keeps_what_was_stored(path):
    with ReplyStore(path) as store:
        enter(store, FILM, REVIEW)
        add(store, FILM, "kept")
        (pages,) = store._db.execute("PRAGMA page_count").fetchone()
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(
            InputError, match=r"replies\.sqlite: the disk is full; .* stored replies are safe"
        ):
            add(store, REVIEW, "x" * 100_000)
    with ReplyStore(path) as store:
        assert texts(store, FILM, REVIEW) == [["kept"], []]


def test_a_store_that_may_not_be_written_is_one_line(store):
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(InputError, match="may not be written"):
        enter(store, FILM)
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
            db.execute("DELETE FROM replies")
            raise KeyboardInterrupt

    enter(store, FILM)
    add(store, FILM, "one")
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert texts(store, FILM) == [["one"]]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "replies.sqlite"
    with ReplyStore(path) as store:
        for number in range(40):
            task = Task("T_obj", str(number), None, f"prompt {number} " * 9, ("pos", "neg"))
            enter(store, task)
            add(store, task, f"reply {number} " * 9)
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_damage_is_never_a_traceback(sound, path, seed):
    draw = random.Random(seed)
    content = bytearray(sound)
    for _ in range(draw.choice([1, 10, 1000])):
        content[draw.randrange(len(content))] = draw.randrange(256)
    path.write_bytes(content[: draw.randrange(len(content))] if draw.random() < 0.2 else content)
    message = f"{path}: "
    try:
        with ReplyStore(path) as store:
            enter(store, FILM)
            store.summary()
            list(store.latest_prompts(1))
            add(store, FILM, "one")
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
