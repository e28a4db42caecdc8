"""The datasets that prep knows, by name."""

from jaxsim import InputError
from prep.sources.ml_100k import MovieLens100K
from prep.tables import Source

SOURCES: dict[str, Source] = {source.name: source for source in [MovieLens100K()]}


def get_source(name: str) -> Source:
    """Look up the source called `name`.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    if name not in SOURCES:
        raise InputError(f"unknown dataset {name!r}: known are {', '.join(sorted(SOURCES))}")
    return SOURCES[name]
