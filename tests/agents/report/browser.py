"""A headless Chromium that a test drives by its DevTools protocol: real keys, real focus."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.page_speed import BROWSERS

CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
SECONDS = 30.0
KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "Home": 36, "ArrowDown": 40,
}  # fmt: skip
TEXTS = {"Enter": "\r", "Space": " "}


class Browser:
    """One page of a browser."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._number = socket, 0
        self._entries: list[str] = []

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") == "Log.entryAdded":
                self._entries.append(answer["params"]["entry"]["text"])

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def log(self) -> list[str]:
        """What the browser has noted of the page so far, such as a script that its policy refuses."""
        self.send("Log.enable")
        self.send("Log.disable")  # a second answer, before which all earlier entries have come
        return self._entries

    def show(self, width: int, height: int) -> None:
        """Give the page a size, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)

    def press(self, key: str, shift: bool = False) -> None:
        """Press and release a key."""
        shared = {
            "key": " " if key == "Space" else key,
            "code": key,
            "windowsVirtualKeyCode": KEYS[key],
            "modifiers": 8 if shift else 0,
        }
        text = {"text": TEXTS[key]} if key in TEXTS else {}
        kind = "keyDown" if text else "rawKeyDown"
        self.send("Input.dispatchKeyEvent", type=kind, **shared, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **shared)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)


@contextmanager
def opened(page: Path, folder: Path) -> Iterator[Browser]:
    """A browser that shows a file."""
    import websocket

    assert CHROMIUM is not None
    profile = folder / "profile"
    process = subprocess.Popen(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            "--remote-debugging-port=0", "--remote-allow-origins=*", page.as_uri(),
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        port = _port(profile / "DevToolsActivePort")
        wait(lambda: _pages(port))
        address = _pages(port)[0]["webSocketDebuggerUrl"]
        socket = websocket.create_connection(address, timeout=SECONDS, http_no_proxy=["127.0.0.1"])
        browser = Browser(socket)
        state = "location.href.startsWith('file:') && document.readyState"
        wait(lambda: browser.evaluate(state) == "complete")
        yield browser
        socket.close()
    finally:
        process.kill()
        process.wait(SECONDS)


def _pages(port: str) -> list[dict[str, Any]]:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"http://127.0.0.1:{port}/json", timeout=SECONDS) as answer:
        return [tab for tab in json.load(answer) if tab["type"] == "page"]


def _port(path: Path) -> str:
    wait(lambda: path.is_file() and path.read_text().strip())
    return path.read_text().splitlines()[0]


def wait(ready: Any) -> None:
    """Wait until `ready()` is true."""
    deadline = time.monotonic() + SECONDS
    while not ready():
        assert time.monotonic() < deadline, "the browser does not answer"
        time.sleep(0.05)
