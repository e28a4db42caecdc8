"""The files of a publisher, fetched into the cache: asked for before a large download, resumed, and recorded.

The publishers name no digests. So `downloads.json` in the folder records the SHA-256, size, address and date of
each file that was fetched. A file that is fetched again is compared with it, and so is a file that a build reads.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jaxsim import InputError
from jaxsim.dataset import sha256_of
from jaxsim.files import write_text
from prep.download import (
    FetchError,
    Version,
    bytes_in_words,
    bytes_kept,
    download,
    make_folder,
    probe,
)

ASK_ABOVE_BYTES = 1_000_000_000
ANSWER_SECONDS = 20.0
_SPARE_BYTES = 100_000_000  # what a disk keeps free beside the files
_RECORD = "downloads.json"


@dataclass(frozen=True)
class PublishedFile:
    """A file that a publisher offers.

    Attributes:
        name: its name, which it keeps in the cache.
        urls: its addresses, which the publisher has moved more than once; the first that answers is used.
    """

    name: str
    urls: Sequence[str]


@dataclass(frozen=True)
class Offer:
    """What a publisher offers.

    Attributes:
        dataset: the name of the dataset, for messages.
        files: the files.
        page: the page that describes them, where people can get them with a browser.
        terms: what the publisher says about their use, printed before they are downloaded.
    """

    dataset: str
    files: Sequence[PublishedFile]
    page: str
    terms: str


def fetch_files(offer: Offer, folder: Path, agreed: bool) -> None:
    """Fetch the files that are not in `folder` yet.

    Args:
        offer: what to fetch.
        folder: where the files go; it is created.
        agreed: whether the user has agreed to a large download, so that they are not asked.

    Raises:
        InputError: a file cannot be fetched, the user does not want it or cannot be asked, the disk is too small,
            or another process is fetching into the folder.
    """
    if all(_is_there(folder, file.name) for file in offer.files):
        return
    make_folder(folder)
    try:
        with FileLock(folder / ".lock", timeout=0):
            missing = [file for file in offer.files if not _is_there(folder, file.name)]
            _fetch(offer, missing, folder, agreed)
    except Timeout:
        raise InputError(
            f"{folder}: another process is downloading {offer.dataset} into it; wait for it to end"
        ) from None


def _fetch(offer: Offer, files: Sequence[PublishedFile], folder: Path, agreed: bool) -> None:
    print(offer.terms, flush=True)
    found = {file.name: _find(offer, file) for file in files}
    sizes = [version.size for _, version in found.values()]
    kept = sum(bytes_kept(folder / name) for name in found)
    size = None if None in sizes else sum(filter(None, sizes))
    names = " and ".join(found)
    told = "of unknown size" if size is None else bytes_in_words(size)
    if kept:
        told += f", of which {bytes_in_words(kept)} are there already"
    print(f"{names}: {told}, into {folder}", flush=True)
    left = None if size is None else size - kept
    if not agreed and (left is None or left > ASK_ABOVE_BYTES):
        _ask(offer, left)
    _check_space(offer, folder, left or 0)
    for name, (url, _) in found.items():
        try:
            download(url, folder / name, ANSWER_SECONDS)
        except FetchError as error:
            raise InputError(_failure(offer, folder, f"{url}: {error}")) from None
        _record(folder, name, url)


def _find(offer: Offer, file: PublishedFile) -> tuple[str, Version]:
    """The first address of a file that answers, and the version that is there.

    Raises:
        InputError: none does.
    """
    reasons = []
    for url in file.urls:
        try:
            return url, probe(url, ANSWER_SECONDS)
        except FetchError as error:
            reasons.append(f"{url}: {error}")
    raise InputError(_failure(offer, None, "; ".join(reasons)))


def _failure(offer: Offer, folder: Path | None, reason: str) -> str:
    kept = folder and any(bytes_kept(folder / file.name) for file in offer.files)
    again = "run the same command again, which goes on from there" if kept else "try again later"
    names = " and ".join(file.name for file in offer.files)
    return (
        f"{offer.dataset} cannot be downloaded ({reason}): {again}, or get {names} at {offer.page} and give "
        "their folder with --raw"
    )


def _ask(offer: Offer, left: int | None) -> None:
    """Ask whether to download so much.

    Raises:
        InputError: the answer is not yes, or there is no terminal to ask at.
    """
    size = "a download of unknown size" if left is None else f"a download of {bytes_in_words(left)}"
    if not sys.stdin.isatty():
        raise InputError(f"{offer.dataset}: {size}; agree to it with --yes")
    try:
        answer = input(f"{offer.dataset}: {size}. Go on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise InputError(f"{offer.dataset}: not downloaded; --yes agrees to {size}")


def _check_space(offer: Offer, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise InputError(
            f"{offer.dataset}: {bytes_in_words(needed)} are to be downloaded, but {folder} has "
            f"{bytes_in_words(free)} free; make room, or set JAXSIM_CACHE_DIR to a folder on another disk"
        )


def _is_there(folder: Path, name: str) -> bool:
    """Whether a file is in the folder, as large as it was when it was fetched."""
    path, record = folder / name, _read_record(folder).get(name)
    if not path.is_file():
        return False
    if record is None or path.stat().st_size == record["bytes"]:
        return True
    print(f"note: {path} was changed since it was downloaded; getting it again", file=sys.stderr)
    return False


def _read_record(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / _RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
        return {
            name: {key: entry[key] for key in ("url", "sha256", "bytes", "date")}
            for name, entry in record.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{path}: not what a download writes; delete it and run the command again"
        ) from None


def _record(folder: Path, name: str, url: str) -> None:
    """Record a file that was fetched, and say whether it is the one that was fetched before."""
    record = _read_record(folder)
    before = record.get(name)
    digest = sha256_of(folder / name)
    if before and before["sha256"] != digest:
        print(
            f"note: {name} is not the file that was downloaded on {before['date']} (its SHA-256 differs); results "
            "may differ",
            file=sys.stderr,
        )
    record[name] = {
        "url": url,
        "sha256": digest,
        "bytes": (folder / name).stat().st_size,
        "date": datetime.now(UTC).date().isoformat(),
    }
    write_text(folder / _RECORD, json.dumps(record, indent=1) + "\n")


@contextmanager
def blaming_changed_files(folder: Path) -> Iterator[None]:
    """If fetched files cannot be read in the block, and one was changed since it was fetched, say that instead."""
    try:
        yield
    except InputError:
        names = [name for name in _read_record(folder) if (folder / name).is_file()]
        check_digests(folder, {name: sha256_of(folder / name) for name in names})
        raise


def check_digests(folder: Path, digests: Mapping[str, str]) -> dict[str, str]:
    """Make sure that files are still as they were fetched.

    Args:
        folder: where they are.
        digests: name -> SHA-256 of each file as it was read.

    Returns:
        The address of each file that was fetched, by its name.

    Raises:
        InputError: a file was changed.
    """
    record = _read_record(folder)
    for name, digest in digests.items():
        if name in record and record[name]["sha256"] != digest:
            raise InputError(
                f"{folder / name}: was changed since it was downloaded (its SHA-256 differs); delete it and run "
                "the command again"
            )
    return {name: record[name]["url"] for name in digests if name in record}
