"""Where the benchmarks write their results."""

import json
from pathlib import Path
from typing import Any

from jaxsim import InputError
from jaxsim.files import check_writable, write_text


def check_json(path: Path | None) -> None:
    """Make sure, before any long work, that `--json` can be written, if it is given.

    Raises:
        InputError: it is a folder, or cannot be written.
    """
    if path is None:
        return
    check_writable(path)
    if path.is_dir():
        raise InputError(f"--json {path}: is a folder; give a file")


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write a result as JSON, if a path is given."""
    if path is not None:
        write_text(path, json.dumps(result, indent=2) + "\n")
