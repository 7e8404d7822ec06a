"""Resamples grids at a crop's pixels: values interpolated between nodes, and cells looked up, on any device.

The place of a crop in a grid is a 2 x 3 matrix M: (column, row) = M (u, v, 1), with u east and v south from -1 to 1
across the crop (`Crop.place`). Where M is diagonal (a crop that is not rotated), columns and rows are computed once
each; a rotated crop needs a position for every pixel.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gravmap.lattice import SNAP_CELLS

BAND_PX = 128
"""Rows of pixels processed at a time on a CPU."""


def pixel_centres(px: int) -> NDArray[np.float64]:
    """Centres of pixels across a crop, from -1 to 1."""
    return (2 * np.arange(px) + 1) / px - 1


def moved(place: NDArray[np.float64], by: float) -> NDArray[np.float64]:
    """A crop's place with columns and rows counted from another origin: all numbers greater by `by`."""
    shifted: NDArray[np.float64] = place + np.array([[0.0, 0.0, by], [0.0, 0.0, by]])
    return shifted


def patch_under(place: NDArray[np.float64], columns: int, rows: int) -> tuple[slice, slice, NDArray[np.float64]]:
    """The part of a grid of nodes that a crop needs: rows, columns, and the crop's place in that part.

    One node more than needed on every side, at least two in each direction, within the grid.
    """
    extent = np.abs(place[:, :2]).sum(axis=1)
    left, right = _patch(place[0, 2], extent[0], columns)
    top, bottom = _patch(place[1, 2], extent[1], rows)
    in_part = place.copy()
    in_part[:, 2] -= left, top
    return slice(top, bottom + 1), slice(left, right + 1), in_part


def interpolate(values: Tensor, place: NDArray[np.float64], px: int) -> Tensor:
    """Values at a crop's pixel centres, bilinear between nodes and mirrored at the outermost ones.

    Parameters
    ----------
    values : Tensor, shape (F, rows, columns), float32
        At nodes, at least two in each direction.
    place : ndarray, shape (2, 3)
        Of the crop, in nodes from the first column and row.
    px : int
        Pixels across the crop.

    Returns
    -------
    Tensor, shape (F, px, px), float32
    """
    fields, rows, columns = values.shape
    across = pixel_centres(px)
    made = values.new_empty(fields, px, px)
    if _is_axis_aligned(place):
        left, right = _between(place[0, 0] * across + place[0, 2], columns, values.device)
        top, down = _between(place[1, 1] * across + place[1, 2], rows, values.device)
        # Whole rows are gathered at a time, which is far faster than single values: first of the transposed patch.
        sideways = values.transpose(1, 2).contiguous()  # (F, columns, rows)
        wide = torch.lerp(sideways.index_select(1, left), sideways.index_select(1, left + 1), right[:, None])
        wide = wide.transpose(1, 2).contiguous()  # (F, rows, px)
        for some in _bands(px, values.device):
            above, below = (wide.index_select(1, node) for node in (top[some], top[some] + 1))
            torch.lerp(above, below, down[some, None], out=made[:, some])
        return made
    # Positions of grid_sample with align_corners: -1 is the first node and 1 the last.
    scaled = moved(place * (2 / np.array([columns - 1, rows - 1]))[:, None], -1)
    beyond = "reflection" if _leaves(place, columns - 1, rows - 1) else "border"  # the latter is faster
    by_u, by_v = scaled[:, :1] * across, scaled[:, 1:2] * across + scaled[:, 2:]
    u, v = (torch.from_numpy(part).to(values.device, torch.float32) for part in (by_u, by_v))
    for some in _bands(px, values.device):
        grid = values.new_empty(1, len(v[0, some]), px, 2)
        for axis in (0, 1):  # stacking the two would take longer than everything else
            torch.add(u[axis], v[axis, some, None], out=grid[0, ..., axis])
        made[:, some] = functional.grid_sample(values[None], grid, "bilinear", beyond, align_corners=True)[0]
    return made


