import csv
import gzip
import io
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from jaxsim.dataset import sha256_of
from prep.readers import csv as csv_reader
from prep.readers import lines as streams
from prep.readers.items import parse_attributes, split_categories
from prep.readers.rows import BadLineError
from prep.sources.base import SourceOptions
from prep.sources.table import TableFile
from tests.prep.sources.reading import rows, texts

RATINGS = '''\
user,item,rating,timestamp,text
ann,007,4.5,1000,Fine
bob,7,2,900,"Long, and
slow; ""talky"""
ann,x 1,3,1001.75,
'''
ROWS = [("ann", "007", 4.5, 1000), ("bob", "7", 2.0, 900), ("ann", "x 1", 3.0, 1001)]
TEXTS = [(0, "Fine"), (1, 'Long, and\nslow; "talky"')]
ITEMS = """\
item,name,categories,attributes
007,The Spy,Thriller | Crime|Thriller,author: Ann Lee|year=1995|signed|rare
7,Seven,,
x 1,,Drama,"{""pages"": 120, ""in"": [""de"", ""en""], ""new"": true, ""old"": false}"
"""


def write(folder, text, name="mine.csv"):
    path = folder / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def load(path, items=None, strict=False):
    return TableFile(path).load(SourceOptions(items=items, strict=strict))


def read(folder, text, name="mine.csv"):
    return rows(load(write(folder, text, name)))


# ------------------------------------------------------------------ what is read


def test_what_is_read(tmp_path):
    path, items = write(tmp_path, RATINGS), write(tmp_path, ITEMS, "items.csv")
    data = load(path, items)
    assert rows(data) == ROWS
    assert [str(kind) for kind in data.ratings.dtypes] == [
        "category",
        "category",
        "float32",
        "int64",
    ]
    assert data.items["item_id"].tolist() == ["007", "7", "x 1"]
    assert data.items["name"].tolist() == ["The Spy", "Seven", "x 1"]
    assert data.items["categories"].tolist() == [("Thriller", "Crime"), (), ("Drama",)]
    assert data.items["attributes"].tolist() == [
        {"author": "Ann Lee", "year": "1995", "tags": "signed, rare"},
        {},
        {"pages": "120", "in": "de, en", "new": "yes"},
    ]
    assert data.files == {"mine.csv": sha256_of(path), "items.csv": sha256_of(items)}
    assert [skipped.total for skipped in data.skipped] == [0, 0]


def test_texts_are_read_again_when_they_are_wanted(tmp_path):
    data = load(write(tmp_path, RATINGS))
    assert texts(data) == TEXTS
    assert texts(data, [1, 2]) == TEXTS[1:]
    assert texts(data, []) == []
    assert load(write(tmp_path, "user,item,rating\na,b,1\n")).reviews is None


@pytest.mark.parametrize(
    ("name", "said"),
    [("my.csv", "my"), ("my.csv.gz", "my"), ("a.b.tsv", "a.b"), ("m.parquet", "m"), ("plain", "plain")],
)  # fmt: skip
def test_name_noun_and_threshold(tmp_path, name, said):
    source = TableFile(tmp_path / name)
    assert (source.name, source.noun, source.like_threshold) == (said, "item", None)
    assert (source.replies, source.language_model) == ((), "")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("user,item,rating,timestamp", "USER_ID,Item_Id, Rating,time"),
        lambda text: "\ufeff" + text.replace("user", '"user"'),
        lambda text: text.replace("4.5", '" 4.5 "').replace("ann", " ann"),
        lambda text: text.replace("4.5", "+45E-1").replace("2,900", "2.,900.0"),
    ],
)
def test_harmless_differences_in_form(tmp_path, change):
    assert read(tmp_path, change(RATINGS)) == ROWS


@pytest.mark.parametrize("separator", ["\t", ";", ","])
def test_separators(tmp_path, separator):
    table = io.StringIO()
    writer = csv.writer(table, delimiter=separator)
    writer.writerow(["rating", "note; well, yes", "user", "item"])
    writer.writerows([[3, "a,b;c\td", "u;1,2\t3", "i"], [4, '12" vinyl', "v", "j"]])
    expected = [("u;1,2\t3", "i", 3.0, 0), ("v", "j", 4.0, 0)]
    assert read(tmp_path, table.getvalue(), "mine.tsv") == expected


