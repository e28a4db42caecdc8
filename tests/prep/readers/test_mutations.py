"""A thousand damaged raw files: each is read with a true count of what was left out, or refused in one line.

Two kinds of cases. Where it is known what a change does (no effect, or exactly these lines are lost), the result
must be that. Where it is not (bytes flipped, a file cut anywhere), every line must be accounted for: kept, left
out on purpose or skipped with a reason; or there is one InputError that names the file.
"""

import ast
import csv
import gzip
import io
import json
import math
import random
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxsim import InputError, load_dataset
from prep.__main__ import run
from prep.features.embedding import HASHED
from prep.replies.files import read_replies
from prep.sources.amazon import AMAZON
from prep.sources.anime import Anime
from prep.sources.base import Source, SourceOptions
from prep.sources.ml_100k import GENRES, MovieLens100K
from prep.sources.table import TableFile
from prep.sources.yelp import Yelp

CASES_OF_A_TEXT = 56
CASES_OF_A_BINARY = 40
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
    breakers: Sequence[Callable[[random.Random, bytes], bytes]] = ()
    harmless: Sequence[Callable[[random.Random, bytes], bytes]] = ()
    header: int = 0
    skips: bool = True
    complete: bool = True
    doubles: bool = True
    spoils: Sequence[Callable[[random.Random, bytes], bytes]] = field(default=())

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
            records = list(data.ratings.itertuples(index=False, name=None))
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
    found = read_replies(folder / "replies.jsonl")
    records = [(line.user_id, line.item_id, line.text) for line in found.lines]
    assert all(item and user != "" for user, item, _ in records)
    return Outcome(records, found.skipped.total)


# ------------------------------------------------------------------ changes of any text


def lines_of(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]


def joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def with_bom(rng, content):
    return b"\xef\xbb\xbf" + content


def with_crlf(rng, content):
    return content.replace(b"\n", b"\r\n")


def without_last_end(rng, content):
    return content.removesuffix(b"\n")


def with_blank_lines(rng, content):
    lines = lines_of(content)
    for _ in range(3):
        lines.insert(rng.randint(0, len(lines)), rng.choice([b"", b"  ", b"\t"]))
    return joined(lines)


def as_gzip(rng, content):
    return gzip.compress(content)


def flip_bits(rng, content):
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def put_bytes(rng, content):
    changed = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut_file(rng, content):
    return content[: rng.randrange(1, len(content))]


def cut_front(rng, content):
    return content[rng.randrange(1, len(content)) :]


def cut_a_line(rng, content):
    lines = lines_of(content)
    at = rng.randrange(len(lines))
    lines[at] = lines[at][: rng.randrange(len(lines[at]))]
    return joined(lines)


def join_two_lines(rng, content):
    lines = lines_of(content)
    at = rng.randrange(len(lines) - 1)
    lines[at : at + 2] = [lines[at] + lines[at + 1]]
    return joined(lines)


def insert_token(rng, content):
    tokens = [b'"', b"NaN", b"1e999", b"9" * 400, b"\xff\xfe", b"\x00", b"\r", b"-", b"\xed\xa0\x80",
              b"{" * 3000, b"null", b",", b"\xc2\x85", b"'", b"\\ud800", b"\n"]  # fmt: skip
    at = rng.randrange(len(content))
    return content[:at] + rng.choice(tokens) + content[at:]


def replace_number(rng, content):
    places = list(re.finditer(rb"\d+", content))
    place = rng.choice(places)
    token = rng.choice(
        [b"NaN", b"Infinity", b"-7", b"1e999", b"9" * 30, b"x", b"", b"true", b"0x1", b"1_0"]
    )
    return content[: place.start()] + token + content[place.end() :]


def emptied(rng, content):
    return rng.choice([b"", b"\n", b"\xef\xbb\xbf", b"\n \n\n"])


def in_another_encoding(rng, content):
    return content.decode("utf-8", "replace").encode(
        rng.choice(["utf-16", "utf-16-le", "utf-32", "latin-1"]), "replace"
    )


