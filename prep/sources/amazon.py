"""Amazon product reviews as the McAuley Lab publishes them: three releases, each with its own names of files.

| release | reviews | metadata | item | time |
|---|---|---|---|---|
| 2014 | `reviews_X_5.json`, `reviews_X.json` | `meta_X.json`, Python literals | `asin` | seconds |
| 2018 | `X_5.json`, `X.json` | `meta_X.json` | `asin` | seconds |
| 2023 | `X.jsonl` | `meta_X.jsonl` | `parent_asin` | milliseconds |

Each file may be gzip. Without `--raw` the files are fetched; `prep/sources/amazon_releases.py` says from where.
Prompts never contain average ratings, numbers of ratings and sales ranks, because these are what the simulator is
to predict.
"""

import html
import math
import re
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxsim import InputError
from jaxsim.dataset import cache_dir
from prep.published_files import blaming_changed_files, check_digests, fetch_files
from prep.readers.json_lines import (
    Record,
    Records,
    ReviewFile,
    ReviewLayout,
    id_of,
    number_of,
    parse_json,
    parse_json_or_literal,
)
from prep.readers.lines import LineFile, find_plain_or_gzip
from prep.readers.rows import Item, items_table
from prep.sources.amazon_releases import RELEASES, Release, Year, release_of
from prep.sources.base import RawData, SourceOptions

# 1990 and 2100 in seconds: within these bounds, seconds and milliseconds cannot be confused.
EARLIEST, LATEST = 631_152_000, 4_102_444_800
MAX_MARKUP = 20_000  # characters of a metadata field that are read
MAX_TITLE = 300
MAX_DESCRIPTION = 500
MAX_FEATURES = 300
MAX_DETAIL = 100
MAX_CATEGORY = 60

# The rows of a product page's table of details that describe the item itself, and their names in a prompt.
DETAILS = {
    "actors": "actors", "starring": "actors", "director": "director", "directors": "director",
    "writers": "writers", "producers": "producers", "studio": "studio", "genre": "genre",
    "label": "label", "format": "format", "media format": "format", "language": "language",
    "rated": "rated", "mpaa rating": "rated", "content advisory": "content advisory",
    "run time": "run time", "original release date": "release date", "release date": "release date",
    "date first available": "on sale since", "number of discs": "number of discs",
    "platform": "platform", "hardware platform": "platform", "publisher": "publisher",
    "manufacturer": "manufacturer",
}  # fmt: skip

_SCRIPT = re.compile(
    r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL | re.IGNORECASE
)
# Tags that may stand within a word or before a comma become nothing; all others become a space.
_INLINE_TAG = re.compile(r"</?(?:a|b|i|u|em|strong|span|font|sub|sup)(?:\s[^<>]*)?>", re.IGNORECASE)
# Not "<3" or "a < b": a tag begins with a letter.
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
# Scraped JavaScript and style sheets in place of a title or text, as in the release of 2018.
_CODE = re.compile(
    r"getTime\(|function\s*\w*\s*\([^()]*\)\s*\{|\bvar \w+ ?=|\{\s*[\w-]+\s*:[^{}]*\}"
)
_PRICE = re.compile(
    r"(?:from )?\$?[0-9][0-9,]{0,8}(\.[0-9]{1,2})?( - \$?[0-9][0-9,]{0,8}(\.[0-9]{1,2})?)?"
)


def _seconds(value: Any, per_second: int = 1) -> int | None:
    seconds = (value if type(value) is int else number_of(value)) / per_second
    return int(seconds) if EARLIEST <= seconds < LATEST else None


def _seconds_of_milliseconds(value: Any) -> int | None:
    return _seconds(value, per_second=1000)


LAYOUT = ReviewLayout("reviewerID", "asin", "overall", "unixReviewTime", "reviewText", _seconds)
LAYOUT_2023 = ReviewLayout(
    "user_id", "parent_asin", "rating", "timestamp", "text", _seconds_of_milliseconds
)


def layout_of(release: Release) -> ReviewLayout:
    """Where the fields of a review are; the field of the item has the same name in the metadata."""
    return LAYOUT_2023 if release.year == 2023 else LAYOUT


