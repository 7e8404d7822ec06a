"""Drawings of the report as SVG: maps with graticule and scale bar, and a reliability diagram.

Lines and letters stay sharp on any screen and on paper, and the page's style makes the letters larger on a phone.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gravmap.mapping.page.outline import border
from gravmap.mapping.page.paint import Pixels, png
from gravmap.plotting import KM_PER_DEGREE, degree_label, graticule, map_aspect, round_step

# Of the drawing, in its own units: the longer side of a map 1000, degrees to its left and below.
_LONGEST, _LEFT, _BELOW, _RIM = 1000.0, 46.0, 46.0, 3.0
_LABEL = 110.0  # room for 82.5°E in the largest letters that the page's style gives
_MOST_PIECES = 20_000


def map_svg(
    described: str,
    bounds_wsen: tuple[float, float, float, float],
    picture: Pixels,
    outline: NDArray[np.bool_] | None = None,
) -> str:
    """A map with graticule and scale bar.

    Parameters
    ----------
    described : str
        What a reader who does not see it is told.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    picture : (H, W, 3) uint8
        The map itself, north up.
    outline : (ny, nx) bool, optional
        Its border is drawn as a thin line.
    """
    wide = _LONGEST / max(1.0, map_aspect(bounds_wsen))
    tall = wide * map_aspect(bounds_wsen)
    href = "data:image/png;base64," + base64.b64encode(png(picture)).decode()
    parts = [
        f'<svg class="map" role="img" aria-label="{escape(described)}" style="{ratio(bounds_wsen)}"'
        f' viewBox="{-_LEFT:g} {-_RIM:g} {wide + _LEFT + _RIM:.1f} {tall + _BELOW + _RIM:g}">',
        f"<title>{escape(described)}</title>",
        f'<image width="{wide:.1f}" height="{tall:.1f}" preserveAspectRatio="none" href="{href}"/>',
    ]
    if outline is not None and outline.any() and not outline.all():
        parts.append(_outline(outline, wide, tall))
    parts += _graticule(bounds_wsen, wide, tall)
    parts.append(f'<rect class="frame" width="{wide:.1f}" height="{tall:.1f}"/>')
    parts += _scale_bar(bounds_wsen, wide, tall)
    return "".join([*parts, "</svg>"])


def ratio(bounds_wsen: tuple[float, float, float, float]) -> str:
    """Width over height of a map, as the page's style reads it: tall maps are not drawn taller than a screen."""
    return f"--ratio:{1 / map_aspect(bounds_wsen):.4f}"


def reliability_svg(described: str, curves: Sequence[tuple[str, Sequence[dict[str, Any]]]]) -> str:
    """How often a class was right against how sure of it the network was.

    Parameters
    ----------
    described : str
        What a reader who does not see it is told.
    curves : sequence of (str, sequence of dict)
        Style class of a curve and its bins: ``confidence``, ``accuracy``, ``share``; empty bins are left out.
    """
    size, left, below = 400.0, 46.0, 46.0
    parts = [
        f'<svg class="reliability" role="img" aria-label="{escape(described)}"'
        f' viewBox="{-left:g} -8 {size + left + 10:g} {size + below + 8:g}"><title>{escape(described)}</title>'
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = tick * size
        parts.append(f'<path class="grid" d="M{at:g} 0V{size:g}M0 {size - at:g}H{size:g}"/>')
        parts.append(f'<text x="{at:g}" y="{size + 18:g}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text x="-8" y="{size - at + 4.5:g}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<path class="perfect" d="M0 {size:g}L{size:g} 0"/>')
    for style, bins in curves:
        points = [
            (size * float(each["confidence"]), size * (1 - float(each["accuracy"])), float(each["share"]))
            for each in bins
            if each.get("share") and each.get("confidence") is not None and each.get("accuracy") is not None
        ]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
        parts.append(f'<g class="{style}"><path d="M{line}"/>' if points else f'<g class="{style}">')
        # A circle's area is the share of nodes in its bin.
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3 + 16 * share**0.5:.1f}"/>' for x, y, share in points]
        parts.append("</g>")
    parts.append(f'<rect class="frame" width="{size:g}" height="{size:g}"/>')
    parts.append(f'<text x="{size / 2:g}" y="{size + 38:g}" text-anchor="middle">how sure the network was</text>')
    parts.append(
        f'<text transform="translate(-36 {size / 2:g}) rotate(-90)" text-anchor="middle">how often right</text>'
    )
    return "".join([*parts, "</svg>"])


def _outline(mask: NDArray[np.bool_], wide: float, tall: float) -> str:
    down, across = tall / mask.shape[0], wide / mask.shape[1]
    level, upright = border(mask)
    pieces = [f"M{first * across:.1f} {row * down:.1f}H{last * across:.1f}" for row, first, last in level]
    pieces += [f"M{column * across:.1f} {first * down:.1f}V{last * down:.1f}" for column, first, last in upright]
    style = "outline" if len(pieces) < _MOST_PIECES else "outline fine"
    return f'<path class="{style}" d="{"".join(pieces)}"/>'


def _graticule(bounds_wsen: tuple[float, float, float, float], wide: float, tall: float) -> list[str]:
    west, south, east, north = bounds_wsen
    step = round_step(max(east - west, north - south) / 6)
    # Where lines stand close, as on a narrow map, not each has room for its degrees.
    every_lon, every_lat = (
        max(1, int(np.ceil(_LABEL / (step / span * side))))
        for span, side in ((east - west, wide), (north - south, tall))
    )
    parts = []
    for number, lon in enumerate(graticule(west, east, step)):
        x = (lon - west) / (east - west) * wide
        parts.append(f'<path class="graticule" d="M{x:.1f} 0V{tall:.1f}"/>')
        if number % every_lon:
            continue
        anchor = "start" if x < 30 else "end" if x > wide - 30 else "middle"
        label = degree_label(round(float(lon), 6), "E", "W")
        parts.append(f'<text x="{x:.1f}" y="{tall + 8:.1f}" class="below" text-anchor="{anchor}">{label}</text>')
    for number, lat in enumerate(graticule(south, north, step)):
        y = (north - lat) / (north - south) * tall
        parts.append(f'<path class="graticule" d="M0 {y:.1f}H{wide:.1f}"/>')
        if number % every_lat:
            continue
        anchor = "end" if y < 30 else "start" if y > tall - 30 else "middle"
        label = degree_label(round(float(lat), 6), "N", "S")
        parts.append(f'<text transform="translate(-9 {y:.1f}) rotate(-90)" text-anchor="{anchor}">{label}</text>')
    return parts


def _scale_bar(bounds_wsen: tuple[float, float, float, float], wide: float, tall: float) -> list[str]:
    west, south, east, north = bounds_wsen
    width_km = (east - west) * KM_PER_DEGREE * float(np.cos(np.radians((south + north) / 2)))
    length_km = round_step(width_km / (5 if wide > _LONGEST / 2 else 3))
    length, x, y = length_km / width_km * wide, 24.0, tall - 26.0
    return [
        f'<rect class="bar dark" x="{x:g}" y="{y:.1f}" width="{length / 2:.1f}" height="8"/>',
        f'<rect class="bar light" x="{x + length / 2:.1f}" y="{y:.1f}" width="{length / 2:.1f}" height="8"/>',
        f'<text class="halo" x="{x + length / 2:.1f}" y="{y - 8:.1f}" text-anchor="middle">{length_km:g} km</text>',
    ]
