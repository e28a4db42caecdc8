"""`python -m benchmarks validity`: whether the simulator ranks recommenders as people do.

Many policies pick among the items that people rated in the test split, so their real like rates are known. A
simulator is asked for the like rates of the same picks. docs/validity.md defines every figure.
"""

from functools import partial
from pathlib import Path

from benchmarks.output import check_files, write_report
from benchmarks.validity.long_table import long_table
from benchmarks.validity.measure import validity
from benchmarks.validity.page import format_page
from benchmarks.validity.report import format_report
from benchmarks.validity.settings import Settings
from jaxsim import load_dataset


def run_validity(
    dataset: str = "ml-100k",
    picks: int = Settings.picks,
    min_interactions: int = Settings.min_interactions,
    max_users: int = Settings.max_users,
    context: int = Settings.context,
    resamples: int = Settings.resamples,
    halves: int = Settings.halves,
    draws: int = Settings.draws,
    seed: int = Settings.seed,
    json: Path | None = None,
    csv: Path | None = None,
    html: Path | None = None,
) -> None:
    """Measure whether the simulator ranks recommenders as people do.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        picks: how many of a user's own test items each policy picks.
        min_interactions: leave out users with fewer test interactions, so that there is something to choose.
        max_users: at most so many users, drawn at random if there are more.
        context: the longest history.
        resamples: resamples of the users, for the intervals.
        halves: how often the users are divided into two random halves.
        draws: simulated sequences of each user.
        seed: of everything random.
        json: also write the result here.
        csv: also write every figure here, one a row.
        html: also write a page here that shows the result in charts and words.
    """
    check_files(json, csv, html)
    settings = Settings(
        picks=picks,
        min_interactions=min_interactions,
        max_users=max_users,
        context=context,
        resamples=resamples,
        halves=halves,
        draws=draws,
        seed=seed,
    )
    settings.check()
    result = validity(load_dataset(dataset), settings, partial(print, flush=True))
    print(format_report(result))
    write_report(result, json, (csv, long_table), (html, format_page))
