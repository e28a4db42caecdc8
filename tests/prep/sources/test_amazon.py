import ast
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxsim import InputError
from prep.readers.json_lines import (
    MAX_LITERAL_BYTES,
)
from prep.sources import amazon
from prep.sources.amazon import AMAZON
from prep.sources.base import SourceOptions
from tests.paths import SAMPLES
from tests.prep.sources.reading import error_of, rows, skipped, texts

MUSIC, GAMES, MOVIES = AMAZON

Fields = dict[str, Any]


def review_2014(user: str, item: str, overall: Any = 4.0, **fields: Any) -> Fields:
    return {
        "reviewerID": user,
        "asin": item,
        "reviewerName": "Somebody",
        "helpful": [2, 3],
        "reviewText": f"{user} on {item}",
        "overall": overall,
        "summary": "Fine",
        "unixReviewTime": 1_158_019_200,
        "reviewTime": "09 12, 2006",
        **fields,
    }


def review_2018(user: str, item: str, overall: Any = 4.0, **fields: Any) -> Fields:
    row = review_2014(user, item, overall, vote="11", verified=True, style={"Format:": " DVD"})
    del row["helpful"]
    return row | fields


def review_2023(user: str, item: str, rating: Any = 4.0, **fields: Any) -> Fields:
    return {
        "rating": rating,
        "title": "Fine",
        "text": f"{user} on {item}",
        "images": [],
        "asin": f"{item}-blue",
        "parent_asin": item,
        "user_id": user,
        "timestamp": 1_158_019_200_999,
        "helpful_vote": 0,
        "verified_purchase": True,
        **fields,
    }


def meta_2014(item: str, **fields: Any) -> Fields:
    return {
        "asin": item,
        "title": f"Song &amp; Dance {item}",
        "price": 9.49,
        "imUrl": "http://example.org/image.jpg",
        "related": {"also_bought": ["Z1", "Z2"]},
        "salesRank": {"Music": 939190},
        "brand": "The Quavers",
        "categories": [["CDs & Vinyl", "Folk"], ["Digital Music", "Folk", "Celtic"]],
        "description": "Tunes\nfrom <b>afar</b>.",
        **fields,
    }


def meta_2018(item: str, **fields: Any) -> Fields:
    return {
        "category": ["Digital Music", "Folk", "</span></span></span>", "Celtic"],
        "tech1": "",
        "description": ["Tunes\nfrom <b>afar</b>.", ""],
        "fit": "",
        "title": f"Song &amp; Dance {item}",
        "also_buy": ["Z1"],
        "brand": "The Quavers",
        "feature": [],
        "rank": "939,190 in Music (",
        "main_cat": "<img src='music.png' alt='Digital Music'/>",
        "price": "$9.49",
        "asin": item,
        "details": {"Label:": "Reel", "ASIN:": item},
        **fields,
    }


def meta_2023(item: str, **fields: Any) -> Fields:
    return {
        "main_category": "Digital Music",
        "title": f"Song & Dance {item}",
        "average_rating": 4.7,
        "rating_number": 812,
        "features": ["Remastered", "Two discs"],
        "description": ["Tunes\nfrom <b>afar</b>."],
        "price": 9.49,
        "images": [{"large": "http://example.org/image.jpg"}],
        "videos": [],
        "store": "The Quavers",
        "categories": ["Digital Music", "Folk", "Celtic"],
        "details": {"Label": "Reel", "Best Sellers Rank": {"Music": 7}, "Rating": "4.7"},
        "parent_asin": item,
        "bought_together": None,
        **fields,
    }


LAYOUTS = {
    "2014": ("reviews_Digital_Music_5.json", "meta_Digital_Music.json", review_2014, meta_2014),
    "2018": ("Digital_Music_5.json", "meta_Digital_Music.json", review_2018, meta_2018),
    "2023": ("Digital_Music.jsonl", "meta_Digital_Music.jsonl", review_2023, meta_2023),
}
OPINIONS = [
    ("ann", "A1", 5.0),
    ("bob", "A2", 1),
    ("ann", "A3", "3.0"),
    ("ann", "A1", 2.0),
]


def line_of(row: Any, literal: bool = False) -> bytes:
    if isinstance(row, bytes):
        return row
    return (repr(row) if literal else json.dumps(row)).encode()


