"""Any server that speaks OpenAI's protocol: vLLM, SGLang, llama.cpp, chatglm.cpp, or a hosted one.

Requests go out side by side from an event loop in a thread of its own, so that replies keep coming in while the
caller stores them, and closing the iterator cancels what is in flight. There is one mechanism of retries, the one
below; that of the `openai` client is switched off.
"""

import asyncio
import importlib.util
import json
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from jaxsim import InputError
from prep.annotation.annotators.base import Completion, Request, Sampling
from prep.annotation.annotators.rate_limits import retry_after, until_reset

HOSTED = "https://api.openai.com/v1"
LONGEST_PAUSE_S = 600.0
"""A server that asks for a longer pause ends the run: its quota of the day, say, is used up."""

_KEY = "OPENAI_API_KEY"
_LONGEST_BACKOFF_S = 60.0
_CONNECT_S = 10.0
_TRIES_TO_REACH = 4  # of a server that has not answered anything yet
_FAILURES_IN_A_ROW = 32  # of a server that has not answered anything in between
_NO_ACCESS, _NOT_FOUND = (401, 402, 403), 404
_WORTH_A_RETRY = (408, 409, 425, 429)
_TOO_MANY, _NO_MONEY = 429, "insufficient_quota"
# What a server refuses whatever the prompt is. Not max_tokens: that may be too much for one long prompt alone.
_SETTINGS = ("model", "temperature", "top_p", "seed")
_WORDS = 200  # characters of a server's message that are passed on


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
        retries: int = 8,
        backoff: float = 0.5,
    ) -> None:
        """Prepare to ask; nothing is sent yet. The key is taken from the environment, OPENAI_API_KEY.

        Args:
            model: its name on the server.
            base_url: address of the API, such as http://localhost:8000/v1; None for the hosted one.
            revision: what tells apart versions of the model, if anything does.
            sampling: how it writes.
            concurrency: how many requests are under way at the same time, at most.
            timeout: seconds that the server may take to answer one request.
            retries: how often a request is sent again.
            backoff: seconds before the first retry, about; doubled with each, up to a minute.

        Raises:
            InputError: the package openai is missing, or the address is none.
        """
        if importlib.util.find_spec("openai") is None:
            raise InputError("the package openai is missing: pip install 'jaxsim-recsys[openai]'")
        self.model, self.revision, self.sampling = model, revision, sampling
        self._server = _server(base_url)
        self._concurrency, self._timeout = concurrency, timeout
        self._retries, self._backoff = retries, backoff

    def count_tokens(self, prompt: str) -> int | None:
        """None: only the server knows."""
        return None

    def complete(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer requests, each as soon as the server has answered it.

        Raises:
            InputError: the hosted server needs a key; or a server refuses access or the model's name or settings,
                is not there, asks for a long pause, or has failed many times in a row.
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
                    yield from _good_ones(answered)
                    raise error
                yield future.result()

    @contextmanager
    def _sender(self) -> Iterator[Callable[[Request], Future[Completion]]]:
        """Give a function that sends a request, in a thread that ends with the block."""
        client, loop = self._client(), asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="openai-server", daemon=True)
        thread.start()
        conversation = _Conversation(
            client, self._server, self._arguments(), self._timeout, self._retries, self._backoff
        )  # fmt: skip
        try:
            yield lambda request: asyncio.run_coroutine_threadsafe(conversation.ask(request), loop)
        finally:
            asyncio.run_coroutine_threadsafe(conversation.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _client(self) -> Any:
        import openai

        return openai.AsyncOpenAI(
            base_url=self._server.url,
            api_key=self._server.key or "none",
            max_retries=0,
            timeout=openai.Timeout(self._timeout, connect=min(_CONNECT_S, self._timeout)),
        )

    def _arguments(self) -> dict[str, Any]:
        """What each request says beside its prompt; defaults are left out, for not every server knows them all."""
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
    """Where the API is, the key to it, and the name that messages call it by, which holds no password."""

    url: str
    key: str = field(repr=False)
    name: str

    @property
    def is_hosted(self) -> bool:
        return urlsplit(self.url).hostname == urlsplit(HOSTED).hostname

    def without_secrets(self, text: str) -> str:
        """One short line of what a server said."""
        line = " ".join((text.replace(self.key, "***") if self.key else text).split())
        return line if len(line) <= _WORDS else f"{line[:_WORDS]}..."


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
            f"the server's address{shown} is none: give --llm.base-url such as http://localhost:8000/v1"
        )
    key = os.environ.get(_KEY, "").strip()
    server = _Server(url, key, name)
    if not (server.key.isascii() and server.key.isprintable()):
        raise InputError(f"the environment variable {_KEY} holds characters that no key has")
    return server


