"""The files that `test_mutations` changes: small, valid raw files of each source and reader."""

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prep.replies.files import read_replies
from prep.sources.amazon import AMAZON
from prep.sources.anime import Anime
from prep.sources.base import Source, SourceOptions
from prep.sources.ml_100k import GENRES, MovieLens100K
from prep.sources.table import TableFile
from prep.sources.yelp import Yelp
from tests.prep.readers.changes import (
    CSV_BREAKERS,
    CSV_HARMLESS,
    HARMLESS,
    JSON_BREAKERS,
    JSON_HARMLESS,
    Change,
    csv_lines,
    huge_number,
    joined,
    json_lines,
    lose_a_column,
    lose_key,
    lose_key_everywhere,
    no_record,
    open_quote_in,
    python_lines,
    set_csv,
    set_json,
    spoil_record,
    spoil_utf8_of,
    with_blank_lines,
    with_crlf,
    without_last_end,
)

TIME = 1_500_000_000
TRIPLES = [
    (n % 5 + 1, n * 3 % 8 + 1, n % 5 + 1) for n in range(24)
]  # user, item, stars; no pair twice
ITEMS = [(n + 1, f"Thing Nº {n + 1}", ["Plain", "Round"][: n % 3]) for n in range(8)]


@dataclass(frozen=True)
class Outcome:
    """What a reader made of a folder.

    Attributes:
        records: of the file that was changed, in order.
        skipped: how many of its lines could not be read.
        left_out: how many it left out on purpose.
    """

    records: list[object]
    skipped: int
    left_out: int = 0


@dataclass(frozen=True)
class Target:
    """A file that is changed, among the files that its reader wants.

    Attributes:
        name: for the test's id.
        files: name -> content of all files.
        file: the one that is changed.
        read: reads the folder.
        command: what `prep build` is told to build of it; empty for what it cannot build alone.
        breakers: make a line one that cannot be read.
        harmless: change the file without changing what it says.
        header: how many lines of the file are no records.
        skips: whether a bad line is skipped; otherwise it is refused.
        complete: whether every line that is not skipped is kept or left out; items may come twice.
    """

    name: str
    files: dict[str, bytes]
    file: str
    read: Callable[[Path], Outcome]
    command: Callable[[Path], Sequence[object]]
    breakers: Sequence[Change] = ()
    harmless: Sequence[Change] = ()
    header: int = 0
    skips: bool = True
    complete: bool = True
    doubles: bool = True
    spoils: Sequence[Change] = field(default=())

    @property
    def content(self) -> bytes:
        return self.files[self.file]

    def write(self, folder: Path, content: bytes) -> None:
        folder.mkdir()
        for name, original in self.files.items():
            (folder / name).write_bytes(content if name == self.file else original)


def reader(source: Callable[[Path], Source], table: str, file: str, items: str | None = None):
    """Read a folder with a source and give the records of the table "ratings" or "items"."""

    def read(folder: Path) -> Outcome:
        source_, raw = source(folder), folder
        options = SourceOptions(raw=raw, items=folder / items if items else None)
        data = source_.load(options)
        skipped = {Path(report.label).name: report.total for report in data.skipped}
        check_ratings(source_, data.ratings)
        if table == "ratings":
            texts = dict(data.reviews.texts(np.arange(len(data.ratings)))) if data.reviews else {}
            rows = data.ratings.itertuples(index=False, name=None)
            records = [(*row, texts.get(place)) for place, row in enumerate(rows)]
            left_out = sum((data.left_out or {}).values())
            return Outcome(records, skipped.get(file, 0), left_out)
        assert all(data.items["item_id"])
        assert data.items["item_id"].is_unique
        rows = data.items[["item_id", "name", "categories", "attributes"]]
        return Outcome([repr(row) for row in rows.itertuples(index=False)], skipped.get(file, 0))

    return read


def check_ratings(source, ratings):
    assert all(ratings["user_id"])
    assert all(ratings["item_id"])
    highest = {"anime": 10.0}.get(source.name, 5.0)
    for rating in ratings["rating"]:
        assert math.isfinite(rating)
        assert isinstance(source, TableFile) or 1 <= rating <= highest


