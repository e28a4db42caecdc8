import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep.sources import yelp
from prep.sources.base import SourceOptions
from prep.sources.yelp import BUSINESSES, REVIEWS, Yelp
from tests.paths import SAMPLES
from tests.prep.sources.reading import error_of, rows, skipped, texts

SAMPLE = SAMPLES / "yelp"


def business(key: str, **fields: Any) -> dict[str, Any]:
    return {
        "business_id": key,
        "name": f"The {key}",
        "address": "1 High Street",
        "city": "Springfield",
        "state": "MO",
        "latitude": 37.2,
        "stars": 4.5,
        "review_count": 812,
        "is_open": 1,
        "attributes": None,
        "categories": "Restaurants, Pizza",
        "hours": None,
        **fields,
    }


def review(user: str, key: str, stars: Any = 4.0, **fields: Any) -> dict[str, Any]:
    return {
        "review_id": f"{user}{key}",
        "user_id": user,
        "business_id": key,
        "stars": stars,
        "useful": 0,
        "text": f"{user} on {key}",
        "date": "2018-07-07 22:09:11",
        **fields,
    }


PLACES = [business("bakery"), business("forge", state="PA"), business("café", state="mo ")]
OPINIONS = [
    review("ann", "bakery", 5),
    review("bob", "forge"),
    review("ann", "café", 1.0, text="  "),
    review("bob", "bakery", "3.0", date="2018-07-08"),
    review("ann", "bakery", 2.0, text=" Changed\nmy mind. "),
]


def write(
    folder: Path, places: list[Any] = PLACES, opinions: list[Any] = OPINIONS
) -> SourceOptions:
    """Write the two files; what is bytes already is a line as it is."""
    for name, records in ((BUSINESSES, places), (REVIEWS, opinions)):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in records]
        (folder / name).write_bytes(b"\n".join(lines))
    return SourceOptions(raw=folder)


SATURDAY = 1_531_001_351  # 2018-07-07 22:09:11 UTC
SUNDAY = 1_531_008_000  # midnight after it


def test_businesses_of_a_state_and_their_reviews(tmp_path):
    data = Yelp().load(write(tmp_path))
    assert rows(data) == [
        ("ann", "bakery", 5.0, SATURDAY),
        ("ann", "café", 1.0, SATURDAY),
        ("bob", "bakery", 3.0, SUNDAY),
        ("ann", "bakery", 2.0, SATURDAY),
    ]
    assert data.ratings.dtypes[["rating", "time"]].tolist() == [np.float32, np.int64]
    assert data.items["item_id"].tolist() == ["bakery", "café"]
    assert data.items["name"].tolist() == ["The bakery", "The café"]
    assert data.items["categories"].tolist() == [("Restaurants", "Pizza")] * 2
    assert data.left_out == {"reviews of businesses outside MO": 1}
    assert skipped(data) == [{}, {}]
    assert set(data.files) == {BUSINESSES, REVIEWS}
    assert all(len(digest) == 64 for digest in data.files.values())


def test_texts_are_those_of_their_rows(tmp_path):
    data = Yelp().load(write(tmp_path))
    assert texts(data) == [(0, "ann on bakery"), (2, "bob on bakery"), (3, "Changed\nmy mind.")]
    assert list(data.reviews.texts(np.array([1, 3]))) == [(3, "Changed\nmy mind.")]
    assert texts(data)[0] == (0, "ann on bakery")  # and again


def test_an_empty_state_keeps_all(tmp_path):
    data = Yelp().load(replace(write(tmp_path), state=""))
    assert (len(data.ratings), len(data.items), data.left_out) == (5, 3, {})


def test_a_state_without_businesses_lists_those_there_are(tmp_path):
    message = error_of(Yelp(), replace(write(tmp_path), state="XX"))
    assert message.endswith("no business is in --state XX; found are MO 2, PA 1")


def test_a_state_without_reviews_is_an_error(tmp_path):
    message = error_of(Yelp(), write(tmp_path, opinions=[review("bob", "forge")]))
    assert "none of its 1 reviews is of a business in MO" in message


def bad(field: str, what: str, *values: Any) -> list[tuple[Any, str]]:
    return [
        (review("ann", "bakery") | {field: v}, f"the field '{field}' is {what}") for v in values
    ]


