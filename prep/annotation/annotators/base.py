"""The interface of annotators: prompts in, replies out, in any order."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Request(NamedTuple):
    """One prompt to answer.

    Attributes:
        key: its name among the requests of a run; its completion has the same.
        prompt: the text to send, as a single user message.
        item_id: raw id of the item that it is about.
        user_id: raw id of the user whose review it quotes; None for T_obj.
    """

    key: str
    prompt: str
    item_id: str
    user_id: str | None = None


class Completion(NamedTuple):
    """The reply to one request, or why there is none.

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
    """How the model writes; part of the key of a stored reply."""

    temperature: float = 0.0
    """0 always takes the most likely token."""
    top_p: float = 1.0
    """Tokens are drawn from the most likely ones that together reach this probability."""
    max_tokens: int = 512
    """A reply is cut at this length."""
    seed: int = 0
    """Seed of the draws, if the model takes one."""


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

    def complete(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """Answer requests, in any order, each as soon as its reply is there.

        Requests are taken in the thread that iterates over the completions, and only a bounded number of them
        ahead of the completions that were yielded, so that an endless `requests` works. Closing the generator
        ends the work in flight.

        Raises:
            InputError: nothing can be answered, and asking again would not help: no such model, no access, no
                server, a missing package.
        """
