"""`python -m benchmarks ablations`."""

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ablations.measure import Row, ablate
from benchmarks.fidelity.events import CONTEXT, Split
from benchmarks.fidelity.report import interval, number, with_interval
from benchmarks.fidelity.study import Settings
from benchmarks.output import check_json, write_json
from jaxsim import load_dataset
from jaxsim.tables import format_table
from prep.features.embedding import HASHED

_ERROR = "like_rate_error"
_COLUMNS = {
    "taste": "taste",
    "taste_difference": "difference",
    "cold": "cold items",
    "cold_difference": "difference",
    "paper": "votes",
    "paper_difference": "difference",
    _ERROR: "like rate error",
}
_GROUPS = {
    "kernel": "the taste model's kernel",
    "keywords": "the keywords",
    "votes": "the three votes",
    "history": "the history",
}


def run_ablations(
    dataset: str = "ml-100k",
    split: Split = "test",
    context: int = CONTEXT,
    resamples: int = 1000,
    seed: int = 0,
    quick: bool = False,
    replies: tuple[Path, ...] = (),
    encoders: tuple[str, ...] = (HASHED,),
    json: Path | None = None,
) -> None:
    """Measure what each part of the simulator is worth, by leaving it out.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        split: which labels to predict.
        context: the longest history that a label is predicted from.
        resamples: resamples of the users, for the intervals.
        seed: of everything random.
        quick: leave out the cold items, which take most of the time.
        replies: files of replies to T_obj that the dataset was built from, if not those of the package.
        encoders: other text encoders to try; all but `hashed` need `pip install -e '.[embed]'`.
        json: also write the result here.
    """
    check_json(json)
    settings = Settings(
        split=split, context=context, resamples=resamples, seed=seed, cold_items=not quick
    )
    settings.check()
    say = partial(print, flush=True)
    result = ablate(load_dataset(dataset), settings, replies, encoders, say)
    print(format_ablations(result))
    write_json(json, result)


def format_ablations(result: dict[str, Any]) -> str:
    """The result as tables."""
    title = (
        f"{result['dataset']}, {result['split']} split: ROC-AUC on {result['labels']:,} labels of "
        f"{result['users']:,} users; 95 % intervals of differences over users"
    )
    parts = [title]
    for group, about in _GROUPS.items():
        rows = result[group]
        if group in ("kernel", "keywords"):
            rows = [result["full"], *rows]
        parts.append(_table(about, rows))
    notes = "\n".join(f"note: {line}" for line in result["notes"])
    return "\n\n".join(part for part in (*parts, notes) if part)


def _table(about: str, rows: list[Row]) -> str:
    keys = [key for key in _COLUMNS if any(key in row for row in rows)]
    lines = [(row["name"], *(_cell(key, row) for key in keys)) for row in rows]
    return format_table((about, *(_COLUMNS[key] for key in keys)), lines)


def _cell(key: str, row: Row) -> str:
    if key.endswith("_difference"):
        return interval(row.get(key), "+.3f")
    return with_interval(row.get(key), "+.3f") if key == _ERROR else number(row.get(key))
