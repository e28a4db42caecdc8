"""The Amazon reviews fetched from a local server, in the publisher's form, up to a packed dataset."""

import gzip
import hashlib
import json
from types import SimpleNamespace

import pytest
from filelock import FileLock

import jaxsim
from prep import download as downloads
from prep import published_files
from prep.__main__ import run
from prep.sources import HOW_TO_GET, amazon_releases
from prep.sources.amazon import AMAZON
from prep.sources.amazon_releases import RELEASES
from tests.prep.range_server import Site
from tests.prep.sources.test_amazon import LAYOUTS, line_of

FOLDERS = {
    "2014": ("amazon/categoryFiles", "amazon/categoryFiles"),
    "2018": ("amazon_v2/categoryFilesSmall", "amazon_v2/metaFiles2"),
    "2023": ("amazon_2023/raw/review_categories", "amazon_2023/raw/meta_categories"),
}
USERS, ITEMS = 12, 8


def packed_files(year):
    """Address -> content of the two files of a release: 12 users with 6 ratings each of 8 albums."""
    reviews_name, metadata_name, review, meta = LAYOUTS[year]
    opinions = [
        review(f"u{user}", f"A{(user + step) % ITEMS}", float(1 + (user + step) % 5))
        for user in range(USERS)
        for step in range(6)
    ]
    described = [meta(f"A{item}") for item in range(ITEMS)]
    return {
        f"/{FOLDERS[year][0]}/{reviews_name}.gz": packed(opinions),
        f"/{FOLDERS[year][1]}/{metadata_name}.gz": packed(described, literal=year == "2014"),
    }


def packed(rows, literal=False):
    return gzip.compress(b"\n".join(line_of(row, literal) for row in rows) + b"\n", mtime=0)


@pytest.fixture
def site(monkeypatch):
    """A server of the releases of 2018 and 2023; no test asks another one."""
    monkeypatch.setattr(downloads, "RETRY_SECONDS", (0.0,))
    with Site(packed_files("2018") | packed_files("2023")).serve() as running:
        monkeypatch.setattr(amazon_releases, "SERVERS", (running.url,))
        yield running


def raw_folder(cache, year="2018"):
    return cache / "raw" / "amazon-music" / year


def convert(tmp_path, *more):
    run(["convert", "amazon-music", "--out", str(tmp_path / "tables"), *more])
    return json.loads((tmp_path / "tables" / "conversion.json").read_text())


def build(*more):
    run(["build", "amazon-music", "--annotate", "none", "--encoder", "hashed", *more])


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("year", "options", "name"),
    [
        ("2014", ["--release", "2014"], "amazon-music-2014"),
        ("2018", [], "amazon-music"),
        ("2023", ["--release", "2023", "--limit-users", "5"], "amazon-music-2023-5-users"),
    ],
)
def test_a_release_is_fetched_once_and_built(site, cache, capsys, year, options, name):
    site.files |= packed_files(year)
    build(*options)
    told = capsys.readouterr().out
    release = next(release for release in RELEASES if str(release.year) == year)
    assert told.index("know of no licence") < told.index("amazon-music")  # before the report
    assert release.citation.split(". ")[0] in told
    dataset = jaxsim.load_dataset(name)
    assert len(dataset.users) == (5 if "5" in options else USERS)
    assert len(dataset.items) == ITEMS
    assert dataset.items["name"][0] == "Song & Dance A0"
    content = {path.rpartition("/")[2]: body for path, body in packed_files(year).items()}
    assert dataset.manifest["raw"] == {
        file: hashlib.sha256(body).hexdigest() for file, body in content.items()
    }
    urls = {path.rpartition("/")[2]: f"{site.url}{path}" for path in packed_files(year)}
    assert dataset.manifest["raw_urls"] == urls
    record = json.loads((raw_folder(cache, year) / "downloads.json").read_text())
    assert {file: entry["sha256"] for file, entry in record.items()} == dataset.manifest["raw"]
    asked = len(site.requests)
    build(*options)
    assert len(site.requests) == asked  # it is in the cache
    assert "know of no licence" not in capsys.readouterr().out


def test_a_conversion_keeps_the_addresses(tmp_path, site):
    assert set(convert(tmp_path)["raw_urls"]) == {
        "Digital_Music_5.json.gz",
        "meta_Digital_Music.json.gz",
    }


def test_a_large_download_is_asked_for(tmp_path, site, cache, monkeypatch, prep_error, capsys):
    monkeypatch.setattr(published_files, "ASK_ABOVE_BYTES", 100)
    args = ("convert", "amazon-music", "--out", tmp_path / "tables")
    message = prep_error(*args)
    assert "amazon-music: a download of 0.0 MB; agree to it with --yes" in message
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: "no")
    assert "not downloaded; --yes agrees" in prep_error(*args)
    assert site.ranges == []
    monkeypatch.setattr("builtins.input", lambda question: "y")
    convert(tmp_path)
    for path in raw_folder(cache).glob("*.gz"):
        path.unlink()
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail("asked in spite of --yes"))
    convert(tmp_path, "--yes")


