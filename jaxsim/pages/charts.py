"""What every chart of a page needs: an image of lines and texts, and round numbers on its axes."""

import math
import xml.etree.ElementTree as ET

from jaxsim.pages.markup import tag


def svg(width: int, height: int, title: str, style: str = "") -> ET.Element:
    """An empty image, as wide as its place on the page.

    Args:
        width, height: in the units of its contents.
        title: what it shows, for people who cannot see it.
        style: its class, if it has one.
    """
    image = tag("svg", tag("title", title), viewBox=f"0 0 {width} {height}", role="img")
    if style:
        image.set("class", style)
    return image


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within a range, at most `most` of them."""
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]
