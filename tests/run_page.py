"""Runs the code of one page, block after block, as a reader would: `python -m tests.run_page docs/logs.md`.

Python blocks share their names; commands run in this process, in a new folder that is removed. A few words are
replaced so that nothing trains for minutes, and what cannot run here is left out; `LEFT_OUT` says why. After a
block the output is compared with what the page says that it prints, all but the numbers.
"""

import contextlib
import difflib
import importlib.util
import io
import re
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from tests.paths import ROOT

# What the pages of single subjects take as given.
GIVEN = """
import jax
import jax.numpy as jnp
import jaxsim
import numpy as np
dataset = jaxsim.load_dataset("ml-100k")
env, params = jaxsim.make(dataset)
"""
# A language model behind a server, which says 50 to everything.
SERVER = """
from pathlib import Path
from tests.prep.annotation.openai_protocol_server import Answer, ProtocolServer, chat_completion
MODEL = "m"
URL = ProtocolServer(lambda number, request: Answer(chat_completion("50"))).__enter__().url
"""
MORE_GIVEN = {"docs/evaluation.md": SERVER}
# Pages whose blocks do not follow each other: each one starts from the first.
SEPARATE = ("docs/devices.md",)
RUNS = ("runs/demo", "runs/dqn", "runs/ppo", "runs/a", "runs/b")
SMALL = "--num-envs 8 --total-steps 1024 --session-capacity 8"
REPLACED = (
    (r"--seeds \d+", "--seeds 1"),
    (r"--episodes \d+", "--episodes 20"),
    (r"(agents train (?:dqn|ppo|trpo|a2c)(?! --help))", rf"\1 {SMALL}"),
    (r"(agents log )", r"\1--episodes 20 "),
    (r"10\.0\.0\.1:8476", "127.0.0.1:FREE_PORT"),
    (r"num_processes=2", "num_processes=1"),
    (r"--push OWNER/NAME", ""),
    (r"--synthetic\.users \d+", "--synthetic.users 80"),
    (r"--synthetic\.items \d+", "--synthetic.items 200"),
    (r"--synthetic\.interactions-per-user \d+", "--synthetic.interactions-per-user 20"),
    (r"hf:OWNER/NAME", "hub/ml-100k"),
    (r"my-dataset", "books"),
    (r"DQNConfig\(num_envs=64\)", "DQNConfig(num_envs=64, total_steps=2048)"),
)
LIKENESS = (
    0.7  # share of the words of an output that are the same and in the same order, numbers aside
)
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
LEFT_OUT = {
    r"pip |make |python3\.11 -m venv|rivals/bin": "installs",
    r"python -m agents train .*--resume": "tests/agents/runs stops runs and resumes them",
    r"python -m benchmarks": "tests/benchmarks runs each with small settings",
    r"(python -m|jaxsim) prep build ml-100k": "is built already",
    r"python -m prep (build|annotate|convert|replies \w+) (yelp|amazon-\w+|anime)": "needs files of publishers",
    r"python -m prep (embed|build) ml-100k --replies": "needs an encoder of the hub",
    r"python -m prep build plays\.csv": "tests/prep builds a table with durations",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: path of the page from the root of the repository.
        line: number of its first line of code.
        language: what stands behind the fence; "" if nothing does.
        text: the code.
        prints: what the page says that it prints, or None if it does not say.
    """

    page: str
    line: int
    language: str
    text: str
    prints: str | None = None


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page; one behind the word "prints" belongs to the block before it."""
    tokens = MarkdownIt().enable("table").parse((ROOT / page).read_text("utf-8"))
    found: list[Block] = []
    said = ""
    for token in tokens:
        if token.type == "inline":
            said = token.content
        if token.type != "fence":
            continue
        assert token.map is not None
        if said.endswith("prints") and not token.info and found:
            found[-1] = Block(**{**vars(found[-1]), "prints": token.content})
        else:
            found.append(Block(page, token.map[0] + 2, token.info, token.content))
        said = ""
    return found


def commands(block: Block) -> list[str]:
    """The commands of a block of shell lines, without comments; a command may go on in the next line."""
    lines = block.text.replace("\\\n", " ").splitlines()
    stripped = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [line for line in stripped if line]


def why_left_out(command: str) -> str | None:
    """Why a command does not run here; None if it does."""
    return next((why for form, why in LEFT_OUT.items() if re.match(form, command)), None)


def smaller(text: str) -> str:
    """Code or a command that does the same with less."""
    for form, new in REPLACED:
        text = re.sub(form, new, text)
    if "FREE_PORT" in text:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            text = text.replace("FREE_PORT", str(probe.getsockname()[1]))
    return text


def run_command(command: str) -> None:
    """Run one command of this project in this process.

    Raises:
        AssertionError: it fails.
    """
    # Not at the top: a page may set up JAX before jaxsim is imported.
    from jaxsim import console

    words = shlex.split(smaller(command))
    words = words[2:] if words[:2] == ["python", "-m"] else words[1:]
    words = words[1:] if words[0] == "agents" else words
    if words[-1] == "--help":
        return  # tests/test_readme.py asks each command for help
    if "--out" in words:
        _make_way(Path(words[words.index("--out") + 1]))
    try:
        console.run(words)
    except SystemExit as end:
        if end.code:
            raise AssertionError(f"{command}: exit code {end.code}") from None


def _make_way(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)


def missing(code: str) -> str | None:
    """A package that the code imports and that is not installed."""
    names = re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
    return next((name for name in names if importlib.util.find_spec(name) is None), None)


def run_block(block: Block, names: dict[str, Any]) -> bool:
    """Run a block, and compare what it prints with what the page says.

    Returns:
        Whether anything ran: of a block of commands, all may be left out.

    Raises:
        AssertionError: a command fails, or the output is another one.
    """
    here = [command for command in commands(block) if why_left_out(command) is None]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        if block.language == "python":
            code = "\n" * (block.line - 1) + smaller(block.text)
            exec(compile(code, block.page, "exec"), names)
        else:
            for command in here:
                run_command(command)
    if block.prints is not None:
        check_printed(f"{block.page}:{block.line}", printed.getvalue(), block.prints)
    return block.language == "python" or bool(here)


def check_printed(place: str, printed: str, expected: str) -> None:
    """Compare an output with that on a page.

    f_sta and the taste model are fitted anew, and not to the same bits on every processor. So numbers and the ends
    of lines are not compared, and items may change their places in a long output; but its first line, which has
    the answer, is the same.

    Raises:
        AssertionError: it is another one.
    """
    said, meant = (_NUMBER.sub("0", text) for text in (printed, expected))
    likeness = difflib.SequenceMatcher(None, said.split(), meant.split(), False).ratio()
    same = said.partition("\n")[0] == meant.partition("\n")[0] and likeness >= LIKENESS
    assert same, f"{place} prints {likeness:.2f} of what the page says: {printed}"


def prepared(page: str) -> None:
    """Make the runs and tables that the commands of a page take."""
    text = (ROOT / page).read_text("utf-8")
    wanted = [run for run in RUNS if re.search(rf"(?<!--out )\b{run}\b", text)]
    if wanted:
        run_command(f"python -m agents train dqn --dataset ml-100k --out {wanted[0]}")
    for run in wanted[1:]:
        shutil.copytree(wanted[0], run)
    Path("books.csv").write_text(
        "user,item,rating\n"
        + "".join(f"u{u},i{i},{1 + (u * i) % 5}\n" for u in range(20) for i in range(8))
    )
    Path("items.csv").write_text(
        "item,name,categories\n" + "".join(f"i{i},Book {i},{'ab'[i % 2]}\n" for i in range(8))
    )


def sequences(page: str) -> Iterator[list[Block]]:
    """Blocks that are run one after the other, in names of their own."""
    code = [block for block in blocks(page) if block.language in ("python", "bash")]
    if page not in SEPARATE:
        yield code
        return
    for block in code:
        yield [block] if "import jaxsim" in block.text else [code[0], block]


def run_page(page: str, number: int) -> None:
    """Run the sequence of this number, in the current folder."""
    code = list(sequences(page))[number]
    prepared(page)
    names: dict[str, Any] = {"__name__": "__main__"}
    first = next((block for block in code if block.language == "python"), None)
    if first is not None and "import jaxsim" not in first.text:
        exec(GIVEN + MORE_GIVEN.get(page, ""), names)
    for block in code:
        package = missing(block.text) if block.language == "python" else None
        ran = package is None and run_block(block, names)
        print(
            f"{page}:{block.line}: {'ran' if ran else f'left out, needs {package}' if package else 'left out'}"
        )


def main(page: str, number: str = "0") -> None:
    """Run a sequence of a page in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        run_page(page, int(number))


if __name__ == "__main__":
    main(*sys.argv[1:])
