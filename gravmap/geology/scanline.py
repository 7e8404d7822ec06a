"""Scanline rasterization of polygons, with detection of cells that several polygons cover.

A cell is inside a polygon if the ray from its centre to the west crosses the outline an odd number of times. This is
GDAL's rule; it also defines the inside of a self-intersecting outline (both loops of a figure of eight).

Why this is not rasterio.features.rasterize: it passes every vertex to GDAL as Python numbers, and does not report
overlaps. For 10 000 polygons with 975 000 vertices and 3600 x 7200 cells, reading and rasterizing with the area report
take 1.3 times as long as gdal_rasterize, with identical cells; with shapely.make_valid and rasterio it was 2.3 times
as long, and 13 times for self-intersecting polygons (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

# Cells filled per batch: few enough to stay in the processor's cache.
CELLS_PER_BATCH = 1 << 19
# Vertices per batch; limits the memory for large maps.
VERTICES_PER_BATCH = 1 << 18
# Crossings of outlines with rows processed at a time; an outline that crosses itself can have far more than vertices.
CROSSINGS_PER_BATCH = 1 << 22

# Bits of Canvas.disputed. The third marks a cell whose centre lies on an edge along the row: two neighbours share the
# edge, which is not an overlap.
WITHIN, BETWEEN, _EDGE = 1, 2, 4
NO_OWNER = -1


@dataclass(frozen=True)
class Spans:
    """Runs of cells in one row each, in drawing order.

    Attributes
    ----------
    start : ndarray, shape (n,), int64
        Flat index of the first cell.
    length : ndarray, shape (n,), int64
        Number of cells; at least one.
    polygon : ndarray, shape (n,), int64
        Index of the polygon; non-decreasing.
    edge : ndarray, shape (n,), bool
        Whether the cell centres lie on an edge of the outline.
    """

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    polygon: NDArray[np.int64]
    edge: NDArray[np.bool_]


class Canvas:
    """A north-up raster of numbers onto which maps are drawn one after the other.

    Parameters
    ----------
    shape : tuple of int
        Rows, columns.
    bounds_wsen : tuple of float
        Outer edges, degrees.
    classes : ndarray, shape (m,), uint8
        Class of each number; an overlap counts only if the classes differ. Number 0 is the background.
    owners : ndarray, shape (m,), int64
        Map of each number; NO_OWNER for the background and for gaps, which do not count as overlaps.
    cells_per_batch, vertices_per_batch : int
        Sizes of the batches, which limit the memory.

    Attributes
    ----------
    numbers : ndarray, shape (rows, columns), uint8 or uint16
        The number drawn last, 0 for the background.
    disputed : ndarray, shape (rows, columns), uint8
        Cells with different classes: bit WITHIN from polygons of one map, bit BETWEEN from two maps.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        bounds_wsen: tuple[float, float, float, float],
        classes: NDArray[np.uint8],
        owners: NDArray[np.int64],
        *,
        cells_per_batch: int = CELLS_PER_BATCH,
        vertices_per_batch: int = VERTICES_PER_BATCH,
    ) -> None:
        self.numbers: NDArray[Any] = np.zeros(shape, dtype=np.uint8 if len(classes) <= 256 else np.uint16)
        self.disputed = np.zeros(shape, dtype=np.uint8)
        self._edges = False  # whether any cell has the third bit
        self._bounds = bounds_wsen
        self._classes = classes
        self._owners = owners
        self._cells_per_batch = cells_per_batch
        self._vertices_per_batch = vertices_per_batch

    def draw(self, polygons: NDArray[Any], numbers: NDArray[np.int64]) -> None:
        """Draw polygons in their order; later ones overwrite earlier ones.

        Parameters
        ----------
        polygons : ndarray, shape (n,), object
            Shapely polygons and multipolygons, degrees. The parts of a multipolygon are filled separately.
        numbers : ndarray, shape (n,), int64
            Number to write for each polygon.
        """
        cells, marks = self.numbers.reshape(-1), self.disputed.reshape(-1)
        for spans in polygon_spans(polygons, self.numbers.shape, self._bounds, self._vertices_per_batch):
            for first, last in _batches(spans.length, self._cells_per_batch):
                length = spans.length[first:last]
                ends = np.cumsum(length)
                steps = np.arange(int(ends[-1]))
                place = np.repeat(spans.start[first:last] - (ends - length), length) + steps
                new = np.repeat(numbers[spans.polygon[first:last]].astype(self.numbers.dtype), length)
                old = cells[place]
                cells[place] = new
                fresh = np.repeat(spans.edge[first:last], length)
                self._mark(marks, place, old, new, fresh)
                if self._edges or fresh.any():
                    self._edges = True
                    marks[place] = (marks[place] & np.uint8(WITHIN | BETWEEN)) | np.where(fresh, np.uint8(_EDGE), 0)
                # Within a batch, cells of an earlier polygon may have been overwritten by a later one.
                self._mark(marks, place, cells[place], new, fresh)

    def pop_disputed_km2(self, kind: int, cell_km2: NDArray[np.float64]) -> float:
        """Return the area of the disputed cells of one kind, WITHIN or BETWEEN, and clear them.

        Parameters
        ----------
        kind : int
            WITHIN or BETWEEN.
        cell_km2 : ndarray, shape (rows,), float64
            Area of a cell in each row.
        """
        marked = (self.disputed & np.uint8(kind)) != 0
        self.disputed &= np.uint8(0xFF ^ kind)
        return float(np.count_nonzero(marked, axis=1) @ cell_km2)

    def _mark(
        self,
        marks: NDArray[np.uint8],
        place: NDArray[np.int64],
        one: NDArray[Any],
        other: NDArray[Any],
        edge: NDArray[np.bool_],
    ) -> None:
        """Mark cells in which the numbers `one` and `other` overlap and their classes differ."""
        met = np.flatnonzero((one != other) & (one != 0) & ~edge)
        if not met.size:
            return
        met = met[(marks[place[met]] & _EDGE) == 0]
        one, other, place = one[met], other[met], place[met]
        owner, rival = self._owners[one], self._owners[other]
        differ = (self._classes[one] != self._classes[other]) & (owner != NO_OWNER) & (rival != NO_OWNER)
        bit = np.where(owner == rival, np.uint8(WITHIN), np.uint8(BETWEEN))
        for kind in (WITHIN, BETWEEN):
            marks[place[differ & (bit == kind)]] |= np.uint8(kind)


