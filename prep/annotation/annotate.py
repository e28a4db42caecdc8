"""Asking a language model about a dataset: which model, which store, and what it would cost."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxsim import InputError
from jaxsim.dataset import cache_dir
from jaxsim.files import check_file, check_writable, write_json
from prep.annotation.annotators.base import Annotator, Sampling
from prep.annotation.annotators.huggingface import HuggingFaceAnnotator
from prep.annotation.annotators.openai_server import OpenAIAnnotator
from prep.annotation.annotators.ray_cluster import RayAnnotator
from prep.annotation.annotators.replay import ReplayAnnotator
from prep.annotation.plan import AnnotationPlan, plan
from prep.annotation.prompts import PROMPT_VERSION
from prep.annotation.run import AnnotationReport, ignore_reply, run
from prep.annotation.store import ReplyStore
from prep.annotation.tasks import count_tasks, make_tasks
from prep.config import AnnotationConfig, BuildConfig
from prep.ratings import Ratings, read_ratings
from prep.replies.files import Reply, reply_writer
from prep.sources.base import Source


def make_annotator(config: AnnotationConfig) -> Annotator:
    """Prepare the language model that the settings name.

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


def ask_language_model(
    name: str, config: BuildConfig, ratings: Ratings, use: Callable[[Reply], None]
) -> tuple[str, Mapping[str, Any]]:
    """Get the replies to all prompts of a dataset, from the store or else from the model.

    Args:
        name: the dataset's.
        config: which model is asked, and how.
        ratings: the items and reviews to ask about.
        use: called with the parsed reply of each item and review, usable or not.

    Returns:
        The model's name, and how it was asked, for the manifest.

    Raises:
        InputError: the model cannot be asked, or left a prompt without a reply; all replies so far are stored.
    """
    annotator = make_annotator(config)
    with _open_store(name, config) as store:
        report = _run(annotator, store, config, ratings, use)
    if not config.allow_missing_replies:
        report.check(_advice(config))
    return annotator.model, {
        "revision": annotator.revision,
        "prompt_version": PROMPT_VERSION,
        "sampling": dataclasses.asdict(annotator.sampling),
        "noun": ratings.noun,
        "subjective": config.llm.subjective,
        "reviews_per_item": config.llm.reviews_per_item,
        "comment_tokens": config.llm.comment_tokens,
    }


def annotate_dataset(
    source: Source,
    config: AnnotationConfig,
    out: Path | None,
    dry_run: bool,
    json: Path | None = None,
) -> None:
    """Ask a language model about a dataset and print a summary; `python -m prep annotate`.

    Args:
        source: the dataset.
        config: which model is asked, and how.
        out: where to write the replies as JSON lines, too.
        dry_run: only print what it would take.
        json: where a dry run writes what it would take, too.

    Raises:
        InputError: as for `ask_language_model`, or `out` cannot be written.
    """
    if not config.asks_a_model:
        raise InputError(
            f"--annotate {config.annotate} asks no language model: give huggingface, openai, ray or replay"
        )
    config.check()
    if json is not None and not dry_run:
        raise InputError(
            "--json: what is asked is in the store; give --dry-run, or leave --json out"
        )
    check_file("--json", json)
    _check_output(store_path(source.name, config.llm.store), config, out, dry_run)
    ratings = read_ratings(source, config)
    annotator = make_annotator(config)
    if dry_run:
        planned = _plan(source.name, annotator, config, ratings)
        print("\n".join(planned.lines(config.llm.price_in, config.llm.price_out)))
        print("nothing was asked")
        write_json(json, planned.as_json(config.llm.price_in, config.llm.price_out))
        return
    with _open_store(source.name, config) as store:
        if out is None:
            _ask_and_check(annotator, store, config, ratings, ignore_reply)
            return
        about = {
            "prompt_version": PROMPT_VERSION,
            "model": annotator.model,
            "revision": annotator.revision,
        }
        with reply_writer(out, about) as write:
            report = _ask_and_check(annotator, store, config, ratings, write)
        print(f"{report.tasks:,} replies written to {out}")


def _ask_and_check(
    annotator: Annotator,
    store: ReplyStore,
    config: AnnotationConfig,
    ratings: Ratings,
    use: Callable[[Reply], None],
) -> AnnotationReport:
    report = _run(annotator, store, config, ratings, use)
    print(
        f"{report.usable:,} of {report.tasks:,} prompts have a reply that can be used "
        f"({report.stored_before:,} had one before), all in {store.path}"
    )
    report.check(_advice(config))
    return report


def _check_output(store: Path, config: AnnotationConfig, out: Path | None, dry_run: bool) -> None:
    if out is None:
        return
    if dry_run:
        raise InputError("--dry-run and --out: a dry run has no replies to write; leave out one")
    check_file("--out", out)
    inputs = (config.raw, config.items, store, *config.replies)
    if out.exists() and any(path and path.exists() and path.samefile(out) for path in inputs):
        raise InputError(f"--out {out}: is an input; give another file")


def _advice(config: AnnotationConfig) -> str:
    if config.annotate == "replay":
        return "give recordings of the others with --replies, or leave out T_sub by --llm.no-subjective"
    return "run the same command again to ask for just these"


def _run(
    annotator: Annotator,
    store: ReplyStore,
    config: AnnotationConfig,
    ratings: Ratings,
    use: Callable[[Reply], None],
) -> AnnotationReport:
    report = run(
        make_tasks(ratings, config.llm),
        annotator,
        store,
        use,
        _attempts(config),
        count_tasks(ratings, config.llm),
    )
    for note in report.notes():
        print(f"note: {note}", file=sys.stderr)
    return report


def _plan(
    name: str, annotator: Annotator, config: AnnotationConfig, ratings: Ratings
) -> AnnotationPlan:
    path = store_path(name, config.llm.store)
    tasks = make_tasks(ratings, config.llm)
    if not path.exists():
        return plan(tasks, annotator, None, _attempts(config))
    with ReplyStore(path) as store:
        return plan(tasks, annotator, store, _attempts(config))


def _attempts(config: AnnotationConfig) -> int:
    # A recording gives the same reply however often it is asked.
    return 1 if config.annotate == "replay" else config.llm.attempts


@contextmanager
def _open_store(name: str, config: AnnotationConfig) -> Iterator[ReplyStore]:
    path = store_path(name, config.llm.store)
    check_writable(path)
    with ReplyStore(path) as store:
        yield store


def store_path(name: str, store: Path | None = None) -> Path:
    """Where the store of a dataset is: `store` or, without it, a file in the cache folder."""
    return store or cache_dir() / "replies" / f"{name}.sqlite"
