"""Where the tests find files."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
# Real data beside a checkout; tests that need it are skipped without it.
DATA = ROOT.parent / "shared" / "data"
SAMPLES = DATA / "samples"
ANIME = DATA / "anime"
