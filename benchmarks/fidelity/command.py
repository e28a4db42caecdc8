"""`python -m benchmarks fidelity`: how well the simulator predicts labels that it was not trained on.

Every label of the split is predicted from the interactions before it: by each vote and margin, by their ensemble,
and by simple predictors that see the same labels and that the simulator must beat. The labels are of all users:
f_sta and the user's part of `bias` know the training interactions of each of them. docs/fidelity.md defines every
figure.
"""

from functools import partial
from pathlib import Path

from benchmarks.fidelity.events import CONTEXT, Split
from benchmarks.fidelity.long_table import long_table
from benchmarks.fidelity.measure import fidelity
from benchmarks.fidelity.page.page import format_page
from benchmarks.fidelity.report import format_report
from benchmarks.fidelity.study import Settings
from benchmarks.output import check_files, write_report
from jaxsim import load_dataset


def run_fidelity(
    dataset: str = "ml-100k",
    split: Split = "test",
    context: int = CONTEXT,
    resamples: int = 1000,
    seed: int = 0,
    quick: bool = False,
    refit_f_sta: bool = True,
    json: Path | None = None,
    csv: Path | None = None,
    html: Path | None = None,
) -> None:
    """Measure how well the simulator predicts what held-out people liked.

    Example:
        --dataset ml-100k

    Args:
        dataset: name that `python -m prep build` has built, or path of a packed folder.
        split: which labels to predict.
        context: the longest history that a label is predicted from.
        resamples: resamples of the users, for the intervals.
        seed: of everything random.
        quick: leave out the cold items, which take most of the time.
        refit_f_sta: train f_sta again for items without any rating, five times, which takes half of the time.
        json: also write the result here.
        csv: also write every figure here, one a row.
        html: also write a page here that shows the result in charts and words.
    """
    check_files(json, csv, html)
    settings = Settings(
        split=split,
        context=context,
        resamples=resamples,
        seed=seed,
        cold_items=not quick,
        refit_f_sta=refit_f_sta,
    )
    settings.check()
    result = fidelity(load_dataset(dataset), settings, partial(print, flush=True))
    print(format_report(result))
    write_report(result, json, (csv, long_table), (html, format_page))
