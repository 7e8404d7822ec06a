"""Checking a legend against a map: the class and area of each code, from the polygons themselves."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from gravmap.errors import InputError
from gravmap.geology.ages import UnknownAge, parse_age
from gravmap.geology.areas import crossing_areas_km2, polygon_areas_km2
from gravmap.geology.legend import INTRUSIVE, Legend, Override, normalize_code
from gravmap.regions import Region

if TYPE_CHECKING:
    from gravmap.geology.geological_map import MapPolygons

# Cyrillic letters that look like Latin ones: maps of the former Soviet Union may use either in codes.
_LOOK_ALIKE = str.maketrans("АВЕКМНОРСТХаеорсухѕіј", "ABEKMHOPCTXaeopcyxsij")
# A field of rock types has few values, and short ones.
_MOST_VALUES, _LONGEST_VALUE = 12, 24


@dataclass(frozen=True)
class CodeFound:
    """A code of a map.

    Attributes
    ----------
    code : str
        Value of the code field, or the age.
    others : dict of str to str
        Codes of the override fields, without blank ones.
    index : int or None
        Class index, 255 not usable, None if the code is not in the legend.
    polygons : int
        Number of polygons.
    area_km2 : float
        Their total area on the ellipsoid.
    note : str
        Why the code is unknown and which known code is similar; or an unknown code of an override field.
    """

    code: str
    others: dict[str, str]
    index: int | None
    polygons: int
    area_km2: float
    note: str = ""


@dataclass(frozen=True)
class LegendCheck:
    """Result of checking a legend against a map.

    Attributes
    ----------
    file, legend, field, crs : str
        File of the map, name of the legend, field or fields read, coordinate reference system of the map.
    codes : tuple of CodeFound
        All combinations of codes, the largest area first.
    class_km2 : dict of int to float
        Area of each class of the legend, and of 255, which includes unknown codes.
    unused_classes : tuple of int
        Classes without polygons.
    absent_codes : tuple of str
        Codes of the legend that are not on the map.
    polygons, mended, dropped : int
        Polygons; invalid ones among them; features without area, which are left out.
    notes : tuple of str
        Decisions made while reading.
    rock_fields : dict of str to dict of str to float
        :func:`rock_fields`, where a class of intrusive rocks has no polygons and the legend reads no second field.

    Examples
    --------
    >>> from gravmap.geology.legend_check import LegendCheck
    >>> from gravmap.geology.legend_check import CodeFound
    >>> codes = (CodeFound("D", {}, 6, 3, 120.0), CodeFound("xx", {}, None, 1, 5.0))
    >>> check = LegendCheck("map.gpkg", "mine", "UNIT", "EPSG:4326", codes, {6: 120.0, 255: 5.0}, (), (), 4, 0, 0, ())
    >>> [code.code for code in check.unknown]
    ['xx']
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
    rock_fields: dict[str, dict[str, float]] = dataclass_field(default_factory=dict)

    @property
    def unknown(self) -> tuple[CodeFound, ...]:
        """Codes that are not in the legend."""
        return tuple(entry for entry in self.codes if entry.index is None)


def check_legend(path: Path, legend: Legend, region: Region | None = None) -> LegendCheck:
    r"""Check a legend against a map.

    Overlapping polygons are all counted in full: areas are those of the polygons, not of a raster.

    Parameters
    ----------
    path : Path
        The map.
    legend : Legend
        Fields and codes to check.
    region : Region, optional
        Part of the map to check, degrees; by default the whole map.

    Raises
    ------
    InputError
        The map cannot be read, or has no polygons in the region.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import geopandas, shapely
    >>> from gravmap.geology import check_legend
    >>> from gravmap.geology.legend_file import read_legend
    >>> legend = read_legend('name = "toy"\nclasses = "basement10"\n[map]\nfield = "UNIT"\n[map.codes]\nD = 6\n', "toy")
    >>> boxes = [shapely.box(80, 44, 81, 45), shapely.box(81, 44, 82, 45)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "map.gpkg"
    ...     geopandas.GeoDataFrame({"UNIT": ["D", "d"]}, geometry=boxes, crs="EPSG:4326").to_file(path)
    ...     check = check_legend(path, legend)
    >>> [(code.code, code.note) for code in check.unknown]
    [('d', 'differs from D only in case or the way it is written')]
    """
    polygons, areas = polygons_with_areas(path, legend, region)
    positions: dict[tuple[str, ...], list[int]] = {}
    for position, code in enumerate(polygons.codes):
        if region is None or areas[position] > 0:  # polygons near the region are read too
            positions.setdefault(code, []).append(position)
    found = [_found(legend, code, len(where), float(areas[where].sum())) for code, where in positions.items()]
    class_km2 = {entry.index: 0.0 for entry in legend.classes} | {255: 0.0}
    for entry in found:
        class_km2[255 if entry.index is None else entry.index] += entry.area_km2
    used = {entry.index for entry in found}
    present = {entry.code for entry in found}
    no_intrusions = any(entry.index not in used and {*entry.rocks} & {*INTRUSIVE} for entry in legend.classes)
    return LegendCheck(
        path.name,
        legend.name,
        polygons.fields[0],
        polygons.crs,
        tuple(sorted(found, key=lambda entry: (-entry.area_km2, entry.code))),
        class_km2,
        tuple(entry.index for entry in legend.classes if entry.index not in used),
        tuple(code for code in legend.codes if code not in present),
        sum(entry.polygons for entry in found),
        polygons.mended,
        polygons.dropped,
        polygons.notes,
        rock_fields(path, legend, region) if no_intrusions and not legend.overrides else {},
    )


