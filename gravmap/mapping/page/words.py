"""Number formats of pages, and rendering of the jinja2 templates that use them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from gravmap import __version__, plotting

THIN = "\u202f"
MINUS = "\u2212"
_TO = "–\u2060"  # a dash without a line break after it
_PACKAGE = "gravmap.mapping.page"


def render(template: str, *, package: str = _PACKAGE, **values: Any) -> str:
    """Render a template; every value is escaped, so names from files are always shown as text.

    Parameters
    ----------
    template : str
        File name, ``*.html.j2``.
    package : str
        Package whose folder ``templates`` contains it; it may extend and import those of this package.
    **values
        Variables of the template. A missing one raises ``jinja2.UndefinedError``.

    Returns
    -------
    str
        HTML.
    """
    return _environment(package).get_template(template).render(values)


def _with_code(value: Any) -> Any:
    """What stands in backticks in a sentence, a command, as code."""
    if isinstance(value, str) and not isinstance(value, Markup) and "`" in value:
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(value))))
    return value


@cache
def _environment(package: str) -> jinja2.Environment:
    folders = [jinja2.PackageLoader(each) for each in dict.fromkeys((package, _PACKAGE))]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_with_code,
    )
    environment.filters |= {
        each.__name__: each
        for each in (about, area, bare_area, capitalised, count, degrees, figure, listed, metres, percent, significant)
    }
    environment.globals |= {"version": __version__, "palette": plotting}
    return environment


def area(km2: float) -> str:
    """An area with its unit, in groups of three digits."""
    return f"{bare_area(km2)}{THIN}km²"


def bare_area(km2: float) -> str:
    """An area in km² without the unit, for a column that names it."""
    return (f"{km2:,.0f}" if km2 >= 100 else f"{km2:.3g}").replace(",", THIN)


def about(km2: float) -> str:
    """An area to three significant digits, for a headline."""
    if km2 < 1000:
        return area(km2)
    power = 10 ** (math.floor(math.log10(km2)) - 2)
    return area(round(km2 / power) * power)


def metres(length_m: float) -> str:
    """A thickness with its unit, to three significant digits; a dash for NaN."""
    if not math.isfinite(length_m):
        return "–"
    return f"{count(float(f'{length_m:.3g}'))}{THIN}m"


def percent(fraction: float | None, digits: int = 0) -> str:
    """A fraction of one in percent; a dash for None or NaN."""
    if fraction is None or not math.isfinite(fraction):
        return "–"
    if 0 < fraction < 0.005 and digits == 0:
        return f"under 1{THIN}%"
    return f"{100 * fraction:.{digits}f}{THIN}%"


def figure(value: float | None, digits: int = 3) -> str:
    """A number with fixed decimals; a dash for None or NaN."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def significant(value: float, digits: int = 3, sign: str = "") -> str:
    """A number to `digits` significant digits; ``sign="+"`` adds the sign of positive ones."""
    return f"{value:{sign}.{digits}g}".replace("-", MINUS)


def count(number: float) -> str:
    """A whole number, in groups of three digits."""
    return f"{number:,.0f}".replace(",", THIN)


def degrees(bounds_wsen: Sequence[float]) -> str:
    """A box as text: 81–92° E, 43–48° N."""
    west, south, east, north = bounds_wsen

    def side(low: float, high: float, positive: str, negative: str) -> str:
        if low >= 0:
            return f"{low:.4g}{_TO}{high:.4g}°{THIN}{positive}"
        if high <= 0:
            return f"{-high:.4g}{_TO}{-low:.4g}°{THIN}{negative}"
        return f"{-low:.4g}°{THIN}{negative} to {high:.4g}°{THIN}{positive}"

    return f"{side(west, east, 'E', 'W')}, {side(south, north, 'N', 'S')}"


def listed(words: Iterable[str]) -> str:
    """Join words with commas, and "and" before the last."""
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def capitalised(words: str) -> str:
    """Capitalise the first letter; unlike ``str.capitalize`` the others are not changed."""
    return words[:1].upper() + words[1:]


def region_title(name: str) -> str:
    """A region's name as a heading: ``turpan-hami`` becomes Turpan-Hami."""
    if name.startswith("bbox_"):
        sides = name.removeprefix("bbox_").split("_")
        try:
            return degrees([float(side) for side in sides])
        except ValueError:
            return name
    return "-".join(capitalised(part) for part in name.split("-"))