def _good_ones(answered: "queue.SimpleQueue[Future[Completion]]") -> Iterator[Completion]:
    """The replies that came in beside an error: they are paid for."""
    while not answered.empty():
        future = answered.get()
        if future.exception() is None:
            yield future.result()


class _Trouble(NamedTuple):
    """Why a request got no reply.

    Attributes:
        reason: in a few words.
        again: whether trying again may help.
        unreachable: whether the server was not even reached.
        limited: whether the server had too many requests.
        wait: seconds that the server asks to wait; None if it does not say.
    """

    reason: str
    again: bool = True
    unreachable: bool = False
    limited: bool = False
    wait: float | None = None


class _Unreadable(Exception):
    """The body of an answer is not what OpenAI's protocol says."""


class _Conversation:
    """All requests of one call of `complete`. Lives in the event loop, so that nothing needs a lock."""

    def __init__(
        self,
        client: Any,
        server: _Server,
        arguments: Mapping[str, Any],
        timeout: float,
        retries: int,
        backoff: float,
    ) -> None:
        self._client, self._server, self._arguments = client, server, arguments
        self._timeout, self._retries, self._backoff = timeout, retries, backoff
        self._answers = 0
        self._failures_in_a_row = 0
        self._resume_at = 0.0

    async def close(self) -> None:
        """Cancel what is in flight and close the connections."""
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()

    async def ask(self, request: Request) -> Completion:
        """Send a request until it is answered or has failed for good."""
        jitter = random.Random(
            request.key
        )  # spreads the retries, and needs no randomness beyond that
        answers, tries = self._answers, 0
        while True:
            await self._pass_gate(jitter)
            found = await self._send(request)
            if isinstance(found, Completion):
                self._answers += 1
                self._failures_in_a_row = 0
                return found
            tries += 1
            if found.limited and self._answers > answers:
                answers, tries = self._answers, 1  # others get through: it is only a queue
            if not found.again or tries > self._patience(found):
                return self._fail(request, found, tries, alone=self._answers == answers)
            backoff = min(self._backoff * 2 ** (tries - 1), _LONGEST_BACKOFF_S)
            self._hold(found.wait or 0.0)
            await asyncio.sleep(jitter.uniform(0.5, 1.0) * backoff)

    def _patience(self, trouble: _Trouble) -> int:
        if trouble.unreachable and not self._answers:
            return min(_TRIES_TO_REACH - 1, self._retries)
        return self._retries

    def _fail(self, request: Request, trouble: _Trouble, tries: int, alone: bool) -> Completion:
        """Give up a request, or, if the server answers nobody else either, the run."""
        if trouble.unreachable and alone:
            raise InputError(
                f"{self._server.name}: cannot be reached ({trouble.reason}); is it running, is the address right?"
            )
        # A server that has answered nobody and refuses one prompt after the other refuses them all.
        if trouble.again or not self._answers:
            self._failures_in_a_row += 1
        if trouble.again:
            trouble = trouble._replace(reason=f"{trouble.reason}, {tries} times")
        if self._failures_in_a_row >= _FAILURES_IN_A_ROW:
            raise InputError(
                f"{self._server.name}: {self._failures_in_a_row} prompts in a row got no reply "
                f"({trouble.reason}); run the same command again when it works"
            )
        return Completion(request.key, None, trouble.reason)

    async def _pass_gate(self, jitter: random.Random) -> None:
        """Wait while the server wants a pause, and not to come back all at the same moment."""
        while (wait := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(wait + jitter.uniform(0.0, min(wait, 1.0) / 4))

    def _hold(self, seconds: float) -> None:
        """Let nobody send anything for a while."""
        if seconds > LONGEST_PAUSE_S:
            raise InputError(
                f"{self._server.name}: asks to wait {seconds:,.0f} seconds before the next request; "
                "run the same command again then"
            )
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    async def _send(self, request: Request) -> Completion | _Trouble:
        import openai

        create = self._client.chat.completions.with_raw_response.create
        messages = [{"role": "user", "content": request.prompt}]
        try:
            async with asyncio.timeout(self._timeout):
                answer = await create(messages=messages, **self._arguments)
            self._hold(min(until_reset(answer.headers), LONGEST_PAUSE_S))
            return _completion(request, answer.http_response.text)
        except (TimeoutError, openai.APITimeoutError):
            return _Trouble(f"no answer within {self._timeout:g} seconds")
        except openai.APIStatusError as error:
            return self._refused(error)
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            # By name: older clients raise those of httpx, newer ones those of httpx2.
            unreachable = type(cause).__name__ in ("ConnectError", "ConnectTimeout")
            reason = str(cause) or type(cause).__name__
            return _Trouble(self._server.without_secrets(reason), unreachable=unreachable)
        except _Unreadable as error:
            return _Trouble(str(error))

    def _refused(self, error: Any) -> _Trouble:
        """What a status other than 2xx means.

        Raises:
            InputError: every other prompt would be refused, too.
        """
        status, code = error.status_code, str(error.code)
        said = self._server.without_secrets(_message(error))
        where = f"{self._server.name}: "
        model = f"{self._arguments['model']!r}"
        if status in _NO_ACCESS or code == _NO_MONEY:
            raise InputError(
                f"{where}no access to the model {model} (HTTP {status}); check the key in {_KEY} and its account"
            )
        if status == _NOT_FOUND:
            raise InputError(
                f"{where}no model {model} there, or not the address of an API, which often ends in /v1 "
                f"(HTTP {status}: {said})"
            )
        if status not in _WORTH_A_RETRY and status < 500:
            if error.param in _SETTINGS or code == "unsupported_parameter":
                raise InputError(
                    f"{where}refuses the setting {error.param} (HTTP {status}: {said})"
                )
            return _Trouble(f"HTTP {status}: {said}", again=False)
        headers = error.response.headers
        wait = retry_after(headers)
        if wait is None and (reset := min(until_reset(headers), LONGEST_PAUSE_S)):
            wait = reset
        return _Trouble(f"HTTP {status}: {said}", limited=status == _TOO_MANY, wait=wait)


def _message(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, Mapping) else None
    return message if isinstance(message, str) else str(error.message)


def _completion(request: Request, body: str) -> Completion:
    """Read the body of an answer.

    A reply that was cut, and an empty one, are replies; what a content filter withheld whole is a failure.

    Raises:
        _Unreadable: it is no chat completion.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = message.get("content") or message.get("refusal") or ""
        usage = answer.get("usage") or {}
        tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise _Unreadable("the answer is not a chat completion in JSON") from None
    if not isinstance(text, str):
        raise _Unreadable("the content of the answer is not a text")
    if finish == "content_filter" and not text:
        return Completion(request.key, None, "withheld by the server's content filter")
    return Completion(
        request.key, text, None, _count(tokens_in), _count(tokens_out), cut=finish == "length"
    )


def _count(tokens: Any) -> int:
    return tokens if isinstance(tokens, int) and 0 <= tokens < 2**31 else 0
