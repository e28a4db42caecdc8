"""A server on this machine that speaks OpenAI's protocol, answers by a hash of the prompt, and misbehaves."""

import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Requests to it must not take a way round by a proxy that the environment names.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"

REPAIR = "could not be used"  # stands in a prompt that is asked again


def digest(prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")


def reply_to(prompt: str) -> str:
    """Deterministic; every seventh prompt gets rubbish at first, every 31st for ever."""
    first, number = prompt.partition("\n")[0], digest(prompt)
    if digest(first) % 31 == 0 or (digest(first) % 7 == 0 and REPAIR not in prompt):
        return f"As a language model I had rather not. ({number})"
    return (
        f"Pros 1: reason\nEvidence: some\nKeywords: good{number % 97}\n"
        f"Cons 1: reason\nEvidence: some\nKeywords: bad{number % 89}"
    )


def chat_completion(text: Any, finish: str = "stop", **changes: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    } | changes


class Answer:
    """What the server does with one request."""

    def __init__(
        self,
        body: dict[str, Any] | bytes,
        status: int = 200,
        headers: dict[str, str] | None = None,
        *,
        cut_at: int | None = None,
        reset: bool = False,
        stall: float = 0.0,
    ) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.headers = status, headers or {}
        self.cut_at, self.reset, self.stall = cut_at, reset, stall


def error(status: int, message: str = "no", headers: dict[str, str] | None = None, **more: Any):
    return Answer({"error": {"message": message, "type": "t", **more}}, status, headers)


SOON = {"retry-after-ms": "1"}  # without it, the client waits for half a second
HTML = Answer(b"<html>Bad gateway</html>", headers={"content-type": "text/html"})
Script = Callable[[int, dict[str, Any]], Answer | None]


def well_behaved(number: int, request: dict[str, Any]) -> None:
    return None


def misbehaving(number: int, request: dict[str, Any]) -> Answer | None:
    """About every fourth request goes wrong, in one of seven ways."""
    kind = digest(f"{number}") % 28
    good = chat_completion("Pros 1: never\nKeywords: never\nCons 1: never\nKeywords: never")
    troubles = [
        error(500, headers=SOON),
        error(429, headers=SOON),
        Answer(good, reset=True),
        Answer(good, cut_at=40),
        HTML,
        Answer(good, stall=0.2),
        error(503, headers=SOON),
    ]
    return troubles[kind] if kind < len(troubles) else None


class ProtocolServer:
    """Runs in threads for the time of a `with` block.

    Attributes:
        url: its address.
        requests: the bodies of all requests, in the order of their arrival.
        headers: those of the last request.
        whole: prompt -> how often it got a whole answer.
        most_at_once: the greatest number of requests under way at the same time.
    """

    def __init__(self, script: Script = well_behaved, delay: float = 0.0) -> None:
        self.script, self.delay = script, delay
        self.requests: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.whole: Counter[str] = Counter()
        self.most_at_once = self._at_once = 0
        self.lock = threading.Lock()
        self._closed = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: object) -> None:
                pass  # the client was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "ProtocolServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True  # the threads of connections that are kept alive go on
        self._server.shutdown()
        self._server.server_close()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        request = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        if self._closed:
            handler.close_connection = True
            return
        prompt = request["messages"][0]["content"]
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
            self.headers = dict(handler.headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            trouble = self.script(number, request)
            answer = trouble or Answer(chat_completion(reply_to(prompt)))
            time.sleep(answer.stall or self.delay)
            if trouble is None:
                with self.lock:  # before it is sent: a client may be killed as soon as it has it
                    self.whole[prompt] += 1
            _send(handler, answer)
        finally:
            with self.lock:
                self._at_once -= 1


def _send(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
    if answer.stall:
        handler.close_connection = True
        return
    if answer.reset:
        linger = struct.pack("ii", 1, 0)  # close with a reset
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.connection.close()
        handler.close_connection = True
        return
    handler.send_response(answer.status)
    headers = {"content-type": "application/json"} | answer.headers
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(answer.body)))
    handler.end_headers()
    handler.wfile.write(answer.body[: answer.cut_at])
    if answer.cut_at is not None:
        handler.close_connection = True
