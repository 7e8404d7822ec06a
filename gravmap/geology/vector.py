"""Reading vector files with GDAL and reprojecting their geometries to WGS 84.

Every vector file is opened with :func:`open_vector`. What GDAL or pyogrio raise or warn of while reading is an error,
and the features read are compared with those the file states (:mod:`gravmap.geology.vector_integrity`).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from gravmap.errors import GravmapError, InputError
from gravmap.geology.legend import normalize_code
from gravmap.geology.vector_integrity import (
    DAMAGED,
    Bytes,
    Contents,
    features,
    geojson_contents,
    open_sqlite,
    shapefile_contents,
    sqlite_contents,
    sqlite_views,
    states_encoding,
    zip_member,
)
from gravmap.geology.vector_values import decoded_text, single_values
from gravmap.geology.wkb import from_wkb

log = logging.getLogger(__name__)

TARGET_CRS = "EPSG:4326"
# A straight edge in a projection is a curve in degrees; segments of this length deviate by about a metre.
LONGEST_EDGE_M = 5000.0
# No projection of the Earth is larger than this, the number of a zone in front of the easting included.
_FARTHEST_M = 1e8
# In no unit of length or angle is a coordinate on the Earth as large; areas of larger ones overflow.
_LARGEST_COORDINATE = 1e12
_MOST_INSERTED_POINTS = 1 << 24
_FEATURES_PER_READ = 50_000
# Warnings after which every polygon and every value is read all the same.
_RASTERS = (".tif", ".tiff", ".img", ".nc", ".grd", ".asc", ".vrt")
_HARMLESS = (
    "Measured (M) geometry types",
    "Non closed ring detected",  # closed by from_wkb
    "Several features with id",
    "organizePolygons() received",
    # GEOS on outlines that are not valid
    "Self-intersection",
    "Too few points in geometry component",
    "Nested shells",
    "Holes are nested",
    "Hole lies outside shell",
    "Interior is disconnected",
    "Duplicate Rings",
    "too many members in array",  # more than three coordinates
    "may only be partially supported",  # a later version of GeoPackage
    "non conformant file extension",
    "Field format '' not supported",  # of a table that is not read
    "invalid value encountered in from_wkb",  # coordinates that are NaN, found by to_wgs84
)
# Warnings of polygons that are read, if not as their author may have meant them.
_DOUBTFUL = ("cannot be translated to Simple Geometry",)


@dataclass(frozen=True)
class VectorFile:
    """A vector file that GDAL can open; made by :func:`open_vector`.

    Attributes
    ----------
    path : Path
        The file.
    source : str
        Its name for GDAL.
    layers : tuple of (str, str)
        Name and geometry type of the layers with geometry. Views of a database are left out.
    contents : Bytes
        The bytes of the file, for checks.
    """

    path: Path
    source: str
    layers: tuple[tuple[str, str], ...]
    contents: Bytes
    _described: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def info(self, layer: str) -> dict[str, Any]:
        """Fields, CRS, extent and driver of a layer, as :func:`pyogrio.read_info` returns them."""
        if layer not in self._described:
            with _gdal_errors(self.path, strict=False):
                self._described[layer] = dict(pyogrio.read_info(self.source, layer=layer, force_total_bounds=True))
        return self._described[layer]

    def read(
        self,
        layer: str,
        *,
        columns: Sequence[str] = (),
        box: tuple[float, float, float, float] | None = None,
        known: Collection[str] = (),
    ) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Read geometries and columns of a layer, in the order of the file.

        All features are read, and compared with what the file states, also where only those in a box are kept: a
        spatial index or the bounds of a record may be wrong.

        Parameters
        ----------
        layer : str
            Name of the layer.
        columns : sequence of str
            Fields to read.
        box : tuple of float, optional
            Only features that intersect it; minimum x, minimum y, maximum x, maximum y in the CRS of the file.
        known : collection of str
            Values with other letters than those of ASCII that are correct in a table without an encoding.

        Returns
        -------
        ndarray, shape (n,), object
            Two-dimensional shapely geometries; None where missing. Surfaces of triangles and polygons are
            multipolygons.
        dict of str to ndarray, shape (n,)
            The columns.

        Raises
        ------
        InputError
            A feature or a value cannot be read, or the encoding of text is not known.
        """
        info = self.info(layer)
        stated = self._stated(layer, info)
        columns = list(dict.fromkeys(columns))
        read: list[tuple[NDArray[Any], ...]] = []  # number, whether there is a geometry, bounds
        kept_shapes, kept_values = [], []
        first = 0
        while True:
            with _gdal_errors(self.path):
                meta, numbers, blobs, data = pyogrio.raw.read(
                    self.source,
                    layer=layer,
                    columns=columns,
                    force_2d=True,
                    return_fids=True,
                    skip_features=first,
                    max_features=_FEATURES_PER_READ,
                )
                # Later features of a map overwrite earlier ones.
                order = np.argsort(numbers, kind="stable")
                shapes, reduced = from_wkb(np.asarray(blobs, dtype=object)[order], self.path, first)
            # GDAL counts deleted rows of a Shapefile when it skips, so some features come twice.
            new = np.ones(len(order), dtype=bool)
            if read:
                new = ~np.isin(numbers[order], np.concatenate([earlier for earlier, *_ in read]))
            none = np.array([blobs[k] is None for k in order], dtype=bool)
            bounds = shapely.bounds(shapes)
            absurd = np.flatnonzero((np.abs(bounds) > _LARGEST_COORDINATE).any(axis=1))
            if absurd.size:
                raise InputError(
                    f"{self.path} has {features(absurd.size)} with coordinates beyond {_LARGEST_COORDINATE:g}; the "
                    f"first is number {first + absurd[0] + 1}.",
                    DAMAGED,
                )
            bounds[reduced] = np.nan  # those of the rings left out may be part of the bounds stated
            read.append((numbers[order][new], none[new], bounds[new]))
            near = new if box is None else new & _near(shapes, box)
            kept_shapes.append(shapes[near])
            kept_values.append({str(n): v[order][near] for n, v in zip(meta["fields"], data, strict=True)})
            first += len(numbers)
            if len(numbers) < _FEATURES_PER_READ:
                break
        _, missing, bounds = (np.concatenate(each) for each in zip(*read, strict=True))
        if stated is not None:
            stated.check(self.path, missing, bounds)
        elif len(missing) != info["features"] >= 0:
            raise InputError(f"{self.path} states {features(info['features'])}; {len(missing)} can be read.", DAMAGED)
        table = {name: np.concatenate([values[name] for values in kept_values]) for name in kept_values[0]}
        subtypes = dict(zip(map(str, info["fields"]), info.get("ogr_subtypes", ()), strict=False))
        table = {
            name: single_values(values, name, subtypes.get(name) == "OFSTJSON", self.path)
            for name, values in table.items()
        }
        if info["encoding"] != "UTF-8" or not states_encoding(self.contents):
            table = {name: decoded_text(values, name, known, self.path) for name, values in table.items()}
        return np.concatenate(kept_shapes), table

    def _stated(self, layer: str, info: dict[str, Any]) -> Contents | None:
        """What the file states about the features of a layer; None for formats without a check."""
        if info["driver"] == "ESRI Shapefile":
            return shapefile_contents(self.contents, self.path)
        if info["driver"] == "GeoJSON":
            return geojson_contents(self.contents, self.path, lambda name: _same_crs(name, info["crs"]))
        connection = open_sqlite(self.contents, self.path) if info["driver"] == "GPKG" else None
        if connection is None:
            return None
        try:
            return sqlite_contents(connection, layer, self.path)
        finally:
            connection.close()


