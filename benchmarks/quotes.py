"""Results that the README and the pages of docs/ quote, copied from the files in benchmarks/results/.

A quote stands between two HTML comments, which a reader of the rendered page does not see. The first comment names
the file and what to take from it:

    <!-- number throughput-ml-100k.json best.steps_per_second ~2 -->220,000<!-- /number -->

    <!-- block training-ml-100k.json training -->
    ...
    <!-- /block -->

A number has a path and a format. The path is fields with dots between them; `rows[policy=ppo,users=train]` takes
the first row with these values, and a factor such as `*1e-9` may follow. The format is Python's, or `~2` for two
significant digits. A block has a name in BLOCKS. No line may start with a comment of a number, because Markdown
would take the whole line for HTML.

After a result is recorded again, `python -m benchmarks quotes` rewrites every quote. With `--check` it only says
which pages are out of date; the tests check the same.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ablations.command import format_ablations
from benchmarks.departure.command import format_departure
from benchmarks.fidelity.exposure_report import format_exposure
from benchmarks.fidelity.report import format_summary
from benchmarks.ope.command import format_ope
from benchmarks.rivals.command import format_rivals
from benchmarks.satiation import format_satiation
from benchmarks.scaling.report import format_constants, format_scaling
from benchmarks.table6.report import format_rows
from benchmarks.throughput.options import format_options
from benchmarks.training.report import format_results
from benchmarks.training.seed_order import format_order
from benchmarks.validity.report import format_summary as format_validity
from benchmarks.visits.command import format_visits
from jaxsim import InputError
from jaxsim.files import write_text
from jaxsim.tables import format_table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_NUMBER = re.compile(r"(<!-- number (\S+) (\S+) (\S+) -->)(.*?)(<!-- /number -->)", re.DOTALL)
_BLOCK = re.compile(r"(<!-- block (\S+) (\S+) -->\n)(.*?)(<!-- /block -->)", re.DOTALL)
_STEP = re.compile(r"(\w+)(?:\[(.*?)\])?(?:\.|$)")


def run_quotes(check: bool = False) -> None:
    """Copy the kept results into the pages that quote them.

    Example:
        --check

    Args:
        check: change nothing; fail if a page quotes something else than the kept results.
    """
    outdated = []
    for page in pages():
        text = page.read_text("utf-8")
        new = refreshed(text)
        if new == text:
            continue
        outdated.append(str(page.relative_to(ROOT)))
        if not check:
            write_text(page, new)
    if check and outdated:
        raise InputError(
            f"{', '.join(outdated)}: quotes other results than benchmarks/results; run python -m benchmarks quotes"
        )
    print(f"rewritten: {', '.join(outdated)}" if outdated else "every quote is up to date")


def pages() -> list[Path]:
    """The README and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def refreshed(text: str) -> str:
    """The text of a page with every quote taken from the kept results.

    Raises:
        InputError: a quote names a file, path, format or block that does not exist.
    """
    text = _NUMBER.sub(lambda m: f"{m[1]}{_number(m[2], m[3], m[4])}{m[6]}", text)
    return _BLOCK.sub(lambda m: f"{m[1]}{_block(m[2], m[3])}\n\n{m[5]}", text)


def _block(name: str, kind: str) -> str:
    if kind not in BLOCKS:
        raise InputError(f"block {name} {kind}: unknown; choose from {', '.join(BLOCKS)}")
    return BLOCKS[kind](_read(name))


def _read(name: str) -> Any:
    path = RESULTS / name
    if not path.is_file():
        raise InputError(f"{path}: does not exist, but a page quotes it")
    text = path.read_text("utf-8")
    return json.loads(text) if path.suffix == ".json" else text


def _number(name: str, path: str, form: str) -> str:
    steps, _, factor = path.partition("*")
    try:
        value = _look_up(_read(name), steps) * float(factor or 1)
        return format_number(value, form)
    except (KeyError, StopIteration, TypeError, ValueError) as error:
        raise InputError(f"number {name} {path} {form}: cannot be quoted ({error!r})") from None


