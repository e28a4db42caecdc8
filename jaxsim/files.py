"""Files and folders that are written completely or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxsim.errors import InputError


def check_writable(path: Path) -> None:
    """Make sure, before any long work, that `path` can be created.

    Raises:
        InputError: the nearest existing parent is not a folder, or it cannot be written to.
    """
    path = path.absolute()
    parent = next((folder for folder in path.parents if folder.exists()), path)  # the root has none
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{path}: cannot be written, because {parent} is not a writable folder")


def check_file(option: str, path: Path | None) -> None:
    """Make sure, before any long work, that the file of an option can be written, if it is given.

    Raises:
        InputError: it is a folder, or cannot be written.
    """
    if path is None:
        return
    check_writable(path)
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; give a file")


def write_json(path: Path | None, content: Any) -> None:
    """Write plain values as JSON, if a path is given."""
    if path is not None:
        write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside `out`. It replaces `out` when the block ends without an error.

    If anything fails, `out` stays as it was and the temporary folder is removed.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    new, old = staging / "new", staging / "old"
    try:
        new.mkdir()
        yield new
        if out.exists():
            os.rename(out, old)
        try:
            os.rename(new, out)
        except BaseException:
            if old.exists():
                os.rename(old, out)
            raise
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk names no file
            error.filename = str(out)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Give the path of a temporary file beside `path`. It replaces `path` when the block ends without an error.

    If anything fails, `path` stays as it was and the temporary file is removed.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, completely or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all."""
    with staged_file(path) as temporary:
        temporary.write_bytes(content)
