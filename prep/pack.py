"""The packed dataset on disk: what `jaxsim.load_dataset` reads, written whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import save_file

from jaxsim import InputError
from jaxsim.dataset import ARRAY_SCHEMA, FORMAT_VERSION, sha256_of
from jaxsim.files import check_writable, staged_folder

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PackedContents:
    """Everything that goes into the folder, but for what follows from it.

    Attributes:
        arrays: the arrays of `jaxsim.dataset.ARRAY_SCHEMA`, with those dtypes and numbers of dimensions.
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
    check_writable(out)


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
        ValueError: the arrays are not those of `jaxsim.dataset.ARRAY_SCHEMA`.
        OSError: the disk is full, or the like; nothing is left behind, and the old dataset stays.
    """
    _check_schema(contents.arrays)
    with staged_folder(out) as folder:
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
    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)
    except SafetensorError as error:  # a full disk, say
        raise OSError(None, str(error), str(path)) from None
    path.chmod(0o644)  # save_file makes it readable for its owner alone


def _write_table(path: Path, table: pd.DataFrame) -> None:
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
