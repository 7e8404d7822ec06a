"""A vector file as GDAL opens it, its coordinate system, and its shapes brought to degrees on WGS 84."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from gravmap.errors import InputError
from gravmap.geology.legend import normalize_code

log = logging.getLogger(__name__)

TARGET_CRS = "EPSG:4326"
# A straight edge in a projection is a curve in degrees; pieces this short bend by about a metre.
LONGEST_EDGE_M = 5000.0
UNREADABLE = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.GeometryError,
    pyogrio.errors.FeatureError,
)
_SUFFIXES = (".shp", ".gpkg", ".geojson", ".fgb", ".gdb")


def gdal_path(path: Path) -> str:
    """What GDAL opens: the path, or the one map inside a zip.

    Raises
    ------
    InputError
        A zip that is broken, or does not hold exactly one map.
    """
    if path.suffix.lower() != ".zip":
        return str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [
                name for name in archive.namelist() if name.lower().endswith(_SUFFIXES) and "__MACOSX" not in name
            ]
    except zipfile.BadZipFile:
        raise InputError(
            f"{path} is no zip archive.", "It may be a cut-off download or a web page saved under that name."
        ) from None
    if not inside:
        raise InputError(f"{path} holds no map ({', '.join(_SUFFIXES)}).", "Unpack it and give the file itself.")
    if len(inside) > 1:
        raise InputError(f"{path} holds several maps: {', '.join(inside[:8])}.", "Unpack it and give one file.")
    return f"/vsizip/{path.resolve()}/{inside[0]}"


def crs_transformers(stated: Any, path: Path, hint: str) -> tuple[str, Any, Any]:
    """A file's system by name, and transformers from degrees to it and from it to degrees.

    Parameters
    ----------
    stated : str or None
        What the file, or the user, says.
    path : Path
        The file, for messages.
    hint : str
        What to do when nothing is said.

    Returns
    -------
    str, Transformer, Transformer or None
        The last is None when the file is in EPSG:4326 already.

    Raises
    ------
    InputError
        No system, or one that PROJ does not know.
    """
    if not stated:
        raise InputError(f"{path} does not say its coordinate system.", hint)
    try:
        crs = CRS.from_user_input(stated)
        # Of a datum shift made for several areas PROJ takes the one of the place, point by point.
        to_degrees = Transformer.from_crs(crs, TARGET_CRS, always_xy=True)
        to_map = Transformer.from_crs(TARGET_CRS, crs, always_xy=True)
    except (CRSError, ProjError) as error:
        raise InputError(
            f"{path} has a coordinate system that PROJ cannot use: {error}.", "Reproject it with GIS software first."
        ) from None
    if crs.equals(CRS.from_user_input(TARGET_CRS), ignore_axis_order=True):
        return TARGET_CRS, to_map, None
    return ":".join(crs.to_authority()) if crs.to_authority() else crs.name, to_map, to_degrees


def read_shapes(
    source: str, layer: str, *, columns: Sequence[str] = (), box: tuple[float, float, float, float] | None = None
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Geometries and columns of a layer, in the order of the file.

    Parameters
    ----------
    source : str
        As :func:`gdal_path` gives it.
    layer : str
        Which layer.
    columns : sequence of str
        Fields to read.
    box : tuple of float, optional
        Only what touches it; in the file's own system: smallest x, smallest y, largest x, largest y.

    Returns
    -------
    ndarray, shape (n,), object
        Shapely geometries without heights; None where the file has none, or none that can be read.
    dict of str to ndarray, shape (n,)
        The columns.
    """
    meta, numbers, blobs, data = pyogrio.raw.read(
        source, layer=layer, columns=list(columns), bbox=box, force_2d=True, return_fids=True
    )
    # With a box a GeoPackage answers in the order of its spatial index, and what is later in the file must win.
    order = np.argsort(numbers, kind="stable")
    shapes = shapely.from_wkb(np.asarray(blobs, dtype=object)[order], on_invalid="ignore")
    return shapes, {str(name): values[order] for name, values in zip(meta["fields"], data, strict=True)}


def code_text(value: Any) -> str:
    """A field's value as text: as normal_code has it, 7.0 written 7, nothing at all as the empty code."""
    if value is None or value != value or str(value) == "<NA>":  # NaN is the only value unlike itself
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return normalize_code(str(value))


def geometry_types(shapes: NDArray[Any]) -> list[str]:
    """The kinds of geometry met, for messages."""
    return sorted({shape.geom_type for shape in shapes if shape is not None}) or ["no geometry"]


def to_wgs84(shapes: NDArray[Any], to_degrees: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Polygons, or lines, of a file's system in degrees on WGS 84.

    Edges of a projected system are first cut into pieces of LONGEST_EDGE_M. Coordinates alone are touched, so
    that outlines which cross themselves come through whole.

    Parameters
    ----------
    shapes : ndarray, shape (n,), object
        All polygons and multipolygons, or all lines and multilines; none empty.
    to_degrees : Transformer or None
        From :func:`crs_transformers`; None leaves the shapes as they are.

    Returns
    -------
    ndarray, shape (n,), object
        In degrees.
    ndarray, shape (n,), bool
        False where a coordinate is no number, or PROJ knows no place for it.
    """
    kind, points, offsets = shapely.to_ragged_array(shapes)
    if to_degrees is not None and len(shapes):
        if CRS.from_user_input(to_degrees.source_crs).is_projected:
            metres = to_degrees.source_crs.axis_info[0].unit_conversion_factor or 1.0
            points, ends = densify(points, offsets[0], LONGEST_EDGE_M / metres)
            offsets = (ends, *offsets[1:])
        points = np.column_stack(to_degrees.transform(points[:, 0], points[:, 1]))
        shapes = shapely.from_ragged_array(kind, points, offsets)
    sound = np.isfinite(points).all(axis=1)
    if sound.all():
        return shapes, np.ones(len(shapes), dtype=bool)
    whose = np.arange(len(shapes))
    for ends in reversed(offsets):
        whose = np.repeat(whose, np.diff(ends))
    return shapes, np.bincount(whose[~sound], minlength=len(shapes)) == 0


def densify(
    points: NDArray[np.float64],
    ends: NDArray[Any],
    longest: float,
    *,
    length: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Lines or rings with points put in, so that no edge is longer than `longest`.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        One line after the other.
    ends : ndarray, shape (lines + 1,)
        Where each line begins, and where the last one ends.
    longest : float
        In the unit of `length`, by default that of the points.
    length : ndarray, shape (n,), optional
        How long the edge from each point to the next is; default by Pythagoras.
    """
    step = np.zeros_like(points)
    step[:-1] = np.diff(points, axis=0)
    if length is None:
        length = np.hypot(step[:, 0], step[:, 1])
    last = np.asarray(ends[1:]) - 1  # from one line to the next there is no edge
    step[last] = 0.0
    pieces = np.maximum(np.ceil(np.where(np.isfinite(length), length, 0.0) / longest), 1).astype(np.int64)
    pieces[last] = 1
    total = np.concatenate([[0], np.cumsum(pieces)])
    which = np.repeat(np.arange(len(points)), pieces)
    share = (np.arange(total[-1]) - total[which]) / pieces[which]
    return points[which] + share[:, None] * step[which], total[np.asarray(ends)]