def test_items_are_named_by_their_ids_without_a_file_of_items(tmp_path):
    data = load(write(tmp_path, RATINGS))
    assert data.items["item_id"].tolist() == data.items["name"].tolist() == ["007", "7", "x 1"]
    assert data.items["categories"].tolist() == [()] * 3


def test_columns_of_items_that_are_not_used_are_named(tmp_path, capsys):
    path = write(tmp_path, RATINGS)
    items = write(tmp_path, "item_id,avg rating,name,year\n7,4.9,Seven,1995\n", "items.csv")
    assert load(path, items).items["attributes"].tolist() == [{}]
    err = capsys.readouterr().err
    assert err.startswith(f"note: {items}: not used: avg rating, year; ")
    assert err.count("\n") == 1


# ------------------------------------------------------------------ times


def times(folder, *values):
    lines = [f"u,i,3,{value}" for value in values]
    data = load(write(folder, "\n".join(["user,item,rating,timestamp", *lines])))
    return data.ratings["time"].tolist(), data.skipped[0].counts


DAY = int(datetime(2014, 1, 2, tzinfo=UTC).timestamp())
CLOCK = DAY + 3 * 3600 + 4 * 60 + 5
NO_TIME = {"timestamp is neither a number of seconds nor an ISO 8601 date": 1}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["0", "-5", "1700000000"], [0, -5, 1_700_000_000]),
        (["10.9", "-0.5", "1e3"], [10, -1, 1000]),
        (["2014-01-02", "2014-01-02 03:04:05"], [DAY, CLOCK]),
        (["2014-01-02T03:04:05.999", "1969-12-31"], [CLOCK, -86_400]),
        (["2014-01-02T03:04:05Z", "2014-01-02T05:04:05+02:00"], [CLOCK, CLOCK]),
        (["2014-01-02", "2014-01-02T03:04:05Z"], [DAY, CLOCK]),  # too mixed for a fast parser
        (["1388620800000", "1388620801999"], [DAY, DAY + 1]),
        (["1388620800000000", "1388620801999999"], [DAY, DAY + 1]),
        (["1388620800000000000"] * 2, [DAY, DAY]),
        (["1388620800000", "5"], [DAY * 1000, 5]),  # not all of them: nobody can tell
    ],
)
def test_times(tmp_path, written, read):
    assert times(tmp_path, *written) == (read, {})


@pytest.mark.parametrize(
    "bad", ["", "soon", "nan", "inf", "1e300", "9" * 25, "2014-13-01", "2014-01-02"]
)
def test_what_is_no_time(tmp_path, bad):
    assert times(tmp_path, "5", bad, "7") == ([5, 7], NO_TIME)


def test_numbers_among_dates_are_no_times(tmp_path):
    assert times(tmp_path, "2014-01-02", "17") == ([DAY], NO_TIME)


# ------------------------------------------------------------------ bad lines


BAD = {
    "user is empty": ["  ,i,3,1,t"],
    "item is empty": ['u,"",3,1,t'],
    "rating is not a finite number": ["u,i,,1,t", "u,i,nan,1,t", "u,i,inf,1,", "u,i,1e39,1,",
                                      "u,i,1_0,1,", "u,i,0x1,1,", 'u,i,"4,5",1,', "u,i,\u0664,1,"],
    "timestamp is neither a number of seconds nor an ISO 8601 date": ["u,i,3,,t"],
    "the number of columns is not that of the header": ["u,i,3,1", "u,i,3,1,t,t", "garbage", "u\ri,3,1,t"],
    "a quote is not closed, or its field goes on behind it": ['u,"i,3,1,t', '"u,i,3,1,t'],
    "user is not UTF-8 text": [b"\xff,i,3,1,t"],
    "item is not UTF-8 text": [b"u,\xe9t\xe9,3,1,t"],
}  # fmt: skip
CASES = [(why, line) for why, lines in BAD.items() for line in lines]


