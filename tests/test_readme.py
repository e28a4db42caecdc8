"""What the README says of commands and files holds; tests/test_movielens.py runs its code."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_commands_of_the_readme_exist():
    for program, command in {
        ("prep", "build"),
        ("prep", "annotate"),
        ("prep", "convert"),
        ("benchmarks", "table1"),
        ("benchmarks", "convert"),
        ("benchmarks", "throughput"),
        ("agents", "train dqn"),
        ("agents", "evaluate"),
        ("benchmarks", "fidelity"),
    }:
        assert f"python -m {program} {command}" in _readme()
        done = subprocess.run(
            [sys.executable, "-m", program, *command.split(), "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        assert f"usage: python -m {program} {command}" in done.stdout


def test_files_that_the_readme_names_exist():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"\]\(((?!http)[^)]+)\)", page.read_text("utf-8")):
            assert (page.parent / name).exists(), f"{page}: {name}"
    for name in re.findall(r"docs/\w+\.md", _readme()):
        assert (ROOT / name).exists(), name


def test_every_output_is_filled_in():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search("[A-Z]+_(OUTPUT|TIME|NUMBERS)", path.read_text("utf-8")), path


def _readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")
