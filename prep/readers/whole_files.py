"""Reading what people hand in: by the line, with file and line named where it cannot be read."""

import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jaxsim import InputError

BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises for an archive that is cut short, damaged, encrypted or of a kind it does not know."""


@dataclass(frozen=True)
class RawFile:
    """The bytes of one file and the label that error messages call it by."""

    label: str
    content: bytes

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()

    def lines(self, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
        """Yield (line number from 1, line without its end) for each line that is not blank.

        Raises:
            InputError: the file is empty or is not in `encoding`.
        """
        text = self._decode(encoding).removeprefix("\ufeff")
        if not text.strip():
            raise InputError(f"{self.label}: the file is empty")
        # Not str.splitlines: it also breaks at characters that are ordinary in Latin-1, as \x85 is.
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, line.rstrip("\r")

    def _decode(self, encoding: str) -> str:
        try:
            return self.content.decode(encoding)
        except UnicodeDecodeError as error:
            line = self.content.count(b"\n", 0, error.start) + 1
            raise InputError(f"{self.label}:{line}: not valid {encoding.upper()} text") from None


def read_raw(path: Path) -> RawFile:
    """Read a file whole; a name that ends in .gz is decompressed.

    Raises:
        InputError: the file is missing, is a folder, may not be read, or is not whole gzip data.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix != ".gz":
        return RawFile(str(path), content)
    try:
        return RawFile(str(path), gzip.decompress(content))
    except (OSError, EOFError, zlib.error):
        raise InputError(f"{path}: not a whole gzip file (truncated or damaged?)") from None
