"""The dataset of anime from its raw files to a packed folder, with the replies that come with the package."""

import json

import numpy as np
import pandas as pd
import pytest

import jaxsim
from prep.__main__ import run
from prep.features.embedding import HASHED
from prep.replies.files import read_replies
from prep.replies.parser import parse_reply
from prep.sources.anime import Anime
from tests.paths import ANIME
from tests.prep.conftest import reply_text

# The first two have replies in the package, 999001 and 999002 do not exist; 999002 is for adults.
TITLES = """\
anime_id,name,genre,type,episodes,rating,members
1535,Death Note,"Mystery, Police",TV,37,8.71,1013917
226,Elfen Lied,"Drama, Horror",TV,13,7.85,623511
999001,Hoshi no Koe,Drama,Movie,1,7.0,10
999002,Yoru,Hentai,OVA,1,6.0,10
"""
RATINGS = [
    *((user, title, 9) for user in range(1, 9) for title in (226, 1535)),
    (1, 999001, 2),
    (2, 999001, 3),
    (9, 999001, 3),
    *((user, 999002, 7) for user in range(1, 7)),
    (9, 1535, -1),
]
OPTIONS = ["--min-items", "1", "--max-share", "1"]


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "anime.csv").write_text(TITLES, "utf-8")
    lines = [",".join(map(str, row)) for row in RATINGS]
    (folder / "rating.csv").write_text("\n".join(["user_id,anime_id,rating", *lines]), "utf-8")
    return folder


def build(raw, *options):
    out = raw.parent / "packed"
    run([str(arg) for arg in ["build", "anime", "--raw", raw, "--out", out, *OPTIONS, *options]])
    return jaxsim.load_dataset(out)


def shipped_keywords(title):
    """The keywords of a title, from the file in the package."""
    (path,) = Anime().replies
    (text,) = (line.text for line in read_replies(path).lines if line.item_id == title)
    return parse_reply(text).keywords


@pytest.mark.usefixtures("no_training")
def test_the_packages_replies_are_the_default_and_need_no_encoder(raw, monkeypatch, capsys):
    monkeypatch.delattr("prep.features.embedding.encode")
    dataset = build(raw)
    assert dataset.items["item_id"].tolist() == ["226", "1535", "999001"]
    for index, title in enumerate(["226", "1535"]):
        for side, words in zip(("pos", "neg"), shipped_keywords(title), strict=True):
            row = dataset.arrays[f"item_{side}_keywords"][index]
            assert {dataset.keywords[word] for word in row if word >= 0} == words
            length = np.linalg.norm(dataset.arrays[f"item_{side}_embedding"][index])
            assert length == pytest.approx(1, abs=1e-6)
    assert dataset.manifest["language_model"]["name"] == "Claude (Anthropic)"
    names = [file["name"] for file in dataset.manifest["language_model"]["files"]]
    assert names == ["t_obj_replies.jsonl.gz"]
    report = capsys.readouterr().out
    assert "words from      Claude (Anthropic)\n" in report


@pytest.mark.usefixtures("no_training")
def test_titles_without_a_reply_are_reported_and_not_refused(raw, capsys):
    """One of three titles, with three of 19 ratings, has no reply; 1,987 replies are about other titles."""
    dataset = build(raw)
    counts = dataset.manifest["counts"]
    assert (counts["items_without_reply"], counts["interactions_without_reply"]) == (1, 3)
    assert dataset.items["has_reply"].tolist() == [True, True, False]
    assert (dataset.arrays["item_pos_keywords"][2] == -1).all()
    assert not dataset.arrays["item_pos_embedding"][2].any()
    printed = capsys.readouterr()
    assert "T_obj           2 parsed, 1 missing, 1,987 of items that were left out\n" in printed.out
    assert "without T_obj   1 of 3 items, which have 15.8% of the ratings\n" in printed.out
    assert not dataset.manifest["settings"]["allow_missing_replies"]


@pytest.mark.usefixtures("no_training")
def test_replies_of_ones_own_are_still_asked_to_be_complete(raw, prep_error):
    (shipped,) = Anime().replies
    args = ["build", "anime", "--raw", raw, "--out", raw.parent / "packed", *OPTIONS]
    own = raw.parent / "own.jsonl"
    lines = [line for line in read_replies(shipped).lines if line.item_id in ("226", "1535")]
    own.write_text("".join(line_of(reply.item_id, reply.text) for reply in lines))
    message = "no reply for 1 of 3 items, such as item 999001 (Hoshi no Koe)"
    assert message in prep_error(*args, "--replies", own)
    # Even the package's own file, once it is given as the user's.
    assert "which does not exist" in prep_error(*args, "--replies", shipped)
    dataset = build(raw, "--replies", own, "--allow-missing-replies")
    assert dataset.manifest["language_model"]["name"] == "not named"
    assert dataset.manifest["counts"]["items_without_reply"] == 1


def line_of(item, text):
    return json.dumps({"item_id": item, "reply": text}) + "\n"


@pytest.mark.usefixtures("no_training")
def test_no_language_model_in_place_of_the_packages_replies(raw):
    dataset = build(raw, "--annotate", "none", "--encoder", HASHED)
    assert dataset.manifest["language_model"]["name"].startswith("none")
    assert dataset.manifest["counts"]["items_without_reply"] == 0


