"""The datasets that prep knows, by name; and tables of one's own, by path."""

from pathlib import Path

from jaxsim import InputError
from prep.sources.amazon import AMAZON
from prep.sources.anime import Anime
from prep.sources.base import Source
from prep.sources.ml_100k import MovieLens100K
from prep.sources.table import TableFile
from prep.sources.yelp import Yelp

SOURCES: dict[str, Source] = {
    source.name: source for source in (MovieLens100K(), Yelp(), *AMAZON, Anime())
}


def get_source(name: str) -> Source:
    """Look up the source called `name`, or take it for the path of a table of ratings.

    Raises:
        InputError: there is neither; the message lists the names.
    """
    if name in SOURCES:
        return SOURCES[name]
    if name == "synthetic":
        raise InputError(
            "synthetic: it is drawn by build; there is nothing to convert, annotate or embed"
        )
    path = Path(name)
    if path.suffix or path.is_file() or path.parent != Path():
        return TableFile(path)
    raise InputError(
        f"unknown dataset {name!r}: known are {', '.join(sorted(SOURCES))} and synthetic; or give the path of "
        "a CSV or Parquet file of ratings"
    )
