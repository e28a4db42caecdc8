"""The README's code runs on the real data, and its promises about commands hold."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_quickstart_runs(movielens_cache, monkeypatch, capsys):
    monkeypatch.setenv("JAXSIM_CACHE_DIR", str(movielens_cache))
    code = re.search(
        r"<!-- the tests run this block -->\n```python\n(.*?)```", _readme(), re.DOTALL
    )
    assert code is not None
    exec(compile(code[1], "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0\.\d\d of random recommendations are liked", printed[0])
    assert printed[1].startswith("{'f_mat': ")
    assert len(printed) == 5


def test_the_commands_of_the_readme_exist():
    for program, command in {
        ("prep", "build"),
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
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", _readme()) + re.findall(
        r"docs/\w+\.md", _readme()
    ):
        assert (ROOT / name).exists(), name


def _readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")
