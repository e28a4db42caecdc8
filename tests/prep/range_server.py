"""A local server of a few files that sends parts of them, breaks off and changes files when a test wants it."""

import http.server
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Site:
    """What a server serves and how; tests change it between requests.

    Attributes:
        files: path -> content.
        etag: of all files; "" for a server without validators.
        knows_ranges: whether it sends parts; without, it sends the whole file.
        heeds_if_range: whether it compares the validator; without, it sends a part of any version.
        says_length: whether answers have a Content-Length.
        cuts: after how many bytes of the body the next answers break off; None for one that does not.
        requests: method, path and Range of each request.
    """

    files: dict[str, bytes]
    etag: str = '"one"'
    knows_ranges: bool = True
    heeds_if_range: bool = True
    says_length: bool = True
    cuts: list[int | None] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def ranges(self) -> Sequence[str]:
        """The Range of each GET; "" where the whole file was asked for."""
        return [span for method, _, span in self.requests if method == "GET"]

    @contextmanager
    def serve(self) -> Iterator[Self]:
        """Serve until the block ends, at `url`."""
        site = self

        class Handler(_Handler):
            pass

        Handler.site = site
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    site: Site

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        site = self.site
        site.requests.append((self.command, self.path, self.headers.get("Range", "")))
        body = site.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = self._start()
        if start is not None and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        rest = body[start or 0 :]
        if site.says_length:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if with_body:
            self.wfile.write(rest[: site.cuts.pop(0) if site.cuts else None])

    def _start(self) -> int | None:
        """The first byte to send of a part; None for the whole file."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is None or not self.site.knows_ranges:
            return None
        changed = self.headers.get("If-Range") != self.site.etag
        return None if changed and self.site.heeds_if_range else int(asked[1])

    def log_message(self, *args: object) -> None:
        pass
