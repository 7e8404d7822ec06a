"""What a legend makes of a map, code by code, before anything is burned: areas of the polygons themselves."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.ages import UnknownAge, parse_age
from gravmap.geology.areas import polygon_areas_km2
from gravmap.geology.legend import Legend, normalize_code
from gravmap.regions import Region

if TYPE_CHECKING:
    from gravmap.geology.geological_map import MapPolygons

# Cyrillic letters that look Latin: a map of the former Soviet Union may write its codes with either.
_LOOK_ALIKE = str.maketrans("АВЕКМНОРСТХаеорсухѕіј", "ABEKMHOPCTXaeopcyxsij")


@dataclass(frozen=True)
class CodeFound:
    """A code of a map.

    Attributes
    ----------
    code : str
        Value of the legend's field, or the age.
    others : dict of str to str
        Override fields that are not blank, and their codes.
    index : int or None
        Class index, 255 not usable, None unknown to the legend.
    polygons : int
        How many have it.
    area_km2 : float
        Theirs together, on the ellipsoid.
    note : str
        Why it is unknown, and which known code it nearly is; or an unknown code of an override field.
    """

    code: str
    others: dict[str, str]
    index: int | None
    polygons: int
    area_km2: float
    note: str = ""


@dataclass(frozen=True)
class LegendCheck:
    """What a legend makes of a map.

    Attributes
    ----------
    file, legend, field, crs : str
        The map's file, the legend's name, the field or fields read, the map's own coordinate system.
    codes : tuple of CodeFound
        Every combination of codes met, the largest area first.
    class_km2 : dict of int to float
        Per class of the legend, and 255, which takes in what is unknown.
    unused_classes : tuple of int
        Classes without a polygon.
    absent_codes : tuple of str
        Codes of the legend that the map does not have.
    polygons, mended, dropped : int
        Polygons; invalid ones mended; features without area left out.
    notes : tuple of str
        What was decided while reading.
    """

    file: str
    legend: str
    field: str
    crs: str
    codes: tuple[CodeFound, ...]
    class_km2: dict[int, float]
    unused_classes: tuple[int, ...]
    absent_codes: tuple[str, ...]
    polygons: int
    mended: int
    dropped: int
    notes: tuple[str, ...]

    @property
    def unknown(self) -> tuple[CodeFound, ...]:
        """The codes that the legend does not know."""
        return tuple(entry for entry in self.codes if entry.index is None)


def check_legend(path: Path, legend: Legend, region: Region | None = None) -> LegendCheck:
    """Say what a legend makes of a map.

    Where polygons overlap, their ground is counted in each: the sums are those of the drawing, not of a raster.

    Parameters
    ----------
    path : Path
        The map.
    legend : Legend
        With the fields and codes to try.
    region : Region, optional
        Only what lies inside, degrees; the whole map when left out.

    Raises
    ------
    InputError
        The map cannot be read, or has no polygon here.
    """
    polygons, areas = polygons_with_areas(path, legend, region)
    at: dict[tuple[str, ...], list[int]] = {}
    for position, code in enumerate(polygons.codes):
        if region is None or areas[position] > 0:  # what lies beside the region was read with it
            at.setdefault(code, []).append(position)
    found = [_found(legend, code, len(where), float(areas[where].sum())) for code, where in at.items()]
    class_km2 = {entry.index: 0.0 for entry in legend.classes} | {255: 0.0}
    for entry in found:
        class_km2[255 if entry.index is None else entry.index] += entry.area_km2
    used = {entry.index for entry in found}
    met = {entry.code for entry in found}
    return LegendCheck(
        path.name,
        legend.name,
        polygons.fields[0],
        polygons.crs,
        tuple(sorted(found, key=lambda entry: (-entry.area_km2, entry.code))),
        class_km2,
        tuple(entry.index for entry in legend.classes if entry.index not in used),
        tuple(code for code in legend.codes if code not in met),
        sum(entry.polygons for entry in found),
        polygons.mended,
        polygons.dropped,
        polygons.notes,
    )


def polygons_with_areas(path: Path, legend: Legend, region: Region | None) -> tuple[MapPolygons, NDArray[np.float64]]:
    """A map's polygons, and the area that each has (in the region) on the ellipsoid, km².

    Raises
    ------
    InputError
        The map cannot be read, or has no polygon here.
    """
    from gravmap.geology.geological_map import read_map  # here: geopandas takes a second to load

    polygons = read_map(path, legend, region)
    shapes = polygons.geometries.copy()
    # An outline that crosses itself has no area of its own to speak of; only the burning of cells copes with it.
    bad = ~shapely.is_valid(shapes)
    shapes[bad] = [_areal(shape) for shape in shapely.make_valid(shapes[bad])]
    if region is not None and len(shapes):
        shapes = shapely.intersection(shapes, shapely.box(*region.bounds_wsen))
        shapes = np.array([_areal(shape) for shape in shapes], dtype=object)
    areas = polygon_areas_km2(shapes)
    if not areas.any():
        where = "" if region is None else f" in the region {region}"
        raise InputError(f"{path} has no polygon{where}.", "Is it the right file, layer and region?")
    return polygons, areas


def _areal(shape: shapely.Geometry) -> shapely.Geometry:
    """The polygons of what mending or cutting left: lines and points may be among it."""
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    parts = shapely.get_parts(shapely.get_parts(shape))  # twice: a collection may hold multipolygons
    return shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"])


def _found(legend: Legend, code: tuple[str, ...], polygons: int, area_km2: float) -> CodeFound:
    others = {override.field: value for override, value in zip(legend.overrides, code[1:], strict=True)}
    index = legend.classify(code[0], others)
    notes = []
    if index is None:
        notes.append(_why_unknown(legend, code[0]))
    for override in legend.overrides:
        value = others[override.field]
        if value and value not in override.codes:
            near = similar_codes(value, override.codes)
            notes.append(f"{override.field} = {value} is unknown, the age is kept")
            notes.append(_like(near))
    written = {key: value for key, value in others.items() if value}
    return CodeFound(code[0], written, index, polygons, area_km2, "; ".join(note for note in notes if note))


def _why_unknown(legend: Legend, code: str) -> str:
    near = similar_codes(code, legend.codes)
    if near or not legend.ages:
        return _like(near)
    try:
        parse_age(code)
    except UnknownAge as reason:
        return str(reason)
    return ""


def _like(near: list[str]) -> str:
    return f"differs from {', '.join(near)} only in case or the way it is written" if near else ""


def similar_codes(code: str, known: Iterable[str]) -> list[str]:
    """Codes that differ from `code` only in case, white space, Unicode form, or letters that look alike."""
    return [other for other in known if other != code and _skeleton(other) == _skeleton(code)]


def _skeleton(code: str) -> str:
    # Look-alikes first: the lower case of a Cyrillic capital may look like no Latin letter.
    plain = unicodedata.normalize("NFKC", normalize_code(code).translate(_LOOK_ALIKE))
    return "".join(plain.casefold().split())