def write(folder: Path, layout: str, reviews: Any = None, metadata: Any = None) -> SourceOptions:
    """Write the files of a layout; A3 has no metadata, Z9 no review."""
    reviews_name, metadata_name, review, meta = LAYOUTS[layout]
    reviews = [review(*row) for row in OPINIONS] if reviews is None else reviews
    metadata = [meta(item) for item in ("A1", "Z9", "A2")] if metadata is None else metadata
    literal = layout == "2014"
    (folder / reviews_name).write_bytes(b"\n".join(map(line_of, reviews)))
    (folder / metadata_name).write_bytes(
        b"\n".join(line_of(row, literal) for row in metadata) + b"\n"
    )
    return SourceOptions(raw=folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_release_gives_the_same_data(tmp_path, layout):
    data = MUSIC.load(write(tmp_path, layout))
    assert rows(data) == [
        ("ann", "A1", 5.0, 1_158_019_200),
        ("bob", "A2", 1.0, 1_158_019_200),
        ("ann", "A3", 3.0, 1_158_019_200),
        ("ann", "A1", 2.0, 1_158_019_200),
    ]
    assert data.ratings.dtypes[["rating", "time"]].tolist() == [np.float32, np.int64]
    assert data.items["item_id"].tolist() == ["A1", "A2"]
    assert data.items["name"].tolist() == ["Song & Dance A1", "Song & Dance A2"]
    for names in data.items["categories"]:
        assert [name for name in names if name != "CDs & Vinyl"][-2:] in (
            ["Folk", "Celtic"],
            ["Digital Music", "Celtic"],
        )
    told = data.items["attributes"][0]
    assert told["artist"] == "The Quavers"
    assert told["price"] == "$9.49"
    assert told["description"] == "Tunes from afar."
    assert not {"4.7", "812", "939190"} & {word for text in told.values() for word in text.split()}
    assert texts(data) == [(0, "ann on A1"), (1, "bob on A2"), (2, "ann on A3"), (3, "ann on A1")]
    assert skipped(data) == [{}, {}]
    assert set(data.files) == set(LAYOUTS[layout][:2])
    assert f"release {layout}" in data.origin


def test_what_only_some_releases_tell(tmp_path):
    data = {}
    for layout in LAYOUTS:
        (tmp_path / layout).mkdir()
        data[layout] = MUSIC.load(write(tmp_path / layout, layout)).items
    assert data["2014"]["categories"][0] == ("CDs & Vinyl", "Folk", "Digital Music", "Celtic")
    assert data["2018"]["categories"][0] == ("Digital Music", "Folk", "Celtic")
    assert data["2023"]["categories"][0] == ("Digital Music", "Folk", "Celtic")
    assert "label" not in data["2014"]["attributes"][0]
    assert data["2018"]["attributes"][0]["label"] == "Reel"
    assert data["2023"]["attributes"][0] == {
        "artist": "The Quavers",
        "price": "$9.49",
        "label": "Reel",
        "features": "Remastered; Two discs",
        "description": "Tunes from afar.",
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gzip_is_the_same_as_plain(tmp_path, layout):
    options = write(tmp_path, layout)
    plain = MUSIC.load(options)
    before = rows(plain), texts(plain)
    for name in LAYOUTS[layout][:2]:
        path = tmp_path / name
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    zipped = MUSIC.load(options)
    assert (rows(zipped), texts(zipped)) == before
    pd.testing.assert_frame_equal(zipped.items, plain.items)
    assert all(name.endswith(".gz") for name in zipped.files)
    path = tmp_path / f"{LAYOUTS[layout][0]}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    assert f"{path.name}: not a whole gzip file" in error_of(MUSIC, options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_file_of_reviews_may_be_named_itself(tmp_path, layout):
    options = write(tmp_path, layout)
    data = MUSIC.load(replace(options, raw=tmp_path / LAYOUTS[layout][0]))
    assert (len(data.ratings), len(data.items)) == (4, 2)


RATING = "the field 'overall' is not a number from 1 to 5"
TIME = "the field 'unixReviewTime' is not a time"
BAD_REVIEWS = [
    ("2014", b"{'reviewerID': 'ann'}", "not JSON"),
    ("2014", {"asin": "A1", "overall": 5.0, "unixReviewTime": 1}, "the field 'reviewerID' is missing"),
    ("2018", review_2018("ann", "A1", 0), RATING),
    ("2018", review_2018("ann", "A1", "6"), RATING),
    ("2018", review_2018("ann", "A1", -1e300), RATING),
    ("2018", b'{"overall": 1e999}', "not JSON"),
    ("2018", review_2018("ann", "A1", unixReviewTime=10**18), TIME),
    ("2018", review_2018("ann", "A1", unixReviewTime=-5), TIME),
    ("2018", review_2018("ann", "A1", unixReviewTime="soon"), TIME),
    ("2018", review_2018("ann", "A1", unixReviewTime=1_158_019_200_000), TIME),
    ("2023", review_2023("ann", "A1", timestamp=1_158_019_200), "the field 'timestamp' is not a time"),
    ("2023", review_2023("ann", None), "the field 'parent_asin' is missing"),
    ("2023", review_2023("ann", "A1", text=["fine"]), "the field 'text' is not text"),
    ("2023", b'{"user_id": "caf\xe9"}', "not UTF-8"),
    ("2023", b"[" * 50_000, "not JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "line", "reason"), BAD_REVIEWS)
def test_a_bad_review_is_left_out_counted_and_shown(tmp_path, capsys, layout, line, reason):
    review = LAYOUTS[layout][2]
    good = [review(*row) for row in OPINIONS]
    options = write(tmp_path, layout, [good[0], line, b"", line, *good[1:]])
    data = MUSIC.load(options)
    assert skipped(data) == [{reason: 2}, {}]
    assert f":2: {reason}; left out" in capsys.readouterr().err
    assert [row[:2] for row in rows(data)] == [row[:2] for row in OPINIONS]
    assert [text for _, text in texts(data)] == [f"{user} on {item}" for user, item, _ in OPINIONS]
    assert f":2: {reason}" in error_of(MUSIC, replace(options, strict=True))


def test_times_may_be_written_as_text_or_with_a_point(tmp_path):
    times = [1_158_019_200, "1158019200", 1_158_019_200.0]
    reviews = [review_2018("ann", f"A{i}", unixReviewTime=time) for i, time in enumerate(times)]
    assert [row[3] for row in rows(MUSIC.load(write(tmp_path, "2018", reviews)))] == [
        1_158_019_200
    ] * 3


def test_reviews_without_text_are_ratings_without_text(tmp_path, capsys):
    reviews = [review_2018(*row) for row in OPINIONS]
    del reviews[0]["reviewText"]
    reviews[1]["reviewText"] = None
    reviews[2]["reviewText"] = " <br /> "
    data = MUSIC.load(write(tmp_path, "2018", reviews))
    assert len(data.ratings) == 4
    assert texts(data) == [(3, "ann on A1")]
    assert capsys.readouterr().err == ""
    for row in reviews:
        row.pop("reviewText", None)
    assert MUSIC.load(write(tmp_path, "2018", reviews)).reviews is None
    assert "no review has a 'reviewText'" in capsys.readouterr().err


def test_texts_are_without_markup(tmp_path):
    text = "I &lt;3 it<br />and 2 < 3 &amp; <a href='x'>so</a>\non\ud800"
    row = review_2023("ann", "A1", text=text.removesuffix("\ud800"))
    assert texts(MUSIC.load(write(tmp_path, "2023", [row]))) == [(0, "I <3 it and 2 < 3 & so\non")]
    assert amazon.one_line(text) == "I <3 it and 2 < 3 & so on?"


BOMBS = {
    "a call": b"{'asin': 'A2', 'title': __import__('os').mkdir('RUN')}",
    "a call alone": b"__import__('os').mkdir('RUN')",
    "a lambda": b"{'asin': 'A2', 'title': (lambda: open('RUN', 'w'))()}",
    "a power": b"{'asin': 'A2', 'price': 9**9**9**9}",
    "a long string": b"{'asin': 'A2', 'title': 'x' * 10**12}",
    "deep lists": b"{'asin': 'A2', 'title': " + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a long chain": b"{'asin': 'A2', 'title': a" + b".b" * 100_000 + b"}",
    "a long sum": b"{'asin': 'A2', 'price': 1" + b"+1" * 100_000 + b"}",
    "many signs": b"{'asin': 'A2', 'price': " + b"-" * 200_000 + b"1}",
    "a long number": b"{'asin': 'A2', 'price': " + b"9" * 100_000 + b"}",
    "an unhashable key": b"{'asin': 'A2', 'title': {[]: 1}}",
    "a null byte": b"{'asin': 'A2\0'}",
    "too long a line": b"{'asin': 'A2', 'title': '" + b"x" * (MAX_LITERAL_BYTES + 1) + b"'}",
    "a key that is no text": b"{'asin': 'A2', 5: 6}",
    "a set": b"{'asin', 'A2'}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_python_in_the_metadata_is_never_run(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    options = write(tmp_path, "2014", metadata=[meta_2014("A1"), BOMBS[name]])
    data = MUSIC.load(options)
    assert not (tmp_path / "RUN").exists()
    assert skipped(data) == [
        {},
        {"not a Python literal" if BOMBS[name][:1] == b"{" else "not JSON": 1},
    ]
    assert data.items["item_id"].tolist() == ["A1"]
    assert "meta_Digital_Music.json:2: not " in capsys.readouterr().err


def test_huge_integers_of_literals_are_no_ids_and_no_prices(tmp_path):
    huge = b"0x" + b"f" * 20_000
    lines = [b"{'asin': %s}" % huge, b"{'asin': 'A1', 'price': %s, 'title': 'One'}" % huge]
    data = MUSIC.load(write(tmp_path, "2014", metadata=lines))
    assert skipped(data) == [{}, {"the field 'asin' is not an id": 1}]
    assert data.items[["item_id", "name", "attributes"]].values.tolist() == [["A1", "One", {}]]


def test_metadata_of_2014_may_also_be_json(tmp_path):
    lines = [json.dumps(meta_2014("A1")).encode(), repr(meta_2014("A2")).encode()]
    data = MUSIC.load(write(tmp_path, "2014", metadata=lines))
    assert data.items["item_id"].tolist() == ["A1", "A2"]


def test_literals_are_for_2014_alone(tmp_path):
    message = error_of(MUSIC, write(tmp_path, "2018", metadata=[repr(meta_2018("A1")).encode()]))
    assert "not JSON; not one of its 1 lines holds a readable item" in message


def test_of_two_lines_for_an_item_the_last_counts(tmp_path):
    metadata = [meta_2018("A1", title="Old"), meta_2018("A2"), meta_2018("A1", title="New")]
    items = MUSIC.load(write(tmp_path, "2018", metadata=metadata)).items
    assert dict(zip(items["item_id"], items["name"], strict=True)) == {
        "A1": "New",
        "A2": "Song & Dance A2",
    }


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Songs  &quot;Live&quot;\n", 'Songs "Live"'),
        ("<span class='a'>Live</span> at <i>Leeds</i>", "Live at Leeds"),
        ("", "A1"),
        (None, "A1"),
        (["Live"], "A1"),
        ("<script>if (x < 2) { go(); }</script>", "A1"),
        ("<!-- nothing --> Live", "Live"),
        ("var aPageStart = (new Date()).getTime();", "A1"),
        ("$(function() { P.when('A').execute(function(A) {}) })", "A1"),
        (".a-box{background-color:#fff} more", "A1"),
        ("word " * 100, ("word " * 60).strip() + "…"),
        ("x" * 1000, "x" * 299 + "…"),
        ("Function (Live); Variations: 1, 2", "Function (Live); Variations: 1, 2"),
    ],
)
def test_titles_are_clean_or_the_id(tmp_path, title, name):
    data = MUSIC.load(write(tmp_path, "2018", metadata=[meta_2018("A1", title=title)]))
    assert data.items["name"].tolist() == [name]


def test_ratings_do_not_depend_on_the_metadata(tmp_path, capsys):
    options = write(tmp_path, "2018")
    before = rows(MUSIC.load(options))
    (tmp_path / "meta_Digital_Music.json").unlink()
    data = MUSIC.load(options)
    assert rows(data) == before
    assert data.items.empty
    assert data.items.columns.tolist() == ["item_id", "name", "categories", "attributes"]
    note = capsys.readouterr().err
    assert "no meta_Digital_Music.json" in note
    assert "named by their ids" in note


def test_metadata_of_other_items_is_refused(tmp_path):
    message = error_of(MUSIC, write(tmp_path, "2018", metadata=[meta_2018("Z8"), meta_2018("Z9")]))
    assert "meta_Digital_Music.json: describes none of the reviewed items" in message


def test_two_releases_or_files_in_a_folder_ask_for_one(tmp_path):
    write(tmp_path, "2014")
    options = write(tmp_path, "2023")
    message = error_of(MUSIC, options)
    assert "has reviews_Digital_Music_5.json (2014) and Digital_Music.jsonl (2023)" in message
    assert "--raw" in message
    assert len(MUSIC.load(SourceOptions(raw=tmp_path / "Digital_Music.jsonl")).items) == 2
    assert "release 2014" in MUSIC.load(replace(options, release=2014)).origin
    message = error_of(MUSIC, replace(options, release=2018))
    assert "looked for Digital_Music_5.json, Digital_Music.json (or .gz)" in message


def test_folder_mistakes_say_what_to_do(tmp_path):
    assert "no such file or folder" in error_of(MUSIC, SourceOptions(raw=tmp_path / "nothing"))
    options = write(tmp_path, "2018")
    message = error_of(GAMES, options)
    assert "no reviews of Video_Games in it; looked for reviews_Video_Games_5.json" in message
    other = tmp_path / "mine.json"
    other.write_text("{}")
    assert "mine.json: its name must be one of reviews_Video_Games_5.json" in error_of(
        GAMES, SourceOptions(raw=other)
    )


def test_a_field_that_no_line_has_is_named_with_those_found(tmp_path):
    message = error_of(MUSIC, write(tmp_path, "2018", [review_2023(*row) for row in OPINIONS]))
    assert (
        "Digital_Music_5.json: no review in it has the field 'reviewerID', 'overall', 'unixR"
        in message
    )
    assert "found are 'asin', 'helpful_vote', 'images', 'parent_asin', 'rating'" in message
    message = error_of(
        MUSIC, write(tmp_path / ".", "2018", metadata=[{"id": "A1", "title": "One"}])
    )
    assert (
        "meta_Digital_Music.json: no item in it has the field 'asin'; found are 'id', 'title'"
        in message
    )


def test_a_strict_reader_names_the_fields_found_at_the_first_line(tmp_path):
    options = write(tmp_path, "2018", [review_2018("ann", "A1"), {"user": "bob", "asin": "A1"}])
    message = error_of(MUSIC, replace(options, strict=True))
    assert (
        "Digital_Music_5.json:2: the field 'reviewerID' is missing; found are 'asin', " in message
    )
    assert message.endswith("(--strict stops here)")


def test_a_file_that_changed_before_its_texts_are_read_is_refused(tmp_path):
    data = MUSIC.load(write(tmp_path, "2018"))
    write(tmp_path, "2018", [review_2018("ann", "A1")])
    with pytest.raises(InputError, match="changed since it was first read"):
        texts(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)))
def test_whatever_the_fields_hold_it_is_read_or_counted(tmp_path, data, layout):
    _, _, review, meta = LAYOUTS[layout]
    lines = []
    for row in (review("ann", "A1"), meta("A1")):
        field = data.draw(st.sampled_from(sorted(row)))
        lines.append([row, {**row, field: data.draw(JSON)}])
    (tmp_path / layout).mkdir(exist_ok=True)
    loaded = MUSIC.load(write(tmp_path / layout, layout, *lines))
    counts = skipped(loaded)
    assert len(loaded.ratings) == 2 - sum(counts[0].values())
    assert len(loaded.items) >= 1
    assert {type(text) for told in loaded.items["attributes"] for text in told.values()} <= {str}
    assert loaded.items["name"].map(len).min() > 0


@pytest.mark.skipif(not SAMPLES.exists(), reason="the excerpts of Amazon are not on this machine")
@pytest.mark.parametrize(
    ("source", "folder", "name"),
    [
        (MUSIC, "amazon-2014", "reviews_Digital_Music_5.json"),
        (MOVIES, "amazon-2018", "Movies_and_TV_5.json"),
    ],
)
def test_the_real_excerpts_equal_a_pandas_one_liner(source, folder, name, capsys):
    reviews = pd.read_json(SAMPLES / folder / name, lines=True, dtype=False)
    data = source.load(SourceOptions(raw=SAMPLES / folder))
    columns = ["reviewerID", "asin", "overall", "unixReviewTime"]
    assert rows(data) == list(reviews[columns].itertuples(index=False, name=None))
    assert len(texts(data)) == (reviews["reviewText"].str.strip() != "").sum()
    assert all(not counts for counts in skipped(data))
    metadata = SAMPLES / folder / f"meta_{source.department}.json"
    if metadata.exists():
        real = pd.DataFrame(map(ast.literal_eval, metadata.read_text("utf-8").splitlines()))
        reviewed = real[real["asin"].isin(reviews["asin"])]
        assert set(data.items["item_id"]) == set(reviewed["asin"])
        assert data.items["categories"].map(len).min() > 0
    else:
        assert data.items.empty
        assert "named by their ids" in capsys.readouterr().err