def polygon_spans(
    polygons: NDArray[Any],
    shape: tuple[int, int],
    bounds_wsen: tuple[float, float, float, float],
    vertices_per_batch: int = VERTICES_PER_BATCH,
) -> Iterator[Spans]:
    """Runs of cells whose centres lie in each polygon, in batches of polygons.

    A centre on the outline is inside if the polygon lies to its east. A centre on an edge along a row is inside unless
    the edge is the north side of a hole, as in GDAL; of two polygons that share such an edge the later gets the cell.

    Parameters
    ----------
    polygons : ndarray, shape (n,), object
        Shapely polygons and multipolygons, degrees; they may be self-intersecting and extend beyond the raster.
    shape : tuple of int
        Rows, columns of the raster.
    bounds_wsen : tuple of float
        Outer edges of the raster, degrees.
    vertices_per_batch : int
        Vertices processed at a time.
    """
    parts, owner = shapely.get_parts(polygons, return_index=True)
    sizes = shapely.get_num_coordinates(parts)
    for first, last in _batches(sizes, vertices_per_batch):
        yield from _spans(parts[first:last], owner[first:last], shape, bounds_wsen, (0, shape[0]))


def _spans(
    parts: NDArray[Any],
    owner: NDArray[np.int64],
    shape: tuple[int, int],
    bounds: tuple[float, float, float, float],
    band: tuple[int, int],
) -> Iterator[Spans]:
    """Runs in the rows from band[0] to band[1], in several pieces if there are many crossings."""
    rows, columns = shape
    _, points, (ring_ends, part_ends) = shapely.to_ragged_array(parts)
    west, south, east, north = bounds
    # Cell coordinates from the north-west corner, in GDAL's arithmetic: rounding decides on which side a centre lies.
    across, down = (east - west) / columns, (south - north) / rows
    x = points[:, 0] * (1 / across) - west / across
    y = points[:, 1] * (1 / down) - north / down
    # Edges connect each point to the next, except from the end of one ring to the next ring.
    connected = np.ones(len(points), dtype=bool)
    connected[np.asarray(ring_ends[1:]) - 1] = False
    at = np.flatnonzero(connected[:-1])
    part_of_ring = np.repeat(np.arange(len(parts)), np.diff(part_ends))
    part = np.repeat(part_of_ring, np.diff(ring_ends))
    # Row r is crossed when its centre r + 1/2 lies in [lower, upper).
    centre = np.ceil(np.clip(y - 0.5, -1, rows)).astype(np.int64)
    one, other = centre[at], centre[at + 1]
    top, bottom = np.minimum(one, other).clip(*band), np.maximum(one, other).clip(*band)
    crossing = bottom > top
    half = sum(band) // 2
    if int((bottom - top).sum()) > CROSSINGS_PER_BATCH and (len(parts) > 1 or half > band[0]):
        if len(parts) > 1:
            middle = len(parts) // 2
            yield from _spans(parts[:middle], owner[:middle], shape, bounds, band)
            yield from _spans(parts[middle:], owner[middle:], shape, bounds, band)
        else:
            yield from _spans(parts, owner, shape, bounds, (band[0], half))
            yield from _spans(parts, owner, shape, bounds, (half, band[1]))
        return
    level = _level_spans(x, y, at, ring_ends, part, shape, band)
    at, top, count = at[crossing], top[crossing], (bottom - top)[crossing]
    # One entry for each edge and each row that it crosses.
    ends = np.cumsum(count)
    whole = int(ends[-1]) if len(ends) else 0
    row = np.repeat(top - (ends - count), count) + np.arange(whole)
    begin = np.where(y[at] < y[at + 1], at, at + 1)
    end = np.where(y[at] < y[at + 1], at + 1, at)
    slope = np.repeat(np.arange(len(at)), count)
    y_begin, x_begin = y[begin], x[begin]
    rise, run = y[end] - y_begin, x[end] - x_begin
    column = ((row + 0.5) - y_begin[slope]) * run[slope] / rise[slope] + x_begin[slope]
    column = np.clip(np.floor(column + 0.5), 0, columns).astype(np.int64)
    # Sorted by part, row and column, successive pairs of crossings bound a run.
    keys = (part[at][slope] * rows + row) * (columns + 1) + column
    keys.sort()
    line, start = np.divmod(keys[0::2], columns + 1)
    length = keys[1::2] - keys[0::2]
    kept = length > 0
    line, start, length = line[kept], start[kept], length[kept]
    number, row = np.divmod(line, rows)
    place = row * columns + start
    edge = np.zeros(len(number), dtype=bool)
    if level is not None:
        number, place, length = (np.concatenate(pair) for pair in zip(level, (number, place, length), strict=True))
        edge = np.arange(len(number)) < len(level[0])
        # Runs along edges come first in each polygon, so that cells they share with an interior run count as interior.
        order = np.argsort(number, kind="stable")
        number, place, length, edge = number[order], place[order], length[order], edge[order]
    yield Spans(place, length, owner[number], edge)


