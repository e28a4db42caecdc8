"""The settings of the stages, from which the command line is made."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsim import InputError
from prep.features.embedding import DEFAULT_ENCODER
from prep.sources.base import SourceOptions
from prep.statistic_model import SASRecTraining

Annotate = Literal["replies", "none", "huggingface", "openai", "ray", "replay"]


@dataclass(frozen=True)
class RatingsConfig:
    """Which files are read, which ratings are kept, and what is a like."""

    raw: Path | None = None
    """The raw data as its publisher gives it: a folder, or a file in it; or what `python -m prep convert` wrote.
    Without it, the cache or a download, where there is one."""
    items: Path | None = None
    """For a table of your own: the file of items, with columns item, name and perhaps categories, attributes."""
    state: str | None = None
    """For yelp: keep the businesses of this state; "" keeps all. Without it, MO, as in the paper."""
    strict: bool = False
    """Stop at the first line that cannot be read, in place of leaving it out and counting it."""
    like_threshold: float | None = None
    """A rating of at least this is a like. Without it, the dataset's own."""
    min_user_ratings: int = 1
    """Users with fewer ratings are dropped."""
    min_item_ratings: int = 1
    """Items with fewer ratings are dropped."""
    keep_unrated: bool = False
    """Keep the items that are described but that nobody rated."""
    noun: str | None = None
    """What prompts call an item, such as book. Without it, the dataset's own."""

    @property
    def source_options(self) -> SourceOptions:
        """What a source is told."""
        return SourceOptions(self.raw, self.items, self.state, self.strict)

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        check_count("--min-user-ratings", self.min_user_ratings)
        check_count("--min-item-ratings", self.min_item_ratings)
        if self.like_threshold is not None and not math.isfinite(self.like_threshold):
            raise InputError(f"--like-threshold {self.like_threshold}: give a finite number")


def check_count(flag: str, count: int) -> None:
    """Raise an InputError unless `count`, the value of `flag`, is at least 1."""
    if count < 1:
        raise InputError(f"{flag} {count}: give a whole number from 1")


