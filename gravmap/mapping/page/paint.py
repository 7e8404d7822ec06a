"""Layers as pixels and lines: class maps, quantities in a colour scale, and the border of a set of cells."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from gravmap.plotting import NODATA_COLOUR

Pixels = NDArray[np.uint8]

# Lines of a third of the period at half opacity, so that the class colours remain recognisable.
_RULED_FRACTION, _RULED_STRENGTH = 0.3, 0.55


def paint_classes(
    values: NDArray[np.uint8],
    colours: Mapping[int, str],
    *,
    width_px: int = 0,
    ruled: NDArray[np.bool_] | None = None,
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
    period_px : int
        Distance between lines along a row.

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
    return picture


def paint_measure(
    values: NDArray[Any], colours: str, limits: tuple[float, float], *, width_px: int = 0
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
    width_px : int
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
    return upsampled(picture, max(1, -(-width_px // values.shape[1]))), stops


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
