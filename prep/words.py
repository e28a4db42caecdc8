"""The second stage of a build: what a language model, or none, says of the items."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxsim import InputError
from prep.annotation.ask import ask_language_model
from prep.config import BuildConfig
from prep.features.attributes import attribute_keywords
from prep.features.keywords import KeywordFilter, filter_keywords
from prep.ratings import Ratings
from prep.readers.lines import SkippedLines
from prep.replies.files import Annotations, ReplyCounts, ReplyLine, annotate, read_replies
from prep.sources.base import Source

_NOBODY = "none (words of categories and attributes)"
_LOUD = """\
********************************************************************************
NO LANGUAGE MODEL: keywords are the words of categories and attributes. They say
what an item is, not why people like or dislike it. Do not report results of this
dataset as those of the method; give --replies or another --annotate for that.
********************************************************************************"""
_NO_REPLIES = ReplyCounts()


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
    """Get the items' keywords from wherever `config.annotate` says.

    Raises:
        InputError: replies cannot be had or used, or no keyword survives.
    """
    if config.annotate == "none":
        return _words_of_attributes(config, ratings)
    if config.asks_a_model:
        return _words_of_model(source, config, ratings)
    return _words_of_files(source, config, ratings)


def _words_of_attributes(config: BuildConfig, ratings: Ratings) -> Words:
    print(_LOUD, file=sys.stderr)
    items = ratings.items
    rows = zip(items["item_id"], items["categories"], items["attributes"], strict=True)
    found = {item: attribute_keywords(names, attributes) for item, names, attributes in rows}
    keywords = {item: words for item, words in found.items() if words.pos}
    annotations = Annotations(keywords, [], {}, _NO_REPLIES, _NO_REPLIES, [])
    kept = filter_keywords(keywords.values(), config.min_items, config.max_share)
    if not kept.kept:
        why = "no item has a category or attribute that can be one"
        if kept.counts:
            why = f"none of {len(kept.counts)} words is on as many items as --min-items and --max-share want"
        print(
            f"warning: there is no keyword, for {why}: f_mat and f_sim toss coins", file=sys.stderr
        )
    return Words(_NOBODY, annotations, kept)


def _words_of_model(source: Source, config: BuildConfig, ratings: Ratings) -> Words:
    advice = "ask again with more --llm.attempts or another --llm.model"
    with ask_language_model(source.name, config, ratings) as answers:
        annotations = _annotate(answers.replies, config, ratings, advice)
    kept = _filter(annotations, config)
    return Words(answers.model, annotations, kept, settings=answers.settings)


def _words_of_files(source: Source, config: BuildConfig, ratings: Ratings) -> Words:
    files = config.replies or tuple(source.replies)
    if not files:
        raise InputError(
            f"{source.name} comes without replies of a language model: give them with --replies, ask a model with "
            "--annotate openai, huggingface or ray, or do without one by --annotate none"
        )
    model = config.language_model or ("not named" if config.replies else source.language_model)
    read = [read_replies(path, config.strict) for path in files]
    replies = [reply for file in read for reply in file.lines]
    annotations = _annotate(replies, config, ratings)
    kept = _filter(annotations, config)
    return Words(model, annotations, kept, files, [file.skipped for file in read])


def _annotate(
    replies: Iterable[ReplyLine], config: BuildConfig, ratings: Ratings, advice: str = "mend it"
) -> Annotations:
    items = ratings.items
    annotations = annotate(
        replies,
        dict(zip(items["item_id"], items["name"], strict=True)),
        config.allow_missing_replies,
        left_out=ratings.left_out_items,
        ratings=ratings.training,
        advice=advice,
    )
    for note in annotations.notes:
        print(f"note: {note}", file=sys.stderr)
    return annotations


def _filter(annotations: Annotations, config: BuildConfig) -> KeywordFilter:
    kept = filter_keywords(annotations.keywords.values(), config.min_items, config.max_share)
    if not kept.kept:
        raise InputError(
            f"none of {len(kept.counts)} keywords is on at least {config.min_items} and at most "
            f"{config.max_share:.0%} of {len(annotations.keywords)} items with a reply: "
            "change --min-items or --max-share"
        )
    return kept