def _look_up(value: Any, path: str) -> Any:
    """The value at a path of fields, each with an optional choice of a row."""
    for field, choice in _STEP.findall(path):
        value = value[field]
        if choice:
            wanted = dict(pair.split("=") for pair in choice.split(","))
            value = next(row for row in value if all(str(row[k]) == v for k, v in wanted.items()))
    return value


def format_number(value: float, form: str) -> str:
    """A number in a format of Python's, or rounded to N significant digits by `~N`."""
    if not form.startswith("~"):
        return format(value, form)
    rounded = float(f"{value:.{int(form[1:])}g}")
    return f"{rounded:,.0f}" if rounded == int(rounded) else f"{rounded:,}"


# ---- blocks ------------------------------------------------------------------------------------------------


def _code(text: str) -> str:
    return f"```\n{text.rstrip()}\n```"


def table2_block(result: dict[str, Any]) -> str:
    """The rows of Table 2 for greedy agents and baselines, users that were trained on first."""
    rows = [row for row in result["rows"] if row["mode"] != "sampled"]
    rows.sort(key=lambda row: (row["users"] != "train", -row["a_rwd"]))
    header = ["policy", "users", "A.Rwd (95 % interval)", "over like_rate", "to oracle"]
    has_static = all("share_past_static_best" in row for row in rows)
    if has_static:
        header.insert(4, "over static_best")
    cells = [
        (
            f"{row['policy']} ({row['seeds']} seeds)" if row["seeds"] > 1 else row["policy"],
            row["users"],
            f"{row['a_rwd']:.2f} ({row['a_rwd_low']:.2f} to {row['a_rwd_high']:.2f})",
            f"{row['paired_low']:+.2f} to {row['paired_high']:+.2f}",
            *([_over_static(row)] if has_static else []),
            f"{row['share_of_oracle']:.1%}",
            f"{row['liking']:.1f}",
            f"{row['coverage']:.1%}",
        )
        for row in rows
    ]
    return format_table((*header, "Liking%", "coverage"), cells, markdown=True, left=(0, 1))


def _over_static(row: dict[str, Any]) -> str:
    return f"{row['paired_static_best_low']:+.2f} to {row['paired_static_best_high']:+.2f}"


def table2_short_block(result: dict[str, Any]) -> str:
    """Greedy agents and baselines, a row each, with both groups of users side by side."""
    rows = {
        (row["policy"], row["users"]): row for row in result["rows"] if row["mode"] != "sampled"
    }
    names = sorted({name for name, _ in rows}, key=lambda name: -rows[name, "train"]["a_rwd"])
    cells = []
    for name in names:
        seeds = rows[name, "train"]["seeds"]
        row = [f"{name} ({seeds} seeds)" if seeds > 1 else name]
        for users in ("train", "held_out"):
            of = rows[name, users]
            row.append(f"{of['a_rwd']:.2f} ({of['a_rwd_low']:.2f} to {of['a_rwd_high']:.2f})")
            row.append(f"{of['share_of_oracle']:.0%}")
        cells.append(tuple(row))
    header = ("policy", "users of training", "to oracle", "held-out users", "to oracle")
    return format_table(header, cells, markdown=True, left=(0,))


def demo_block(output: str) -> str:
    """What `make demo` prints from the training on; the build before it is cut."""
    return _code(output[output.index("$ python -m agents train") :])


BLOCKS: dict[str, Callable[[Any], str]] = {
    "table2": table2_block,
    "table2-short": table2_short_block,
    "table6": lambda result: format_rows(result, markdown=True),
    "training": lambda result: _code(format_results(result)),
    "ablations": lambda result: _code(format_ablations(result)),
    "fidelity": lambda result: _code(format_summary(result)),
    "exposure": lambda result: _code(format_exposure(result)),
    "departure": lambda result: _code(format_departure(result)),
    "visits": lambda result: _code(format_visits(result)),
    "satiation": lambda result: _code(format_satiation(result)),
    "ope": lambda result: _code(format_ope(result)),
    "rivals": lambda result: format_rivals(result, markdown=True),
    "scaling": lambda result: _code(format_scaling(result)),
    "scaling-constants": format_constants,
    "seed-order": lambda result: _code(format_order(result)),
    "options": lambda result: _code(format_options(result)),
    "validity": lambda result: _code(format_validity(result)),
    "demo": demo_block,
}