@dataclass(frozen=True)
class Amazon:
    """A source of the reviews of one department.

    Attributes:
        name: `amazon-music`, `amazon-games` or `amazon-movies`.
        department: the department, as in the names of the publisher's files.
        noun: what a prompt calls an item.
        maker: what a prompt calls the item's brand.
    """

    name: str
    department: str
    noun: str
    maker: str
    like_threshold: float = 3.0
    best_rating: float = 5.0
    replies: Sequence[Path] = ()
    replies_are_partial: bool = False
    language_model: str = ""

    def load(self, options: SourceOptions) -> RawData:
        """Read the reviews of one release, and the metadata of the reviewed items.

        Items without metadata are not in `items`. Without a file of metadata `items` is empty, and a note says so.

        Args:
            options: `raw` is the file of reviews, or its folder; the metadata is in the same folder. Without it,
                the files of `release` are in the cache, or are fetched. With it, `release` chooses among the
                releases in the folder.

        Raises:
            InputError: the files cannot be fetched, `raw` has no file of reviews or several, or a file cannot be
                read.
        """
        if options.raw is not None:
            return self._read(options.raw, options)
        folder = self._fetched(options)
        with blaming_changed_files(folder):
            data = self._read(folder, options)
        return replace(data, urls=check_digests(folder, data.files))

    def _read(self, raw: Path, options: SourceOptions) -> RawData:
        path, release = find_reviews(raw, self, options.release)
        reviews = ReviewFile(LineFile(path), layout_of(release), clean=without_markup)
        ratings = reviews.ratings(options.strict)
        files, skipped, items = [reviews.file], [reviews.skipped], {}
        metadata = find_plain_or_gzip(path.parent, release.metadata.format(self.department))
        if metadata is None:
            _note_no_metadata(path.parent, release, self)
        else:
            files.append(LineFile(metadata))
            records = _metadata_records(files[-1], release, options.strict)
            items = self._read_items(records, release, set(ratings["item_id"].cat.categories))
            skipped.append(records.skipped)
        return RawData(
            ratings=ratings,
            items=items_table(items),
            files={file.path.name: file.sha256 for file in files},
            origin=f"{path} (Amazon reviews, release {release.year})",
            skipped=skipped,
            reviews=reviews if reviews.has_texts else None,
        )

    def _fetched(self, options: SourceOptions) -> Path:
        """The folder in the cache with the files of a release, which are fetched if they are not there."""
        release = release_of(options.release)
        folder = cache_dir() / "raw" / self.name / str(release.year)
        fetch_files(release.offer_of(self.name, self.department), folder, options.yes)
        return folder

    def _read_items(
        self, records: Records, release: Release, reviewed: Container[str]
    ) -> dict[str, Item]:
        """The reviewed items by their ids; of several lines for an item the last counts.

        Raises:
            InputError: the file describes none of them, or cannot be read.
        """
        field = layout_of(release).item

        def convert(record: dict[str, Any]) -> tuple[str, Item | None]:
            item = id_of(record, field)
            return item, self._item(item, record) if item in reviewed else None

        items = {key: item for _, (key, item) in records.read(convert) if item}
        if not items:
            raise InputError(
                f"{records.skipped.label}: describes none of the reviewed items; is it of another "
                "department or release? (Move it away to build without metadata.)"
            )
        return items

    def _item(self, item: str, record: Record) -> Item:
        return Item(title_of(record) or item, categories_of(record), describe(record, self.maker))


AMAZON = (
    Amazon("amazon-music", "Digital_Music", "album", "artist"),
    Amazon("amazon-games", "Video_Games", "video game", "brand"),
    Amazon("amazon-movies", "Movies_and_TV", "movie", "credited to"),
)


def find_reviews(raw: Path, source: Amazon, year: Year | None = None) -> tuple[Path, Release]:
    """The file of reviews of a department, and its release, which the name tells.

    Where a folder has a plain file and its gzip, the plain one counts.

    Args:
        raw: the file, or its folder.
        source: the department.
        year: the release; None for the one that is there.

    Raises:
        InputError: `raw` does not exist, no file has the name of a release, or several have.
    """
    if not raw.exists():
        raise InputError(
            f"{raw}: no such file or folder; --raw is the file of reviews or its folder"
        )
    if not raw.is_dir():
        for name, release in _review_names(source.department, year):
            if raw.name in (name, f"{name}.gz"):
                return raw, release
        raise InputError(
            f"{raw}: its name must be one of {_known_names(source, year)}, because the name tells the release"
        )
    named = (
        (find_plain_or_gzip(raw, name), release)
        for name, release in _review_names(source.department, year)
    )
    files = [(path, release) for path, release in named if path]
    if not files:
        raise InputError(
            f"{raw}: no reviews of {source.department} in it; looked for {_known_names(source, year)}"
        )
    if len(files) > 1:
        names = " and ".join(f"{path.name} ({release.year})" for path, release in files)
        raise InputError(f"{raw}: has {names}; give one of the files with --raw, or --release")
    return files[0]


def how_to_get(source: Amazon) -> str:
    """One line on how the files get here, for people who look before they download."""
    offers = ", ".join(f"{release.offer} ({release.year})" for release in RELEASES)
    return (
        f"{source.name}: python -m prep build {source.name} downloads the reviews and metadata of "
        f"{source.department} of one --release, {offers}; or get them there and give their folder with --raw"
    )


