"""Real excerpts of the paper's datasets, end to end; they are not part of the repository, so these tests may skip.

What is expected is counted by pandas, independently of prep.
"""

import html
import json

import numpy as np
import pandas as pd
import pytest

import jaxsim
from prep.__main__ import run
from prep.features.embedding import HASHED
from tests.paths import SAMPLES

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the excerpts are not here")

SMALL = ["--sasrec.epochs=1", "--sasrec.window=8", "--sasrec.context=8", "--sasrec.width=4",
         "--sasrec.num-blocks=1"]  # fmt: skip


def build(name, folder, out, *more):
    run(["build", name, "--raw", str(SAMPLES / folder), "--out", str(out), *map(str, more), *SMALL])
    return jaxsim.load_dataset(out)


def counts(dataset):
    return len(dataset.users), len(dataset.items), len(dataset.arrays["interaction_item"])


def last_of_pairs(table, user, item, time):
    return table.sort_values(time, kind="stable").drop_duplicates([user, item], keep="last")


@pytest.mark.usefixtures("no_training")
def test_yelp(tmp_path, capsys):
    dataset = build("yelp", "yelp", tmp_path / "out", "--state", "", "--annotate", "none",
                    "--encoder", HASHED)  # fmt: skip
    folder = SAMPLES / "yelp"
    reviews = pd.read_json(folder / "yelp_academic_dataset_review.json", lines=True)
    kept = last_of_pairs(reviews, "user_id", "business_id", "date")
    assert counts(dataset) == (kept.user_id.nunique(), kept.business_id.nunique(), len(kept))
    assert dataset.arrays["interaction_label"].sum() == (kept.stars >= 3).sum()
    businesses = pd.read_json(folder / "yelp_academic_dataset_business.json", lines=True)
    undescribed = ~kept.business_id.drop_duplicates().isin(businesses.business_id)
    assert dataset.manifest["counts"]["items_not_described"] == undescribed.sum()
    told = capsys.readouterr()
    assert "NO LANGUAGE MODEL" in told.err


@pytest.fixture
def music(tmp_path, no_training):
    folder = SAMPLES / "amazon-2014"
    return build("amazon-music", "amazon-2014", tmp_path / "out", "--replies", folder / "t_obj_replies.jsonl",
                 "--replies", folder / "t_sub_replies.jsonl", "--allow-missing-replies",
                 "--encoder", HASHED, "--max-share", "1", "--min-items", "1")  # fmt: skip


def test_amazon_2014(music):
    path = SAMPLES / "amazon-2014" / "reviews_Digital_Music_5.json"
    reviews = pd.read_json(path, lines=True, dtype=False)
    kept = last_of_pairs(reviews, "reviewerID", "asin", "unixReviewTime")
    assert counts(music) == (kept.reviewerID.nunique(), kept.asin.nunique(), len(kept))
    assert music.items["name"].tolist() != music.items["item_id"].tolist()


def test_amazon_2014_keywords_come_from_t_obj_and_from_training_reviews(music):
    """D_pos and D_neg of every album, taken from the recorded replies by plain string operations."""
    folder = SAMPLES / "amazon-2014"
    reviews = pd.read_json(folder / "reviews_Digital_Music_5.json", lines=True, dtype=False)
    kept = last_of_pairs(reviews, "reviewerID", "asin", "unixReviewTime")
    kept = kept.sort_values(["reviewerID", "unixReviewTime"], kind="stable")
    place = kept.groupby("reviewerID").cumcount()
    number = kept.groupby("reviewerID")["asin"].transform("size")
    training = (number < 5) | (place < np.floor(number * 0.8))
    train = kept[training].set_index(["reviewerID", "asin"])["overall"]

    expected: dict[str, tuple[set[str], set[str]]] = {}
    for name in ("t_obj_replies.jsonl", "t_sub_replies.jsonl"):
        for line in (folder / name).read_text("utf-8").splitlines():
            record = json.loads(line)
            pair = (record.get("user_id"), record["item_id"])
            if "user_id" in record and pair not in train.index:
                continue
            sides = expected.setdefault(record["item_id"], (set(), set()))
            block = None
            for row in record["reply"].splitlines():
                block = row[:4] if row[:4] in ("Pros", "Cons") else block
                if row.startswith("Keywords: "):
                    words = {word.strip().lower() for word in row[10:].split(",")}
                    sides[block == "Cons"].update(words)
    for index, item in enumerate(music.items["item_id"]):
        for side, words in zip(("pos", "neg"), expected.get(item, (set(), set())), strict=True):
            row = music.arrays[f"item_{side}_keywords"][index]
            assert {music.keywords[place] for place in row[row >= 0]} == words, (item, side)


@pytest.mark.usefixtures("no_training")
def test_amazon_2018_without_metadata(tmp_path, capsys):
    dataset = build("amazon-movies", "amazon-2018", tmp_path / "out", "--annotate", "none",
                    "--encoder", HASHED)  # fmt: skip
    reviews = pd.read_json(
        SAMPLES / "amazon-2018" / "Movies_and_TV_5.json", lines=True, dtype=False
    )
    kept = last_of_pairs(reviews, "reviewerID", "asin", "unixReviewTime")
    assert counts(dataset) == (kept.reviewerID.nunique(), kept.asin.nunique(), len(kept))
    assert dataset.manifest["counts"]["items_not_described"] == kept.asin.nunique()
    assert dataset.keywords == []
    assert "f_mat and f_sim toss coins" in capsys.readouterr().err
    assert not dataset.arrays["item_pos_embedding"].any()


@pytest.mark.slow
@pytest.mark.usefixtures("no_training")
def test_anime(tmp_path):
    dataset = build("anime", "anime", tmp_path / "out", "--annotate", "none", "--encoder", HASHED)
    ratings = pd.read_csv(SAMPLES / "anime" / "rating.csv")
    titles = pd.read_csv(SAMPLES / "anime" / "anime.csv").set_index("anime_id")
    adult = titles.index[titles.genre.fillna("").str.contains("Hentai")]
    rated = ratings[(ratings.rating != -1) & ~ratings.anime_id.isin(adult)]
    kept = rated.drop_duplicates(["user_id", "anime_id"], keep="last")
    assert counts(dataset) == (kept.user_id.nunique(), kept.anime_id.nunique(), len(kept))
    assert dataset.arrays["interaction_label"].sum() == (kept.rating >= 6).sum()
    described = titles.reindex(dataset.items.item_id.astype(int))
    assert dataset.manifest["counts"]["items_not_described"] == described.name.isna().sum()
    known = described.name.notna().to_numpy()
    assert dataset.items.name[known].tolist() == described.name.dropna().map(html.unescape).tolist()
