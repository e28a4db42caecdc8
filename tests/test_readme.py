"""What the README says of commands and files holds; tests/test_movielens.py runs its code."""

import re
import runpy

import pytest

from tests.paths import ROOT


@pytest.mark.parametrize(
    "command",
    [
        "prep build",
        "prep annotate",
        "prep convert",
        "benchmarks table1",
        "benchmarks convert",
        "benchmarks throughput",
        "benchmarks agreement",
        "agents train dqn",
        "agents evaluate",
        "agents compare",
        "benchmarks table2",
        "benchmarks training",
        "benchmarks search",
        "benchmarks fidelity",
    ],
)
def test_the_commands_of_the_readme_exist(command, monkeypatch, capsys):
    """What `python -m` runs, in this process: to load the libraries anew for each takes seconds."""
    assert f"python -m {command}" in _readme()
    program, *words = command.split()
    monkeypatch.setattr("sys.argv", [program, *words, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / program / "__main__.py"), run_name="__main__")
    assert end.value.code == 0
    assert f"usage: python -m {command}" in capsys.readouterr().out


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
