"""The colours of the predictors, the same in every chart of the page."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from typing import Any

from jaxsim.pages.markup import tag

_COLOURS = ("s0", "s1", "s2", "s3", "s4", "s6", "s7")
GREY = "s5"


def series_of(result: Mapping[str, Any]) -> dict[str, str]:
    """The style of each predictor: models and margins differ, votes and baselines are grey."""
    kinds = {name: entry["kind"] for name, entry in result["predictors"].items()}
    coloured = [name for name, kind in kinds.items() if kind in ("model", "margin")]
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(coloured)}
    return {name: colours.get(name, GREY) for name in kinds}


def shown_in_charts(result: Mapping[str, Any]) -> list[str]:
    """The predictors in charts with room for few: models, margins and the best baseline."""
    return [
        name
        for name, entry in result["predictors"].items()
        if entry["kind"] in ("model", "margin") or name == result["reference"]
    ]


def legend(names: Iterable[str], series: Mapping[str, str]) -> ET.Element:
    """The colours of some predictors."""
    items = [
        tag("li", tag("span", class_=f"swatch {series.get(name, GREY)}"), name) for name in names
    ]
    return tag("ul", items, class_="legend")
