import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import convert
from benchmarks.raw_files import ANIME_TITLES, write_anime, write_movies
from jaxsim import InputError
from prep.sources.amazon import AMAZON
from prep.sources.base import SourceOptions

MOVIES = AMAZON[2]


def test_movies_have_the_size_the_fields_and_the_skew_of_real_ones(tmp_path):
    count = write_movies(tmp_path, 3_000_000)
    path = tmp_path / "Movies_and_TV.json"
    assert 3_000_000 <= path.stat().st_size < 3_100_000
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == count
    assert 500 < path.stat().st_size / count < 725  # 612 in the real file
    data = MOVIES.load(SourceOptions(raw=tmp_path))
    assert len(data.ratings) == count
    assert all(not skipped.counts for skipped in data.skipped)
    assert 0.2 < data.ratings["user_id"].nunique() / count < 0.45
    assert set(data.ratings["rating"]) == {1, 2, 3, 4, 5}
    assert set(data.items["item_id"]) == set(data.ratings["item_id"])
    assert len(list(data.reviews.texts(np.arange(count)))) > 0.95 * count
    fields = "overall verified reviewTime reviewerID asin style reviewerName reviewText summary unixReviewTime"
    assert list(json.loads(lines[0])) == fields.split()


def test_anime_has_the_columns_of_the_real_one(tmp_path):
    assert write_anime(tmp_path, 5000) == 5000
    with (tmp_path / "rating.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "anime.csv").open(encoding="utf-8") as file:
        titles = list(csv.DictReader(file))
    assert len(rows) == 5000
    assert list(rows[0]) == ["user_id", "anime_id", "rating"]
    assert list(titles[0]) == ["anime_id", "name", "genre", "type", "episodes", "rating", "members"]
    assert len(titles) == ANIME_TITLES
    assert {row["anime_id"] for row in rows} <= {title["anime_id"] for title in titles}
    assert {row["rating"] for row in rows} <= {"-1", *map(str, range(1, 11))}
    assert 0.15 < sum(row["rating"] == "-1" for row in rows) / 5000 < 0.23
    users = [int(row["user_id"]) for row in rows]
    assert users == sorted(users)


def test_the_same_seed_writes_the_same_files(tmp_path):
    contents = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        write_movies(tmp_path / name, 50_000)
        write_anime(tmp_path / name, 500)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def test_a_measured_command_counts_its_own_time_and_memory():
    ballast = bytearray(300_000_000)  # of this process, and so not to be counted
    ballast[::4096] = b"x" * len(ballast[::4096])
    work = "data = bytearray(150_000_000); sum(range(3_000_000))"
    actual = convert.run_measured([sys.executable, "-I", "-c", work])
    assert 150 < actual["peak_mb"] < 300
    assert 0 < actual["cpu_seconds"] < 2 * actual["seconds"] + 1
    assert len(ballast) == 300_000_000


def test_a_failing_command_is_one_line():
    fails = [sys.executable, "-I", "-c", "import sys; sys.exit('first\\nno such file')"]
    with pytest.raises(InputError, match=r"exit code 1: no such file$"):
        convert.run_measured(fails)


@pytest.mark.parametrize(
    ("dataset", "bounds"),
    [
        ("amazon-movies", ["read", "orjson", "json"]),
        ("anime", ["read", "pandas.read_csv", "pyarrow.csv"]),
    ],
)
def test_the_benchmark_end_to_end(tmp_path, monkeypatch, capsys, dataset, bounds):
    commands = []

    def fake(command):
        # The command itself is measured by hand; here only that it is the right one, on files that are there.
        commands.append([part for part in command if not part.startswith(str(tmp_path))])
        assert Path(command[command.index("--raw") + 1]).is_dir()
        return {"seconds": 2.0 * len(commands), "cpu_seconds": 1.0, "peak_mb": 100.0}

    monkeypatch.setattr(convert, "run_measured", fake)
    path = tmp_path / "result.json"
    convert.run_convert(
        dataset, gigabytes=0.0002, repeats=3, text=False, folder=tmp_path, json=path
    )
    result = json.loads(path.read_text())
    assert (
        commands
        == [[sys.executable, "-m", "prep", "convert", dataset, "--raw", "--out", "--no-text"]] * 3
    )
    assert result["convert"]["seconds"] == 4.0
    assert result["convert"]["megabytes_per_second"] == pytest.approx(result["megabytes"] / 4.0)
    assert list(result["bounds"]) == bounds
    assert all(speed > 0 for speed in result["bounds"].values())
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]
    out = capsys.readouterr().out
    assert all(name in out for name in (dataset, "MB/s", *bounds))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"gigabytes": 0.0}, "--gigabytes"),
        ({"gigabytes": float("nan")}, "--gigabytes"),
        ({"repeats": 0}, "--repeats"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, settings, flag):
    with pytest.raises(InputError, match=flag):
        convert.run_convert(folder=tmp_path, **settings)
    assert not list(tmp_path.iterdir())
