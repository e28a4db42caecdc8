"""The settings of the stages, from which tyro makes the command line.

The bounds of a number stand in its type and are checked by `jaxsim.settings.check_settings`. Checks that concern
several settings stand in the `check` methods.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from annotated_types import Gt

from jaxsim import InputError
from jaxsim.settings import check_settings
from prep.bounds import Amount, Count, Seed, Share
from prep.departure_model import DepartureTraining
from prep.exposure import ExposureTraining
from prep.features.embedding import DEFAULT_ENCODER
from prep.interactions import SplitRule
from prep.sources.amazon_releases import Year
from prep.sources.base import SourceOptions
from prep.statistic_model import SASRecTraining
from prep.taste_model import TasteTraining

DurationUnit = Literal["seconds", "minutes", "hours"]
Annotate = Literal["replies", "none", "huggingface", "openai", "ray", "replay"]


@dataclass(frozen=True)
class RatingsConfig:
    """Which files are read, which ratings are kept, what is a like, and how ratings are split."""

    raw: Path | None = None
    """The raw data as its publisher gives it: a folder, or a file in it; or what `python -m prep convert` wrote.
    Without it, the cache or a download, where there is one."""
    items: Path | None = None
    """For a table of your own: the file of items, with columns item, name and perhaps categories, attributes."""
    state: str | None = None
    """For yelp: keep the businesses of this state; "" keeps all. Without it, MO, as in the paper."""
    strict: bool = False
    """Stop at the first line that cannot be read, instead of counting it and leaving it out."""
    like_threshold: float | None = None
    """A rating of at least this is a like. Without it, the dataset's own."""
    split: SplitRule = "ratio"
    """How each user's ratings are split, in their order. ratio: the first 80 % for training, the next 10 % for
    validation, the rest for testing. loo (leave one out): the last one for testing, the one before it for
    validation, the others for training."""
    file_order: bool = False
    """For a dataset without times: the order of each user's ratings is that of the file, which may be one of ids.
    Without it, the order is a random permutation."""
    order_seed: Seed = 0
    """For a dataset without times: seed of the permutation of each user's ratings."""
    limit_users: Count | None = None
    """Keep so many users, drawn at random before anything else is dropped: for a first try of a large dataset. The
    folder is then named after both, such as yelp-1000-users."""
    min_user_ratings: Count = 1
    """Users with fewer ratings are dropped."""
    min_item_ratings: Count = 1
    """Items with fewer ratings are dropped."""
    keep_unrated: bool = False
    """Keep the items that are described but that nobody rated."""
    keep_adult: bool = False
    """For anime: keep the adult titles, those of genre Hentai."""
    release: Year | None = None
    """For the Amazon reviews: the year of the release. Without it, the one in --raw, or else the paper's, 2018.
    The folder of another release is named after both, such as amazon-music-2023."""
    yes: bool = False
    """Agree to a download of more than 1 GB, instead of being asked."""
    duration_unit: DurationUnit | None = None
    """For a table of your own with a column duration: its unit. Without it, seconds."""
    noun: str | None = None
    """What prompts call an item, such as book. Without it, the dataset's own."""

    @property
    def source_options(self) -> SourceOptions:
        """The options that a source reads its files with."""
        return SourceOptions(
            self.raw,
            self.items,
            self.state,
            self.strict,
            self.keep_adult,
            self.release,
            self.yes,
        )

    def check(self) -> None:
        """Check every setting.

        Raises:
            InputError: the first setting that is out of its bounds or does not go with another one.
        """
        check_settings(self, option_prefix="--")
        if self.file_order and self.order_seed:
            raise InputError(
                f"--file-order and --order-seed {self.order_seed}: the order of the file has no seed; "
                "leave out one of them"
            )


