"""Reading a geological map: the right layer and field, EPSG:4326, valid polygons, codes without their padding.

geopandas takes a second to load, so this file is imported only where a map is read.
"""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from gravmap.errors import InputError
from gravmap.geology.legend import Legend, joined_ages, normal_code
from gravmap.regions import Region

log = logging.getLogger(__name__)

TARGET_CRS = "EPSG:4326"
# A straight edge in a projection is a curve in degrees; pieces this short bend by about a metre.
LONGEST_EDGE_M = 5000.0
_SUFFIXES = (".shp", ".gpkg", ".geojson", ".fgb", ".gdb")


@dataclass(frozen=True)
class MapPolygons:
    """The polygons of a map in and around a region.

    Attributes
    ----------
    geometries : ndarray, shape (n,), object
        Shapely polygons and multipolygons, degrees on WGS 84, all valid.
    codes : list of tuple of str
        Per polygon the code of the legend's field (or its age, as :func:`gravmap.geology.legend.joined_ages` writes
        it), then those of its override fields.
    fields : tuple of str
        Names of these fields as the file spells them; ``"b_age, t_age"`` where the age stands in two.
    crs : str
        The file's own coordinate system, or the one the legend stated for it.
    mended, dropped : int
        Invalid polygons made valid; features left out because they hold no area.
    layer : str
        The layer read.
    notes : tuple of str
        What was decided on the way, in plain words.
    """

    geometries: NDArray[Any]
    codes: list[tuple[str, ...]]
    fields: tuple[str, ...]
    crs: str
    mended: int = 0
    dropped: int = 0
    layer: str = ""
    notes: tuple[str, ...] = field(default=())