def polygons_with_areas(path: Path, legend: Legend, region: Region | None) -> tuple[MapPolygons, NDArray[np.float64]]:
    """Polygons of a map, and the area of each on the ellipsoid (in the region), km².

    Raises
    ------
    InputError
        The map cannot be read, or has no polygons in the region.
    """
    from gravmap.geology.geological_map import read_map  # slow to import

    polygons = read_map(path, legend, region)
    shapes = polygons.geometries.copy()
    invalid = ~shapely.is_valid(shapes)
    areas = np.zeros(len(shapes))
    bounds = None if region is None else region.bounds_wsen
    areas[invalid] = crossing_areas_km2(shapes[invalid], bounds)
    shapes = shapes[~invalid]
    if region is not None and len(shapes):
        shapes = shapely.intersection(shapes, shapely.box(*region.bounds_wsen))
        shapes = np.array([_polygons_of(shape) for shape in shapes], dtype=object)
    areas[~invalid] = polygon_areas_km2(shapes)
    if not areas.any():
        where = "" if region is None else f" in the region {region}"
        raise InputError(f"{path} has no polygons{where}.", "Is it the right file, layer and region?")
    return polygons, areas


def rock_fields(path: Path, legend: Legend, region: Region | None = None) -> dict[str, dict[str, float]]:
    """Fields with few short values, of which one may say what the rock is.

    Parameters
    ----------
    path : Path
        The map.
    legend : Legend
        Its fields are left out.
    region : Region, optional
        Part of the map to read, degrees; by default the whole map.

    Returns
    -------
    dict of str to dict of str to float
        For each such field its values with their areas, km², the largest first.
    """
    from gravmap.geology.geological_map import fields_of_map  # slow to import

    own = {name.casefold() for names in legend.field_candidates for name in names}
    own |= {override.field.casefold() for override in legend.overrides}
    texts = [
        [name for name, is_text in fields.items() if is_text and name.casefold() not in own]
        for fields in fields_of_map(path).values()
        if legend.find_fields(fields)
    ]
    found = {}
    for name, values in _areas_by_value(path, legend, texts[0] if len(texts) == 1 else [], region).items():
        known = {value: area for value, area in values.items() if value and area > 0}
        if len(values) > 1 and 0 < len(known) <= _MOST_VALUES and max(map(len, known)) <= _LONGEST_VALUE:
            found[name] = dict(sorted(known.items(), key=lambda item: -item[1]))
    return found


def _areas_by_value(path: Path, legend: Legend, names: list[str], region: Region | None) -> dict[str, dict[str, float]]:
    """Area of each value of some fields; without those that cannot be read, such as lists and text of no encoding."""
    if not names:
        return {}
    try:
        with_fields = replace(legend, overrides=tuple(Override(name, {}, {}) for name in names))
        polygons, areas = polygons_with_areas(path, with_fields, region)
    except InputError:
        singly = names if len(names) > 1 else []
        return {name: each for one in singly for name, each in _areas_by_value(path, legend, [one], region).items()}
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for (_, *values), area in zip(polygons.codes, areas, strict=True):
        for name, value in zip(names, values, strict=True):
            found[name][value] = found[name].get(value, 0.0) + float(area)
    return found


def _polygons_of(shape: shapely.Geometry) -> shapely.Geometry:
    """The polygons of a geometry; intersection can also return lines and points."""
    if shape.geom_type in ("Polygon", "MultiPolygon"):
        return shape
    parts = shapely.get_parts(shapely.get_parts(shape))  # twice: a collection may contain multipolygons
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
            notes.append(f"{override.field} = {value} is unknown, the class from the first field is kept")
            notes.append(_similar_note(near))
    written = {key: value for key, value in others.items() if value}
    return CodeFound(code[0], written, index, polygons, area_km2, "; ".join(note for note in notes if note))


def _why_unknown(legend: Legend, code: str) -> str:
    near = similar_codes(code, legend.codes)
    if near or not legend.ages:
        return _similar_note(near)
    try:
        parse_age(code)
    except UnknownAge as reason:
        return str(reason)
    return ""


def _similar_note(near: list[str]) -> str:
    return f"differs from {', '.join(near)} only in case or the way it is written" if near else ""


def similar_codes(code: str, known: Iterable[str]) -> list[str]:
    """Known codes that differ from `code` only in case, white space, Unicode form, or look-alike letters."""
    return [other for other in known if other != code and _skeleton(other) == _skeleton(code)]


def _skeleton(code: str) -> str:
    # Look-alikes before case folding: a lower-case Cyrillic letter may not look like a Latin one.
    plain = unicodedata.normalize("NFKC", normalize_code(code).translate(_LOOK_ALIKE))
    return "".join(plain.casefold().split())