def _level_spans(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    at: NDArray[np.int64],
    ring_ends: NDArray[np.int64],
    part: NDArray[np.int64],
    shape: tuple[int, int],
    band: tuple[int, int],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """Runs along edges through cell centres that are the south side of their ring: part, first cell, length."""
    columns = shape[1]
    level = at[(y[at] == y[at + 1]) & (x[at] != x[at + 1])]
    row = np.floor(y[level])
    level = level[(y[level] - row == 0.5) & (row >= band[0]) & (row < band[1])]
    if not level.size:
        return None
    # Twice the area of each ring, positive if it is clockwise on a map; its south side then runs west.
    first = np.asarray(ring_ends[:-1])
    ring = np.repeat(np.arange(len(first)), np.diff(ring_ends))
    across, down = x - x[first][ring], y - y[first][ring]
    turn = np.zeros(len(x))
    turn[at] = across[at] * down[at + 1] - across[at + 1] * down[at]
    clockwise = np.add.reduceat(turn, first) > 0
    level = level[(x[level] > x[level + 1]) == clockwise[ring[level]]]
    start, end = (
        np.clip(np.floor(side(x[level], x[level + 1]) + 0.5), 0, columns).astype(np.int64)
        for side in (np.minimum, np.maximum)
    )
    place = np.floor(y[level]).astype(np.int64) * columns + start
    kept = end > start
    return part[level][kept], place[kept], (end - start)[kept]


def _batches(sizes: NDArray[Any], limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of successive items whose total size is about `limit`."""
    if not len(sizes):
        return
    batch = np.cumsum(sizes) // limit
    breaks = np.flatnonzero(np.diff(batch)) + 1
    yield from pairwise([0, *breaks.tolist(), len(sizes)])
