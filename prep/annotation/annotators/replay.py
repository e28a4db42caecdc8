"""Recorded replies, behind the interface of a language model."""

import hashlib
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Request, Sampling
from prep.replies.files import Reply, read_replies


class ReplayAnnotator:
    """Answers from files of replies, by item or by user and item.

    The reply is the same however often a prompt is asked: use `attempts` 1. By default its revision is a digest
        of the
    files, so that replies of another recording in the store are not used.
    """

    by_subject = True

    def __init__(
        self,
        paths: Sequence[Path],
        model: str = "recorded",
        revision: str = "",
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        *,
        strict: bool = False,
    ) -> None:
        """Read the files.

        Args:
            paths: JSON lines as `prep.replies.files.read_replies` takes them.
            model, revision, sampling: who wrote them and how, for the store.
            strict: stop at the first line that cannot be read.

        Raises:
            InputError: a file cannot be read, or two replies are about the same.
        """
        self._replies: dict[tuple[str | None, str], Reply] = {}
        digest = hashlib.sha256()
        for path in paths:
            file = read_replies(path, strict)
            digest.update(file.sha256.encode())
            for reply in file.lines:
                first = self._replies.setdefault((reply.user_id, reply.item_id), reply)
                if first.text != reply.text:
                    user = "" if reply.user_id is None else f" and user {reply.user_id}"
                    raise InputError(
                        f"{reply.place}: a second reply for item {reply.item_id}{user} that differs "
                        f"(the first: {first.place}); keep one"
                    )

        self.model, self.sampling = model, sampling
        self.revision = revision or f"sha256:{digest.hexdigest()}"

    def count_tokens(self, prompt: str) -> int | None:
        """None: no model reads the prompt."""
        return None

    def complete(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """Answer each request with what was recorded for its item and user."""
        for request in requests:
            reply = self._replies.get((request.user_id, request.item_id))
            if reply is None:
                yield Completion(request.key, None, "no recorded reply")
            else:
                yield Completion(request.key, reply.text, cut=reply.cut)