def open_vector(path: Path) -> VectorFile:
    """Open a vector file: a GeoPackage, a Shapefile, a zip archive of either, or another format of GDAL.

    Raises
    ------
    InputError
        The file is damaged, GDAL cannot read it, or a zip archive does not contain exactly one map.
    """
    member = zip_member(path) if path.suffix.lower() == ".zip" else ""
    contents = Bytes(path, member)
    connection = open_sqlite(contents, path)
    views = sqlite_views(connection)
    if connection is not None:
        connection.close()
    source = f"/vsizip/{path.resolve()}/{member}" if member else str(path)
    with _gdal_errors(path, strict=False):
        layers = [(str(name), str(kind)) for name, kind in pyogrio.list_layers(source) if kind is not None]
    tables = tuple((name, kind) for name, kind in layers if name not in views)
    if layers and not tables:
        raise InputError(
            f"{path} has no layer with geometry but views: {', '.join(name for name, _ in layers)}.",
            "A view is not read: export it as a layer.",
        )
    if len(tables) < len(layers):
        log.info("%s: views are not read: %s.", path, ", ".join(name for name, _ in layers if name in views))
    return VectorFile(path, source, tables, contents)


@contextmanager
def _gdal_errors(path: Path, *, strict: bool = True) -> Iterator[None]:
    """Turn what GDAL and pyogrio raise into InputError; what they warn of too, or into warnings of our own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except (GravmapError, MemoryError):
            raise
        except UnicodeDecodeError as error:
            raise InputError(
                f"The text in {path} is not in the encoding it states: {error}.",
                "For a Shapefile write the correct one, such as CP1251 or ISO-8859-1, into a .cpg file beside it.",
            ) from error
        except (UnboundLocalError, CRSError) as error:  # pyogrio on text that GDAL cannot take for a CRS
            raise InputError(
                f"The coordinate reference system of {path} cannot be read.",
                "Replace its .prj by an intact one; in other formats assign it: ogr2ogr -a_srs EPSG:NUMBER NEW FILE.",
            ) from error
        except Exception as error:
            if "SHAPE_RESTORE_SHX" in str(error):
                raise InputError(
                    f"{path} comes without its .shx, which says where each feature is.",
                    f"Copy the .shx too, or make the map anew: SHAPE_RESTORE_SHX=YES ogr2ogr OUT.gpkg {path}",
                ) from error
            if "parquet" in path.suffix.lower():
                raise InputError(
                    f"{path} is GeoParquet, which this build of GDAL does not read.",
                    "Convert it to a GeoPackage (.gpkg).",
                ) from error
            if path.suffix.lower() in _RASTERS:
                raise InputError(
                    f"{path} is a raster, and not a map of polygons.",
                    "Give the map's vector file. `gdal_polygonize.py` makes polygons of a raster of classes.",
                ) from error
            raise InputError(
                f"{path} cannot be read by GDAL: {_one_line(error)}.",
                "Is the file complete? Give a GeoPackage or a Shapefile (.shp with .shx and .dbf).",
            ) from error
    for warning in caught:
        if any(words in str(warning.message) for words in _HARMLESS):
            log.debug("%s: %s", path, warning.message)
            continue
        if not strict or any(words in str(warning.message) for words in _DOUBTFUL):
            log.warning("%s: GDAL says: %s.", path.name, _one_line(warning.message))
            continue
        raise InputError(f"{path} cannot be read in full; GDAL says: {_one_line(warning.message)}.", DAMAGED)


def _one_line(message: object) -> str:
    return " ".join(str(message).partition("; It might help to specify")[0].split())[:300].strip(". ")


def _same_crs(name: str, found: str | None) -> bool:
    """Whether GDAL understood a name; if not, it takes it for WGS 84."""
    if found != TARGET_CRS or name.upper().replace(":", "").endswith("CRS84"):
        return True
    try:
        return bool(CRS.from_user_input(name).equals(CRS.from_user_input(found), ignore_axis_order=True))
    except CRSError:
        return False


def _near(shapes: NDArray[Any], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Which geometries intersect a box; without geometry False, with coordinates that are not finite True."""
    bounds = shapely.bounds(shapes)
    finite = np.isfinite(bounds).all(axis=1)
    near = (bounds[:, 0] <= box[2]) & (bounds[:, 2] >= box[0]) & (bounds[:, 1] <= box[3]) & (bounds[:, 3] >= box[1])
    doubtful = np.flatnonzero(near & finite)
    try:
        near[doubtful] = shapely.intersects(shapes[doubtful], shapely.box(*box))
    except shapely.GEOSException as error:  # those with bounds that intersect are kept
        log.debug("intersects: %s", error)
    return np.asarray(near | (~finite & ~shapely.is_missing(shapes) & ~shapely.is_empty(shapes)))


