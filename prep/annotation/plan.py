"""Counting what a run would ask, and what it would cost, without asking anything."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prep.annotation.annotators.base import Annotator
from prep.annotation.exchange import UNPARSEABLE, USABLE, Exchange, settings_of
from prep.annotation.prompts import estimate_tokens
from prep.annotation.run import ATTEMPTS, lookup
from prep.annotation.store import ReplyStore
from prep.annotation.tasks import Task
from prep.replies import T_OBJ, T_SUB

TOKENS_OUT: Mapping[str, int] = {T_OBJ: 350, T_SUB: 180}
"""The length of a reply that a plan assumes while the store has none: about 60 tokens for each reason."""

# Prompts whose tokens are counted: all of the first ones, then one in every so many.
_ALL_COUNTED, _COUNT_EVERY = 200, 50


@dataclass(frozen=True)
class PromptPlan:
    """What is still to be asked of one kind of prompt.

    Attributes:
        prompt_name: "T_obj" or "T_sub".
        tasks: how many tasks there are, shared prompts counted each time.
        stored: how many of them have a usable reply.
        unparseable: how many have been asked as often as allowed.
        calls: how many prompts have to be asked, each at least once.
        tokens_in: tokens of these.
        tokens_in_from: where that number comes from.
        tokens_out: tokens of their replies.
        tokens_out_from: where that number comes from.
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
    """What a run would ask, by kind of prompt."""

    prompts: Sequence[PromptPlan]

    def lines(self, price_in: float, price_out: float) -> list[str]:
        """Write the plan for people.

        Args:
            price_in, price_out: of a million tokens in and out, in any currency.
        """
        lines = [
            f"{each.prompt_name}: {each.calls:,} calls to make; {each.stored:,} of {each.tasks:,} replies are "
            f"stored, {each.unparseable:,} given up; {each.tokens_in:,} tokens in ({each.tokens_in_from}), "
            f"{each.tokens_out:,} tokens out ({each.tokens_out_from})"
            for each in self.prompts
        ]
        total = (
            f"together: {self._sum('calls'):,} calls, {self._sum('tokens_in'):,} tokens in, "
            f"{self._sum('tokens_out'):,} tokens out; cost {self._cost(price_in, price_out):,.2f} "
            f"at {price_in:g} and {price_out:g} a million; "
            "replies that do not parse are asked for again, which costs more"
        )
        return [*lines, total]

    def as_json(self, price_in: float, price_out: float) -> dict[str, Any]:
        """The same numbers as plain values."""
        names = ("calls", "tokens_in", "tokens_out")
        return {
            "prompts": [asdict(each) for each in self.prompts],
            **{name: self._sum(name) for name in names},
            "price_in": price_in,
            "price_out": price_out,
            "cost": self._cost(price_in, price_out),
        }

    def _sum(self, name: str) -> int:
        return sum(getattr(each, name) for each in self.prompts)

    def _cost(self, price_in: float, price_out: float) -> float:
        return (self._sum("tokens_in") * price_in + self._sum("tokens_out") * price_out) / 1e6


def plan(
    tasks: Iterable[Task], annotator: Annotator, store: ReplyStore | None, attempts: int = ATTEMPTS
) -> AnnotationPlan:
    """Count what `prep.annotation.run.run` would ask, without asking anything.

    Args:
        tasks: as for `run`; gone through once.
        annotator: the language model.
        store: where replies are; None if there is no store yet.
        attempts: as for `run`.

    Raises:
        InputError: the store cannot be read.
    """
    planners: dict[str, _Planner] = {}
    settings = settings_of(annotator)
    means = store.mean_tokens_out(settings) if store else {}
    for chunk in lookup(tasks, settings, store):
        for exchange in chunk:
            name = exchange.tasks[0].prompt_name
            if name not in planners:
                planners[name] = _Planner(name, annotator, means.get(name))
            planners[name].add(exchange, attempts)
    return AnnotationPlan([planner.plan() for planner in planners.values()])


class _Planner:
    """Counts the calls of one kind of prompt, and the tokens of a sample of them."""

    def __init__(self, name: str, annotator: Annotator, mean_out: float | None) -> None:
        self._name, self._annotator, self._mean_out = name, annotator, mean_out
        self._counts: Counter[str] = Counter()
        self._to_ask: set[int] = set()  # short keys: there may be millions
        self._characters = self._sample_characters = self._sample_tokens = self._sampled = 0
        self._counted_by_model = True

    def add(self, exchange: Exchange, attempts: int) -> None:
        """Count a prompt with the replies that are stored."""
        self._counts["tasks"] += len(exchange.tasks)
        outcome = exchange.outcome(attempts)
        short_key = int(exchange.key[:16], 16)
        if outcome is not None:
            self._counts[outcome] += len(exchange.tasks)
        elif short_key not in self._to_ask:
            self._to_ask.add(short_key)
            self._measure(exchange.request().prompt)

    def plan(self) -> PromptPlan:
        """The sums."""
        calls = len(self._to_ask)
        tokens_in = self._characters * self._sample_tokens / max(self._sample_characters, 1)
        by = "counted by the model" if self._counted_by_model and calls else "estimated"
        sampled = "" if self._sampled == calls else f" on {self._sampled:,} of them"
        longest = self._annotator.sampling.max_tokens
        mean_out = min(self._mean_out or TOKENS_OUT.get(self._name, longest), longest)
        return PromptPlan(
            prompt_name=self._name,
            tasks=self._counts["tasks"],
            stored=self._counts[USABLE],
            unparseable=self._counts[UNPARSEABLE],
            calls=calls,
            tokens_in=round(tokens_in),
            tokens_in_from=f"{by}{sampled}",
            tokens_out=round(calls * mean_out),
            tokens_out_from=f"{mean_out:.0f} a reply, "
            + ("as stored so far" if self._mean_out else "assumed"),
        )

    def _measure(self, prompt: str) -> None:
        self._characters += len(prompt)
        if len(self._to_ask) > _ALL_COUNTED and len(self._to_ask) % _COUNT_EVERY:
            return
        tokens = self._annotator.count_tokens(prompt)
        if tokens is None:
            self._counted_by_model = False
            tokens = estimate_tokens(prompt)
        self._sampled += 1
        self._sample_characters += len(prompt)
        self._sample_tokens += tokens
