import hashlib
import http.server
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from prep.fetch import FetchError, download, pip_wheel

BODY = b"the published file" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:100] if self.path == "/cut" else BODY)

    def log_message(self, *args):
        pass


@contextmanager
def serve(handler=Handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_verified_download_appears_under_its_name(tmp_path):
    with serve() as url:
        download(f"{url}/file", tmp_path / "file", SHA256, answer_seconds=5)
    assert (tmp_path / "file").read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("path", "sha256", "reason"),
    [
        ("/file", "0" * 64, "SHA-256 differs"),
        ("/cut", SHA256, "SHA-256 differs|broke off"),
        ("/missing", SHA256, "Not Found"),
    ],
)
def test_a_failed_download_leaves_nothing(tmp_path, path, sha256, reason):
    with serve() as url, pytest.raises(FetchError, match=reason):
        download(url + path, tmp_path / "file", sha256, answer_seconds=5)
    assert not list(tmp_path.iterdir())


def test_a_failed_download_leaves_the_file_of_before(tmp_path):
    (tmp_path / "file").write_text("before")
    with serve() as url, pytest.raises(FetchError):
        download(f"{url}/file", tmp_path / "file", "0" * 64, answer_seconds=5)
    assert (tmp_path / "file").read_text() == "before"


def fails_in_time(tmp_path, url):
    start = time.perf_counter()
    with pytest.raises(FetchError, match=r"no answer within 0\.2 seconds"):
        download(url, tmp_path / "file", SHA256, answer_seconds=0.2)
    assert time.perf_counter() - start < 2
    assert not list(tmp_path.iterdir())


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fails_in_time(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/file")


def test_name_resolution_counts_towards_the_deadline(tmp_path, monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: done.wait(5) and [])
    fails_in_time(tmp_path, "http://example.org/file")
    done.set()


def test_a_slow_body_may_take_longer_than_the_answer(tmp_path):
    class Slow(Handler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            for start in range(0, len(BODY), len(BODY) // 4):
                time.sleep(0.1)
                self.wfile.write(BODY[start : start + len(BODY) // 4])

    with serve(Slow) as url:
        download(f"{url}/file", tmp_path / "file", SHA256, answer_seconds=0.3)
    assert (tmp_path / "file").read_bytes() == BODY


def test_pip_failing_is_a_reason_and_no_traceback(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with (
        pytest.raises(FetchError, match="No matching distribution"),
        pip_wheel("recbole==1.2.1", ""),
    ):
        pass
    assert capfd.readouterr().err == ""
