"""The datasets that prep can read, by name, and tables of the user's own, by path."""

from pathlib import Path

from jaxsim import InputError
from prep.sources import anime, yelp
from prep.sources.amazon import AMAZON, how_to_get
from prep.sources.anime import Anime
from prep.sources.base import Source
from prep.sources.ml_100k import MovieLens100K
from prep.sources.table import TableFile
from prep.sources.yelp import Yelp

SOURCES: dict[str, Source] = {
    source.name: source for source in (MovieLens100K(), Yelp(), *AMAZON, Anime())
}

HOW_TO_GET: dict[str, str] = {
    "yelp": yelp.HOW_TO_GET,
    "anime": anime.HOW_TO_GET,
    **{source.name: how_to_get(source) for source in AMAZON},
}
"""How people get the files of a dataset, in one line; `ml-100k` is simply built."""


def get_source(name: str) -> Source:
    """The source called `name`, or else the table of ratings at that path.

    Raises:
        InputError: `name` is neither a name nor a path; the message lists the names.
    """
    if name in SOURCES:
        return SOURCES[name]
    if name == "synthetic":
        raise InputError(
            "synthetic: build draws this dataset; there is nothing to convert, annotate or embed"
        )
    path = Path(name)
    if path.suffix or path.is_file() or path.parent != Path():
        return TableFile(path)
    raise InputError(
        f"unknown dataset {name!r}: known are {', '.join(sorted(SOURCES))} and synthetic; or give the path of "
        "a CSV or Parquet file of ratings"
    )
