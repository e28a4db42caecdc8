"""Any server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, chatglm.cpp, or a hosted one.

Requests run side by side in an event loop in a thread of its own, so that closing the iterator cancels what is in
flight, also where the caller has an event loop, as in a notebook. The `openai` client sends a request again after
time-outs, lost connections and HTTP 408, 409, 429 and 5xx, with exponential back-off, and obeys Retry-After.
"""

import asyncio
import importlib.util
import json
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Request, Sampling

HOSTED = "https://api.openai.com/v1"

_KEY = "OPENAI_API_KEY"
_CONNECT_S = 10.0
_RETRIES_AT_FIRST = 4  # while the server has not answered anything: its address may be wrong
_FAILURES_IN_A_ROW = 32  # that end a run
_NO_ACCESS, _NOT_FOUND = (401, 402, 403), 404
_NO_MONEY = "insufficient_quota"
# Settings that a server refuses whatever the prompt is. max_tokens may be too much for one long prompt alone.
_SETTINGS = ("model", "temperature", "top_p", "seed")
_SHOWN = 200  # characters of a server's message that are passed on


class OpenAIAnnotator:
    """A model on an OpenAI-compatible server."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        revision: str = "",
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        concurrency: int = 16,
        timeout: float = 300.0,
        max_retries: int = 8,
    ) -> None:
        """Prepare to ask; nothing is sent yet. The key is taken from the environment, OPENAI_API_KEY.

        Args:
            model: its name on the server.
            base_url: address of the API, such as http://localhost:8000/v1; None for the hosted one.
            revision: tells versions of the model apart, if they have names.
            sampling: how it writes.
            concurrency: how many requests are in flight at the same time, at most.
            timeout: seconds that the server may take to answer one request.
            max_retries: how often a request is sent again.

        Raises:
            InputError: the package openai is missing, or the address is not one.
        """
        if importlib.util.find_spec("openai") is None:
            raise InputError("the package openai is missing: pip install 'jaxsim-recsys[openai]'")
        self.model, self.revision, self.sampling = model, revision, sampling
        self._server = _server(base_url)
        self._concurrency, self._timeout, self._max_retries = concurrency, timeout, max_retries

    def count_tokens(self, prompt: str) -> int | None:
        """None: only the server knows."""
        return None

    def complete(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """Answer requests, each as soon as the server has answered it.

        Raises:
            InputError: the hosted server needs a key; or a server refuses access or the model's name or settings,
                cannot be reached, or has failed many times in a row.
        """
        if not self._server.key and self._server.is_hosted:
            raise InputError(
                f"{self._server.name}: needs a key: put it into the environment variable {_KEY}"
            )
        waiting = iter(requests)
        answered: queue.SimpleQueue[Future[Completion]] = queue.SimpleQueue()
        with self._sender() as send:
            in_flight = 0
            while True:
                for request in islice(waiting, self._concurrency - in_flight):
                    send(request).add_done_callback(answered.put)
                    in_flight += 1
                if not in_flight:
                    return
                future = answered.get()
                in_flight -= 1
                if (error := future.exception()) is not None:
                    yield from _successes(answered)
                    raise error
                yield future.result()

    @contextmanager
    def _sender(self) -> Iterator[Callable[[Request], Future[Completion]]]:
        """Give a function that sends a request, in a thread that ends with the block."""
        import openai

        client = openai.AsyncOpenAI(
            base_url=self._server.url,
            api_key=self._server.key or "none",
            max_retries=self._max_retries,
            timeout=openai.Timeout(self._timeout, connect=min(_CONNECT_S, self._timeout)),
        )
        conversation = _Conversation(client, self._server, self._arguments())
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="openai-server", daemon=True)
        thread.start()
        try:
            yield lambda request: asyncio.run_coroutine_threadsafe(conversation.ask(request), loop)
        finally:
            asyncio.run_coroutine_threadsafe(conversation.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _arguments(self) -> dict[str, Any]:
        """What each request says besides its prompt; defaults are left out, as some servers do not know them."""
        sampling = self.sampling
        limit = "max_completion_tokens" if self._server.is_hosted else "max_tokens"
        arguments = {
            "model": self.model,
            "temperature": sampling.temperature,
            limit: sampling.max_tokens,
        }
        if sampling.top_p != 1.0:
            arguments["top_p"] = sampling.top_p
        if sampling.temperature > 0:
            arguments["seed"] = sampling.seed
        return arguments


@dataclass(frozen=True)
class _Server:
    """Where the API is, the key to it, and its name in messages, which holds no password."""

    url: str
    key: str = field(repr=False)
    name: str

    @property
    def is_hosted(self) -> bool:
        return urlsplit(self.url).hostname == urlsplit(HOSTED).hostname

    def without_secrets(self, text: str) -> str:
        """One short line of a server's message."""
        line = " ".join((text.replace(self.key, "***") if self.key else text).split())
        return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def _server(base_url: str | None) -> _Server:
    url = base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED
    try:
        parts = urlsplit(url)
        name = (
            f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
        )
    except ValueError:
        parts, name = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = "" if "@" in url else f" {url!r}"  # there may be a password before the @
        raise InputError(
            f"the server's address{shown} cannot be used: give --llm.base-url such as http://localhost:8000/v1"
        )
    key = os.environ.get(_KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"the environment variable {_KEY} holds characters that no key has")
    return _Server(url, key, name)


