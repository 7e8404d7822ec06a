"""The palette of every figure and page, and what every map has around it: graticule, scale bar and legend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gravmap.lattice import KM_PER_DEGREE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

# Okabe and Ito (2008): distinguishable with every common form of colour vision.
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
OCHRE = "#C77700"  # orange that can be read as text on white
PALE_BLUE = "#9AD0F0"

SERIES = (
    *(BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY),
    *("#7F7F7F", "#5E3C99", "#8C564B", "#999933", "#111111", "#8FB8DE"),
)
"""Colours of curves, in this order; gravmap's own network has the first."""

# Text and lines, from strong to faint.
INK, NOTE, GREY, MUTED, SILVER = "#333333", "#444444", "#555555", "#8A8A8A", "#B5B5B5"
# Areas behind them.
SAND, PANEL, BACKGROUND = "#DCD6C8", "#E6E6E2", "#F3F3F3"

NODATA_COLOUR = "#D9D9D9"
UNMAPPED_COLOUR = "#F5EEDC"  # below dots: ground that no geological map covers
OUTCROP_COLOUR = "#595959"
BASEMENT_COLOUR = "#A39B94"
MESOZOIC_COLOUR = "#C6D86B"


def decorate_map(axes: Axes, bounds_wsen: tuple[float, float, float, float], width_in: float) -> None:
    """Add a graticule, degree labels, true proportions at the middle latitude, and a scale bar 0.4 inches below a map.

    Parameters
    ----------
    axes : Axes
        With the map drawn in degrees.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    width_in : float
        Width of the map, inches.
    """
    from matplotlib.patches import Rectangle  # here: matplotlib takes a second to load

    west, south, east, north = bounds_wsen
    middle = (south + north) / 2
    axes.set_aspect(1 / np.cos(np.radians(middle)))
    step = round_step((east - west) / width_in)  # about a line per inch
    longitudes, latitudes = graticule(west, east, step), graticule(south, north, step)
    axes.set_xticks(longitudes, [degree_label(value, "E", "W") for value in longitudes], fontsize=8)
    axes.set_yticks(latitudes, [degree_label(value, "N", "S") for value in latitudes], fontsize=8)
    axes.grid(color="black", linewidth=0.35, alpha=0.35)
    km_per_degree = KM_PER_DEGREE * np.cos(np.radians(middle))
    length_km = round_step((east - west) * km_per_degree / 5)
    length = length_km / km_per_degree
    inch = (east - west) * np.cos(np.radians(middle)) / width_in  # degrees of latitude
    x, y = west, south - 0.4 * inch  # below the degree labels, so that it hides nothing
    height = 0.06 * inch
    for half, colour in enumerate(("black", "white")):
        axes.add_patch(
            Rectangle(
                (x + half * length / 2, y),
                length / 2,
                height,
                facecolor=colour,
                edgecolor="black",
                linewidth=0.6,
                clip_on=False,
            )
        )
    axes.text(x + 1.03 * length, y + height / 2, f"{length_km:g} km", fontsize=8, ha="left", va="center")
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)


def legend_patches(classes: Iterable[tuple[str, str]]) -> list[Patch]:
    """Legend entries (name, colour) as the rectangles that ``Figure.legend(handles=...)`` takes."""
    from matplotlib.patches import Patch

    return [Patch(facecolor=colour, edgecolor=GREY, linewidth=0.5, label=name) for name, colour in classes]


def map_aspect(bounds_wsen: tuple[float, float, float, float]) -> float:
    """Height over width of a map in degrees with true proportions at its middle latitude."""
    west, south, east, north = bounds_wsen
    return float((north - south) / ((east - west) * np.cos(np.radians((south + north) / 2))))


def graticule(low: float, high: float, step: float) -> NDArray[np.float64]:
    """Multiples of `step` from `low` to `high`, both included."""
    return np.arange(np.ceil(low / step - 1e-9) * step, high + 1e-9, step)


def round_step(target: float) -> float:
    """The round number (1, 2, 5 times a power of ten) nearest to `target`."""
    power = 10.0 ** np.floor(np.log10(target))
    return float(min((factor * power for factor in (1, 2, 5, 10)), key=lambda value: abs(value - target)))


def degree_label(value: float, positive: str, negative: str) -> str:
    """A longitude or latitude as a map writes it: 81°E."""
    return f"{abs(value):g}°{positive if value >= 0 else negative}"
