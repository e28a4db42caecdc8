"""The same dataset with other keywords: one polarity, another filter, another encoder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxsim import Dataset, InputError
from jaxsim.catalogue import SIDES
from prep.build import NO_KEYWORDS
from prep.features.embedding import SHIPPED_VECTORS, item_embeddings, keyword_vectors
from prep.features.keywords import ItemKeywords, filter_keywords, index_rows
from prep.replies.files import read_replies
from prep.replies.parser import parse_reply
from prep.sources import SOURCES

MIN_ITEMS = (1, 2, 3, 5, 10)
MAX_SHARES = (0.02, 0.05, 0.1, 0.2, 1.0)


def one_polarity(dataset: Dataset, side: str) -> Dataset:
    """The dataset with the pros ("pos") or the cons ("neg") of its items alone."""
    (other,) = (name for name in SIDES if name != side)
    arrays = dict(dataset.arrays)
    arrays[f"item_{other}_keywords"] = np.full_like(arrays[f"item_{other}_keywords"], -1)
    arrays[f"item_{other}_embedding"] = np.zeros_like(arrays[f"item_{other}_embedding"])
    return replace(dataset, arrays=arrays)


def shipped_replies(dataset: Dataset) -> tuple[Path, ...]:
    """The files of replies that come with the package for this dataset; empty if there are none."""
    source = SOURCES.get(dataset.name)
    return tuple(source.replies) if source is not None else ()


def all_keywords(dataset: Dataset, files: Sequence[Path]) -> list[ItemKeywords]:
    """What the replies to T_obj say about each item, before any filter.

    Args:
        dataset: its items are those of the replies.
        files: of replies; a later one replaces an earlier one about the same item.

    Raises:
        InputError: a file cannot be read, or none of its replies is about an item of the dataset.
    """
    found: dict[str, ItemKeywords] = {}
    for path in files:
        for line in read_replies(path).lines:
            parsed = parse_reply(line.text)
            if line.user_id is None and parsed.problem is None:
                found[line.item_id] = parsed.keywords
    rows = [found.get(item, NO_KEYWORDS) for item in dataset.items["item_id"].astype(str)]
    if not any(row.pos or row.neg for row in rows):
        raise InputError(f"{', '.join(map(str, files))}: no reply is about an item of the dataset")
    return rows


def with_keywords(
    dataset: Dataset, items: Sequence[ItemKeywords], min_items: int, max_share: float, encoder: str
) -> Dataset:
    """The dataset with the keywords that pass a filter, as `python -m prep build` makes them.

    Args:
        dataset: of `jaxsim.load_dataset`.
        items: of `all_keywords`.
        min_items, max_share: the filter, see `prep.features.keywords.filter_keywords`.
        encoder: as for `prep.features.embedding.keyword_vectors`.
    """
    described = [item for item in items if item.pos or item.neg]
    kept = filter_keywords(described, min_items, max_share).kept
    vectors = keyword_vectors(kept, encoder, (SHIPPED_VECTORS,))
    arrays = dict(dataset.arrays)
    for side in SIDES:
        rows = index_rows([getattr(item, side) for item in items], kept)
        arrays[f"item_{side}_keywords"] = rows
        arrays[f"item_{side}_embedding"] = item_embeddings(rows, vectors)
    return replace(dataset, arrays=arrays, keywords=kept)


def filters(settings: Mapping[str, float]) -> Iterator[tuple[str, int, float]]:
    """Name, min_items and max_share of every filter but the dataset's own, one of the two changed at a time."""
    own_items, own_share = int(settings["min_items"]), float(settings["max_share"])
    for number in MIN_ITEMS:
        if number != own_items:
            yield f"--min-items {number}", number, own_share
    for share in MAX_SHARES:
        if share != own_share:
            yield f"--max-share {share:g}", own_items, share
