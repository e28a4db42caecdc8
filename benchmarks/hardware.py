"""What the device can do at best, measured on the device itself: copy and read bandwidth, matrix products.

Every figure is the median of several runs of one compiled program. The program reuses memory, because on fresh
memory a CPU spends most of its time on page faults.
"""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass

import jax
import jax.numpy as jnp
from jax.extend.backend import clear_backends

from jaxsim import InputError

# Far larger than any cache. The best size counts, because other users of a shared machine slow some of them down.
# On a GPU smaller arrays take no longer than starting the program.
_ARRAY_BYTES = {"cpu": (128 << 20, 256 << 20, 512 << 20), "other": (1 << 30, 4 << 30)}
_MATRIX_SIZES = {"cpu": (1024, 2048), "other": (4096, 8192)}


@dataclass(frozen=True)
class Timing:
    """Median and quartiles of several runs, in seconds or steps per second."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Timing":
        """Summary of one or more runs."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Device:
    """What the default device does at best.

    Attributes:
        copy: bytes per second of copying a large array; bytes read and bytes written both count.
        read: bytes per second of summing a large array.
        matmul: floating-point operations per second of a float32 matrix product at full precision.
    """

    copy: float
    read: float
    matmul: float

    def better(self, other: "Device") -> "Device":
        """The best of both: other programs on a shared machine can only make it slower."""
        return Device(*map(max, astuple(self), astuple(other)))


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time of one run until its result is ready."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def repeated(run: Callable[[], object], repeats: int) -> Timing:
    """Time a run several times, after one that does not count."""
    jax.block_until_ready(run())
    return Timing.of([seconds_of(run) for _ in range(repeats)])


def measure_device(repeats: int) -> Device:
    """Measure the default device."""
    kind = "cpu" if jax.default_backend() == "cpu" else "other"
    return Device(
        copy=max(copy_bandwidth(size, repeats) for size in _ARRAY_BYTES[kind]),
        read=max(read_bandwidth(size, repeats) for size in _ARRAY_BYTES[kind]),
        matmul=max(matmul_rate(size, repeats) for size in _MATRIX_SIZES[kind]),
    )


def copy_bandwidth(size: int, repeats: int) -> float:
    """Bytes per second, read and written, of copying an array of `size` bytes over another one."""

    def copy(target: jax.Array, source: jax.Array) -> jax.Array:
        return source + 1  # XLA could leave out a plain copy

    # The result is written to the memory of `target`, which is in use already.
    compiled = jax.jit(copy, donate_argnums=0, keep_unused=True)
    source = jnp.zeros(size // 4, jnp.float32)
    latest = [jnp.ones_like(source)]

    def run() -> jax.Array:
        latest.append(compiled(latest.pop(), source))
        return latest[0]

    return 2 * source.nbytes / repeated(run, repeats).median


def read_bandwidth(size: int, repeats: int) -> float:
    """Bytes read per second of summing an array of `size` bytes."""
    source = jnp.zeros(size // 4, jnp.float32)
    compiled = jax.jit(jnp.sum)
    return source.nbytes / repeated(lambda: compiled(source), repeats).median


def matmul_rate(size: int, repeats: int) -> float:
    """Operations per second of a product of float32 matrices [size, size] at `Precision.HIGHEST`."""
    matrix = jax.random.uniform(jax.random.key(0), (size, size), jnp.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    return 2 * size**3 / repeated(lambda: product(matrix, matrix), repeats).median


def use_cores(devices: int) -> int:
    """Give JAX more than one CPU device if that is asked for. All arrays that were made before are lost then.

    Args:
        devices: how many are wanted; 0 for one, or on a CPU one for each core that this process may use.

    Returns:
        How many devices to use.

    Raises:
        InputError: there are not so many devices, and they are no CPU devices.
    """
    on_cpu = jax.default_backend() == "cpu"
    wanted = devices or (_cores() if on_cpu else 1)
    if wanted > jax.device_count():
        if not on_cpu:
            raise InputError(f"--devices {wanted}: JAX has {jax.device_count()} here")
        clear_backends()  # importing gymnax has started the CPU with one device
        jax.config.update("jax_num_cpu_devices", wanted)
    return wanted


def _cores() -> int:
    """How many cores this process may use; all of the machine where the system does not say."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def device_name() -> str:
    """The default device and the number of CPU cores."""
    device = jax.devices()[0]
    kind = "" if device.device_kind == device.platform else f"{device.device_kind}, "
    return f"{device.platform}: {kind}{os.cpu_count()} CPU cores"


def program_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Bytes of a compiled program: arguments, results and scratch; None where XLA does not report them."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    needed = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    return int(needed + analysis.temp_size_in_bytes - analysis.alias_size_in_bytes)


def device_memory() -> int:
    """Bytes of memory of the default device; for a CPU, of the machine."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_device_bytes() -> int | None:
    """Peak bytes of this process on the default device; None where the device does not count them."""
    stats = jax.devices()[0].memory_stats()
    return int(stats["peak_bytes_in_use"]) if stats and "peak_bytes_in_use" in stats else None


def peak_process_bytes() -> int:
    """Peak bytes of this process in main memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