@pytest.mark.parametrize(("why", "line"), CASES)
def test_a_bad_line_costs_itself_alone(tmp_path, why, line):
    line = line if isinstance(line, bytes) else line.encode()
    data = load(write(tmp_path, RATINGS.encode() + line + b"\nzoe,i,3,7,t\n"))
    assert rows(data) == [*ROWS, ("zoe", "i", 3.0, 7)]
    assert data.skipped[0].counts == {why: 1}
    assert data.skipped[0].first == {why: 6}
    with pytest.raises(InputError, match=r"mine\.csv:6: .*--strict"):
        load(tmp_path / "mine.csv", strict=True)


def test_all_bad_lines_at_once(tmp_path):
    lines = [line if isinstance(line, bytes) else line.encode() for _, line in CASES]
    data = load(write(tmp_path, RATINGS.encode() + b"\nzoe,i,3,7,\n".join(lines) + b"\n"))
    assert rows(data) == [*ROWS, *[("zoe", "i", 3.0, 7)] * (len(lines) - 1)]
    assert data.skipped[0].counts == {why: len(lines) for why, lines in BAD.items()}


def test_a_text_that_is_not_utf8_does_not_cost_the_rating(tmp_path):
    data = load(write(tmp_path, b"user,item,rating,text\na,b,1,caf\xe9\n"))
    assert texts(data) == [(0, "caf\ufffd")]


def test_a_quote_that_stays_open_for_a_long_time(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_reader, "MAX_RECORD_CHARACTERS", 200)
    monkeypatch.setattr(streams, "BLOCK_BYTES", 64)
    many = [f"u{n},i,{n % 5},word word" for n in range(60)]
    text = "\n".join(["user,item,rating,text", *many[:30], 'v,i,1,"open', *many[30:]])
    data = load(write(tmp_path, text))
    assert data.ratings["user_id"].tolist() == [f"u{n}" for n in range(60)]
    assert data.skipped[0].first == {"a quote is not closed, or its field goes on behind it": 32}
    assert len(texts(data)) == 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "nothing but blank lines"),
        ("user,item,rating\n", "the file holds no rating"),
        ("user,item,stars\na,b,1\n", "mine.csv:1: there is no column rating; found: 'user', 'item', 'stars'"),
        ("user,user_id,item,rating\n", "mine.csv:1: the columns user and user_id both stand for user"),
        ("user,item,rating\na,b,x\n", "mine.csv:2: rating is not a finite number; not one of its 1 lines"),
        ("user,item,rating\n".encode("utf-16-le"), "not a text file"),
        ("user,item,rating\n".encode("utf-16"), "UTF-16"),
        (gzip.compress(RATINGS.encode(), mtime=0)[:-9], "not a whole gzip file"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        load(write(tmp_path, text))
    assert message in str(caught.value)
    assert str(tmp_path / "mine.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_items(tmp_path):
    path = write(tmp_path, RATINGS)
    lines = b'7,Again,,\n,No id,,\n8,N,a\n9,\xff,,\n10,N,,"{""a"": "\n11,"open,,\n12,Fine,,{x}\n13,Fine,,\n'
    data = load(path, write(tmp_path, ITEMS.encode() + lines, "items.csv"))
    assert data.items["item_id"].tolist() == ["007", "7", "x 1", "13"]
    assert data.skipped[1].counts == {
        "the item comes a second time": 1,
        "item is empty or not an id": 1,
        "the number of columns is not that of the header": 1,
        "name is not UTF-8 text": 1,
        "attributes begins like a JSON object, but is not one": 2,
        "a quote is not closed, or its field goes on behind it": 1,
    }
    with pytest.raises(InputError, match=r"items\.csv:5: the item comes a second time \(--strict"):
        load(path, tmp_path / "items.csv", strict=True)
    with pytest.raises(InputError, match=r"items\.csv:1: there is no column name; found: 'item'"):
        load(path, write(tmp_path, "item\n7\n", "items.csv"))
    with pytest.raises(InputError, match="no such file"):
        load(path, tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, {}),
        ("", {}),
        ("  |  ", {}),
        ("a: 1 | b=2", {"a": "1", "b": "2"}),
        ("url: http://x?y=1", {"url": "http://x?y=1"}),
        ("k=a:b", {"k": "a:b"}),
        ("a: 1|a: 2", {"a": "1, 2"}),
        ("hard  cover|signed", {"tags": "hard cover, signed"}),
        ("a:", {}),
        ('{"a": null, "b": 1.5, "c": {"d": 1}}', {"b": "1.5", "c": '{"d": 1}'}),
        ([("a", "1"), ("b", None)], {"a": "1"}),
        ({"a": [1, 2]}, {"a": "1, 2"}),
    ],
)
def test_attributes(value, expected):
    assert parse_attributes(value) == expected


