"""The language model's replies: reading the files, and merging the replies into keywords of items.

D_pos = D_obj_pos U D_sub_pos and D_neg = D_obj_neg U D_sub_neg (the paper's Section "Subjective Item
Description Collection"), per item: D_obj from the item's reply to T_obj, D_sub from the replies to T_sub
for reviews of it. Only reviews whose rating is in the training split count.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxsim import InputError
from prep.features.keywords import ItemKeywords
from prep.readers.lines import LineFile, SkippedLines
from prep.replies.parser import POLARITIES, ParsedReply, parse_reply

__all__ = [
    "POLARITIES",
    "Annotations",
    "ParsedReply",
    "RepliesFile",
    "ReplyCounts",
    "ReplyLine",
    "annotate",
    "parse_reply",
    "read_replies",
    "stream_replies",
]


class ReplyLine(NamedTuple):
    """One reply in a file.

    Attributes:
        place: where it stands, `file:line`.
        item_id: raw id of its item.
        text: the reply.
        user_id: raw id of the user whose review it is about; None for a reply to T_obj.
        cut: whether the model is known to have run out of tokens.
    """

    place: str
    item_id: str
    text: str
    user_id: str | None = None
    cut: bool = False


class RepliesFile(NamedTuple):
    """A file of replies: the lines that could be read, those that could not, and its SHA-256."""

    lines: list[ReplyLine]
    skipped: SkippedLines
    sha256: str


def read_replies(path: Path, strict: bool = False) -> RepliesFile:
    """Read a file of replies to T_obj, T_sub or both, plain or gzipped.

    Args:
        path: JSON lines, each an object with `item_id` and, for T_sub, `user_id` (strings or whole
            numbers; a null `user_id` is none) and `reply` (string). `finish_reason`, where it is
            "length", tells that the reply is cut. Other keys are ignored.
        strict: stop at the first line that is not such an object. Without it such lines are left out,
            counted and the first one told.

    Raises:
        InputError: the file cannot be read, not one of its lines can be, or it is read strictly and
            one cannot.
    """
    file = LineFile(path)
    skipped = SkippedLines(file.label, strict)
    lines = list(stream_replies(file, skipped))
    return RepliesFile(lines, skipped, file.sha256)


def stream_replies(file: LineFile, skipped: SkippedLines) -> Iterator[ReplyLine]:
    """Yield the replies of a file one at a time, as `read_replies` reads them.

    Args:
        file: the file.
        skipped: takes the lines that cannot be read.

    Raises:
        InputError: as for `read_replies`; that no line could be read shows at the end.
    """
    read = 0
    for number, line in file.lines("replies"):
        reply = _read_line(f"{file.label}:{number}", line)
        if isinstance(reply, str):
            skipped.add(number, reply)
        else:
            read += 1
            yield reply
    skipped.check_any_read(read, "reply")


def _read_line(place: str, line: bytes) -> ReplyLine | str:
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
    return ReplyLine(place, str(item_id), text, user_id, record.get("finish_reason") == "length")


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


@dataclass(frozen=True)
class ReplyCounts:
    """What became of the replies to one prompt; together they are all of them.

    Attributes:
        parsed: gave keywords.
        unparsed: could not be parsed.
        left_out: are about an item that the data has but the build left out.
        not_training: are about a rating that is not in the training split (T_sub only).
        unknown: are about a rating that the data does not have (T_sub only).
        repeated: say again, word for word, what another reply about the same says.
    """

    parsed: int = 0
    unparsed: int = 0
    left_out: int = 0
    not_training: int = 0
    unknown: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class Annotations:
    """The replies of a whole dataset.

    Attributes:
        keywords: raw item id -> D_pos and D_neg, for each item with a reply to T_obj or T_sub that
            could be parsed, in the order of the items.
        missing: raw ids of the items without a reply to T_obj, in the order of the items.
        unparsed: raw item id -> why its reply to T_obj could not be parsed.
        t_obj, t_sub: what became of the replies to either prompt.
        notes: a sentence for each kind of reply that gave no keywords, with the place of the first.
    """

    keywords: dict[str, ItemKeywords]
    missing: list[str]
    unparsed: dict[str, str]
    t_obj: ReplyCounts = ReplyCounts()
    t_sub: ReplyCounts = ReplyCounts()
    notes: Sequence[str] = ()


def annotate(
    replies: Iterable[ReplyLine],
    items: Mapping[str, str],
    allow_missing: bool,
    *,
    left_out: Collection[str] = frozenset(),
    ratings: Mapping[tuple[str, str], bool | None] = MappingProxyType({}),
    advice: str = "mend it",
) -> Annotations:
    """Give each item the keywords of its replies.

    A reply to T_sub that does not parse never stops: some reviews give no reason for their rating.

    Args:
        replies: all replies to both prompts, in any order; gone through once.
        items: raw id -> name of each item of the build, in index order.
        allow_missing: whether an item may lack a reply to T_obj or have one that does not parse.
        left_out: raw ids of the items that the data has and the build has not.
        ratings: (raw user id, raw item id) -> whether a rating in the training split is a like; None
            for a rating in another split. Needs to hold only what replies to T_sub are about; what it
            lacks does not exist.
        advice: what the user may do about a missing or unparseable reply, beside allowing it.

    Raises:
        InputError: a reply to T_obj for an item that does not exist; another reply for the same item
            or review; unless allowed, a missing or unparseable reply to T_obj; replies to T_sub none
            of which is about a rating that exists.
    """
    merger = _Merger(items, left_out, ratings)
    for reply in replies:
        merger.add(reply)
    merger.check(allow_missing, advice)
    return merger.annotations()


class _Merger:
    """Collects the keywords of each item, reply by reply, without holding on to the texts."""

    def __init__(
        self,
        items: Mapping[str, str],
        left_out: Collection[str],
        ratings: Mapping[tuple[str, str], bool | None],
    ) -> None:
        self._items, self._left_out, self._ratings = items, left_out, ratings
        self._seen: dict[tuple[str | None, str], tuple[str, bytes]] = {}
        self._words: dict[str, tuple[set[str], set[str]]] = {}
        self._unparsed: dict[str, str] = {}
        self._counts: dict[str, Counter[str]] = {"T_obj": Counter(), "T_sub": Counter()}
        self._first: dict[tuple[str, str], str] = {}
        self._files: dict[str, None] = {}

    def add(self, reply: ReplyLine) -> None:
        """Take in one reply."""
        self._files.setdefault(reply.place.rpartition(":")[0])
        outcome, what = self._outcome(reply)
        prompt = _prompt(reply)
        self._counts[prompt][outcome] += 1
        self._first.setdefault((prompt, outcome), f"{reply.place} ({what})")

    def _outcome(self, reply: ReplyLine) -> tuple[str, str]:
        """Return the name of the count that the reply belongs to, and a few words on it."""
        about = f"item {reply.item_id}"
        polarities: tuple[str, ...] = POLARITIES
        if reply.item_id in self._left_out:
            return "left_out", about
        if reply.user_id is not None:
            about = f"user {reply.user_id}, {about}"
            pair = (reply.user_id, reply.item_id)
            if pair not in self._ratings or reply.item_id not in self._items:
                return "unknown", about
            liked = self._ratings[pair]
            if liked is None:
                return "not_training", about
            polarities = ("pos",) if liked else ("neg",)
        elif reply.item_id not in self._items:
            raise InputError(f"{reply.place}: a reply for {about}, which does not exist")
        if self._is_repeated(reply, about):
            return "repeated", about
        parsed = parse_reply(reply.text, polarities, reply.cut)
        if parsed.problem is None:
            words = self._words.setdefault(reply.item_id, (set(), set()))
            for known, new in zip(words, parsed.keywords, strict=True):
                known |= new
            return "parsed", about
        if reply.user_id is None:
            self._unparsed[reply.item_id] = parsed.problem
        return "unparsed", f"{about}: {parsed.problem}"

    def _is_repeated(self, reply: ReplyLine, about: str) -> bool:
        digest = blake2b(reply.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        key = (reply.user_id, reply.item_id)
        if key not in self._seen:
            self._seen[key] = (reply.place, digest)
            return False
        place, known = self._seen[key]
        if known != digest:
            raise InputError(
                f"{reply.place}: a second reply for {about}, and another one (the first: {place}); "
                "keep one"
            )
        return True

    def check(self, allow_missing: bool, advice: str) -> None:
        """Raise an InputError where the replies do not suffice."""
        unknown, t_sub = self._counts["T_sub"]["unknown"], self._counts["T_sub"].total()
        if t_sub and unknown == t_sub:
            first = self._first["T_sub", "unknown"]
            raise InputError(
                f"{first}: no such rating; not one of {t_sub:,} replies to T_sub is about a rating "
                "of this dataset: are they another dataset's?"
            )
        if allow_missing:
            return
        hint = f"{advice}, or pass --allow-missing-replies"
        if self._unparsed:
            item, problem = next(iter(self._unparsed.items()))
            more = len(self._unparsed) - 1
            others = f" ({more:,} more do not parse either)" if more else ""
            raise InputError(
                f"{self._seen[None, item][0]}: the reply for item {item} ({self._items[item]}) does "
                f"not parse: {problem}{others}; {hint}"
            )
        missing = self._missing()
        if missing:
            raise InputError(
                f"{', '.join(self._files) or 'replies'}: no reply for {len(missing):,} of "
                f"{len(self._items):,} items, such as item {missing[0]} ({self._items[missing[0]]}); "
                f"{hint}"
            )

    def annotations(self) -> Annotations:
        """What was collected."""
        return Annotations(
            keywords={
                item: ItemKeywords(*map(frozenset, self._words[item]))
                for item in self._items
                if item in self._words
            },
            missing=self._missing(),
            unparsed=self._unparsed,
            t_obj=ReplyCounts(**self._counts["T_obj"]),
            t_sub=ReplyCounts(**self._counts["T_sub"]),
            notes=tuple(self._notes()),
        )

    def _missing(self) -> list[str]:
        return [item for item in self._items if (None, item) not in self._seen]

    def _notes(self) -> Iterator[str]:
        sentences = {
            "unparsed": "do not parse",
            "left_out": "are about items that the build left out",
            "not_training": "are about ratings that are not for training, and are ignored",
            "unknown": "are about ratings that do not exist, and are ignored",
            "repeated": "are there twice, word for word",
        }
        for prompt, counts in self._counts.items():
            for outcome, sentence in sentences.items():
                if counts[outcome]:
                    first = self._first[prompt, outcome]
                    yield f"{counts[outcome]:,} replies to {prompt} {sentence}; the first: {first}"


def _prompt(reply: ReplyLine) -> str:
    return "T_obj" if reply.user_id is None else "T_sub"
