"""The column of durations of a table: what is read, refused, missing and reported."""

import pandas as pd
import pytest

from jaxsim import InputError
from prep.config import RatingsConfig
from prep.convert import convert_dataset
from prep.ratings import read_ratings
from prep.sources import get_source
from prep.sources.base import SourceOptions
from prep.sources.table import TableFile

ROWS = [
    ("a", "x", 5, "1.5"),
    ("a", "y", 2, ""),
    ("b", "x", 4, "-3"),
    ("b", "y", 1, "7"),
    ("c", "x", 5, "long"),
]


def table(path, rows=ROWS, header="user,item,rating,duration"):
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", "utf-8")
    return TableFile(path)


def test_durations_are_read_and_bad_ones_named(tmp_path, capsys):
    data = table(tmp_path / "plays.csv").load(SourceOptions())
    assert data.ratings["duration"].fillna(0).tolist() == [1.5, 0, 7]
    assert data.missing_duration == f"{tmp_path}/plays.csv:3"
    (skipped, *_) = data.skipped
    assert skipped.first == {"duration is not a number above 0": 4}
    assert skipped.total == 2
    assert "plays.csv:4: duration is not a number above 0; left out" in capsys.readouterr().err


def test_strict_stops_at_the_line(tmp_path):
    with pytest.raises(InputError, match=r"plays.csv:4: duration is not a number above 0"):
        table(tmp_path / "plays.csv").load(SourceOptions(strict=True))


def test_without_ratings_durations_take_their_place(tmp_path):
    rows = [(user, item, duration) for user, item, _, duration in ROWS]
    source = table(tmp_path / "plays.csv", rows, "user,item,duration")
    data = source.load(SourceOptions())
    assert data.durations_are_ratings
    assert data.ratings["rating"].tolist() == [1.5, 7]
    assert "duration is missing, and there is no rating" in data.skipped[0].counts
    ratings = read_ratings(source, RatingsConfig(like_threshold=5.0, duration_unit="hours"))
    assert ratings.durations.unit == "hours"
    assert ratings.durations.are_ratings
    assert sorted(ratings.interactions.arrays["interaction_label"]) == [0, 1]


def test_neither_ratings_nor_durations(tmp_path):
    source = table(tmp_path / "plays.csv", [("a", "x")], "user,item")
    with pytest.raises(InputError, match="there is no column rating"):
        source.load(SourceOptions())


def test_a_unit_without_durations_is_refused(tmp_path):
    rows = [row[:3] for row in ROWS]
    source = table(tmp_path / "plays.csv", rows, "user,item,rating")
    config = RatingsConfig(like_threshold=3.0, duration_unit="hours")
    with pytest.raises(InputError, match="--duration-unit hours: plays has no durations"):
        read_ratings(source, config)


def test_parquet_and_conversion_keep_durations(tmp_path):
    frame = pd.DataFrame(
        {
            "user": ["a", "a", "b"],
            "item": ["x", "y", "x"],
            "rating": [5, 2, 4],
            "duration": [1.5, None, 7],
        }
    )
    frame.to_parquet(tmp_path / "plays.parquet")
    data = get_source(str(tmp_path / "plays.parquet")).load(SourceOptions())
    assert data.missing_duration.endswith("plays.parquet:2")
    assert data.ratings["duration"].fillna(0).tolist() == [1.5, 0, 7]
    out = tmp_path / "tables"
    convert_dataset(get_source(str(tmp_path / "plays.parquet")), SourceOptions(), out)
    again = get_source(str(out / "ratings.parquet")).load(SourceOptions())
    pd.testing.assert_series_equal(again.ratings["duration"], data.ratings["duration"])
