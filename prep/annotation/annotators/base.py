"""The interface of annotators: prompts in, replies out, in any order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Request(NamedTuple):
    """One prompt to answer.

    Attributes:
        key: its name among the requests of a run, which its completion bears, too.
        prompt: the text to send, as a single user message.
        item_id: raw id of the item that it is about.
        user_id: raw id of the user whose review it quotes; None for T_obj.
    """

    key: str
    prompt: str
    item_id: str
    user_id: str | None = None


class Completion(NamedTuple):
    """What became of one request.

    Attributes:
        key: the request's.
        text: the reply; None if there is none.
        failure: why there is none, in a few words; None if there is a reply.
        tokens_in, tokens_out: tokens of prompt and reply as the model counted them; 0 where it did not.
        cut: whether the reply ended because it reached `Sampling.max_tokens`, as far as that is known.
    """

    key: str
    text: str | None
    failure: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cut: bool = False


@dataclass(frozen=True)
class Sampling:
    """How the model writes; part of what a stored reply is known by."""

    temperature: float = 0.0
    """0 always takes the likeliest token."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability are drawn from."""
    max_tokens: int = 512
    """A reply is cut at this length."""
    seed: int = 0
    """Seed of the draws, where the model takes one."""


class Annotator(Protocol):
    """A language model."""

    @property
    def model(self) -> str:
        """Its name, as the user gave it."""

    @property
    def revision(self) -> str:
        """Which version of its weights; empty where that is not known."""

    @property
    def sampling(self) -> Sampling:
        """How it writes."""

    def count_tokens(self, prompt: str) -> int | None:
        """How many tokens a prompt is, message template included; None where only the server knows."""

    def complete(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer requests, in any order, each as soon as it is there.

        At most a bounded number of requests is taken ahead of the completions that were yielded, so that an
        endless `requests` works, and closing the iterator ends the work in flight.

        Raises:
            InputError: nothing can be answered, for reasons that trying again does not cure: no such model, no
                access, no server, a package that is missing.
        """