def read_reply_file(folder: Path) -> Outcome:
    replies = read_replies(folder / "replies.jsonl")
    records = [(line.user_id, line.item_id, line.text) for line in replies.lines]
    assert all(item and user != "" for user, item, _ in records)
    return Outcome(records, replies.skipped.total)


def anime_targets() -> Iterator[Target]:
    titles = [(i, name, ", ".join(kinds), "TV", i + 3, 7.5, 900) for i, name, kinds in ITEMS]
    files = {
        "anime.csv": csv_lines([("anime_id", "name", "genre", "type", "episodes", "rating", "members"), *titles]),
        "rating.csv": csv_lines(
            [("user_id", "anime_id", "rating"), *((u, i, 2 * r if u > 1 else -1) for u, i, r in TRIPLES)]
        ),
    }  # fmt: skip
    ratings = Target(
        "anime-ratings",
        files,
        "rating.csv",
        reader(lambda folder: Anime(), "ratings", "rating.csv"),
        lambda folder: ["anime", "--raw", folder],
        [*CSV_BREAKERS, set_csv(2, "", "11", "0", "nan", "inf", "1e999", "eight", "1_0", "-2", "9" * 400),
         set_csv(0, "", "  "), set_csv(1, ""), open_quote_in(0), open_quote_in(2), spoil_utf8_of(0)],
        CSV_HARMLESS,
        header=1,
        spoils=[lose_a_column],
    )  # fmt: skip
    yield ratings
    yield replace(
        ratings,
        name="anime-titles",
        file="anime.csv",
        read=reader(lambda folder: Anime(), "items", "anime.csv"),
        breakers=[
            *CSV_BREAKERS,
            set_csv(0, "", " "),
            open_quote_in(0),
            spoil_utf8_of(1),
            spoil_utf8_of(0),
        ],
        doubles=False,
    )


def build_table(folder: Path, ending: str) -> Sequence[object]:
    items = folder / f"items.{ending}"
    return [folder / f"mine.{ending}", "--items", items, "--like-threshold", "3", "--noun", "thing"]


def table_targets() -> Iterator[Target]:
    rows = [
        (f"u{u}", f"i{i}", r, TIME + 1000 * n, ["", "Fine", "Good, not great"][n % 3])
        for n, (u, i, r) in enumerate(TRIPLES)
    ]
    items = [(f"i{i}", name, "|".join(kinds), f"size: {i}|new") for i, name, kinds in ITEMS]
    files = {
        "mine.csv": csv_lines([("user", "item", "rating", "timestamp", "text"), *rows]),
        "items.csv": csv_lines([("item", "name", "categories", "attributes"), *items]),
    }

    def source(folder):
        return TableFile(folder / "mine.csv")

    ratings = Target(
        "table",
        files,
        "mine.csv",
        reader(source, "ratings", "mine.csv", "items.csv"),
        lambda folder: build_table(folder, "csv"),
        [*CSV_BREAKERS, set_csv(2, "", "nan", "1e39", "four", "4,5", "9" * 400), set_csv(0, ""), set_csv(1, " "),
         set_csv(3, "", "nan", "soon", "2014-01-02", "1e300", "9" * 30), open_quote_in(1), spoil_utf8_of(1)],
        CSV_HARMLESS,
        header=1,
        spoils=[lose_a_column],
    )  # fmt: skip
    yield ratings
    yield replace(
        ratings,
        name="table-items",
        file="items.csv",
        read=reader(source, "items", "items.csv", "items.csv"),
        breakers=[
            *CSV_BREAKERS,
            set_csv(0, ""),
            set_csv(3, "{", '{"a": ', "{3}"),
            open_quote_in(0),
            spoil_utf8_of(2),
        ],
        doubles=False,
    )


