import hashlib
import socket
import zipfile

import pytest

from jaxsim import InputError
from jaxsim.dataset import sha256_of
from prep.sources import ml_100k
from prep.sources.base import SourceOptions
from prep.sources.ml_100k import MovieLens100K
from tests.prep.conftest import FILMS, RATINGS
from tests.prep.range_server import Site


def load(raw=None):
    return MovieLens100K().load(SourceOptions(raw=raw))


ROWS = [(user, item, float(stars), time) for user, item, stars, time in RATINGS]


@pytest.mark.parametrize("form", ["write_folder", "write_zip", "write_recbole"])
def test_all_forms_are_the_same_data(tiny, form):
    path = getattr(tiny, form)()
    data = load(path)
    assert list(data.ratings.itertuples(index=False, name=None)) == ROWS
    assert data.items["item_id"].tolist() == [film[0] for film in FILMS]
    assert data.items["name"].tolist() == [film[1] for film in FILMS]
    years = [{"year": str(film[2])} if film[2] else {} for film in FILMS]
    assert data.items["attributes"].tolist() == years
    assert data.items["categories"].tolist() == [film[3] for film in FILMS]
    assert len(data.files) == 2


def test_a_folder_around_the_folder_will_do(tiny):
    tiny.write_folder().rename(tiny.folder / "ml-100k")
    assert len(load(tiny.folder).ratings) == len(RATINGS)


def test_the_licence_is_shown_once_on_a_machine(tiny, cache, capsys):
    path = tiny.write_folder()
    load(path)
    assert "10.1145/2827872" in capsys.readouterr().out
    assert "10.1145/2827872" in (cache / "raw" / "ml-100k" / "LICENCE.txt").read_text()
    load(path)
    assert "10.1145/2827872" not in capsys.readouterr().out


def test_other_ratings_than_the_published_are_noted(tiny, capsys, monkeypatch):
    path = tiny.write_folder()
    load(path)
    assert "not MovieLens 100K as published" in capsys.readouterr().out
    digest = hashlib.sha256((path / "u.data").read_bytes()).hexdigest()
    monkeypatch.setattr(ml_100k, "RATINGS_SHA256", digest)
    load(path)
    assert "published" not in capsys.readouterr().out


@pytest.fixture
def published(tiny, monkeypatch):
    """Pretend that the invented data are the published ones; nothing can be had as yet."""
    archive, folder = tiny.write_zip(), tiny.write_recbole()
    wheels = tiny.folder / "wheels"
    wheels.mkdir()
    wheel = wheels / "recbole-1.2.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        for name in ml_100k.RECBOLE_FILES:
            packed.write(folder / name, f"recbole/dataset_example/ml-100k/{name}")
        packed.writestr(
            "recbole-1.2.1.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\nRequires-Dist: no-such-thing\n",
        )
        packed.writestr(
            "recbole-1.2.1.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        packed.writestr("recbole-1.2.1.dist-info/RECORD", "")
    cached = {path.name: sha256_of(path) for path in [archive, *folder.iterdir()]}
    monkeypatch.setattr(ml_100k, "CACHED_SHA256", cached)
    monkeypatch.setattr(ml_100k, "ZIP_SHA256", cached["ml-100k.zip"])
    monkeypatch.setattr(ml_100k, "WHEEL_SHA256", sha256_of(wheel))
    digest = hashlib.sha256((tiny.folder / "grouplens" / "u.data").read_bytes()).hexdigest()
    monkeypatch.setattr(ml_100k, "RATINGS_SHA256", digest)
    monkeypatch.setattr(ml_100k, "ZIP_URL", "http://127.0.0.1:9/ml-100k.zip")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny.folder / "nowhere"))
    return wheels


def cached_names(cache):
    return sorted(path.name for path in (cache / "raw" / "ml-100k").iterdir())


def test_grouplens_comes_before_the_wheel_and_the_cache_before_both(
    tiny, published, cache, monkeypatch
):
    content = (tiny.folder / "ml-100k.zip").read_bytes()
    with Site({"/ml-100k.zip": content}).serve() as site:
        monkeypatch.setattr(ml_100k, "ZIP_URL", f"{site.url}/ml-100k.zip")
        assert len(load().ratings) == len(RATINGS)
    assert cached_names(cache) == ["LICENCE.txt", "ml-100k.zip"]
    again = load()  # the server is gone
    assert list(again.ratings.itertuples(index=False, name=None)) == ROWS


def test_the_wheel_is_the_last_resort(published, cache, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(published))
    actual = load()
    assert list(actual.ratings.itertuples(index=False, name=None)) == ROWS
    assert cached_names(cache) == ["LICENCE.txt", "ml-100k.inter", "ml-100k.item"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(published / "nowhere"))
    assert len(load().ratings) == len(RATINGS)


def test_a_damaged_cache_is_fetched_again(published, cache, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(published))
    load()
    path = cache / "raw" / "ml-100k" / "ml-100k.inter"
    path.write_bytes(path.read_bytes()[:-40])
    assert len(load().ratings) == len(RATINGS)


def test_a_silent_grouplens_does_not_hold_things_up(published, cache, monkeypatch):
    monkeypatch.setattr(ml_100k, "ANSWER_SECONDS", 0.2)
    monkeypatch.setenv("PIP_FIND_LINKS", str(published))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(ml_100k, "ZIP_URL", f"http://127.0.0.1:{port}/ml-100k.zip")
        assert len(load().ratings) == len(RATINGS)


def test_nothing_to_be_had_says_what_to_put_where(published, cache):
    with pytest.raises(InputError) as caught:
        load()
    message = str(caught.value)
    assert ml_100k.ZIP_URL in message
    assert str(cache / "raw" / "ml-100k" / "ml-100k.zip") in message
    assert "--raw" in message
    assert cached_names(cache) == []


def test_a_wheel_of_another_digest_is_refused(published, cache, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(published))
    monkeypatch.setattr(ml_100k, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(InputError, match="not the published wheel"):
        load()
    assert cached_names(cache) == []


def test_the_real_data(real_wheel, capsys):
    data = load(real_wheel)
    assert "not MovieLens 100K as published" not in capsys.readouterr().out
    assert (len(data.ratings), len(data.items)) == (100_000, 1682)
    assert data.ratings["user_id"].nunique() == 943
    assert sum(not attributes for attributes in data.items["attributes"]) == 1
    untitled = data.items.set_index("item_id").loc["267"]
    assert (untitled["name"], untitled["categories"]) == ("unknown", ("unknown",))
