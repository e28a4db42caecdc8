"""The store of replies: one SQLite file that keeps every reply of a language model.

A prompt has a key: the SHA-256 of its text and of everything else that a reply depends on (`ModelSettings`).
    Replies
are stored under that key and the number of the attempt. A reply is committed as it arrives, in WAL mode with
`synchronous=FULL`, so neither a killed process nor a power cut takes back a reply once `add_reply` has returned.
Prompts are stored too, so that a store can be audited. They are compressed against the first prompt of their
settings, to about a quarter of their length. The table `subjects` says which items and reviews a prompt was asked
for, because equal prompts share their replies.

One process at a time works on a store. It holds the lock of a file beside the store, which the operating system
releases when the process ends, and writes its id and host beside it. SQLite's WAL needs shared memory: keep a
store on a local disk, not on a network share.
"""

import dataclasses
import hashlib
import json
import os
import socket
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from jaxsim import InputError
from jaxsim.files import write_text
from prep.annotation.annotators.base import Completion, Sampling
from prep.annotation.tasks import Task

FORMAT_VERSION = 2
_FORMAT_WITH_CLAIMS = 1  # had a table `claims` as well: which process was asking a prompt
_APPLICATION_ID = 0x6A787270  # "jxrp"
_WAIT_S = 60.0  # for another program, such as a database browser, that has the file locked
_PAGE = 500  # rows that are read at a time

_SCHEMA = """
CREATE TABLE settings(
    id INTEGER PRIMARY KEY, prompt_version TEXT NOT NULL, model TEXT NOT NULL, revision TEXT NOT NULL,
    sampling TEXT NOT NULL, dictionary BLOB NOT NULL,
    UNIQUE(prompt_version, model, revision, sampling));
CREATE TABLE prompts(
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, settings_id INTEGER NOT NULL REFERENCES settings(id),
    prompt_name TEXT NOT NULL, polarities TEXT NOT NULL, prompt BLOB NOT NULL);
CREATE TABLE subjects(
    prompt_id INTEGER NOT NULL REFERENCES prompts(id), item_id TEXT NOT NULL, user_id TEXT NOT NULL,
    PRIMARY KEY(prompt_id, item_id, user_id)) WITHOUT ROWID;
CREATE TABLE replies(
    prompt_id INTEGER NOT NULL REFERENCES prompts(id), attempt INTEGER NOT NULL, reply TEXT NOT NULL,
    cut INTEGER NOT NULL, tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL,
    PRIMARY KEY(prompt_id, attempt));
"""
_ADVICE = {
    "SQLITE_NOTADB": "not a store of replies (it is no SQLite file); name another file",
    "SQLITE_CORRUPT": "the store of replies is damaged; put a copy in its place, or name another file",
    "SQLITE_READONLY": "the store of replies may not be written; change its permissions, or name another file",
    "SQLITE_PERM": "the store of replies may not be written; change its permissions, or name another file",
    "SQLITE_CANTOPEN": "the store of replies cannot be opened; name a file in a folder that can be written",
    "SQLITE_FULL": "the disk is full; make room and run the same command again: all stored replies are safe",
    "SQLITE_IOERR": "the disk is full or failing; run the same command again later: all stored replies are safe",
    "SQLITE_BUSY": "another program has locked the store of replies for a minute; close it and try again",
    "SQLITE_LOCKED": "another program has locked the store of replies; close it and try again",
}


