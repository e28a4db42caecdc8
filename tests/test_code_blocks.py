"""Every block of code in README.md and docs/ runs (`tests/run_page.py`), and every command of theirs is one."""

import contextlib
import os
import re
import shlex
import subprocess
import sys

import pytest

from jaxsim import console
from jaxsim.cli import _parse
from prep.build import build_dataset
from prep.config import BuildConfig
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


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("0.80 are liked\n  con 'slow' as Film\n  pro 'fun' as Film\n  p 0.3\n", True),
        ("0.71 are liked\n  con 'slow' as Film\n  pro 'fun' as Show\n  p  0.4\n", True),
        ("0.71 are not liked\n  con 'slow' as Film\n  pro 'fun' as Film\n  p 0.4\n", False),
        ("0.71 are liked\n  pro 'dull' by Show\n  con 'new' by Show\n  q 0.4\n", False),
        ("", False),
    ],
)
def test_numbers_and_a_few_lines_of_an_output_may_differ(printed, same):
    expected = "0.71 are liked\n  con 'slow' as Film\n  pro 'fun' as Film\n  p 0.4\n"
    with contextlib.nullcontext() if same else pytest.raises(AssertionError, match="page:1 prints"):
        run_page.check_printed("page:1", printed, expected)


def test_there_are_blocks_and_most_of_them_run():
    kinds = [block.language for block in BLOCKS]
    assert kinds.count("python") > 35
    assert kinds.count("bash") > 30
    assert len(SEQUENCES) > 20


def shown_commands(block):
    """Those of a block of commands, and those behind a prompt in what a terminal shows."""
    if block.language == "bash":
        return run_page.commands(block)
    return re.findall(r"^\$ (.*)", block.text, re.MULTILINE)


COMMANDS = sorted(
    {
        command
        for block in BLOCKS
        if block.language in ("bash", "")
        for command in shown_commands(block)
        if re.match(r"(python -m (prep|agents|benchmarks)|jaxsim) ", command)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken_with_its_values(command):
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


@pytest.fixture(scope="module")
def fitted_cache(real_wheel, tmp_path_factory):
    """A cache folder with ml-100k as a reader builds it, the weights of the taste model fitted."""
    cache = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXSIM_CACHE_DIR", str(cache))
        build_dataset("ml-100k", BuildConfig(raw=real_wheel))
    return cache


@pytest.mark.slow
@pytest.mark.parametrize(("page", "number"), SEQUENCES)
def test_the_blocks_of_a_page_run(page, number, fitted_cache):
    """As a reader would, in a process and a folder of their own."""
    environment = {
        **os.environ,
        "JAXSIM_CACHE_DIR": str(fitted_cache),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.run_page", page, str(number)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert ": ran" in done.stdout
