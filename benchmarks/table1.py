"""Table 1 of the paper (users, items, instances and sparsity) beside the counts of your copy of a dataset.

The paper does not say which release it counted, or which reviews, users and items it dropped. So the same copy is
counted in several ways, with and without what a build leaves out. The report names the way that is nearest to the
paper, how far off it is, and what makes the paper's counts impossible for this copy.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.output import check_json, write_json
from jaxsim import InputError
from jaxsim.tables import format_table
from prep.interactions import k_core
from prep.ratings import CONVERSION, load_raw
from prep.sources import HOW_TO_GET, SOURCES, get_source
from prep.sources.anime import Anime
from prep.sources.base import RawData, SourceOptions
from prep.sources.yelp import STATE, state_of

Name = Literal["ml-100k", "yelp", "amazon-music", "amazon-games", "amazon-movies", "anime"]

LEAST_RATINGS = (5, 10, 20, 50, 100)  # of a user, in the variants
_BUILT = "as built"
_UNRATED = "and unrated (-1): "
_FIGURES = ("users", "items", "instances")
_WIDE_OFF = 1.5  # with a larger ratio, the report says that the copy cannot have the paper's counts


@dataclass(frozen=True)
class Counts:
    """A row of Table 1."""

    users: int
    items: int
    instances: int

    @property
    def sparsity(self) -> float:
        """The share of (user, item) pairs without an instance, in per cent."""
        pairs = self.users * self.items
        return 100 * (1 - self.instances / pairs) if pairs else math.nan


PAPER: dict[str, tuple[Counts, float]] = {
    "yelp": (Counts(15_081, 10_186, 228_000), 99.85),
    "amazon-music": (Counts(125_627, 65_019, 162_261), 99.99),
    "amazon-games": (Counts(30_195, 23_096, 165_571), 99.98),
    "amazon-movies": (Counts(24_191, 49_154, 972_536), 99.92),
    "anime": (Counts(24_859, 11_188, 6_111_860), 97.80),
}
"""The paper's Table 1 with its sparsity, which is rounded (for music, rounded down)."""

RELEASES: dict[str, tuple[str, ...]] = {
    "yelp": (
        "Yelp has replaced its dataset several times, with other cities and states in each; a copy of another "
        "year has other counts for Missouri.",
    ),
    "amazon-music": (
        "The 5-core file of 2018 holds 169,781 reviews; the complete file of 2023 about 130,400 of 101,000 users "
        "on 70,500 items, 1.3 a user as in the paper.",
    ),
    "amazon-games": (
        "The 5-core file of 2018 holds 497,577 reviews, three times the paper's; newer releases hold more.",
    ),
    "amazon-movies": (
        "The paper's 40 instances a user are more than a complete file or a 5-core has: heavy users were chosen.",
    ),
    "anime": (
        "The published rating.csv has 7,813,737 lines of 73,515 users, those with -1 included. The paper has a "
        "third of the users and most of the lines: heavy users were chosen.",
        "Adult titles count here, although a build leaves them out without --keep-adult: the paper's 11,188 items "
        "are more than the 11,153 other titles in the published anime.csv.",
    ),
    "ml-100k": ("The paper does not use MovieLens 100K; there is nothing to compare with.",),
}


@dataclass(frozen=True)
class Variant:
    """One way of counting a copy: its name in a few words, and the counts."""

    name: str
    counts: Counts


def run_table1(
    dataset: Name | None = None,
    raw: Path | None = None,
    state: str | None = None,
    strict: bool = False,
    json: Path | None = None,
) -> None:
    """Print the paper's Table 1 beside the counts of your copy of a dataset, and why they differ.

    Example:
        --dataset anime --raw downloads/anime

    Args:
        dataset: whose copy to count. Without it, the paper's table alone.
        raw: the raw files as for `python -m prep build`. Without it, the paper's table and where to get the files.
        state: for yelp: the state whose businesses count. Without it, MO, as in the paper.
        strict: stop at the first line that cannot be read.
        json: also write the numbers here.
    """
    check_json(json)
    if raw is not None and dataset is None:
        raise InputError(f"--raw {raw}: say of which dataset, with --dataset")
    print(format_paper())
    if dataset is None or (raw is None and dataset in PAPER):
        result: dict[str, Any] = {"paper": {name: _row(PAPER[name][0]) for name in PAPER}}
        print("\n".join(["", "To compare your own copy:", *how_to_get(dataset)]))
    else:
        result = measure(dataset, SourceOptions(raw=raw, state=state, strict=strict))
        print(format_report(result))
    write_json(json, result)


