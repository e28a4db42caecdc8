"""A packed dataset: the folder that `prep` writes and the simulator reads.

The folder holds arrays and weights as safetensors files, names as Parquet and JSON, and a manifest with the
SHA-256 of every other file. Loading checks the format version, the digests, and that every index is in range,
because on a device a gather out of range gives no error.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import platformdirs
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jaxsim.errors import InputError
from jaxsim.hub import download, is_on_hub

FORMAT_VERSION = 1

# name -> (dtype, number of dimensions); the meaning of each is in `Dataset`.
ARRAY_SCHEMA: dict[str, tuple[type, int]] = {
    "item_categories": (np.int32, 2),
    "item_pos_keywords": (np.int32, 2),
    "item_neg_keywords": (np.int32, 2),
    "item_pos_embedding": (np.float32, 2),
    "item_neg_embedding": (np.float32, 2),
    "user_offsets": (np.int64, 1),
    "interaction_item": (np.int32, 1),
    "interaction_label": (np.int8, 1),
    "interaction_rating": (np.float32, 1),
    "interaction_time": (np.int64, 1),
    "interaction_split": (np.int8, 1),
}
PACKED_FILES = (
    "arrays.safetensors",
    "sasrec.safetensors",
    "items.parquet",
    "users.parquet",
    "keywords.json",
    "categories.json",
)
# Not in datasets of earlier versions; some of them neither where the data does not show what they hold.
TASTE_FILE, EXPOSURE_FILE = "taste.safetensors", "exposure.safetensors"
SIGNALS_FILE, DEPARTURE_FILE = "signals.safetensors", "departure.safetensors"
VISITS_FILE = "visits.safetensors"
TRAIN, VALIDATION, TEST = 0, 1, 2
MIN_INTERACTIONS = 5  # users with fewer have only training interactions and start no session
HELD_OUT_MODULUS, HELD_OUT_REMAINDER = 10, 9


@dataclass(frozen=True)
class Dataset:
    """A packed dataset in host memory.

    N items, U users, M interactions; K, L and C are padded widths, D the width of the text encoder.

    Attributes:
        path: the folder that it was read from.
        manifest: settings, sources, counts and digests, as `prep` wrote them.
        arrays: the arrays of `ARRAY_SCHEMA`:
            item_categories int32[N, C], item_pos_keywords int32[N, K], item_neg_keywords int32[N, L]
            (ascending, -1 pads); item_pos_embedding, item_neg_embedding float32[N, D] (unit length, or zero
            if an item has no keyword); user_offsets int64[U + 1] into interaction_item int32[M],
            interaction_label int8[M] (1 like, 0 dislike), interaction_rating float32[M],
            interaction_time int64[M] (seconds), interaction_split int8[M] (0 train, 1 validation, 2 test).
        sasrec: weights of the statistic model by flat name.
        items: one row for each item in index order: item_id, name, categories, ...
        users: one row for each user in index order: user_id, ...
        keywords, categories: the words of the indices.
        taste: arrays of the taste model: item_effect float32[N], item_year float32[N] (NaN if an item has none),
            covariance_factors float32[N, R]. None in datasets of earlier versions.
        exposure: arrays of the exposure model: item_popularity float32[N], user_activity float32[U],
            cooccurrence_factors float32[N, R]. None in datasets of earlier versions, and in those with too few
            interactions to fit it.
        signals: arrays of the models of ratings and durations (`jaxsim.signals`), where the dataset has them:
            item_rating float32[N], item_log_duration float32[N], and interaction_duration float32[M] (NaN if one
            is missing). None in datasets of earlier versions.
        departure: arrays of the fitted departure (`jaxsim.departure.DepartureModel`): position_log_odds
            float32[P], item_obscurity float32[N], item_rate float32[N]. None where there is none.
        visits: arrays of the fitted returns (`jaxsim.visits.VisitModel`): item_rate float32[N], user_sessions
            int32[U]. None where there are none.
    """

    path: Path
    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(repr=False)
    sasrec: dict[str, np.ndarray] = field(repr=False)
    items: pd.DataFrame = field(repr=False)
    users: pd.DataFrame = field(repr=False)
    keywords: list[str] = field(repr=False)
    categories: list[str] = field(repr=False)
    taste: dict[str, np.ndarray] | None = field(repr=False, default=None)
    exposure: dict[str, np.ndarray] | None = field(repr=False, default=None)
    signals: dict[str, np.ndarray] | None = field(repr=False, default=None)
    departure: dict[str, np.ndarray] | None = field(repr=False, default=None)
    visits: dict[str, np.ndarray] | None = field(repr=False, default=None)

    @property
    def name(self) -> str:
        """The dataset's name, such as "ml-100k"."""
        return str(self.manifest["dataset"])

    @property
    def duration_unit(self) -> str | None:
        """The unit of durations, "seconds", "minutes" or "hours"; None if the dataset has none."""
        entry = self.manifest.get("signals", {}).get("duration")
        return None if entry is None else str(entry["unit"])

    @property
    def num_items(self) -> int:
        """N, the number of items."""
        return len(self.arrays["item_categories"])

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.arrays["user_offsets"]) - 1

    def item_name(self, item: int) -> str:
        """An item's name, or its id if it has no name."""
        row = self.items.iloc[item]
        name = row.get("name")
        return str(row["item_id"] if name is None or pd.isna(name) or name == "" else name)

    def item_names(self) -> dict[int, str]:
        """Each item's name, or its id if it has no name."""
        return {item: self.item_name(item) for item in range(self.num_items)}

    def interaction_user(self) -> np.ndarray:
        """The user of each interaction, int32[M]."""
        counts = np.diff(self.arrays["user_offsets"])
        return np.repeat(np.arange(self.num_users, dtype=np.int32), counts)

    def session_users(self, users: str) -> np.ndarray:
        """The users of a group who may start a session: those with at least five interactions.

        Args:
            users: "train" (agents learn on their sessions), "held_out" (index 9 modulo 10) or "all".

        Returns:
            Ascending user indices, int32[S].

        Raises:
            InputError: another group.
        """
        eligible = np.diff(self.arrays["user_offsets"]) >= MIN_INTERACTIONS
        held_out = np.arange(self.num_users) % HELD_OUT_MODULUS == HELD_OUT_REMAINDER
        groups = {"train": eligible & ~held_out, "held_out": eligible & held_out, "all": eligible}
        if users not in groups:
            raise InputError(f"users={users!r} is not one of {', '.join(groups)}")
        return np.flatnonzero(groups[users]).astype(np.int32)


