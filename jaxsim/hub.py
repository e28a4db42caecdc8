"""Packed datasets on the Hugging Face hub: `jaxsim.load_dataset("hf:owner/name")`.

`python -m prep export-hub` makes such a repository. Files are kept in the hub's own cache, and verified as those
of any packed dataset.
"""

import re
from pathlib import Path

from jaxsim.errors import InputError

PREFIX = "hf:"
FILES = ("*.safetensors", "*.parquet", "*.json")
"""What a packed folder holds."""
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_on_hub(name: str) -> bool:
    """Whether the name of a dataset is that of a repository."""
    return name.startswith(PREFIX)


def check_repository(name: str, option: str = "dataset") -> None:
    """Check the name of a repository, without "hf:".

    Raises:
        InputError: it is not OWNER/NAME.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{option} {name}: give OWNER/NAME, as on the hub")


def download(name: str) -> Path:
    """The folder of a repository's files, downloaded unless they are in the hub's cache.

    Args:
        name: "hf:OWNER/NAME", or "hf:OWNER/NAME@REVISION" for a branch, tag or commit.

    Raises:
        InputError: huggingface_hub is missing, there is no such repository or revision, or it cannot be reached.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    check_repository(repository)
    try:
        import huggingface_hub
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        raise InputError(
            f'{name}: reading from the hub needs huggingface_hub: pip install "jaxsim-recsys[hub]"'
        ) from None
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision or None,
            allow_patterns=list(FILES),
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name}: cannot be downloaded from the hub: {reason}") from None
    return Path(str(folder))
