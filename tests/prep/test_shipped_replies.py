"""The replies that come with the package: that they are whole, and what their data cards say about them."""

import gzip
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prep.features.keywords import filter_keywords
from prep.replies.files import read_replies
from prep.replies.parser import parse_reply
from prep.sources import SOURCES
from tests.paths import ANIME, DATA, ROOT

SHIPPED = {name: path for name, source in SOURCES.items() for path in source.replies}
FOLDERS = {name: path.parent for name, path in SHIPPED.items()}


@pytest.fixture(scope="module", params=sorted(SHIPPED))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def replies(name):
    return read_replies(SHIPPED[name], strict=True).lines


@pytest.fixture(scope="module")
def card(name):
    return (FOLDERS[name] / "DATA_CARD.md").read_text("utf-8")


def rows_of(card):
    """The table of figures: what is counted -> the figures as written."""
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def labels(text):
    """How often each label stands at the beginning of a line."""
    return Counter(line.split(":")[0].split()[0] for line in text.splitlines())


def test_the_datasets_that_come_with_replies():
    assert SHIPPED.keys() == {"ml-100k", "anime"}
    assert {name: SOURCES[name].replies_are_partial for name in SHIPPED} == {
        "ml-100k": False,
        "anime": True,
    }


def test_every_item_has_one_reply_with_three_pros_and_three_cons(replies):
    assert len({reply.item_id for reply in replies}) == len(replies)
    assert all(reply.user_id is None and not reply.cut for reply in replies)
    for reply in replies:
        assert parse_reply(reply.text).problem is None
        expected = {"Pros": 3, "Cons": 3, "Evidence": 6, "Keywords": 6}
        assert labels(reply.text) == expected, reply.item_id


def test_the_data_card_states_what_the_file_holds(name, replies, card):
    parsed = [parse_reply(reply.text).keywords for reply in replies]
    survivors = filter_keywords(parsed, min_items=2, max_share=0.10)
    on_two = sum(count >= 2 for count in survivors.counts.values())
    rows = rows_of(card)
    noun = "films" if name == "ml-100k" else "titles"
    count = f"{len(replies):,}"
    assert rows[f"{noun}, replies"] == f"{count}, {count} (all parse)"
    assert rows["distinct keywords, normalised"] == f"{len(survivors.counts):,}"
    assert (
        rows[f"of these on at least 2 and at most 10 % of the {noun}"] == f"{len(survivors.kept):,}"
    )
    if name == "anime":
        assert rows["of these on at least 2 titles"] == f"{on_two:,}"
        for side in ("pos", "neg"):
            lengths = [len(getattr(words, side)) for words in parsed]
            label = {"pos": "pros", "neg": "cons"}[side]
            written = f"{np.mean(lengths):.1f} ({min(lengths)} to {max(lengths)})"
            assert rows[f"keywords of the {label}, a reply"] == written


@pytest.mark.skipif(not ANIME.is_dir(), reason="the anime ratings are not here")
def test_the_data_card_of_anime_states_how_many_ratings_are_covered():
    table = pd.read_csv(ANIME / "rating.csv")
    titles = pd.read_csv(ANIME / "anime.csv").set_index("anime_id")
    adult = titles.index[titles.genre.fillna("").str.contains("Hentai")]
    rated = table[(table.rating != -1) & ~table.anime_id.isin(adult)]
    replied = {int(reply.item_id) for reply in read_replies(SHIPPED["anime"]).lines}
    assert replied <= set(titles.index.difference(adult))
    card = (FOLDERS["anime"] / "DATA_CARD.md").read_text("utf-8")
    rows = rows_of(card)
    label = f"part of {len(rated):,} ratings of {rated.user_id.nunique():,} users"
    assert rows[label] == f"{rated.anime_id.isin(replied).mean():.1%}".replace("%", " %")
    everything = table[table.rating != -1]
    share = f"{everything.anime_id.isin(replied).mean():.1%}".replace("%", " %")
    assert f"{share} of {len(everything):,} ratings" in card
    most = set(rated.anime_id.value_counts().index[:2000])
    assert f"{len(replied & most):,} of them are among the 2,000" in card


def test_the_file_is_packed_without_a_name_or_a_time(name):
    header = SHIPPED[name].read_bytes()[:10]
    assert header == b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"


@pytest.mark.skipif(not DATA.is_dir(), reason="the original files are not here")
def test_the_file_holds_the_original_replies(name):
    original = DATA / name / "t_obj_replies.jsonl"
    assert gzip.decompress(SHIPPED[name].read_bytes()) == original.read_bytes()


def test_a_notice_stands_beside_the_replies_and_is_a_licence_file_of_the_package(name, card):
    notice = FOLDERS[name] / "NOTICE"
    assert "Creative Commons Attribution 4.0" in " ".join(notice.read_text("utf-8").split())
    assert "CC BY 4.0" in card
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    path = notice.relative_to(Path(ROOT)).as_posix()
    assert path in project["project"]["license-files"]
    assert "prep" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
