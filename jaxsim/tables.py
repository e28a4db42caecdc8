"""Tables of text for terminals, in the same style for every command."""

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_UNLIMITED = 100_000  # columns, so that a table is never wrapped


def format_table(
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    markdown: bool = False,
    left: Sequence[int] = (0,),
) -> str:
    """A table as lines of plain text, without colours.

    Args:
        header: names of the C columns.
        rows: R rows of C cells; each cell is shown as its `str`.
        markdown: draw the bars of a Markdown table; otherwise two spaces separate the columns.
        left: indices of the columns aligned to the left; the others hold numbers and are aligned to the right.

    Returns:
        The lines joined by line ends, without trailing spaces.
    """
    style = box.MARKDOWN if markdown else None
    table = Table(box=style, padding=(0, 1) if markdown else (0, 2, 0, 0), pad_edge=markdown)
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="left" if index in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    lines = render(table, width=_UNLIMITED).split("\n")
    return "\n".join(line for line in lines if line)


def render(*parts: RenderableType, width: int) -> str:
    """What rich prints for some parts on a terminal of `width` columns, without colours or trailing spaces.

    Settings of the real terminal do not change the text.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().split("\n"))