BAD_REVIEWS = [
    *((line, "not JSON") for line in (b"{not json", b'{"user_id": "ann"', b'{"stars": NaN}', b"[" * 100_000)),
    (b'{"text": "caf\xe9"}', "not UTF-8"),
    *((line, "not a JSON object") for line in ([1, 2], "ann")),
    ({k: v for k, v in review("ann", "bakery").items() if k != "stars"}, "the field 'stars' is missing"),
    *bad("stars", "missing", None),
    *bad("stars", "not a number from 1 to 5", 0.5, 5.5, 10**30, "five", "nan", True, [4]),
    *bad("user_id", "not an id", " ", "", "a\u0000nn"),
    *bad("business_id", "not an id", 1.5, {}),
    *bad("text", "not text", 5),
    *bad("date", "not a time", "yesterday", "2018-02-30", "20180707T2209+01:00", 1531001351),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), BAD_REVIEWS)
def test_a_bad_review_is_left_out_counted_and_shown(tmp_path, capsys, line, reason):
    options = write(tmp_path, opinions=[OPINIONS[0], line, b"", line, *OPINIONS[1:]])
    data = Yelp().load(options)
    assert skipped(data) == [{}, {reason: 2}]
    assert f"{REVIEWS}:2: {reason}; left out" in capsys.readouterr().err
    assert [row[:3] for row in rows(data)] == [
        ("ann", "bakery", 5.0),
        ("ann", "café", 1.0),
        ("bob", "bakery", 3.0),
        ("ann", "bakery", 2.0),
    ]
    assert texts(data) == [(0, "ann on bakery"), (2, "bob on bakery"), (3, "Changed\nmy mind.")]
    assert f"{REVIEWS}:2: {reason}" in error_of(Yelp(), replace(options, strict=True))


