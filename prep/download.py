"""Downloads over HTTP that go on after they were cut.

While a file arrives, it is called `NAME.part`. `NAME.part.json` beside it says of which version of the file it is
a part: the server's validator, which is its ETag or else its date of change, and the size. The next request asks
for the rest of that version alone (`Range` with `If-Range`, RFC 9110). A server that has another version, or that
cannot send a part, sends the whole file, and then it is downloaded from the start. The file gets its name when it
is whole.

It is written with urllib, because pooch does not go on after a cut, and huggingface_hub serves its own hub alone.
"""

import gzip
import http.client
import json
import os
import queue
import re
import sys
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxsim import InputError
from jaxsim.dataset import sha256_of
from jaxsim.files import write_text

STALL_SECONDS = 30.0  # a connection on which no data comes for this long is cut
RETRY_SECONDS = (1.0, 5.0, 20.0)  # pauses before the next attempts, if the last one got nothing
_CHUNK_BYTES = 1 << 16
_HEAD_IS_UNKNOWN = (403, 405, 501)
_RANGE_BEYOND_END = 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class FetchError(Exception):
    """A download failed; the message is the reason in a few words.

    Attributes:
        status: the HTTP status with which the server refused; 0 if it was something else.
    """

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class CutError(FetchError):
    """A download broke off on its way; another attempt may go on."""


@dataclass(frozen=True)
class Version:
    """Which version of a file a server has.

    Attributes:
        size: bytes of the whole file; None if the server does not say.
        validator: its ETag, or else its date of change; empty without them. With an empty one no download goes on.
    """

    size: int | None
    validator: str


def bytes_in_words(count: int) -> str:
    """A number of bytes as "3.2 GB" or "41.0 MB", in powers of 1,000."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents if they do not exist.

    Raises:
        InputError: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be created ({error.strerror}); set JAXSIM_CACHE_DIR to another folder"
        ) from None


def part_of(target: Path) -> Path:
    """Where a file is while it arrives."""
    return target.with_name(f"{target.name}.part")


def bytes_kept(target: Path) -> int:
    """How many bytes of a file are there from a download that was cut, and can be gone on with."""
    part = part_of(target)
    return part.stat().st_size if part.is_file() and _kept_version(part) else 0


def probe(url: str, answer_seconds: float) -> Version:
    """Ask a server which version of a file it has, without downloading it.

    Raises:
        FetchError: no answer in time, or an HTTP error.
    """
    try:
        response = _open_within(urllib.request.Request(url, method="HEAD"), answer_seconds)
    except FetchError as error:
        if error.status not in _HEAD_IS_UNKNOWN:
            raise
        response = _open_within(urllib.request.Request(url), answer_seconds)
    with response:
        return _version_of(response.headers)


def download(url: str, target: Path, answer_seconds: float, sha256: str | None = None) -> None:
    """Download `url` to `target`, which is written only if the file is whole.

    It goes on with what an earlier download left. A connection that breaks is opened again, a few times. What has
    arrived stays when this fails and when it is interrupted, unless the content is wrong.

    Args:
        url: the address.
        target: the file to write, in a folder that exists.
        answer_seconds: how long to wait for the first answer of the server, name resolution included.
        sha256: the digest that the content must have, if it is known.

    Raises:
        FetchError: no answer in time, an HTTP error, or content that is cut short or has another digest.
    """
    part = part_of(target)
    try:
        size = _transfer_with_retries(url, part, target.name, answer_seconds)
    except KeyboardInterrupt:
        if kept := bytes_kept(target):
            print(
                f"note: {bytes_in_words(kept)} are kept in {part}; the same command goes on from there",
                file=sys.stderr,
            )
        raise
    if sha256 is not None and sha256_of(part) != sha256:
        _discard(part)
        raise FetchError("the content is not the published file (its SHA-256 differs)")
    if target.suffix == ".gz" and (fault := _gzip_fault(part, size_is_known=size is not None)):
        _discard(part)
        raise FetchError(fault)
    os.replace(part, target)
    _discard(part)


def _transfer_with_retries(url: str, part: Path, name: str, answer_seconds: float) -> int | None:
    """Let all of a file arrive; the size that the server said, if it said one."""
    pauses, most = iter(RETRY_SECONDS), -1
    while True:
        try:
            return _transfer(url, part, name, answer_seconds)
        except FetchError as error:
            if most < 0 and not isinstance(error, CutError):
                raise  # the server cannot be reached, or refuses: another attempt would be the same
            arrived = part.stat().st_size if part.exists() else 0
            pauses = iter(RETRY_SECONDS) if arrived > most >= 0 else pauses
            most = max(arrived, most)
            pause = next(pauses, None)
            if pause is None:
                raise
            tqdm.write(f"note: {name}: {error}; trying again", file=sys.stderr)
            time.sleep(pause)


def _transfer(url: str, part: Path, name: str, answer_seconds: float) -> int | None:
    """Let the rest of a file arrive over one connection; the size that the server said, if it said one.

    Raises:
        CutError: the connection broke, or the server has another version.
        FetchError: the server does not answer, or refuses.
    """
    kept = _kept_version(part)
    start = part.stat().st_size if kept and part.is_file() else 0
    if start and kept and kept.size is not None and start >= kept.size:
        if start == kept.size:
            return kept.size  # it was whole already
        _discard(part)
        start = 0
    with _request(url, part, start, kept, answer_seconds) as response:
        if start and response.status != http.client.PARTIAL_CONTENT:
            tqdm.write(
                f"note: {name}: the server sends it from the start, as it was changed or cannot be sent in part",
                file=sys.stderr,
            )
            start = 0
        version = _version_of(response.headers)
        if start and kept:
            _check_same_version(response, part, start, kept, version)
        with part.open("ab" if start else "wb") as file:
            _keep_version(part, version)
            with tqdm(
                desc=name,
                total=version.size,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=None,
                delay=1,
            ) as bar:
                for chunk in _chunks(response):
                    file.write(chunk)
                    bar.update(len(chunk))
            arrived = file.tell()
    if version.size is not None and arrived != version.size:
        told = f"{arrived:,} of {version.size:,} bytes arrived"
        raise CutError(f"the download broke off ({told})")
    return version.size


def _request(url: str, part: Path, start: int, kept: Version | None, answer_seconds: float) -> Any:
    """Ask for a file, from byte `start` on if the server still has the version that was kept."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if start and kept:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", kept.validator)
    try:
        return _open_within(request, answer_seconds)
    except FetchError as error:
        if error.status != _RANGE_BEYOND_END:
            raise
        _discard(part)
        raise CutError("the file on the server was changed and is shorter now") from None