def how_to_get(dataset: str | None) -> list[str]:
    """How to get one dataset, or all, in the words of their sources."""
    return [f"  {HOW_TO_GET[name]}" for name in ([dataset] if dataset else PAPER)]


def measure(dataset: str, options: SourceOptions) -> dict[str, Any]:
    """Count a copy in all its variants; the content of `--json`.

    Args:
        dataset: name of a dataset in `prep.sources.SOURCES`.
        options: where its raw files are, and how to read them.

    Raises:
        InputError: there is no such dataset, or it cannot be read.
    """
    if dataset not in SOURCES:
        raise InputError(f"--dataset {dataset}: known are {', '.join(sorted(SOURCES))}")
    if dataset == "anime":
        options = _with_all_titles(options)
    data = load_raw(get_source(dataset), options)
    paper = PAPER[dataset][0] if dataset in PAPER else None
    variants = variants_of(data)
    if dataset == "anime":
        everything = load_raw(Anime(keep_unrated=True), options)
        more = variants_of(everything)
        variants += [replace(v, name=f"{_UNRATED}{v.name}") for v in more]
    built = next(variant for variant in variants if variant.name == _BUILT)
    nearest = min(variants, key=lambda v: distance(v.counts, paper)) if paper else None
    return {
        "dataset": dataset,
        "origin": data.origin,
        "files": dict(data.files),
        "paper": _row(paper) if paper else None,
        "copy": _row(built.counts),
        "ratios": _ratios(built.counts, paper) if paper else None,
        "variants": [
            {
                "name": v.name,
                **_row(v.counts),
                "distance": distance(v.counts, paper) if paper else None,
            }
            for v in variants
        ],
        "nearest": nearest.name if nearest else None,
        "nearest_ratios": _ratios(nearest.counts, paper) if nearest and paper else None,
        "skipped": {report.label: report.counts for report in data.skipped if report.total},
        "left_out": dict(data.left_out or {}),
        "notes": [
            *notes_on(data, built.counts, paper),
            *_state_note(dataset, options),
            *RELEASES[dataset],
        ],
    }


def _with_all_titles(options: SourceOptions) -> SourceOptions:
    """Options to read anime as the paper counts it: adult titles too."""
    if options.raw is not None and (options.raw / CONVERSION).is_file():
        raise InputError(
            f"{options.raw}: a conversion lacks rows that count here; give the publisher's files with --raw"
        )
    return replace(options, keep_adult=True)


def variants_of(data: RawData) -> list[Variant]:
    """Count a copy in several ways; a way with the same counts as an earlier one is left out.

    Args:
        data: the data as the source read them.

    Returns:
        The counts of all valid ratings; without repeated ones (as built); of described items only; of users and
        items with enough ratings.
    """
    user = data.ratings["user_id"].cat.codes.to_numpy(np.int64)
    item = data.ratings["item_id"].cat.codes.to_numpy(np.int64)
    ids = data.ratings["item_id"].cat.categories
    described = ids.isin(set(data.items["item_id"]))
    variants = [Variant("every readable rating", _count(user, item))]
    pairs = np.unique(user * len(ids) + item)
    user, item = pairs // len(ids), pairs % len(ids)
    built = Variant(_BUILT, _count(user, item))
    variants.append(built)
    is_described = described[item]
    counts = _count(user[is_described], item[is_described])
    variants.append(Variant("of described items only", counts))
    for name, kept in _cores(user, item):
        variants.append(Variant(name, _count(user[kept], item[kept])))
    first_of = {variant.counts: variant for variant in [*reversed(variants), built]}
    return [v for v in variants if first_of[v.counts] is v and (v.counts.instances or v is built)]


