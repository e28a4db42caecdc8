"""Counts by hand on invented copies, and by pandas on the excerpts."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import table1
from benchmarks.table1 import PAPER, Counts, distance, measure, run_table1
from jaxsim import InputError
from prep.convert import convert_dataset
from prep.sources.anime import Anime
from prep.sources.base import SourceOptions
from tests.paths import SAMPLES

needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the excerpts are not here")

# User 1 rates titles 1 to 6, user 2 titles 1 to 5, user 3 title 1 twice, user 4 watched title 7 without rating it.
LINES = [
    *(f"1,{title},8" for title in range(1, 7)),
    *(f"2,{title},3" for title in range(1, 6)),
    "3,1,5",
    "3,1,6",
    "4,7,-1",
    "4,7,11",
]


@pytest.fixture
def anime(tmp_path):
    """A copy of anime in which title 6 is not described."""
    titles = [f"{title},Title {title},Drama,TV,1,8.0,10" for title in (1, 2, 3, 4, 5, 7)]
    header = "anime_id,name,genre,type,episodes,rating,members"
    (tmp_path / "anime.csv").write_text("\n".join([header, *titles]))
    (tmp_path / "rating.csv").write_text("\n".join(["user_id,anime_id,rating", *LINES]))
    return tmp_path


def by_name(result):
    figures = ("users", "items", "instances")
    return {row["name"]: tuple(row[name] for name in figures) for row in result["variants"]}


def test_the_papers_sparsity_follows_from_its_counts():
    for name, (counts, sparsity) in PAPER.items():
        assert abs(counts.sparsity - sparsity) < 0.01, name
    assert Counts(4, 5, 5).sparsity == 75.0
    assert math.isnan(Counts(0, 0, 0).sparsity)


def test_distance():
    paper = Counts(10, 100, 1000)
    assert distance(paper, paper) == 0
    assert distance(Counts(20, 100, 500), paper) == pytest.approx(2 * math.log(2) / 3)


def test_a_copy_counted_by_hand(anime):
    result = measure("anime", SourceOptions(raw=anime))
    assert by_name(result) == {
        "every readable rating": (3, 6, 13),
        "as built": (3, 6, 12),
        "of described items only": (3, 5, 11),
        "of users with at least 5": (2, 6, 11),
        "and unrated (-1): every readable rating": (4, 7, 14),
        "and unrated (-1): as built": (4, 7, 13),
        "and unrated (-1): of described items only": (4, 6, 12),
        "and unrated (-1): of users with at least 5": (2, 6, 11),
    }
    assert result["copy"] == {
        "users": 3,
        "items": 6,
        "instances": 12,
        "sparsity": pytest.approx(100 / 3),
    }
    assert result["ratios"]["users"] == 3 / 24_859
    assert result["left_out"] == {"watched, but not rated (-1)": 1}
    assert list(result["skipped"].values()) == [{"rating is not a number from 1 to 10 or -1": 1}]
    assert result["nearest"] == "and unrated (-1): every readable rating"
    assert result["nearest_ratios"]["instances"] == 14 / 6_111_860
    notes = "\n".join(result["notes"])
    assert "1 ratings are repeated" in notes
    assert "1 rated items are not described" in notes
    assert "1 lines cannot be read: rating is not a number" in notes
    assert "92.9% are kept" in notes  # 13 of 14
    assert "of the paper's users: it is a part" in notes


def test_adult_titles_count_as_in_the_paper(anime, capsys):
    """A build leaves title 5 out: with it, there is one item more, and two ratings."""
    path = anime / "anime.csv"
    path.write_text(path.read_text().replace("Title 5,Drama", "Title 5,Hentai"))
    result = measure("anime", SourceOptions(raw=anime))
    assert by_name(result)["as built"] == (3, 6, 12)
    assert result["left_out"] == {"watched, but not rated (-1)": 1}
    assert len(Anime().load(SourceOptions(raw=anime)).ratings) == 11
    run_table1("anime", raw=anime)
    shown = capsys.readouterr().out
    assert "your copy, as built with --keep-adult" in shown
    assert "Adult titles count here" in shown


def test_a_conversion_of_anime_lacks_rows_that_count(anime, tmp_path):
    convert_dataset(Anime(), SourceOptions(raw=anime), tmp_path / "tables")
    with pytest.raises(InputError, match="a conversion lacks rows that count here"):
        measure("anime", SourceOptions(raw=tmp_path / "tables"))


def test_the_nearest_variant_is_that_of_the_paper(anime, monkeypatch):
    monkeypatch.setitem(PAPER, "anime", (Counts(2, 6, 11), 8.33))
    result = measure("anime", SourceOptions(raw=anime))
    assert result["nearest"] == "of users with at least 5"
    assert set(result["nearest_ratios"].values()) == {1.0}
    # Title 6 is rated once, so the paper's mean of 1.8 an item is no contradiction.
    assert not any("was not filtered" in note for note in result["notes"])


def test_a_filtered_file_cannot_have_the_papers_averages(tmp_path):
    """Five users with five items each, as a 5-core; the paper's music has 1.3 a user."""
    lines = [
        {
            "reviewerID": f"A{user}",
            "asin": f"B{item}",
            "overall": 5.0,
            "unixReviewTime": 1_400_000_000,
        }
        for user in range(5)
        for item in range(5)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "reviews_Digital_Music_5.json").write_text(text)
    result = measure("amazon-music", SourceOptions(raw=tmp_path))
    notes = "\n".join(result["notes"])
    assert "Every user of this copy has at least 5 ratings; those of the paper have 1.3" in notes
    assert "Every item of this copy has at least 5 ratings; those of the paper have 2.5" in notes
    assert "5 rated items are not described" in notes
    # No item is described: that way of counting has nothing left and is not shown.
    assert list(by_name(result)) == ["as built"]


