import gzip
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from jaxsim import InputError
from jaxsim.dataset import sha256_of
from prep.sources.anime import OFFER, Anime
from prep.sources.base import SourceOptions
from tests.paths import SAMPLES
from tests.prep.sources.reading import rows, skipped

SAMPLE = SAMPLES / "anime"

TITLES = """\
anime_id,name,genre,type,episodes,rating,members
7,Kaze no Uta,"Drama, Slice of Life",TV,24,8.10,1200
12,&quot;Hoshi&quot; &amp; Tsuki: Gekijouban,"Comedy, Comedy,  Sci-Fi",Movie,1,7.05,300
30,Nemuri°,,OVA,Unknown,,12
"""
RATINGS = """\
user_id,anime_id,rating
1,12,-1
1,7,8
2,30,10
1,30,6
3,7,-1
2,7,1
"""
ROWS = [("1", "7", 8.0, 0), ("2", "30", 10.0, 0), ("1", "30", 6.0, 0), ("2", "7", 1.0, 0)]


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "raw")


def write(folder, titles=TITLES, ratings=RATINGS):
    folder.mkdir(exist_ok=True)
    (folder / "anime.csv").write_text(titles, "utf-8", newline="")
    (folder / "rating.csv").write_text(ratings, "utf-8", newline="")
    return folder


def load(raw, strict=False, source=None, keep_adult=False):
    options = SourceOptions(raw=raw, strict=strict, keep_adult=keep_adult)
    return (source or Anime()).load(options)


def test_what_is_read(folder):
    data = load(folder)
    assert rows(data) == ROWS
    kinds = [str(kind) for kind in data.ratings.dtypes]
    assert kinds == ["category", "category", "float32", "int64"]
    assert data.left_out == {"watched, but not rated (-1)": 2}
    assert skipped(data) == [{}, {}]
    assert data.items["item_id"].tolist() == ["7", "12", "30"]
    assert data.items["name"].tolist() == [
        "Kaze no Uta",
        '"Hoshi" & Tsuki: Gekijouban',
        "Nemuri°",
    ]
    assert data.items["categories"].tolist() == [
        ("Drama", "Slice of Life"),
        ("Comedy", "Sci-Fi"),
        (),
    ]
    # Neither the average rating nor the number of members: they tell how a title was received.
    assert data.items["attributes"].tolist() == [
        {"type": "TV", "episodes": "24"},
        {"type": "Movie", "episodes": "1"},
        {"type": "OVA"},
    ]
    assert data.files == {name: sha256_of(folder / name) for name in ("anime.csv", "rating.csv")}
    assert data.reviews is None


def test_who_rated_nothing_is_no_user(folder):
    data = load(folder)
    assert data.ratings["user_id"].cat.categories.tolist() == ["1", "2"]
    assert data.ratings["item_id"].cat.categories.tolist() == ["7", "30"]


def test_unrated_titles_on_request(folder):
    data = load(folder, source=Anime(keep_unrated=True))
    assert len(data.ratings) == 6
    assert data.ratings["user_id"].nunique() == 3
    assert data.left_out == {}


ADULT_TITLE = '50,Yoru,"Comedy, Hentai",OVA,2,6.1,40\n'
ADULT_RATINGS = "1,50,9\n2,50,-1\n4,50,3\n"  # user 4 rates nothing else


def test_adult_titles_and_their_ratings_are_left_out(folder):
    """The second line has no rating: it counts as such."""
    write(folder, TITLES + ADULT_TITLE, RATINGS + ADULT_RATINGS)
    data = load(folder)
    assert rows(data) == ROWS
    assert data.items["item_id"].tolist() == ["7", "12", "30"]
    assert data.ratings["user_id"].cat.categories.tolist() == ["1", "2"]
    assert data.left_out == {
        "watched, but not rated (-1)": 3,
        "of adult titles (genre Hentai); --keep-adult keeps them": 2,
    }
    assert (data.keep_adult, data.left_out_items) == (False, {"50"})


