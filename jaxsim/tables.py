"""Tables of text for terminals, in one look for every command."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNLIMITED = 100_000  # columns; a table is never wrapped


def format_table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    markdown: bool = False,
    left: Sequence[int] = (0,),
) -> str:
    """A table as lines of plain text, without colours.

    Args:
        header: C names of columns.
        rows: R rows of C cells each; a cell is shown as `str` of it.
        markdown: with the bars of a Markdown table; otherwise columns are parted by two spaces.
        left: columns that are aligned to the left; the others hold numbers and are aligned to the right.

    Returns:
        The lines joined by line ends, without trailing spaces.
    """
    style = box.MARKDOWN if markdown else None
    table = Table(box=style, padding=(0, 1) if markdown else (0, 2, 0, 0), pad_edge=markdown)
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="left" if index in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    console = Console(
        file=io.StringIO(),
        width=_UNLIMITED,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(table)
    lines = [line.rstrip() for line in captured.get().split("\n")]
    return "\n".join(line for line in lines if line)
