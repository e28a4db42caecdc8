"""Running prompts through a language model, with every reply kept in the store.

Tasks are streamed: there may be millions. What the store has is not asked again; a reply that does not parse is
asked again with a note on what was wrong with it; a prompt that another process on the same store is asking is
waited for. Whatever stops a run, the next one goes on where it stopped.
"""

import sys
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

from tqdm import tqdm

from jaxsim import InputError
from prep.annotation.annotators.base import Annotator, Completion, Request
from prep.annotation.prompts import PROMPT_VERSION, T_OBJ, T_SUB, estimate_tokens, repair
from prep.annotation.store import AskedOf, Claim, ReplyStore, StoredReply, Task, TaskReply
from prep.replies.files import parse_reply

__all__ = [
    "ATTEMPTS",
    "AnnotationPlan",
    "AnnotationReport",
    "PromptPlan",
    "Task",
    "TaskReply",
    "asked_of",
    "plan",
    "run",
]

ATTEMPTS = 3
"""How often a prompt is asked in all, unless told otherwise, while its replies do not parse."""
TOKENS_OUT: Mapping[str, int] = {T_OBJ: 350, T_SUB: 180}
"""What a plan takes for the length of a reply while the store has none: about 60 tokens for each reason."""

_CHUNK = 64  # tasks that are looked up and claimed in one transaction
_POLL_S = 0.2
_ALL_COUNTED, _EVERY = (
    200,
    50,
)  # prompts whose tokens a plan counts: the first ones, then one in so many
_USABLE, _UNPARSEABLE, _FAILED = "usable", "unparseable", "failed"


def asked_of(annotator: Annotator) -> AskedOf:
    """What the replies of an annotator to this version's prompts are stored under."""
    by_subject = getattr(annotator, "by_subject", False)
    return AskedOf(
        PROMPT_VERSION, annotator.model, annotator.revision, annotator.sampling, by_subject
    )


@dataclass(frozen=True)
class AnnotationReport:
    """What became of the tasks of a run.

    Attributes:
        tasks: how many there were; the next three add up to them.
        usable: tasks with a reply that has keywords.
        unparseable: tasks whose replies, as many as were allowed, could not be used; the store keeps them.
        failed: tasks without a reply, which the next run asks again.
        stored_before: of the usable ones, those whose reply was in the store when they were looked up.
        received: replies that came in during the run, usable or not.
        tokens_in, tokens_out: tokens of these, as far as the model counted them.
        first_unparseable, first_failure: the item and the reason; empty if there is none.
        store: the open store that has the replies.
        run: the number of the run in it.
    """

    tasks: int
    usable: int
    unparseable: int
    failed: int
    stored_before: int
    received: int
    tokens_in: int
    tokens_out: int
    first_unparseable: str
    first_failure: str
    store: ReplyStore
    run: int

    def replies(self) -> Iterator[TaskReply]:
        """Yield the usable replies in the order of the tasks, for as long as the store is open."""
        return self.store.usable_replies(self.run)

    def check(self, advice: str = "run the same command again to ask for just these") -> None:
        """Make sure that every prompt got a reply.

        Args:
            advice: what the user should do if not.

        Raises:
            InputError: some did not; the message tells how many, why the first one, and what to do.
        """
        if self.failed:
            raise InputError(
                f"{self.failed:,} of {self.tasks:,} prompts got no reply ({self.first_failure}): {advice}"
            )

    def notes(self) -> list[str]:
        """What the user should know of a run that went through, a sentence each."""
        if not self.unparseable:
            return []
        return [
            f"{self.unparseable:,} of {self.tasks:,} prompts got no reply that could be used, however often they "
            f"were asked ({self.first_unparseable}); the replies are kept in {self.store.path}"
        ]


def run(
    tasks: Iterable[Task],
    annotator: Annotator,
    store: ReplyStore,
    attempts: int = ATTEMPTS,
    total: int | None = None,
) -> AnnotationReport:
    """Get a reply for each task, from the store or else from the annotator.

    Args:
        tasks: in any order; taken as they are needed.
        annotator: the language model.
        store: where replies are, and are put.
        attempts: how often a prompt is asked in all, earlier runs included, while its replies do not parse.
        total: how many tasks there are, for the progress bar; None if that is not known.

    Raises:
        InputError: the annotator cannot answer anything, or the store cannot be written. What was stored stays.
    """
    with tqdm(desc="prompts", total=total, unit="", disable=None, delay=1) as bar:
        running = _Run(tasks, annotator, store, attempts, bar)
        try:
            running.go()
        except KeyboardInterrupt:
            bar.close()
            print(
                f"{running.counts['received']:,} new replies are stored in {store.path}; run the same command "
                "again to go on",
                file=sys.stderr,
            )
            raise
        finally:
            store.release_all()
    return running.report()


