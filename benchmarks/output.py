"""Where the benchmarks write their results and figures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from jaxsim import InputError
from jaxsim.files import check_file, staged_file, write_json, write_text


def check_json(path: Path | None) -> None:
    """`check_file` of `--json`."""
    check_file("--json", path)


def check_files(json: Path | None, csv: Path | None, html: Path | None) -> None:
    """`check_file` of `--json`, `--csv` and `--html`."""
    for option, path in (("--json", json), ("--csv", csv), ("--html", html)):
        check_file(option, path)


def write_report(
    result: Any,
    json: Path | None,
    csv: tuple[Path | None, Callable[[Any], pd.DataFrame]],
    html: tuple[Path | None, Callable[[Any], str]],
) -> None:
    """Write a result as JSON, as a table and as a page, each where a path is given.

    Args:
        result: of a measurement.
        json: the path of the JSON.
        csv: the path of the table, and what makes it of the result.
        html: the path of the page, and what makes it of the result.
    """
    write_json(json, result)
    if csv[0] is not None:
        write_text(csv[0], csv[1](result).to_csv(index=False, lineterminator="\n"))
    if html[0] is not None:
        write_text(html[0], html[1](result))


def check_plot(path: Path | None) -> None:
    """Make sure, before any long work, that `--plot` can be drawn, if it is given.

    Raises:
        InputError: it is a folder, cannot be written, or its name does not end in a picture format.
    """
    check_file("--plot", path)
    if (
        path is not None
        and path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes()
    ):
        raise InputError(f"--plot {path}: no picture format; end it in .png, .pdf or .svg")


def write_plot(path: Path, figure: Figure) -> None:
    """Write a figure in the format that the name ends in, whole or not at all."""
    with staged_file(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())
