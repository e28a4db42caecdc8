"""Every block of code in README.md and docs/ runs (`tests/run_page.py`), and every command of theirs is one."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from jaxsim import console
from jaxsim.cli import _parse
from tests import run_page
from tests.paths import ROOT

PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))]
BLOCKS = [block for page in PAGES for block in run_page.blocks(page)]
LANGUAGES = {"python", "bash", "json", "", "{toctree}", "{eval-rst}"}
SEQUENCES = [
    (page, number)
    for page in PAGES
    for number, blocks in enumerate(run_page.sequences(page))
    if any(
        block.language == "python"
        or any(run_page.why_left_out(command) is None for command in run_page.commands(block))
        for block in blocks
    )
]


def test_no_code_hides_in_a_block_without_a_language():
    for block in BLOCKS:
        place = f"{block.page}:{block.line}"
        assert block.language in LANGUAGES, place
        if block.language == "":
            assert not re.match(r"(python|jaxsim|pip|make|import|from) ", block.text), place


def test_there_are_blocks_and_most_of_them_run():
    kinds = [block.language for block in BLOCKS]
    assert kinds.count("python") > 35
    assert kinds.count("bash") > 30
    assert len(SEQUENCES) > 20


COMMANDS = sorted(
    {
        command
        for block in BLOCKS
        if block.language == "bash"
        for command in run_page.commands(block)
        if re.match(r"(python -m (prep|agents|benchmarks)|jaxsim) ", command)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken_with_its_values(command, tmp_path, monkeypatch):
    """It is parsed whole, values included; nothing runs."""
    words = shlex.split(command)
    words = words[2:] if words[:2] == ["python", "-m"] else words[1:]
    words = words[1:] if words[0] == "agents" else words
    known = console._commands_for(words[0])
    node, prog = known[words.pop(0)], "jaxsim"
    while isinstance(node, dict):
        node = node[words.pop(0)]
    if "--help" not in words:
        _parse(node, prog, words)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), SEQUENCES)
def test_the_blocks_of_a_page_run(page, number, movielens_cache, tmp_path):
    """As a reader would, in a process and a folder of their own."""
    environment = {
        **os.environ,
        "JAXSIM_CACHE_DIR": str(movielens_cache),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.run_page", page, str(number)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert ": ran" in done.stdout
