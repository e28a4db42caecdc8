"""What CSV blocks and Parquet batches have in common: one check of their rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsim import InputError
from prep.readers import validator
from prep.readers.columns import Column, RatingColumns
from prep.readers.validator import RatingsValidator, Scale
from prep.sources.base import SourceOptions
from prep.sources.table import TableFile

COLUMNS = RatingColumns(Column("user"), Column("item"), Column("rating"), Column("time"))


def check(**columns):
    size = max(map(len, columns.values()))
    batch = {"user": ["u"] * size, "item": ["i"] * size, "rating": [3.0] * size} | columns
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values)
        for name, values in batch.items()
    }
    return RatingsValidator(COLUMNS, Scale(1, 5)).check(arrays)


def test_each_row_has_one_fault_at_most_and_the_first_column_names_it():
    rows, faults = check(
        user=pa.array([b"a", b" ", b"\xff", None, b"\xc2\xa0", b"b"]),
        rating=["1", "9", "9", "9", "2", " 5.0 "],
    )
    assert faults == [
        (1, "user is empty"),
        (2, "user is not UTF-8 text"),
        (3, "user is empty"),
        (4, "user is empty"),
    ]
    assert [rows.user.values[code] for code in rows.user.codes] == ["a", "b"]
    np.testing.assert_array_equal(rows.rating, np.float32([1, 5]))


PARTS = st.sampled_from(["0", "1", "9", "-", "+", ".", "e", " ", "x", "2014", "-01-02", "-02-30", "T", "24:00:00",
                         " 03:04:05", "Z", "0000", "00:60:00", "é"])  # fmt: skip


@given(st.lists(PARTS, min_size=1, max_size=4).map("".join))
def test_times_that_arrow_reads_have_the_value_that_python_reads(text):
    fast, faults = check(time=[text])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validator, "_plain_times", lambda array: None)
        slow, same_faults = check(time=[text])
    assert fast.time.tolist() == slow.time.tolist()
    assert faults == same_faults


def load(folder, lines, strict=False):
    path = folder / "mine.csv"
    path.write_text("user,item,rating,time,text\n" + "\n".join(lines))
    return TableFile(path).load(SourceOptions(strict=strict))


def test_the_form_of_the_first_valid_row_decides_and_not_that_of_a_bad_one(tmp_path):
    data = load(tmp_path, ["u,i,bad,2014-01-02,", "u,i,3,1000,", "u,i,3,2014-01-02,"])
    assert data.ratings["time"].tolist() == [1000]
    assert list(data.skipped[0].first.values()) == [2, 4]


@pytest.mark.parametrize("bad", ["u,i,five,1,", "u,i,3", 'u,"i,3,1,'])
@pytest.mark.parametrize("other", ["u,i,five,1,", "u,i,3", 'u,"i,3,1,'])
def test_the_first_bad_line_of_a_file_is_the_one_that_is_named(tmp_path, bad, other, capsys):
    """Whether a line has a bad value, the wrong width or an open quote, in one block with any other."""
    lines = ["u,i,3,1,", bad, "u,i,3,1,", other, "u,i,3,1,"]
    assert len(load(tmp_path, lines).ratings) == 3
    assert "mine.csv:3: " in capsys.readouterr().err
    with pytest.raises(InputError, match=r"mine\.csv:3: .*--strict"):
        load(tmp_path, lines, strict=True)