def _review_names(department: str, year: Year | None) -> Iterator[tuple[str, Release]]:
    for release in RELEASES if year is None else [release_of(year)]:
        for name in release.reviews:
            yield name.format(department), release


def _known_names(source: Amazon, year: Year | None) -> str:
    return ", ".join(name for name, _ in _review_names(source.department, year)) + " (or .gz)"


def _metadata_records(file: LineFile, release: Release, strict: bool) -> Records:
    parse = parse_json_or_literal if release.year == 2014 else parse_json
    return Records(file, "item", (layout_of(release).item,), strict, parse)


def _note_no_metadata(folder: Path, release: Release, source: Amazon) -> None:
    name = release.metadata.format(source.department)
    print(
        f"note: {folder}: no {name} or {name}.gz in it; items are named by their ids and have no categories "
        f"(the metadata is at {release.offer})",
        file=sys.stderr,
    )


def without_markup(text: str) -> str:
    """A text without HTML tags, entities and white space at its ends, and with its line breaks."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", _INLINE_TAG.sub("", text))
    return text.strip()


def one_line(text: str) -> str:
    """A text without markup, in one line, with single spaces.

    Characters that no file in UTF-8 can hold (halves of surrogate pairs) become question marks.
    """
    line = " ".join(without_markup(text).split())
    return line if line.isascii() else line.encode("utf-8", "replace").decode()


def clip_words(text: str, length: int) -> str:
    """At most `length` characters of a text, cut between words where that is possible, with an ellipsis."""
    if len(text) <= length:
        return text
    head = text[: length - 1]
    whole = head if text[length - 1] == " " else head.rpartition(" ")[0]
    return (whole.rstrip(" ,;:.") or head) + "…"


def _field_text(value: Any, separator: str = " ") -> str:
    """A metadata field, text or list of texts, cleaned; empty where it is something else or scraped code."""
    parts = value if isinstance(value, list) else [value]
    texts = (part[:MAX_MARKUP] for part in parts if isinstance(part, str))
    cleaned = (one_line(_SCRIPT.sub(" ", text)) for text in texts)
    return separator.join(
        part for part in dict.fromkeys(cleaned) if part and not _CODE.search(part)
    )


def title_of(record: Record) -> str:
    """The cleaned title of an item; empty where it has none, or scraped code instead."""
    title = record.get("title")
    return clip_words(_field_text(title), MAX_TITLE) if isinstance(title, str) else ""


def categories_of(record: Record) -> tuple[str, ...]:
    """The category names of an item in their order, each once, in any release.

    Lists of paths (2014) are flattened. Bullet points and tags between the names (2018) are left out. An item
    without categories gets its main category (2023), if it has one.
    """
    names = [
        _category_name(value) for value in _flat(record.get("categories") or record.get("category"))
    ]
    categories = tuple(dict.fromkeys(filter(None, names)))
    main = _category_name(record.get("main_category") or record.get("main_cat"))
    return categories or ((main,) if main else ())


def _flat(value: Any) -> Iterator[Any]:
    for part in value if isinstance(value, list) else [value]:
        yield from part if isinstance(part, list) else [part]


def _category_name(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    name = one_line(value[:MAX_MARKUP])
    return name if len(name) <= MAX_CATEGORY and not _CODE.search(name) else ""


def describe(record: Record, maker: str) -> dict[str, str]:
    """What a prompt may say about an item besides title and categories: everything but its ratings and sales.

    Args:
        record: its metadata.
        maker: what a prompt calls the brand or store.
    """
    brand = _field_text(record.get("brand")) or _field_text(record.get("store"))
    facts = {
        maker: clip_words(brand.removeprefix("by ").removeprefix("Visit Amazon's "), MAX_DETAIL),
        "price": price_of(record.get("price")),
        **_details(record.get("details")),
    }
    features = _field_text(record.get("features") or record.get("feature"), "; ")
    facts["features"] = clip_words(features, MAX_FEATURES)
    facts["description"] = clip_words(_field_text(record.get("description")), MAX_DESCRIPTION)
    return {name: text for name, text in facts.items() if text}


def _details(details: Any) -> dict[str, str]:
    facts: dict[str, str] = {}
    for key, value in details.items() if isinstance(details, dict) else ():
        name = DETAILS.get(key.strip(" :\u200e\u200f").lower())
        text = clip_words(_field_text(value, ", "), MAX_DETAIL).strip(" :\u200e\u200f")
        if name and text:
            facts.setdefault(name, text)
    return facts


def price_of(value: Any) -> str:
    """A price as "$9.49" or "$5.00 - $9.00"; empty where it is unknown, zero or no price."""
    number = number_of(value)
    if not math.isnan(number):
        return f"${number:,.2f}" if 0 < number < 1e6 else ""
    text = value.strip() if isinstance(value, str) else ""
    return text if _PRICE.fullmatch(text) else ""
