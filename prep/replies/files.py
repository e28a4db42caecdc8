"""Files of a language model's replies: JSON lines, plain or gzipped."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jaxsim.files import staged_file
from prep.readers.lines import LineFile, SkippedLines
from prep.replies.parser import ParsedReply


class Reply(NamedTuple):
    """A reply of a language model about one item or one review.

    Attributes:
        place: where it stands, for messages: `file:line`, or store and item.
        item_id: raw id of its item.
        text: what the model wrote.
        user_id: raw id of the user whose review it is about; None for a reply to T_obj.
        cut: whether the model is known to have run out of tokens.
        parsed: what it says, where it was parsed for the sides that were asked for; None for a line of a file,
            because the ratings decide which side a reply to T_sub counts for.
    """

    place: str
    item_id: str
    text: str
    user_id: str | None = None
    cut: bool = False
    parsed: ParsedReply | None = None


class RepliesFile(NamedTuple):
    """A file of replies: the lines that could be read, those that could not, and its SHA-256."""

    lines: list[Reply]
    skipped: SkippedLines
    sha256: str


def read_replies(path: Path, strict: bool = False) -> RepliesFile:
    """Read a file of replies to T_obj, T_sub or both, plain or gzipped.

    Args:
        path: JSON lines, each an object with `item_id` and, for T_sub, `user_id` (strings or whole numbers; a null
            `user_id` means T_obj) and `reply` (string). `finish_reason` "length" says that the reply is cut. Other
            keys are ignored.
        strict: stop at the first line that is not such an object. Without it such lines are left out and counted,
            and the first one is reported.

    Raises:
        InputError: the file cannot be read, none of its lines can be, or it is read strictly and one cannot.
    """
    file = LineFile(path)
    skipped = SkippedLines(file.label, strict)
    lines = []
    for number, line in file.lines("replies"):
        reply = _read_line(f"{file.label}:{number}", line)
        if isinstance(reply, str):
            skipped.add(number, reply)
        else:
            lines.append(reply)
    skipped.check_any_read(len(lines), "reply")
    return RepliesFile(lines, skipped, file.sha256)


def _read_line(place: str, line: bytes) -> Reply | str:
    """Return the reply, or why there is none."""
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "not valid UTF-8 text"
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(record, dict):
        return "not a JSON object with item_id and reply"
    item_id, user_id, text = (record.get(key) for key in ("item_id", "user_id", "reply"))
    if not _is_id(item_id):
        return "item_id is missing, or is not a string or whole number"
    if user_id is not None and not _is_id(user_id):
        return "user_id is not a string or whole number"
    if not isinstance(text, str):
        return "reply is missing, or is not a string"
    user_id = None if user_id is None else str(user_id)
    return Reply(place, str(item_id), text, user_id, record.get("finish_reason") == "length")


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


@contextmanager
def reply_writer(path: Path, about: Mapping[str, str]) -> Iterator[Callable[[Reply], None]]:
    """Give a function that writes one reply as a line of a file that `read_replies` reads.

    The file appears when the block ends well; otherwise a file that is there already stays as it was.

    Args:
        path: the file to write.
        about: what every line says in addition, such as the model.
    """
    with staged_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:

        def write(reply: Reply) -> None:
            user = {} if reply.user_id is None else {"user_id": reply.user_id}
            cut = {"finish_reason": "length"} if reply.cut else {}
            line = {**user, "item_id": reply.item_id, "reply": reply.text, **cut, **about}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

        yield write
