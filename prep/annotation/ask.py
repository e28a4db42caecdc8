"""Asking a language model about a dataset: who is asked, where its replies are kept, what it would cost."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxsim import InputError
from jaxsim.dataset import cache_dir
from jaxsim.files import check_writable
from prep.annotation import run as annotation
from prep.annotation.annotators.base import Annotator, Sampling
from prep.annotation.annotators.huggingface import HuggingFaceAnnotator
from prep.annotation.annotators.openai_server import OpenAIAnnotator
from prep.annotation.annotators.ray_cluster import RayAnnotator
from prep.annotation.annotators.replay import ReplayAnnotator
from prep.annotation.prompts import PROMPT_VERSION
from prep.annotation.run import AnnotationReport
from prep.annotation.store import ReplyStore
from prep.annotation.tasks import count_tasks, make_tasks
from prep.config import AnnotationConfig, BuildConfig
from prep.ratings import Ratings, read_ratings
from prep.replies.files import ReplyLine
from prep.sources.base import Source


@dataclass(frozen=True)
class ModelReplies:
    """The replies of a language model.

    Attributes:
        model: its name, with its revision where that is known.
        replies: the last one to each prompt, usable or not; to be read while the store is open.
        settings: how it was asked, for the manifest.
    """

    model: str
    replies: Iterator[ReplyLine]
    settings: Mapping[str, Any]


def make_annotator(config: AnnotationConfig) -> Annotator:
    """Find the language model that the settings name.

    Raises:
        InputError: there is none, or a package that it needs is missing.
    """
    llm = config.llm
    sampling = Sampling(llm.temperature, llm.top_p, llm.max_tokens, llm.seed)
    if config.annotate == "openai":
        return OpenAIAnnotator(
            llm.model,
            llm.base_url,
            revision=llm.revision,
            sampling=sampling,
            concurrency=llm.concurrency,
            timeout=llm.timeout,
        )
    if config.annotate == "replay":
        return ReplayAnnotator(
            config.replies,
            llm.model or "recorded",
            revision=llm.revision,
            sampling=sampling,
            strict=config.strict,
        )
    arguments = (llm.model, llm.revision, sampling, llm.batch_size)
    if config.annotate == "ray":
        return RayAnnotator(
            *arguments,
            trust_remote_code=llm.trust_remote_code,
            replicas=llm.replicas,
            gpus_per_replica=llm.gpus_per_replica,
            address=llm.ray_address,
        )
    return HuggingFaceAnnotator(*arguments, llm.device, llm.trust_remote_code)


@contextmanager
def ask_language_model(name: str, config: BuildConfig, ratings: Ratings) -> Iterator[ModelReplies]:
    """Get the replies to all prompts of a dataset, from the store or else from the model.

    Args:
        name: the dataset's.
        config: whom to ask, and how.
        ratings: the items and reviews to ask about.

    Yields:
        The replies, for as long as the store is open.

    Raises:
        InputError: the model cannot be asked, or left a prompt without a reply; what it said is stored.
    """
    annotator = make_annotator(config)
    settings = {
        "revision": annotator.revision,
        "prompt_version": PROMPT_VERSION,
        "sampling": dataclasses.asdict(annotator.sampling),
        "noun": ratings.noun,
        "subjective": config.llm.subjective,
        "reviews_per_item": config.llm.reviews_per_item,
        "comment_tokens": config.llm.comment_tokens,
    }
    with _open_store(name, config) as store:
        report = _run(annotator, store, config, ratings)
        if not config.allow_missing_replies:
            report.check(_advice(config))
        yield ModelReplies(annotator.model, _lines(store, report.run), settings)


def _lines(store: ReplyStore, run: int) -> Iterator[ReplyLine]:
    for reply in store.last_replies(run):
        place = f"{store.path}:{reply.item_id}"
        yield ReplyLine(place, reply.item_id, reply.text, reply.user_id, reply.cut)


def annotate_dataset(
    source: Source, config: AnnotationConfig, out: Path | None, dry_run: bool
) -> None:
    """Ask a language model about a dataset and say what came of it; `python -m prep annotate`.

    Args:
        source: the dataset.
        config: whom to ask, and how.
        out: where to write the replies as JSON lines, too.
        dry_run: only print what it would take.

    Raises:
        InputError: as for `ask_language_model`, or `out` cannot be written.
    """
    if not config.asks_a_model:
        raise InputError(
            f"--annotate {config.annotate} asks no language model: give huggingface, openai, ray or replay"
        )
    config.check()
    _check_output(config, out, dry_run)
    ratings = read_ratings(source, config)
    annotator = make_annotator(config)
    if dry_run:
        _print_plan(source.name, annotator, config, ratings)
        return
    with _open_store(source.name, config) as store:
        report = _run(annotator, store, config, ratings)
        print(
            f"{report.usable:,} of {report.tasks:,} prompts have a reply that can be used "
            f"({report.stored_before:,} had before), all in {store.path}"
        )
        report.check(_advice(config))
        if out is not None:
            about = {
                "prompt_version": PROMPT_VERSION,
                "model": annotator.model,
                "revision": annotator.revision,
            }
            print(f"{store.export(out, report.run, about):,} replies written to {out}")


def _check_output(config: AnnotationConfig, out: Path | None, dry_run: bool) -> None:
    if out is None:
        return
    if dry_run:
        raise InputError("--dry-run and --out: a dry run has no replies to write; leave out one")
    check_writable(out)
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; give a file")
    inputs = (config.raw, config.items, config.llm.store, *config.replies)
    if out.exists() and any(path and path.exists() and path.samefile(out) for path in inputs):
        raise InputError(f"--out {out}: is read from; give another file")


def _advice(config: AnnotationConfig) -> str:
    if config.annotate == "replay":
        return "give recordings of the others with --replies, or leave out T_sub by --llm.no-subjective"
    return "run the same command again to ask for just these"


def _run(
    annotator: Annotator, store: ReplyStore, config: AnnotationConfig, ratings: Ratings
) -> AnnotationReport:
    report = annotation.run(
        make_tasks(ratings, config.llm),
        annotator,
        store,
        _attempts(config),
        count_tasks(ratings, config.llm),
    )
    for note in report.notes():
        print(f"note: {note}", file=sys.stderr)
    return report


def _print_plan(
    name: str, annotator: Annotator, config: AnnotationConfig, ratings: Ratings
) -> None:
    path = _store_path(name, config)
    tasks = make_tasks(ratings, config.llm)
    if path.exists():
        with ReplyStore(path) as store:
            plan = annotation.plan(tasks, annotator, store, _attempts(config))
    else:
        plan = annotation.plan(tasks, annotator, None, _attempts(config))
    print("\n".join(plan.lines(config.llm.price_in, config.llm.price_out)))
    print("nothing was asked")


def _attempts(config: AnnotationConfig) -> int:
    # A recording says the same however often it is asked.
    return 1 if config.annotate == "replay" else config.llm.attempts


@contextmanager
def _open_store(name: str, config: AnnotationConfig) -> Iterator[ReplyStore]:
    path = _store_path(name, config)
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ReplyStore(path) as store:
        yield store


def _store_path(name: str, config: AnnotationConfig) -> Path:
    return config.llm.store or cache_dir() / "replies" / f"{name}.sqlite"
