"""A table of the user's own as a Parquet file."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxsim import InputError
from jaxsim.dataset import sha256_of
from tests.prep.sources.reading import rows, texts
from tests.prep.sources.test_table_file import CLOCK, DAY, ITEMS, RATINGS, ROWS, TEXTS, load, write


def write_parquet(folder, columns, name="mine.parquet", **options):
    path = folder / name
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet_is_the_same_as_csv(tmp_path, monkeypatch):
    monkeypatch.setattr("prep.readers.parquet._BATCH_ROWS", 2)
    columns = {
        "text": pa.array(["Fine", 'Long, and\nslow; "talky"', None]).dictionary_encode(),
        "Timestamp": [1000, 900, 1001],
        "rating": pa.array([4.5, 2, 3], pa.float32()),
        "item_id": pa.array(["007", "7", "x 1"]).dictionary_encode(),
        "user": pa.array(["ann", "bob", " ann "], pa.large_string()),
        "extra": [[1], [2], [3]],
    }
    items = {
        "name": ["The Spy", "Seven", None],
        "item": ["007", "7", "x 1"],
        "categories": [["Thriller", "Crime"], [], ["Drama"]],
        "attributes": ['{"author": "Ann Lee", "year": 1995, "tags": ["signed", "rare"]}', None,
                       '{"pages": 120, "in": ["de", "en"], "new": true}'],
    }  # fmt: skip
    path = write_parquet(tmp_path, columns)
    data = load(path, write_parquet(tmp_path, items, "items.parquet"))
    assert rows(data) == ROWS
    assert texts(data) == TEXTS
    assert texts(data, [1]) == TEXTS[1:]
    other = load(write(tmp_path, RATINGS), write(tmp_path, ITEMS, "items.csv"))
    pd.testing.assert_frame_equal(data.items, other.items)
    assert data.files == {
        name: sha256_of(tmp_path / name) for name in ("mine.parquet", "items.parquet")
    }
    assert rows(load(path.rename(tmp_path / "no suffix"))) == ROWS


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([7, 10, 7], pa.int64()), ["7", "10", "7"]),
        (pa.array([7, 2**63, 7], pa.uint64()), ["7", str(2**63), "7"]),
        (pa.array([1.0, 20.0, 3.0], pa.float64()), ["1", "20", "3"]),
        (pa.array([b"a", b"b", b"c"], pa.binary()), ["a", "b", "c"]),
        (pa.array([3, 4, 3], pa.int32()).dictionary_encode(), ["3", "4", "3"]),
    ],
)
def test_parquet_ids(tmp_path, ids, expected):
    data = load(write_parquet(tmp_path, {"user": ids, "item": ids, "rating": [1, 2, 3]}))
    assert data.ratings["user_id"].tolist() == data.ratings["item_id"].tolist() == expected


MOMENT = datetime(2014, 1, 2, 3, 4, 5, 900_000)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([MOMENT], pa.timestamp("ns")), CLOCK),
        (pa.array([MOMENT.replace(tzinfo=UTC)], pa.timestamp("ms", "Europe/Berlin")), CLOCK),
        (pa.array([date(2014, 1, 2)], pa.date32()), DAY),
        (pa.array(["2014-01-02T03:04:05Z"]), CLOCK),
        (pa.array([f"{CLOCK}"]), CLOCK),
        (pa.array([CLOCK + 0.5]), CLOCK),
        (pa.array([CLOCK * 1000 + 7]), CLOCK),
        (pa.array([CLOCK], pa.uint32()), CLOCK),
        (pa.array([Decimal(f"{CLOCK}.25")]), CLOCK),
    ],
)
def test_parquet_times(tmp_path, column, expected):
    columns = {"user": ["u"], "item": ["i"], "rating": [1.0], "time": column}
    assert rows(load(write_parquet(tmp_path, columns))) == [("u", "i", 1.0, expected)]


def test_parquet_rows_that_cannot_be_read(tmp_path):
    columns = {
        "user": pa.array([b"u", None, b"\xff", b" ", b"u", b"u", b"u", b"u"], pa.binary()),
        "item": [1.0, 2.0, 3.0, 4.0, None, 1.5, 2.0, 1.0],
        "rating": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, float("inf"), None],
        "timestamp": pa.array([1, 1, 1, 1, 1, 1, 1, 1]),
    }
    data = load(write_parquet(tmp_path, columns))
    assert rows(data) == [("u", "1", 1.0, 1)]
    assert data.skipped[0].counts == {
        "user is empty": 2,
        "user is not UTF-8 text": 1,
        "item is empty": 1,
        "item is not an id": 1,
        "rating is not a finite number": 2,
    }
    assert sorted(data.skipped[0].first.values()) == [2, 3, 5, 6, 7]
    with pytest.raises(InputError, match=r"mine\.parquet:2: user is empty"):
        load(tmp_path / "mine.parquet", strict=True)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["u"], "rating": [1]}, "there is no column item; found: 'user', 'rating'"),
        ({"user": ["u"], "item": ["i"], "rating": ["4"]}, "the column rating holds no numbers, but string"),
        ({"user": [[1]], "item": ["i"], "rating": [4]}, "the column user holds no text or numbers, but list<"),
        ({"user": ["u"], "item": ["i"], "rating": [4], "time": [True]},
         "the column timestamp holds no times, but bool"),
        ({"user": pa.array([], pa.string()), "item": [], "rating": []},
         "the column item holds no text or numbers, but null"),
        ({name: pa.array([], pa.int64()) for name in ("user", "item", "rating")}, "holds no rating"),
        ({"user": ["u"], "item": ["i"], "rating": [None]}, "the column rating holds no numbers, but null"),
    ],
)  # fmt: skip
def test_parquet_that_is_refused(tmp_path, columns, message):
    with pytest.raises(InputError) as caught:
        load(write_parquet(tmp_path, columns))
    assert message in str(caught.value)
    assert str(tmp_path / "mine.parquet") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_that_is_damaged(tmp_path):
    path = write_parquet(tmp_path, {"user": ["u"], "item": ["i"], "rating": [1]})
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2] + b"PAR1"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"mine\.parquet: not a Parquet file, or damaged"):
            load(path)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        load(path)


def test_attributes_in_parquet_may_be_a_map_or_a_struct(tmp_path):
    path = write(tmp_path, RATINGS)
    made = pa.array([[("author", "Ann"), ("year", None)]], pa.map_(pa.string(), pa.string()))
    for column in (made, pa.array([{"author": "Ann", "year": None}])):
        items = write_parquet(
            tmp_path, {"item": [7], "name": ["N"], "attributes": column}, "items.parquet"
        )
        data = load(path, items)
        assert data.items["item_id"].tolist() == ["7"]
        assert data.items["attributes"].tolist() == [{"author": "Ann"}]
