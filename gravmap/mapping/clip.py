"""Polygons that a map is clipped to."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.antimeridian import narrowest_count, turn_by, unwrap
from gravmap.geology.areas import crosses_often
from gravmap.geology.vector import VectorFile, check_degrees, crs_transformers, geometry_types, open_vector, to_wgs84
from gravmap.geology.wkb import take_parts
from gravmap.regions import Region

log = logging.getLogger(__name__)

_HINT = "Give a GeoPackage, Shapefile or GeoJSON with the polygons to map."


@dataclass(frozen=True)
class Clip:
    """The area that a map is clipped to; read by :func:`read_clip`.

    Attributes
    ----------
    path : Path
        The file it was read from.
    shape : shapely Polygon or MultiPolygon
        The polygons of the file, united; longitude and latitude on WGS 84, degrees.
    """

    path: Path
    shape: Any

    @property
    def region(self) -> Region:
        """Bounding box."""
        return Region(*(float(side) for side in self.shape.bounds))

    def contains(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which points of a grid lie inside the area or on its boundary, (h, w)."""
        return np.asarray(shapely.intersects_xy(self.shape, lon[None, :], lat[:, None]), dtype=np.bool_)

    def intersects(self, boxes_wsen: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which boxes (n, 4), in degrees, intersect the area, (n,)."""
        return np.asarray(shapely.intersects(self.shape, shapely.box(*boxes_wsen.T)), dtype=np.bool_)

    def turned_into(self, west: float, east: float) -> Clip:
        """Return the area turned by 360 degrees if it lies between two longitudes only then, else unchanged."""
        here = Region.turned_into(self.region, west, east)
        if here == self.region:
            return self
        turned = turn_by(np.array([self.shape]), here.west - self.region.west)[0]
        shapely.prepare(turned)
        return Clip(self.path, turned)


def read_clip(path: Path) -> Clip:
    """Read the polygons of a file and unite them.

    Parameters
    ----------
    path : Path
        GeoPackage, Shapefile, GeoJSON, a zip of one, or anything else GDAL reads; in any coordinate system.

    Returns
    -------
    Clip
        May be passed to :func:`gravmap.mapping.predict` as the region.

    Raises
    ------
    InputError
        The file is missing or unreadable, has no coordinate system or no polygons, or a polygon has coordinates that
        are not on the Earth.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import geopandas
    >>> import shapely
    >>> from gravmap.mapping import read_clip
    >>> path = Path(tempfile.mkdtemp()) / "basin.gpkg"
    >>> basin = shapely.Polygon([(81, 44), (84, 44), (82.5, 46)])
    >>> geopandas.GeoDataFrame(geometry=[basin], crs="EPSG:4326").to_file(path)
    >>> read_clip(path).region.bounds_wsen
    (81.0, 44.0, 84.0, 46.0)
    """
    if not path.exists():
        raise InputError(f"The polygon file {path} is missing.", "Check the path.")
    file = open_vector(path)
    layer = _polygon_layer(file)
    shapes, _ = file.read(layer)
    shapes = take_parts(shapes, 2)
    is_polygon = np.isin(shapely.get_type_id(shapes), (3, 6)) & ~shapely.is_empty(shapes)
    if not is_polygon.any():
        raise InputError(f"{path} contains {', '.join(geometry_types(shapes))}, but no polygon.", _HINT)
    if not is_polygon.all():
        log.warning("%s: %d features without a polygon are not used.", path.name, np.count_nonzero(~is_polygon))
    hint = "Add its .prj file, or assign the right system: ogr2ogr -a_srs EPSG:4326 with_crs.gpkg FILE."
    crs, _, to_degrees = crs_transformers(file.info(layer)["crs"], path, hint)
    check_degrees(shapely.bounds(shapes[is_polygon]), to_degrees, crs, path)
    polygons, valid = to_wgs84(shapes[is_polygon], to_degrees)
    if not valid.all():
        raise InputError(
            f"{path} has a polygon whose coordinates are not on the Earth.", "Check its coordinate system."
        )
    polygons, _ = unwrap(polygons, path, to_degrees)
    if any(crosses_often(polygon) for polygon in polygons[~shapely.is_valid(polygons)]):
        raise InputError(
            f"{path} has a polygon whose outline crosses itself more than a thousand times.", "Draw or repair it first."
        )
    united = shapely.union_all(narrowest_count(shapely.make_valid(polygons)))
    if not united.area:
        raise InputError(f"The polygons of {path} have no area.", _HINT)
    west, _, east, _ = united.bounds
    if east - west > 360:
        raise InputError(
            f"The polygons of {path} extend over {east - west:g} degrees of longitude, from {west:g} to {east:g}.",
            "Count all of their longitudes from -180 to 180, or from 0 to 360.",
        )
    turn = 360 if west < -180 else -360 if east > 360 else 0
    united = turn_by(np.array([united]), turn)[0]
    shapely.prepare(united)
    return Clip(path, united)


def _polygon_layer(file: VectorFile) -> str:
    """The only layer, or of several the only one with polygons."""
    path, layers = file.path, [name for name, _ in file.layers]
    if not layers:
        raise InputError(f"{path} is a table without geometries.", _HINT)
    if len(layers) == 1:
        return layers[0]
    # Formats such as KML do not state the type of a layer.
    found = [name for name in layers if np.isin(shapely.get_type_id(take_parts(file.read(name)[0], 2)), (3, 6)).any()]
    if len(found) != 1:
        raise InputError(
            f"{path} has {'several layers of polygons' if found else 'no polygons in its layers'}: "
            f"{', '.join(found or layers)}.",
            "Save the polygons to map as a file of their own.",
        )
    return found[0]