def damaged_gzip(rng, content):
    packed = gzip.compress(content, mtime=0)
    return rng.choice([cut_file, flip_bits, put_bytes])(rng, packed)


DAMAGES = [flip_bits, put_bytes, cut_file, cut_front, cut_a_line, join_two_lines, insert_token,
           replace_number, emptied, in_another_encoding, damaged_gzip, flip_bits, insert_token]  # fmt: skip
HARMLESS = [with_bom, with_crlf, without_last_end, with_blank_lines, as_gzip]


# ------------------------------------------------------------------ changes of CSV and of JSON lines


def csv_lines(rows, separator=","):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def csv_fields(line):
    return next(csv.reader([line.decode()]))


def set_csv(place, *values):
    """A breaker: put one of the values into a field."""

    def change(rng, line):
        fields = csv_fields(line)
        fields[place] = rng.choice(values)
        return csv_lines([fields]).removesuffix(b"\n")

    return change


def lose_field(rng, line):
    fields = csv_fields(line)
    del fields[rng.randrange(len(fields))]
    return csv_lines([fields]).removesuffix(b"\n")


def gain_field(rng, line):
    return line + b",more"


def open_quote_in(place):
    def change(rng, line):
        fields = [field.replace(",", " ") for field in csv_fields(line)]
        fields[place] = '"' + fields[place]
        return ",".join(fields).encode()

    return change


def spoil_utf8_of(place):
    def change(rng, line):
        fields = csv_fields(line)
        fields[place] = "SPOIL" + fields[place]
        return csv_lines([fields]).removesuffix(b"\n").replace(b"SPOIL", b"\xff")

    return change


def move_columns(rng, content):
    rows = [csv_fields(line) for line in lines_of(content)]
    order = rng.sample(range(len(rows[0])), len(rows[0]))
    return csv_lines([[row[place] for place in order] for row in rows])


def add_column(rng, content):
    rows = [csv_fields(line) for line in lines_of(content)]
    return csv_lines(
        [
            [*row, "unused" if n == 0 else rng.choice(["", "a, b", '5"', "é"])]
            for n, row in enumerate(rows)
        ]
    )


def quote_all(rng, content):
    text = io.StringIO()
    rows = [csv_fields(line) for line in lines_of(content)]
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def lose_a_column(rng, content):
    rows = [csv_fields(line) for line in lines_of(content)]
    place = rng.randrange(len(rows[0]))
    return csv_lines([[*row[:place], *row[place + 1 :]] for row in rows])


CSV_HARMLESS = [*HARMLESS, move_columns, add_column, quote_all]
CSV_BREAKERS = [lose_field, gain_field]


def json_lines(records):
    return joined([json.dumps(record, ensure_ascii=False).encode() for record in records])


def python_lines(records):
    return joined([repr(record).encode() for record in records])


def set_json(key, *values):
    def change(rng, line):
        record = json.loads(line)
        record[key] = rng.choice(values)
        return json.dumps(record).encode()

    return change


def lose_key(*keys):
    def change(rng, line):
        record = json.loads(line)
        del record[rng.choice(keys)]
        return json.dumps(record).encode()

    return change


def cut_record(rng, line):
    return line[: rng.randrange(1, len(line) - 1)]


def no_record(rng, line):
    return rng.choice(
        [b"{}", b"[]", b"3", b"null", b"garbage", b"[" * 9000, b"{" * 2000, b'"text"', b"{]"]
    )


def spoil_record(rng, line):
    return b"\xff" + line


def huge_number(key):
    """A breaker: a number that JSON can write, but that is no finite number."""

    def change(rng, line):
        record = json.loads(line)
        record[key] = "HUGE"
        return (
            json.dumps(record)
            .encode()
            .replace(b'"HUGE"', rng.choice([b"1e999", b"NaN", b"-Infinity"]))
        )

    return change


def other_key_order(rng, content):
    records = [json.loads(line) for line in lines_of(content)]
    return json_lines(
        [dict([*rng.sample(list(r.items()), len(r)), ("unused", None)]) for r in records]
    )


