"""Invented raw files of any size in the publishers' own layouts, for measurements.

Lengths and skew follow the real files: a review of Movies & TV (2018) has about 610 bytes, a rating of the anime
list 14.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

ANIME_LINES = 7_813_737  # of the published rating.csv
ANIME_TITLES, ANIME_USERS = 12_294, 73_515
ANIME_UNRATED = 0.19  # the share of -1

_REVIEW_BYTES = 612  # mean length of a line
_USERS_PER_REVIEW, _REVIEWS_PER_ITEM = 0.4, 48  # as in the complete file of 2018
_POOL = 4096  # distinct texts; repeating them does not make reading faster
_CHUNK = 100_000
# As written within a JSON string, with escapes.
_WORDS = r"""
the a of and to in is it that this film movie was with but for as one story who on his her great plot acting very
really love scene character ending watch again DVD season boring funny \"classic\" don't I've café dark music
director cast beautiful slow \n\n family kids disappointed
"""


def write_movies(folder: Path, size: int, seed: int = 0) -> int:
    """Write `Movies_and_TV.json` and `meta_Movies_and_TV.json` as in the release of 2018.

    Args:
        folder: the folder to write to.
        size: bytes of the first file, which ends with the line that reaches this size.
        seed: of the random numbers.

    Returns:
        The number of reviews.
    """
    rng = np.random.default_rng(seed)
    expected = max(size // _REVIEW_BYTES, 1)
    users = [f"A{number:013X}" for number in range(max(int(expected * _USERS_PER_REVIEW), 5))]
    items = [f"B{number:09d}" for number in range(max(expected // _REVIEWS_PER_ITEM, 5))]
    texts = [_text(rng, int(length)) for length in rng.lognormal(5.15, 1.1, _POOL)]
    reviews = 0
    with (folder / "Movies_and_TV.json").open("w", encoding="utf-8") as file:
        written = 0
        for line in _movie_reviews(rng, users, items, texts):
            # There are a few more bytes than characters, so the file becomes a little longer than asked for.
            written += file.write(line)
            reviews += 1
            if written >= size:
                break
    with (folder / "meta_Movies_and_TV.json").open("w", encoding="utf-8") as file:
        file.writelines(_movie_metadata(rng, item, texts) for item in items)
    return reviews


def _text(rng: np.random.Generator, length: int) -> str:
    """Words of about `length` characters."""
    words = np.array(_WORDS.split())
    return " ".join(rng.choice(words, min(max(length // 5, 1), 5000)))


def _skewed(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random positions below `count`, the lower the more likely; int64[_CHUNK]."""
    return (count * rng.random(_CHUNK) ** 2.5).astype(np.int64)


def _movie_reviews(
    rng: np.random.Generator, users: list[str], items: list[str], texts: list[str]
) -> Iterator[str]:
    while True:
        columns = (
            _skewed(rng, len(users)),
            _skewed(rng, len(items)),
            rng.choice([1, 2, 3, 4, 5], _CHUNK, p=[0.08, 0.06, 0.1, 0.18, 0.58]),
            rng.integers(900_000_000, 1_540_000_000, _CHUNK),
            rng.integers(0, len(texts), _CHUNK),
        )
        for user, item, stars, time, text in zip(*(c.tolist() for c in columns), strict=True):
            yield (
                f'{{"overall": {stars}.0, "verified": true, "reviewTime": "11 9, 2012", '
                f'"reviewerID": "{users[user]}", "asin": "{items[item]}", '
                f'"style": {{"Format:": " DVD"}}, "reviewerName": "Reader {user}", '
                f'"reviewText": "{texts[text]}", "summary": "{texts[-text][:40].rpartition(" ")[0]}", '
                f'"unixReviewTime": {time}}}\n'
            )


def _movie_metadata(rng: np.random.Generator, item: str, texts: list[str]) -> str:
    also = [f"B{number:09d}" for number in rng.integers(0, 1_000_000, 40)]
    genre = ("Action", "Comedy", "Drama", "Horror", "Kids &amp; Family")[int(rng.integers(5))]
    record = {
        "category": ["Movies & TV", "Genre for Featured Categories", genre],
        "tech1": "",
        "description": [json.loads(f'"{texts[int(rng.integers(len(texts)))]}"')],
        "fit": "",
        "title": f"The {genre} No. {item[1:].lstrip('0') or '0'}",
        "also_buy": also[:20],
        "tech2": "",
        "brand": "A. Director",
        "feature": [],
        "rank": f"{int(rng.integers(1, 900_000)):,} in Movies & TV (",
        "also_view": also[20:],
        "main_cat": "Movies & TV",
        "similar_item": "",
        "date": "",
        "price": f"${rng.integers(3, 60)}.99",
        "asin": item,
        "imageURL": [],
        "imageURLHighRes": [],
    }
    return json.dumps(record) + "\n"


def write_anime(folder: Path, lines: int = ANIME_LINES, seed: int = 0) -> int:
    """Write `rating.csv` and `anime.csv` as on the anime list, ordered by user.

    Args:
        folder: the folder to write to.
        lines: ratings to write, including those of -1.
        seed: of the random numbers.

    Returns:
        The number of ratings.
    """
    rng = np.random.default_rng(seed)
    titles = np.sort(rng.choice(np.arange(1, 34_528), ANIME_TITLES, replace=False))
    users = max(min(ANIME_USERS, lines // 20), 1)
    shares = rng.lognormal(0.0, 1.0, users)
    user = np.sort(rng.choice(users, lines, p=shares / shares.sum())) + 1
    title = titles[(ANIME_TITLES * rng.random(lines) ** 3).astype(np.int64)]
    rating = np.clip(np.rint(rng.normal(7.8, 1.6, lines)), 1, 10).astype(np.int64)
    rating[rng.random(lines) < ANIME_UNRATED] = -1
    with (folder / "rating.csv").open("w", encoding="utf-8", newline="") as file:
        file.write("user_id,anime_id,rating\n")
        for start in range(0, lines, _CHUNK):
            part = slice(start, start + _CHUNK)
            columns = (user[part].tolist(), title[part].tolist(), rating[part].tolist())
            file.writelines(f"{u},{t},{stars}\n" for u, t, stars in zip(*columns, strict=True))
    with (folder / "anime.csv").open("w", encoding="utf-8", newline="") as file:
        _write_titles(file, rng, titles.tolist())
    return lines


def _write_titles(file: IO[str], rng: np.random.Generator, titles: list[int]) -> None:
    genres = [
        "Action",
        "Comedy",
        "Drama",
        "Fantasy",
        "Romance",
        "School",
        "Sci-Fi",
        "Slice of Life",
    ]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["anime_id", "name", "genre", "type", "episodes", "rating", "members"])
    for title in titles:
        chosen = rng.choice(len(genres), int(rng.integers(1, 5)), replace=False)
        genre = ", ".join(genres[place] for place in sorted(chosen.tolist()))
        rating = f"{rng.normal(6.5, 1.0):.2f}"
        members = int(rng.integers(5, 10**6))
        writer.writerow(
            [title, f"Title {title}: the series", genre, "TV", "Unknown", rating, members]
        )
