"""A prompt with the replies to it so far: what it still needs, and what is sent next."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prep.annotation.annotators.base import Annotator, Completion, Request
from prep.annotation.prompts import PROMPT_VERSION, repair
from prep.annotation.store import ModelSettings
from prep.annotation.tasks import Task
from prep.replies.files import Reply
from prep.replies.parser import ParsedReply, parse_reply

USABLE, UNPARSEABLE, FAILED = "usable", "unparseable", "failed"


def settings_of(annotator: Annotator) -> ModelSettings:
    """What the replies of an annotator to this version's prompts are stored under."""
    by_subject = getattr(annotator, "by_subject", False)
    return ModelSettings(
        PROMPT_VERSION, annotator.model, annotator.revision, annotator.sampling, by_subject
    )


@dataclass
class Exchange:
    """A prompt and the replies to it. Each reply is parsed once, when it is added.

    Attributes:
        key: under which the store has the prompt.
        tasks: the tasks that share the prompt, at least one.
        attempts: how many replies there are.
        reply: the first usable reply or, while there is none, the last one; None if there is none at all.
        parsed: what `reply` says; None if there is none.
    """

    key: str
    tasks: list[Task]
    attempts: int = 0
    reply: Completion | None = None
    parsed: ParsedReply | None = field(default=None)

    @classmethod
    def of(cls, key: str, tasks: Sequence[Task], stored: Iterable[Completion]) -> "Exchange":
        """Begin with the replies that are stored."""
        exchange = cls(key, list(tasks))
        for reply in stored:
            exchange.add(reply)
        return exchange

    def add(self, reply: Completion) -> None:
        """Take in the next reply, which has a text."""
        self.attempts += 1
        if self.parsed is None or self.parsed.problem is not None:
            self.reply = reply
            self.parsed = parse_reply(reply.text or "", self.tasks[0].polarities, reply.cut)

    @property
    def problem(self) -> str:
        """Why the last reply cannot be used; empty if it can, or if there is none."""
        return (self.parsed and self.parsed.problem) or ""

    def outcome(self, attempts: int) -> str | None:
        """`USABLE`, `UNPARSEABLE` after so many attempts, or None if the prompt has to be asked."""
        if self.parsed is not None and self.parsed.problem is None:
            return USABLE
        return UNPARSEABLE if self.attempts >= attempts else None

    def request(self) -> Request:
        """What the annotator is sent next: the prompt, with a note about the last reply if there was one."""
        task = self.tasks[0]
        prompt = task.prompt
        if self.reply is not None:
            prompt = repair(prompt, self.reply.text or "", self.problem)
        return Request(f"{self.key}-{self.attempts + 1}", prompt, task.item_id, task.user_id)

    def replies(self, place: str) -> list[Reply]:
        """The reply of each task; empty if there is none.

        Args:
            place: where the replies are stored, for messages.
        """
        if self.reply is None:
            return []
        return [
            Reply(
                place=f"{place}:{task.item_id}",
                item_id=task.item_id,
                text=self.reply.text or "",
                user_id=task.user_id,
                cut=self.reply.cut,
                parsed=self.parsed,
            )
            for task in self.tasks
        ]
