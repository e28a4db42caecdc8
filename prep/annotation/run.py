"""Getting a reply for every prompt of a dataset, from the store or from a language model.

Tasks are streamed, because there may be millions. A prompt whose reply is stored is not asked again. A reply that
does not parse is asked for again, with a note on what is wrong with it. Whatever stops a run, the next run
continues where it stopped.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxsim import InputError
from prep.annotation.annotators.base import Annotator, Completion, Request
from prep.annotation.exchange import FAILED, UNPARSEABLE, USABLE, Exchange, settings_of
from prep.annotation.store import ModelSettings, ReplyStore
from prep.annotation.tasks import Task
from prep.replies.files import Reply

ATTEMPTS = 3
"""How often a prompt is asked in all while its replies do not parse, by default."""

_CHUNK = 64  # tasks that are looked up in one transaction


@dataclass(frozen=True)
class AnnotationReport:
    """What became of the tasks of a run.

    Attributes:
        usable: tasks with a reply that has keywords.
        unparseable: tasks whose replies, as many as were allowed, could not be used; the store keeps them.
        failed: tasks without a reply, which the next run asks again.
        stored_before: of the usable ones, those whose reply was in the store already.
        received: replies that came in during the run, usable or not.
        tokens_in, tokens_out: tokens of these, as far as the model counted them.
        first_unparseable, first_failure: the item and the reason; empty if there is none.
        store_path: the store that has the replies.
    """

    usable: int
    unparseable: int
    failed: int
    stored_before: int
    received: int
    tokens_in: int
    tokens_out: int
    first_unparseable: str
    first_failure: str
    store_path: Path

    @property
    def tasks(self) -> int:
        """How many tasks there were."""
        return self.usable + self.unparseable + self.failed

    def check(self, advice: str = "run the same command again to ask for just these") -> None:
        """Make sure that every prompt got a reply.

        Args:
            advice: what the user should do if not.

        Raises:
            InputError: some did not; the message says how many, why the first one did not, and what to do.
        """
        if self.failed:
            raise InputError(
                f"{self.failed:,} of {self.tasks:,} prompts got no reply ({self.first_failure}): {advice}"
            )

    def notes(self) -> list[str]:
        """What the user should know about a run that succeeded, a sentence each."""
        if not self.unparseable:
            return []
        return [
            f"{self.unparseable:,} of {self.tasks:,} prompts got no reply that could be used, however often they "
            f"were asked ({self.first_unparseable}); the replies are kept in {self.store_path}"
        ]


def ignore_reply(reply: Reply) -> None:
    """Do nothing with a reply."""


def run(
    tasks: Iterable[Task],
    annotator: Annotator,
    store: ReplyStore,
    use: Callable[[Reply], None] = ignore_reply,
    attempts: int = ATTEMPTS,
    total: int | None = None,
) -> AnnotationReport:
    """Get a reply for each task, from the store or else from the annotator.

    Args:
        tasks: in any order; taken as they are needed.
        annotator: the language model.
        store: where the replies are, and where new ones are put.
        use: called with the parsed reply of each task as soon as nothing more is asked for it: the usable
            reply, or else the last one that did not parse. Not called for tasks without any reply.
        attempts: how often a prompt is asked in all, earlier runs included, while its replies do not parse.
        total: how many tasks there are, for the progress bar; None if that is not known.

    Raises:
        InputError: the annotator cannot answer anything, or the store cannot be written. What was stored stays.
    """
    with tqdm(desc="prompts", total=total, unit="", disable=None, delay=1) as bar:
        running = _Run(tasks, annotator, store, use, attempts, bar)
        try:
            running.ask_all()
        except KeyboardInterrupt:
            bar.close()
            raise KeyboardInterrupt(
                f"{running.received:,} new replies are stored in {store.path}; run the same command "
                "again to continue"
            ) from None
    return running.report()


def lookup(
    tasks: Iterable[Task], settings: ModelSettings, store: ReplyStore | None, enter: bool = False
) -> Iterator[list[Exchange]]:
    """Yield the tasks in chunks, as exchanges with their stored replies; equal prompts of a chunk share one.

    Args:
        tasks: taken as they are needed.
        settings: who is asked.
        store: where replies are; None if there is no store yet.
        enter: whether to enter the prompts in the store.
    """
    tasks = iter(tasks)
    while chunk := list(islice(tasks, _CHUNK)):
        sharing: dict[str, list[Task]] = {}
        for task in chunk:
            sharing.setdefault(settings.key(task), []).append(task)
        if store is not None and enter:
            store.add_prompts(settings, sharing)
        stored = store.replies(sharing) if store is not None else {}
        yield [Exchange.of(key, group, stored.get(key, ())) for key, group in sharing.items()]


class _Run:
    """The state of a run. Everything happens in one thread: annotators take their requests in the caller's."""

    def __init__(
        self,
        tasks: Iterable[Task],
        annotator: Annotator,
        store: ReplyStore,
        use: Callable[[Reply], None],
        attempts: int,
        bar: Any,
    ) -> None:
        self._annotator, self._store, self._use = annotator, store, use
        self._attempts, self._bar = attempts, bar
        self._chunks = lookup(tasks, settings_of(annotator), store, enter=True)
        self._queue: deque[Exchange] = deque()
        self._in_flight: dict[str, Exchange] = {}  # by the key of the request
        self._open: dict[str, Exchange] = {}  # queued or in flight, by the key of the prompt
        self._failures: dict[str, str] = {}  # key of a prompt -> why it got no reply
        self._first: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    @property
    def received(self) -> int:
        """How many replies came in."""
        return self._counts["received"]

    def ask_all(self) -> None:
        """Ask until every task is settled."""
        while True:
            requests = self._requests()
            first = next(requests, None)
            if first is None:  # then the annotator need not even start
                return
            with closing(self._annotator.complete(chain([first], requests))) as completions:
                for completion in completions:
                    self._receive(completion)
            for key in list(self._in_flight):
                self._receive(Completion(key, None, "the language model left it out"))

    def report(self) -> AnnotationReport:
        """What became of the tasks."""
        return AnnotationReport(
            usable=self._counts[USABLE],
            unparseable=self._counts[UNPARSEABLE],
            failed=self._counts[FAILED],
            stored_before=self._counts["stored"],
            received=self.received,
            tokens_in=self._counts["tokens in"],
            tokens_out=self._counts["tokens out"],
            first_unparseable=self._first.get(UNPARSEABLE, ""),
            first_failure=self._first.get(FAILED, ""),
            store_path=self._store.path,
        )

    def _requests(self) -> Iterator[Request]:
        while True:
            while not self._queue:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return
                self._take(chunk)
            exchange = self._queue.popleft()
            request = exchange.request()
            self._in_flight[request.key] = exchange
            yield request

    def _take(self, chunk: Sequence[Exchange]) -> None:
        """Settle what needs no asking, and queue the rest."""
        for exchange in chunk:
            outcome = exchange.outcome(self._attempts)
            if exchange.key in self._open:
                self._open[exchange.key].tasks += exchange.tasks
            elif exchange.key in self._failures:
                self._settle(exchange, FAILED)
            elif outcome is None:
                self._open[exchange.key] = exchange
                self._queue.append(exchange)
            else:
                self._counts["stored"] += len(exchange.tasks) if outcome == USABLE else 0
                self._settle(exchange, outcome)

    def _receive(self, completion: Completion) -> None:
        """Store a reply, and settle its exchange or queue it to be asked again."""
        exchange = self._in_flight.pop(completion.key, None)
        if exchange is None:
            return  # a cluster may answer twice when it retries; the first answer counts
        if completion.text is None:
            self._failures[exchange.key] = completion.failure or "no reason given"
            self._settle(exchange, FAILED)
            return
        self._counts["received"] += 1
        self._counts["tokens in"] += completion.tokens_in
        self._counts["tokens out"] += completion.tokens_out
        exchange.add(self._store.add_reply(exchange.key, completion))
        outcome = exchange.outcome(self._attempts)
        if outcome is None:
            self._queue.append(exchange)
        else:
            self._settle(exchange, outcome)

    def _settle(self, exchange: Exchange, outcome: str) -> None:
        """Count an exchange for which nothing more is asked, and hand on its reply."""
        self._open.pop(exchange.key, None)
        self._counts[outcome] += len(exchange.tasks)
        if outcome != USABLE:
            reason = self._failures.get(exchange.key, exchange.problem)
            self._first.setdefault(outcome, f"item {exchange.tasks[0].item_id}: {reason}")
        for reply in exchange.replies(str(self._store.path)):
            self._use(reply)
        counts = self._counts
        self._bar.update(len(exchange.tasks))
        self._bar.set_postfix_str(
            f"{counts['stored']:,} stored before, {counts[UNPARSEABLE]:,} unparseable, "
            f"{counts[FAILED]:,} failed, {counts['tokens in'] + counts['tokens out']:,} tokens",
            refresh=False,
        )