def test_a_download_of_unknown_size_is_asked_for(tmp_path, site, prep_error):
    site.says_length = False
    message = prep_error("convert", "amazon-music", "--out", tmp_path / "tables")
    assert "a download of unknown size; agree to it with --yes" in message
    assert convert(tmp_path, "--yes")["dataset"] == "amazon-music"


def test_a_full_disk_is_noticed_before(tmp_path, site, monkeypatch, prep_error):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    message = prep_error("convert", "amazon-music", "--out", tmp_path / "tables")
    assert "5.0 MB free; make room, or set JAXSIM_CACHE_DIR" in message
    assert site.ranges == []


def test_a_cut_download_goes_on_with_the_same_command(
    tmp_path, site, cache, prep_error, capsys, monkeypatch
):
    monkeypatch.setattr(downloads, "RETRY_SECONDS", ())
    site.cuts = [300]
    message = prep_error("convert", "amazon-music", "--out", tmp_path / "tables")
    assert "the download broke off (300 of " in message
    assert "run the same command again, which goes on from there" in message
    assert not (tmp_path / "tables").exists()
    site.requests.clear()
    convert(tmp_path)
    assert site.ranges == ["bytes=300-", ""]
    assert "of which 0.0 MB are there already" in capsys.readouterr().out
    assert not list(raw_folder(cache).glob("*.part*"))


def test_another_server_is_asked_if_one_has_no_file(tmp_path, site, monkeypatch, prep_error):
    monkeypatch.setattr(amazon_releases, "SERVERS", (f"{site.url}/moved", site.url))
    urls = convert(tmp_path)["raw_urls"]
    assert all(url.startswith(f"{site.url}/amazon_v2/") for url in urls.values())


def test_no_server_says_where_to_get_the_files(tmp_path, site, monkeypatch, prep_error):
    monkeypatch.setattr(amazon_releases, "SERVERS", (f"{site.url}/moved",))
    message = prep_error("convert", "amazon-music", "--out", tmp_path / "tables")
    for words in ("Not Found", "try again later", "get Digital_Music_5.json.gz", "--raw"):
        assert words in message
    assert "https://nijianmo.github.io/amazon/" in message


def test_another_file_on_the_second_fetch_is_noted(tmp_path, site, cache, capsys):
    convert(tmp_path)
    path = raw_folder(cache) / "meta_Digital_Music.json.gz"
    path.unlink()
    convert(tmp_path)
    assert "SHA-256 differs" not in capsys.readouterr().err
    path.write_bytes(b"shorter")  # a cache that was damaged is mended
    convert(tmp_path)
    assert "was changed since it was downloaded; getting it again" in capsys.readouterr().err
    path.unlink()
    address = "/amazon_v2/metaFiles2/meta_Digital_Music.json.gz"
    site.files[address] = packed([LAYOUTS["2018"][3](f"A{item}") for item in range(3)])
    convert(tmp_path)
    told = capsys.readouterr().err
    assert "meta_Digital_Music.json.gz is not the file that was downloaded on 20" in told


@pytest.mark.parametrize("place", [4, 200])  # the time in the header of the gzip data; the data
def test_a_changed_file_of_the_same_size_is_refused(tmp_path, site, cache, prep_error, place):
    convert(tmp_path)
    path = raw_folder(cache) / "Digital_Music_5.json.gz"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    message = prep_error("convert", "amazon-music", "--out", tmp_path / "tables")
    assert f"{path}: was changed since it was downloaded" in message
    assert "delete it" in message


def test_two_processes_do_not_fetch_the_same(tmp_path, site, cache, prep_error):
    raw_folder(cache).mkdir(parents=True)
    with FileLock(raw_folder(cache) / ".lock"):
        message = prep_error("convert", "amazon-music", "--out", tmp_path / "tables")
    assert "another process is downloading amazon-music" in message


def test_options_that_have_no_meaning(tmp_path, site, prep_error):
    message = prep_error("build", "yelp", "--release", "2018", "--annotate", "none")
    assert "--release: yelp has no choice of releases" in message
    convert(tmp_path)
    args = ("build", "amazon-music", "--raw", tmp_path / "tables", "--annotate", "none")
    assert "is a conversion" in prep_error(*args, "--release", "2018")
    assert "invalid choice '2020'" in prep_error(*args, "--release", "2020")


def test_the_addresses_of_every_department_and_release():
    for source in AMAZON:
        for release in RELEASES:
            reviews, metadata = release.offer_of(source.name, source.department).files
            assert reviews.name == f"{release.reviews[0].format(source.department)}.gz"
            assert metadata.name == f"{release.metadata.format(source.department)}.gz"
            for file in (reviews, metadata):
                assert len(file.urls) == (3 if release.year == 2014 else 2)
                assert all(url.endswith(f"/{file.name}") for url in file.urls)
    first = RELEASES[2].offer_of("amazon-games", "Video_Games").files[0].urls[0]
    assert first == (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/review_categories/"
        "Video_Games.jsonl.gz"
    )


def test_how_to_get_them_names_the_pages():
    assert all(release.offer in HOW_TO_GET["amazon-music"] for release in RELEASES)