def lose_key_everywhere(rng, content):
    records = [json.loads(line) for line in lines_of(content)]
    key = rng.choice(list(records[0]))
    return json_lines([{name: value for name, value in r.items() if name != key} for r in records])


JSON_BREAKERS = [cut_record, no_record, spoil_record]
JSON_HARMLESS = [*HARMLESS, other_key_order]


# ------------------------------------------------------------------ the files


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


# ------------------------------------------------------------------ the cases


def attempt(target: Target, folder: Path, content: bytes) -> Outcome | str:
    """Read the changed folder; an Outcome, or the message of an InputError."""
    target.write(folder, content)
    before = sorted(folder.iterdir())
    try:
        return target.read(folder)
    except InputError as error:
        return str(error)
    finally:
        assert sorted(folder.iterdir()) == before


def check_message(target: Target, folder: Path, message: str) -> None:
    assert "\n" not in message
    named = [name for name in target.files if str(folder / name) in message]
    assert named, message
    line = re.search(re.escape(str(folder / named[0])) + r":(\d+)", message)
    if line:
        content = (folder / named[0]).read_bytes()
        if content.startswith(b"\x1f\x8b") and target.skips:
            content = gzip.decompress(content)
        assert 1 <= int(line[1]) <= content.count(b"\n") + 1, message


def data_lines(target: Target, content: bytes) -> int:
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return sum(bool(line.strip()) for line in lines) - target.header


def check_damage(target: Target, folder: Path, content: bytes) -> None:
    """Whatever the change was: all lines are accounted for, or there is one clear message."""
    found = attempt(target, folder, content)
    if isinstance(found, str):
        check_message(target, folder, found)
        return
    accounted = len(found.records) + found.left_out + found.skipped
    lines = data_lines(target, content)
    # A quote may make two lines of a text one, which is what it is for.
    if target.complete and content.count(b'"') == target.content.count(b'"'):
        assert accounted == lines
    else:
        assert accounted <= lines
    assert len(found.records) > 0


def check_harmless(target: Target, folder: Path, content: bytes, whole: Outcome) -> None:
    assert attempt(target, folder, content) == whole


def check_broken_lines(target: Target, folder: Path, rng: random.Random, whole: Outcome) -> None:
    """Break known lines: exactly these are missing, or the first of them is named."""
    lines = lines_of(target.content)
    places = sorted(rng.sample(range(target.header, len(lines)), rng.randint(1, 4)))
    for place in places:
        lines[place] = rng.choice(target.breakers)(rng, lines[place])
    found = attempt(target, folder, joined(lines))
    if not target.skips:
        assert isinstance(found, str)
        check_message(target, folder, found)
        return
    assert isinstance(found, Outcome), found
    assert found.skipped == len(places)
    lost = {place - target.header for place in places}
    assert found.records == kept_of(target, whole, lost)


def kept_of(target: Target, whole: Outcome, lost: set[int]) -> list[object]:
    if target.name == "anime-ratings":  # the whole has no record for the lines with -1
        lines = lines_of(target.content)[1:]
        rated = [n for n, line in enumerate(lines) if not line.endswith(b",-1")]
    else:
        rated = list(range(len(whole.records)))
    return [record for n, record in zip(rated, whole.records, strict=True) if n not in lost]


def check_doubled_lines(target: Target, folder: Path, rng: random.Random, whole: Outcome) -> None:
    lines = lines_of(target.content)
    found = attempt(target, folder, joined([*lines, *lines[target.header :]]))
    if target.doubles:
        assert isinstance(found, Outcome)
        assert found.records == 2 * whole.records
        assert found.skipped == 0
    elif isinstance(found, Outcome):
        assert found.records == whole.records
        assert found.skipped == (len(whole.records) if target.complete else 0)
    else:
        check_message(target, folder, found)


