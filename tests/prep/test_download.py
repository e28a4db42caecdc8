import gzip
import hashlib
import json
import socket
import threading
import time

import pytest

from prep import download as downloads
from prep.download import CutError, FetchError, Version, bytes_in_words, bytes_kept, download, probe
from tests.prep.range_server import Site

BODY = bytes(range(256)) * 100
OTHER = BODY[::-1][:20_000]
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(downloads, "RETRY_SECONDS", (0.0, 0.0))


@pytest.fixture
def site():
    with Site({"/file": BODY}).serve() as running:
        yield running


def fetch(site, folder, name="file", **settings):
    download(f"{site.url}/{name}", folder / name, answer_seconds=5, **settings)
    return (folder / name).read_bytes()


def cut(site, folder, after):
    """Let a download break off for good after so many bytes, so that this much is kept."""
    site.cuts = [after, 0, 0]
    with pytest.raises(CutError):
        fetch(site, folder)
    site.cuts, site.requests = [], []
    assert not (folder / "file").exists()
    assert bytes_kept(folder / "file") == after


def test_a_whole_download_appears_under_its_name_alone(tmp_path, site):
    assert fetch(site, tmp_path, sha256=SHA256) == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("path", "sha256", "reason"),
    [("file", "0" * 64, "SHA-256 differs"), ("missing", SHA256, "Not Found")],
)
def test_a_failed_download_leaves_nothing(tmp_path, site, path, sha256, reason):
    with pytest.raises(FetchError, match=reason):
        fetch(site, tmp_path, path, sha256=sha256)
    assert not list(tmp_path.iterdir())


def test_a_failed_download_leaves_the_file_of_before(tmp_path, site):
    (tmp_path / "file").write_text("before")
    with pytest.raises(FetchError):
        fetch(site, tmp_path, sha256="0" * 64)
    assert (tmp_path / "file").read_text() == "before"


def test_a_cut_connection_is_opened_again_for_the_rest(tmp_path, site, capsys):
    site.cuts = [1000, 500, None]
    assert fetch(site, tmp_path, sha256=SHA256) == BODY
    assert site.ranges == ["", "bytes=1000-", "bytes=1500-"]
    assert "1,000 of 25,600 bytes arrived" in capsys.readouterr().err