def test_a_copy_that_is_larger_than_the_papers(anime, monkeypatch):
    monkeypatch.setitem(PAPER, "anime", (Counts(3, 6, 4), 77.8))
    notes = measure("anime", SourceOptions(raw=anime))["notes"]
    assert any("3.0 times the paper's instances" in note for note in notes)


def test_the_papers_table_alone(capsys, tmp_path):
    out = tmp_path / "table1.json"
    run_table1(json=out)
    shown = capsys.readouterr().out
    for name, (counts, sparsity) in PAPER.items():
        line = next(line for line in shown.splitlines() if line.strip().startswith(f"{name} "))
        for number in (f"{counts.users:,}", f"{counts.instances:,}", f"{sparsity:.2f} %"):
            assert number in line
    for address in ("kaggle.com", "nijianmo.github.io", "business.yelp.com"):
        assert address in shown
    assert json.loads(out.read_text())["paper"]["yelp"]["instances"] == 228_000
    run_table1("anime")
    shown = capsys.readouterr().out
    assert "kaggle.com" in shown
    assert "nijianmo" not in shown


def test_the_report(anime, capsys, tmp_path):
    out = tmp_path / "result.json"
    run_table1("anime", raw=anime, json=out)
    shown = capsys.readouterr().out
    assert "and unrated (-1): every readable rating" in shown
    assert "<- nearest to the paper" in shown
    result = json.loads(out.read_text())
    assert result["copy"]["instances"] == 12
    assert f"- {result['notes'][0]}" in shown


def test_a_dataset_that_the_paper_lacks(tmp_path, capsys):
    (tmp_path / "u.data").write_text("1\t1\t5\t10\n2\t1\t3\t20\n")
    (tmp_path / "u.item").write_text("1|Film (1990)||||" + "|".join(["0"] * 18 + ["1"]) + "\n")
    run_table1("ml-100k", raw=tmp_path)
    shown = capsys.readouterr().out
    assert "The paper does not use MovieLens 100K" in shown
    assert "nearest" not in shown.partition("Your copy")[2]
    result = measure("ml-100k", SourceOptions(raw=tmp_path))
    assert result["paper"] is result["nearest"] is result["ratios"] is None
    assert by_name(result) == {"as built": (2, 1, 2)}


def test_another_state_than_the_papers_is_said():
    options = SourceOptions(state="PA")
    assert "--state MO" in table1._state_note("yelp", options)[0]
    assert table1._state_note("yelp", SourceOptions(state=" mo")) == []
    assert table1._state_note("anime", options) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"raw": Path("somewhere")}, "say of which dataset, with --dataset"),
        ({"dataset": "anime", "raw": Path("nowhere")}, "nowhere: no such"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(InputError) as caught:
        run_table1(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_place_for_the_numbers(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        run_table1(json=tmp_path)


def test_unknown_datasets_are_refused():
    with pytest.raises(InputError, match="known are amazon-games"):
        measure("netflix", SourceOptions())


@needs_samples
def test_the_real_anime_excerpt():
    result = measure("anime", SourceOptions(raw=SAMPLES / "anime"))
    lines = pd.read_csv(SAMPLES / "anime" / "rating.csv")
    for prefix, table in (("", lines[lines["rating"] > 0]), ("and unrated (-1): ", lines)):
        table = table.drop_duplicates(["user_id", "anime_id"])
        often = table.groupby("user_id")["anime_id"].transform("size") >= 20
        for name, kept in (("as built", table), ("of users with at least 20", table[often])):
            expected = (kept["user_id"].nunique(), kept["anime_id"].nunique(), len(kept))
            assert by_name(result)[prefix + name] == expected


@needs_samples
def test_the_real_music_excerpt():
    result = measure("amazon-music", SourceOptions(raw=SAMPLES / "amazon-2014"))
    path = SAMPLES / "amazon-2014" / "reviews_Digital_Music_5.json"
    table = pd.read_json(path, lines=True).drop_duplicates(["reviewerID", "asin"])
    expected = (table["reviewerID"].nunique(), table["asin"].nunique(), len(table))
    assert by_name(result)["as built"] == expected
