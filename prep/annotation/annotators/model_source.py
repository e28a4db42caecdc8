"""Where the files of a Hugging Face model are, which version they are, and whether they contain code.

A model is a folder or a name on the hub. Code that comes with a model (`auto_map` in its configuration, if
transformers has no class for it) runs only if the user asked for it, and from the hub only at a full commit
hash, so that the code that runs is the code that the user has read. This module never runs such code.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxsim import InputError

INSTALL = "pip install 'jaxsim-recsys[embed]'"

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_SUFFIXES = {".bin", ".jinja", ".json", ".model", ".pt", ".py", ".safetensors", ".tiktoken", ".txt"}
_WHOLE_BYTES = 64 << 20  # larger files are digested by samples
_SAMPLES = 256
_SAMPLE_BYTES = 64 << 10


@dataclass(frozen=True)
class ModelSource:
    """Where a model is, and what it may do.

    Attributes:
        model: its name, as the user gave it.
        where: the folder, or the name on the hub, that transformers loads.
        commit: the commit on the hub that everything is loaded at; None for a folder.
        revision: which version of the weights it is: the commit or, for a folder, its `folder_digest`.
        runs_code: whether the model's class comes with it.
        trusts_code: whether code that comes with it may be run.
    """

    model: str
    where: str
    commit: str | None
    revision: str
    runs_code: bool
    trusts_code: bool

    def arguments(self) -> dict[str, Any]:
        """Arguments of every `from_pretrained`, besides `where`."""
        return {} if self.commit is None else {"revision": self.commit}

    def unusable(self, reason: object) -> InputError:
        """Make the error for a model that cannot be loaded."""
        return InputError(
            f"model {self.model!r} cannot be loaded ({first_line(reason)}): give the name of a causal language "
            "model on the Hugging Face hub or the path of its folder"
        )


def import_libraries() -> tuple[Any, Any]:
    """Import torch and transformers, and let transformers print nothing but its progress bars on a terminal.

    Raises:
        InputError: one of them is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise InputError(
            f"a Hugging Face model needs torch and transformers ({first_line(error)}): {INSTALL}"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def locate_model(model: str, revision: str, trust_remote_code: bool) -> ModelSource:
    """Find a model and decide whether it may run code of its own. Weights are not loaded.

    Args:
        model: a folder, or a name on the hub.
        revision: branch, tag or commit on the hub, empty for its latest; a folder has none.
        trust_remote_code: whether code that comes with the model may run. A hub model then needs a full commit
            hash as its revision; a folder does not, because its code cannot change by itself.

    Raises:
        InputError: there is no such model, or it has code that may not be run.
    """
    import_libraries()
    folder = Path(model).expanduser()
    if folder.is_dir():
        if revision:
            raise InputError(f"{model}: a folder has no revisions; leave --revision out")
        return _checked(_folder_source(model, folder, trust_remote_code))
    if folder.is_file():
        raise InputError(f"{model}: is a file; give the folder of a Hugging Face model")
    if not _HUB_NAME.fullmatch(model):
        raise InputError(
            f"{model}: no such folder, and no possible name of a model on the Hugging Face hub"
        )
    if trust_remote_code and not _COMMIT.fullmatch(revision):
        raise InputError(
            f"{model}: --trust-remote-code also needs --revision with the full commit hash (40 hex digits) of "
            f"the code that you have read{f'; {revision!r} is not one' if revision else ''}"
        )
    return _checked(_hub_source(model, revision, trust_remote_code))


def folder_digest(folder: Path) -> str:
    """Digest the files of a model that its replies depend on, as `sha256:` and 64 hex digits.

    Names, sizes and contents of its configuration, tokenizer, code and weight files count. Of files above 64 MiB,
    only 256 evenly spread blocks of 64 KiB count: trained weights differ everywhere, and reading all of them would
    take minutes.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _SUFFIXES and not path.name.startswith(".") and path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            for block in _sampled_blocks(path):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def first_line(reason: object) -> str:
    """Take the first line of a library's message, or the type of an error without a message."""
    lines = str(reason).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(reason).__name__


def _sampled_blocks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            while block := file.read(_SAMPLE_BYTES):
                yield block
            return
        for sample in range(_SAMPLES):
            file.seek((size - _SAMPLE_BYTES) * sample // (_SAMPLES - 1))
            yield file.read(_SAMPLE_BYTES)


def _folder_source(model: str, folder: Path, trusts_code: bool) -> ModelSource:
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(
            f"{model}: the folder holds no config.json, so it is not of a Hugging Face model"
        )
    try:
        revision = folder_digest(folder)
    except OSError as error:
        raise InputError(f"{model}: cannot be read ({first_line(error)})") from None
    runs_code = _needs_own_code(config)
    return ModelSource(model, str(folder.resolve()), None, revision, runs_code, trusts_code)


def _hub_source(model: str, revision: str, trusts_code: bool) -> ModelSource:
    config = _hub_file(model, "config.json", revision)
    # The hub's cache keeps each version in a folder named after its commit.
    commit = config.parent.name if _COMMIT.fullmatch(config.parent.name) else revision or None
    runs_code = _needs_own_code(config)
    return ModelSource(model, model, commit, commit or "", runs_code, trusts_code)


def _hub_file(model: str, name: str, revision: str) -> Path:
    _, transformers = import_libraries()
    try:
        return Path(transformers.utils.cached_file(model, name, revision=revision or None))
    except (OSError, ValueError) as error:
        # Only the first of its several lines is about this model.
        at = f" at revision {revision!r}" if revision else ""
        raise InputError(
            f"model {model!r}{at} cannot be loaded ({first_line(error)}): give the name of a causal language "
            "model on the Hugging Face hub or the path of its folder; without a connection, one on this disk"
        ) from None


def _needs_own_code(config_file: Path) -> bool:
    _, transformers = import_libraries()
    config = _json_object(config_file)
    native = transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return bool(config.get("auto_map")) and config.get("model_type") not in native


def _checked(source: ModelSource) -> ModelSource:
    """Refuse code that the user did not allow, and code in another repository, which the commit does not fix."""
    if source.runs_code and not source.trusts_code:
        raise code_refused(source)
    if source.trusts_code:
        for repository in _repositories_of_code(source):
            raise InputError(
                f"{source.model}: its code is in another repository ({repository}), which its revision does not "
                "fix: download both into one folder, point auto_map there, and give that folder"
            )
    return source


def code_refused(source: ModelSource) -> InputError:
    """Make the error for a model that cannot be used without running the code that comes with it."""
    options = "--trust-remote-code"
    if source.commit is not None:
        options += (
            f" and --revision with the full commit hash that you read (it is now {source.commit})"
        )
    return InputError(
        f"{source.model}: this model runs Python code of its own, which was not run; to allow it, read its .py "
        f"files and give {options}"
    )


def _repositories_of_code(source: ModelSource) -> Iterator[str]:
    for name in ("config.json", "tokenizer_config.json"):
        if source.commit is None:
            path = Path(source.where) / name
        else:
            _, transformers = import_libraries()
            cached = transformers.utils.cached_file(
                source.where,
                name,
                revision=source.commit,
                _raise_exceptions_for_missing_entries=False,
            )
            path = Path(cached or "")
        if path.is_file():
            yield from _repositories(_json_object(path).get("auto_map"))


def _repositories(auto_map: object) -> Iterator[str]:
    """Yield the repositories that an `auto_map` names: its references read `[repository--]module.Class`."""
    if isinstance(auto_map, str) and "--" in auto_map:
        yield auto_map.split("--")[0]
    elif isinstance(auto_map, dict):
        for value in auto_map.values():
            yield from _repositories(value)
    elif isinstance(auto_map, list):
        for value in auto_map:
            yield from _repositories(value)


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is not JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: is not a JSON object")
    return content
