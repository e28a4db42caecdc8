"""What the device can do at best, measured on the device itself: copy and read bandwidth, matrix products.

Every figure is the median of several runs of one compiled program whose memory is already in use: on fresh
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

# Far above any cache; the best of them counts, for a shared machine disturbs some.
# On a GPU smaller ones take no longer than starting the program.
_ARRAY_BYTES = {"cpu": (128 << 20, 256 << 20, 512 << 20), "other": (1 << 30, 4 << 30)}
_MATRIX_SIZES = {"cpu": (1024, 2048), "other": (4096, 8192)}


@dataclass(frozen=True)
class Timing:
    """Seconds of several runs: their median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Timing":
        """Summary of one or more runs."""
        if len(seconds) == 1:
            return cls(seconds[0], seconds[0], seconds[0])
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Device:
    """What the default device does at best.

    Attributes:
        copy: bytes a second, read and written ones both counted, of copying a large array.
        read: bytes a second of adding up a large array.
        matmul: floating-point operations a second of a float32 matrix product at full precision.
    """

    copy: float
    read: float
    matmul: float

    def better(self, other: "Device") -> "Device":
        """The best of both: others on a shared machine only ever take away."""
        return Device(*map(max, astuple(self), astuple(other)))


def seconds_of(run: Callable[[], object]) -> float:
    """Wall time of one run, until its result is there."""
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
    """Copy an array of `size` bytes over another one that the program is given: bytes a second, both ways."""

    def copy(target: jax.Array, source: jax.Array) -> jax.Array:
        return source + 1  # a mere copy could be left out

    # The result takes the place of `target`, whose memory has been touched before.
    compiled = jax.jit(copy, donate_argnums=0, keep_unused=True)
    source = jnp.zeros(size // 4, jnp.float32)
    holder = [jnp.ones_like(source)]

    def run() -> jax.Array:
        holder.append(compiled(holder.pop(), source))
        return holder[0]

    return 2 * source.nbytes / repeated(run, repeats).median


def read_bandwidth(size: int, repeats: int) -> float:
    """Add up an array of `size` bytes: bytes read a second."""
    source = jnp.zeros(size // 4, jnp.float32)
    compiled = jax.jit(jnp.sum)
    return source.nbytes / repeated(lambda: compiled(source), repeats).median


def matmul_rate(size: int, repeats: int) -> float:
    """Multiply two float32 matrices of `size` rows and columns at `Precision.HIGHEST`: operations a second."""
    matrix = jax.random.uniform(jax.random.key(0), (size, size), jnp.float32)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    return 2 * size**3 / repeated(lambda: product(matrix, matrix), repeats).median


def device_name() -> str:
    """The default device and the processor cores beside it."""
    device = jax.devices()[0]
    kind = "" if device.device_kind == device.platform else f"{device.device_kind}, "
    return f"{device.platform}: {kind}{os.cpu_count()} CPU cores"


def program_bytes(compiled: jax.stages.Compiled) -> int | None:
    """Memory of a compiled program: arguments, results and scratch; None where XLA does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    needed = analysis.argument_size_in_bytes + analysis.output_size_in_bytes
    return int(needed + analysis.temp_size_in_bytes - analysis.alias_size_in_bytes)


def device_memory() -> int:
    """Bytes that the default device can hold; of a CPU, the machine's memory."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_device_bytes() -> int | None:
    """Most bytes that this process ever held on the default device; None where the device does not count them."""
    stats = jax.devices()[0].memory_stats()
    return int(stats["peak_bytes_in_use"]) if stats and "peak_bytes_in_use" in stats else None


def peak_process_bytes() -> int:
    """Most bytes of main memory that this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device refused memory."""
    return "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)