def check_degrees(bounds: NDArray[np.float64], to_degrees: Any, crs: str, path: Path) -> None:
    """Raise InputError if the coordinates in a system of degrees cannot be degrees.

    Parameters
    ----------
    bounds : ndarray, shape (n, 4)
        Minimum x, minimum y, maximum x, maximum y; NaN is ignored.
    to_degrees : Transformer or None
    crs : str
        From :func:`crs_transformers`.
    path : Path
        The file, for the message.
    """
    if to_degrees is not None and to_degrees.source_crs.axis_info[0].unit_name != "degree":
        return
    bounds = np.asarray(bounds, dtype=np.float64).reshape(-1, 4)
    # Longitudes are counted from -180, from 0, or beyond 180 for a map across the antimeridian.
    far = (np.abs(bounds[:, [1, 3]]) > 90.001).any(axis=1) | (bounds[:, 0] < -360) | (bounds[:, 2] > 540)
    if far.any():
        west, south, east, north = bounds[np.flatnonzero(far)[0]]
        raise InputError(
            f"{path} has coordinates that are no degrees (x {west:g} to {east:g}, y {south:g} to {north:g}), though "
            f"its coordinate reference system is {crs}.",
            "GeoJSON without crs is in degrees. Assign the right one: ogr2ogr -a_srs EPSG:NUMBER with_crs.gpkg FILE.",
        )


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
    if not stated and path.with_suffix(".prj").is_file():
        raise InputError(f"The .prj of {path} does not contain a coordinate reference system that GDAL can read.", hint)
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
            with np.errstate(invalid="ignore"):
                points = np.where(np.abs(points).max(axis=1, keepdims=True) * metres <= _FARTHEST_M, points, np.nan)
            # Edges as long as a continent, and thousands of them, are divided less.
            length = float(np.nansum(np.hypot(*np.diff(points, axis=0).T)))
            points, ends = densify(points, offsets[0], max(LONGEST_EDGE_M / metres, length / _MOST_INSERTED_POINTS))
            offsets = (ends, *offsets[1:])
        points = np.column_stack(to_degrees.transform(points[:, 0], points[:, 1]))
        points[~np.isfinite(points).all(axis=1)] = np.inf  # equal to itself, so that rings stay closed
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