def read_map(path: Path, legend: Legend, region: Region | None) -> MapPolygons:
    """Read the polygons of a geological map that lie in or near a region, or all.

    Parameters
    ----------
    path : Path
        GeoPackage, Shapefile, a zip of either, or anything else GDAL reads.
    legend : Legend
        Names the field of the code, the override fields, and the system of a file without one.
    region : Region or None
        What is wanted, degrees; None for the whole map.

    Returns
    -------
    MapPolygons
        Reprojected to EPSG:4326 by PROJ, datum shift included; may hold no polygon when the map does not
        touch the region.

    Raises
    ------
    InputError
        No such file, no readable layer, no coordinate system, no such field, no polygons.
    """
    if not legend.candidates:
        raise InputError(
            f"The legend {legend.name} has classes but no [map]: it says no field and no codes.",
            "Give another --legend.",
        )
    if not path.exists():
        raise InputError(
            f"The map {path} is missing.", "Check the path, or `gravmap fetch` the maps that gravmap knows."
        )
    source = _dataset(path)
    try:
        layer, info = _choose_layer(source, legend, path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise InputError(
            f"{path} is no map that GDAL can read: {error}.",
            "Bring a GeoPackage or a Shapefile (.shp with .shx and .dbf).",
        ) from None
    notes: list[str] = []
    names = [str(name) for name in info["fields"]]
    first = _code_fields(legend, names, path, notes)
    spelled = (", ".join(first), *(_find_field(entry.field, names, path, notes) for entry in legend.overrides))
    crs, to_map, to_degrees = _systems(info["crs"], legend, path, notes)
    box = None if region is None else _box(region, to_map, path, crs)
    try:
        frame = geopandas.read_file(
            source, layer=layer, bbox=box, columns=list(dict.fromkeys((*first, *spelled[1:]))), engine="pyogrio"
        )
    except pyogrio.errors.DataSourceError as error:
        raise InputError(
            f"{path} cannot be read: {error}.", "Is the file whole? A Shapefile needs its .shx and .dbf beside it."
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"The text in {path} is not in the encoding it states: {error}.",
            "For a Shapefile write the right one, such as CP1251 or ISO-8859-1, into a .cpg file beside it.",
        ) from None
    if len(frame) == 0:
        return MapPolygons(np.empty(0, dtype=object), [], spelled, crs, layer=layer, notes=tuple(notes))
    shapes, kept, mended = _valid_polygons(np.asarray(frame.geometry.values, dtype=object), to_degrees, crs)
    if not kept.any():
        kinds = sorted({str(kind) for kind in frame.geometry.geom_type.dropna()}) or ["no geometry"]
        raise InputError(
            f"{path} holds {', '.join(kinds)}{'' if region is None else ' in the region'}, no polygons.",
            "A label raster needs the map's polygon layer.",
        )
    parts = [[_code(value) for value in frame.loc[kept, name]] for name in first]
    columns = [[joined_ages(values) for values in zip(*parts, strict=True)]]
    columns += [[_code(value) for value in frame.loc[kept, name]] for name in spelled[1:]]
    dropped = int(np.count_nonzero(~kept))
    codes = list(zip(*columns, strict=True))
    return MapPolygons(shapes, codes, spelled, crs, mended, dropped, layer, tuple(notes))


def map_region(path: Path, legend: Legend) -> Region | None:
    """Where a map lies, degrees; None when it says nothing (for messages)."""
    try:
        _, info = _choose_layer(_dataset(path), legend, path)
        bounds = info["total_bounds"]
        if bounds is None or not np.all(np.isfinite(bounds)):
            return None
        _, to_map, _ = _systems(info["crs"], legend, path, [])
        return Region(*to_map.transform_bounds(*bounds, direction="INVERSE"))
    except (pyogrio.errors.DataSourceError, InputError, ValueError):
        return None
    except Exception as error:  # only a message is at stake here
        log.debug("No extent for %s: %s", path, error)
        return None


def _dataset(path: Path) -> str:
    """What GDAL opens: the path, or the one map inside a zip."""
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


def _box(region: Region, to_map: Any, path: Path, crs: str) -> tuple[float, float, float, float]:
    """A region in the map's system, with a margin."""
    box = to_map.transform_bounds(*region.bounds_wsen, densify_pts=21)
    if not np.all(np.isfinite(box)):
        raise InputError(
            f"The region {region} lies outside what the system {crs} of {path} can show.",
            "Check the map's coordinate system.",
        )
    margin = 0.02 * max(box[2] - box[0], box[3] - box[1])
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def _choose_layer(source: str, legend: Legend, path: Path) -> tuple[str, dict[str, Any]]:
    """The layer with the legend's field, or the only one."""
    layers = [str(name) for name, kind in pyogrio.list_layers(source) if kind is not None]
    if not layers:
        raise InputError(f"{path} holds no layer with geometry.", "Bring the polygons of a geological map.")
    described = {name: pyogrio.read_info(source, layer=name, force_total_bounds=True) for name in layers}
    with_field = [name for name, info in described.items() if legend.fields_in(map(str, info["fields"]))]
    if len(layers) > 1 and len(with_field) > 1:
        raise InputError(
            f"{path} has the field {legend.wanted} in several layers: {', '.join(with_field)}.",
            "Save the one you mean as its own file.",
        )
    if len(layers) > 1 and not with_field:
        raise InputError(
            f"No layer of {path} has the field {legend.wanted}: {', '.join(layers)}.",
            "Give --field, or another --legend.",
        )
    name = with_field[0] if with_field else layers[0]
    return name, described[name]


def _code_fields(legend: Legend, names: list[str], path: Path, notes: list[str]) -> tuple[str, ...]:
    """The field of the code, or the one or two of the age, as the file spells them."""
    fields = legend.fields_in(names)
    if fields is None and len(legend.candidates) > 1:
        raise InputError(
            f"{path} has none of the fields the legend {legend.name} looks for ({legend.wanted}); "
            f"its fields are {', '.join(names) or 'none'}.",
            "Name the field with --field; two with a comma between: --field OLDEST,YOUNGEST.",
        )
    found = tuple(_find_field(wanted, names, path, notes) for wanted in fields or legend.candidates[0])
    if len(legend.candidates) > 1:
        notes.append(f"The age is read from {', '.join(found)} of {path.name}.")
        log.info(notes[-1])
    return found


def _find_field(wanted: str, names: list[str], path: Path, notes: list[str]) -> str:
    """The field's name as the file spells it: exact, else alone up to upper and lower case."""
    if wanted in names:
        return wanted
    alike = [name for name in names if name.lower() == wanted.lower()]
    if len(alike) == 1:
        notes.append(f"The field {wanted} is spelled {alike[0]} in {path.name}; taken.")
        log.info(notes[-1])
        return alike[0]
    if alike:
        raise InputError(f"{path} has {' and '.join(alike)}, but not {wanted}.", "Say which with --field.")
    raise InputError(
        f"{path} has no field {wanted}; its fields are {', '.join(names) or 'none'}.",
        "Give --field, or a --legend made for this map.",
    )


def _systems(stated: Any, legend: Legend, path: Path, notes: list[str]) -> tuple[str, Any, Any]:
    """The map's system, and transformers from degrees to it (for the box) and from it to degrees."""
    if not stated and not legend.crs:
        hint = 'Add its .prj, or write crs = "EPSG:4326" (whatever it is) under [map] in its legend.'
        raise InputError(f"{path} does not say its coordinate system.", hint)
    if not stated:
        notes.append(f"{path.name} does not say its coordinate system; {legend.crs}, as its legend states.")
        log.info(notes[-1])
    try:
        crs = CRS.from_user_input(stated or legend.crs)
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


def _valid_polygons(shapes: NDArray[Any], to_degrees: Any, crs: str) -> tuple[NDArray[Any], NDArray[np.bool_], int]:
    """Valid polygons in degrees, which of the input they are, and how many had to be mended."""
    areal = np.isin(shapely.get_type_id(shapes), (3, 6)) & ~shapely.is_empty(shapes)
    # Mended before edges are cut up: GEOS would then silently drop a lobe of a bow tie.
    shapes, bad = _mend(shapely.force_2d(shapes[areal]))
    if to_degrees is not None:
        if CRS.from_user_input(to_degrees.source_crs).is_projected:
            metres = to_degrees.source_crs.axis_info[0].unit_conversion_factor or 1.0
            shapes = shapely.segmentize(shapes, LONGEST_EDGE_M / metres)

        def degrees(points: NDArray[np.float64]) -> NDArray[np.float64]:
            lon, lat = to_degrees.transform(points[:, 0], points[:, 1])
            return np.column_stack([lon, lat])

        shapes = shapely.transform(shapes, degrees)
        # Another system may make an edge cross its neighbour.
        shapes, worse = _mend(shapes)
        bad |= worse
    mended = int(np.count_nonzero(bad))
    solid = ~shapely.is_empty(shapes)
    kept = np.zeros(len(areal), dtype=bool)
    kept[np.flatnonzero(areal)[solid]] = True
    return shapes[solid], kept, mended


def _mend(shapes: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Valid polygons, and which of them were not."""
    bad: NDArray[np.bool_] = ~shapely.is_valid(shapes)
    if bad.any():
        shapes = shapes.copy()
        shapes[bad] = shapely.make_valid(shapes[bad])
        shapes[bad] = [_areal_part(shape) for shape in shapes[bad]]
    return shapes, bad


def _areal_part(shape: Any) -> Any:
    """The polygons in what mending left: a bow tie's crossing may leave lines and points too."""
    parts = shapely.get_parts(shape)
    return shapely.union_all(parts[np.isin(shapely.get_type_id(parts), (3, 6))])


def _code(value: Any) -> str:
    """A field's value as text: as normal_code has it, 7.0 written 7, nothing at all as the empty code."""
    if value is None or value != value or str(value) == "<NA>":  # NaN is the only value unlike itself
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return normal_code(str(value))