@pytest.mark.parametrize("target", TEXTS, ids=lambda target: target.name)
def test_texts(target, tmp_path):
    target.write(tmp_path / "whole", target.content)
    whole = target.read(tmp_path / "whole")
    assert whole.skipped == 0
    assert len(whole.records) + whole.left_out == len(lines_of(target.content)) - target.header
    harmless = list(target.harmless)
    damages = [*DAMAGES, *target.spoils]
    for case in range(CASES_OF_A_TEXT):
        rng = random.Random(f"{target.name} {case}")
        folder = tmp_path / str(case)
        if case < len(harmless):
            check_harmless(target, folder, harmless[case](rng, target.content), whole)
        elif case < CASES_OF_A_TEXT // 2:
            check_broken_lines(target, folder, rng, whole)
        elif case == CASES_OF_A_TEXT // 2:
            check_doubled_lines(target, folder, rng, whole)
        else:
            change = damages[case % len(damages)]
            check_damage(target, folder, change(rng, target.content))


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


@pytest.mark.parametrize("target", list(parquet_targets()), ids=lambda target: target.name)
def test_parquet(target, tmp_path):
    """No line can be told from another in a damaged Parquet file: it is read whole, or refused."""
    target.write(tmp_path / "whole", target.content)
    whole = target.read(tmp_path / "whole")
    damages = [flip_bits, put_bytes, cut_file, cut_front, emptied, as_gzip, insert_token]
    for case in range(CASES_OF_A_BINARY):
        rng = random.Random(f"{target.name} {case}")
        folder = tmp_path / str(case)
        content = damages[case % len(damages)](rng, target.content)
        found = attempt(target, folder, content)
        if isinstance(found, str):
            check_message(target, folder, found)
        else:
            assert len(found.records) + found.skipped == len(whole.records)


BUILT = [target for target in [*TEXTS, *parquet_targets()] if target.command(Path())]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("target", BUILT, ids=lambda target: target.name)
def test_the_whole_command(target, tmp_path, capsys):
    """A damaged file through `prep build`: a dataset that can be loaded, or one line and nothing written."""
    for case in range(6):
        rng = random.Random(f"{target.name} build {case}")
        folder, out = tmp_path / str(case), tmp_path / "out" / str(case)
        content = DAMAGES[rng.randrange(len(DAMAGES))](rng, target.content)
        found = attempt(target, folder, content)
        capsys.readouterr()
        args = ["build", *target.command(folder), "--out", out, "--annotate", "none", "--max-share", "1",
                "--min-items", "1", "--encoder", HASHED]  # fmt: skip
        code = exit_code(args)
        told = capsys.readouterr()
        if code == 0:
            assert isinstance(found, Outcome)
            check_built(target, out, found, told.out)
            continue
        assert code == 2
        assert "Traceback" not in told.err
        assert told.err.splitlines()[-1].startswith("error: ")
        assert told.err.count("error: ") == 1
        assert not list(tmp_path.glob("out/*"))
        # What could be read may still leave nothing to build, such as likes alone.
        assert isinstance(found, Outcome) or found in told.err


def exit_code(args: Sequence[object]) -> int:
    try:
        run([str(arg) for arg in args])
    except SystemExit as ended:
        return int(ended.code)
    return 0


def check_built(target: Target, out: Path, found: Outcome, report: str) -> None:
    """The dataset can be loaded, and its manifest and the report tell of the lines that were left out."""
    dataset = load_dataset(out)
    assert len(dataset.arrays["interaction_item"]) > 0
    skipped = {Path(label).name: counts for label, counts in dataset.manifest["skipped"].items()}
    assert sum(skipped.get(target.file, {}).values()) == found.skipped
    assert all(reason in report for reason in skipped.get(target.file, {}))
    shutil.rmtree(out)


def test_there_are_a_thousand_cases():
    assert len(TEXTS) * CASES_OF_A_TEXT + 2 * CASES_OF_A_BINARY >= 1000


def test_the_python_literals_of_2014_are_such():
    metadata = next(t for t in TEXTS if t.name == "amazon-2014-metadata").content
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines_of(metadata)[0])
    assert ast.literal_eval(lines_of(metadata)[0].decode())["asin"] == "B001"
