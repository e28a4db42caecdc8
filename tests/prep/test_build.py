"""The whole pipeline through the command line: what it writes, and what it refuses."""

import gzip
import json
import re
import sys

import numpy as np
import pytest
from safetensors import SafetensorError

import jaxsim
from prep.__main__ import run
from prep.build import build_dataset
from prep.config import BuildConfig
from prep.features.keywords import count_empty
from tests.prep.conftest import FILMS, reply_text


def build_args(tiny, out):
    return ["build", "ml-100k", "--raw", tiny.write_folder(), "--replies", tiny.write_replies(),
            "--out", out, "--max-share", "1"]  # fmt: skip


def run_build(tiny, out, *more):
    run([str(arg) for arg in [*build_args(tiny, out), *more]])


def tree(folder):
    return sorted(path for path in folder.rglob("*") if "cache" not in path.parts)


@pytest.mark.usefixtures("no_training")
def test_what_is_packed(tiny, capsys):
    out = tiny.folder / "packed"
    run_build(tiny, out, "--min-category-items", "2", "--language-model", "nobody")
    dataset = jaxsim.load_dataset(out)

    assert dataset.items["item_id"].tolist() == ["1", "2", "3", "4", "5", "10"]
    assert dataset.items["name"].tolist() == [film[1] for film in FILMS]
    assert dataset.items["attributes"].tolist()[3:5] == ['{"year": "1994"}', "{}"]
    assert list(dataset.items["categories"][5]) == ["Children's", "Comedy"]
    assert dataset.users["user_id"].tolist() == ["3", "7", "12"]
    assert dataset.keywords == ["dated", "energetic", "romantic", "sentimental", "stylish",
                                "suspenseful", "talky", "weak script"]  # fmt: skip
    # Drama and Comedy are on two films; the others keep their rarest.
    assert dataset.categories == ["Comedy", "Drama", "Sci-Fi", "unknown"]
    arrays = dataset.arrays
    np.testing.assert_array_equal(arrays["item_categories"], [[1], [0], [1], [2], [3], [0]])
    np.testing.assert_array_equal(
        arrays["item_pos_keywords"], [[2, 4], [1, 4], [2, -1], [5, -1], [1, -1], [5, -1]]
    )
    np.testing.assert_array_equal(
        arrays["item_neg_keywords"], [[0, 6], [7, -1], [6, -1], [0, 7], [3, -1], [3, -1]]
    )
    np.testing.assert_allclose(np.linalg.norm(arrays["item_pos_embedding"], axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(arrays["user_offsets"], [0, 5, 6, 11])
    # User 3 from 10 to 50 seconds; 7; user 12, whose two last ratings are in the same second.
    np.testing.assert_array_equal(arrays["interaction_item"], [4, 3, 2, 0, 5, 3, 2, 5, 3, 1, 0])
    np.testing.assert_array_equal(arrays["interaction_label"], [0, 0, 1, 0, 1, 1, 0, 1, 1, 0, 1])
    assert dataset.departure is None
    reason = "0 gaps of more than 30 minutes, fewer than 100"
    assert dataset.manifest["departure"]["constant_because"] == reason
    assert dataset.visits is None
    assert dataset.manifest["visits"]["none_because"] == reason
    few = "6 training labels with an earlier one are fewer than 200"
    assert dataset.manifest["satiation"] == {"reason": few}
    np.testing.assert_array_equal(arrays["interaction_split"], [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2])

    manifest = dataset.manifest
    assert manifest["settings"]["max_share"] == 1.0
    assert (manifest["settings"]["order"], manifest["settings"]["order_seed"]) == ("time", None)
    assert manifest["settings"]["keep_adult"] is None
    assert manifest["counts"]["interactions_without_reply"] == 0
    assert manifest["language_model"]["name"] == "nobody"
    assert manifest["raw"].keys() == {"u.data", "u.item"}
    assert manifest["counts"]["session_users"] == 2
    report = capsys.readouterr().out
    assert f"departure       constant: {reason}" in report
    assert f"satiation       not fitted: {few}" in report
    assert f"visits          users who return are not fitted: {reason}" in report
    for fact in ("3 users, 6 items, 11 ratings", "54.5% of the ratings", "8 of 8 kept", str(out)):
        assert fact in report
    assert "\norder " not in report  # of time goes without saying
    assert "without T_obj" not in report


@pytest.mark.slow
def test_with_a_trained_statistic_model_under_its_name(tiny, cache, capsys):
    args = build_args(tiny, cache / "unused")
    del args[args.index("--out") : args.index("--out") + 2]
    small = {"epochs": 1, "window": 8, "context": 8, "num-blocks": 1, "width": 4, "seed": 5}
    options = [f"--sasrec.{name}={value}" for name, value in small.items()]
    run([*map(str, args), *options])
    dataset = jaxsim.load_dataset("ml-100k")
    assert dataset.path == cache / "datasets" / "ml-100k"
    assert dataset.sasrec
    assert dataset.manifest["sasrec"]["training"]["seed"] == 5


SPLITS = {"ratio": [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2], "loo": [0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 2]}


@pytest.mark.usefixtures("no_training")
def test_each_split_has_a_dataset_of_its_own(tiny, cache):
    """Users 3 and 12 have five ratings, user 7 has one. A review is mined only if it is for training."""
    # User 3's last but one rating: a dislike of item 1, so its reply gives a con.
    review = {
        "user_id": "3",
        "item_id": "1",
        "reply": "Cons 1: x\nKeywords: dated, sentimental\nEvidence: y",
    }
    tiny.replies.append(json.dumps(review))
    args = build_args(tiny, "unused")
    del args[args.index("--out") : args.index("--out") + 2]
    for split in SPLITS:
        run([*map(str, args), "--split", split])
    assert {path.name for path in (cache / "datasets").iterdir()} == {"ml-100k", "ml-100k-loo"}
    for split, name in (("ratio", "ml-100k"), ("loo", "ml-100k-loo")):
        dataset = jaxsim.load_dataset(name)
        assert dataset.name == name
        assert dataset.manifest["settings"]["split"] == split
        replies = [dataset.manifest["counts"][f"review_replies{x}"] for x in ("", "_not_training")]
        assert replies == ([1, 0] if split == "ratio" else [0, 1])
        np.testing.assert_array_equal(dataset.arrays["interaction_split"], SPLITS[split])
        cons = dataset.arrays["item_neg_keywords"][0]
        mined = "sentimental" in {dataset.keywords[word] for word in cons if word >= 0}
        assert mined == (split == "ratio")


@pytest.mark.usefixtures("no_training")
def test_a_dataset_of_few_users_replaces_none(tiny, cache):
    args = build_args(tiny, "unused")
    del args[args.index("--out") : args.index("--out") + 2]
    run([*map(str, args), "--limit-users", "2"])
    assert {path.name for path in (cache / "datasets").iterdir()} == {"ml-100k-2-users"}
    dataset = jaxsim.load_dataset("ml-100k-2-users")
    assert dataset.manifest["counts"]["users"] == 2
    assert dataset.manifest["settings"]["limit_users"] == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ml-100k-loo", "ml-100k --split loo"),
        ("yelp-1000-users", "yelp --limit-users 1000"),
        ("yelp-1000-users-loo", "yelp --limit-users 1000 --split loo"),
        ("amazon-music-2014", "amazon-music --release 2014"),
        (
            "amazon-music-2023-2018-users-loo",
            "amazon-music --release 2023 --limit-users 2018 --split loo",
        ),
        ("amazon-music-2018-users", "amazon-music --limit-users 2018"),
    ],
)
def test_a_missing_variant_says_how_to_build_it(name, options):
    with pytest.raises(jaxsim.InputError, match=f"prep build {options}`"):
        jaxsim.load_dataset(name)


