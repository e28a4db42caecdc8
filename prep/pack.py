"""The packed dataset on disk: what `jaxsim.load_dataset` reads, written whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import save_file

from jaxsim import InputError
from jaxsim.dataset import (
    ARRAY_SCHEMA,
    DEPARTURE_FILE,
    EXPOSURE_FILE,
    FORMAT_VERSION,
    SIGNALS_FILE,
    TASTE_FILE,
    VISITS_FILE,
    sha256_of,
)
from jaxsim.files import check_writable, staged_folder

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PackedContents:
    """Everything that goes into the folder, except digests.

    Attributes:
        arrays: the arrays of `jaxsim.dataset.ARRAY_SCHEMA`, with those dtypes and numbers of dimensions.
        items, users: one row for each item or user, in index order.
        keywords, categories: the words that the indices refer to.
        sasrec: flat name -> weight of the statistic model.
        taste: the arrays of the taste model.
        manifest: the manifest without `format_version` and `files`.
        exposure: the arrays of the exposure model; None if there are too few interactions to fit it.
        signals: the arrays of the models of ratings and durations; empty if there are none.
        departure: the arrays of the fitted departure; None where the logs do not show when users leave.
        visits: the arrays of the fitted returns; None where the logs do not show whether users return.
    """

    arrays: Mapping[str, np.ndarray]
    items: pd.DataFrame
    users: pd.DataFrame
    keywords: list[str]
    categories: list[str]
    sasrec: Mapping[str, np.ndarray]
    taste: Mapping[str, np.ndarray]
    manifest: Mapping[str, Any]
    exposure: Mapping[str, np.ndarray] | None = None
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    departure: Mapping[str, np.ndarray] | None = None
    visits: Mapping[str, np.ndarray] | None = None


def check_output(out: Path) -> None:
    """Make sure that `out` may be written: it does not exist, is empty, or holds only a packed dataset.

    Raises:
        InputError: it holds something else, or the folder above it is not writable.
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
    """Write the folder `out`, whole or not at all; it replaces a packed dataset of the same name.

    Raises:
        ValueError: the arrays are not those of `jaxsim.dataset.ARRAY_SCHEMA`.
        OSError: such as a full disk; no partial folder remains, and the old dataset stays.
    """
    _check_schema(contents.arrays)
    with staged_folder(out) as folder:
        _write_tensors(folder / "arrays.safetensors", contents.arrays)
        _write_tensors(folder / "sasrec.safetensors", contents.sasrec)
        _write_tensors(folder / TASTE_FILE, contents.taste)
        if contents.exposure is not None:
            _write_tensors(folder / EXPOSURE_FILE, contents.exposure)
        if contents.signals:
            _write_tensors(folder / SIGNALS_FILE, contents.signals)
        if contents.departure is not None:
            _write_tensors(folder / DEPARTURE_FILE, contents.departure)
        if contents.visits is not None:
            _write_tensors(folder / VISITS_FILE, contents.visits)
        _write_table(folder / "items.parquet", contents.items)
        _write_table(folder / "users.parquet", contents.users)
        _write_json(folder / "keywords.json", contents.keywords)
        _write_json(folder / "categories.json", contents.categories)
        files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
        manifest = {"format_version": FORMAT_VERSION, **contents.manifest, "files": files}
        _write_json(folder / _MANIFEST, manifest)


def _check_schema(arrays: Mapping[str, np.ndarray]) -> None:
    given = {name: (array.dtype, array.ndim) for name, array in arrays.items()}
    expected = {name: (np.dtype(dtype), ndim) for name, (dtype, ndim) in ARRAY_SCHEMA.items()}
    if given != expected:
        raise ValueError(f"arrays to pack are {given}, but the format has {expected}")


def _write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)
    except SafetensorError as error:  # such as a full disk
        raise OSError(None, str(error), str(path)) from None
    path.chmod(0o644)  # save_file makes it readable only for its owner


def _write_table(path: Path, table: pd.DataFrame) -> None:
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