def test_adult_titles_on_request(folder):
    write(folder, TITLES + ADULT_TITLE, RATINGS + ADULT_RATINGS)
    data = load(folder, keep_adult=True)
    assert rows(data) == [*ROWS, ("1", "50", 9.0, 0), ("4", "50", 3.0, 0)]
    assert data.items["item_id"].tolist() == ["7", "12", "30", "50"]
    assert data.left_out == {"watched, but not rated (-1)": 3}
    assert (data.keep_adult, data.left_out_items) == (True, set())
    everything = load(folder, source=Anime(keep_unrated=True), keep_adult=True)
    assert len(everything.ratings) == 9
    assert everything.left_out == {}


def test_genres_that_only_sound_alike_are_kept(folder):
    write(folder, TITLES + '50,Yoru,"Ecchi, Harem, Not Hentai",OVA,2,6.1,40\n', RATINGS)
    assert load(folder).left_out_items == set()


def test_adult_ratings_alone_are_no_dataset(folder):
    write(folder, TITLES + ADULT_TITLE, "user_id,anime_id,rating\n" + ADULT_RATINGS)
    message = r"none of its 3 lines has a rating that counts: 1 watched.*; 2 of adult titles"
    with pytest.raises(InputError, match=message):
        load(folder)
    assert len(load(folder, keep_adult=True).ratings) == 2


def test_gzip_and_zip_are_the_same_data(folder, tmp_path):
    packed = tmp_path / "gz"
    packed.mkdir()
    for path in folder.iterdir():
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    shutil.copytree(folder, tmp_path / "inner" / "data")
    archives = [
        Path(shutil.make_archive(str(tmp_path / name), "zip", root))
        for name, root in (("flat", folder), ("deep", tmp_path / "inner"))
    ]
    for raw in (packed, *archives):
        data = load(raw)
        assert rows(data) == ROWS, raw
        assert data.items.equals(load(folder).items)
    assert "rating.csv.gz" in load(packed).files
    assert load(archives[1]).files == load(folder).files


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\n" + text,
        lambda text: text.upper().replace("&QUOT;", "&quot;"),
        lambda text: text.replace(",", " , ").replace(" ,  ", ", "),
    ],
    ids=["blank first", "upper case", "spaces"],
)
def test_harmless_differences_in_form(folder, change):
    (folder / "rating.csv").write_text(change(RATINGS), "utf-8", newline="")
    data = load(folder)
    assert rows(data) == ROWS
    assert skipped(data) == [{}, {}]


def test_bad_lines_are_left_out_and_counted(folder, capsys):
    bad = ["1,7,11", "1,7,0", ",7,5", "1,,5", "1,7", "1,7,5,5", "1,7,five", "1,7,nan", '1,"7,5']
    write(folder, ratings=RATINGS + "\n".join(bad) + "\n4,7,9\n")
    data = load(folder)
    assert rows(data) == [*ROWS, ("4", "7", 9.0, 0)]
    assert data.skipped[1].counts == {
        "rating is not a number from 1 to 10 or -1": 4,
        "user_id is empty": 1,
        "anime_id is empty": 1,
        "the number of columns is not that of the header": 2,
        "a quote is not closed, or its field goes on behind it": 1,
    }
    assert data.skipped[1].first["anime_id is empty"] == 11
    err = capsys.readouterr().err
    assert (
        err == f"note: {folder}/rating.csv:8: rating is not a number from 1 to 10 or -1; left out\n"
    )
    with pytest.raises(
        InputError, match=r"rating\.csv:8: rating is not .* \(--strict stops here\)"
    ):
        load(folder, strict=True)


def test_a_title_that_comes_again_is_left_out(folder):
    write(
        folder,
        titles=TITLES + "7,Other,Drama,TV,1,5,5\n,Nameless,Drama,TV,1,5,5\n40,,Drama,TV,1,5,5\n",
    )
    data = load(folder)
    assert data.items["name"].tolist()[0] == "Kaze no Uta"
    assert data.items["name"].tolist()[-1] == "40"
    assert skipped(data)[0] == {"the title comes a second time": 1, "anime_id is empty": 1}