@dataclass(frozen=True)
class ModelSettings:
    """Everything besides the prompt that a reply depends on.

    Attributes:
        prompt_version: `PROMPT_VERSION` of the prompts.
        model: name of the language model.
        revision: version of its weights; empty where that is not known.
        sampling: how it writes.
        by_subject: whether the reply also depends on the item and the user that a prompt is about, as a recorded
            reply does.
    """

    prompt_version: str
    model: str
    revision: str
    sampling: Sampling
    by_subject: bool = False

    @property
    def columns(self) -> tuple[str, str, str, str]:
        """Prompt version, model, revision and sampling (as JSON), as the table `settings` holds them."""
        sampling = json.dumps(dataclasses.asdict(self.sampling), sort_keys=True)
        return self.prompt_version, self.model, self.revision, sampling

    def key(self, task: Task) -> str:
        """Hexadecimal SHA-256 under which the replies to a task are stored."""
        subject = (task.item_id, task.user_id) if self.by_subject else ()
        parts = (task.prompt, *self.columns, *subject)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class StoredPrompt(NamedTuple):
    """A prompt in the store; the language model is that of `settings_id`."""

    settings_id: int
    prompt_name: str
    polarities: tuple[str, ...]
    item_id: str
    user_id: str | None
    prompt: str
    replies: Sequence[Completion]