def _cores(user: np.ndarray, item: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    for least in LEAST_RATINGS:
        yield f"of users with at least {least}", k_core(user, item, least, 1)
    yield "of items with at least 5", k_core(user, item, 1, 5)
    for least in LEAST_RATINGS[:2]:
        yield f"{least}-core of users and items", k_core(user, item, least, least)


def _count(user: np.ndarray, item: np.ndarray) -> Counts:
    users, items = (int(np.count_nonzero(np.bincount(codes))) for codes in (user, item))
    return Counts(users, items, len(user))


def distance(counts: Counts, paper: Counts) -> float:
    """Mean over users, items and instances of |log(counts / paper)|; 0 where they are the same."""
    return float(np.mean([abs(math.log(ratio)) for ratio in _ratios(counts, paper).values()]))


def _ratios(counts: Counts, paper: Counts) -> dict[str, float]:
    return {name: getattr(counts, name) / getattr(paper, name) for name in _FIGURES}


def _row(counts: Counts) -> dict[str, float]:
    return {**asdict(counts), "sparsity": counts.sparsity}


def _state_note(dataset: str, options: SourceOptions) -> list[str]:
    if dataset != "yelp" or state_of(options) == STATE:
        return []
    return ["The paper counts the businesses of Missouri, --state MO."]


def notes_on(data: RawData, built: Counts, paper: Counts | None) -> list[str]:
    """Why a copy may have other counts than the paper."""
    notes = []
    repeated = len(data.ratings) - built.instances
    if repeated:
        notes.append(
            f"{repeated:,} ratings are repeated by the same user later; the last one counts."
        )
    for report in data.skipped:
        if report.total:
            why = ", ".join(f"{reason} ({count:,})" for reason, count in report.counts.items())
            notes.append(f"{report.label}: {report.total:,} lines cannot be read: {why}.")
    for why, count in (data.left_out or {}).items():
        share = len(data.ratings) / (len(data.ratings) + count)
        notes.append(f"{count:,} rows left out: {why}; {share:.1%} are kept.")
    missing = ~data.ratings["item_id"].cat.categories.isin(set(data.items["item_id"]))
    if missing.any():
        notes.append(f"{int(missing.sum()):,} rated items are not described in the file of items.")
    return notes + (_impossible(data, built, paper) if paper else [])


def _impossible(data: RawData, built: Counts, paper: Counts) -> list[str]:
    """Why no part of a copy can have the paper's counts; empty if one may."""
    notes = []
    for name in ("user", "item"):
        share = getattr(built, f"{name}s") / getattr(paper, f"{name}s")
        average = paper.instances / getattr(paper, f"{name}s")
        least = int(np.bincount(data.ratings[f"{name}_id"].cat.codes).min())
        if least > average:
            notes.append(
                f"Every {name} of this copy has at least {least} ratings; those of the paper have {average:.1f} "
                "on average, so its file was not filtered like this one."
            )
        if share * _WIDE_OFF < 1:
            notes.append(
                f"This copy has {share:.2%} of the paper's {name}s: it is a part, or another release; no choice "
                "among its ratings makes up for that."
            )
    if built.instances > _WIDE_OFF * paper.instances:
        notes.append(
            f"This copy has {built.instances / paper.instances:.1f} times the paper's instances: a newer release, "
            "or one of which the paper used a part."
        )
    return notes


def format_paper() -> str:
    """The paper's Table 1 as text."""
    rows = [
        [
            name,
            *_figures(asdict(counts)),
            f"{sparsity:.2f} %",
            f"{counts.instances / counts.users:.1f}",
            f"{counts.instances / counts.items:.1f}",
        ]
        for name, (counts, sparsity) in PAPER.items()
    ]
    header = ["", *_FIGURES, "sparsity", "per user", "per item"]
    return f"Table 1 of the paper\n{format_table(header, rows)}"


def format_report(result: dict[str, Any]) -> str:
    """A copy beside the paper as text."""
    paper = result["paper"]
    rows = [_table_row("paper", paper)] if paper else []
    option = " with --keep-adult" if result["dataset"] == "anime" else ""
    rows.append(_table_row(f"your copy, as built{option}", result["copy"]))
    if paper:
        rows.append(_ratio_row(result["ratios"]))
    variants = [_table_row(variant["name"], variant) for variant in result["variants"]]
    if paper:
        for row in variants:
            row.append("<- nearest to the paper" if row[0] == result["nearest"] else "")
        variants.append(_ratio_row(result["nearest_ratios"]))
    header = ["", *_FIGURES, "sparsity"]
    return "\n".join(
        [
            "",
            f"Your copy of {result['dataset']}: {result['origin']}",
            format_table(header, rows),
            "",
            "The same copy, counted in other ways",
            format_table([*header, ""] if paper else header, variants, left=(0, 5)),
            "",
            "Why the counts differ",
            *(f"- {note}" for note in result["notes"]),
        ]
    )


def _figures(row: dict[str, Any]) -> list[str]:
    return [f"{row[name]:,}" for name in _FIGURES]


def _table_row(label: str, row: dict[str, Any]) -> list[str]:
    return [label, *_figures(row), f"{row['sparsity']:.3f} %"]


def _ratio_row(ratios: dict[str, float]) -> list[str]:
    return ["  divided by the paper's", *(f"{ratios[name]:.3g} x" for name in _FIGURES)]
