"""The command `python -m agents report RUN... --out report.html`: one page that needs no network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from tqdm import tqdm

from agents.report.reasons import Vocabulary, describe_session, kind_of
from agents.report.runs import ReportedRun, read_runs
from agents.report.sessions import SampleSession, sample_sessions
from agents.runs.config import machine_changes
from agents.runs.experiment import PreparedRun
from jaxsim import InputError
from jaxsim.files import check_writable, write_text
from jaxsim.settings import check_settings

SESSIONS = 12
MOST_BYTES = 5_000_000
# Of one page. A recommendation takes about 1 kB with votes and 2 kB with the taste model.
MOST_STEPS = 2_000


@dataclass(frozen=True)
class ReportOptions:
    """Where the page is written, and how many sessions it shows."""

    out: Path
    """File to write, ending in .html; it replaces one of the same name."""
    sessions: Annotated[int, Ge(0), Le(200)] | None = None
    """Sample sessions of each run; with 0 the page has curves and results only. Without it 12, or as many as a
    page has room for."""
    flips: Annotated[int, Ge(0)] = 2
    """For how many recommendations of each session, from the first, the page says what would flip the response.
    This takes most of the time."""

    def check(self) -> None:
        """Raise an InputError for the first option that is not valid."""
        check_settings(self, option_prefix="--")
        if self.out.suffix != ".html":
            raise InputError(f"--out {self.out}: end the name in .html")
        if self.out.is_dir():
            raise InputError(f"--out {self.out}: is a folder; give a file")
        check_writable(self.out)


def report_runs(
    folders: Sequence[Path], options: ReportOptions, dataset: str | None = None
) -> None:
    """Write the page; arguments as in `agents.commands.report`."""
    # Not above: Bokeh takes long to import, and other commands go without it.
    from agents.report.page import format_page

    options.check()
    runs = read_runs(folders)
    loaded = [run.load(dataset) for run in runs]
    first = loaded[0][0]
    samples = _samples(runs, loaded, options.sessions)
    vocabulary = Vocabulary(first.dataset)
    with _progress(samples) as update:
        described = [
            {
                "label": run.label,
                "kind": kind_of(prepared.env),
                "sessions": [
                    describe_session(prepared, vocabulary, session, options.flips, update)
                    for session in of_run
                ],
            }
            for run, (prepared, _), of_run in zip(runs, loaded, samples, strict=True)
        ]
    notes = [
        note for run, of_run in zip(runs, samples, strict=True) for note in _notes(run, of_run)
    ]
    page = format_page(first.dataset.name, runs, described, vocabulary.to_json(), notes)
    size = len(page.encode("utf-8"))
    if size > MOST_BYTES:
        raise InputError(
            f"the page would have {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}: give fewer --sessions "
            f"than {len(samples[0])}"
        )
    write_text(options.out, page)
    for note in notes:
        print(note)
    sessions = sum(len(of_run) for of_run in samples)
    print(
        f"{len(runs)} run{'s' * (len(runs) > 1)}, {sessions} sessions, {size / 1e6:.2f} MB, written to "
        f"{options.out}"
    )


def _samples(
    runs: Sequence[ReportedRun], loaded: Sequence[tuple[PreparedRun, Any]], wanted: int | None
) -> list[list[SampleSession]]:
    """Sample sessions of each run: as many as are wanted, or else as many as a page has room for.

    Raises:
        InputError: those that are wanted do not fit a page.
    """
    count = SESSIONS if wanted is None else wanted
    while True:
        samples = [_sample(run, *of_run, count) for run, of_run in zip(runs, loaded, strict=True)]
        steps = sum(len(session.steps) for of_run in samples for session in of_run)
        if steps <= MOST_STEPS:
            return samples
        fitting = min(len(samples[0]) * MOST_STEPS // steps, count - 1)
        if wanted is not None:
            sessions = sum(len(of_run) for of_run in samples)
            raise InputError(
                f"{sessions} sessions have {steps:,} recommendations, and a page shows {MOST_STEPS:,}: give "
                f"--sessions {fitting}{' or fewer' if fitting else ''}, or fewer runs"
            )
        count = fitting


def _sample(
    run: ReportedRun, prepared: PreparedRun, variables: Any, count: int
) -> list[SampleSession]:
    policy = prepared.algorithm.policy_of(variables)
    return sample_sessions(prepared, policy, run.returns, count) if count else []


@contextmanager
def _progress(samples: Sequence[Sequence[SampleSession]]) -> Iterator[Any]:
    """A bar over all recommendations, if the output is a terminal."""
    steps = sum(len(session.steps) for of_run in samples for session in of_run)
    with tqdm(total=steps, desc="explain", unit="step", disable=None, delay=1) as bar:
        yield bar.update


def _notes(run: ReportedRun, samples: Sequence[SampleSession]) -> list[str]:
    """What differs between the machine of the run and this one, and whether that changed the sessions."""
    notes = []
    if differing := machine_changes(run.config.machine):
        notes.append(f"{run.label} was trained with {', '.join(differing)}.")
    changed = sum(not session.is_as_recorded for session in samples)
    if changed:
        notes.append(
            f"{changed} of the {len(samples)} sessions of {run.label} earned something else here than in the "
            "evaluation that the table shows."
        )
    return notes
