import bz2
import gzip
import hashlib
import itertools
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from prep.readers import lines as streams
from prep.readers.lines import LineFile, SkippedLines


@pytest.fixture
def write(tmp_path):
    def make(content: bytes, name: str = "file.json") -> LineFile:
        path = tmp_path / name
        path.write_bytes(content)
        return LineFile(path)

    return make


def reference_lines(content: bytes) -> list[tuple[int, bytes]]:
    numbered = enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
    return [(n, line.removesuffix(b"\r")) for n, line in numbered if line.strip()]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_lines_of_all_line_ends_with_their_numbers(write, pack):
    file = write(pack(b"\xef\xbb\xbfone\r\n\r\n  \ntwo\nthree"))
    assert list(file.lines("")) == [(1, b"one"), (4, b"two"), (5, b"three")]
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()


def test_a_gzip_file_is_known_by_its_content_and_may_have_several_members(write):
    file = write(gzip.compress(b"one\ntw") + gzip.compress(b"o\n"), "no-suffix")
    assert list(file.lines("")) == [(1, b"one"), (2, b"two")]
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()


# Only a part of the letters, so that line ends, blanks and byte-order marks are frequent.
CONTENT = st.lists(
    st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b" ", b"\xef\xbb\xbf", b"\xff"])
).map(b"".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=CONTENT.filter(bool), block=st.integers(3, 9), zipped=st.booleans())
def test_blocks_hold_whole_lines_and_lose_nothing(write, monkeypatch, content, block, zipped):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    file = write(gzip.compress(content) if zipped else content)
    blocks = list(file.blocks(""))
    text = content.removeprefix(b"\xef\xbb\xbf")
    assert b"".join(part for _, part in blocks) == text
    assert all(part.endswith(b"\n") for _, part in blocks[:-1])
    starts = [1 + b"".join(part for _, part in blocks[:i]).count(b"\n") for i in range(len(blocks))]
    assert [start for start, _ in blocks] == starts
    assert list(file.lines("")) == reference_lines(content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=CONTENT.filter(bool), block=st.integers(3, 9), data=st.data())
def test_lines_at_are_those_of_lines(write, monkeypatch, content, block, data):
    monkeypatch.setattr(streams, "BLOCK_BYTES", block)
    file = write(content)
    everything = reference_lines(content)
    chosen = data.draw(st.lists(st.sampled_from(everything), unique=True)) if everything else []
    chosen.sort()
    numbers = np.array([number for number, _ in chosen], np.int64)
    assert list(file.lines_at(numbers, "")) == chosen


def test_lines_at_beyond_the_end_are_passed_over(write):
    file = write(b"one\ntwo")
    assert list(file.lines_at(np.array([2, 3, 9]), "")) == [(2, b"two")]
    assert list(file.lines_at(np.zeros(0, np.int64), "")) == []


def test_lines_at_reads_no_further_than_the_last(write, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 4)
    file = write(b"one\ntwo\n" + b"x" * 100)
    assert list(file.lines_at(np.array([2]), "")) == [(2, b"two")]
    assert file.sha256 == ""  # it was not read to the end
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 10)
    assert list(file.lines_at(np.array([1, 2]), "")) == [(1, b"one"), (2, b"two")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (gzip.compress(b""), "the file is empty"),
        (gzip.compress(os.urandom(3000))[:-20], "not a whole gzip file"),
        (gzip.compress(b"one\n")[:-8] + b"\0" * 8, "not a whole gzip file"),
        (gzip.compress(b"one\n") + b"rest", "not a whole gzip file"),
        (b"\x1f\x8bsomething else", "not a whole gzip file"),
        (b"PK\x03\x04...", "a zip archive; unpack it"),
        (bz2.compress(b"one\n"), "a bzip2 file; unpack it"),
        (gzip.compress(bz2.compress(b"one\n")), "a bzip2 file; unpack it"),
        ("one\n".encode("utf-16"), "UTF-16; convert it to UTF-8"),
        (b"PAR1\x15...", "a Parquet file"),
    ],
    ids=itertools.count(),  # else the ids hold the time at which gzip wrote
)
def test_what_is_no_text_is_named_in_one_line(write, content, reason):
    file = write(content)
    with pytest.raises(InputError, match=reason) as caught:
        list(file.lines(""))
    assert str(caught.value).startswith(f"{file.path}: ")
    assert "\n" not in str(caught.value)


def test_a_line_beyond_all_measure_is_named(write, monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1 << 18)
    monkeypatch.setattr(streams, "MAX_LINE_BYTES", 1 << 20)
    file = write(b"one\n" + b"x" * (3 << 20) + b"\n")
    with pytest.raises(InputError, match=r"file\.json:2: a line of more than 1 MiB"):
        list(file.lines(""))


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(LineFile(tmp_path / "nothing").lines(""))
    with pytest.raises(InputError, match="is a folder"):
        list(LineFile(tmp_path).lines(""))


def test_a_file_that_changes_between_passes_is_refused(write):
    file = write(b"one\ntwo\n")
    assert len(list(file.lines(""))) == 2
    file.path.write_bytes(b"one\nother\n")
    with pytest.raises(InputError, match="changed since it was first read"):
        list(file.lines(""))


def test_skipped_lines_are_counted_by_reason_and_shown_once(capsys):
    skipped = SkippedLines("file.json")
    for line, reason in ((3, "not JSON"), (7, "no field"), (9, "not JSON")):
        skipped.add(line, reason)
    assert (skipped.counts, skipped.first) == (
        {"not JSON": 2, "no field": 1},
        {"not JSON": 3, "no field": 7},
    )
    assert skipped.total == 3
    assert capsys.readouterr().err == "note: file.json:3: not JSON; left out\n"


def test_a_strict_reader_stops_at_the_first():
    with pytest.raises(InputError, match=r"^file\.json:3: not JSON \(--strict stops here\)$"):
        SkippedLines("file.json", strict=True).add(3, "not JSON")


def test_nothing_read_names_the_first_reason():
    skipped = SkippedLines("file.json")
    with pytest.raises(InputError, match=r"^file\.json: the file holds no review$"):
        skipped.check_any_read(0, "review")
    skipped.add(2, "not JSON")
    skipped.add(1, "no field")
    skipped.check_any_read(1, "review")
    with pytest.raises(InputError, match=r"^file\.json:1: no field; not one of its 2 lines"):
        skipped.check_any_read(0, "review")