@pytest.mark.usefixtures("no_training")
def test_the_same_input_gives_the_same_bytes(tiny):
    args = build_args(tiny, tiny.folder / "a")
    run([*map(str, args)])
    args[args.index("--out") + 1] = tiny.folder / "b"
    run([*map(str, args)])
    first, second = ({path.name: path.read_bytes() for path in (tiny.folder / name).iterdir()}
                     for name in "ab")  # fmt: skip
    assert first == second


@pytest.mark.usefixtures("no_training")
def test_like_threshold_and_min_items(tiny):
    tiny.replies[0] = json.dumps({"item_id": "1", "reply": reply_text(["stylish"], ["dated"])})
    run_build(tiny, tiny.folder / "o", "--like-threshold", "4.5", "--min-items", "2")
    dataset = jaxsim.load_dataset(tiny.folder / "o")
    assert dataset.arrays["interaction_label"].sum() == 2
    assert "romantic" not in dataset.keywords  # now on one film
    assert "stylish" in dataset.keywords


@pytest.mark.usefixtures("no_training")
def test_items_without_usable_replies_are_allowed_on_request(tiny, capsys):
    del tiny.replies[1]
    tiny.replies[0] = json.dumps({"item_id": "1", "reply": "Sorry."})
    out = tiny.folder / "o"
    run_build(tiny, out, "--allow-missing-replies")
    dataset = jaxsim.load_dataset(out)
    assert (dataset.arrays["item_pos_keywords"][:2] == -1).all()
    assert not dataset.arrays["item_neg_embedding"][:2].any()
    assert dataset.items["has_reply"].tolist() == [False, False, True, True, True, True]
    report = capsys.readouterr().out
    assert "4 parsed, 1 missing, 1 that do not parse" in report
    # User 12 rated item 2, which has no reply; item 1 has one that does not parse.
    assert "without T_obj   1 of 6 items, which have 9.1% of the ratings" in report


