"""The commands `python -m prep {build,convert,annotate,replies,embed} ...`."""

import sys
from pathlib import Path
from typing import Annotated

import tyro

from jaxsim import InputError
from jaxsim.cli import Commands, main
from prep.annotation.annotate import annotate_dataset
from prep.annotation.stored_replies import export_replies, format_prompts, format_store
from prep.build import build_dataset, build_synthetic
from prep.config import AnnotationConfig, BuildConfig
from prep.convert import convert_dataset, format_conversion
from prep.features.embedding import (
    DEFAULT_ENCODER,
    HASHED,
    KeywordVectors,
    keyword_vectors,
    save_vectors,
)
from prep.hub import export_hub
from prep.replies.files import read_replies
from prep.replies.merge import vocabulary
from prep.report import format_report, format_synthetic, warnings_of
from prep.sources import get_source
from prep.sources.amazon_releases import Year
from prep.sources.base import SourceOptions
from prep.synthetic import SyntheticConfig

Dataset = Annotated[str, tyro.conf.Positional]


def build(
    dataset: Dataset,
    config: Annotated[BuildConfig, tyro.conf.arg(name="")] = BuildConfig(),  # noqa: B008 (frozen)
    synthetic: SyntheticConfig = SyntheticConfig(),  # noqa: B008 (frozen)
) -> None:
    """Build a dataset for the simulator: ratings, keywords, embeddings and the statistic model.

    Example:
        ml-100k

    Args:
        dataset: ml-100k, yelp, amazon-music, amazon-games, amazon-movies, anime, synthetic, or a CSV or Parquet
            file with the columns user, item, rating and perhaps timestamp, text.
        config: settings.
        synthetic: for synthetic: what is drawn.
    """
    if dataset == "synthetic":
        print(format_synthetic(*build_synthetic(synthetic, config)))
        return
    if synthetic != SyntheticConfig():
        raise InputError(f"--synthetic: {dataset} is not drawn; build synthetic, or leave it out")
    result = build_dataset(dataset, config)
    print(format_report(result))
    for warning in warnings_of(result):
        print(f"warning: {warning}", file=sys.stderr)


def convert(
    dataset: Dataset,
    out: Path,
    raw: Path | None = None,
    items: Path | None = None,
    state: str | None = None,
    strict: bool = False,
    keep_adult: bool = False,
    release: Year | None = None,
    yes: bool = False,
    text: bool = True,
) -> None:
    """Read raw files and write them as Parquet tables, which build, annotate and other tools read.

    Example:
        amazon-music --release 2023 --out tables

    Args:
        dataset: as for build.
        out: the folder to write.
        raw: the raw data as its publisher gives it. Without it, the cache or a download, where there is one.
        items: for a table of your own: the file of items.
        state: for yelp: keep the businesses of this state; "" keeps all. Without it, MO.
        strict: stop at the first line that cannot be read.
        keep_adult: for anime: keep the adult titles, those of genre Hentai.
        release: for the Amazon reviews: the year of the release. Without it, 2018, as in the paper.
        yes: agree to a download of more than 1 GB, instead of being asked.
        text: keep the texts of reviews, as prompts need them.
    """
    options = SourceOptions(raw, items, state, strict, keep_adult, release, yes)
    print(format_conversion(convert_dataset(get_source(dataset), options, out, text)))


def annotate(
    dataset: Dataset,
    config: Annotated[AnnotationConfig, tyro.conf.arg(name="")] = AnnotationConfig(),  # noqa: B008
    out: Path | None = None,
    dry_run: bool = False,
    json: Path | None = None,
) -> None:
    """Ask a language model about every item and training review; prompts with a stored reply are not asked again.

    Example:
        ml-100k --dry-run

    Args:
        dataset: as for build.
        config: settings.
        out: also write the replies as JSON lines, for build --replies.
        dry_run: only print how many prompts and tokens it would take, and the cost.
        json: with dry_run: also write this here.
    """
    annotate_dataset(get_source(dataset), config, out, dry_run, json)


def embed(
    dataset: Dataset,
    out: Path,
    replies: tyro.conf.UseAppendAction[tuple[Path, ...]] = (),
    encoder: str = DEFAULT_ENCODER,
    vectors: tyro.conf.UseAppendAction[tuple[Path, ...]] = (),
) -> None:
    """Compute the vectors of all keywords in replies, for `build --vectors` (needs torch).

    Example:
        ratings.csv --replies replies.jsonl --out vectors.safetensors

    Args:
        dataset: as for build.
        out: the file to write.
        replies: files of replies, in place of those that ship with the dataset.
        encoder: name or path of a BERT.
        vectors: files of vectors, of which those of this encoder are copied and not computed again.
    """
    files = replies or tuple(get_source(dataset).replies)
    if encoder == HASHED:
        raise InputError(
            f"--encoder {HASHED}: its vectors are made in the build; there is nothing to compute"
        )
    if not files:
        raise InputError(f"{dataset} comes without replies of a language model: give --replies")
    keywords = vocabulary(line for path in files for line in read_replies(path).lines)
    if not keywords:
        raise InputError(f"{', '.join(map(str, files))}: no reply with keywords")
    save_vectors(
        out, KeywordVectors(encoder, keywords, keyword_vectors(keywords, encoder, vectors))
    )
    print(f"{len(keywords):,} keyword vectors of {encoder} written to {out}")


def show_replies(store: Dataset, item: str | None = None, user: str | None = None) -> None:
    """Describe a store of replies, or show the prompts and replies about one item or review.

    Example:
        ml-100k --item 50

    Args:
        store: the path of the store, or the name of a dataset whose store is in the cache folder.
        item: show what was asked about this item, and the replies.
        user: with item: show what was asked about this user's review of it.
    """
    if item is None:
        if user is not None:
            raise InputError(f"--user {user}: give --item, too")
        print(format_store(store))
    else:
        print(format_prompts(store, item, user))


def export_stored_replies(store: Dataset, out: Path, settings: int | None = None) -> None:
    """Write the replies in a store as JSON lines, for build --replies.

    Example:
        ml-100k --out replies.jsonl

    Args:
        store: as for show.
        out: the file to write.
        settings: which language model and sampling settings, by the number that show gives; needed if the store
            has several.
    """
    print(f"{export_replies(store, out, settings):,} replies written to {out}")


def export(
    dataset: Annotated[str, tyro.conf.Positional],
    out: Path,
    licence: str | None = None,
    push: str | None = None,
) -> None:
    """Write a packed dataset as a repository of the Hugging Face hub, which load_dataset("hf:OWNER/NAME") reads.

    Example:
        ml-100k --out hub/ml-100k

    Args:
        dataset: name that build has built, or path of a packed folder.
        out: the folder to write: the packed files and a card.
        licence: the hub's identifier of the licence under which you may share it, such as cc-by-4.0 or other.
        push: OWNER/NAME of the repository to upload it to; needs huggingface_hub and its login.
    """
    folder = export_hub(dataset, out, licence, push)
    print(f"written to {folder}" + (f", and uploaded to {push}" if push else ""))


COMMANDS: Commands = {
    "build": build,
    "convert": convert,
    "annotate": annotate,
    "replies": {"show": show_replies, "export": export_stored_replies},
    "embed": embed,
    "export-hub": export,
}


def run(args: list[str] | None = None) -> None:
    """Run the command line with `args`, by default those of the process."""
    main(
        COMMANDS,
        prog="python -m prep",
        description="Prepare datasets for jaxsim.",
        args=args,
    )
