"""Reading vector files with GDAL and reprojecting their geometries to WGS 84."""

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
# A straight edge in a projection is a curve in degrees; segments of this length deviate by about a metre.
LONGEST_EDGE_M = 5000.0
UNREADABLE = (
    pyogrio.errors.DataSourceError,
    pyogrio.errors.DataLayerError,
    pyogrio.errors.GeometryError,
    pyogrio.errors.FeatureError,
)
_SUFFIXES = (".shp", ".gpkg", ".geojson", ".fgb", ".gdb")


def gdal_path(path: Path) -> str:
    """Path as GDAL opens it; for a zip archive, that of the one map inside.

    Raises
    ------
    InputError
        The zip archive is damaged or does not contain exactly one map.
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
            f"{path} is not a valid zip archive.", "It may be a truncated download or a web page saved under that name."
        ) from None
    if not inside:
        raise InputError(f"{path} contains no map ({', '.join(_SUFFIXES)}).", "Unpack it and give the file itself.")
    if len(inside) > 1:
        raise InputError(f"{path} contains several maps: {', '.join(inside[:8])}.", "Unpack it and give one file.")
    return f"/vsizip/{path.resolve()}/{inside[0]}"


def crs_transformers(stated: Any, path: Path, hint: str) -> tuple[str, Any, Any]:
    """Name of a coordinate reference system, and transformers between it and EPSG:4326.

    Parameters
    ----------
    stated : str or None
        The CRS of the file, or the one given for it.
    path : Path
        The file, for messages.
    hint : str
        Hint of the error if there is no CRS.

    Returns
    -------
    name : str
    to_map : Transformer
        From EPSG:4326.
    to_degrees : Transformer or None
        To EPSG:4326; None if the file is in EPSG:4326 already.

    Raises
    ------
    InputError
        There is no CRS, or PROJ does not support it.
    """
    if not stated:
        raise InputError(f"{path} has no coordinate reference system.", hint)
    try:
        crs = CRS.from_user_input(stated)
        # Of several datum shifts PROJ selects the one for the area of each point.
        to_degrees = Transformer.from_crs(crs, TARGET_CRS, always_xy=True)
        to_map = Transformer.from_crs(TARGET_CRS, crs, always_xy=True)
    except (CRSError, ProjError) as error:
        raise InputError(
            f"{path} has a coordinate reference system that PROJ cannot use: {error}.",
            "Reproject it with GIS software first.",
        ) from None
    if crs.equals(CRS.from_user_input(TARGET_CRS), ignore_axis_order=True):
        return TARGET_CRS, to_map, None
    return ":".join(crs.to_authority()) if crs.to_authority() else crs.name, to_map, to_degrees


def read_shapes(
    source: str, layer: str, *, columns: Sequence[str] = (), box: tuple[float, float, float, float] | None = None
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Read geometries and columns of a layer, in the order of the file.

    Parameters
    ----------
    source : str
        From :func:`gdal_path`.
    layer : str
        Name of the layer.
    columns : sequence of str
        Fields to read.
    box : tuple of float, optional
        Only features that intersect it; minimum x, minimum y, maximum x, maximum y in the CRS of the file.

    Returns
    -------
    ndarray, shape (n,), object
        Two-dimensional shapely geometries; None where missing or invalid.
    dict of str to ndarray, shape (n,)
        The columns.
    """
    meta, numbers, blobs, data = pyogrio.raw.read(
        source, layer=layer, columns=list(columns), bbox=box, force_2d=True, return_fids=True
    )
    # With a box, GeoPackage features come in the order of the spatial index; later ones must overwrite earlier ones.
    order = np.argsort(numbers, kind="stable")
    shapes = shapely.from_wkb(np.asarray(blobs, dtype=object)[order], on_invalid="ignore")
    return shapes, {str(name): values[order] for name, values in zip(meta["fields"], data, strict=True)}


def code_text(value: Any) -> str:
    """Value of a field as a normalised code: 7.0 becomes "7", missing values an empty text."""
    if value is None or value != value or str(value) == "<NA>":  # NaN is not equal to itself
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return normalize_code(str(value))


def geometry_types(shapes: NDArray[Any]) -> list[str]:
    """Geometry types that occur, for messages."""
    return sorted({shape.geom_type for shape in shapes if shape is not None}) or ["no geometry"]


def to_wgs84(shapes: NDArray[Any], to_degrees: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Reproject polygons or lines to degrees on WGS 84.

    Edges in a projected CRS are first divided into segments of at most LONGEST_EDGE_M. Only coordinates change, so
    self-intersecting outlines are kept as they are.

    Parameters
    ----------
    shapes : ndarray, shape (n,), object
        All polygons and multipolygons, or all lines and multilines; none empty.
    to_degrees : Transformer or None
        From :func:`crs_transformers`; None for geometries that are in degrees already.

    Returns
    -------
    ndarray, shape (n,), object
        In degrees.
    ndarray, shape (n,), bool
        False where a coordinate is not finite, or PROJ cannot transform it.
    """
    kind, points, offsets = shapely.to_ragged_array(shapes)
    if to_degrees is not None and len(shapes):
        if CRS.from_user_input(to_degrees.source_crs).is_projected:
            metres = to_degrees.source_crs.axis_info[0].unit_conversion_factor or 1.0
            points, ends = densify(points, offsets[0], LONGEST_EDGE_M / metres)
            offsets = (ends, *offsets[1:])
        points = np.column_stack(to_degrees.transform(points[:, 0], points[:, 1]))
        shapes = shapely.from_ragged_array(kind, points, offsets)
    valid = np.isfinite(points).all(axis=1)
    if valid.all():
        return shapes, np.ones(len(shapes), dtype=bool)
    owner = np.arange(len(shapes))
    for ends in reversed(offsets):
        owner = np.repeat(owner, np.diff(ends))
    return shapes, np.bincount(owner[~valid], minlength=len(shapes)) == 0


def densify(
    points: NDArray[np.float64],
    ends: NDArray[Any],
    longest: float,
    *,
    length: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Insert points into lines or rings so that no edge is longer than `longest`.

    Parameters
    ----------
    points : ndarray, shape (n, 2)
        Coordinates of all lines, concatenated.
    ends : ndarray, shape (lines + 1,)
        Offsets of the lines in `points`.
    longest : float
        In the unit of `length`, by default that of the points.
    length : ndarray, shape (n,), optional
        Length of the edge from each point to the next; by default the Euclidean distance.
    """
    step = np.zeros_like(points)
    step[:-1] = np.diff(points, axis=0)
    if length is None:
        length = np.hypot(step[:, 0], step[:, 1])
    last = np.asarray(ends[1:]) - 1  # no edge from the last point of a line to the next line
    step[last] = 0.0
    pieces = np.maximum(np.ceil(np.where(np.isfinite(length), length, 0.0) / longest), 1).astype(np.int64)
    pieces[last] = 1
    total = np.concatenate([[0], np.cumsum(pieces)])
    which = np.repeat(np.arange(len(points)), pieces)
    fraction = (np.arange(total[-1]) - total[which]) / pieces[which]
    return points[which] + fraction[:, None] * step[which], total[np.asarray(ends)]
