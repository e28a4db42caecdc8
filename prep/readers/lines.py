"""Raw text files of any size, plain, gzip or in a zip: read block by block, with a progress bar by bytes.

Memory stays at a few blocks however large the file is. Lines that cannot be read are left out, counted by
reason and reported once; a strict reader stops at the first.
"""

import gzip
import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from jaxsim import InputError

ReportBadLine = Callable[[int, str], None]
"""Called for each line that cannot be read, with its number and a reason; `SkippedLines.add` is one."""

BLOCK_BYTES = 1 << 20  # blocks that fit the processor's cache are twice as fast as those of 8 MiB
MAX_LINE_BYTES = 64 << 20
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises for an archive that is cut short, damaged, encrypted or of an unknown kind."""

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
# The first bytes of files that are not text, and what such a file is.
_NOT_TEXT = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"BZh91AY&SY": "a bzip2 file; unpack it",
    b"\xfd7zXZ\x00": "an xz file; unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard file; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    b"PAR1\x15": "a Parquet file, not text",
    b"\xff\xfe": "text in UTF-16; convert it to UTF-8",
    b"\xfe\xff": "text in UTF-16; convert it to UTF-8",
}


@dataclass
class SkippedLines:
    """The lines of one file that could not be read.

    Attributes:
        label: the file.
        strict: whether the first such line is an error.
        counts: reason -> number of lines.
        first: reason -> number of the first such line.
    """

    label: str
    strict: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, reason: str) -> None:
        """Count a line, and print a note on standard error for the first one.

        Args:
            line: its number, from 1.
            reason: why it cannot be read, in a few words that are the same for all lines of a kind.

        Raises:
            InputError: the reader is strict.
        """
        if self.strict:
            raise InputError(f"{self.label}:{line}: {reason} (--strict stops here)")
        if not self.counts:
            # By tqdm, so that the note does not break a progress bar.
            tqdm.write(f"note: {self.label}:{line}: {reason}; left out", file=sys.stderr)
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first.setdefault(reason, line)

    @property
    def total(self) -> int:
        """How many lines were left out."""
        return sum(self.counts.values())

    def check_any_read(self, read: int, what: str) -> None:
        """Make sure that at least one line was read.

        Args:
            read: the number of lines that were read.
            what: what a line holds, such as "review".

        Raises:
            InputError: no line was read; the message names the first line and its reason.
        """
        if read:
            return
        if not self.counts:
            raise InputError(f"{self.label}: the file holds no {what}")
        reason, line = min(self.first.items(), key=lambda entry: entry[1])
        raise InputError(
            f"{self.label}:{line}: {reason}; not one of its {self.total:,} lines holds a readable {what}"
        )


class LineFile:
    """A text file, plain or gzip, that is read from front to back, as often as needed.

    Attributes:
        path: where it is.
        label: its name in messages.
        sha256: hexadecimal digest of the bytes on the disk; empty until it was read to the end once.
    """

    def __init__(self, path: Path, label: str | None = None) -> None:
        self.path = path
        self.label = label or str(path)
        self.sha256 = ""
        self._version: tuple[int, int] | None = None

    def blocks(self, description: str) -> Iterator[tuple[int, bytes]]:
        """Yield (number of its first line, block): blocks of whole lines, about `BLOCK_BYTES` long.

        A byte-order mark is left out. Only the file's last line may lack its line end.

        Args:
            description: the label of the progress bar.

        Raises:
            InputError: the file is missing, a folder, not readable, empty, not whole gzip data, an archive or
                other format that is not UTF-8 text, has a line of more than `MAX_LINE_BYTES`, or has changed since
                it was last read.
        """
        number, rest, seen = 1, b"", False
        for chunk in self._chunks(description):
            block = rest + chunk if seen else self._opening(chunk)
            seen = True
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            if len(rest) > MAX_LINE_BYTES:
                line = number + block.count(b"\n")
                raise InputError(
                    f"{self.label}:{line}: a line of more than {MAX_LINE_BYTES >> 20} MiB; is this a text file?"
                )
            if end:
                yield number, block[:end]
                number += block.count(b"\n")
        if not seen:
            raise InputError(f"{self.label}: the file is empty")
        if rest:
            yield number, rest

    def lines(self, description: str) -> Iterator[tuple[int, bytes]]:
        """Yield (line number from 1, line without its end) for each line that is not blank.

        Raises:
            InputError: as for `blocks`.
        """
        for start, block in self.blocks(description):
            for number, line in enumerate(block.split(b"\n"), start):
                if line and not line.isspace():
                    yield number, line.removesuffix(b"\r")

    def lines_at(self, numbers: np.ndarray, description: str) -> Iterator[tuple[int, bytes]]:
        """Yield (line number, line without its end) for some lines; reading ends with the last of them.

        Args:
            numbers: int64[R], ascending line numbers, from 1. Those beyond the end are ignored.
            description: the label of the progress bar.

        Raises:
            InputError: as for `blocks`.
        """
        if not len(numbers):
            return
        done = 0
        for start, block in self.blocks(description):
            until = int(np.searchsorted(numbers, start + _line_count(block)))
            lines = block.split(b"\n") if until > done else []
            for number in numbers[done:until].tolist():
                yield number, lines[number - start].removesuffix(b"\r")
            done = until
            if done == len(numbers):
                return

    def _opening(self, chunk: bytes) -> bytes:
        """The first chunk without its byte-order mark."""
        for magic, form in _NOT_TEXT.items():
            if chunk.startswith(magic):
                raise InputError(f"{self.label}: this is {form}")
        return chunk.removeprefix(_BOM)

    def _check_version(self, status: os.stat_result) -> None:
        version = (status.st_size, status.st_mtime_ns)
        if self._version not in (None, version):
            raise InputError(
                f"{self.label}: the file was changed since it was first read; start again"
            )
        self._version = version

    def _chunks(self, description: str) -> Iterator[bytes]:
        # A second pass reads the same file (see _check_version), so its digest is known.
        digest = None if self.sha256 else hashlib.sha256()
        try:
            with (
                self.path.open("rb") as file,
                tqdm(
                    desc=description,
                    total=os.fstat(file.fileno()).st_size,
                    unit="B",
                    unit_scale=True,
                    unit_divisor=1024,
                    disable=None,
                    delay=1,
                ) as bar,
            ):
                self._check_version(os.fstat(file.fileno()))
                counted: Any = _Counted(file, digest, bar)
                stream = gzip.GzipFile(fileobj=counted) if _is_gzip(file) else counted
                while chunk := stream.read(BLOCK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise InputError(f"{self.label}: no such file") from None
        except IsADirectoryError:
            raise InputError(f"{self.label}: is a folder; give a file") from None
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise InputError(
                f"{self.label}: not a whole gzip file (truncated or damaged?)"
            ) from None
        except OSError as error:
            raise InputError(f"{self.label}: cannot be read ({error.strerror})") from None
        if digest:
            self.sha256 = digest.hexdigest()


def _line_count(block: bytes) -> int:
    """The number of lines of a block; the last one may lack its line end."""
    return block.count(b"\n") + (not block.endswith(b"\n"))


def _is_gzip(file: IO[bytes]) -> bool:
    magic = file.read(len(_GZIP))
    file.seek(0)
    return magic == _GZIP


class _Counted:
    """A file whose bytes update a digest, if there is one, and a progress bar as they are read."""

    def __init__(self, file: IO[bytes], digest: Any, bar: Any) -> None:
        self._file, self._digest, self._bar = file, digest, bar

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        if self._digest:
            self._digest.update(chunk)
        self._bar.update(len(chunk))
        return chunk


def find_plain_or_gzip(folder: Path, name: str) -> Path | None:
    """The path of a file in a folder, or else of the same file with .gz; None if neither exists."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)