def _successes(answered: "queue.SimpleQueue[Future[Completion]]") -> Iterator[Completion]:
    """The replies that came in beside an error: they are paid for."""
    while not answered.empty():
        future = answered.get()
        if future.exception() is None:
            yield future.result()


class _Conversation:
    """All requests of one call of `complete`. Lives in the event loop, so that nothing needs a lock."""

    def __init__(self, client: Any, server: _Server, arguments: Mapping[str, Any]) -> None:
        self._client, self._server, self._arguments = client, server, arguments
        self._answers = 0
        self._failures_in_a_row = 0

    async def close(self) -> None:
        """Cancel what is in flight and close the connections."""
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()

    async def ask(self, request: Request) -> Completion:
        """Send a request until it is answered or has failed for good.

        Raises:
            InputError: every other request would fail, too.
        """
        import openai

        answers_before = self._answers
        client = self._client
        if not self._answers:
            client = client.with_options(max_retries=min(_RETRIES_AT_FIRST, client.max_retries))
        try:
            answer = await client.chat.completions.with_raw_response.create(
                messages=[{"role": "user", "content": request.prompt}], **self._arguments
            )
        except openai.APITimeoutError:
            return self._fail(request, "no answer in time")
        except openai.APIStatusError as error:
            return self._fail(request, self._refusal(error))
        except openai.APIConnectionError as error:
            reason = self._server.without_secrets(str(error.__cause__ or error))
            # By name: older clients raise the errors of httpx, newer ones those of httpx2.
            is_unreachable = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            if is_unreachable and self._answers == answers_before:
                raise InputError(
                    f"{self._server.name}: cannot be reached ({reason}); is it running, is the address right?"
                ) from None
            return self._fail(request, reason or type(error.__cause__).__name__)
        completion = _completion(request, answer.http_response.text)
        if completion is None:
            return self._fail(request, "the answer is not a chat completion in JSON")
        self._answers += 1
        self._failures_in_a_row = 0
        return completion

    def _fail(self, request: Request, reason: str) -> Completion:
        """Give up a request or, after many in a row, the run."""
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
            raise InputError(
                f"{self._server.name}: {self._failures_in_a_row} prompts in a row got no reply "
                f"({reason}); run the same command again when it works"
            )
        return Completion(request.key, None, reason)

    def _refusal(self, error: Any) -> str:
        """What a status other than 2xx means for a prompt.

        Raises:
            InputError: every other prompt would be refused, too.
        """
        status, code = error.status_code, str(error.code)
        message = self._server.without_secrets(_message(error))
        where = f"{self._server.name}: "
        model = f"{self._arguments['model']!r}"
        if status in _NO_ACCESS or code == _NO_MONEY:
            raise InputError(
                f"{where}no access to the model {model} (HTTP {status}); check the key in {_KEY} and its account"
            )
        if status == _NOT_FOUND:
            raise InputError(
                f"{where}no model {model} there, or not the address of an API, which often ends in /v1 "
                f"(HTTP {status}: {message})"
            )
        if status in (400, 422) and (error.param in _SETTINGS or code == "unsupported_parameter"):
            raise InputError(f"{where}refuses the setting {error.param} (HTTP {status}: {message})")
        return f"HTTP {status}: {message}"


def _message(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return message if isinstance(message, str) else str(error.message)


def _completion(request: Request, body: str) -> Completion | None:
    """Read the body of an answer; None if it is no chat completion.

    A reply that was cut, and an empty one, are replies; a reply that a content filter withheld whole is a failure.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = message.get("content") or message.get("refusal") or ""
        usage = answer.get("usage") or {}
        tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if not isinstance(text, str):
        return None
    if finish == "content_filter" and not text:
        return Completion(request.key, None, "withheld by the server's content filter")
    return Completion(
        request.key, text, None, _count(tokens_in), _count(tokens_out), cut=finish == "length"
    )


def _count(tokens: Any) -> int:
    return tokens if isinstance(tokens, int) and 0 <= tokens < 2**31 else 0