@dataclass(frozen=True)
class LanguageModelConfig:
    """The language model, and how it is asked."""

    model: str = ""
    """Its name on the server or the Hugging Face hub, or the path of its folder."""
    revision: Annotated[str, tyro.conf.arg(prefix_name=False)] = ""
    """Commit of the model on the hub; must be given with --trust-remote-code."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server, such as http://localhost:8000/v1. Without it, the hosted one."""
    concurrency: int = 16
    """Requests to a server at the same time, at most."""
    timeout: float = 300.0
    """Seconds that a server may take to answer one prompt."""
    batch_size: int = 16
    """Prompts in a forward pass of a model on this machine or cluster."""
    device: str | None = None
    """Where a model on this machine runs, such as cuda:1 or cpu. Without it, the GPU if there is one."""
    trust_remote_code: Annotated[bool, tyro.conf.arg(prefix_name=False)] = False
    """Run the code that comes with the model, as THUDM/chatglm-6b needs it."""
    replicas: int = 1
    """Copies of the model on a Ray cluster."""
    gpus_per_replica: float | None = None
    """GPUs that a copy on a Ray cluster takes. Without it, one if the cluster has any."""
    ray_address: str = "local"
    """The Ray cluster to join: an address, or auto; local starts one on this machine."""
    temperature: float = 0.0
    """0 always takes the likeliest token."""
    top_p: float = 1.0
    """Draw only from the likeliest tokens that together reach this probability."""
    max_tokens: int = 512
    """A reply is cut at this length."""
    seed: int = 0
    """Seed of the draws, where the model takes one."""
    subjective: bool = True
    """Ask T_sub of training reviews too, where the dataset has reviews."""
    reviews_per_item: int | None = None
    """Ask T_sub of at most so many training reviews of an item, the latest. Without it, of all."""
    comment_tokens: int = 400
    """A review is clipped to about this many tokens."""
    attempts: int = 3
    """How often a prompt is asked in all when its reply does not parse."""
    store: Path | None = None
    """The database of replies. Without it, one for each dataset in the cache."""
    price_in: float = 0.0
    """Price of a million tokens in, for --dry-run."""
    price_out: float = 0.0
    """Price of a million tokens out, for --dry-run."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        for name in (
            "concurrency",
            "batch_size",
            "replicas",
            "max_tokens",
            "comment_tokens",
            "attempts",
        ):
            check_count(f"--llm.{name.replace('_', '-')}", getattr(self, name))
        if self.reviews_per_item is not None:
            check_count("--llm.reviews-per-item", self.reviews_per_item)
        for name in ("timeout", "gpus_per_replica", "temperature", "price_in", "price_out"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(
                    f"--llm.{name.replace('_', '-')} {value:g}: give a finite number from 0"
                )
        if self.timeout == 0:
            raise InputError("--llm.timeout 0: give a number of seconds above 0")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--llm.top-p {self.top_p:g}: give a probability above 0 and up to 1")


@dataclass(frozen=True)
class AnnotationConfig(RatingsConfig):
    """Whose words the keywords are."""

    annotate: Annotate = "replies"
    """Where keywords come from: `replies` of a language model in files, by default those that ship with the
    dataset; a language model that is asked now, `huggingface` on this machine, `openai` on any server that
    speaks its protocol, `ray` on a cluster, or `replay` of recorded --replies as if they were one; or `none`: no
    language model, but the words of categories and attributes."""
    llm: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    """The language model that is asked."""
    replies: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """JSON lines (or .jsonl.gz) of {"item_id", "reply"} for T_obj and {"user_id", "item_id", "reply"} for T_sub,
    in place of the replies that ship with the dataset; may be given several times."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        super().check()
        self.llm.check()
        if self.asks_a_model and self.annotate != "replay" and not self.llm.model:
            raise InputError(
                f"--annotate {self.annotate}: name the language model with --llm.model"
            )
        if self.replies and self.annotate not in ("replies", "replay"):
            raise InputError(
                f"--replies and --annotate {self.annotate}: keywords come from one of them; leave out the other"
            )
        if not self.asks_a_model and self.llm != LanguageModelConfig():
            raise InputError(
                f"--llm: --annotate {self.annotate} asks no language model; give another, or leave --llm out"
            )
        if self.annotate not in ("huggingface", "ray") and self.llm.trust_remote_code:
            raise InputError(
                f"--trust-remote-code: --annotate {self.annotate} runs no model here; leave it out"
            )
        if self.annotate == "replay" and not self.replies:
            raise InputError("--annotate replay: give the files of recorded replies with --replies")

    @property
    def asks_a_model(self) -> bool:
        """Whether a language model, or a recording in its place, is asked."""
        return self.annotate not in ("replies", "none")


@dataclass(frozen=True)
class BuildConfig(AnnotationConfig):
    """The settings of a build; what is not given is the dataset's own default or the usual one."""

    out: Path | None = None
    """The folder to write. Without it, one in the cache, where jaxsim finds it by its name."""
    language_model: str | None = None
    """Name of the model that wrote --replies, for the record."""
    allow_missing_replies: bool = False
    """Give an item without a reply, or with one that does not parse, no keywords; do not stop."""
    min_items: int = 2
    """Keywords on fewer items are dropped."""
    max_share: float = 0.10
    """Keywords on more than this share of the items with a parsed reply are dropped."""
    max_category_share: float = 0.5
    """Categories on more than this share of the items are dropped."""
    min_category_items: int = 5
    """Categories on fewer items are dropped."""
    single_category: bool = False
    """Keep only the rarest category of each item."""
    encoder: str = DEFAULT_ENCODER
    """Name or path of the BERT that embeds keywords; or `hashed`, which needs no torch, for vectors that are
    similar only where keywords are equal."""
    vectors: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """File of keyword vectors that `python -m prep embed` wrote; may be given several times."""
    sasrec: SASRecTraining = field(default_factory=SASRecTraining)
    """The statistic model."""

    def check(self) -> None:
        """Raise an InputError for the first setting that makes no sense."""
        super().check()
        for flag, share in (
            ("--max-share", self.max_share),
            ("--max-category-share", self.max_category_share),
        ):
            if not 0 < share <= 1:
                raise InputError(f"{flag} {share:g}: give a share above 0 and up to 1")
        check_count("--min-items", self.min_items)
        check_count("--min-category-items", self.min_category_items)
        for path in self.vectors:
            if not path.is_file():
                raise InputError(f"{path}: no such file")
        self.sasrec.check()
