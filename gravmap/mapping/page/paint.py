"""Layers as pixels and lines: class maps, quantities in a colour scale, and the border of a set of cells."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from gravmap.plotting import GREY, NODATA_COLOUR, UNMAPPED_COLOUR

Pixels = NDArray[np.uint8]

# Lines of a third of the period at half opacity, so that the class colours remain recognisable.
_RULED_FRACTION, _RULED_STRENGTH = 0.3, 0.55
_DOT_RADIUS = 0.16  # of the distance between dots


def paint_classes(
    values: NDArray[np.uint8],
    colours: Mapping[int, str],
    *,
    width_px: int = 0,
    ruled: NDArray[np.bool_] | None = None,
    unmapped: NDArray[np.bool_] | None = None,
    period_px: int = 12,
) -> Pixels:
    """Paint a class map in the colours of its legend.

    Parameters
    ----------
    values : (ny, nx) uint8
        Class indices; those without a colour are painted as no data.
    colours : mapping of int to str
        Class index to colour.
    width_px : int
        Least width of the picture; every cell becomes a square of whole pixels.
    ruled : (ny, nx) bool, optional
        Cells over which thin white diagonal lines are drawn.
    unmapped : (ny, nx) bool, optional
        Cells over which dots are drawn; those without a colour get that of unmapped ground.
    period_px : int
        Distance between lines, or dots, along a row.

    Returns
    -------
    (H, W, 3) uint8
    """
    table = np.empty((256, 3), np.uint8)
    table[:] = _byte(NODATA_COLOUR)
    for index, colour in colours.items():
        table[index] = _byte(colour)
    factor = max(1, -(-width_px // values.shape[1]))
    picture = upsampled(table[values], factor)
    if ruled is not None and ruled.any():
        mask = upsampled(ruled, factor)
        row, column = np.ogrid[: mask.shape[0], : mask.shape[1]]
        lines = mask & ((row + column) % period_px < max(1, round(_RULED_FRACTION * period_px)))
        picture[lines] = np.rint(255 * _RULED_STRENGTH + (1 - _RULED_STRENGTH) * picture[lines]).astype(np.uint8)
    if unmapped is not None:
        blank = unmapped & ~np.isin(values, list(colours))
        draw_unmapped(picture, upsampled(unmapped, factor), upsampled(blank, factor), period_px)
    return picture


def draw_unmapped(
    picture: Pixels, unmapped: NDArray[np.bool_], blank: NDArray[np.bool_], period_px: int
) -> NDArray[np.bool_]:
    """Draw the pattern of unmapped ground, dots in staggered rows, into a picture.

    Parameters
    ----------
    picture : (H, W, 3) uint8
        Is changed.
    unmapped : (H, W) bool
        Pixels below the dots.
    blank : (H, W) bool
        Those of them that get the colour of unmapped ground first, because the map has no value there.
    period_px : int
        Distance between dots along a row.

    Returns
    -------
    (H, W) bool
        The pixels that were drawn.
    """
    row, column = np.ogrid[: picture.shape[0], : picture.shape[1]]
    shifted = column + row // period_px % 2 * (period_px // 2)
    middle = (period_px - 1) / 2
    away = np.hypot(row % period_px - middle, shifted % period_px - middle)
    dots = unmapped & (away <= max(_DOT_RADIUS * period_px, 0.75))
    picture[blank] = _byte(UNMAPPED_COLOUR)
    picture[dots] = _byte(GREY)
    drawn: NDArray[np.bool_] = blank | dots
    return drawn


def paint_measure(
    values: NDArray[Any],
    colours: str,
    limits: tuple[float, float],
    *,
    width_px: int = 0,
    unmapped: NDArray[np.bool_] | None = None,
    period_px: int = 12,
) -> tuple[Pixels, list[str]]:
    """Paint a quantity in a colour scale.

    Parameters
    ----------
    values : (ny, nx) float
        NaN is painted as no data.
    colours : str
        Name of matplotlib's colour map.
    limits : (float, float)
        Values at its ends.
    width_px, unmapped, period_px
        As in :func:`paint_classes`.

    Returns
    -------
    picture : (H, W, 3) uint8
    scale : list of str
        Nine colours from the lower end to the upper.
    """
    scale = matplotlib.colormaps[colours]
    low, high = limits
    fraction = (values - low) / (high - low if high > low else 1.0)
    picture = np.rint(255 * scale(np.nan_to_num(np.clip(fraction, 0, 1)))[..., :3]).astype(np.uint8)
    picture[~np.isfinite(values)] = _byte(NODATA_COLOUR)
    stops = ["#{:02X}{:02X}{:02X}".format(*_byte(scale(at)[:3])) for at in np.linspace(0, 1, 9)]
    factor = max(1, -(-width_px // values.shape[1]))
    picture = upsampled(picture, factor)
    if unmapped is not None:
        blank = unmapped & ~np.isfinite(values)
        draw_unmapped(picture, upsampled(unmapped, factor), upsampled(blank, factor), period_px)
    return picture, stops


def upsampled(cells: NDArray[Any], factor: int) -> NDArray[Any]:
    """Repeat every cell of the first two axes `factor` x `factor` times."""
    return cells.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else cells.copy()


def png(picture: Pixels) -> bytes:
    """Encode a picture as PNG."""
    from matplotlib.image import imsave

    memory = io.BytesIO()
    imsave(memory, picture, format="png", pil_kwargs={"optimize": True})
    return memory.getvalue()


def border(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cell sides between the inside and the outside of a mask; the edges of the raster are not included.

    Parameters
    ----------
    mask : (ny, nx) bool
        The cells.

    Returns
    -------
    level : (n, 3) int64
        Horizontal segments: index of the line (line k is the upper side of row k), first and last column line.
    upright : (m, 3) int64
        Vertical segments: index of the column line, first and last row line.
    """
    level = _runs(mask[1:] ^ mask[:-1])
    upright = _runs((mask[:, 1:] ^ mask[:, :-1]).T)
    return level, upright


def _runs(sides: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Runs of True in each row: (row + 1, first, last + 1)."""
    padded = np.zeros((sides.shape[0], sides.shape[1] + 2), np.int8)
    padded[:, 1:-1] = sides
    change = np.diff(padded, axis=1)
    row, first = np.nonzero(change == 1)
    _, last = np.nonzero(change == -1)
    return np.stack([row + 1, first, last], axis=1).astype(np.int64)


def _byte(colour: Any) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    return red, green, blue
