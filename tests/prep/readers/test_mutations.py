"""A thousand damaged raw files: each is read with a true count of what was left out, or refused in one line.

There are two kinds of cases. Where the effect of a change is known (none, or exactly these lines are lost), the
result must be that. Where it is not (bytes flipped, a file cut anywhere), every line must be accounted for: kept,
left out on purpose or skipped with a reason; or there is one InputError that names the file.
"""

import gzip
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from jaxsim import InputError, load_dataset
from prep.__main__ import run
from prep.features.embedding import HASHED
from tests.prep.readers.changes import (
    DAMAGES,
    as_gzip,
    change_bytes,
    cut_file,
    emptied,
    insert_token,
    joined,
    lines_of,
)
from tests.prep.readers.targets import TEXTS, Outcome, Target, parquet_targets

pytestmark = pytest.mark.slow

CASES_OF_A_TEXT = 56
CASES_OF_A_BINARY = 40
SEED = 0


def attempt(target: Target, folder: Path, content: bytes) -> Outcome | str:
    """Read the changed folder; an Outcome, or the message of an InputError."""
    target.write(folder, content)
    before = sorted(folder.iterdir())
    try:
        return target.read(folder)
    except InputError as error:
        return str(error)
    finally:
        assert sorted(folder.iterdir()) == before


def check_message(target: Target, folder: Path, message: str) -> None:
    assert "\n" not in message
    named = [name for name in target.files if str(folder / name) in message]
    assert named, message
    line = re.search(re.escape(str(folder / named[0])) + r":(\d+)", message)
    if line:
        content = (folder / named[0]).read_bytes()
        if content.startswith(b"\x1f\x8b") and target.skips:
            content = gzip.decompress(content)
        assert 1 <= int(line[1]) <= content.count(b"\n") + 1, message


def data_lines(target: Target, content: bytes) -> int:
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return sum(bool(line.strip()) for line in lines) - target.header


def check_damage(target: Target, folder: Path, content: bytes) -> None:
    """Whatever the change was: all lines are accounted for, or there is one clear message."""
    outcome = attempt(target, folder, content)
    if isinstance(outcome, str):
        check_message(target, folder, outcome)
        return
    accounted = len(outcome.records) + outcome.left_out + outcome.skipped
    lines = data_lines(target, content)
    # A quoted field may contain a line break; then two lines of text are one record.
    same_quotes = content.count(b'"') == target.content.count(b'"')
    if target.complete and same_quotes and not any(n.count(b'"') % 2 for n in content.split(b"\n")):
        assert accounted == lines
    else:
        assert accounted <= lines
    assert len(outcome.records) > 0


def check_harmless(target: Target, folder: Path, content: bytes, whole: Outcome) -> None:
    assert attempt(target, folder, content) == whole


def check_broken_lines(target: Target, folder: Path, rng: random.Random, whole: Outcome) -> None:
    """Break known lines: exactly these are missing, or the first of them is named."""
    lines = lines_of(target.content)
    places = sorted(rng.sample(range(target.header, len(lines)), rng.randint(1, 4)))
    for place in places:
        lines[place] = rng.choice(target.breakers)(rng, lines[place])
    outcome = attempt(target, folder, joined(lines))
    if not target.skips:
        assert isinstance(outcome, str)
        check_message(target, folder, outcome)
        return
    assert isinstance(outcome, Outcome), outcome
    assert outcome.skipped == len(places)
    lost = {place - target.header for place in places}
    assert outcome.records == kept_of(target, whole, lost)


def kept_of(target: Target, whole: Outcome, lost: set[int]) -> list[object]:
    if target.name == "anime-ratings":  # the whole has no record for the lines with -1
        lines = lines_of(target.content)[1:]
        rated = [n for n, line in enumerate(lines) if not line.endswith(b",-1")]
    else:
        rated = list(range(len(whole.records)))
    return [record for n, record in zip(rated, whole.records, strict=True) if n not in lost]


