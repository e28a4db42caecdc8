"""From raw tables to index order: which items there are, what is looked up, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from jaxsim import InputError
from prep.config import RatingsConfig
from prep.convert import convert_dataset
from prep.ratings import items_in_order, load_raw, read_ratings
from prep.readers.lines import SkippedLines
from prep.sources.base import RawData, SourceOptions


class Texts:
    """Reviews of an invented source: row -> text."""

    def __init__(self, texts):
        self._texts = texts

    def texts(self, rows):
        yield from ((row, self._texts[row]) for row in rows.tolist() if row in self._texts)


class Invented:
    """A source with five ratings; item "9" is not described, and item "x" is not rated."""

    name, noun, like_threshold, replies, language_model = "invented", "thing", 3.0, (), ""
    best_rating = 5.0

    def load(self, options):
        rows = [("u", "9", 5, 30), ("v", "10", 1, 5), ("u", "10", 4, 10), ("u", "9", 2, 20),
                ("v", "9", 3, 6)]  # fmt: skip
        users, items, stars, times = zip(*rows, strict=True)
        described = {
            "item_id": ["x", "10"],
            "name": ["Unrated", "Ten"],
            "categories": [("A",), ("B", "C")],
            "attributes": [{}, {"size": "big"}],
        }
        return RawData(
            ratings=pd.DataFrame(
                {
                    "user_id": pd.Categorical(users),
                    "item_id": pd.Categorical(items),
                    "rating": np.array(stars, np.float32),
                    "time": np.array(times, np.int64),
                }
            ),
            items=pd.DataFrame(described),
            files={},
            origin="nowhere",
            reviews=Texts({0: "first, but later", 2: "ten"}),
        )


def test_items_are_those_rated_and_the_undescribed_go_by_their_ids():
    ratings = read_ratings(Invented(), RatingsConfig())
    assert ratings.items["item_id"].tolist() == ["9", "10"]
    assert ratings.items["name"].tolist() == ["9", "Ten"]
    assert ratings.items["categories"].tolist() == [(), ("B", "C")]
    assert ratings.items["attributes"].tolist() == [{}, {"size": "big"}]
    assert ratings.unknown_items == 1
    assert ratings.left_out_items == {"x"}
    assert (ratings.noun, ratings.like_threshold) == ("thing", 3.0)


def test_unrated_items_stay_when_wanted():
    ratings = read_ratings(Invented(), RatingsConfig(keep_unrated=True, noun="toy"))
    assert ratings.items["item_id"].tolist() == ["10", "9", "x"]
    assert ratings.left_out_items == frozenset()
    assert ratings.noun == "toy"


def test_interactions_are_found_by_raw_ids():
    ratings = read_ratings(Invented(), RatingsConfig())
    pairs = [("v", "9"), ("u", "9"), ("w", "9"), ("u", "x"), ("v", "10"), ("u", "10")]
    # In order: u 10 (time 10), u 9 (30; that of 20 is dropped), v 10 (5), v 9 (6).
    ratings.interactions.arrays["interaction_split"][3] = 2
    training = ratings.training
    assert {pair: training[pair] for pair in pairs if pair in training} == {
        ("v", "9"): None,
        ("u", "9"): True,
        ("v", "10"): False,
        ("u", "10"): True,
    }
    assert len(training) == 4
    assert sorted(training) == sorted(set(pairs) - {("w", "9"), ("u", "x")})


def test_the_best_rating_is_the_sources_or_that_of_training():
    source = Invented()
    source.best_rating = 10.0
    assert read_ratings(source, RatingsConfig()).best_rating == 10.0
    source.best_rating = None
    assert read_ratings(source, RatingsConfig()).best_rating == 5.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            RatingsConfig(like_threshold=6),
            "--like-threshold 6: it makes every rating a dislike, of 4 from 1 to 5",
        ),
        (RatingsConfig(like_threshold=1), "--like-threshold 1: it makes every rating a like"),
        (RatingsConfig(min_item_ratings=3), "no user has 1 ratings of items with 3"),
        (RatingsConfig(items="x.csv"), "--items: invented has a file of items of its own"),
    ],
)
def test_what_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        read_ratings(Invented(), config)


def test_somebody_must_say_what_a_like_is():
    source = Invented()
    source.like_threshold = None
    with pytest.raises(InputError, match="--like-threshold: give the lowest rating"):
        read_ratings(source, RatingsConfig())
    assert read_ratings(source, RatingsConfig(like_threshold=3)).like_threshold == 3


def test_items_in_order_by_hand():
    table, unknown = items_in_order(
        pd.DataFrame({"item_id": ["a"], "name": ["A"], "categories": [("x",)], "attributes": [{}]}),
        ["b", "a"],
    )
    assert table["name"].tolist() == ["b", "A"]
    assert unknown == 1


def test_a_conversion_is_read_as_the_source_itself(tmp_path):
    source, out = Invented(), tmp_path / "converted"
    convert_dataset(source, SourceOptions(), out)
    assert sorted(path.name for path in out.iterdir()) == [
        "conversion.json", "items.parquet", "ratings.parquet",
    ]  # fmt: skip
    raw, again = source.load(SourceOptions()), load_raw(source, SourceOptions(raw=out))
    for column in ("user_id", "item_id", "rating", "time"):
        assert again.ratings[column].tolist() == raw.ratings[column].tolist()
    for column in ("item_id", "name", "categories", "attributes"):
        assert again.items[column].tolist() == raw.items[column].tolist()
    rows = np.arange(5)
    assert list(again.reviews.texts(rows)) == list(raw.reviews.texts(rows))
    assert again.origin == f"{out} (converted)"
    convert_dataset(source, SourceOptions(), out, text=False)  # takes the place of the first
    assert load_raw(source, SourceOptions(raw=out)).reviews is None


def test_a_conversion_of_something_else_is_refused(tmp_path):
    out = tmp_path / "converted"
    convert_dataset(Invented(), SourceOptions(), out)
    other = Invented()
    other.name = "other"
    with pytest.raises(InputError, match="a conversion of invented, not of other"):
        load_raw(other, SourceOptions(raw=out))
    (out / "conversion.json").write_text("{")
    with pytest.raises(InputError, match="not what `python -m prep convert` writes"):
        load_raw(Invented(), SourceOptions(raw=out))


def test_a_conversion_overwrites_nothing_else(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that are not of a conversion"):
        convert_dataset(Invented(), SourceOptions(), tmp_path)
    with pytest.raises(InputError, match="is a file"):
        convert_dataset(Invented(), SourceOptions(), tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_the_record_of_a_conversion(tmp_path):
    convert_dataset(Invented(), SourceOptions(), tmp_path / "c")
    record = json.loads((tmp_path / "c" / "conversion.json").read_text())
    assert record["dataset"] == "invented"
    assert record["files"].keys() == {"ratings.parquet", "items.parquet"}


def test_a_conversion_keeps_what_was_left_out_and_where_it_came_from(tmp_path):
    class Lossy(Invented):
        name = "yelp"

        def load(self, options):
            skipped = SkippedLines("r.json")
            skipped.add(7, "not JSON")
            return replace(
                super().load(options),
                files={"r.json": "digest"},
                skipped=[skipped],
                left_out={"elsewhere": 3},
                state="PA",
            )

    out = tmp_path / "converted"
    convert_dataset(Lossy(), SourceOptions(), out)
    raw = load_raw(Lossy(), SourceOptions(raw=out))
    assert raw.files == {"r.json": "digest"}
    assert [(file.label, file.counts, file.first) for file in raw.skipped] == [
        ("r.json", {"not JSON": 1}, {"not JSON": 7})
    ]
    assert (raw.left_out, raw.state) == ({"elsewhere": 3}, "PA")
    assert load_raw(Lossy(), SourceOptions(raw=out, state="PA")).state == "PA"
    with pytest.raises(InputError, match="a conversion with --state 'PA'; convert again"):
        load_raw(Lossy(), SourceOptions(raw=out, state="MO"))
    with pytest.raises(InputError, match="is already a conversion"):
        convert_dataset(Lossy(), SourceOptions(raw=out), tmp_path / "again")


def test_a_conversion_without_descriptions_is_read_again(tmp_path):
    class Bare(Invented):
        def load(self, options):
            raw = super().load(options)
            return replace(raw, items=raw.items.iloc[:0])

    convert_dataset(Bare(), SourceOptions(), tmp_path / "c")
    assert read_ratings(Bare(), RatingsConfig(raw=tmp_path / "c")).unknown_items == 2


def test_items_that_the_source_left_out_are_known(tmp_path):
    """Also from a conversion: replies about them are no error."""

    class Choosy(Invented):
        def load(self, options):
            return replace(super().load(options), left_out_items=frozenset({"y"}))

    convert_dataset(Choosy(), SourceOptions(), tmp_path / "c")
    for config in (RatingsConfig(), RatingsConfig(raw=tmp_path / "c")):
        assert read_ratings(Choosy(), config).left_out_items == {"x", "y"}


@pytest.mark.parametrize("option", ["items", "state", "keep_adult"])
def test_options_of_other_sources_are_refused(option):
    with pytest.raises(InputError, match=f"--{option.replace('_', '-')}: invented"):
        load_raw(Invented(), SourceOptions(**{option: "x"}))