def cache_dir() -> Path:
    """The folder for raw files and packed datasets: `$JAXSIM_CACHE_DIR`, or the user's cache folder."""
    override = os.environ.get("JAXSIM_CACHE_DIR")
    return Path(override) if override else platformdirs.user_cache_path("jaxsim")


def dataset_path(name: str) -> Path:
    """The folder that `prep build NAME` writes and `load_dataset(NAME)` reads."""
    return cache_dir() / "datasets" / name


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_dataset(name_or_path: str | os.PathLike[str]) -> Dataset:
    """Read and verify a packed dataset.

    Args:
        name_or_path: a name that `python -m prep build NAME` has built, the path of a packed folder, or
            "hf:OWNER/NAME" for a repository of the Hugging Face hub (`jaxsim.hub`).

    Raises:
        InputError: there is no packed dataset, it has another format version, or a file is missing, damaged or
            inconsistent.
    """
    folder = find_dataset(name_or_path)
    manifest = read_manifest(folder)
    for name, digest in manifest["files"].items():
        _verify(folder, name, digest)
    arrays = _read_tensors(folder / "arrays.safetensors")
    dataset = Dataset(
        path=folder,
        manifest=manifest,
        arrays=arrays,
        sasrec=_read_tensors(folder / "sasrec.safetensors"),
        items=pd.read_parquet(folder / "items.parquet"),
        users=pd.read_parquet(folder / "users.parquet"),
        keywords=json.loads((folder / "keywords.json").read_text("utf-8")),
        categories=json.loads((folder / "categories.json").read_text("utf-8")),
        taste=_read_optional(folder, manifest, TASTE_FILE),
        exposure=_read_optional(folder, manifest, EXPOSURE_FILE),
        signals=_read_optional(folder, manifest, SIGNALS_FILE),
        departure=_read_optional(folder, manifest, DEPARTURE_FILE),
        visits=_read_optional(folder, manifest, VISITS_FILE),
    )
    _check_arrays(dataset)
    return dataset


