"""The whole page: one file without any reference to another, in light and dark, for a phone or a desk."""

from collections.abc import Mapping
from typing import Any

from benchmarks.fidelity.page import sections, studies
from jaxsim.pages.markup import document, tag


def format_page(result: Mapping[str, Any]) -> str:
    """The measurement as a page of HTML, from the content of `--json`."""
    parts = (
        sections.headline,
        sections.ranking,
        sections.calibration,
        sections.groups,
        studies.histories,
        studies.cold_items,
        studies.control_table,
        studies.settings,
    )
    body = tag("main", [part(result) for part in parts])
    return document(f"Fidelity of {result['dataset']}", [body])