class _Verdict(NamedTuple):
    """What is to become of a task: its outcome, and the attempt that gave the reply or the problem of the last."""

    outcome: str
    attempt: int | None = None
    problem: str = ""


class _Asked(NamedTuple):
    """A prompt that is this process's to ask: its key, its task and the earlier replies."""

    key: str
    task: Task
    replies: Sequence[StoredReply]

    def request(self) -> Request:
        """What the annotator is sent."""
        _, item_id, user_id, prompt, _ = self.task
        if self.replies:
            last = self.replies[-1]
            prompt = repair(prompt, last.text, _problem(self.task, last) or "it was not accepted")
        return Request(f"{self.key}-{len(self.replies) + 1}", prompt, item_id, user_id)


class _Run:
    """The state of a run. An annotator may take its requests in a thread of its own, hence the lock."""

    def __init__(
        self,
        tasks: Iterable[Task],
        annotator: Annotator,
        store: ReplyStore,
        attempts: int,
        bar: Any,
    ) -> None:
        self._tasks, self._annotator, self._store = iter(tasks), annotator, store
        self._attempts, self._bar = attempts, bar
        self._asked_of = asked_of(annotator)
        self._lock = threading.RLock()
        self._number = store.new_run()
        self._queue: deque[_Asked] = deque()
        self._in_flight: dict[str, _Asked] = {}
        self._waiting: dict[str, Task] = {}  # another process is asking these
        self._first: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def go(self) -> None:
        """Ask until every task is settled."""
        while True:
            requests = self._requests()
            first = next(requests, None)
            if first is not None:
                self._ask(chain([first], requests))
            elif self._waiting:
                time.sleep(_POLL_S)
            else:
                return

    def _ask(self, requests: Iterator[Request]) -> None:
        with _closed(self._annotator.complete(requests)) as completions:
            for completion in completions:
                self._receive(completion)
        for key in list(self._in_flight):
            self._receive(Completion(key, None, "the language model left it out"))

    def report(self) -> AnnotationReport:
        """What became of the tasks."""
        outcomes = self._store.count_outcomes(self._number)
        return AnnotationReport(
            tasks=self.counts["tasks"],
            usable=outcomes.get(_USABLE, 0),
            unparseable=outcomes.get(_UNPARSEABLE, 0),
            failed=outcomes.get(_FAILED, 0),
            stored_before=self.counts["stored"],
            received=self.counts["received"],
            tokens_in=self.counts["tokens in"],
            tokens_out=self.counts["tokens out"],
            first_unparseable=self._first.get(_UNPARSEABLE, ""),
            first_failure=self._first.get(_FAILED, ""),
            store=self._store,
            run=self._number,
        )

    def _requests(self) -> Iterator[Request]:
        while True:
            with self._lock:
                while not self._queue:
                    if not self._take_more():
                        return
                asked = self._queue.popleft()
                request = asked.request()
                self._in_flight[request.key] = asked
            yield request

    def _take_more(self) -> bool:
        """Look at what others were asking and at the next tasks; False if there is nothing left to look at."""
        self._take(list(self._waiting.items()))
        tasks = list(islice(self._tasks, _CHUNK))
        pairs = [(self._asked_of.key_of(task), task) for task in tasks]
        self._take(pairs)
        self._store.add_to_run(self._number, self.counts["tasks"], pairs)
        self.counts["tasks"] += len(pairs)
        return bool(tasks or self._queue)

    def _take(self, pairs: Sequence[tuple[str, Task]]) -> None:
        """Settle the tasks whose replies are stored, and queue those that are this process's to ask."""
        sharing: defaultdict[str, list[Task]] = defaultdict(list)
        for key, task in pairs:
            sharing[key].append(task)
        stored = self._store.replies(sharing)
        verdicts = {
            key: _verdict(tasks[0], stored[key], self._attempts) for key, tasks in sharing.items()
        }
        settled = {key: verdict for key, verdict in verdicts.items() if verdict}
        claims = self._store.claim(self._asked_of, sharing, settled)
        for key, verdict in settled.items():
            self._settle_stored(key, sharing[key], verdict)
        for key, claim in claims.items():
            self._use_claim(key, sharing[key], claim)

    def _use_claim(self, key: str, tasks: Sequence[Task], claim: Claim) -> None:
        verdict = _verdict(tasks[0], claim.replies, self._attempts)
        if claim.granted and verdict:  # another process stored the reply a moment ago
            self._store.release(key)
            self._settle_stored(key, tasks, verdict)
        elif claim.granted:
            self._waiting.pop(key, None)
            self._queue.append(_Asked(key, tasks[0], claim.replies))
            self._show(len(tasks) - 1)
        elif claim.mine:
            self._show(len(tasks))
        elif key not in self._waiting:
            self._waiting[key] = tasks[0]
            self._show(len(tasks) - 1)

    def _settle_stored(self, key: str, tasks: Sequence[Task], verdict: _Verdict) -> None:
        self._waiting.pop(key, None)
        if verdict.outcome == _USABLE:
            self.counts["stored"] += len(tasks)
        self._settle(key, tasks[0], verdict)
        self._show(len(tasks))

    def _settle(self, key: str, task: Task, verdict: _Verdict) -> None:
        self._store.set_outcome(self._number, key, verdict.outcome, verdict.attempt)
        if verdict.outcome != _USABLE:
            self.counts[verdict.outcome] += 1
            self._first.setdefault(verdict.outcome, f"item {task.item_id}: {verdict.problem}")

    def _receive(self, completion: Completion) -> None:
        """Store a reply, and settle its task or queue it to be asked again."""
        with self._lock:
            asked = self._in_flight.pop(completion.key, None)
            if asked is None:
                return  # a cluster may answer twice when it retries; the first answer counts
            if completion.text is None:
                self._store.release(asked.key)
                verdict = _Verdict(_FAILED, problem=completion.failure or "no reason given")
                self._settle(asked.key, asked.task, verdict)
                self._show(1)
                return
            self.counts["received"] += 1
            self.counts["tokens in"] += completion.tokens_in
            self.counts["tokens out"] += completion.tokens_out
            reply = StoredReply(len(asked.replies) + 1, completion.text, completion.cut)
            replies = (*asked.replies, reply)
            again = _verdict(asked.task, replies, self._attempts)
            self._store.add_reply(asked.key, completion, release=again is not None)
            if again is None:
                self._queue.append(asked._replace(replies=replies))
                self._show(0)
            else:
                self._settle(asked.key, asked.task, again)
                self._show(1)

    def _show(self, settled: int) -> None:
        self._bar.update(settled)
        counts = self.counts
        self._bar.set_postfix_str(
            f"{counts['stored']:,} stored before, {counts[_UNPARSEABLE]:,} unparseable, "
            f"{counts[_FAILED]:,} failed, {counts['tokens in'] + counts['tokens out']:,} tokens"
            + (f", {len(self._waiting):,} asked by others" if self._waiting else ""),
            refresh=False,
        )


