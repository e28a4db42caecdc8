"""The store of replies: one SQLite file in which every reply of a language model stays.

A prompt is known by a key, the SHA-256 of its text and of all else that its reply depends on (`AskedOf`), and
its replies by that key and the number of the attempt. A reply is committed as it arrives, in WAL mode with
`synchronous=FULL`: neither the kill of a process nor a power cut takes back what `add_reply` returned from.
Prompts are kept beside their replies, so that a store can be audited, deflated against the first prompt of
their kind (about a quarter of their length). A table `subjects` says for which items and reviews a prompt was
asked, since equal prompts share a reply.

Any number of processes may work on one store. Before a prompt is asked it is claimed; each process holds the
lock of a file of its own beside the store for as long as it lives, so that a claim whose owner's lock can be
had is that of a dead process and is taken over at once. SQLite's WAL needs shared memory: keep a store on a
local disk, not on a network share.
"""

import dataclasses
import hashlib
import json
import os
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Sampling

FORMAT_VERSION = 1
_APPLICATION_ID = 0x6A787270  # "jxrp"
_PATIENCE_S = 60.0
_PAGE = 500  # rows read at a time, so that no cursor stays open while others write

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings(
    id INTEGER PRIMARY KEY, prompt_version TEXT NOT NULL, model TEXT NOT NULL, revision TEXT NOT NULL,
    sampling TEXT NOT NULL, dictionary BLOB NOT NULL,
    UNIQUE(prompt_version, model, revision, sampling));
