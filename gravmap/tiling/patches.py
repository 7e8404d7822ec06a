"""Patches: a label raster divided along every edge of windows and roles, so that millions of cells are counted once.

Between two such edges all cells have the same role in every fold and lie in the same windows, so each fold is measured
on a few thousand patches. This is exact for any roles; it only saves time where roles follow rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gravmap.geology.areas import row_cell_areas_km2
from gravmap.lattice import COVER, SNAP_CELLS, UNUSABLE

_ROWS_AT_ONCE = 128


@dataclass(frozen=True)
class Patches:
    """A raster divided into R x C patches.

    Attributes
    ----------
    rows, columns : ndarray, shapes (R + 1,) and (C + 1,), int64
        First row (column) of each patch, and the end of the raster, in cells.
    bounds_wsen : tuple of float
        Outer edges of the raster, degrees.
    class_km2 : ndarray, shape (R, C, classes + 2), float64
        Area on the ellipsoid of cover, of each class, and of unusable cells.
    roles : list of ndarray, shape (R, C), uint8
        Per fold the role of the cells of each patch.
    touched, centred : ndarray, shape (n, 4), int64
        Per window its first row, the row after the last, first column and the column after the last, in patches: of
        the cells it touches, and of those whose centre lies in it.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    bounds_wsen: tuple[float, float, float, float]
    class_km2: NDArray[np.float64]
    roles: list[NDArray[np.uint8]]
    touched: NDArray[np.int64]
    centred: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """R and C."""
        return len(self.rows) - 1, len(self.columns) - 1

    def any_inside(self, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each window touches one of the wanted patches, shape (n,)."""
        total = np.zeros((self.shape[0] + 1, self.shape[1] + 1), dtype=np.int64)
        total[1:, 1:] = wanted.cumsum(axis=0).cumsum(axis=1)
        top, bottom, left, right = self.touched.T
        inside: NDArray[np.bool_] = (
            total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left] > 0
        )
        return inside


def make_patches(
    labels: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    boxes_wsen: NDArray[np.float64],
    roles: list[NDArray[np.uint8]],
    classes: int,
) -> Patches:
    """Divide a raster along the edges of windows and of roles.

    Parameters
    ----------
    labels : ndarray, shape (rows, columns), uint8
        North-up; 0 cover, 1 .. `classes` bedrock, 255 not usable.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    boxes_wsen : ndarray, shape (n, 4), float64
        Windows, degrees.
    roles : list of ndarray, shape (rows, columns), uint8
        Per fold the role of every cell.
    classes : int
        Number of bedrock classes.
    """
    ny, nx = labels.shape
    touched = _cells(boxes_wsen, bounds_wsen, labels.shape, by_centre=False)
    centred = _cells(boxes_wsen, bounds_wsen, labels.shape, by_centre=True)
    rows = [np.array([0, ny]), touched[:, :2].ravel(), centred[:, :2].ravel()]
    columns = [np.array([0, nx]), touched[:, 2:].ravel(), centred[:, 2:].ravel()]
    for role in roles:
        starts = np.flatnonzero((role[1:] != role[:-1]).any(axis=1)) + 1
        distinct = role[np.concatenate([[0], starts])]
        rows.append(starts)
        columns.append(np.flatnonzero((distinct[:, 1:] != distinct[:, :-1]).any(axis=0)) + 1)
    row_edges, column_edges = np.unique(np.concatenate(rows)), np.unique(np.concatenate(columns))
    corners = np.ix_(row_edges[:-1], column_edges[:-1])

    def patch_of(cells: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.column_stack([np.searchsorted(row_edges, cells[:, :2]), np.searchsorted(column_edges, cells[:, 2:])])

    return Patches(
        row_edges,
        column_edges,
        bounds_wsen,
        _class_areas(labels, bounds_wsen, row_edges, column_edges, classes),
        [role[corners] for role in roles],
        patch_of(touched),
        patch_of(centred),
    )


def covered_patches(shape: tuple[int, int], patches: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of R x C patches lie in one of the windows, given as in :class:`Patches`."""
    mask = np.zeros(shape, dtype=bool)
    for top, bottom, left, right in patches:
        mask[top:bottom, left:right] = True
    return mask


def to_cells(patches: Patches, values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Values of patches (R, C) at their cells (rows, columns)."""
    by_row = np.repeat(values, np.diff(patches.rows), axis=0)
    return np.repeat(by_row, np.diff(patches.columns), axis=1)


def _cells(
    boxes_wsen: NDArray[np.float64],
    bounds_wsen: tuple[float, float, float, float],
    shape: tuple[int, ...],
    *,
    by_centre: bool,
) -> NDArray[np.int64]:
    """First row, row after the last, first column and column after the last of each box, shape (n, 4)."""
    west, south, east, north = bounds_wsen
    ny, nx = shape
    top, bottom = ((north - boxes_wsen[:, side]) / (north - south) * ny for side in (3, 1))
    left, right = ((boxes_wsen[:, side] - west) / (east - west) * nx for side in (0, 2))
    if by_centre:
        found = [np.ceil(edge - 0.5 - SNAP_CELLS) for edge in (top, bottom, left, right)]
    else:
        found = [
            np.floor(top + SNAP_CELLS),
            np.ceil(bottom - SNAP_CELLS),
            np.floor(left + SNAP_CELLS),
            np.ceil(right - SNAP_CELLS),
        ]
    return np.column_stack([np.clip(edge, 0, end) for edge, end in zip(found, (ny, ny, nx, nx), strict=True)]).astype(
        np.int64
    )


def _class_areas(
    labels: NDArray[np.uint8],
    bounds_wsen: tuple[float, float, float, float],
    row_edges: NDArray[np.int64],
    column_edges: NDArray[np.int64],
    classes: int,
) -> NDArray[np.float64]:
    """Area per patch of cover, classes and unusable cells, km²."""
    west, south, east, north = bounds_wsen
    ny, nx = labels.shape
    cell_km2 = row_cell_areas_km2(south, north, ny, (east - west) / nx)
    kinds = classes + 2
    kind_of = np.full(256, classes + 1, dtype=np.int64)
    kind_of[COVER : classes + 1] = np.arange(classes + 1)
    kind_of[UNUSABLE] = classes + 1
    patch_rows, patch_columns = len(row_edges) - 1, len(column_edges) - 1
    of_column = np.repeat(np.arange(patch_columns), np.diff(column_edges)) * kinds
    areas = np.zeros((patch_rows, patch_columns, kinds))
    for patch, (top, bottom) in enumerate(pairwise(row_edges.tolist())):
        for first in range(top, bottom, _ROWS_AT_ONCE):
            part = labels[first : min(first + _ROWS_AT_ONCE, bottom)]
            of_row = np.arange(len(part))[:, None] * (patch_columns * kinds)
            counts = np.bincount(
                (kind_of[part] + of_column + of_row).ravel(), minlength=len(part) * patch_columns * kinds
            ).reshape(len(part), -1)
            areas[patch] += (cell_km2[first : first + len(part)] @ counts).reshape(patch_columns, kinds)
    return areas