@pytest.mark.parametrize(
    ("titles", "ratings", "message"),
    [
        (TITLES, "user_id,rating\n1,5\n", "rating.csv:1: there is no column anime_id; found: 'user_id', 'rating'"),
        (TITLES, "1,12,5\n", "rating.csv:1: there are no columns user_id, anime_id, rating"),
        (TITLES.replace("genre", "genres"), RATINGS, "anime.csv:1: there is no column genre"),
        (TITLES, "", "rating.csv: the file is empty"),
        (TITLES, "user_id,anime_id,rating\n", "rating.csv: the file holds no rating"),
        (TITLES, "user_id,anime_id,rating\n1,2,x\n", "rating.csv:2: rating is not a number"),
        (TITLES, "user_id,anime_id,rating\n1,2,-1\n", "none of its 1 lines has a rating"),
        (TITLES, "user_id,anime_id,rating,Rating\n1,2,3,4\n", "columns rating and Rating both stand for rating"),
        (TITLES, RATINGS.replace("\n", "\r"), "rating.csv:1: its lines end in CR alone"),
        ("anime_id,name,genre,type,episodes\n", RATINGS, "anime.csv: the file holds no title"),
    ],
)  # fmt: skip
def test_what_is_refused(folder, titles, ratings, message):
    write(folder, titles, ratings)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_files(folder, tmp_path):
    with pytest.raises(InputError, match=f"{OFFER}.*sign in.*prep build anime --raw archive.zip"):
        load(None)
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "nowhere")
    (folder / "rating.csv").unlink()
    with pytest.raises(InputError, match=r"no rating\.csv or rating\.csv\.gz"):
        load(folder)


def test_unusable_zips(folder, tmp_path):
    path = tmp_path / "anime.zip"
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(InputError, match="not a whole zip"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "anime.csv", "anime.csv")
    with pytest.raises(InputError, match=r"does not contain anime\.csv and rating\.csv"):
        load(path)


def test_messages_name_the_file_within_the_zip(folder, tmp_path):
    write(folder, ratings=RATINGS + "1,7,x\n")
    path = Path(shutil.make_archive(str(tmp_path / "anime"), "zip", folder))
    assert load(path).skipped[1].label == f"{path}/rating.csv"


@pytest.mark.skipif(not SAMPLE.exists(), reason="the excerpts are not on this machine")
def test_the_real_excerpt():
    data = load(SAMPLE)
    titles = pd.read_csv(SAMPLE / "anime.csv", dtype=str, keep_default_na=False)
    is_adult = titles["genre"].str.split(", ").map(lambda names: "Hentai" in names)
    adult, titles = set(titles["anime_id"][is_adult]), titles[~is_adult]
    ratings = pd.read_csv(SAMPLE / "rating.csv", dtype=str)
    rated = ratings[ratings["rating"] != "-1"]
    left_out = rated["anime_id"].isin(adult)
    rated = rated[~left_out]
    assert data.ratings["user_id"].astype(str).tolist() == rated["user_id"].tolist()
    assert data.ratings["item_id"].astype(str).tolist() == rated["anime_id"].tolist()
    assert data.ratings["rating"].tolist() == rated["rating"].astype(float).tolist()
    assert left_out.sum() > 0
    assert data.left_out == {
        "watched, but not rated (-1)": (ratings["rating"] == "-1").sum(),
        "of adult titles (genre Hentai); --keep-adult keeps them": left_out.sum(),
    }
    assert data.left_out_items == adult
    assert skipped(data) == [{}, {}]
    assert data.items["item_id"].tolist() == titles["anime_id"].tolist()
    genres = titles["genre"].map(
        lambda names: tuple(dict.fromkeys(filter(None, names.split(", "))))
    )
    assert data.items["categories"].tolist() == genres.tolist()
    assert not data.items["name"].str.contains("&#039;").any()
