"""Polygons and lines at the antimeridian: longitudes are counted in the turn of the region in which they are used."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

log = logging.getLogger(__name__)

TURNS = (0, -360, 360)
_WORLD = shapely.box(-180, -90, 180, 90)


def is_projected(to_degrees: Any) -> bool:
    """Whether a transformer (:func:`gravmap.geology.vector.crs_transformers`) comes from a projection."""
    return to_degrees is not None and bool(CRS.from_user_input(to_degrees.source_crs).is_projected)


def unwrap(shapes: NDArray[Any], path: Path, to_degrees: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Count the longitudes of polygons or lines across the antimeridian on beyond 180 degrees.

    An edge longer than 180 degrees, as from 179 to -179, takes the short way round. Edges of 360 degrees and edges
    along a pole are kept, because polygons of the whole world have them, as are rectangles higher than 90 degrees. A
    polygon around a pole includes it.

    Parameters
    ----------
    shapes : ndarray, shape (n,), object
        Shapely polygons, multipolygons, lines or multilines; degrees on WGS 84.
    path : Path
        The file, for a warning.
    to_degrees : Transformer or None
        From :func:`gravmap.geology.vector.crs_transformers`: in a projection no edge is longer than 180 degrees.

    Returns
    -------
    ndarray, shape (n,), object
        The shapes.
    ndarray, shape (n,), bool
        Which of them were changed.
    """
    changed = np.zeros(len(shapes), dtype=bool)
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    far = (np.abs(np.diff(points[:, 0])) > 180) & (owner[1:] == owner[:-1])
    projected = is_projected(to_degrees)
    shapes = shapes.copy()
    for k in np.unique(owner[:-1][far]) if far.any() else ():
        parts = [_unwrapped(part, projected) for part in shapely.get_parts(shapes[k])]
        if any(part is not None for part in parts):
            whole = [old if new is None else new for old, new in zip(shapely.get_parts(shapes[k]), parts, strict=True)]
            shapes[k] = _joined(whole)
            changed[k] = True
    if changed.any() and not projected:
        log.warning(
            "%s: %d features with edges longer than 180 degrees are read as lying across the antimeridian.",
            path.name,
            np.count_nonzero(changed),
        )
    return shapes, changed


def _unwrapped(part: Any, projected: bool) -> Any:
    """A polygon or line with its longitudes counted on; None if it is right as it is."""
    if part.geom_type in ("LineString", "LinearRing"):
        points = shapely.get_coordinates(part)
        lon = _count_on(points, projected)
        return None if lon is None else shapely.LineString(np.column_stack([lon, points[:, 1]]))
    if part.geom_type != "Polygon" or part.is_empty:
        return None
    rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(part)]
    counted = [_count_on(points, projected) for points in rings]
    if all(lon is None for lon in counted):
        return None
    shell, *holes = [
        points if lon is None else np.column_stack([lon, points[:, 1]])
        for points, lon in zip(rings, counted, strict=True)
    ]
    west, east = shell[:, 0].min(), shell[:, 0].max()
    inside = []
    for hole in holes:
        fitting = [
            turn for turn in TURNS if hole[:, 0].min() + turn >= west - 1e-9 and hole[:, 0].max() + turn <= east + 1e-9
        ]
        inside.append(np.add(hole, [fitting[0], 0]) if fitting and not _winds(hole) else None)
    if not _winds(shell) and all(hole is not None for hole in inside):
        return shapely.Polygon(shell, inside)
    area = _area(shell)
    for hole in holes:
        for turn in TURNS:
            area = shapely.difference(
                area, shapely.transform(_area(hole), lambda points, by=turn: np.add(points, [by, 0]))
            )
    return _joined(list(shapely.get_parts(area)))


def _count_on(points: NDArray[np.float64], projected: bool) -> NDArray[np.float64] | None:
    """Longitudes without edges longer than 180 degrees; None if there are none."""
    step, lat = np.diff(points[:, 0]), points[:, 1]
    far = np.abs(step) > 180
    if not projected:
        far &= np.abs(np.abs(step) - 360) > 1e-6
        far &= (np.abs(lat[1:]) < 90 - 1e-9) | (np.abs(lat[:-1]) < 90 - 1e-9)
        if np.unique(points[:, 0]).size == 2 and lat.max() - lat.min() > 90:  # the frame of a world map
            return None
    if not far.any():
        return None
    turns = np.concatenate([[0], np.cumsum(np.where(far, -360 * np.round(step / 360), 0))])
    return np.asarray(points[:, 0] + turns)


