"""Merging a language model's replies into the keywords of items.

D_pos = D_obj_pos U D_sub_pos and D_neg = D_obj_neg U D_sub_neg (the paper's Section "Subjective Item Description
Collection"), for each item: D_obj comes from the item's reply to T_obj, D_sub from the replies to T_sub about
reviews of it. Only reviews whose rating is in the training split count.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType

from jaxsim import InputError
from prep.features.keywords import ItemKeywords
from prep.replies import T_OBJ, T_SUB
from prep.replies.files import Reply
from prep.replies.parser import POLARITIES, parse_reply


@dataclass(frozen=True)
class ReplyCounts:
    """What became of the replies to one prompt; the counts add up to all of them.

    Attributes:
        parsed: gave keywords.
        unparsed: could not be parsed.
        left_out: are about an item that the build left out, or that a part of the published data lacks.
        not_training: are about a rating that is not in the training split (T_sub only).
        unknown: are about a rating that the data does not have (T_sub only).
        repeated: repeat another reply about the same item or review, word for word.
    """

    parsed: int = 0
    unparsed: int = 0
    left_out: int = 0
    not_training: int = 0
    unknown: int = 0
    repeated: int = 0


_SENTENCES = {
    "unparsed": "do not parse",
    "left_out": "are about items that the build left out",
    "not_training": "are about ratings that are not for training, and are ignored",
    "unknown": "are about ratings that do not exist, and are ignored",
    "repeated": "are there twice, word for word",
}


@dataclass(frozen=True)
class Annotations:
    """The replies of a whole dataset.

    Attributes:
        keywords: raw item id -> D_pos and D_neg, for each item with a reply to T_obj or T_sub that could be
            parsed, in the order of the items.
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


def vocabulary(replies: Iterable[Reply]) -> list[str]:
    """All keywords in replies, sorted; of both sides, as the ratings are not known."""
    words: set[str] = set()
    for reply in replies:
        # A reply to T_sub is asked for one side alone: it must not fail because it lacks the other.
        sides = [POLARITIES] if reply.user_id is None else [(side,) for side in POLARITIES]
        for side in sides:
            words.update(*parse_reply(reply.text, side, reply.cut).keywords)
    return sorted(words)


