"""The second stage of a build: the keywords of the items, from a language model's replies or without one."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxsim import InputError
from prep.annotation.annotate import ask_language_model
from prep.config import BuildConfig
from prep.features.attributes import attribute_keywords
from prep.features.keywords import KeywordFilter, filter_keywords
from prep.ratings import Ratings
from prep.readers.lines import SkippedLines
from prep.replies.files import read_replies
from prep.replies.merge import Annotations, ReplyMerger
from prep.sources.base import Source

_NO_MODEL = "none (words of categories and attributes)"
_WARNING = """\
********************************************************************************
NO LANGUAGE MODEL: keywords are the words of categories and attributes. They say
what an item is, not why people like or dislike it. Do not report results of this
dataset as those of the method; give --replies or another --annotate for that.
********************************************************************************"""


@dataclass(frozen=True)
class Words:
    """The keywords of all items.

    Attributes:
        language_model: who wrote the replies.
        annotations: the keywords of each item, and the items without.
        filter: the keywords that survive.
        files: the files of replies, if they come from files.
        skipped: lines of these files that could not be read.
        settings: how the language model was asked, for the manifest; empty if it was not.
    """

    language_model: str
    annotations: Annotations
    filter: KeywordFilter
    files: Sequence[Path] = ()
    skipped: Sequence[SkippedLines] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def read_words(source: Source, config: BuildConfig, ratings: Ratings) -> Words:
    """Get the items' keywords from where `config.annotate` says.

    Raises:
        InputError: replies are missing or unusable, or no keyword survives.
    """
    if config.annotate == "none":
        return _words_of_attributes(config, ratings)
    if config.asks_a_model:
        return _words_of_model(source, config, ratings)
    return _words_of_files(source, config, ratings)


def _words_of_attributes(config: BuildConfig, ratings: Ratings) -> Words:
    print(_WARNING, file=sys.stderr)
    items = ratings.items
    rows = zip(items["item_id"], items["categories"], items["attributes"], strict=True)
    keywords = {item: attribute_keywords(names, attributes) for item, names, attributes in rows}
    keywords = {item: words for item, words in keywords.items() if words.pos}
    annotations = Annotations(keywords, [], {})
    survivors = filter_keywords(keywords.values(), config.min_items, config.max_share)
    if not survivors.kept:
        why = "no item has a category or attribute that can be one"
        if survivors.counts:
            why = f"none of {len(survivors.counts)} words is on as many items as --min-items and --max-share want"
        print(
            f"warning: there is no keyword, for {why}: f_mat and f_sim toss coins", file=sys.stderr
        )
    return Words(_NO_MODEL, annotations, survivors)


def _words_of_model(source: Source, config: BuildConfig, ratings: Ratings) -> Words:
    merger = _merger(ratings)
    model, settings = ask_language_model(source.name, config, ratings, merger.add)
    advice = "ask again with more --llm.attempts or another --llm.model"
    annotations = _finish(merger, config, advice)
    return Words(model, annotations, _filter(annotations, config), settings=settings)


def _words_of_files(source: Source, config: BuildConfig, ratings: Ratings) -> Words:
    files = config.replies or tuple(source.replies)
    if not files:
        raise InputError(
            f"{source.name} comes without replies of a language model: give them with --replies, ask a model with "
            "--annotate openai, huggingface or ray, or do without one by --annotate none"
        )
    model = config.language_model or ("not named" if config.replies else source.language_model)
    merger, skipped = _merger(ratings, not config.replies and source.replies_are_partial), []
    for path in files:
        file = read_replies(path, config.strict)
        skipped.append(file.skipped)
        for reply in file.lines:
            merger.add(reply)
    annotations = _finish(merger, config, "correct it")
    return Words(model, annotations, _filter(annotations, config), files, skipped)


def _merger(ratings: Ratings, partial: bool = False) -> ReplyMerger:
    items = ratings.items
    names = dict(zip(items["item_id"], items["name"], strict=True))
    return ReplyMerger(
        names, left_out=ratings.left_out_items, ratings=ratings.training, partial=partial
    )


def _finish(merger: ReplyMerger, config: BuildConfig, advice: str) -> Annotations:
    annotations = merger.annotations(config.allow_missing_replies, advice)
    if not annotations.keywords:
        items = len(annotations.missing) + len(annotations.unparsed)
        raise InputError(
            f"none of the {items:,} items has a reply with keywords: give others with --replies, or do without a "
            "language model by --annotate none"
        )
    for note in annotations.notes:
        print(f"note: {note}", file=sys.stderr)
    return annotations


def _filter(annotations: Annotations, config: BuildConfig) -> KeywordFilter:
    survivors = filter_keywords(annotations.keywords.values(), config.min_items, config.max_share)
    if not survivors.kept:
        raise InputError(
            f"none of {len(survivors.counts)} keywords is on at least {config.min_items} and at most "
            f"{config.max_share:.0%} of {len(annotations.keywords)} items with a reply: "
            "change --min-items or --max-share"
        )
    return survivors
