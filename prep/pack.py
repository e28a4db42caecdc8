"""The packed dataset on disk: what `jaxsim.load_dataset` reads, written whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from jaxsim import ARRAY_SCHEMA, FORMAT_VERSION, InputError, sha256_of

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PackedContents:
    """Everything that goes into the folder, but for what follows from it.

    Attributes:
        arrays: the arrays of `jaxsim.ARRAY_SCHEMA`, with those dtypes and numbers of dimensions.
        items, users: one row an item or user, in index order.
        keywords, categories: the words that the indices stand for.
        sasrec: flat name -> weight of the statistic model.
        manifest: the manifest without `format_version` and `files`.
    """

    arrays: Mapping[str, np.ndarray]
    items: pd.DataFrame
    users: pd.DataFrame
    keywords: list[str]
    categories: list[str]
    sasrec: Mapping[str, np.ndarray]
    manifest: Mapping[str, Any]


def check_output(out: Path) -> None:
    """Make sure that `out` may be written: nothing is there, or a packed dataset and nothing else.

    Raises:
        InputError: something else is there, or the folder around it cannot be written to.
    """
    if out.exists() and not _is_replaceable(out):
        raise InputError(
            f"{out}: exists and is not a packed dataset; move it away or give another --out"
        )
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"{out}: cannot be written, for {parent} is not a writable folder")


def _is_replaceable(out: Path) -> bool:
    if not out.is_dir():
        return False
    names = {path.name for path in out.iterdir()}
    if not names:
        return True
    try:
        manifest = json.loads((out / _MANIFEST).read_text("utf-8"))
        return "format_version" in manifest and names <= {_MANIFEST, *manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_dataset(out: Path, contents: PackedContents) -> None:
    """Write the folder `out`, in place of a packed dataset that may be there.

    Raises:
        ValueError: the arrays are not those of `jaxsim.ARRAY_SCHEMA`.
        OSError: the disk is full, or the like; nothing is left behind, and the old dataset stays.
    """
    _check_schema(contents.arrays)
    with _staged_folder(out) as folder:
        _write_tensors(folder / "arrays.safetensors", contents.arrays)
        _write_tensors(folder / "sasrec.safetensors", contents.sasrec)
        _write_table(folder / "items.parquet", contents.items)
        _write_table(folder / "users.parquet", contents.users)
        _write_json(folder / "keywords.json", contents.keywords)
        _write_json(folder / "categories.json", contents.categories)
        files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        manifest = {"format_version": FORMAT_VERSION, **contents.manifest, "files": files}
        _write_json(folder / _MANIFEST, manifest)


def _check_schema(arrays: Mapping[str, np.ndarray]) -> None:
    found = {name: (array.dtype, array.ndim) for name, array in arrays.items()}
    wanted = {name: (np.dtype(dtype), ndim) for name, (dtype, ndim) in ARRAY_SCHEMA.items()}
    if found != wanted:
        raise ValueError(f"arrays to pack are {found}, but the format has {wanted}")


def _write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # Not save_file, which makes the file readable for its owner alone.
    path.write_bytes(save({name: np.asarray(array, order="C") for name, array in arrays.items()}))


def _write_table(path: Path, table: pd.DataFrame) -> None:
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def _staged_folder(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside `out` that takes its name when the block ends well."""
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
    finally:
        shutil.rmtree(staging, ignore_errors=True)