def _check_same_version(
    response: Any, part: Path, start: int, kept: Version, version: Version
) -> None:
    """Not every server heeds If-Range, so what it sends is compared with what was asked for.

    Raises:
        CutError: it is a part of another version, or another part; what was kept is gone.
    """
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    same_start = found is not None and int(found[1]) == start
    same_validator = version.validator in ("", kept.validator)
    same_size = None in (version.size, kept.size) or version.size == kept.size
    if not (same_start and same_validator and same_size):
        _discard(part)
        raise CutError("the file on the server was changed")


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise CutError(f"the download broke off ({_reason(error)})") from None
        if not chunk:
            return
        yield chunk


def _version_of(headers: Any) -> Version:
    etag = headers.get("ETag", "")
    # A weak ETag does not say that the bytes are the same.
    validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
    if found := _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "")):
        return Version(None if found[2] == "*" else int(found[2]), validator)
    length = headers.get("Content-Length", "")
    return Version(int(length) if length.isdecimal() else None, validator)


def _notes_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _keep_version(part: Path, version: Version) -> None:
    if version.validator:
        write_text(_notes_of(part), json.dumps(asdict(version)) + "\n")
    else:
        _notes_of(part).unlink(missing_ok=True)


def _kept_version(part: Path) -> Version | None:
    """The version of which `part` is a part; None if that is not known, so that the download cannot go on."""
    with suppress(OSError, ValueError, AttributeError):
        notes: Mapping[str, Any] = json.loads(_notes_of(part).read_text("utf-8"))
        size, validator = notes.get("size"), notes.get("validator")
        if isinstance(validator, str) and (size is None or isinstance(size, int)):
            return Version(size, validator)
    return None


def _discard(part: Path) -> None:
    for path in (part, _notes_of(part)):
        path.unlink(missing_ok=True)


def _gzip_fault(path: Path, size_is_known: bool) -> str:
    """What is wrong with a file that should be gzip; empty for nothing."""
    try:
        with gzip.open(path) as file:
            # If the size is known and right, the end is there, and a look at the beginning will do.
            while file.read(1 << 20) and not size_is_known:
                pass
    except gzip.BadGzipFile:
        return (
            "what arrived is no gzip file, but perhaps a page on which the network asks for a login"
        )
    except (EOFError, zlib.error):
        return "the file that arrived is cut short or damaged"
    return ""


def _open_within(request: urllib.request.Request, seconds: float) -> Any:
    """Open an address in a separate thread, because a socket's timeout does not cover name resolution."""
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=STALL_SECONDS))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise FetchError(f"no answer within {seconds:g} seconds") from None
    if isinstance(answer, Exception):
        raise FetchError(_reason(answer), getattr(answer, "code", 0))
    return answer


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)  # urllib wraps the socket's own error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