def spoil(name, change):
    """Make a case that changes one list of lines of the tiny data."""
    return lambda tiny: change(getattr(tiny, name))


def set_line(index, line):
    return lambda lines: lines.__setitem__(index, line)


def reply(item, text="Pros 1: x\nKeywords: y"):
    return json.dumps({"item_id": item, "reply": text})


BAD_DATA = {
    "letters in a rating": (
        spoil("ratings", set_line(2, "12\t3\tgood\t100")),
        r"u\.data:3: rating 'good' is not a whole number from 1 to 5",
    ),
    "letters in a user": (
        spoil("ratings", set_line(0, "me\t3\t4\t100")),
        r"u\.data:1: user 'me' is not a whole number",
    ),
    "letters in a time": (
        spoil("ratings", set_line(0, "12\t3\t4\tnoon")),
        r"u\.data:1: timestamp 'noon'",
    ),
    "a rating out of range": (spoil("ratings", set_line(0, "12\t3\t6\t1")), r"u\.data:1: .*'6'"),
    "underscored number": (spoil("ratings", set_line(0, "1_2\t3\t4\t1")), r"u\.data:1: .*'1_2'"),
    "a column too few": (
        spoil("ratings", set_line(4, "3\t1\t1")),
        r"u\.data:5: 3 columns instead of 4",
    ),
    "no ratings": (spoil("ratings", list.clear), r"u\.data: the file is empty"),
    "an item that is not there": (
        spoil("ratings", set_line(1, "12\t99\t5\t900")),
        r"u\.data:2: a rating for item 99, which .*u\.item lacks",
    ),
    "an item twice": (
        spoil("items", lambda lines: lines.append(lines[0])),
        r"u\.item:7: item 1 comes a second time",
    ),
    "an item column too few": (
        spoil("items", lambda lines: lines.__setitem__(1, lines[1][:-2])),
        r"u\.item:2: 23 columns instead of 24",
    ),
    "a genre flag of 2": (
        spoil("items", lambda lines: lines.__setitem__(1, lines[1][:-1] + "2")),
        r"u\.item:2: a genre flag is neither 0 nor 1",
    ),
    "items without a reply": (
        spoil("replies", lambda lines: lines.__delitem__(slice(2, 4))),
        r"replies\.jsonl: no reply for 2 of 6 items, such as item 3 \(Été à la mer\).*--allow-miss",
    ),
    "a reply that does not parse": (
        spoil("replies", set_line(3, reply("4"))),
        r"replies\.jsonl:4: the reply for item 4 \(Night Ferry\) does not parse: no Cons in it; ",
    ),
    "bad JSON": (
        spoil("replies", set_line(1, '{"item_id": "2", "reply": ')),
        r"replies\.jsonl:2: not JSON",
    ),
    "endless JSON": (spoil("replies", set_line(1, "[" * 100_000)), r"replies\.jsonl:2: not JSON"),
    "JSON of another shape": (
        spoil("replies", set_line(1, "[1]")),
        r"replies\.jsonl:2: not a JSON object",
    ),
    "no item_id": (spoil("replies", set_line(1, '{"reply": ""}')), r"jsonl:2: item_id is missing"),
    "no reply": (spoil("replies", set_line(1, '{"item_id": 2}')), r"jsonl:2: reply is missing"),
    "a reply to T_sub of no rating": (
        spoil(
            "replies", lambda lines: lines.append('{"user_id": "3", "item_id": "2", "reply": ""}')
        ),
        r"replies\.jsonl:7 \(user 3, item 2\): no such rating",
    ),
    "a reply for no item": (
        spoil("replies", lambda lines: lines.append(reply("77"))),
        r"replies\.jsonl:7: a reply for item 77, which does not exist",
    ),
    "two replies for an item": (
        spoil("replies", lambda lines: lines.append(reply("3"))),
        r"replies\.jsonl:7: a second reply for item 3.* \(the first: .*replies\.jsonl:3\)",
    ),
    "no replies": (spoil("replies", list.clear), r"replies\.jsonl: the file is empty"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("change", "message"), BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_data_is_one_line_and_leaves_nothing(tiny, prep_error, change, message):
    change(tiny)
    args = [*build_args(tiny, tiny.folder / "deep" / "packed"), "--strict"]
    before = tree(tiny.folder)
    assert_matches(message, prep_error(*args))
    assert tree(tiny.folder) == before


def assert_matches(pattern, text):
    assert re.search(pattern, text), text


BAD_OPTIONS = {
    "max share 0": (
        ["--max-share", "0"],
        "--max-share is 0.0: give a finite number above 0, up to 1",
    ),
    "max share nan": (["--max-share", "nan"], "--max-share is nan"),
    "category share": (["--max-category-share", "-1"], "--max-category-share is -1.0"),
    "min items": (["--min-items", "0"], "--min-items is 0: give a whole number from 1"),
    "min category items": (["--min-category-items", "0"], "--min-category-items is 0"),
    "limit users": (["--limit-users", "0"], "--limit-users is 0"),
    "min user ratings": (["--min-user-ratings", "0"], "--min-user-ratings is 0"),
    "threshold nan": (["--like-threshold", "nan"], "--like-threshold is nan: give a finite number"),
    "language model": (["--llm.top-p", "0"], "--llm.top-p is 0.0: give a finite number above 0"),
    "heads": (
        ["--sasrec.num-heads", "3"],
        "--sasrec.num-heads is 3: give a divisor of --sasrec.wid",
    ),
    "decays": (
        ["--sasrec.decays", "0.5", "1.5"],
        "--sasrec.decays has 1.5: give numbers above 0, up to",
    ),
    "batch size": (["--sasrec.batch-size", "0"], "--sasrec.batch-size is 0: give a whole number"),
    "steps": (["--sasrec.max-steps", "0"], "--sasrec.max-steps is 0: give a whole number from 1"),
    "learning rate": (["--sasrec.learning-rate", "nan"], "--sasrec.learning-rate is nan"),
    "dropout": (["--sasrec.dropout", "1"], "--sasrec.dropout is 1.0: give a finite number from 0,"),
    "seed": (["--sasrec.seed", "-1"], "--sasrec.seed is -1: give a whole number from 0, below"),
    "threshold too high": (["--like-threshold", "5.5"], "makes every rating a dislike"),
    "threshold too low": (["--like-threshold", "1"], "makes every rating a like"),
    "no keyword left": (["--min-items", "5"], "none of 8 keywords is on at least 5"),
    "missing vectors": (["--vectors", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
    "missing replies": (["--replies", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    "file order": (
        ["--file-order"],
        "--file-order: these ratings have times, and are ordered by them",
    ),
    "order seed": (["--order-seed", "3"], "--order-seed 3: these ratings have times"),
    "order seed below 0": (
        ["--order-seed", "-1"],
        "--order-seed is -1: give a whole number from 0",
    ),
    "order twice": (
        ["--file-order", "--order-seed", "3"],
        "--file-order and --order-seed 3: the order of the file has no seed; leave out one of them",
    ),
    "adult titles": (
        ["--keep-adult"],
        "--keep-adult: ml-100k leaves out no adult items; leave the",
    ),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
def test_bad_options(tiny, prep_error, options, message):
    args = build_args(tiny, tiny.folder / "packed")
    before = tree(tiny.folder)
    assert message in prep_error(*args, *options)
    assert tree(tiny.folder) == before


def test_an_unknown_dataset(prep_error):
    assert "unknown dataset 'ml-200k': known are amazon-games, " in prep_error("build", "ml-200k")
    assert "unknown dataset 'ml-200k'" in prep_error("embed", "ml-200k", "--out", "x")


@pytest.mark.usefixtures("no_training")
def test_bad_raw_paths_and_zips(tiny, prep_error):
    whole = tiny.write_zip()
    cut, empty, other = (tiny.folder / name for name in ("cut.zip", "empty.zip", "other"))
    cut.write_bytes(whole.read_bytes()[:-300])
    empty.write_bytes(b"")
    other.mkdir()
    half = tiny.folder / "half"
    half.mkdir()
    (half / "u.data").write_text("1\t1\t1\t1\n")
    for path, message in (
        (cut, "cut.zip: not a whole zip"),
        (empty, "empty.zip: not a whole zip"),
        (tiny.folder / "nowhere.zip", "nowhere.zip: no such file or folder"),
        (other, "other: holds neither u.data and u.item nor ml-100k.inter and ml-100k.item"),
        (half, "u.item: no such file"),
    ):
        assert message in prep_error("build", "ml-100k", "--raw", path)


@pytest.mark.usefixtures("no_training")
def test_a_zip_with_flipped_bytes(tiny, prep_error):
    path = tiny.write_zip()
    content = bytearray(path.read_bytes())
    start = content.index(b"ml-100k/u.data") + 40
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    assert "ml-100k.zip: not a whole zip" in prep_error("build", "ml-100k", "--raw", path)


@pytest.mark.usefixtures("no_training")
def test_text_that_is_not_utf_8_and_gzip_that_is_cut(tiny, prep_error):
    args = build_args(tiny, tiny.folder / "packed")
    replies = args[args.index("--replies") + 1]
    packed = replies.with_suffix(".jsonl.gz")
    packed.write_bytes(gzip.compress(replies.read_bytes())[:-20])
    replies.write_bytes(replies.read_bytes() + b"\xff\xfe\n")
    assert "replies.jsonl:7: not valid UTF-8 text" in prep_error(*args, "--strict")
    args[args.index("--replies") + 1] = packed
    assert "replies.jsonl.gz: not a whole gzip file" in prep_error(*args)


@pytest.mark.usefixtures("no_training")
def test_recbole_files_with_bad_lines(tiny, prep_error):
    folder = tiny.write_recbole()
    args = ["build", "ml-100k", "--raw", folder, "--out", tiny.folder / "packed"]
    path = folder / "ml-100k.item"
    good = path.read_text("utf-8")
    path.write_text(good.replace("Romance Drama", "Romcom Drama"), "utf-8")
    assert "ml-100k.item:2: 'Romcom' is not a genre" in prep_error(*args)
    path.write_text(good.replace("release_year", "year"), "utf-8")
    assert "ml-100k.item:1: the header has no column release_year" in prep_error(*args)
    path.write_text(good.replace("\tComedy", ""), "utf-8")
    assert "ml-100k.item:3: 3 columns instead of 4" in prep_error(*args)


@pytest.mark.usefixtures("no_training")
def test_an_output_that_is_something_else_is_refused(tiny, prep_error):
    out = tiny.folder / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("precious")
    args = build_args(tiny, out)
    assert "thesis: exists and is not a packed dataset" in prep_error(*args)
    assert (out / "chapter.tex").read_text() == "precious"


@pytest.mark.usefixtures("no_training")
def test_ctrl_c_leaves_the_old_dataset_and_nothing_else(tiny, monkeypatch, capsys):
    out = tiny.folder / "packed"
    args = [*map(str, build_args(tiny, out))]
    run(args)
    before = tree(tiny.folder)
    old = (out / "manifest.json").read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    for where in (
        "prep.pack._write_table",
        "jaxsim.files.os.rename",
        "prep.fitted_models.train_sasrec",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, interrupt)
            with pytest.raises(SystemExit) as caught:
                run([*args, "--min-category-items", "1"])
        assert caught.value.code == 130
        assert capsys.readouterr().err.startswith("interrupted: no file is left half written; run")
        assert tree(tiny.folder) == before
        assert (out / "manifest.json").read_bytes() == old
    run([*args, "--min-category-items", "1"])
    assert jaxsim.load_dataset(out).manifest["settings"]["min_category_items"] == 1
    assert tree(tiny.folder) == before


@pytest.mark.usefixtures("no_training")
def test_a_disk_that_is_full_of_tensors_is_one_line(tiny, monkeypatch, prep_error):
    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    args = build_args(tiny, tiny.folder / "packed")
    before = tree(tiny.folder)
    monkeypatch.setattr("prep.pack.save_file", full)
    assert "arrays.safetensors: I/O error: No space left on device" in prep_error(*args)
    assert tree(tiny.folder) == before


def test_ctrl_c_while_libraries_are_loaded_is_one_line(monkeypatch, capsys):
    class Interrupted:
        def find_spec(self, name, path=None, target=None):
            if name == "prep.commands":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "prep.commands", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        run(["build", "ml-100k"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.usefixtures("no_training")
def test_a_full_disk_is_one_line(tiny, monkeypatch, prep_error):
    def full(*_):
        raise OSError(28, "No space left on device", "items.parquet")

    args = build_args(tiny, tiny.folder / "packed")
    before = tree(tiny.folder)
    monkeypatch.setattr("prep.pack._write_table", full)
    assert "items.parquet: No space left on device" in prep_error(*args)
    assert tree(tiny.folder) == before


@pytest.mark.slow
@pytest.mark.usefixtures("no_training")
def test_975_keywords_survive_on_the_real_data(real_wheel):
    result = build_dataset("ml-100k", BuildConfig(raw=real_wheel))
    counts = result.contents.manifest["counts"]
    assert (counts["users"], counts["items"], counts["interactions"]) == (943, 1682, 100_000)
    assert (counts["keywords"], counts["keywords_before_filter"]) == (975, 1515)
    assert counts["replies_unparsed"] == counts["items_without_reply"] == 0
    assert counts["review_replies"] == counts["review_replies_not_training"] == 0
    dataset = jaxsim.load_dataset("ml-100k")
    test = dataset.arrays["interaction_split"] == 2
    assert test.sum() == 10_439
    assert dataset.arrays["interaction_label"][test].mean() == pytest.approx(0.478, abs=5e-4)
    assert count_empty(dataset.arrays["item_pos_keywords"]) == 0
