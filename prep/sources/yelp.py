"""The Yelp open dataset: businesses and their reviews, as JSON lines in the publisher's two files.

Prompts never contain the figures that Yelp computed from reviews (`stars` and `review_count` of a business),
because these are what the simulator is to predict.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jaxsim import InputError
from prep.readers.json_lines import (
    Record,
    Records,
    ReviewFile,
    ReviewLayout,
    id_of,
    parse_literal,
    text_of,
)
from prep.readers.lines import LineFile, find_plain_or_gzip
from prep.readers.rows import BadLineError, Item, items_table
from prep.sources.base import RawData, SourceOptions

OFFER = "https://business.yelp.com/data/resources/open-dataset/"
BUSINESSES = "yelp_academic_dataset_business.json"
REVIEWS = "yelp_academic_dataset_review.json"
TAR = "yelp_dataset.tar"
STATE = "MO"  # the paper's
HOW_TO_GET = (
    f"yelp: Yelp gives its dataset to those who accept its terms. Open {OFFER} in a browser, accept them, "
    f"download the JSON files, unpack the archive and the {TAR} in it (tar -xf {TAR}), then run: "
    f"python -m prep build yelp --raw FOLDER, the folder that holds {BUSINESSES} and {REVIEWS} (or their .gz)"
)
"""One line on what to click, to accept and to run."""

# Categories whose names contain a comma, in a list that is separated by commas.
COMMA_CATEGORIES = (
    "Beer, Wine & Spirits",
    "Books, Mags, Music & Video",
    "Used, Vintage & Consignment",
)

_DATE_LENGTHS = (len("2018-07-07"), len("2018-07-07 22:09:11"))
_CATEGORY = re.compile(
    rf"\s*((?:{'|'.join(map(re.escape, COMMA_CATEGORIES))})(?=\s*(?:,|$))|[^,]+)"
)
# Between a lower-case letter and a capital, and before the last capital of several: Good|For|Kids, BYOB|Corkage.
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PREFIX = re.compile(r"(Restaurants|Business)(?=[A-Z])")
_NAMES = {"WiFi": "Wi-Fi", "HasTV": "TV", "RestaurantsPriceRange2": "price range"}
_NO = {"", "no", "none", "false"}


def seconds_of_date(value: Any) -> int | None:
    """Seconds since 1970 of "2018-07-07 22:09:11" or "2018-07-07", as UTC; None for all else."""
    if type(value) is not str or len(value) not in _DATE_LENGTHS:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return None if moment.tzinfo else int(moment.replace(tzinfo=UTC).timestamp())


LAYOUT = ReviewLayout("user_id", "business_id", "stars", "date", "text", seconds_of_date)


@dataclass(frozen=True)
class Yelp:
    """The source `yelp`: businesses of one state, by default Missouri."""

    name: str = "yelp"
    noun: str = "business"
    like_threshold: float = 3.0
    best_rating: float = 5.0
    replies: Sequence[Path] = ()
    replies_are_partial: bool = False
    language_model: str = ""

    def load(self, options: SourceOptions) -> RawData:
        """Read the businesses of a state and their reviews.

        Args:
            options: `raw` is the folder of the two files, plain or gzip.

        Raises:
            InputError: no folder is given, it lacks a file, one cannot be read, no business is in the state, or
                no review is of such a business.
        """
        businesses, file = find_files(options.raw)
        records = Records(businesses, "business", ("business_id", "state"), options.strict)
        state = state_of(options)
        items = _read_businesses(records, state)
        reviews = ReviewFile(file, LAYOUT)
        ratings = reviews.ratings(options.strict, items if state else None)
        if ratings.empty:
            raise InputError(
                f"{file.label}: none of its {reviews.left_out:,} reviews is of a business in {state}; "
                "are the two files of the same release?"
            )
        return RawData(
            ratings=ratings,
            items=items_table(items),
            files={part.path.name: part.sha256 for part in (businesses, file)},
            origin=f"{options.raw} (Yelp open dataset, {state or 'all states'})",
            skipped=(records.skipped, reviews.skipped),
            reviews=reviews if reviews.has_texts else None,
            left_out={f"reviews of businesses outside {state}": reviews.left_out} if state else {},
            state=state,
        )


def state_of(options: SourceOptions) -> str:
    """The state whose businesses are kept; empty for all."""
    return (STATE if options.state is None else options.state).strip().upper()


def find_files(raw: Path | None) -> tuple[LineFile, LineFile]:
    """The files of businesses and of reviews in a folder; the plain file where there is a plain and a gzip one.

    Raises:
        InputError: no folder is given, there is none, or it lacks a file.
    """
    names = f"{BUSINESSES} and {REVIEWS} (or their .gz)"
    if raw is None:
        raise InputError(HOW_TO_GET)
    if not raw.exists():
        raise InputError(f"{raw}: no such folder; --raw is the folder of {names}")
    if not raw.is_dir():
        raise InputError(
            f"{raw}: is a file; unpack it if need be (tar -xf {TAR}), and give the folder of {names}"
        )
    files = []
    for name in (BUSINESSES, REVIEWS):
        path = find_plain_or_gzip(raw, name)
        if path is None:
            raise InputError(
                f"{raw}: there is no {name} or {name}.gz in it; --raw is the folder of {names}"
            )
        files.append(LineFile(path))
    return files[0], files[1]


def _read_businesses(records: Records, state: str) -> dict[str, Item]:
    """The businesses of a state, or of all for "", by their ids; of several lines for an id the last counts."""
    items: dict[str, Item] = {}
    states: Counter[str] = Counter()
    label = records.skipped.label
    for _, (business, where, item) in records.read(_business):
        states[where] += 1
        if where == state or not state:
            items[business] = item
    if not items:
        counts = ", ".join(f"{name or '(none)'} {count:,}" for name, count in states.most_common())
        raise InputError(f"{label}: no business is in --state {state}; found are {counts}")
    return items


def _business(record: dict[str, Any]) -> tuple[str, str, Item]:
    business = id_of(record, "business_id")
    state = text_of(record, "state").strip().upper()
    name = " ".join(text_of(record, "name").split()) or business
    return business, state, Item(name, split_categories(record), describe(record))


def split_categories(record: Record) -> tuple[str, ...]:
    """The category names of a business in their order, each once.

    Raises:
        BadLineError: `categories` is neither text nor a list of texts.
    """
    value = record.get("categories")
    if isinstance(value, list):  # as in the releases before 2018
        if not all(isinstance(name, str) for name in value):
            raise BadLineError("the field 'categories' is not text")
        parts: list[str] = value
    else:
        parts = _CATEGORY.findall(text_of(record, "categories"))
    names = (" ".join(part.split()) for part in parts)
    return tuple(dict.fromkeys(name for name in names if name))


def describe(record: Record) -> dict[str, str]:
    """What a prompt may say about a business besides name and categories: everything but its ratings.

    Attributes that are false or unknown are left out, and so are those in an unknown form.

    Raises:
        BadLineError: `city`, `state` or `attributes` is not of the right type.
    """
    facts = {field: " ".join(text_of(record, field).split()) for field in ("city", "state")}
    if record.get("is_open") in (0, 1):
        facts["open"] = "yes" if record["is_open"] else "no, closed for good"
    attributes = record.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise BadLineError("the field 'attributes' is not an object")
    for key, value in attributes.items():
        facts[attribute_name(key)] = attribute_value(key, value)
    return {key: value for key, value in facts.items() if value}


def attribute_name(key: str) -> str:
    """The name of an attribute in words: "outdoor seating" of OutdoorSeating."""
    if key in _NAMES:
        return _NAMES[key]
    words = _WORD_START.split(_PREFIX.sub("", key, count=1))
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)


def attribute_value(key: str, value: Any) -> str:
    """The value of an attribute in words; empty where it is false, unknown or in an unknown form.

    Args:
        key: its name in the file.
        value: as in the file, such as "True", "u'free'", "2", "{'garage': False, 'lot': True}", or an object.
    """
    value = _unquote(value)
    if value is True:
        return "yes"
    if isinstance(value, dict):
        parts = [_words(_unquote(name)) for name, flag in value.items() if _unquote(flag) is True]
        return ", ".join(filter(None, parts))
    text = _words(value)
    return f"{text} of 4" if text and key == "RestaurantsPriceRange2" else text


def _unquote(value: Any) -> Any:
    """The value of a text that is a Python literal; other values as they are."""
    return _unquote_text(value) if isinstance(value, str) else value


@lru_cache(maxsize=1 << 14)  # a few thousand texts make up the millions of attributes
def _unquote_text(text: str) -> Any:
    try:
        return parse_literal(text)
    except ValueError:
        return text


def _words(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    text = " ".join(str(value).replace("_", " ").split())
    return "" if text.lower() in _NO else text