def _verdict(task: Task, replies: Sequence[StoredReply], attempts: int) -> _Verdict | None:
    """What becomes of a task with these replies; None if it is to be asked again."""
    problem = ""
    for reply in replies:
        problem = _problem(task, reply) or ""
        if not problem:
            return _Verdict(_USABLE, reply.attempt)
    return _Verdict(_UNPARSEABLE, problem=problem) if len(replies) >= attempts else None


def _problem(task: Task, reply: StoredReply) -> str | None:
    return parse_reply(reply.text, task.polarities, reply.cut).problem


@contextmanager
def _closed(completions: Iterator[Completion]) -> Iterator[Iterator[Completion]]:
    """Close an iterator, if that can be done, so that an annotator ends what is in flight."""
    try:
        yield completions
    finally:
        close = getattr(completions, "close", None)
        if close is not None:
            close()


@dataclass(frozen=True)
class PromptPlan:
    """What is still to be asked of one kind of prompt.

    Attributes:
        prompt_name: "T_obj" or "T_sub".
        tasks: how many tasks there are, shared prompts counted each time.
        stored: how many of them have a usable reply.
        unparseable: how many have been asked as often as they may.
        calls: how many prompts have to be asked, each at least once.
        tokens_in: tokens of these.
        tokens_in_from: how that number was found.
        tokens_out: tokens of their replies.
        tokens_out_from: how that number was found.
    """

    prompt_name: str
    tasks: int
    stored: int
    unparseable: int
    calls: int
    tokens_in: int
    tokens_in_from: str
    tokens_out: int
    tokens_out_from: str