@contextmanager
def unzipped(archive: Path, choices: Sequence[Sequence[str]]) -> Iterator[list[LineFile]]:
    """Unpack files of a zip into a temporary folder, which is deleted when the block ends.

    Args:
        archive: the zip.
        choices: lists of file names. Files of the first list that the zip has whole, in any of its folders, are
            unpacked.

    Yields:
        The files in the order of that list.

    Raises:
        InputError: the file is not a whole zip, cannot be read, or has none of the lists.
    """
    with tempfile.TemporaryDirectory(prefix="jaxsim-zip-") as folder:
        try:
            with zipfile.ZipFile(archive) as packed:
                members = {member.rpartition("/")[2]: member for member in packed.namelist()}
                names = next((names for names in choices if members.keys() >= set(names)), None)
                if names is None:
                    expected = " or ".join(" and ".join(names) for names in choices)
                    raise InputError(f"{archive}: this zip does not contain {expected}")
                for name in names:
                    with (
                        packed.open(members[name]) as member,
                        Path(folder, name).open("wb") as file,
                    ):
                        shutil.copyfileobj(member, file)
        except BROKEN_ZIP as error:
            reason = f"not a whole zip, cut short or damaged? ({error})"
            raise InputError(f"{archive}: {reason}") from None
        except OSError as error:
            raise InputError(f"{archive}: cannot be read ({error.strerror})") from None
        yield [LineFile(Path(folder, name), f"{archive}/{members[name]}") for name in names]
