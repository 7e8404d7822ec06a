"""Reading a geological map: the right layer and field, polygons in EPSG:4326, codes without their padding.

GDAL's reader takes a while to load, so this file is imported only where a map is read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.legend import Legend, join_ages
from gravmap.geology.vector import (
    UNREADABLE,
    code_text,
    crs_transformers,
    gdal_path,
    geometry_types,
    read_shapes,
    to_wgs84,
)
from gravmap.regions import Region

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapPolygons:
    """The polygons of a map in and around a region.

    Attributes
    ----------
    geometries : ndarray, shape (n,), object
        Shapely polygons and multipolygons, degrees on WGS 84, in the order of the file. They may cross themselves:
        filling them cell by cell (:mod:`gravmap.geology.scanline`) mends that.
    codes : list of tuple of str
        Per polygon the code of the legend's field (or its age, as :func:`gravmap.geology.legend.join_ages` writes
        it), then those of its override fields.
    fields : tuple of str
        Names of these fields as the file spells them; ``"b_age, t_age"`` where the age stands in two.
    crs : str
        The file's own coordinate system, or the one the legend stated for it.
    mended, dropped : int
        How many of the polygons are invalid; features left out because they hold no area.
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
    if not legend.field_candidates:
        raise InputError(
            f"The legend {legend.name} has classes but no [map]: it says no field and no codes.",
            "Give another --legend.",
        )
    if not path.exists():
        raise InputError(
            f"The map {path} is missing.", "Check the path, or `gravmap fetch` the maps that gravmap knows."
        )
    source = gdal_path(path)
    try:
        layer, info = _choose_layer(source, legend, path)
    except UNREADABLE as error:
        raise InputError(
            f"{path} is no map that GDAL can read: {error}.",
            "Bring a GeoPackage or a Shapefile (.shp with .shx and .dbf).",
        ) from None
    notes: list[str] = []
    names = [str(name) for name in info["fields"]]
    first = _code_fields(legend, names, path, notes)
    spelled = (", ".join(first), *(_find_field(entry.field, names, path, notes) for entry in legend.overrides))
    crs, to_map, to_degrees = _map_transformers(info["crs"], legend, path, notes)
    box = None if region is None else _box(region, to_map, path, crs)
    try:
        shapes, table = read_shapes(source, layer, columns=list(dict.fromkeys((*first, *spelled[1:]))), box=box)
    except UnicodeDecodeError as error:
        raise InputError(
            f"The text in {path} is not in the encoding it states: {error}.",
            "For a Shapefile write the right one, such as CP1251 or ISO-8859-1, into a .cpg file beside it.",
        ) from None
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read: {error}.", "Is the file whole? A Shapefile needs its .shx and .dbf beside it."
        ) from None
    if len(shapes) == 0:
        return MapPolygons(np.empty(0, dtype=object), [], spelled, crs, layer=layer, notes=tuple(notes))
    kept, bad = _areal(shapes)
    if not kept.any():
        raise InputError(
            f"{path} has {', '.join(geometry_types(shapes))}{'' if region is None else ' in the region'}, no polygons.",
            "A label raster needs the map's polygon layer.",
        )
    polygons, sound = to_wgs84(shapes[kept], to_degrees)
    kept[np.flatnonzero(kept)[~sound]] = False
    if not sound.all():
        notes.append(
            f"{np.count_nonzero(~sound)} polygons of {path.name} have corners that {crs} cannot place; left out."
        )
        log.warning(notes[-1])
    parts = [[code_text(value) for value in table[name][kept]] for name in first]
    columns = [[join_ages(values) for values in zip(*parts, strict=True)]]
    columns += [[code_text(value) for value in table[name][kept]] for name in spelled[1:]]
    dropped = int(np.count_nonzero(~kept))
    codes = list(zip(*columns, strict=True))
    mended = int(np.count_nonzero(bad & kept))
    return MapPolygons(polygons[sound], codes, spelled, crs, mended, dropped, layer, tuple(notes))


def map_region(path: Path, legend: Legend) -> Region | None:
    """Where a map lies, degrees; None when it says nothing (for messages)."""
    try:
        _, info = _choose_layer(gdal_path(path), legend, path)
        bounds = info["total_bounds"]
        if bounds is None or not np.all(np.isfinite(bounds)):
            return None
        _, to_map, _ = _map_transformers(info["crs"], legend, path, [])
        return Region(*to_map.transform_bounds(*bounds, direction="INVERSE"))
    except (*UNREADABLE, InputError, ValueError):
        return None
    except Exception as error:  # only a message is at stake here
        log.debug("No extent for %s: %s", path, error)
        return None


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
    with_field = [name for name, info in described.items() if legend.find_fields(map(str, info["fields"]))]
    if len(layers) > 1 and len(with_field) > 1:
        raise InputError(
            f"{path} has the field {legend.field_names} in several layers: {', '.join(with_field)}.",
            "Save the one you mean as its own file.",
        )
    if len(layers) > 1 and not with_field:
        raise InputError(
            f"No layer of {path} has the field {legend.field_names}: {', '.join(layers)}.",
            "Give --field, or another --legend.",
        )
    name = with_field[0] if with_field else layers[0]
    return name, described[name]


def _code_fields(legend: Legend, names: list[str], path: Path, notes: list[str]) -> tuple[str, ...]:
    """The field of the code, or the one or two of the age, as the file spells them."""
    fields = legend.find_fields(names)
    if fields is None and len(legend.field_candidates) > 1:
        raise InputError(
            f"{path} has none of the fields the legend {legend.name} looks for ({legend.field_names}); "
            f"its fields are {', '.join(names) or 'none'}.",
            "Name the field with --field; two with a comma between: --field OLDEST,YOUNGEST.",
        )
    found = tuple(_find_field(wanted, names, path, notes) for wanted in fields or legend.field_candidates[0])
    if len(legend.field_candidates) > 1:
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


def _map_transformers(stated: Any, legend: Legend, path: Path, notes: list[str]) -> tuple[str, Any, Any]:
    """The map's system, or else the legend's, and transformers to it and from it."""
    if not stated and legend.crs:
        notes.append(f"{path.name} does not say its coordinate system; {legend.crs}, as its legend states.")
        log.info(notes[-1])
    hint = 'Add its .prj, or write crs = "EPSG:4326" (whatever it is) under [map] in its legend.'
    return crs_transformers(stated or legend.crs, path, hint)


def _areal(shapes: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which shapes are polygons with an area, and which of these are invalid."""
    areal = np.isin(shapely.get_type_id(shapes), (3, 6)) & ~shapely.is_empty(shapes)
    bad = areal & ~shapely.is_valid(shapes)
    # A figure of eight has no area by its outline's formula, as a line drawn to and fro has none; only mending tells.
    doubtful = np.flatnonzero(bad & (shapely.area(shapes) == 0))
    flat = doubtful[shapely.area(shapely.make_valid(shapes[doubtful])) == 0]
    areal[flat] = bad[flat] = False
    return areal, bad