CREATE TABLE IF NOT EXISTS prompts(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, settings_id INTEGER NOT NULL REFERENCES settings(id),
    prompt_name TEXT NOT NULL, polarities TEXT NOT NULL, prompt BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS subjects(
    prompt_id INTEGER NOT NULL REFERENCES prompts(id), item_id TEXT NOT NULL, user_id TEXT NOT NULL,
    PRIMARY KEY(prompt_id, item_id, user_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replies(
    prompt_id INTEGER NOT NULL REFERENCES prompts(id), attempt INTEGER NOT NULL, reply TEXT NOT NULL,
    cut INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    PRIMARY KEY(prompt_id, attempt));
CREATE TABLE IF NOT EXISTS claims(
    prompt_id INTEGER PRIMARY KEY REFERENCES prompts(id), owner TEXT NOT NULL);
"""
_RUN_SCHEMA = """
CREATE TEMP TABLE run_tasks(
    run INTEGER NOT NULL, place INTEGER NOT NULL, prompt_id INTEGER NOT NULL, item_id TEXT NOT NULL,
    user_id TEXT NOT NULL, PRIMARY KEY(run, place)) WITHOUT ROWID;
CREATE TEMP TABLE run_outcomes(
    run INTEGER NOT NULL, prompt_id INTEGER NOT NULL, outcome TEXT NOT NULL, attempt INTEGER,
    PRIMARY KEY(run, prompt_id)) WITHOUT ROWID;
"""
_PROMPTS = """
SELECT prompts.id, key, prompt_name, prompt_version, model, revision, sampling, prompt, dictionary
FROM prompts JOIN settings ON settings.id = settings_id WHERE key > ? ORDER BY key LIMIT ?
"""
_ADVICE = {
    "SQLITE_NOTADB": "not a store of replies (it is no SQLite file); name another file",
    "SQLITE_CORRUPT": "the store of replies is damaged; put a copy in its place, or name another file",
    "SQLITE_READONLY": "the store of replies may not be written; change its permissions, or name another file",
    "SQLITE_PERM": "the store of replies may not be written; change its permissions, or name another file",
    "SQLITE_CANTOPEN": "the store of replies cannot be opened; name a file in a folder that can be written",
    "SQLITE_FULL": "the disk is full; make room and run the same command again: what was stored is kept",
    "SQLITE_IOERR": "the disk is full or failing; run the same command again afterwards: what was stored is kept",
    "SQLITE_BUSY": "another process has kept the store of replies locked for a minute; try again when it ended",
    "SQLITE_LOCKED": "another process has kept the store of replies locked; try again when it ended",
}


class Task(NamedTuple):
    """A prompt that needs a reply.

    Attributes:
        prompt_name: "T_obj" or "T_sub".
        item_id: raw id of the item that it is about.
        user_id: raw id of the user whose review it quotes, not empty; None for T_obj.
        prompt: the text to send.
        polarities: the sides that the reply must have keywords of, as `prep.replies.files.parse_reply` takes them.
    """

    prompt_name: str
    item_id: str
    user_id: str | None
    prompt: str
    polarities: tuple[str, ...]


@dataclass(frozen=True)
class AskedOf:
    """What a reply depends on beside the prompt: who is asked, how, and the version of the prompts."""

    prompt_version: str
    model: str
    revision: str
    sampling: Sampling
    by_subject: bool = False
    """Whether the reply depends on whom the prompt is about, too, as a recording does."""

    @property
    def sampling_json(self) -> str:
        """The sampling settings, in one form only."""
        return json.dumps(dataclasses.asdict(self.sampling), sort_keys=True)

    def key_of(self, task: Task) -> str:
        """Hexadecimal SHA-256 under which the replies to a task are stored."""
        return self.key(task.prompt, (task.item_id, task.user_id) if self.by_subject else ())

    def key(self, prompt: str, subject: Sequence[str | None] = ()) -> str:
        """Hexadecimal SHA-256 under which the replies to a prompt are stored."""
        parts = (
            prompt,
            self.prompt_version,
            self.model,
            self.revision,
            self.sampling_json,
            *subject,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class StoredReply(NamedTuple):
    """One reply to a prompt.

    Attributes:
        attempt: its number among the replies to the prompt, from 1.
        text: what the model wrote.
        cut: whether it ended because it reached the limit of tokens.
    """

    attempt: int
    text: str
    cut: bool


class TaskReply(NamedTuple):
    """A stored reply as that to one task, of several perhaps that share its prompt; `cut` as in `StoredReply`."""

    item_id: str
    user_id: str | None
    text: str
    cut: bool


class Claim(NamedTuple):
    """What became of the wish to ask a prompt.

    Attributes:
        granted: whether the caller shall ask it now.
        mine: whether this process holds it, perhaps since an earlier call.
        replies: what is stored of it, by attempt.
    """

    granted: bool
    mine: bool
    replies: Sequence[StoredReply]


class Record(NamedTuple):
    """One reply with all that is known of it; `subjects` are the (item_id, user_id) that share it, sorted."""

    key: str
    attempt: int
    prompt_name: str
    prompt_version: str
    model: str
    revision: str
    sampling: str
    prompt: str
    reply: str
    cut: bool
    tokens_in: int
    tokens_out: int
    subjects: tuple[tuple[str, str | None], ...]


class ReplyStore:
    """An open store; use it in a `with` statement. Its methods may be called from any thread.

    Every method raises `InputError`, naming the file and what to do, if the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        """Open the store at `path`; create it, and the folders above it, if it is not there.

        Raises:
            InputError: it cannot be opened or created, is damaged, belongs to another program, or was written by
                a later version of this one.
        """
        self.path = path.absolute()
        self._mutex = threading.RLock()
        self._owner: _Owner | None = None
        self._settings: dict[AskedOf, tuple[int, bytes]] = {}
        self._runs = 0
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: its folder cannot be created ({error.strerror})") from None
        with self._explained():
            self._db = sqlite3.connect(
                self.path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> "ReplyStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back all claims and close the file."""
        with self._mutex:
            # On a full disk this fails, and nothing is lost: without its owner a claim is void.
            with suppress(InputError):
                self.release_all()
            if self._owner is not None:
                self._owner.close()
                self._owner = None
            self._db.close()

    # Replies

    def replies(self, keys: Iterable[str]) -> dict[str, list[StoredReply]]:
        """The stored replies of each prompt, by attempt; prompts without any have an empty list."""
        with self._mutex, self._explained():
            return {key: self._replies(key) for key in keys}

    def add_reply(self, key: str, completion: Completion, release: bool) -> int:
        """Store a reply to a claimed prompt as its next attempt.

        Args:
            key: the prompt's.
            completion: the reply, with a text. In it, halves of surrogate pairs, which UTF-8 cannot hold, become
                U+FFFD.
            release: whether to give back the claim, too; else the prompt will be asked again.

        Returns:
            The number of the attempt, from 1.
        """
        with self._writing() as db:
            (prompt_id,) = db.execute("SELECT id FROM prompts WHERE key = ?", (key,)).fetchone()
            (last,) = db.execute(
                "SELECT ifnull(max(attempt), 0) FROM replies WHERE prompt_id = ?", (prompt_id,)
            ).fetchone()
            _, text, _, tokens_in, tokens_out, cut = completion
            row = (prompt_id, last + 1, _storable(text or ""), cut, tokens_in, tokens_out)
            db.execute("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?)", row)
            if release:
                db.execute("DELETE FROM claims WHERE prompt_id = ?", (prompt_id,))
        return int(last) + 1

    # Claims

    def claim(
        self, asked_of: AskedOf, tasks: Mapping[str, Sequence[Task]], settled: Collection[str] = ()
    ) -> dict[str, Claim]:
        """Enter prompts with their subjects, and claim those that have to be asked.

        Args:
            asked_of: who is to be asked.
            tasks: key -> the tasks that share this prompt.
            settled: keys of prompts that are only entered, for nothing has to be asked.

        Returns:
            For each key that is not settled, whether it is the caller's to ask.
        """
        if not tasks:
            return {}
        with self._writing() as db:
            owner = self._live_owner().name
            settings_id, dictionary = self._settings_row(asked_of, tasks)
            prompt_ids = {
                key: self._enter(key, sharing, settings_id, dictionary)
                for key, sharing in tasks.items()
            }
            found = {}
            for key in prompt_ids.keys() - set(settled):
                holder = self._holder(prompt_ids[key])
                if holder is None:
                    db.execute("INSERT INTO claims VALUES (?, ?)", (prompt_ids[key], owner))
                found[key] = Claim(holder is None, holder in (None, owner), self._replies(key))
            return {key: found[key] for key in tasks if key in found}

    def release(self, key: str) -> None:
        """Give back the claim of a prompt that is not asked after all."""
        with self._writing() as db:
            db.execute(
                "DELETE FROM claims WHERE prompt_id = (SELECT id FROM prompts WHERE key = ?)",
                (key,),
            )

    def release_all(self) -> None:
        """Give back all claims of this store object."""
        if self._owner is not None:
            with self._writing() as db:
                db.execute("DELETE FROM claims WHERE owner = ?", (self._owner.name,))

    # The tasks of a run, in temporary tables on disk: there may be millions

    def new_run(self) -> int:
        """Begin to keep account of a run; returns its number."""
        self._runs += 1
        return self._runs

    def add_to_run(self, run: int, place: int, tasks: Iterable[tuple[str, Task]]) -> None:
        """Enter (key, task) of a run; `place` is that of the first in the order of the run."""
        with self._mutex, self._explained():
            self._db.executemany(
                "INSERT INTO run_tasks SELECT ?, ?, id, ?, ? FROM prompts WHERE key = ?",
                (
                    (run, place + number, task.item_id, task.user_id or "", key)
                    for number, (key, task) in enumerate(tasks)
                ),
            )

    def set_outcome(self, run: int, key: str, outcome: str, attempt: int | None = None) -> None:
        """Say what became of a prompt in a run, and which attempt gave the reply to use."""
        with self._mutex, self._explained():
            self._db.execute(
                "INSERT OR REPLACE INTO run_outcomes SELECT ?, id, ?, ? FROM prompts WHERE key = ?",
                (run, outcome, attempt, key),
            )

    def count_outcomes(self, run: int) -> dict[str, int]:
        """Outcome -> how many tasks of a run have it."""
        with self._mutex, self._explained():
            rows = self._db.execute(
                "SELECT outcome, count(*) FROM run_tasks JOIN run_outcomes USING (run, prompt_id) "
                "WHERE run = ? GROUP BY outcome",
                (run,),
            )
            return dict(rows.fetchall())

    def usable_replies(self, run: int) -> Iterator[TaskReply]:
        """Yield the reply of each task of a run whose outcome names an attempt, in the order of the run."""
        return self._run_replies(run, "attempt")

    def last_replies(self, run: int) -> Iterator[TaskReply]:
        """Yield of each task of a run the reply to use or, where there is none, the last one, if there is any."""
        return self._run_replies(
            run,
            "coalesce(attempt, (SELECT max(attempt) FROM replies WHERE replies.prompt_id = chosen.prompt_id))",
        )

    def _run_replies(self, run: int, attempt: str) -> Iterator[TaskReply]:
        place = -1
        while rows := self._page(
            "SELECT place, item_id, user_id, reply, cut FROM (SELECT place, item_id, user_id, prompt_id, "
            f"{attempt} AS attempt FROM run_tasks JOIN run_outcomes AS chosen USING (run, prompt_id) "
            "WHERE run = ? AND place > ?) JOIN replies USING (prompt_id, attempt) ORDER BY place LIMIT ?",
            run,
            place,
        ):
            place = rows[-1][0]
            for _, item_id, user_id, reply, cut in rows:
                yield TaskReply(item_id, user_id or None, reply, bool(cut))

    # The store as a whole

    def mean_tokens_out(self, asked_of: AskedOf) -> dict[str, float]:
        """Name of a prompt -> mean tokens of its stored replies, as far as the model counted them."""
        with self._mutex, self._explained():
            rows = self._db.execute(
                "SELECT prompt_name, avg(tokens_out) FROM replies JOIN prompts ON prompts.id = prompt_id "
                "JOIN settings ON settings.id = settings_id WHERE tokens_out > 0 AND prompt_version = ? "
                "AND model = ? AND revision = ? AND sampling = ? GROUP BY prompt_name",
                _identity(asked_of),
            )
            return dict(rows.fetchall())

    def records(self) -> Iterator[Record]:
        """Yield every reply, by key and attempt."""
        last = ""
        while rows := self._page(_PROMPTS, last):
            last = rows[-1][1]
            for prompt_id, *known, prompt, dictionary in rows:
                with self._explained():
                    text = _inflate(prompt, dictionary)
                subjects = self._subjects(prompt_id)
                key, name, version, model, revision, sampling = known
                for attempt, reply, cut, tokens_in, tokens_out in self._counted(prompt_id):
                    yield Record(
                        key=key,
                        attempt=attempt,
                        prompt_name=name,
                        prompt_version=version,
                        model=model,
                        revision=revision,
                        sampling=sampling,
                        prompt=text,
                        reply=reply,
                        cut=bool(cut),
                        tokens_in=tokens_in,
                        tokens_out=tokens_out,
                        subjects=subjects,
                    )

    def export(self, path: Path, run: int, about: Mapping[str, str]) -> int:
        """Write the last reply to each task of a run as JSON lines, as `prep.replies.files` reads them.

        Args:
            path: the file to write; it is written whole or not at all.
            run: the number of the run; replies to other prompts stay out.
            about: what else each line tells, such as the model.

        Returns:
            How many lines were written.

        Raises:
            InputError: the file cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        count = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                for count, reply in enumerate(self.last_replies(run), start=1):  # noqa: B007
                    file.write(_reply_line(reply, about))
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
        finally:
            temporary.unlink(missing_ok=True)
        return count

    # Within

    def _prepare(self) -> None:
        with self._explained():
            if self._is_new():
                _patiently(lambda: self._db.execute("PRAGMA journal_mode = WAL"))
                with self._writing() as db:
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_RUN_SCHEMA)
            # Fails here, before anything is asked, if the file may not be written.
            with self._writing() as db:
                db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        _bury_the_dead(self.path)

    def _is_new(self) -> bool:
        """Whether the file has no content yet; raises an InputError if it has one of another kind."""
        _patiently(lambda: self._db.execute("BEGIN"))
        try:
            (program,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        finally:
            self._db.execute("ROLLBACK")
        if program == 0 and version == 0 and tables == 0:
            return True
        if program != _APPLICATION_ID:
            raise InputError(
                f"{self.path}: not a store of replies (another program's SQLite file); name another file"
            )
        if version != FORMAT_VERSION:
            raise InputError(
                f"{self.path}: a store of format {version}, and this version reads format {FORMAT_VERSION}; "
                "upgrade jaxsim-recsys, or name another file"
            )
        return False

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors that come from the file into an InputError."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # not the file's fault
        except (sqlite3.DatabaseError, zlib.error, UnicodeDecodeError) as error:
            name = str(getattr(error, "sqlite_errorname", ""))
            advice = next((text for code, text in _ADVICE.items() if name.startswith(code)), None)
            advice = advice or f"{_ADVICE['SQLITE_CORRUPT']} ({' '.join(str(error).split())[:80]})"
            raise InputError(f"{self.path}: {advice}") from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its beginning."""
        with self._mutex, self._explained():
            _patiently(lambda: self._db.execute("BEGIN IMMEDIATE"))
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._settings.clear()  # a row that was rolled back may be among them
                raise

    def _page(self, query: str, *values: Any) -> list[Any]:
        with self._mutex, self._explained():
            return self._db.execute(query, (*values, _PAGE)).fetchall()

    def _replies(self, key: str) -> list[StoredReply]:
        rows = self._db.execute(
            "SELECT attempt, reply, cut FROM replies JOIN prompts ON prompts.id = prompt_id WHERE key = ? "
            "ORDER BY attempt",
            (key,),
        )
        return [StoredReply(attempt, text, bool(cut)) for attempt, text, cut in rows.fetchall()]

    def _counted(self, prompt_id: int) -> list[Any]:
        with self._mutex, self._explained():
            return self._db.execute(
                "SELECT attempt, reply, cut, tokens_in, tokens_out FROM replies WHERE prompt_id = ? "
                "ORDER BY attempt",
                (prompt_id,),
            ).fetchall()

    def _subjects(self, prompt_id: int) -> tuple[tuple[str, str | None], ...]:
        with self._mutex, self._explained():
            rows = self._db.execute(
                "SELECT item_id, user_id FROM subjects WHERE prompt_id = ? ORDER BY item_id, user_id",
                (prompt_id,),
            )
            return tuple((item, user or None) for item, user in rows.fetchall())

    def _settings_row(
        self, asked_of: AskedOf, tasks: Mapping[str, Sequence[Task]]
    ) -> tuple[int, bytes]:
        """The id of the row of `asked_of`, and the dictionary that its prompts are deflated against."""
        if asked_of not in self._settings:
            example = next(iter(tasks.values()))[0].prompt
            self._db.execute(
                "INSERT OR IGNORE INTO settings VALUES (NULL, ?, ?, ?, ?, ?)",
                (*_identity(asked_of), _storable(example).encode()),
            )
            self._settings[asked_of] = self._db.execute(
                "SELECT id, dictionary FROM settings "
                "WHERE prompt_version = ? AND model = ? AND revision = ? AND sampling = ?",
                _identity(asked_of),
            ).fetchone()
        return self._settings[asked_of]

    def _enter(self, key: str, sharing: Sequence[Task], settings_id: int, dictionary: bytes) -> int:
        row = self._db.execute("SELECT id FROM prompts WHERE key = ?", (key,)).fetchone()
        task = sharing[0]
        if row is None:
            sides = ",".join(task.polarities)
            prompt = _deflate(task.prompt, dictionary)
            values = (key, settings_id, task.prompt_name, sides, prompt)
            row = (
                self._db.execute(
                    "INSERT INTO prompts VALUES (NULL, ?, ?, ?, ?, ?)", values
                ).lastrowid,
            )
        self._db.executemany(
            "INSERT OR IGNORE INTO subjects VALUES (?, ?, ?)",
            [(row[0], each.item_id, each.user_id or "") for each in sharing],
        )
        return int(row[0])

    def _holder(self, prompt_id: int) -> str | None:
        """The living owner of a prompt's claim; the claims of a dead one are all deleted."""
        row = self._db.execute(
            "SELECT owner FROM claims WHERE prompt_id = ?", (prompt_id,)
        ).fetchone()
        if row is None or row[0] == self._live_owner().name or _is_alive(self.path, row[0]):
            return None if row is None else str(row[0])
        self._db.execute("DELETE FROM claims WHERE owner = ?", row)
        return None

    def _live_owner(self) -> "_Owner":
        if self._owner is None:
            self._owner = _Owner(self.path)
        return self._owner


class _Owner:
    """The sign of life of an open store: a locked file, which the system unlocks when the process ends.

    It gets its name when it is locked already, so that no other process can take it for one left by the dead.
    """

    def __init__(self, store: Path) -> None:
        self.name = uuid.uuid4().hex
        self.path = _lock_path(store, self.name)
        unnamed = self.path.with_suffix(".new")
        # Not bound to a thread: the store may be closed by another one than it was opened by.
        self._lock = FileLock(unnamed, thread_local=False)
        try:
            self._lock.acquire(timeout=0)
            unnamed.rename(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be created ({error.strerror})") from None

    def close(self) -> None:
        self.path.unlink(missing_ok=True)
        self._lock.release()


def _lock_path(store: Path, owner: str) -> Path:
    return store.with_name(f"{store.name}-{owner}.lock")


def _is_alive(store: Path, owner: str) -> bool:
    path = _lock_path(store, owner)
    if not path.exists():
        return False
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    path.unlink(missing_ok=True)
    lock.release()
    return False


def _bury_the_dead(store: Path) -> None:
    """Remove the lock files of processes that were killed; their claims fall when they are met."""
    prefix, suffix = f"{store.name}-", ".lock"
    for path in store.parent.iterdir():
        if path.name.startswith(prefix) and path.name.endswith(suffix):
            _is_alive(store, path.name[len(prefix) : -len(suffix)])


def _patiently(action: Any) -> Any:
    """Run `action` until the file is not locked: SQLite does not wait by itself for every kind of lock."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            name = str(getattr(error, "sqlite_errorname", ""))
            if not name.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _identity(asked_of: AskedOf) -> tuple[str, str, str, str]:
    return asked_of.prompt_version, asked_of.model, asked_of.revision, asked_of.sampling_json


def _reply_line(reply: TaskReply, about: Mapping[str, str]) -> str:
    user = {} if reply.user_id is None else {"user_id": reply.user_id}
    cut = {"finish_reason": "length"} if reply.cut else {}
    line = {**user, "item_id": reply.item_id, "reply": reply.text, **cut, **about}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _storable(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _deflate(prompt: str, dictionary: bytes) -> bytes:
    deflater = zlib.compressobj(zdict=dictionary)
    return deflater.compress(_storable(prompt).encode()) + deflater.flush()


def _inflate(prompt: bytes, dictionary: bytes) -> str:
    inflater = zlib.decompressobj(zdict=dictionary)
    return (inflater.decompress(prompt) + inflater.flush()).decode("utf-8", "replace")