def check_doubled_lines(target: Target, folder: Path, rng: random.Random, whole: Outcome) -> None:
    lines = lines_of(target.content)
    outcome = attempt(target, folder, joined([*lines, *lines[target.header :]]))
    if target.doubles:
        assert isinstance(outcome, Outcome)
        assert outcome.records == 2 * whole.records
        assert outcome.skipped == 0
    elif isinstance(outcome, Outcome):
        assert outcome.records == whole.records
        assert outcome.skipped == (len(whole.records) if target.complete else 0)
    else:
        check_message(target, folder, outcome)


@pytest.mark.parametrize("target", TEXTS, ids=lambda target: target.name)
def test_texts(target, tmp_path):
    target.write(tmp_path / "whole", target.content)
    whole = target.read(tmp_path / "whole")
    assert whole.skipped == 0
    assert len(whole.records) + whole.left_out == len(lines_of(target.content)) - target.header
    harmless = list(target.harmless)
    damages = [*DAMAGES, *target.spoils]
    for case in range(CASES_OF_A_TEXT):
        rng = random.Random(f"{SEED} {target.name} {case}")
        folder = tmp_path / str(case)
        if case < len(harmless):
            check_harmless(target, folder, harmless[case](rng, target.content), whole)
        elif case < CASES_OF_A_TEXT // 2:
            check_broken_lines(target, folder, rng, whole)
        elif case == CASES_OF_A_TEXT // 2:
            check_doubled_lines(target, folder, rng, whole)
        else:
            change = damages[case % len(damages)]
            check_damage(target, folder, change(rng, target.content))


@pytest.mark.parametrize("target", list(parquet_targets()), ids=lambda target: target.name)
def test_parquet(target, tmp_path):
    """No line can be told from another in a damaged Parquet file: it is read whole, or refused."""
    target.write(tmp_path / "whole", target.content)
    whole = target.read(tmp_path / "whole")
    damages = [change_bytes, change_bytes, cut_file, emptied, as_gzip, insert_token]
    for case in range(CASES_OF_A_BINARY):
        rng = random.Random(f"{SEED} {target.name} {case}")
        folder = tmp_path / str(case)
        content = damages[case % len(damages)](rng, target.content)
        outcome = attempt(target, folder, content)
        if isinstance(outcome, str):
            check_message(target, folder, outcome)
        else:
            assert len(outcome.records) + outcome.skipped == len(whole.records)


BUILT = [target for target in [*TEXTS, *parquet_targets()] if target.command(Path())]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("target", BUILT, ids=lambda target: target.name)
def test_the_whole_command(target, tmp_path, capsys):
    """A damaged file through `prep build`: a dataset that can be loaded, or one line and nothing written."""
    for case in range(6):
        rng = random.Random(f"{SEED} {target.name} build {case}")
        folder, out = tmp_path / str(case), tmp_path / "out" / str(case)
        content = DAMAGES[rng.randrange(len(DAMAGES))](rng, target.content)
        outcome = attempt(target, folder, content)
        capsys.readouterr()
        args = ["build", *target.command(folder), "--out", out, "--annotate", "none", "--max-share", "1",
                "--min-items", "1", "--encoder", HASHED]  # fmt: skip
        code = exit_code(args)
        told = capsys.readouterr()
        if code == 0:
            assert isinstance(outcome, Outcome)
            check_built(target, out, outcome, told.out)
            continue
        assert code == 2
        assert "Traceback" not in told.err
        assert told.err.splitlines()[-1].startswith("error: ")
        assert told.err.count("error: ") == 1
        assert not list(tmp_path.glob("out/*"))
        # What could be read may still leave nothing to build, such as likes alone.
        assert isinstance(outcome, Outcome) or outcome in told.err


def exit_code(args: Sequence[object]) -> int:
    try:
        run([str(arg) for arg in args])
    except SystemExit as ended:
        return int(ended.code)
    return 0


def check_built(target: Target, out: Path, outcome: Outcome, report: str) -> None:
    """The dataset can be loaded, and its manifest and the report tell of the lines that were left out."""
    dataset = load_dataset(out)
    assert len(dataset.arrays["interaction_item"]) > 0
    skipped = {Path(label).name: counts for label, counts in dataset.manifest["skipped"].items()}
    assert sum(skipped.get(target.file, {}).values()) == outcome.skipped
    assert all(reason in report for reason in skipped.get(target.file, {}))
    shutil.rmtree(out)
