"""The tests, and what must be set before any of them imports JAX."""

import os

# Most programs run for less than a second: compiling them without optimisation is faster. Subprocesses inherit it.
_LEVEL = "--xla_backend_optimization_level"
_FLAGS = os.environ.get("XLA_FLAGS", "")
# Nor are their programs kept in the cache of the person who runs the tests.
os.environ.setdefault("JAXSIM_COMPILATION_CACHE", "off")
if _LEVEL not in _FLAGS:
    os.environ["XLA_FLAGS"] = f"{_FLAGS} {_LEVEL}=0".strip()