@dataclass(frozen=True)
class AnnotationPlan:
    """What a run would ask, each kind of prompt apart."""

    prompts: Sequence[PromptPlan]

    @property
    def calls(self) -> int:
        """How many prompts have to be asked."""
        return sum(prompt.calls for prompt in self.prompts)

    @property
    def tokens_in(self) -> int:
        """Tokens of these prompts."""
        return sum(prompt.tokens_in for prompt in self.prompts)

    @property
    def tokens_out(self) -> int:
        """Tokens of their replies."""
        return sum(prompt.tokens_out for prompt in self.prompts)

    def cost(self, price_in: float, price_out: float) -> float:
        """What they cost, in the currency of the prices, which are for a million tokens."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6

    def lines(self, price_in: float, price_out: float) -> list[str]:
        """Write the plan for people, with what it costs at prices for a million tokens in and out."""
        lines = [
            f"{each.prompt_name}: {each.calls:,} calls to make; {each.stored:,} of {each.tasks:,} replies are "
            f"stored, {each.unparseable:,} given up; {each.tokens_in:,} tokens in ({each.tokens_in_from}), "
            f"{each.tokens_out:,} tokens out ({each.tokens_out_from})"
            for each in self.prompts
        ]
        total = (
            f"together: {self.calls:,} calls, {self.tokens_in:,} tokens in, {self.tokens_out:,} tokens out; "
            f"cost {self.cost(price_in, price_out):,.2f} at {price_in:g} and {price_out:g} a million; "
            "replies that do not parse are asked again and come on top"
        )
        return [*lines, total]


def plan(
    tasks: Iterable[Task], annotator: Annotator, store: ReplyStore | None, attempts: int = ATTEMPTS
) -> AnnotationPlan:
    """Count what `run` would ask, without asking anything.

    Args:
        tasks: as for `run`; gone through once.
        annotator: the language model.
        store: where replies are; None if there is no store yet.
        attempts: as for `run`.

    Raises:
        InputError: the store cannot be read.
    """
    planners: dict[str, _Planner] = {}
    known = asked_of(annotator)
    means = store.mean_tokens_out(known) if store else {}
    tasks = iter(tasks)
    while chunk := list(islice(tasks, _CHUNK)):
        keys = [known.key_of(task) for task in chunk]
        stored = store.replies(keys) if store else {}
        for key, task in zip(keys, chunk, strict=True):
            name = task.prompt_name
            if name not in planners:
                planners[name] = _Planner(name, annotator, means.get(name))
            planners[name].add(key, task, stored.get(key, []), attempts)
    return AnnotationPlan([planner.plan() for planner in planners.values()])


class _Planner:
    """Counts the calls of one kind of prompt, and the tokens of a sample of them."""

    def __init__(self, name: str, annotator: Annotator, mean_out: float | None) -> None:
        self._name, self._annotator, self._mean_out = name, annotator, mean_out
        self._counts: Counter[str] = Counter()
        self._seen: set[int] = set()
        self._characters = self._sample_characters = self._sample_tokens = self._sampled = 0
        self._counted_by_model = True

    def add(self, key: str, task: Task, replies: Sequence[StoredReply], attempts: int) -> None:
        """Count a task with what is stored of it."""
        self._counts["tasks"] += 1
        verdict = _verdict(task, replies, attempts)
        short = int(key[:16], 16)
        if verdict is not None:
            self._counts[verdict.outcome] += 1
        elif short not in self._seen:
            self._seen.add(short)
            self._measure(_Asked(key, task, replies).request().prompt)

    def plan(self) -> PromptPlan:
        """The sums."""
        calls = len(self._seen)
        tokens_in = self._characters * self._sample_tokens / max(self._sample_characters, 1)
        by = "counted by the model" if self._counted_by_model and calls else "estimated"
        sampled = "" if self._sampled == calls else f" on {self._sampled:,} of them"
        longest = self._annotator.sampling.max_tokens
        mean_out = min(self._mean_out or TOKENS_OUT.get(self._name, longest), longest)
        return PromptPlan(
            prompt_name=self._name,
            tasks=self._counts["tasks"],
            stored=self._counts[_USABLE],
            unparseable=self._counts[_UNPARSEABLE],
            calls=calls,
            tokens_in=round(tokens_in),
            tokens_in_from=f"{by}{sampled}",
            tokens_out=round(calls * mean_out),
            tokens_out_from=f"{mean_out:.0f} a reply, "
            + ("as stored so far" if self._mean_out else "assumed"),
        )

    def _measure(self, prompt: str) -> None:
        self._characters += len(prompt)
        if len(self._seen) > _ALL_COUNTED and len(self._seen) % _EVERY:
            return
        counted = self._annotator.count_tokens(prompt)
        if counted is None:
            self._counted_by_model = False
            counted = estimate_tokens(prompt)
        self._sampled += 1
        self._sample_characters += len(prompt)
        self._sample_tokens += counted