@dataclass(frozen=True)
class LanguageModelConfig:
    """The language model, and how it is asked."""

    model: str = ""
    """Name of the model on the server or the Hugging Face hub, or the path of its folder."""
    revision: Annotated[str, tyro.conf.arg(prefix_name=False)] = ""
    """Commit of the model on the hub; must be given with --trust-remote-code."""
    base_url: str | None = None
    """Address of an OpenAI-compatible server, such as http://localhost:8000/v1. Without it, the hosted one."""
    concurrency: Count = 16
    """Requests to a server at the same time, at most."""
    timeout: Annotated[float, Gt(0)] = 300.0
    """Seconds that a server may take to answer one prompt."""
    batch_size: Count = 16
    """Prompts in a forward pass of a model on this machine or cluster."""
    device: str | None = None
    """Where a model on this machine runs, such as cuda:1 or cpu. Without it, the GPU if there is one."""
    trust_remote_code: Annotated[bool, tyro.conf.arg(prefix_name=False)] = False
    """Run the code that comes with the model, as THUDM/chatglm-6b needs it."""
    replicas: Count = 1
    """Copies of the model on a Ray cluster."""
    gpus_per_replica: Amount | None = None
    """GPUs for each copy on a Ray cluster. Without it, one if the cluster has any."""
    ray_address: str = "local"
    """The Ray cluster to join: an address, or auto; local starts one on this machine."""
    temperature: Amount = 0.0
    """Sampling temperature; 0 always takes the most probable token."""
    top_p: Share = 1.0
    """Sample only from the most probable tokens that together have this probability."""
    max_tokens: Count = 512
    """A reply is cut after this many tokens."""
    seed: int = 0
    """Seed of the sampling, for models that accept one."""
    subjective: bool = True
    """Ask T_sub of training reviews too, where the dataset has reviews."""
    reviews_per_item: Count | None = None
    """Ask T_sub of at most this many training reviews of each item, the latest ones. Without it, of all."""
    comment_tokens: Count = 400
    """A review is cut to about this many tokens."""
    attempts: Count = 3
    """How often a prompt is asked, at most, if its replies do not parse."""
    store: Path | None = None
    """The database of replies. Without it, one for each dataset in the cache."""
    price_in: Amount = 0.0
    """Price of a million tokens of prompts, for --dry-run."""
    price_out: Amount = 0.0
    """Price of a million tokens of replies, for --dry-run."""


@dataclass(frozen=True)
class AnnotationConfig(RatingsConfig):
    """Where the keywords of items come from."""

    annotate: Annotate = "replies"
    """Where keywords come from. `replies` reads a language model's replies from files, by default those that ship
    with the dataset. `huggingface` asks a model on this machine, `openai` a server that speaks OpenAI's protocol,
    `ray` a model on a cluster. `replay` answers with recorded --replies, as if they were a model. `none` uses the
    words of categories and attributes, without a language model."""
    llm: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    """The language model that is asked."""
    replies: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """JSON lines (or .jsonl.gz) of {"item_id", "reply"} for T_obj and {"user_id", "item_id", "reply"} for T_sub,
    in place of the replies that ship with the dataset; may be given several times."""

    def check(self) -> None:
        """As `RatingsConfig.check`; also checks `llm`."""
        super().check()
        check_settings(self.llm, option_prefix="--llm.")
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
    """The settings of a build."""

    out: Path | None = None
    """The folder to write. Without it, one in the cache, where jaxsim finds it by its name."""
    language_model: str | None = None
    """Name of the model that wrote --replies, for the record."""
    allow_missing_replies: bool = False
    """Give items without a reply that parses no keywords, instead of stopping. Replies that ship with anime cover
    a part of its titles; with them, a missing reply never stops a build."""
    min_items: Count = 2
    """Keywords on fewer items are dropped."""
    max_share: Share = 0.10
    """Keywords on more than this share of the items with a parsed reply are dropped."""
    max_category_share: Share = 0.5
    """Categories on more than this share of the items are dropped."""
    min_category_items: Count = 5
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
    taste: TasteTraining = field(default_factory=TasteTraining)
    """The taste model."""
    exposure: ExposureTraining = field(default_factory=ExposureTraining)
    """The exposure model."""
    departure: DepartureTraining = field(default_factory=DepartureTraining)
    """When users leave."""

    def check(self) -> None:
        """As `AnnotationConfig.check`; also checks `vectors` and the settings of every model."""
        super().check()
        for path in self.vectors:
            if not path.is_file():
                raise InputError(f"{path}: no such file")
        self.sasrec.check()
        self.taste.check()
        self.exposure.check()
        self.departure.check()
