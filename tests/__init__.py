"""The tests, and what must be set before any of them imports JAX."""

import os

# Most of what they run is compiled for a second of work: not worth optimising. Their subprocesses inherit it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