@pytest.mark.parametrize("value", ["{", '{"a"}', "{" * 5000])
def test_attributes_that_are_no_json(value):
    with pytest.raises(BadLineError):
        parse_attributes(value)


def test_categories():
    assert split_categories(" A  b | C||A b") == ("A b", "C")
    assert split_categories([b"A", "B|C", b"A"]) == ("A", "B|C")
    assert split_categories(None) == ()


# ------------------------------------------------------------------ the same by any way of reading


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    table=st.lists(
        st.tuples(
            st.text("ab \u00e9", min_size=1).filter(str.strip),
            st.sampled_from(["1", "01", "x,y", 'q"r', ";"]),
            st.floats(-100, 100, width=32),
            st.text('ab,;"\n\u00e9 ', max_size=12),
        ),
        min_size=1,
        max_size=12,
    ),
    size=st.integers(1, 60),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_any_table_that_is_written_is_read_again(tmp_path, monkeypatch, table, size, ends, quoting):
    """Whatever the fields hold, and wherever block borders fall."""
    monkeypatch.setattr(streams, "BLOCK_BYTES", size)
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=ends, quoting=quoting)
    writer.writerow(["user", "item", "rating", "text"])
    writer.writerows(table)
    data = load(write(tmp_path, file.getvalue()))
    assert rows(data) == [(user.strip(), item, rating, 0) for user, item, rating, _ in table]
    assert data.skipped[0].total == 0
    written = [(row, text.strip()) for row, (*_, text) in enumerate(table)]
    assert texts(data) == [(row, text) for row, text in written if text]


PIECES = [b"u", b"i", b"1", b"3.5", b"-1", b",", b",", b",", b'"', b"\n", b"\n", b"\r", b"\r\n", b" ",
          b"\xff", "é".encode(), b"nan", b"1e39", b"\0", b"u,i,1\n", b'u,"a\nb",1\n', b"u,i,2,x\n"]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), size=st.sampled_from([16, 1 << 20]))
def test_both_ways_of_splitting_a_block_agree(tmp_path, monkeypatch, pieces, size):
    path = write(tmp_path, b"user,item,rating\nann,007,4\n" + b"".join(pieces))
    with monkeypatch.context() as patched:
        patched.setattr(streams, "BLOCK_BYTES", size)
        fast = load(path)
        patched.setattr(csv_reader, "_split_by_arrow", lambda *args: None)
        careful = load(path)
    assert rows(fast) == rows(careful)
    assert fast.skipped[0].counts == careful.skipped[0].counts
    assert fast.skipped[0].first == careful.skipped[0].first
    assert all(math.isfinite(rating) for rating in fast.ratings["rating"])


@pytest.mark.parametrize("gap", [1, 500])
def test_two_open_quotes_do_not_swallow_what_is_between_them(tmp_path, gap):
    rows = [f'u{n % 9},i{n},{n % 5 + 1},{n},"Fine, ""really"" {n}"' for n in range(gap + 20)]
    for broken in (10, 10 + gap):
        rows[broken] = f'u1,i{broken},4,{broken},"Great film'
    (tmp_path / "mine.csv").write_text("user,item,rating,timestamp,text\n" + "\n".join(rows))
    data = load(tmp_path / "mine.csv")
    assert len(data.ratings) == gap + 18
    assert data.skipped[0].total == 2
    assert max(len(text) for _, text in data.reviews.texts(np.arange(gap + 18))) < 30
    with pytest.raises(InputError, match=r"mine\.csv:12: a quote is not closed"):
        load(tmp_path / "mine.csv", strict=True)


def test_attributes_in_a_list_and_values_that_are_missing():
    assert parse_attributes(["colour: red", "round"]) == {"colour": "red", "tags": "round"}
    assert parse_attributes(float("nan")) == {}
    assert parse_attributes({"a": float("nan"), "b": 1.5}) == {"b": "1.5"}
    assert split_categories(["a", None, float("nan")]) == ("a",)
