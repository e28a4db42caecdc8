"""The tests, and what must be set before any of them imports JAX."""

import os

# Most programs run for less than a second: compiling them without optimisation is faster. Subprocesses inherit it.
_LEVEL = "--xla_backend_optimization_level"
_FLAGS = os.environ.get("XLA_FLAGS", "")
if _LEVEL not in _FLAGS:
    os.environ["XLA_FLAGS"] = f"{_FLAGS} {_LEVEL}=0".strip()
