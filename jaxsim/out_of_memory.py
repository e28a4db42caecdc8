"""One line for a device that has no memory left, in place of a traceback of the compiler's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from jaxsim.errors import InputError

# "... Out of memory allocating 12345 bytes", "... trying to allocate 12.5GiB": what one array or program needs.
_ASKED = re.compile(r"allocat\w+ ([\d.]+ ?\w+)")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the machine or a device has no memory left."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    is_device = isinstance(error, jax.errors.JaxRuntimeError)
    return is_device and ("RESOURCE_EXHAUSTED" in text or "Out of memory" in text)


def describe_out_of_memory(error: BaseException) -> str:
    """What happened, as the beginning of a line: the device, and what it was asked for."""
    asked = _ASKED.search(str(error))
    need = f" (it was asked for {asked[1]} more)" if asked else ""
    return f"no memory is left on {jax.default_backend()}{need}"


@contextmanager
def advice_if_out_of_memory(advice: str) -> Iterator[None]:
    """Turn such an error of the block into one line that ends with an advice.

    Raises:
        InputError: the block ran out of memory.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"{describe_out_of_memory(error)}: {advice}") from None