def movielens_targets() -> Iterator[Target]:
    ratings = joined([f"{u}\t{i}\t{r}\t{TIME + n}".encode() for n, (u, i, r) in enumerate(TRIPLES)])
    flags = ["|".join("01"[genre == i] for genre in range(len(GENRES))) for i, _, _ in ITEMS]
    films = joined(
        [
            f"{i}|{name} (199{i})||||{flag}".encode("latin-1")
            for (i, name, _), flag in zip(ITEMS, flags, strict=True)
        ]
    )
    atomic = {
        "ml-100k.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + ratings,
        "ml-100k.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        + joined([f"{i}\t{name}\t199{i}\t{GENRES[i]}".encode() for i, name, _ in ITEMS]),
    }
    breakers = [no_record, spoil_record, lambda rng, line: re.sub(rb"[\t|]", b" ", line, count=1)]
    forms = (({"u.data": ratings, "u.item": films}, 0), (atomic, 1))
    for files, header in forms:
        for table, file in zip(("ratings", "items"), files, strict=True):
            yield Target(
                f"ml-100k-{file}",
                files,
                file,
                reader(lambda folder: MovieLens100K(), table, file),
                lambda folder: ["ml-100k", "--raw", folder],
                breakers,
                [with_crlf, without_last_end, with_blank_lines],
                header=header,
                skips=False,
                doubles=table == "ratings",
            )


def yelp_targets() -> Iterator[Target]:
    businesses = [
        {"business_id": f"b{i}", "name": name, "city": "Fern", "state": "MO", "stars": 3.5, "review_count": 9,
         "attributes": {"WiFi": "u'free'"}, "categories": ", ".join(kinds)}
        for i, name, kinds in ITEMS
    ]  # fmt: skip
    reviews = [
        {"review_id": f"r{n}", "user_id": f"u{u}", "business_id": f"b{i}", "stars": float(r),
         "text": f"Visit {n}\nwas fine é", "date": f"2018-07-07 22:09:{n:02}"}
        for n, (u, i, r) in enumerate(TRIPLES)
    ]  # fmt: skip
    files = {
        "yelp_academic_dataset_business.json": json_lines(businesses),
        "yelp_academic_dataset_review.json": json_lines(reviews),
    }
    business, review = files

    target = Target(
        "yelp-reviews",
        files,
        review,
        reader(lambda folder: Yelp(), "ratings", review),
        lambda folder: ["yelp", "--raw", folder],
        [*JSON_BREAKERS, lose_key("user_id", "business_id", "stars", "date"), huge_number("stars"),
         set_json("stars", None, "many", 0, 6, -1, 10**30, [5], {}, True),
         set_json("user_id", "", None, 1.5, [], " "), set_json("date", "2018-13-01", "soon", 3, None, "")],
        JSON_HARMLESS,
        spoils=[lose_key_everywhere],
    )  # fmt: skip
    yield target
    yield replace(
        target,
        name="yelp-businesses",
        file=business,
        read=reader(lambda folder: Yelp(), "items", business),
        breakers=[*JSON_BREAKERS, lose_key("business_id", "state"), set_json("business_id", "", None, []),
                  set_json("categories", 3, {}), set_json("attributes", [1], "x")],
        complete=False,
        doubles=False,
    )  # fmt: skip


def amazon_targets() -> Iterator[Target]:
    older = [
        {"reviewerID": f"A{u}", "asin": f"B{i:03}", "overall": float(r), "reviewText": f"Number {n} é",
         "unixReviewTime": TIME + n}
        for n, (u, i, r) in enumerate(TRIPLES)
    ]  # fmt: skip
    newer = [
        {"user_id": f"A{u}", "parent_asin": f"B{i:03}", "rating": float(r), "text": f"Number {n} é",
         "timestamp": 1000 * (TIME + n)}
        for n, (u, i, r) in enumerate(TRIPLES)
    ]  # fmt: skip
    nested = [
        {"asin": f"B{i:03}", "title": name, "categories": [["Music", *kinds]]}
        for i, name, kinds in ITEMS
    ]
    flat = [
        {"asin": f"B{i:03}", "title": name, "category": ["Music", *kinds]}
        for i, name, kinds in ITEMS
    ]
    parents = [
        {"parent_asin": f"B{i:03}", "title": name, "categories": ["Music", *kinds]}
        for i, name, kinds in ITEMS
    ]
    name = AMAZON[0].department
    yield from amazon_release(
        2014, f"reviews_{name}_5.json", older, f"meta_{name}.json", python_lines(nested)
    )
    yield from amazon_release(2018, f"{name}_5.json", older, f"meta_{name}.json", json_lines(flat))
    yield from amazon_release(
        2023, f"{name}.jsonl", newer, f"meta_{name}.jsonl", json_lines(parents)
    )


