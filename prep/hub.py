"""A packed dataset as a repository of the Hugging Face hub: the same files, with a card."""

import shutil
from pathlib import Path
from typing import Any

from jaxsim import InputError, load_dataset
from jaxsim.dataset import FORMAT_VERSION, Dataset
from jaxsim.files import check_writable, staged_folder, write_text
from jaxsim.hub import FILES, check_repository
from jaxsim.tables import format_table

CARD = "README.md"
TERMS = {
    "ml-100k": "MovieLens 100K may not be redistributed without permission of its authors, GroupLens.",
}
"""What the publishers of a dataset say about sharing it, as far as this project knows."""
_NO_TERMS = "The terms of the ratings' publisher apply."


def export_hub(dataset: str, out: Path, licence: str | None, push: str | None) -> Path:
    """Write a packed dataset as a repository, and perhaps upload it.

    Args:
        dataset: name or path of a packed dataset.
        out: the folder to write; it must not exist.
        licence: the hub's identifier of the licence, such as cc-by-4.0 or other.
        push: OWNER/NAME of the repository to write to.

    Raises:
        InputError: there is no such dataset, the folder exists, or the upload is impossible.
    """
    if push is not None:
        check_repository(push, "--push")
        if licence is None:
            raise InputError(
                f"--push {push}: say under which licence you may share this, with --licence"
            )
    packed = load_dataset(dataset)
    check_writable(out)
    if out.exists():
        raise InputError(f"--out {out}: exists; give a new folder")
    with staged_folder(out) as staging:
        for name in ("manifest.json", *packed.manifest["files"]):
            shutil.copyfile(packed.path / name, staging / name)
        write_text(staging / CARD, card(packed, licence or "other", push))
    if push is not None:
        _upload(out, push)
    return out


def card(dataset: Dataset, licence: str, repository: str | None) -> str:
    """The card of a dataset: what it is, where it comes from, how to load it, and what may be done with it."""
    manifest = dataset.manifest
    where = f"hf:{repository}" if repository else "PATH"
    counts, settings = manifest.get("counts", {}), manifest.get("settings", {})
    terms = [text for name, text in TERMS.items() if str(manifest["dataset"]).startswith(name)]
    sections = [
        f"---\nlicense: {licence}\ntags: [recommender-systems, user-simulation, jaxsim]\n---",
        f"# {dataset.name}: a simulator of users",
        "Users' histories, the pros and cons of items as keywords and vectors, and the models fitted to them, "
        "packed for jaxsim, a user simulator for recommender systems. There are no texts of reviews and no raw "
        "files in it.",
        f'```python\nimport jaxsim\n\nenv, params = jaxsim.make(jaxsim.load_dataset("{where}"))\n```',
        "## Content",
        _table({name: f"{value:,}" for name, value in counts.items() if isinstance(value, int)}),
        "## Provenance",
        _table(
            {
                "raw files (SHA-256)": _words(manifest.get("raw", {})),
                "language model": _words(manifest.get("language_model", {})),
                "encoder": _words(manifest.get("encoder", {})),
                "settings": _words(settings),
                "format version": str(FORMAT_VERSION),
            }
        ),
        "## Licence",
        f"{(terms or [_NO_TERMS])[0]} Keywords were written by the language model above.",
    ]
    return "\n\n".join(sections) + "\n"


def _table(rows: dict[str, str]) -> str:
    return format_table(("what", ""), list(rows.items()), markdown=True, left=(0, 1))


def _words(value: Any) -> str:
    """A part of a manifest in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(x)}" for name, x in value.items() if x not in (None, {}))
    if isinstance(value, list):
        return "; ".join(map(_words, value))
    return str(value).replace("|", "/")


def _upload(folder: Path, repository: str) -> None:
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
    except ImportError:
        raise InputError('--push needs huggingface_hub: pip install "jaxsim-recsys[hub]"') from None
    api = HfApi()
    try:
        api.create_repo(repository, repo_type="dataset", exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=[*FILES, CARD],
            commit_message="A packed dataset of jaxsim",
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--push {repository}: {reason}; the folder {folder} is written, and can be uploaded later"
        ) from None
