"""Where the tests find files."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Real data beside a checkout; tests that need it are skipped without it.
DATA = ROOT.parent / "shared" / "data"
SAMPLES = DATA / "samples"
ANIME = DATA / "anime"
# Recorded measurements are in the repository; a source distribution is made without them.
RESULTS = ROOT / "benchmarks" / "results"
needs_results = pytest.mark.skipif(
    not RESULTS.is_dir(), reason="benchmarks/results is not in a source distribution"
)
