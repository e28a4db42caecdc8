"""Compiled programs that are kept on disk, so that the next start need not compile them again.

The command lines of this project keep them by default; a program that imports `jaxsim` does so only if it calls
`use_compilation_cache`. This is JAX's persistent compilation cache. Its keys hold the program, the versions of JAX
and XLA, XLA's flags and the kind of device. They do not hold all that code for a CPU depends on: code compiled for
another CPU may end the process. So each kind of CPU has a folder of its own.

Results do not depend on the cache: what is read is what was compiled.
"""

import hashlib
import os
import platform
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.monitoring
from filelock import FileLock, Timeout
from jax.experimental.compilation_cache import compilation_cache

from jaxsim.dataset import cache_dir
from jaxsim.errors import InputError

SWITCH = "JAXSIM_COMPILATION_CACHE"
"""Environment variable: "off" switches the cache off, "on" is the default."""
MAX_BYTES = 1 << 29
"""Size of a folder; the programs that were not used for longest are removed."""
MIN_COMPILE_SECONDS = 0.1
"""Programs that compile faster are not kept: there are many, and each takes time to write."""

_SETTINGS = {
    "jax_compilation_cache_max_size": MAX_BYTES,
    "jax_persistent_cache_min_compile_time_secs": MIN_COMPILE_SECONDS,
}
# The lock and the endings that JAX gives its files. A size limit makes JAX take the lock for every read and write,
# so that several processes can share a folder.
_LOCK, _PROGRAM, _USED = ".lockfile", "-cache", "-atime"
_LOCK_SECONDS = 1.0
_CPU_INFO = Path("/proc/cpuinfo")
# What LLVM compiles for. Other lines of the file differ between the cores of one machine, and from time to time.
_CPU_FIELDS = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU implementer", "CPU architecture",
    "CPU variant", "CPU part", "Features", "isa", "cpu",
)  # fmt: skip

_events: Counter[tuple[int, str]] = Counter()  # by thread: programs may be compiled side by side
_HIT = "/jax/compilation_cache/cache_hits"


def use_compilation_cache() -> Path | None:
    """Keep compiled programs in the project's cache folder, from now on in this process.

    Call it before the first computation. Settings of JAX's own cache go first: with `JAX_COMPILATION_CACHE_DIR`
    JAX keeps programs there, and nothing is changed; environment variables such as
    `JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS` are kept, too.

    Returns:
        The folder; None if programs are not kept there, because the environment variable `SWITCH` or JAX's own
        settings say so, or because the folder cannot be used, which a line on standard error says.

    Raises:
        InputError: `SWITCH` is neither "on" nor "off".
    """
    if not _events:
        _events[0, "listening"] = 1
        jax.monitoring.register_event_listener(
            lambda event, **_: _events.update([(threading.get_ident(), event)])
        )
    switch = os.environ.get(SWITCH) or "on"
    if switch not in ("on", "off"):
        raise InputError(f"{SWITCH} is {switch!r}: give on or off")
    config = jax.config
    has_own = config.values["jax_compilation_cache_dir"] is not None
    if switch == "off" or has_own or not config.values["jax_enable_compilation_cache"]:
        return None
    folder = cache_dir().absolute() / "compiled" / machine_name()
    try:
        _open(folder)
    except OSError as error:
        print(
            f"warning: {folder}: compiled programs cannot be kept here ({error.strerror or error}); set "
            f"JAXSIM_CACHE_DIR to a folder of your own, or {SWITCH}=off",
            file=sys.stderr,
        )
        return None
    for name, value in _SETTINGS.items():
        if name.upper() not in os.environ:
            config.update(name, value)
    config.update("jax_compilation_cache_dir", str(folder))
    # JAX goes on without a program that it cannot read or write, or that is larger than the folder may be. It says
    # so in two lines with a path of its own.
    for message in ("Error (reading|writing) persistent compilation cache", "Cache value for key"):
        warnings.filterwarnings("ignore", message)
    return folder


def programs_read() -> int:
    """How many programs this thread has read from a cache since `use_compilation_cache` was called."""
    return _events[threading.get_ident(), _HIT]


@contextmanager
def compiled_anew() -> Iterator[None]:
    """Compile everything in the block, whatever the cache holds: for what measures the time of compilation."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()


def machine_name() -> str:
    """The name of the folder: system, processor, and a digest of what compiled code depends on.

    That is the processor's model and instructions, and the number of cores, among which XLA divides loops.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [platform.system(), platform.machine()]
    described = "\n".join([*parts, platform.processor(), f"{cores} cores", _describe_cpu()])
    digest = hashlib.sha256(described.encode()).hexdigest()[:12]
    return re.sub(r"[^\w-]+", "-", "-".join([*parts, digest]).lower())


def _describe_cpu() -> str:
    """Model and instructions of the first processor; empty where the system has no such file."""
    if not _CPU_INFO.is_file():
        return ""
    first, _, _ = _CPU_INFO.read_text("utf-8", errors="replace").strip().partition("\n\n")
    lines = (line.partition(":") for line in first.splitlines())
    return "\n".join(f"{name.strip()}:{x}" for name, _, x in lines if name.strip() in _CPU_FIELDS)


def _open(folder: Path) -> None:
    """Create a folder, or make sure that it can be used, and remove what an interrupted process left in it.

    Raises:
        OSError: it cannot be written, or belongs to somebody else, whose programs are not to be run.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise PermissionError("it belongs to another user")
    try:
        with FileLock(folder / _LOCK, timeout=_LOCK_SECONDS):
            _remove_unfinished(folder)
    except Timeout:  # another process writes at this moment: it has opened the folder
        return
    except NotImplementedError as error:  # a file system without locks
        raise OSError(str(error)) from None


def _remove_unfinished(folder: Path) -> None:
    """Remove programs that were not written to their end.

    JAX writes a program and then the time of its use. It never replaces a program, and without the time it could
    remove none.
    """
    for program in folder.glob(f"*{_PROGRAM}"):
        used = program.with_name(program.name.removesuffix(_PROGRAM) + _USED)
        if not used.is_file() or used.stat().st_size == 0:
            program.unlink()
            used.unlink(missing_ok=True)