BAD_BUSINESSES = [
    (business("x", business_id=None), "the field 'business_id' is missing"),
    (business("x", state=5), "the field 'state' is not text"),
    (business("x", name=["x"]), "the field 'name' is not text"),
    (business("x", categories=7), "the field 'categories' is not text"),
    (business("x", attributes=["WiFi"]), "the field 'attributes' is not an object"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_BUSINESSES)
def test_a_bad_business_is_left_out_counted_and_shown(tmp_path, capsys, line, reason):
    options = write(tmp_path, places=[line, *PLACES])
    data = Yelp().load(options)
    assert skipped(data) == [{reason: 1}, {}]
    assert data.items["item_id"].tolist() == ["bakery", "café"]
    assert f"{BUSINESSES}:1: {reason}; left out" in capsys.readouterr().err
    assert f"{BUSINESSES}:1: {reason}" in error_of(Yelp(), replace(options, strict=True))


def test_ids_that_are_whole_numbers_are_their_digits(tmp_path):
    options = write(
        tmp_path, [business("x", business_id=7)], [review("ann", "7"), review("ann", 7)]
    )
    assert [row[1] for row in rows(Yelp().load(options))] == ["7", "7"]


def test_a_field_that_no_line_has_is_named_with_those_found(tmp_path):
    renamed = [{("rating" if k == "stars" else k): v for k, v in row.items()} for row in OPINIONS]
    message = error_of(Yelp(), write(tmp_path, opinions=renamed))
    assert (
        f"{REVIEWS}: no review in it has the field 'stars'; found are 'business_id', 'date'"
        in message
    )
    assert "'rating'" in message


def test_a_field_that_some_line_has_is_not_called_missing(tmp_path):
    lacking = {key: value for key, value in OPINIONS[0].items() if key != "stars"}
    message = error_of(Yelp(), write(tmp_path, opinions=[lacking, review("ann", "bakery", 99)]))
    assert f"{REVIEWS}:1: the field 'stars' is missing; not one of its 2 lines" in message


def test_a_field_that_is_null_throughout_is_not_found(tmp_path):
    message = error_of(Yelp(), write(tmp_path, opinions=[review("ann", "bakery", None)] * 2))
    assert "has the field 'stars'; found are" in message
    assert "'stars'" not in message.partition("found are")[2]


def test_swapped_files_are_named(tmp_path):
    message = error_of(Yelp(), write(tmp_path, places=OPINIONS, opinions=PLACES))
    assert "no business in it has the field 'state'" in message
    assert "'user_id'" in message


def test_folder_mistakes_say_what_to_do(tmp_path):
    message = error_of(Yelp(), SourceOptions())
    for words in (yelp.OFFER, "accept", "tar -xf", "python -m prep build yelp --raw", REVIEWS):
        assert words in message
    assert "no such folder" in error_of(Yelp(), SourceOptions(raw=tmp_path / "nothing"))
    assert f"there is no {BUSINESSES}" in error_of(Yelp(), SourceOptions(raw=tmp_path))
    write(tmp_path)
    assert "give the folder" in error_of(Yelp(), SourceOptions(raw=tmp_path / REVIEWS))
    (tmp_path / REVIEWS).unlink()
    assert f"there is no {REVIEWS}" in error_of(Yelp(), SourceOptions(raw=tmp_path))


def test_categories_may_have_commas_of_their_own():
    text = "Food, Beer, Wine & Spirits,  Used, Vintage & Consignment, Beer Bar, Food, "
    expected = ("Food", "Beer, Wine & Spirits", "Used, Vintage & Consignment", "Beer Bar")
    assert yelp.split_categories({"categories": text}) == expected
    assert yelp.split_categories({"categories": None}) == ()
    assert yelp.split_categories({"categories": ["Food", "Bars "]}) == ("Food", "Bars")


def test_a_prompt_is_told_what_is_true_but_not_how_it_is_rated():
    attributes = {
        "BusinessAcceptsCreditCards": "True",
        "RestaurantsTakeOut": "False",
        "GoodForKids": "None",
        "RestaurantsPriceRange2": "2",
        "WiFi": "u'free'",
        "Alcohol": "'full_bar'",
        "NoiseLevel": "u'none'",
        "BYOBCorkage": "'yes_free'",
        "BusinessParking": "{'garage': False, u'street': True, 'valet': None, 'lot': True}",
        "Ambience": "{'romantic': False}",
        "HasTV": True,
        "GoodForMeal": {"dinner": True, "lunch": False},
        "Odd": "__import__('os').system('true')",
    }
    told = yelp.describe(business("x", attributes=attributes, is_open=0, city=" St.  Louis "))
    assert told == {
        "city": "St. Louis",
        "state": "MO",
        "open": "no, closed for good",
        "accepts credit cards": "yes",
        "price range": "2 of 4",
        "Wi-Fi": "free",
        "alcohol": "full bar",
        "BYOB corkage": "yes free",
        "parking": "street, lot",
        "TV": "yes",
        "good for meal": "dinner",
        "odd": "import ('os').system('true')",
    }


@given(st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)))
def test_dates_are_utc(moment):
    text = moment.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")
    expected = int(moment.replace(microsecond=0, tzinfo=UTC).timestamp())
    assert yelp.seconds_of_date(text) == expected


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
    st.sampled_from(["WiFi", "RestaurantsPriceRange2", "", "ABCdef"]),
)
def test_whatever_an_attribute_holds_it_becomes_text(value, key):
    assert isinstance(yelp.attribute_value(key, value), str)
    assert isinstance(yelp.attribute_value(key, repr(value)), str)
    assert isinstance(yelp.attribute_name(key), str)


@pytest.mark.skipif(not SAMPLE.exists(), reason="the excerpt of Yelp is not on this machine")
def test_the_real_excerpt_equals_a_pandas_one_liner(tmp_path):
    places = pd.read_json(SAMPLE / BUSINESSES, lines=True)
    opinions = pd.read_json(SAMPLE / REVIEWS, lines=True, dtype=False)
    data = Yelp().load(SourceOptions(raw=SAMPLE, state=""))
    assert rows(data) == [
        (row.user_id, row.business_id, row.stars, int(pd.Timestamp(row.date, tz="UTC").timestamp()))
        for row in opinions.itertuples()
    ]
    assert [text for _, text in texts(data)] == opinions["text"].str.strip().tolist()
    assert sorted(data.items["item_id"]) == sorted(places["business_id"])
    missouri = Yelp().load(SourceOptions(raw=SAMPLE))
    wanted = places[places["state"] == "MO"]
    kept = opinions[opinions["business_id"].isin(wanted["business_id"])]
    assert set(missouri.items["item_id"]) == set(wanted["business_id"])
    assert (len(missouri.ratings), missouri.left_out) == (
        len(kept),
        {"reviews of businesses outside MO": len(opinions) - len(kept)},
    )
    assert skipped(missouri) == [{}, {}]
    told = {word for row in data.items["attributes"] for word in row}
    assert not told & {"stars", "review count", "review_count"}