def _winds(ring: NDArray[np.float64]) -> bool:
    """Whether a closed ring runs around a pole."""
    return bool(abs(ring[-1, 0] - ring[0, 0]) > 180)


def _area(ring: NDArray[np.float64]) -> Any:
    """The area inside a ring: a valid polygon; with the pole, from -180 to 180 degrees, if the ring runs around one."""
    if not _winds(ring):
        return shapely.make_valid(shapely.Polygon(ring))
    if ring[-1, 0] < ring[0, 0]:
        ring = ring[::-1]
    first = 360 * np.floor((ring[0, 0] + 180) / 360)
    thrice = np.concatenate([np.add(ring, [turn - first, 0]) for turn in (-360, 0, 360)])
    pole = 90.0 if ring[:, 1].mean() > 0 else -90.0
    closed = np.concatenate([[[thrice[0, 0], pole]], thrice, [[thrice[-1, 0], pole]]])
    return shapely.intersection(shapely.make_valid(shapely.Polygon(closed)), _WORLD)


def _joined(parts: list[Any]) -> Any:
    """One geometry of polygons, or of lines."""
    lines = [part for part in shapely.get_parts(parts) if part.geom_type == "LineString"]
    polygons = [part for part in shapely.get_parts(parts) if part.geom_type == "Polygon"]
    kept = polygons or lines
    if len(kept) == 1:
        return kept[0]
    return shapely.MultiPolygon(kept) if polygons else shapely.MultiLineString(kept)


def turn_into(shapes: NDArray[Any], west: float, east: float) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Shapes turned by 360 degrees into a range of longitudes; one that is there in two turns comes twice.

    Parameters
    ----------
    shapes : ndarray, shape (n,), object
        Degrees.
    west, east : float
        The range.

    Returns
    -------
    ndarray, shape (m,), object
        The shapes in the range, in their order.
    ndarray, shape (m,), int
        Number of each in `shapes`.
    """
    bounds = shapely.bounds(shapes)
    turned, owners = [], []
    for turn in TURNS:
        at = np.flatnonzero((bounds[:, 0] + turn < east) & (bounds[:, 2] + turn > west))
        turned.append(turn_by(shapes[at], turn))
        owners.append(at)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(turned)[order], owner[order]


def turn_by(shapes: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Shapes with `degrees` added to their longitudes."""
    if not degrees or not len(shapes):
        return shapes
    return np.asarray(shapely.transform(shapes, lambda points: np.add(points, [degrees, 0])), dtype=object)


def narrowest_count(polygons: NDArray[Any]) -> NDArray[Any]:
    """Polygons turned by 360 degrees, each by itself, so that together they extend over the fewest longitudes.

    Those of a region cut at the antimeridian, from 170 to 180 and from -180 to -170 degrees, then lie side by side.
    Polygons within 180 degrees are returned as they are.
    """
    parts = shapely.get_parts(polygons)
    bounds = shapely.bounds(parts)
    if bounds[:, 2].max() - bounds[:, 0].min() <= 180:
        return polygons
    west = bounds[:, 0] % 360
    east = west + bounds[:, 2] - bounds[:, 0]
    order = np.argsort(west, kind="stable")
    # The largest gap before a polygon, seen from the ends of all that begin before it.
    ends = np.maximum.accumulate(np.concatenate([[east.max() - 360], east[order][:-1]]))
    gaps = west[order] - ends
    if gaps.max() <= 360 - (bounds[:, 2].max() - bounds[:, 0].min()) + 1e-9:
        return polygons
    first = order[int(np.argmax(gaps))]
    turns = west - bounds[:, 0] + np.where(west < west[first], 360, 0)
    turns -= turns[first]
    return np.array([turn_by(np.array([part]), round(t))[0] for part, t in zip(parts, turns, strict=True)])