def find_dataset(name_or_path: str | os.PathLike[str]) -> Path:
    """The folder of a packed dataset; arguments and errors as in `load_dataset`, but nothing is verified."""
    if is_on_hub(os.fspath(name_or_path)):
        return download(os.fspath(name_or_path))
    named = dataset_path(os.fspath(name_or_path))
    is_name = os.sep not in os.fspath(name_or_path)
    for folder in [named, Path(name_or_path)] if is_name else [Path(name_or_path)]:
        if (folder / "manifest.json").is_file():
            return folder
    if is_name:
        name = os.fspath(name_or_path)
        build = f"{name.removesuffix('-loo')} --split loo" if name.endswith("-loo") else name
        build = re.sub(r"^(\S+)-(\d+)-users", r"\1 --limit-users \2", build)
        build = re.sub(r"^(amazon-\w+)-(\d{4})(?=\s|$)", r"\1 --release \2", build)
        raise InputError(
            f"no packed dataset named {name!r} in {named.parent}: "
            f"run `python -m prep build {build}`, or give the path of a packed folder"
        )
    raise InputError(f"{name_or_path}: not a packed dataset (it has no manifest.json)")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a packed folder; errors as in `load_dataset`."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(
            f"{path}: not readable as JSON ({error}); build the dataset again"
        ) from None
    if not isinstance(manifest, dict) or "format_version" not in manifest:
        raise InputError(f"{path}: no format_version; build the dataset again")
    if manifest["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{path}: format_version {manifest['format_version']}, but this jaxsim reads {FORMAT_VERSION}; "
            "build the dataset again"
        )
    for name, kind in (("files", dict), ("sasrec", dict), ("dataset", str)):
        if not isinstance(manifest.get(name), kind):
            raise InputError(f"{path}: no usable entry {name!r}; build the dataset again")
    missing = [name for name in PACKED_FILES if name not in manifest["files"]]
    if missing:
        raise InputError(f"{path}: lists no {', '.join(missing)}; build the dataset again")
    return manifest


def _verify(folder: Path, name: str, digest: str) -> None:
    path = folder / name
    if not path.is_file():
        raise InputError(f"{path}: missing, though the manifest lists it; build the dataset again")
    if sha256_of(path) != digest:
        raise InputError(
            f"{path}: damaged (its SHA-256 is not the manifest's); build the dataset again"
        )


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"{path}: not a safetensors file ({error}); build the dataset again"
        ) from None


def _read_optional(
    folder: Path, manifest: Mapping[str, Any], name: str
) -> dict[str, np.ndarray] | None:
    """The tensors of a file that not every dataset has; None without it."""
    return _read_tensors(folder / name) if name in manifest["files"] else None


def _check_arrays(dataset: Dataset) -> None:
    arrays, path = dataset.arrays, dataset.path / "arrays.safetensors"
    for name, (dtype, ndim) in ARRAY_SCHEMA.items():
        if name not in arrays:
            raise InputError(f"{path}: no array {name}; build the dataset again")
        if arrays[name].dtype != dtype or arrays[name].ndim != ndim:
            raise InputError(f"{path}: {name} is not {np.dtype(dtype).name} of {ndim} dimensions")
    num_items, num_interactions = dataset.num_items, len(arrays["interaction_item"])
    if num_interactions == 0:
        raise InputError(f"{path}: no interactions; build the dataset again")
    for name, upper in (
        ("item_categories", len(dataset.categories)),
        ("item_pos_keywords", len(dataset.keywords)),
        ("item_neg_keywords", len(dataset.keywords)),
        ("interaction_label", 2),
        ("interaction_split", 3),
        ("interaction_item", num_items),
    ):
        lower = -1 if name.startswith("item_") else 0
        if arrays[name].size and not lower <= arrays[name].min() <= arrays[name].max() < upper:
            raise InputError(f"{path}: {name} has a value outside [{lower}, {upper})")
    for name in ARRAY_SCHEMA:
        if name.startswith("item_") and len(arrays[name]) != num_items:
            raise InputError(f"{path}: {name} has {len(arrays[name])} rows for {num_items} items")
        if name.startswith("interaction_") and len(arrays[name]) != num_interactions:
            raise InputError(f"{path}: {name} has another length than interaction_item")
    offsets = arrays["user_offsets"]
    if (
        len(offsets) == 0
        or offsets[0] != 0
        or offsets[-1] != num_interactions
        or (np.diff(offsets) < 0).any()
    ):
        raise InputError(f"{path}: user_offsets does not partition the interactions")
    if len(dataset.items) != num_items or len(dataset.users) != dataset.num_users:
        raise InputError(
            f"{dataset.path}: items.parquet or users.parquet has another number of rows"
        )
    if not all(np.isfinite(arrays[f"item_{side}_embedding"]).all() for side in ("pos", "neg")):
        raise InputError(f"{path}: an embedding is not finite")
