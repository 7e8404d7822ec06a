"""How the report writes numbers, names and legends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

THIN = "\u202f"
MINUS = "\u2212"
_TO = "–\u2060"  # a dash after which no line ends


def text(value: Any) -> str:
    """Anything as HTML text: what came from a file stays letters, whatever it holds."""
    return escape(str(value))


def area(km2: float) -> str:
    """Square kilometres with their unit, in groups of three digits."""
    return f"{bare_area(km2)}{THIN}km²"


def bare_area(km2: float) -> str:
    """The same without the unit, for a column that names it."""
    return (f"{km2:,.0f}" if km2 >= 100 else f"{km2:.3g}").replace(",", THIN)


def about(km2: float) -> str:
    """Square kilometres to three figures, for a headline."""
    if km2 < 1000:
        return area(km2)
    power = 10 ** (math.floor(math.log10(km2)) - 2)
    return area(round(km2 / power) * power)


def percent(share: float | None, digits: int = 0) -> str:
    """A share of one in percent; a dash where there is none."""
    if share is None or not math.isfinite(share):
        return "–"
    if 0 < share < 0.005 and digits == 0:
        return f"under 1{THIN}%"
    return f"{100 * share:.{digits}f}{THIN}%"


def figure(value: float | None, digits: int = 3) -> str:
    """A plain number; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def count(number: float) -> str:
    """A whole number, in groups of three digits."""
    return f"{number:,.0f}".replace(",", THIN)


def degrees(bounds_wsen: Sequence[float]) -> str:
    """A box in words: 81–92° E, 43–48° N."""
    west, south, east, north = bounds_wsen

    def side(low: float, high: float, positive: str, negative: str) -> str:
        if low >= 0:
            return f"{low:.4g}{_TO}{high:.4g}°{THIN}{positive}"
        if high <= 0:
            return f"{-high:.4g}{_TO}{-low:.4g}°{THIN}{negative}"
        return f"{-low:.4g}°{THIN}{negative} to {high:.4g}°{THIN}{positive}"

    return f"{side(west, east, 'E', 'W')}, {side(south, north, 'N', 'S')}"


def listed(words: Iterable[str]) -> str:
    """Words with commas between, and an "and" before the last."""
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def region_title(name: str) -> str:
    """A region's name as a heading: ``turpan-hami`` becomes Turpan-Hami."""
    if name.startswith("bbox_"):
        sides = name.removeprefix("bbox_").split("_")
        try:
            return degrees([float(side) for side in sides])
        except ValueError:
            return name
    return "-".join(part[:1].upper() + part[1:] for part in name.split("-"))


def swatch(colour: str, style: str = "") -> str:
    """A small rectangle of a colour, as legends have it."""
    painted = f' style="background:{text(colour)}"' if colour else ""
    return f'<span class="swatch {style}"{painted}></span>' if style else f'<span class="swatch"{painted}></span>'


def missing(sentence: str) -> str:
    """One line in the place of what is not there."""
    return f'<p class="missing">{text(sentence)}</p>'