class ReplyStore:
    """An open store; use it in a `with` statement, in one thread.

    Every method raises `InputError`, with the name of the file and what to do, if the file cannot be read or
    written.
    """

    def __init__(self, path: Path) -> None:
        """Open the store at `path`; create it, and the folders above it, if it is not there.

        Raises:
            InputError: it cannot be opened or created, is in use by another process, is damaged, belongs to
                another program, or was written by a later version of this one.
        """
        self.path = path.absolute()
        self._settings: dict[ModelSettings, tuple[int, bytes]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path}: its folder cannot be created ({error.strerror})") from None
        self._lock = _StoreLock(self.path)
        try:
            with self._explained():
                self._db = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> "ReplyStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let other processes open it."""
        self._db.close()
        self._lock.release()

    def add_prompts(self, settings: ModelSettings, tasks: Mapping[str, Sequence[Task]]) -> None:
        """Enter prompts and the items and reviews that they are about, where the store does not have them yet.

        Args:
            settings: who is asked.
            tasks: key -> the tasks that share this prompt.
        """
        if not tasks:
            return
        with self._writing():
            settings_id, dictionary = self._settings_row(settings, tasks)
            for key, sharing in tasks.items():
                self._add_prompt(key, sharing, settings_id, dictionary)

    def replies(self, keys: Iterable[str]) -> dict[str, list[Completion]]:
        """The stored replies to each prompt, in the order of the attempts; an empty list where there is none."""
        query = "prompt_id = (SELECT id FROM prompts WHERE key = ?)"
        with self._explained():
            return {key: self._completions(key, query, key) for key in keys}

    def add_reply(self, key: str, completion: Completion) -> Completion:
        """Store a reply as the next attempt of a prompt that was entered.

        Args:
            key: the prompt's.
            completion: the reply, with a text.

        Returns:
            The completion as it was stored: UTF-8 cannot hold halves of surrogate pairs, which become U+FFFD.
        """
        completion = completion._replace(text=_storable(completion.text or ""))
        with self._writing() as db:
            (prompt_id,) = db.execute("SELECT id FROM prompts WHERE key = ?", (key,)).fetchone()
            db.execute(
                "INSERT INTO replies SELECT ?, ifnull(max(attempt), 0) + 1, ?, ?, ?, ? "
                "FROM replies WHERE prompt_id = ?",
                (
                    prompt_id,
                    completion.text,
                    completion.cut,
                    completion.tokens_in,
                    completion.tokens_out,
                    prompt_id,
                ),
            )
        return completion

    def mean_tokens_out(self, settings: ModelSettings) -> dict[str, float]:
        """Name of a prompt -> mean tokens of its stored replies, where the model counted them."""
        rows = self._read(
            "SELECT prompt_name, avg(tokens_out) FROM replies JOIN prompts ON prompts.id = prompt_id "
            "JOIN settings ON settings.id = settings_id WHERE tokens_out > 0 AND prompt_version = ? "
            "AND model = ? AND revision = ? AND sampling = ? GROUP BY prompt_name",
            *settings.columns,
        )
        return dict(rows)

    def summary(self) -> list[tuple[Any, ...]]:
        """One row for each language model, its settings and kind of prompt.

        Returns:
            Rows of settings id, prompt version, model, revision, sampling (JSON), prompt name, and the numbers of
            prompts, of prompts with a reply, of replies, of tokens in and of tokens out.
        """
        return self._read(
            "SELECT settings.id, prompt_version, model, revision, sampling, prompt_name, "
            "count(DISTINCT prompts.id), count(DISTINCT replies.prompt_id), count(attempt), "
            "ifnull(sum(tokens_in), 0), ifnull(sum(tokens_out), 0) "
            "FROM settings JOIN prompts ON settings_id = settings.id "
            "LEFT JOIN replies ON replies.prompt_id = prompts.id "
            "GROUP BY settings.id, prompt_name ORDER BY settings.id, prompt_name"
        )

    def prompts_about(self, item_id: str, user_id: str | None) -> list[StoredPrompt]:
        """All prompts about an item (T_obj, `user_id` None) or a review (T_sub), with their replies."""
        return self._stored_prompts("item_id = ? AND user_id = ?", item_id, user_id or "")

    def latest_prompts(self, settings_id: int) -> Iterator[StoredPrompt]:
        """Yield the latest prompt about each item and each review that has a reply.

        Args:
            settings_id: the language model and its settings, as in `summary`.
        """
        last = ("", "")
        while subjects := self._read(
            "SELECT item_id, user_id, max(prompt_id) FROM subjects JOIN prompts ON prompts.id = prompt_id "
            "WHERE settings_id = ? AND (item_id, user_id) > (?, ?) "
            "AND EXISTS (SELECT 1 FROM replies WHERE replies.prompt_id = prompts.id) "
            "GROUP BY item_id, user_id ORDER BY item_id, user_id LIMIT ?",
            settings_id,
            *last,
            _PAGE,
        ):
            last = subjects[-1][:2]
            for row in subjects:
                yield from self._stored_prompts(
                    "item_id = ? AND user_id = ? AND prompt_id = ?", *row
                )

    def _stored_prompts(self, where: str, *values: Any) -> list[StoredPrompt]:
        rows = self._read(
            "SELECT prompts.id, key, settings_id, prompt_name, polarities, item_id, user_id, prompt, dictionary "
            "FROM subjects JOIN prompts ON prompts.id = prompt_id JOIN settings ON settings.id = settings_id "
            f"WHERE {where} ORDER BY prompts.id",
            *values,
        )
        with self._explained():
            return [
                StoredPrompt(
                    settings_id=settings_id,
                    prompt_name=name,
                    polarities=tuple(polarities.split(",")),
                    item_id=item_id,
                    user_id=user_id or None,
                    prompt=_decompress(prompt, dictionary),
                    replies=self._completions(key, "prompt_id = ?", prompt_id),
                )
                for prompt_id, key, settings_id, name, polarities, item_id, user_id, prompt, dictionary in rows
            ]

    def _completions(self, key: str, where: str, value: Any) -> list[Completion]:
        rows = self._db.execute(
            f"SELECT attempt, reply, tokens_in, tokens_out, cut FROM replies WHERE {where} ORDER BY attempt",
            (value,),
        )
        return [
            Completion(f"{key}-{attempt}", text, None, tokens_in, tokens_out, bool(cut))
            for attempt, text, tokens_in, tokens_out, cut in rows.fetchall()
        ]

    def _read(self, query: str, *values: Any) -> list[Any]:
        with self._explained():
            return self._db.execute(query, values).fetchall()

    def _prepare(self) -> None:
        """Create the tables of a new store, or bring an older one up to date."""
        with self._explained():
            version = self._stored_version()
            if version is None:
                self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        # Fails here, before anything is asked, if the file may not be written.
        with self._writing() as db:
            if version is None:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            elif version == _FORMAT_WITH_CLAIMS:
                db.execute("DROP TABLE IF EXISTS claims")
            db.execute(f"PRAGMA user_version = {FORMAT_VERSION}")

    def _stored_version(self) -> int | None:
        """The format of the file; None if it is empty.

        Raises:
            InputError: it is not a store, or this version cannot read its format.
        """
        (program,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if program == 0 and version == 0 and tables == 0:
            return None
        if program != _APPLICATION_ID:
            raise InputError(
                f"{self.path}: not a store of replies (another program's SQLite file); name another file"
            )
        if version not in (_FORMAT_WITH_CLAIMS, FORMAT_VERSION):
            raise InputError(
                f"{self.path}: a store of format {version}, and this version reads up to {FORMAT_VERSION}; "
                "upgrade jaxsim-recsys, or name another file"
            )
        return int(version)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors that come from the file into an InputError."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a mistake in this module, not in the file
        except (sqlite3.DatabaseError, zlib.error, UnicodeDecodeError) as error:
            name = str(getattr(error, "sqlite_errorname", ""))
            advice = next((text for code, text in _ADVICE.items() if name.startswith(code)), None)
            advice = advice or f"{_ADVICE['SQLITE_CORRUPT']} ({' '.join(str(error).split())[:80]})"
            raise InputError(f"{self.path}: {advice}") from None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction, which is undone if the block fails."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._settings.clear()  # may name a row that was undone
                raise

    def _settings_row(
        self, settings: ModelSettings, tasks: Mapping[str, Sequence[Task]]
    ) -> tuple[int, bytes]:
        """The id of the row of `settings`, and the dictionary that its prompts are compressed against."""
        if settings not in self._settings:
            example = next(iter(tasks.values()))[0].prompt
            self._db.execute(
                "INSERT OR IGNORE INTO settings VALUES (NULL, ?, ?, ?, ?, ?)",
                (*settings.columns, _storable(example).encode()),
            )
            self._settings[settings] = self._db.execute(
                "SELECT id, dictionary FROM settings "
                "WHERE prompt_version = ? AND model = ? AND revision = ? AND sampling = ?",
                settings.columns,
            ).fetchone()
        return self._settings[settings]

    def _add_prompt(
        self, key: str, tasks: Sequence[Task], settings_id: int, dictionary: bytes
    ) -> None:
        row = self._db.execute("SELECT id FROM prompts WHERE key = ?", (key,)).fetchone()
        if row is None:
            task = tasks[0]
            prompt = _compress(task.prompt, dictionary)
            values = (key, settings_id, task.prompt_name, ",".join(task.polarities), prompt)
            added = self._db.execute("INSERT INTO prompts VALUES (NULL, ?, ?, ?, ?, ?)", values)
            row = (added.lastrowid,)
        self._db.executemany(
            "INSERT OR IGNORE INTO subjects VALUES (?, ?, ?)",
            [(row[0], task.item_id, task.user_id or "") for task in tasks],
        )


class _StoreLock:
    """The lock of a store, and a file that says which process holds it."""

    def __init__(self, store: Path) -> None:
        """Take the lock.

        Raises:
            InputError: another process holds it, or its file cannot be created.
        """
        self._holder = store.with_name(f"{store.name}.process")
        self._lock = FileLock(store.with_name(f"{store.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
            write_text(self._holder, f"process {os.getpid()} on {socket.gethostname()}")
        except Timeout:
            raise InputError(
                f"{store}: {self._read_holder()} is working on this store of replies; wait until it ends, or name "
                "another file"
            ) from None
        except OSError as error:
            self._lock.release()
            raise InputError(
                f"{store}: its lock file cannot be created ({error.strerror})"
            ) from None

    def release(self) -> None:
        """Give the lock back."""
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _read_holder(self) -> str:
        try:
            return self._holder.read_text("utf-8")
        except OSError:  # it has only just taken the lock
            return "another process"


def _storable(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _compress(prompt: str, dictionary: bytes) -> bytes:
    compressor = zlib.compressobj(zdict=dictionary)
    return compressor.compress(_storable(prompt).encode()) + compressor.flush()


def _decompress(prompt: bytes, dictionary: bytes) -> str:
    decompressor = zlib.decompressobj(zdict=dictionary)
    return (decompressor.decompress(prompt) + decompressor.flush()).decode("utf-8", "replace")
