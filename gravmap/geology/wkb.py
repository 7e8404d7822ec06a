"""Geometries in well-known binary (WKB), and the parts of collections."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.vector_integrity import DAMAGED

log = logging.getLogger(__name__)


def from_wkb(blobs: NDArray[Any], path: Path, first: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Geometries of WKB, also those that GEOS does not read: surfaces, and polygons with rings that are not closed.

    Parameters
    ----------
    blobs : ndarray, shape (n,), object
        Bytes in two dimensions, or None.
    path : Path
        The file, for messages.
    first : int
        Number of the first feature in the file, from 0, for messages.

    Returns
    -------
    ndarray, shape (n,), object
        Shapely geometries; None where missing, and where nothing but rings or lines of one point is left.
    ndarray, shape (n,), bool
        Geometries of which a ring is left out.

    Raises
    ------
    InputError
        A geometry is invalid.
    """
    with np.errstate(invalid="ignore"):
        shapes: NDArray[Any] = shapely.from_wkb(blobs, on_invalid="ignore")
    reduced = np.zeros(len(shapes), dtype=bool)
    opened = []
    for k in np.flatnonzero(shapely.is_missing(shapes)):
        if blobs[k] is None:
            continue
        parser = _Parser()
        try:
            parts, rest = parser.parse(memoryview(blobs[k]))
            if len(rest):
                raise ValueError("it is longer than it states")
        except _UnreadCurve:
            raise InputError(
                f"{path}: feature {first + k + 1} has curves inside a collection, which are not read.",
                "Convert them: ogr2ogr -nlt CONVERT_TO_LINEAR straight.gpkg FILE.",
            ) from None
        except (ValueError, IndexError, struct.error, RecursionError, shapely.GEOSException) as error:
            raise InputError(f"{path}: the geometry of feature {first + k + 1} is invalid: {error}.", DAMAGED) from None
        shapes[k] = _joined(parts) if parts else None
        reduced[k] = parser.reduced
        if parser.opened:
            opened.append(first + k + 1)
    if opened:
        log.warning(
            "%s: %d features have rings that are not closed, the first is number %d; their ends are joined.",
            path.name,
            len(opened),
            opened[0],
        )
    return shapes, reduced


class _UnreadCurve(Exception):
    """A curve in a collection."""


class _Parser:
    """Reads the types of OGC 06-103r4 in two dimensions: 1 to 7, 15 polyhedral surface, 16 TIN, 17 triangle.

    Attributes
    ----------
    opened, reduced : bool
        Whether a ring was not closed; whether one was left out.
    """

    def __init__(self) -> None:
        self.opened = self.reduced = False

    def parse(self, blob: memoryview, depth: int = 0) -> tuple[list[shapely.Geometry], memoryview]:
        """The parts of a geometry and the bytes after it; lines of one point and rings without area are left out."""
        order = "<" if blob[0] == 1 else ">"
        kind, count = struct.unpack_from(f"{order}II", blob, 1)
        if depth > 32:
            raise ValueError("it is nested too deeply")
        if kind == 1:
            return [shapely.Point(struct.unpack_from(f"{order}2d", blob, 5))], blob[21:]
        if kind == 2:
            points, rest = _parse_points(blob[5:], order)
            return ([shapely.LineString(points)] if len(points) > 1 else []), rest
        rest = blob[9:]
        parts: list[shapely.Geometry] = []
        if kind in (3, 17):
            rings: list[Any] = []
            for _ in range(count):
                points, rest = _parse_points(rest, order)
                rings += self._closed(points)
                if not rings:
                    rings = [None]  # the holes of a shell without area
            if rings and rings[0] is not None:
                parts.append(shapely.Polygon(rings[0], rings[1:]))
            return parts, rest
        if kind in (4, 5, 6, 7, 15, 16):
            for _ in range(count):
                more, rest = self.parse(rest, depth + 1)
                parts += more
            return parts, rest
        if 8 <= kind <= 14:  # GDAL makes curves straight unless they are in a collection
            raise _UnreadCurve
        raise ValueError(f"its type {kind} is not known")

    def _closed(self, points: NDArray[np.float64]) -> list[Any]:
        """The ring, closed; nothing if it has no area."""
        if len(points) and (points[0] != points[-1]).any():
            points = np.vstack([points, points[:1]])
            self.opened |= len(points) >= 4
        if len(points) >= 4:
            return [points]
        self.reduced = True
        return []


def _parse_points(blob: memoryview, order: str) -> tuple[NDArray[np.float64], memoryview]:
    (count,) = struct.unpack_from(f"{order}I", blob)
    if 4 + 16 * count > len(blob):
        raise ValueError("it is shorter than it states")
    return np.frombuffer(blob, f"{order}f8", 2 * count, 4).reshape(count, 2), blob[4 + 16 * count :]


def _joined(parts: list[shapely.Geometry]) -> shapely.Geometry:
    """One geometry of several: a multipolygon, a multiline, a multipoint, or a collection."""
    kinds = {int(shapely.get_type_id(part)) for part in parts}
    if len(parts) == 1:
        return parts[0]
    if len(kinds) == 1:
        return {0: shapely.MultiPoint, 1: shapely.MultiLineString, 3: shapely.MultiPolygon}[kinds.pop()](parts)
    return shapely.GeometryCollection(parts)


def take_parts(shapes: NDArray[Any], dimension: int) -> NDArray[Any]:
    """Replace collections by their parts of one dimension: 0 points, 1 lines, 2 polygons.

    Collections without such a part stay as they are.
    """
    shapes = shapes.copy()
    for k in np.flatnonzero(shapely.get_type_id(shapes) == 7):
        parts = shapely.get_parts(shapes[k : k + 1])
        while np.any(shapely.get_type_id(parts) >= 4):
            parts = shapely.get_parts(parts)
        parts = parts[(shapely.get_dimensions(parts) == dimension) & ~shapely.is_empty(parts)]
        if len(parts):
            shapes[k] = _joined(list(parts))
    return shapes