class ReplyMerger:
    """Collects the keywords of each item, reply by reply, without keeping the texts."""

    def __init__(
        self,
        items: Mapping[str, str],
        *,
        left_out: Collection[str] = frozenset(),
        ratings: Mapping[tuple[str, str], bool | None] = MappingProxyType({}),
        partial: bool = False,
    ) -> None:
        """Begin without replies.

        Args:
            items: raw id -> name of each item of the build, in index order.
            left_out: raw ids of the items that the data has and the build has not.
            ratings: (raw user id, raw item id) -> whether a rating in the training split is a like; None for a
                rating in another split. Needs to hold only what replies to T_sub are about; a pair that is not
                in it counts as a rating that does not exist.
            partial: whether the replies are known to be about a part of the published items, of which the data may
                be a part, too. Then an item without a reply is no error, nor is a reply about an unknown item.
        """
        self._items, self._left_out, self._ratings = items, left_out, ratings
        self._partial = partial
        self._seen: dict[tuple[str | None, str], tuple[str, bytes]] = {}
        self._keywords: dict[str, tuple[set[str], set[str]]] = {}
        self._unparsed: dict[str, str] = {}
        self._counts: dict[str, Counter[str]] = {T_OBJ: Counter(), T_SUB: Counter()}
        self._first: dict[tuple[str, str], str] = {}
        self._files: dict[str, None] = {}

    def add(self, reply: Reply) -> None:
        """Take in one reply; the order of replies does not matter.

        Raises:
            InputError: a reply to T_obj for an item that does not exist, or another reply for the same item or
                review.
        """
        self._files.setdefault(reply.place.rpartition(":")[0])
        outcome, description = self._merge(reply)
        prompt = T_OBJ if reply.user_id is None else T_SUB
        self._counts[prompt][outcome] += 1
        self._first.setdefault((prompt, outcome), f"{reply.place} ({description})")

    def _merge(self, reply: Reply) -> tuple[str, str]:
        """Return the name of the count that the reply belongs to, and a few words about it."""
        about = f"item {reply.item_id}"
        polarities: tuple[str, ...] = POLARITIES
        is_unknown = reply.item_id not in self._items
        if reply.item_id in self._left_out or (self._partial and is_unknown):
            return "left_out", about
        if reply.user_id is not None:
            about = f"user {reply.user_id}, {about}"
            pair = (reply.user_id, reply.item_id)
            if pair not in self._ratings or is_unknown:
                return "unknown", about
            liked = self._ratings[pair]
            if liked is None:
                return "not_training", about
            polarities = ("pos",) if liked else ("neg",)
        elif is_unknown:
            raise InputError(f"{reply.place}: a reply for {about}, which does not exist")
        if self._is_repeated(reply, about):
            return "repeated", about
        parsed = reply.parsed or parse_reply(reply.text, polarities, reply.cut)
        if parsed.problem is None:
            keywords = self._keywords.setdefault(reply.item_id, (set(), set()))
            for words, new in zip(keywords, parsed.keywords, strict=True):
                words |= new
            return "parsed", about
        if reply.user_id is None:
            self._unparsed[reply.item_id] = parsed.problem
        return "unparsed", f"{about}: {parsed.problem}"

    def _is_repeated(self, reply: Reply, about: str) -> bool:
        digest = blake2b(reply.text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        key = (reply.user_id, reply.item_id)
        if key not in self._seen:
            self._seen[key] = (reply.place, digest)
            return False
        place, first_digest = self._seen[key]
        if first_digest != digest:
            raise InputError(
                f"{reply.place}: a second reply for {about} that differs (the first: {place}); keep one"
            )
        return True

    def annotations(self, allow_missing: bool, advice: str = "correct it") -> Annotations:
        """The keywords of all items.

        A reply to T_sub that does not parse is never an error: some reviews give no reason for their rating.

        Args:
            allow_missing: whether an item may lack a reply to T_obj or have one that does not parse.
            advice: what the user may do about such a reply, besides allowing it.

        Raises:
            InputError: unless allowed, an unparseable reply to T_obj, or a missing one if the replies are not
                partial; or replies to T_sub none of which is about a rating that exists.
        """
        self._check_ratings()
        if not allow_missing:
            self._check_complete(f"{advice}, or pass --allow-missing-replies")
        return Annotations(
            keywords={
                item: ItemKeywords(*map(frozenset, self._keywords[item]))
                for item in self._items
                if item in self._keywords
            },
            missing=self._missing(),
            unparsed=self._unparsed,
            t_obj=ReplyCounts(**self._counts[T_OBJ]),
            t_sub=ReplyCounts(**self._counts[T_SUB]),
            notes=tuple(self._notes()),
        )

    def _check_ratings(self) -> None:
        unknown, total = self._counts[T_SUB]["unknown"], self._counts[T_SUB].total()
        if total and unknown == total:
            first = self._first[T_SUB, "unknown"]
            raise InputError(
                f"{first}: no such rating; none of {total:,} replies to T_sub is about a rating of this "
                "dataset: do they belong to another one?"
            )

    def _check_complete(self, advice: str) -> None:
        if self._unparsed:
            item, problem = next(iter(self._unparsed.items()))
            more = len(self._unparsed) - 1
            others = f" ({more:,} more do not parse either)" if more else ""
            raise InputError(
                f"{self._seen[None, item][0]}: the reply for item {item} ({self._items[item]}) does "
                f"not parse: {problem}{others}; {advice}"
            )
        missing = self._missing()
        if missing and not self._partial:
            raise InputError(
                f"{', '.join(self._files) or 'replies'}: no reply for {len(missing):,} of "
                f"{len(self._items):,} items, such as item {missing[0]} ({self._items[missing[0]]}); "
                f"{advice}"
            )

    def _missing(self) -> list[str]:
        return [item for item in self._items if (None, item) not in self._seen]

    def _notes(self) -> Iterator[str]:
        for prompt, counts in self._counts.items():
            for outcome, sentence in _SENTENCES.items():
                if counts[outcome]:
                    first = self._first[prompt, outcome]
                    yield f"{counts[outcome]:,} replies to {prompt} {sentence}; the first: {first}"
