"""Reading a geological map: choosing layer and field, reprojecting polygons to EPSG:4326, normalising codes.

pyogrio is slow to import, so this module is imported only where a map is read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.antimeridian import is_projected, turn_into, unwrap
from gravmap.geology.areas import are_flat
from gravmap.geology.legend import Legend, join_ages
from gravmap.geology.vector import (
    VectorFile,
    check_degrees,
    code_text,
    crs_transformers,
    geometry_types,
    open_vector,
    to_wgs84,
)
from gravmap.geology.wkb import take_parts
from gravmap.regions import Region

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapPolygons:
    """The polygons of a map in and around a region.

    Attributes
    ----------
    geometries : ndarray, shape (n,), object
        Shapely polygons and multipolygons, degrees on WGS 84, in the order of the file. They may be self-intersecting,
        which :mod:`gravmap.geology.scanline` handles.
    codes : list of tuple of str
        For each polygon the code (or the age, from :func:`gravmap.geology.legend.join_ages`), followed by the codes of
        the override fields.
    fields : tuple of str
        Names of these fields as spelled in the file; ``"b_age, t_age"`` for an age in two fields.
    crs : str
        Coordinate reference system of the file, or the one stated by the legend.
    mended, dropped : int
        Number of invalid polygons; number of features without area, which are left out.
    layer : str
        The layer read.
    notes : tuple of str
        Decisions made while reading, for display.
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
    """Read the polygons of a geological map in and near a region, or all of them.

    Parameters
    ----------
    path : Path
        GeoPackage, Shapefile, a zip archive of either, or another format of GDAL.
    legend : Legend
        Names the code field, the override fields, and the coordinate reference system of a file without one.
    region : Region or None
        The region, degrees; None for the whole map.

    Returns
    -------
    MapPolygons
        Reprojected to EPSG:4326 by PROJ, datum shift included; empty if the map does not intersect the region.

    Raises
    ------
    InputError
        The file is missing or unreadable, or has no coordinate reference system, no such field, or no polygons.
    """
    if not legend.field_candidates:
        raise InputError(
            f"The legend {legend.name} has classes but no [map]: no field and no codes.",
            "Give another --legend.",
        )
    if not path.exists():
        raise InputError(
            f"The map {path} is missing.", "Check the path, or download the maps known to gravmap with `gravmap fetch`."
        )
    file = open_vector(path)
    layer, info = _choose_layer(file, legend)
    notes: list[str] = []
    names = [str(name) for name in info["fields"]]
    first = _code_fields(legend, names, path, notes)
    others = [_find_field(entry.field, names, path, notes, _field_hint(legend)) for entry in legend.overrides]
    spelled = (", ".join(first), *others)
    crs, to_map, to_degrees = _map_transformers(info["crs"], legend, path, notes)
    box = None if region is None else _box(region, to_map, path, crs)
    projected = is_projected(to_degrees)
    turned = region is not None and _may_be_turned(region, None if projected else info["total_bounds"])
    if box is not None and turned and not projected:  # a polygon may be counted in another turn
        box = (-1e3, box[1], 1e3, box[3])
    known = {*legend.codes, *(code for entry in legend.overrides for code in entry.codes)}
    shapes, table = file.read(layer, columns=(*first, *spelled[1:]), box=box, known=known)
    if len(shapes) == 0 and info["total_bounds"] is not None:
        check_degrees(np.array(info["total_bounds"]), to_degrees, crs, path)
    if len(shapes) == 0:
        return MapPolygons(np.empty(0, dtype=object), [], spelled, crs, layer=layer, notes=tuple(notes))
    shapes = take_parts(shapes, 2)
    kept, invalid = _polygon_masks(shapes)
    if not kept.any():
        where = "" if region is None else " in the region"
        raise InputError(
            f"{path} has {', '.join(geometry_types(shapes))}{where}, no polygons.",
            "A label raster needs the map's polygon layer.",
        )
    check_degrees(shapely.bounds(shapes[kept]), to_degrees, crs, path)
    polygons, valid = to_wgs84(shapes[kept], to_degrees)
    if not valid.all():
        notes.append(
            f"{np.count_nonzero(~valid)} polygons of {path.name}{_planar_area(shapes[kept][~valid], to_degrees)} have "
            f"vertices that cannot be transformed from {crs}; ignored."
        )
        log.warning(notes[-1])
        kept[np.flatnonzero(kept)[~valid]] = False
    parts = [[code_text(value) for value in table[name][kept]] for name in first]
    columns = [[join_ages(values) for values in zip(*parts, strict=True)]]
    columns += [[code_text(value) for value in table[name][kept]] for name in spelled[1:]]
    dropped = int(np.count_nonzero(~kept))
    codes = list(zip(*columns, strict=True))
    mended = int(np.count_nonzero(invalid & kept))
    polygons, unwrapped = unwrap(polygons[valid], path, to_degrees)
    if region is not None and (turned or unwrapped.any()):
        polygons, owner = turn_into(polygons, region.west, region.east)
        codes = [codes[k] for k in owner]
    return MapPolygons(polygons, codes, spelled, crs, mended, dropped, layer, tuple(notes))