def test_another_process_goes_on_where_one_was_cut(tmp_path, site):
    cut(site, tmp_path, 7000)
    assert fetch(site, tmp_path, sha256=SHA256) == BODY
    assert site.ranges == ["bytes=7000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_attempts_end_when_nothing_arrives(tmp_path, site):
    site.cuts = [10, *[0] * 9]
    with pytest.raises(CutError, match="10 of 25,600 bytes arrived"):
        fetch(site, tmp_path)
    assert len(site.ranges) == 3  # the first, and one for each pause


def test_a_file_that_only_lacks_its_name_is_not_fetched_again(tmp_path, site):
    cut(site, tmp_path, 7000)
    (tmp_path / "file.part").write_bytes(BODY)
    assert fetch(site, tmp_path, sha256=SHA256) == BODY
    assert site.ranges == []


@pytest.mark.parametrize("server", ["knows no Range", "has no validator"])
def test_a_server_that_cannot_go_on_starts_anew(tmp_path, site, server, capsys):
    if server == "knows no Range":
        cut(site, tmp_path, 7000)
        site.knows_ranges = False
    else:
        site.etag = ""
        site.cuts = [7000, 0, 0]
        with pytest.raises(CutError):
            fetch(site, tmp_path)
        assert bytes_kept(tmp_path / "file") == 0
        site.cuts, site.requests = [], []
    assert fetch(site, tmp_path, sha256=SHA256) == BODY
    assert len(site.ranges) == 1
    assert ("from the start" in capsys.readouterr().err) == (server == "knows no Range")


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("content", [OTHER, OTHER[:3000]])
def test_a_file_that_was_changed_starts_anew(tmp_path, site, heeds_if_range, content):
    """Also at a server that sends the rest of the new file, or says that there is none."""
    cut(site, tmp_path, 7000)
    site.files["/file"], site.etag = content, '"two"'
    site.heeds_if_range = heeds_if_range
    assert fetch(site, tmp_path) == content
    assert site.ranges == (["bytes=7000-"] if heeds_if_range else ["bytes=7000-", ""])


def test_a_changed_file_of_the_same_size_is_told_by_its_validator(tmp_path, site):
    cut(site, tmp_path, 7000)
    site.files["/file"], site.etag, site.heeds_if_range = BODY[::-1], '"two"', False
    assert fetch(site, tmp_path) == BODY[::-1]


def test_a_weak_etag_is_no_validator(tmp_path, site):
    site.etag = 'W/"one"'
    assert probe(f"{site.url}/file", 5) == Version(len(BODY), "")


def test_a_damaged_note_of_a_part_starts_anew(tmp_path, site):
    cut(site, tmp_path, 7000)
    for text in ("{", json.dumps({"size": "many", "validator": 5}), "5"):
        (tmp_path / "file.part.json").write_text(text)
        assert bytes_kept(tmp_path / "file") == 0
    assert fetch(site, tmp_path, sha256=SHA256) == BODY


def test_a_cut_without_a_length_is_told_by_the_end_of_the_gzip_data(tmp_path, site):
    packed = gzip.compress(BODY)
    site.says_length, site.etag = False, ""
    site.files["/file.gz"] = packed
    site.cuts = [len(packed) - 20]
    with pytest.raises(FetchError, match="cut short"):
        fetch(site, tmp_path, "file.gz")
    assert not list(tmp_path.iterdir())
    assert fetch(site, tmp_path, "file.gz") == packed


def test_a_page_in_place_of_gzip_data_is_not_kept(tmp_path, site):
    site.files["/file.gz"] = b"<html>Please log in</html>"
    with pytest.raises(FetchError, match="no gzip file, but perhaps a page"):
        fetch(site, tmp_path, "file.gz")
    assert not list(tmp_path.iterdir())


def test_an_interruption_says_how_to_go_on(tmp_path, site, monkeypatch, capsys):
    read = downloads._chunks

    def interrupted(response):
        yield next(read(response))[:5000]
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(site, tmp_path)
    told = capsys.readouterr().err
    assert "file.part; the same command goes on from there" in told
    monkeypatch.setattr(downloads, "_chunks", read)
    assert fetch(site, tmp_path, sha256=SHA256) == BODY
    assert site.ranges[-1] == "bytes=5000-"


def test_a_size_is_asked_for_without_a_download(site):
    assert probe(f"{site.url}/file", 5) == Version(len(BODY), '"one"')
    assert [method for method, _, _ in site.requests] == ["HEAD"]
    site.says_length = False
    assert probe(f"{site.url}/file", 5).size is None
    with pytest.raises(FetchError, match="Not Found"):
        probe(f"{site.url}/missing", 5)


@pytest.mark.parametrize(
    ("count", "words"), [(3_210_000_000, "3.2 GB"), (41_000_000, "41.0 MB"), (999, "0.0 MB")]
)
def test_sizes_in_words(count, words):
    assert bytes_in_words(count) == words


def fails_without_an_answer(tmp_path, url):
    with pytest.raises(FetchError, match=r"no answer within 0\.2 seconds"):
        download(url, tmp_path / "file", answer_seconds=0.2)
    assert not list(tmp_path.iterdir())


def test_a_server_that_never_answers_is_given_up(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fails_without_an_answer(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/file")


def test_name_resolution_counts_towards_the_deadline(tmp_path, monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: done.wait(5) and [])
    fails_without_an_answer(tmp_path, "http://example.org/file")
    done.set()


def test_a_slow_body_may_take_longer_than_the_answer(tmp_path, site, monkeypatch):
    read = downloads._chunks

    def slow(response):
        time.sleep(0.3)
        yield from read(response)

    monkeypatch.setattr(downloads, "_chunks", slow)
    download(f"{site.url}/file", tmp_path / "file", answer_seconds=0.2)
    assert (tmp_path / "file").read_bytes() == BODY
