"""Geometries in well-known binary (WKB), and the parts of collections."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.vector_integrity import DAMAGED


def from_wkb(blobs: NDArray[Any], path: Path, first: int) -> NDArray[Any]:
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

    Raises
    ------
    InputError
        A geometry is invalid.
    """
    with np.errstate(invalid="ignore"):
        shapes: NDArray[Any] = shapely.from_wkb(blobs, on_invalid="ignore")
    for k in np.flatnonzero(shapely.is_missing(shapes)):
        if blobs[k] is None:
            continue
        try:
            parts, rest = _parse_wkb(bytes(blobs[k]))
            if rest:
                raise ValueError("it is longer than it states")
        except _UnreadCurve:
            raise InputError(
                f"{path}: feature {first + k + 1} has curves inside a collection, which are not read.",
                "Convert them: ogr2ogr -nlt CONVERT_TO_LINEAR straight.gpkg FILE.",
            ) from None
        except (ValueError, struct.error, RecursionError, shapely.GEOSException) as error:
            raise InputError(f"{path}: the geometry of feature {first + k + 1} is invalid: {error}.", DAMAGED) from None
        shapes[k] = _joined(parts) if parts else None
    return shapes


class _UnreadCurve(Exception):
    """A curve in a collection."""


def _parse_wkb(blob: bytes, depth: int = 0) -> tuple[list[shapely.Geometry], bytes]:
    """The parts of a geometry in two dimensions, and the bytes after it.

    Types of OGC 06-103r4: 1 to 7, 10 curve polygon, 15 polyhedral surface, 16 TIN, 17 triangle. Lines of one point and
    rings without area are left out.
    """
    order = "<" if blob[:1] == b"\1" else ">"
    kind, count = struct.unpack_from(f"{order}II", blob, 1)
    if depth > 32:
        raise ValueError("it is nested too deeply")
    if kind == 1:
        return [shapely.Point(struct.unpack_from(f"{order}2d", blob, 5))], blob[21:]
    if kind == 2:
        points, rest = _parse_points(blob[5:], order)
        return ([shapely.LineString(points)] if len(points) > 1 else []), rest
    if kind in (3, 17):
        rest = blob[9:]
        rings = []
        for number in range(count):
            points, rest = _parse_points(rest, order)
            if len(points) and (points[0] != points[-1]).any():
                points = np.vstack([points, points[:1]])
            if len(points) >= 4:
                rings.append(points)
            elif number == 0:
                rest = _skip_rings(rest, order, count - 1)
                break
        return ([shapely.Polygon(rings[0], rings[1:])] if rings else []), rest
    if kind in (4, 5, 6, 7, 15, 16):
        rest = blob[9:]
        parts: list[shapely.Geometry] = []
        for _ in range(count):
            more, rest = _parse_wkb(rest, depth + 1)
            parts += more
        return parts, rest
    if 8 <= kind <= 14:  # GDAL makes curves straight unless they are in a collection
        raise _UnreadCurve
    raise ValueError(f"its type {kind} is not known")


def _parse_points(blob: bytes, order: str) -> tuple[NDArray[np.float64], bytes]:
    (count,) = struct.unpack_from(f"{order}I", blob)
    if 4 + 16 * count > len(blob):
        raise ValueError("it is shorter than it states")
    return np.frombuffer(blob, f"{order}f8", 2 * count, 4).reshape(count, 2), blob[4 + 16 * count :]


def _skip_rings(blob: bytes, order: str, count: int) -> bytes:
    for _ in range(count):
        _, blob = _parse_points(blob, order)
    return blob


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