def interpolation_matrices(
    place: NDArray[np.float64], rows: int, columns: int, px: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Matrices D (px, rows) and R (px, columns) with D V R^T = :func:`interpolate` of values V.

    For crops that are not rotated; gradients pass through this product, back to the nodes.

    Raises
    ------
    ValueError
        The crop is rotated.
    """
    if not _is_axis_aligned(place):
        raise ValueError("a rotated crop has no such matrices")
    made = []
    for axis, count in ((1, rows), (0, columns)):
        before, fraction = _between(place[axis, axis] * pixel_centres(px) + place[axis, 2], count, device)
        matrix = torch.zeros(px, count, device=device)
        matrix.scatter_(1, before[:, None], (1 - fraction)[:, None])
        matrix.scatter_(1, before[:, None] + 1, fraction[:, None])
        made.append(matrix)
    return made[0], made[1]


def look_up(rimmed: Tensor, place: NDArray[np.float64], px: int) -> Tensor:
    """Values of the cells that a crop's pixels lie in.

    In float64: a float32 position is wrong by up to a thousandth of a cell, enough to hit the wrong one.

    Parameters
    ----------
    rimmed : Tensor, shape (rows + 2, columns + 2)
        A raster with a rim of one cell, which stands for everything outside.
    place : ndarray, shape (2, 3)
        Of the crop, in cells from the north-west corner of the raster without its rim.
    px : int
        Pixels across the crop.

    Returns
    -------
    Tensor, shape (px, px)
        Of the raster's type.
    """
    rows, columns = rimmed.shape[0] - 2, rimmed.shape[1] - 2
    flat, device, across = rimmed.flatten(), rimmed.device, pixel_centres(px)
    found = rimmed.new_empty(px, px)
    if _is_axis_aligned(place):
        column = rimmed_cells(place[0, 0] * across + place[0, 2], columns)
        row = rimmed_cells(place[1, 1] * across + place[1, 2], rows) * (columns + 2)
        in_row, first = (torch.from_numpy(each.astype(np.int32)).to(device) for each in (column, row))
        for some in _bands(px, device):
            torch.index_select(flat, 0, (first[some, None] + in_row).flatten(), out=found[some].view(-1))
        return found
    # Positions in the raster with its rim; none that matters is negative, so truncation is floor.
    shifted = moved(place, 1 + SNAP_CELLS)
    by_u, by_v = shifted[:, :1] * across, shifted[:, 1:2] * across + shifted[:, 2:]
    u, v = (torch.from_numpy(part).to(device) for part in (by_u, by_v))
    leaves = _leaves(place, columns, rows)
    for some in _bands(px, device):
        at_column, at_row = (u[axis] + v[axis, some, None] for axis in (0, 1))
        if leaves:
            at_column.clamp_(0, columns + 1)
            at_row.clamp_(0, rows + 1)
        cell = torch.add(at_column.int(), at_row.int(), alpha=columns + 2)
        torch.index_select(flat, 0, cell.flatten(), out=found[some].view(-1))
    return found


def _bands(px: int, device: torch.device) -> list[slice]:
    """Rows of pixels processed at a time: all of them, but on a CPU so few that they stay in its cache."""
    band = BAND_PX if device.type == "cpu" else px
    return [slice(first, first + band) for first in range(0, px, band)]


def _leaves(place: NDArray[np.float64], columns: float, rows: float) -> bool:
    """Whether a crop extends beyond positions from 0 to these."""
    extent = np.abs(place[:, :2]).sum(axis=1)
    return not bool(((place[:, 2] >= extent) & (place[:, 2] + extent <= (columns, rows))).all())


def _is_axis_aligned(place: NDArray[np.float64]) -> bool:
    return not (place[0, 1] or place[1, 0])


def rimmed_cells(position: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Number of the cell in a raster with a rim, for positions in cells of the raster without; the rim outside.

    A point between two cells is in the eastern, or the southern, one.
    """
    cells: NDArray[np.int64] = np.clip(np.floor(position + SNAP_CELLS) + 1, 0, count + 1).astype(np.int64)
    return cells


def _between(position: NDArray[np.float64], count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Node before each position, and the fraction of the way to the next one."""
    folded = np.abs((position + (count - 1)) % (2 * (count - 1)) - (count - 1))
    before = np.minimum(folded.astype(np.int64), count - 2)
    fraction = (folded - before).astype(np.float32)
    return torch.from_numpy(before).to(device), torch.from_numpy(fraction).to(device)


def _patch(centre: float, extent: float, count: int) -> tuple[int, int]:
    """First and last node around a crop, at least two."""
    first = min(max(math.floor(centre - extent) - 1, 0), count - 2)
    return first, max(min(math.ceil(centre + extent) + 1, count - 1), first + 1)