@pytest.mark.usefixtures("no_training")
def test_a_copy_of_other_titles_has_no_keywords(raw, prep_error):
    path = raw / "anime.csv"
    path.write_text(path.read_text("utf-8").replace("1535,", "999535,").replace("226,", "999226,"))
    path = raw / "rating.csv"
    path.write_text(
        path.read_text("utf-8").replace(",1535,", ",999535,").replace(",226,", ",999226,")
    )
    args = ["build", "anime", "--raw", raw, "--out", raw.parent / "packed", *OPTIONS]
    assert "none of the 3 items has a reply with keywords" in prep_error(*args)


@pytest.mark.usefixtures("no_training")
def test_adult_titles_are_left_out_counted_and_kept_on_request(raw, capsys):
    dataset = build(raw)
    reason = "of adult titles (genre Hentai); --keep-adult keeps them"
    assert dataset.manifest["left_out"] == {"watched, but not rated (-1)": 1, reason: 6}
    assert dataset.manifest["settings"]["keep_adult"] is False
    assert f"6 rows left out: {reason}\n" in capsys.readouterr().out
    assert "999002" not in build(raw, "--keep-unrated").items["item_id"].tolist()
    dataset = build(raw, "--keep-adult")
    assert dataset.items["item_id"].tolist() == ["226", "1535", "999001", "999002"]
    assert dataset.manifest["settings"]["keep_adult"] is True
    assert dataset.manifest["counts"]["interactions"] == 25
    assert dataset.manifest["left_out"] == {"watched, but not rated (-1)": 1}


@pytest.mark.usefixtures("no_training")
def test_a_reply_about_an_adult_title_is_no_error(raw, capsys):
    """Somebody may have annotated with --keep-adult and build without."""
    own = raw.parent / "own.jsonl"
    ids = ("226", "1535", "999001", "999002")
    own.write_text("".join(line_of(item, reply_text(["wry"], ["slow"])) for item in ids))
    build(raw, "--replies", own, "--encoder", "hashed")
    assert "3 parsed, 1 of items that were left out" in capsys.readouterr().out


@pytest.mark.usefixtures("no_training")
def test_the_order_is_in_the_manifest_and_in_the_report(raw, capsys):
    settings = build(raw).manifest["settings"]
    assert (settings["order"], settings["order_seed"]) == ("permutation", 0)
    assert "permuted at random (--order-seed 0)" in capsys.readouterr().out
    settings = build(raw, "--order-seed", "7").manifest["settings"]
    assert (settings["order"], settings["order_seed"]) == ("permutation", 7)
    dataset = build(raw, "--file-order")
    settings = dataset.manifest["settings"]
    assert (settings["order"], settings["order_seed"]) == ("file", None)
    assert "have the order of the file" in capsys.readouterr().out
    assert dataset.arrays["interaction_item"][:3].tolist() == [0, 1, 2]


@pytest.mark.usefixtures("no_training")
def test_a_conversion_is_built_as_the_raw_files_are(raw, prep_error):
    tables = raw.parent / "tables"
    run(["convert", "anime", "--raw", str(raw), "--out", str(tables)])
    first, second = build(raw), build(tables)
    for name, array in first.arrays.items():
        assert array.tobytes() == second.arrays[name].tobytes(), name
    for part in ("settings", "counts", "left_out"):
        assert first.manifest[part] == second.manifest[part]
    args = ["build", "anime", "--raw", tables, "--out", raw.parent / "other", *OPTIONS]
    assert "a conversion without --keep-adult; leave it out, or convert again" in prep_error(
        *args, "--keep-adult"
    )
    run(["convert", "anime", "--raw", str(raw), "--out", str(tables), "--keep-adult"])
    assert "a conversion with --keep-adult; give it here, too, or convert" in prep_error(*args)
    assert build(tables, "--keep-adult").manifest["settings"]["keep_adult"] is True


@pytest.mark.slow
@pytest.mark.skipif(not ANIME.is_dir(), reason="the anime ratings are not here")
@pytest.mark.usefixtures("no_training")
def test_the_real_ratings(tmp_path, monkeypatch):
    """Counts by pandas; and the three splits have the same kind of titles, which --file-order does not give."""
    monkeypatch.delattr("prep.features.embedding.encode")
    packed = {}
    for name, options in {"permutation": [], "file": ["--file-order"]}.items():
        run(["build", "anime", "--raw", str(ANIME), "--out", str(tmp_path / name), *options])
        packed[name] = jaxsim.load_dataset(tmp_path / name)
    titles = pd.read_csv(ANIME / "anime.csv").set_index("anime_id")
    adult = titles.index[titles.genre.fillna("").str.contains("Hentai")]
    lines = pd.read_csv(ANIME / "rating.csv")
    lines = lines[(lines.rating != -1) & ~lines.anime_id.isin(adult)]
    kept = lines.drop_duplicates(["user_id", "anime_id"], keep="last")
    replied = kept.anime_id.isin(int(x.item_id) for x in read_replies(Anime().replies[0]).lines)
    counts = packed["permutation"].manifest["counts"]
    assert counts["items"] == kept.anime_id.nunique()
    assert counts["interactions"] == len(kept)
    assert counts["items_without_reply"] == kept.anime_id[~replied].nunique()
    assert counts["interactions_without_reply"] == (~replied).sum()
    assert counts["replies_unparsed"] == 0
    newest = {}
    for name, dataset in packed.items():
        split = dataset.arrays["interaction_split"]
        item = dataset.arrays["interaction_item"]  # ascending ids: later titles have higher indices
        newest[name] = item[split == 2].mean() / item[split == 0].mean()
    assert newest["file"] > 2
    assert newest["permutation"] == pytest.approx(1, abs=0.02)