def amazon_release(year, review_file, reviews, meta_file, metadata) -> Iterator[Target]:
    files = {review_file: json_lines(reviews), meta_file: metadata}
    user, item, rating, _, time = reviews[0]
    target = Target(
        f"amazon-{year}-reviews",
        files,
        review_file,
        reader(lambda folder: AMAZON[0], "ratings", review_file),
        lambda folder: [AMAZON[0].name, "--raw", folder],
        [*JSON_BREAKERS, lose_key(user, item, rating, time), huge_number(rating), huge_number(time),
         set_json(rating, None, "many", 0, 5.5, -1, 10**30, [5], {}, True), set_json(user, "", None, 1.5, []),
         set_json(time, "soon", None, -1, 10**25, [])],
        JSON_HARMLESS,
        spoils=[lose_key_everywhere],
    )  # fmt: skip
    yield target
    as_json = year != 2014
    yield replace(
        target,
        name=f"amazon-{year}-metadata",
        file=meta_file,
        read=reader(lambda folder: AMAZON[0], "items", meta_file),
        breakers=[
            *JSON_BREAKERS,
            *([lose_key(item), set_json(item, "", None, [])] if as_json else []),
        ],
        harmless=JSON_HARMLESS if as_json else HARMLESS,
        spoils=[lose_key_everywhere] if as_json else [],
        complete=False,
        doubles=False,
    )


def reply_targets() -> Iterator[Target]:
    text = "Pros 1: Nice\nEvidence: Seen\nKeywords: nice, round é\nCons 1: Dull\nEvidence: -\nKeywords: dull"
    replies = [{"user_id": f"u{u}", "item_id": i, "reply": f"{text} {r}"} for u, i, r in TRIPLES]
    yield Target(
        "replies",
        {"replies.jsonl": json_lines(replies)},
        "replies.jsonl",
        read_reply_file,
        lambda folder: [],
        [*JSON_BREAKERS, lose_key("item_id", "reply"), set_json("item_id", None, "", 1.5, [], True),
         set_json("reply", None, 3, []), set_json("user_id", [], 1.5, "", False)],
        JSON_HARMLESS,
        spoils=[lose_key_everywhere],
    )  # fmt: skip


TEXTS = [
    *anime_targets(),
    *table_targets(),
    *movielens_targets(),
    *yelp_targets(),
    *amazon_targets(),
    *reply_targets(),
]


def parquet_bytes(columns) -> bytes:
    file = io.BytesIO()
    # Checksums, so that flipped bytes in a page are found; files without them may hold other values unnoticed.
    pq.write_table(pa.table(columns), file, write_page_checksum=True, row_group_size=10)
    return file.getvalue()


def parquet_targets() -> Iterator[Target]:
    users, items, ratings = zip(*TRIPLES, strict=True)
    files = {
        "mine.parquet": parquet_bytes(
            {"user": [f"u{u}" for u in users], "item": list(items), "rating": pa.array(ratings, pa.float32()),
             "timestamp": [TIME + n for n in range(len(TRIPLES))], "text": ["Fine é"] * len(TRIPLES)}
        ),
        "items.parquet": parquet_bytes(
            {"item": [i for i, _, _ in ITEMS], "name": [name for _, name, _ in ITEMS],
             "categories": [kinds for _, _, kinds in ITEMS], "attributes": ['{"a": 1}'] * len(ITEMS)}
        ),
    }  # fmt: skip
    for table, file in (("ratings", "mine.parquet"), ("items", "items.parquet")):
        read = reader(
            lambda folder: TableFile(folder / "mine.parquet"), table, file, "items.parquet"
        )
        yield Target(
            f"parquet-{table}", files, file, read, lambda folder: build_table(folder, "parquet")
        )