def fields_of_map(path: Path) -> dict[str, dict[str, bool]]:
    """The fields of each layer of a map, and whether each is one of text.

    Raises
    ------
    InputError
        The file is missing or unreadable.
    """
    if not path.exists():
        raise InputError(f"The map {path} is missing.", "Check the path.")
    file = open_vector(path)
    described = {name: file.info(name) for name, _ in file.layers}
    return {
        layer: {str(name): str(kind) == "object" for name, kind in zip(info["fields"], info["dtypes"], strict=True)}
        for layer, info in described.items()
    }


def map_region(path: Path, legend: Legend) -> Region | None:
    """Extent of a map, degrees; None if it cannot be determined (for messages)."""
    try:
        _, info = _choose_layer(open_vector(path), legend)
        bounds = info["total_bounds"]
        if bounds is None or not np.all(np.isfinite(bounds)):
            return None
        _, to_map, _ = _map_transformers(info["crs"], legend, path, [])
        return Region(*to_map.transform_bounds(*bounds, direction="INVERSE"))
    except (InputError, ValueError):
        return None
    except Exception as error:  # used for a message only
        log.debug("No extent for %s: %s", path, error)
        return None


def _box(region: Region, to_map: Any, path: Path, crs: str) -> tuple[float, float, float, float]:
    """Bounds of a region in the CRS of the map, with a margin."""
    box = to_map.transform_bounds(*region.bounds_wsen, densify_pts=21)
    if not np.all(np.isfinite(box)):
        raise InputError(
            f"The region {region} is outside the area of {crs}, the coordinate reference system of {path}.",
            "Check the coordinate reference system of the map.",
        )
    margin = 0.02 * max(box[2] - box[0], box[3] - box[1])
    return box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin


def _may_be_turned(region: Region, total_bounds: Any) -> bool:
    """Whether polygons may have to be turned by 360 degrees into a region; of a projected map the bounds are None."""
    margin = 0.02 * region.width_deg
    counted = total_bounds is not None and (total_bounds[0] < -180 or total_bounds[2] > 180)
    return bool(region.west - margin < -180 or region.east + margin > 180 or counted)


def _choose_layer(file: VectorFile, legend: Legend) -> tuple[str, dict[str, Any]]:
    """The layer with a candidate field of the legend, or the only layer."""
    path, layers = file.path, [name for name, _ in file.layers]
    if not layers:
        raise InputError(f"{path} has no layer with geometry.", "Give the polygons of a geological map.")
    described = {name: file.info(name) for name in layers}
    with_field = [name for name, info in described.items() if legend.find_fields(map(str, info["fields"]))]
    if len(layers) > 1 and len(with_field) > 1:
        raise InputError(
            f"{path} has the field {legend.field_names} in several layers: {', '.join(with_field)}.",
            "Save one of them as a file.",
        )
    if len(layers) > 1 and not with_field:
        raise InputError(
            f"No layer of {path} has the field {legend.field_names}: {', '.join(layers)}.",
            _field_hint(legend),
        )
    name = with_field[0] if with_field else layers[0]
    return name, described[name]


