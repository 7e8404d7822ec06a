"""What every map has around it: graticule, degree labels, true proportions and a scale bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gravmap.lattice import KM_PER_DEGREE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def furnish(axes: Axes, bounds_wsen: tuple[float, float, float, float], width_in: float) -> None:
    """Give a map graticule, degree labels, true proportions at its middle latitude, and a scale bar.

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
    longitudes = np.arange(np.ceil(west / step) * step, east + 1e-9, step)
    latitudes = np.arange(np.ceil(south / step) * step, north + 1e-9, step)
    axes.set_xticks(longitudes, [degree_label(value, "E", "W") for value in longitudes], fontsize=8)
    axes.set_yticks(latitudes, [degree_label(value, "N", "S") for value in latitudes], fontsize=8)
    axes.grid(color="black", linewidth=0.35, alpha=0.35)
    km_per_degree = KM_PER_DEGREE * np.cos(np.radians(middle))
    length_km = round_step((east - west) * km_per_degree / 5)
    length = length_km / km_per_degree
    inch = (east - west) * np.cos(np.radians(middle)) / width_in  # degrees of latitude
    x, y = west + 0.03 * (east - west), south + 0.2 * inch
    height = 0.07 * inch
    axes.add_patch(
        Rectangle(
            (x - 0.04 * length, y - 0.1 * inch),
            length * 1.08,
            0.4 * inch,
            facecolor="white",
            alpha=0.85,
            linewidth=0,
            zorder=4,
        )
    )
    for half, colour in enumerate(("black", "white")):
        axes.add_patch(
            Rectangle(
                (x + half * length / 2, y),
                length / 2,
                height,
                facecolor=colour,
                edgecolor="black",
                linewidth=0.6,
                zorder=5,
            )
        )
    axes.text(x + length / 2, y + 0.11 * inch, f"{length_km:g} km", fontsize=8, ha="center", va="bottom", zorder=5)
    axes.set_xlim(west, east)
    axes.set_ylim(south, north)


def round_step(target: float) -> float:
    """The round number (1, 2, 5 times a power of ten) nearest to `target`."""
    power = 10.0 ** np.floor(np.log10(target))
    return float(min((factor * power for factor in (1, 2, 5, 10)), key=lambda value: abs(value - target)))


def degree_label(value: float, positive: str, negative: str) -> str:
    """A longitude or latitude as a map writes it: 81°E."""
    return f"{abs(value):g}°{positive if value >= 0 else negative}"
