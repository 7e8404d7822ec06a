"""A polygon that a map is clipped to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.vector import UNREADABLE, crs_transformers, gdal_path, geometry_types, to_wgs84
from gravmap.regions import Region

_HINT = "Give a GeoPackage, Shapefile or GeoJSON with the polygons to map."


@dataclass(frozen=True)
class Clip:
    """One outline, of several parts perhaps.

    Attributes
    ----------
    path : Path
        The file it was read from.
    shape : shapely Polygon or MultiPolygon
        Degrees on WGS 84.
    """

    path: Path
    shape: Any

    @property
    def region(self) -> Region:
        """The box around it."""
        return Region(*(float(side) for side in self.shape.bounds))

    def holds(self, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which points of a grid lie inside or on the outline, (h, w)."""
        return np.asarray(shapely.intersects_xy(self.shape, lon[None, :], lat[:, None]), dtype=np.bool_)

    def touches(self, boxes_wsen: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which boxes (n, 4) in degrees have ground in common with it, (n,)."""
        return np.asarray(shapely.intersects(self.shape, shapely.box(*boxes_wsen.T)), dtype=np.bool_)


def read_clip(path: Path) -> Clip:
    """Read the polygons of a file and unite them.

    Parameters
    ----------
    path : Path
        GeoPackage, Shapefile, GeoJSON, a zip of one, or anything else GDAL reads; in any coordinate system.

    Raises
    ------
    InputError
        Missing, unreadable, without coordinate system, without polygons, or not on the Earth.
    """
    if not path.exists():
        raise InputError(f"The polygon file {path} is missing.", "Check the path.")
    try:
        frame = geopandas.read_file(gdal_path(path))
    except (*UNREADABLE, ValueError) as error:
        raise InputError(f"{path} is no map that GDAL can read: {error}.", _HINT) from None
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise InputError(f"{path} holds a table without geometries.", _HINT)
    shapes = shapely.force_2d(np.asarray(frame.geometry.values, dtype=object))
    areal = np.isin(shapely.get_type_id(shapes), (3, 6)) & ~shapely.is_empty(shapes)
    if not areal.any():
        raise InputError(f"{path} holds {', '.join(geometry_types(shapes))}, no polygon.", _HINT)
    hint = "Add its .prj, or say what it is: ogr2ogr -a_srs EPSG:4326 with_crs.gpkg FILE (whatever it is)."
    _, _, to_degrees = crs_transformers(frame.crs.to_wkt() if frame.crs else None, path, hint)
    placed, sound = to_wgs84(shapes[areal], to_degrees)
    if not sound.all():
        raise InputError(
            f"{path} has a polygon that cannot be placed on the Earth.", "Is its coordinate system the right one?"
        )
    united = shapely.union_all(shapely.make_valid(placed))
    west, south, east, north = united.bounds
    if not (west < east and south < north):
        raise InputError(f"The polygons of {path} hold no area.", _HINT)
    shapely.prepare(united)
    return Clip(path, united)