def _code_fields(legend: Legend, names: list[str], path: Path, notes: list[str]) -> tuple[str, ...]:
    """Field of the code, or the one or two fields of the age, as spelled in the file."""
    fields = legend.find_fields(names)
    if fields is None and len(legend.field_candidates) > 1:
        raise InputError(
            f"{path} has none of the fields of the legend {legend.name} ({legend.field_names}); "
            f"its fields are {', '.join(names) or 'none'}.",
            "Give the field with --field; two fields comma-separated: --field OLDEST,YOUNGEST.",
        )
    found = tuple(
        _find_field(field, names, path, notes, _field_hint(legend)) for field in fields or legend.field_candidates[0]
    )
    if len(legend.field_candidates) > 1:
        notes.append(f"The age is read from {', '.join(found)} of {path.name}.")
        log.info(notes[-1])
    return found


def _field_hint(legend: Legend) -> str:
    """What to do about a field that the map lacks; a legend without codes is one being drafted from --field."""
    return "Give --field, or a --legend made for this map." if legend.codes or legend.ages else "Give another --field."


def _find_field(field: str, names: list[str], path: Path, notes: list[str], hint: str) -> str:
    """Name of a field as spelled in the file: an exact match, else a unique match ignoring case."""
    if field in names:
        return field
    matches = [name for name in names if name.lower() == field.lower()]
    if len(matches) == 1:
        notes.append(f"The field {field} is spelled {matches[0]} in {path.name}.")
        log.info(notes[-1])
        return matches[0]
    if matches:
        raise InputError(f"{path} has {' and '.join(matches)}, but not {field}.", "Choose one with --field.")
    raise InputError(
        f"{path} has no field {field}; its fields are {', '.join(names) or 'none'}.",
        hint,
    )


def _map_transformers(stated: Any, legend: Legend, path: Path, notes: list[str]) -> tuple[str, Any, Any]:
    """CRS of the map, or else that of the legend, and transformers to and from it."""
    if not stated and legend.crs:
        notes.append(f"{path.name} has no coordinate reference system; {legend.crs} is used, as stated by the legend.")
        log.info(notes[-1])
    hint = 'Add its .prj, or write crs = "EPSG:NUMBER" under [map] in its legend.'
    if not (legend.codes or legend.ages):
        hint = "Add its .prj, or give --crs EPSG:NUMBER."
    return crs_transformers(stated or legend.crs, path, hint)


def _planar_area(polygons: NDArray[Any], to_degrees: Any) -> str:
    """Area of polygons in their projection, for a message; empty if it cannot be computed."""
    with np.errstate(all="ignore"):
        area = float(np.abs(shapely.area(polygons)).sum())
    if to_degrees is None or not to_degrees.source_crs.is_projected or not np.isfinite(area):
        return ""
    metres = to_degrees.source_crs.axis_info[0].unit_conversion_factor or 1.0
    return f" ({area * metres**2 / 1e6:,.0f} km² in its projection)"


def _polygon_masks(shapes: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which geometries are polygons with an area, and which of these are invalid."""
    polygonal = np.isin(shapely.get_type_id(shapes), (3, 6)) & ~shapely.is_empty(shapes)
    invalid = polygonal & ~shapely.is_valid(shapes)
    # The signed area of a figure of eight is zero, as is that of a line.
    doubtful = np.flatnonzero(invalid & (shapely.area(shapes) == 0))
    flat = doubtful[are_flat(shapes[doubtful])]
    polygonal[flat] = invalid[flat] = False
    return polygonal, invalid
